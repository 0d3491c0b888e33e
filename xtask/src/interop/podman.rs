//! Debian's podman, which calls the runtime through `conmon`.
//!
//! Its default limits are above what a machine without CAP_SYS_RESOURCE may set, so lower ones are configured.

use super::{Caller, Step};

const PRELUDE: &str = r#"
CONTAINERS_CONF=$D/containers.conf; export CONTAINERS_CONF
P="podman --root $D/root --runroot $D/run --tmpdir $D/tmp --cgroup-manager cgroupfs --events-backend file --runtime $RUNTIME"
p() { $P "$@"; }
# run -d, named, without a network
start() { name=$1; shift; p run -d --name "$name" --network none "$@"; }
running() { expect "$(p inspect --format '{{.State.Status}}' "$1")" running; }
stopped() { [ "$(p inspect --format '{{.State.Status}}' "$1")" = exited ]; }
cgroup_file() { cat "/sys/fs/cgroup/$2$(sed -n "s/^[0-9]*:$2://p" "/proc/$(p inspect --format '{{.State.Pid}}' "$1")/cgroup")/$3"; }
logged() { p logs "$1" 2>&1 | grep -q "$2"; }
"#;

/// Podman's steps.
pub(super) const CALLER: Caller = Caller {
    name: "podman",
    programs: &["podman", "conmon", "script"],
    prelude: PRELUDE,
    cgroup: "/libpod-",
    steps: &[
        Step {
            name: "prepare the image",
            script: r#"
cat >$CONTAINERS_CONF <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime_supports_json = ["crun", "runc", "stanza-oci"]
runtime_supports_nocgroup = ["crun", "stanza-oci"]
END
p load --quiet --input $ARCHIVE
"#,
        },
        Step {
            name: "info",
            script: r#"contains "$(p info --format '{{.Host.OCIRuntime.Path}}')" "$RUNTIME""#,
        },
        Step { name: "run", script: r#"expect "$(p run --rm --network none $IMAGE echo hello)" hello"# },
        Step {
            name: "run, the exit code",
            script: "fails_with 7 p run --rm --network none $IMAGE sh -c 'exit 7'",
        },
        Step {
            name: "run, no such command",
            script: "fails_with 127 p run --rm --network none $IMAGE nothing-here",
        },
        Step { name: "run, not a program", script: "fails_with 126 p run --rm --network none $IMAGE /etc" },
        Step {
            name: "run, standard input",
            script: r#"expect "$(echo through | p run --rm -i --network none $IMAGE cat)" through"#,
        },
        Step {
            name: "run on a terminal",
            script: r#"contains "$(on_terminal "$P run --rm -it --network none $IMAGE sh -c 'tty; stty size'")" /dev/pts/0"#,
        },
        Step {
            name: "run, options of the process",
            script: r#"
out=$(p run --rm --network none --user 1000:1000 --env A=b --workdir /tmp --hostname room --group-add 5 --umask 0077 \
  $IMAGE sh -c 'id -u; id -g; id -G; echo $A; pwd; hostname; umask' | tr '\n' ' ')
expect "$out" "1000 1000 1000 5 b /tmp room 0077 "
"#,
        },
        Step {
            name: "run, options of the file system",
            script: r#"
mkdir -p $D/shared; echo from-outside >$D/shared/a
expect "$(p run --rm --network none -v $D/shared:/shared $IMAGE sh -c 'cat /shared/a; echo from-inside >/shared/b')" from-outside
expect "$(cat $D/shared/b)" from-inside
fails_with 1 p run --rm --network none -v $D/shared:/shared:ro $IMAGE touch /shared/c
fails_with 1 p run --rm --network none --read-only $IMAGE touch /c
p run --rm --network none --read-only --tmpfs /scratch $IMAGE touch /scratch/c
"#,
        },
        Step {
            name: "run, options of security",
            script: r#"
expect "$(p run --rm --network none --cap-drop ALL $IMAGE sed -n 's/^CapEff:\t//p' /proc/self/status)" 0000000000000000
expect "$(p run --rm --network none --cap-drop ALL --cap-add CHOWN $IMAGE sed -n 's/^CapEff:\t//p' /proc/self/status)" 0000000000000001
expect "$(p run --rm --network none $IMAGE sed -n 's/^Seccomp:\t//p' /proc/self/status)" 2
expect "$(p run --rm --network none --security-opt seccomp=unconfined $IMAGE sed -n 's/^Seccomp:\t//p' /proc/self/status)" 0
expect "$(p run --rm --network none --security-opt no-new-privileges $IMAGE sed -n 's/^NoNewPrivs:\t//p' /proc/self/status)" 1
printf '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}' >$D/profile.json
contains "$(p run --rm --network none --security-opt seccomp=$D/profile.json $IMAGE mkdir /x 2>&1)" "not implemented"
"#,
        },
        Step {
            name: "run, options of resources",
            script: r#"
start limits --memory 64m --cpus 0.5 --cpu-shares 512 --pids-limit 50 --cpuset-cpus 0 $IMAGE sleep 1000
expect "$(cgroup_file limits memory memory.limit_in_bytes)" 67108864
expect "$(cgroup_file limits cpu cpu.cfs_quota_us) $(cgroup_file limits cpu cpu.cfs_period_us)" "50000 100000"
expect "$(cgroup_file limits cpu cpu.shares)" 512
expect "$(cgroup_file limits pids pids.max)" 50
expect "$(cgroup_file limits cpuset cpuset.cpus)" 0
p rm -f -t 0 limits
"#,
        },
        Step {
            name: "run, devices and limits of the process",
            script: r#"
expect "$(p run --rm --network none --device /dev/fuse $IMAGE sh -c 'test -c /dev/fuse && echo there')" there
expect "$(p run --rm --network none --ulimit nofile=100:200 --ulimit nproc=100:200 $IMAGE sh -c 'ulimit -n; ulimit -Hn' | tr '\n' ' ')" "100 200 "
expect "$(p run --rm --network none --sysctl kernel.msgmax=4096 $IMAGE cat /proc/sys/kernel/msgmax)" 4096
expect "$(p run --rm --network none --oom-score-adj 500 $IMAGE cat /proc/self/oom_score_adj)" 500
"#,
        },
        Step {
            name: "run with an init",
            script: r#"contains "$(p run --rm --network none --init $IMAGE cat /proc/1/cmdline | tr '\0' ' ')" "/run/podman-init -- cat""#,
        },
        Step {
            name: "run in the host's name spaces",
            script: r#"
out=$(p run --rm --network host --pid host --ipc host --uts host $IMAGE sh -c 'for i in pid net ipc uts; do readlink /proc/self/ns/$i; done')
same "$out" "$(for i in pid net ipc uts; do readlink /proc/self/ns/$i; done)"
"#,
        },
        Step {
            name: "run in another container's name spaces",
            script: r#"
start first $IMAGE sleep 1000
expect "$(p run --rm --network container:first --pid container:first --ipc container:first $IMAGE cat /proc/1/cmdline | tr '\0' ' ')" "sleep 1000 "
p rm -f -t 0 first
"#,
        },
        Step {
            name: "run in a user name space",
            script: r#"
expect "$(p run --rm --network none --uidmap 0:100000:1000 --gidmap 0:200000:1000 $IMAGE sh -c 'id -u; cat /proc/self/uid_map' | tr -s ' \n' ' ')" "0 0 100000 1000 "
"#,
        },
        Step {
            name: "run, privileged",
            script: r#"
expect "$(p run --rm --network none --privileged $IMAGE sed -n 's/^Seccomp:\t//p' /proc/self/status)" 0
p run --rm --network none --privileged $IMAGE sh -c 'mount -t tmpfs tmpfs /tmp && test -e /dev/full'
"#,
        },
        Step {
            name: "run, descriptors kept",
            script: r#"
exec 3<<END
from descriptor three
END
expect "$(p run --rm -i --network none --preserve-fds 1 $IMAGE cat /proc/self/fd/3)" "from descriptor three"
"#,
        },
        Step {
            name: "run, tmpfs with what was there",
            script: r#"
contains "$(p run --rm --network none --mount type=tmpfs,dst=/etc,tmpcopyup $IMAGE cat /etc/passwd)" "user:x:1000"
"#,
        },
        Step {
            name: "run, no descriptor comes along",
            script: r#"
exec 7</etc/passwd
expect "$(p run --rm --network none $IMAGE ls /proc/self/fd | tr '\n' ' ')" "0 1 2 3 "
"#,
        },
        Step {
            name: "run, masks",
            script: r#"
expect "$(p run --rm --network none --security-opt mask=/etc/passwd $IMAGE cat /etc/passwd)" ""
expect "$(p run --rm --network none $IMAGE sh -c 'wc -c </proc/timer_list; ls /sys/firmware; ls /proc/scsi')" 0
fails_with 1 p run --rm --network none $IMAGE sh -c 'echo h >/proc/sysrq-trigger'
test "$(p run --rm --network none --security-opt unmask=ALL $IMAGE wc -c /proc/timer_list | cut -d' ' -f1)" != 0
"#,
        },
        Step {
            name: "run, name spaces of cgroups",
            script: r#"
expect "$(p run --rm --network none --cgroupns private $IMAGE sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)" /
contains "$(p run --rm --network none --cgroupns host $IMAGE sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)" /libpod_parent/libpod-
"#,
        },
        Step {
            name: "run with systemd's mounts",
            script: r#"
contains "$(p run --rm --network none --systemd always $IMAGE cat /proc/mounts)" " /sys/fs/cgroup/systemd cgroup rw,"
p run --rm --network none --systemd always $IMAGE mkdir /sys/fs/cgroup/systemd/below
"#,
        },
        Step {
            name: "run without cgroups",
            script: r#"
[ "$(basename $RUNTIME)" != runc ] || skip "runc has no such mode"
same "$(p run --rm --network none --cgroups disabled $IMAGE cat /proc/self/cgroup)" "$(cat /proc/self/cgroup)"
"#,
        },
        Step {
            name: "run, hooks",
            script: r#"
mkdir -p $D/hooks
printf '#!/bin/sh\ncat >%s/hook.$1\n' $D >$D/hook
chmod +x $D/hook
for stage in prestart createRuntime createContainer startContainer poststart poststop; do
  # Those two run inside the container, where there is no such program.
  case $stage in createContainer | startContainer) continue ;; esac
  printf '{"version":"1.0.0","hook":{"path":"%s/hook","args":["hook","%s"]},"when":{"always":true},"stages":["%s"]}' \
    $D $stage $stage >$D/hooks/$stage.json
done
p --hooks-dir $D/hooks run --rm --network none --name hooked $IMAGE true
for stage in prestart createRuntime poststart poststop; do contains "$(cat $D/hook.$stage)" '"ociVersion"'; done
contains "$(tr -d ' ' <$D/hook.createRuntime)" '"status":"creat'
contains "$(tr -d ' ' <$D/hook.poststop)" '"status":"stopped"'
"#,
        },
        Step {
            name: "run, a hook that fails",
            script: r#"
mkdir -p $D/bad
printf '{"version":"1.0.0","hook":{"path":"/bin/false","args":["false"]},"when":{"always":true},"stages":["createRuntime"]}' >$D/bad/a.json
out=$(p --hooks-dir $D/bad run --rm --network none $IMAGE true 2>&1) && exit 1
contains "$out" hook
"#,
        },
        Step {
            name: "run, many at once",
            script: r#"
for i in 1 2 3 4 5 6 7 8 9 10; do p run --rm --network none $IMAGE echo $i >$D/many.$i 2>&1 & done
wait
expect "$(cat $D/many.* | sort -n | tr '\n' ' ')" "1 2 3 4 5 6 7 8 9 10 "
"#,
        },
        Step {
            name: "run with flags of the runtime",
            script: r#"expect "$(podman --runtime-flag debug $(echo $P | cut -d' ' -f2-) run --rm --network none $IMAGE echo hello)" hello"#,
        },
        Step {
            name: "logs",
            script: r#"
start talker $IMAGE sh -c 'echo to-output; echo to-error >&2; sleep 1000'
soon logged talker to-error
expect "$(p logs talker 2>/dev/null)" to-output
expect "$(p logs talker 2>&1 >/dev/null)" to-error
p rm -f -t 0 talker
"#,
        },
        Step {
            name: "create, start, wait, rm",
            script: r#"
p create --name later --network none $IMAGE sh -c 'exit 3'
expect "$(p inspect --format '{{.State.Status}}' later)" created
p start later
expect "$(p wait later)" 3
p start later
expect "$(p wait later)" 3
p rm later
fails_with 125 p inspect later
"#,
        },
        Step {
            name: "init, then start",
            script: r#"
p create --name ready --network none $IMAGE sh -c 'echo started; exit 4'
p init ready
expect "$(p inspect --format '{{.State.Status}}' ready)" initialized
test "$(p inspect --format '{{.State.Pid}}' ready)" -gt 0
expect "$(p logs ready)" ""
p start ready
expect "$(p wait ready)" 4
expect "$(p logs ready)" started
p rm ready
"#,
        },
        Step {
            name: "prepare a container to work with",
            script: "start long $IMAGE sleep 100000; running long",
        },
        Step {
            name: "exec",
            script: r#"
expect "$(p exec long echo inside)" inside
fails_with 9 p exec long sh -c 'exit 9'
fails_with 127 p exec long nothing-here
fails_with 126 p exec long /etc
expect "$(p exec --user user --workdir /tmp --env B=c long sh -c 'id -un; pwd; echo $B' | tr '\n' ' ')" "user /tmp c "
expect "$(echo through | p exec -i long cat)" through
expect "$(p exec --privileged long sed -n 's/^CapEff:\t//p' /proc/self/status)" "$(sed -n 's/^CapBnd:\t//p' /proc/self/status)"
"#,
        },
        Step {
            name: "exec, name spaces and cgroups",
            script: r#"
for i in pid mnt net ipc uts cgroup; do
  same "$(p exec long readlink /proc/self/ns/$i)" "$(readlink /proc/$(p inspect --format '{{.State.Pid}}' long)/ns/$i)"
done
same "$(p exec long cat /proc/self/cgroup)" "$(p exec long cat /proc/1/cgroup)"
"#,
        },
        Step {
            name: "exec on a terminal",
            script: r#"contains "$(on_terminal "$P exec -it long tty")" /dev/pts/"#,
        },
        Step {
            name: "exec, no descriptor comes along",
            script: r#"
exec 7</etc/passwd
expect "$(p exec long ls /proc/self/fd | tr '\n' ' ')" "0 1 2 3 "
"#,
        },
        Step {
            name: "exec, detached",
            script: r#"p exec -d long sh -c 'echo done >/tmp/detached'; soon p exec long grep -q done /tmp/detached"#,
        },
        Step {
            name: "top",
            script: r#"contains "$(p top long pid args)" "sleep 100000"; contains "$(p top long -ef)" "sleep 100000""#,
        },
        Step {
            name: "stats",
            script: r#"
contains "$(p stats --no-stream --format '{{.Name}} {{.PIDs}}' long)" "long 1"
"#,
        },
        Step {
            name: "pause, unpause",
            script: r#"
p pause long
expect "$(p inspect --format '{{.State.Status}}' long)" paused
expect "$(cgroup_file long freezer freezer.state)" FROZEN
fails_with 255 p exec long true
p unpause long
expect "$(cgroup_file long freezer freezer.state)" THAWED
p exec long true
"#,
        },
        Step {
            name: "update",
            script: r#"
p update --memory 100m --cpus 0.25 --cpu-shares 300 long
expect "$(cgroup_file long memory memory.limit_in_bytes)" 104857600
expect "$(cgroup_file long cpu cpu.cfs_quota_us)" 25000
expect "$(cgroup_file long cpu cpu.shares)" 300
"#,
        },
        Step {
            name: "kill",
            script: r#"
start trapper $IMAGE sh -c 'trap "echo caught" USR1; trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done'
soon logged trapper ready
p kill --signal USR1 trapper
soon logged trapper caught
p kill --signal TERM trapper
soon stopped trapper
expect "$(p inspect --format '{{.State.ExitCode}}' trapper)" 5
p rm trapper
"#,
        },
        Step {
            name: "stop",
            script: r#"
start obeys $IMAGE sh -c 'trap "exit 6" TERM; echo ready; while :; do sleep 0.1; done'
soon logged obeys ready
p stop -t 20 obeys
expect "$(p inspect --format '{{.State.ExitCode}}' obeys)" 6
start deaf $IMAGE sh -c 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
soon logged deaf ready
p stop -t 1 deaf
expect "$(p inspect --format '{{.State.ExitCode}}' deaf)" 137
p start deaf
running deaf
p restart -t 0 deaf
running deaf
p rm -f -t 0 obeys deaf
"#,
        },
        Step {
            name: "attach",
            script: r#"
p create -i --name listener --network none $IMAGE cat
p start listener
expect "$(echo attached | p attach listener)" attached
soon stopped listener
p rm listener
"#,
        },
        Step {
            name: "rm of a running container, and of a paused one",
            script: r#"
start victim $IMAGE sleep 1000
p rm -f -t 0 victim
start victim $IMAGE sleep 1000
p pause victim
p rm -f -t 0 victim
fails_with 1 p container exists victim
"#,
        },
        Step {
            name: "out of memory",
            script: r#"
fails_with 137 p run --rm --network none --memory 16m --memory-swap 16m $IMAGE tail /dev/zero
# Whether it was for lack of memory is not asked: conmon 2.1.6 does not tell podman with v1, under any runtime.
fails_with 137 p run --name greedy --network none --memory 16m --memory-swap 16m $IMAGE sh -c 'tail /dev/zero; exit $?'
expect "$(p inspect --format '{{.State.ExitCode}}' greedy)" 137
p rm greedy
"#,
        },
        Step {
            name: "health check",
            script: r#"
start healthy --health-cmd 'test -e /tmp/well' --health-interval disable --health-retries 1 $IMAGE sleep 1000
fails_with 1 p healthcheck run healthy
p exec healthy touch /tmp/well
p healthcheck run healthy
expect "$(p inspect --format '{{.State.Health.Status}}' healthy)" healthy
p rm -f -t 0 healthy
"#,
        },
        Step {
            name: "commit, diff, cp",
            script: r#"
start changed $IMAGE sh -c 'echo kept >/kept; sleep 1000'
soon p exec changed test -e /kept
contains "$(p diff changed)" "A /kept"
echo copied >$D/copied
p cp $D/copied changed:/copied
expect "$(p exec changed cat /copied)" copied
p cp changed:/kept $D/kept
expect "$(cat $D/kept)" kept
p rm -f -t 0 changed
"#,
        },
        Step {
            name: "pod",
            script: r#"
p pod create --name house --network none
p run -d --pod house --name room $IMAGE sleep 1000
running room
p pod stop -t 0 house
p pod rm house
"#,
        },
        Step {
            name: "checkpoint, restore",
            script: r#"
start counter $IMAGE sh -c 'n=0; while :; do n=$((n + 1)); echo $n; sleep 0.1; done'
soon logged counter '^5$'
if ! criu check >/dev/null 2>&1; then
  ! p container checkpoint counter
  running counter
  p rm -f -t 0 counter
  skip "refused as it must be: $(criu check 2>&1 | tail -n 1)"
fi
p container checkpoint counter
expect "$(p inspect --format '{{.State.Status}}' counter)" exited
last=$(p logs counter | tail -n 1)
p container restore counter
running counter
soon logged counter "^$((last + 3))$"
p rm -f -t 0 counter
"#,
        },
        Step {
            name: "runtime's log",
            script: r#"
contains "$(p run --rm --network none --cgroup-parent /x --workdir /etc/passwd $IMAGE true 2>&1 || true)" "/etc/passwd"
"#,
        },
        Step { name: "remove all", script: r#"p rm -a -f -t 0; expect "$(p ps -aq)" ""; nothing_left"# },
    ],
};
