//! Debian's dockerd with the runtime added, driven by Debian's client.
//!
//! The daemon makes no bridge and no packet rules, since the room has only a loopback device.

use super::{Caller, Step};

const PRELUDE: &str = r#"
DOCKER="$(test -x /usr/bin/docker && echo /usr/bin/docker || echo docker) --host unix://$D/socket"
d() { $DOCKER "$@"; }
r() { d run --runtime stanza --network none "$@"; }
# run -d, named
start() { name=$1; shift; r -d --name "$name" "$@"; }
state() { d inspect --format "{{.State.$2}}" "$1"; }
is() { [ "$(state "$1" Status)" = "$2" ]; }
cgroup_file() { cat "/sys/fs/cgroup/$2$(sed -n "s/^[0-9]*:$2://p" "/proc/$(state "$1" Pid)/cgroup")/$3"; }
logged() { d logs "$1" 2>&1 | grep -q "$2"; }
"#;

/// Docker's steps.
pub(super) const CALLER: Caller = Caller {
    name: "docker",
    programs: &["dockerd", "script"],
    prelude: PRELUDE,
    cgroup: "/docker/",
    steps: &[
        Step {
            name: "prepare the daemon and the image",
            script: r#"
setsid dockerd --data-root $D/data --exec-root /run/docker --pidfile $D/pid --host unix://$D/socket --bridge none \
  --iptables=false --ip6tables=false --experimental --exec-opt native.cgroupdriver=cgroupfs \
  --add-runtime stanza=$RUNTIME --default-runtime stanza </dev/null >$D/log 2>&1 &
soon d version >/dev/null 2>&1 || { tail -n 20 $D/log; exit 1; }
d load --input $ARCHIVE
"#,
        },
        Step {
            name: "info",
            script: r#"
contains "$(d info --format '{{json .Runtimes}}')" "\"stanza\":{\"path\":\"$RUNTIME\""
expect "$(d info --format '{{.DefaultRuntime}}')" stanza
"#,
        },
        Step { name: "run", script: r#"expect "$(r --rm $IMAGE echo hello)" hello"# },
        Step { name: "run, the exit code", script: "fails_with 7 r --rm $IMAGE sh -c 'exit 7'" },
        Step { name: "run, no such command", script: "fails_with 127 r --rm $IMAGE nothing-here" },
        Step {
            name: "run, not a program",
            script: "fails_with 126 r --rm $IMAGE /bin/text; fails_with 126 r --rm $IMAGE /etc",
        },
        Step {
            name: "run, standard input",
            script: r#"expect "$(echo through | r --rm -i $IMAGE cat)" through"#,
        },
        Step {
            name: "run on a terminal",
            script: r#"contains "$(on_terminal "$DOCKER run --runtime stanza --network none --rm -it $IMAGE tty")" /dev/pts/0"#,
        },
        Step {
            name: "run, options of the process",
            script: r#"
out=$(r --rm --user 1000:1000 --env A=b --workdir /tmp --hostname room --group-add 5 $IMAGE \
  sh -c 'id -u; id -g; id -G; echo $A; pwd; hostname' | tr '\n' ' ')
expect "$out" "1000 1000 1000 5 b /tmp room "
expect "$(r --rm --user user $IMAGE id -un)" user
"#,
        },
        Step {
            name: "run, options of the file system",
            script: r#"
mkdir -p $D/shared; echo from-outside >$D/shared/a
expect "$(r --rm -v $D/shared:/shared $IMAGE sh -c 'cat /shared/a; echo from-inside >/shared/b')" from-outside
expect "$(cat $D/shared/b)" from-inside
fails_with 1 r --rm -v $D/shared:/shared:ro $IMAGE touch /shared/c
fails_with 1 r --rm --read-only $IMAGE touch /c
r --rm --read-only --tmpfs /scratch $IMAGE touch /scratch/c
r --rm -v keep:/kept $IMAGE sh -c 'echo kept >/kept/a'
expect "$(r --rm -v keep:/kept $IMAGE cat /kept/a)" kept
"#,
        },
        Step {
            name: "run, propagation of mounts",
            script: r#"
mkdir -p $D/spread
mount --bind $D/spread $D/spread
mount --make-shared $D/spread
mkdir $D/spread/later
start follower --mount type=bind,src=$D/spread,dst=/spread,bind-propagation=rslave $IMAGE sleep 1000
start loner --mount type=bind,src=$D/spread,dst=/spread $IMAGE sleep 1000
mount -t tmpfs tmpfs $D/spread/later
d exec follower grep -q "tmpfs /spread/later" /proc/mounts
! d exec loner grep -q "tmpfs /spread/later" /proc/mounts
d rm -f follower loner
umount $D/spread/later $D/spread
"#,
        },
        Step {
            name: "run, options of security",
            script: r#"
expect "$(r --rm --cap-drop ALL $IMAGE sed -n 's/^CapEff:\t//p' /proc/self/status)" 0000000000000000
expect "$(r --rm --cap-drop ALL --cap-add CHOWN $IMAGE sed -n 's/^CapEff:\t//p' /proc/self/status)" 0000000000000001
expect "$(r --rm $IMAGE sed -n 's/^Seccomp:\t//p' /proc/self/status)" 2
expect "$(r --rm --security-opt seccomp=unconfined $IMAGE sed -n 's/^Seccomp:\t//p' /proc/self/status)" 0
expect "$(r --rm --security-opt no-new-privileges $IMAGE sed -n 's/^NoNewPrivs:\t//p' /proc/self/status)" 1
printf '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}' >$D/profile.json
contains "$(r --rm --security-opt seccomp=$D/profile.json $IMAGE mkdir /x 2>&1 || true)" "not implemented"
"#,
        },
        Step {
            name: "run, options of resources",
            script: r#"
start limits --memory 64m --cpus 0.5 --cpu-shares 512 --pids-limit 50 --cpuset-cpus 0 --oom-score-adj 500 $IMAGE sleep 1000
expect "$(cgroup_file limits memory memory.limit_in_bytes)" 67108864
expect "$(cgroup_file limits cpu cpu.cfs_quota_us) $(cgroup_file limits cpu cpu.cfs_period_us)" "50000 100000"
expect "$(cgroup_file limits cpu cpu.shares)" 512
expect "$(cgroup_file limits pids pids.max)" 50
expect "$(cgroup_file limits cpuset cpuset.cpus)" 0
expect "$(cat /proc/$(state limits Pid)/oom_score_adj)" 500
d rm -f limits
"#,
        },
        Step {
            name: "run, devices and limits of the process",
            script: r#"
expect "$(r --rm --device /dev/fuse $IMAGE sh -c 'test -c /dev/fuse && echo there')" there
expect "$(r --rm --ulimit nofile=100:200 $IMAGE sh -c 'ulimit -n; ulimit -Hn' | tr '\n' ' ')" "100 200 "
expect "$(r --rm --sysctl kernel.msgmax=4096 $IMAGE cat /proc/sys/kernel/msgmax)" 4096
expect "$(r --rm --shm-size 8m $IMAGE sh -c 'df -k /dev/shm | tail -n 1' | tr -s ' ' | cut -d' ' -f2)" 8192
"#,
        },
        Step {
            name: "run, no descriptor comes along",
            script: r#"expect "$(r --rm $IMAGE ls /proc/self/fd | tr '\n' ' ')" "0 1 2 3 ""#,
        },
        Step {
            name: "run with an init",
            script: r#"contains "$(r --rm --init $IMAGE cat /proc/1/cmdline | tr '\0' ' ')" "/sbin/docker-init -- cat""#,
        },
        Step {
            name: "run in the host's name spaces",
            script: r#"
out=$(d run --rm --runtime stanza --network host --pid host --ipc host --uts host $IMAGE sh -c 'for i in pid net ipc uts; do readlink /proc/self/ns/$i; done')
same "$out" "$(for i in pid net ipc uts; do readlink /proc/self/ns/$i; done)"
"#,
        },
        Step {
            name: "run in another container's name spaces",
            script: r#"
start first --ipc shareable $IMAGE sleep 1000
expect "$(d run --rm --runtime stanza --network container:first --pid container:first --ipc container:first $IMAGE cat /proc/1/cmdline | tr '\0' ' ')" "sleep 1000 "
d rm -f first
"#,
        },
        Step {
            name: "privileged",
            script: r#"
# dockerd asks for every capability that the kernel knows.
all=$(printf '%016x' $(((1 << $(cat /proc/sys/kernel/cap_last_cap) + 1) - 1)))
own=$(sed -n 's/^CapBnd:\t//p' /proc/self/status)
[ "$own" = "$all" ] || skip "this machine gives $own of $all capabilities, and no runtime can give more"
start mighty --privileged $IMAGE sleep 1000
expect "$(d exec --privileged mighty sed -n 's/^CapEff:\t//p' /proc/self/status)" $all
d rm -f mighty
expect "$(r --rm --privileged $IMAGE sed -n 's/^Seccomp:\t//p' /proc/self/status)" 0
r --rm --privileged $IMAGE sh -c 'mount -t tmpfs tmpfs /tmp && test -e /dev/full'
"#,
        },
        Step {
            name: "run, more options of resources",
            script: r#"
start more --memory 64m --memory-reservation 32m --memory-swappiness 10 --oom-kill-disable --cpuset-mems 0 $IMAGE sleep 1000
expect "$(cgroup_file more memory memory.soft_limit_in_bytes)" 33554432
expect "$(cgroup_file more memory memory.swappiness)" 10
contains "$(cgroup_file more memory memory.oom_control)" "oom_kill_disable 1"
expect "$(cgroup_file more cpuset cpuset.mems)" 0
d rm -f more
contains "$(r --rm --pids-limit 5 $IMAGE sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 1 & done' 2>&1 || true)" "can't fork"
"#,
        },
        Step {
            name: "run, name spaces of cgroups",
            script: r#"
expect "$(r --rm --cgroupns private $IMAGE sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)" /
contains "$(r --rm --cgroupns host $IMAGE sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)" /docker/
test "$(r --rm $IMAGE sh -c 'cat /sys/fs/cgroup/memory/cgroup.procs | wc -l')" -lt 5
"#,
        },
        Step {
            name: "run, rules of devices",
            script: r#"
start ruled --device-cgroup-rule 'c 10:200 rw' $IMAGE sleep 1000
contains "$(cgroup_file ruled devices devices.list)" "c 10:200 rw"
! grep -q '^a ' /sys/fs/cgroup/devices$(sed -n 's/^[0-9]*:devices://p' /proc/$(state ruled Pid)/cgroup)/devices.list
d rm -f ruled
"#,
        },
        Step {
            name: "run below another cgroup",
            script: r#"
start below --cgroup-parent /above $IMAGE sleep 1000
expect "$(sed -n 's/^[0-9]*:memory://p' /proc/$(state below Pid)/cgroup)" "/above/$(d inspect --format '{{.Id}}' below)"
d rm -f below
expect "$(ls -d /sys/fs/cgroup/*/above/*/ 2>/dev/null)" ""
"#,
        },
        Step {
            name: "run, many at once",
            script: r#"
for i in 1 2 3 4 5 6 7 8 9 10; do r --rm $IMAGE echo $i >$D/many.$i 2>&1 & done
wait
expect "$(cat $D/many.* | sort -n | tr '\n' ' ')" "1 2 3 4 5 6 7 8 9 10 "
"#,
        },
        Step {
            name: "build",
            script: r#"
mkdir -p $D/context
printf 'FROM %s\nENV A=b\nRUN echo "$A" >/built && id -u >>/built\nUSER user\nRUN id -un >/tmp/user\nCMD cat /built /tmp/user\n' $IMAGE >$D/context/Dockerfile
DOCKER_BUILDKIT=0 d build --quiet --network none --tag built $D/context
expect "$(r --rm built | tr '\n' ' ')" "b 0 user "
"#,
        },
        Step {
            name: "logs",
            script: r#"
start talker $IMAGE sh -c 'echo to-output; echo to-error >&2; sleep 1000'
soon logged talker to-error
expect "$(d logs talker 2>/dev/null)" to-output
expect "$(d logs talker 2>&1 >/dev/null)" to-error
d rm -f talker
"#,
        },
        Step {
            name: "create, start, wait, rm",
            script: r#"
d create --runtime stanza --network none --name later $IMAGE sh -c 'exit 3'
is later created
d start later
expect "$(d wait later)" 3
d start later
expect "$(d wait later)" 3
d rm later
"#,
        },
        Step {
            name: "prepare a container to work with",
            script: "start long $IMAGE sleep 100000; is long running",
        },
        Step {
            name: "exec",
            script: r#"
expect "$(d exec long echo inside)" inside
fails_with 9 d exec long sh -c 'exit 9'
fails_with 126 d exec long nothing-here
expect "$(d exec --user user --workdir /tmp --env B=c long sh -c 'id -un; pwd; echo $B' | tr '\n' ' ')" "user /tmp c "
expect "$(echo through | d exec -i long cat)" through
expect "$(d exec long sed -n 's/^Seccomp:\t//p' /proc/self/status)" 2
"#,
        },
        Step {
            name: "exec, name spaces and cgroups",
            script: r#"
for i in pid mnt net ipc uts cgroup; do
  same "$(d exec long readlink /proc/self/ns/$i)" "$(readlink /proc/$(state long Pid)/ns/$i)"
done
same "$(d exec long cat /proc/self/cgroup)" "$(d exec long cat /proc/1/cgroup)"
"#,
        },
        Step {
            name: "exec on a terminal",
            script: r#"contains "$(on_terminal "$DOCKER exec -it long tty")" /dev/pts/"#,
        },
        Step {
            name: "exec, no descriptor comes along",
            script: r#"
expect "$(d exec long ls /proc/self/fd | tr '\n' ' ')" "0 1 2 3 "
"#,
        },
        Step {
            name: "exec, detached",
            script: r#"d exec -d long sh -c 'echo done >/tmp/detached'; soon d exec long grep -q done /tmp/detached"#,
        },
        Step {
            name: "top",
            script: r#"contains "$(d top long)" "sleep 100000"; contains "$(d top long -o pid,args)" "sleep 100000""#,
        },
        Step {
            name: "stats",
            script: r#"expect "$(d stats --no-stream --format '{{.Name}} {{.PIDs}}' long)" "long 1""#,
        },
        Step {
            name: "pause, unpause",
            script: r#"
d pause long
is long paused
expect "$(cgroup_file long freezer freezer.state)" FROZEN
fails_with 1 d exec long true
d unpause long
expect "$(cgroup_file long freezer freezer.state)" THAWED
d exec long true
"#,
        },
        Step {
            name: "update",
            script: r#"
d update --memory 100m --memory-swap 200m --cpus 0.25 --cpu-shares 300 --pids-limit 40 --cpuset-cpus 0 long
expect "$(cgroup_file long memory memory.limit_in_bytes)" 104857600
expect "$(cgroup_file long cpu cpu.cfs_quota_us)" 25000
expect "$(cgroup_file long cpu cpu.shares)" 300
expect "$(cgroup_file long pids pids.max)" 40
expect "$(cgroup_file long cpuset cpuset.cpus)" 0
"#,
        },
        Step {
            name: "kill",
            script: r#"
start trapper $IMAGE sh -c 'trap "echo caught" USR1; trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done'
soon logged trapper ready
d kill --signal USR1 trapper
soon logged trapper caught
d kill --signal TERM trapper
soon is trapper exited
expect "$(state trapper ExitCode)" 5
d rm trapper
"#,
        },
        Step {
            name: "stop",
            script: r#"
start obeys $IMAGE sh -c 'trap "exit 6" TERM; echo ready; while :; do sleep 0.1; done'
soon logged obeys ready
d stop -t 20 obeys
expect "$(state obeys ExitCode)" 6
start deaf $IMAGE sh -c 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
soon logged deaf ready
d stop -t 1 deaf
expect "$(state deaf ExitCode)" 137
d start deaf
is deaf running
d restart -t 0 deaf
is deaf running
d rm -f obeys deaf
"#,
        },
        Step {
            name: "restart policy",
            script: r#"
start again --restart on-failure:2 $IMAGE sh -c 'echo once; exit 1'
soon is again exited
expect "$(d inspect --format '{{.RestartCount}}' again)" 2
expect "$(d logs again | wc -l)" 3
d rm again
"#,
        },
        Step {
            name: "rm of a running container, and of a paused one",
            script: r#"
start victim $IMAGE sleep 1000
d rm -f victim
start victim $IMAGE sleep 1000
d pause victim
d rm -f victim
fails_with 1 d inspect victim
"#,
        },
        Step {
            name: "out of memory",
            script: r#"
since=$(date +%s)
fails_with 137 r --name greedy --memory 16m --memory-swap 16m $IMAGE tail /dev/zero
expect "$(state greedy OOMKilled) $(state greedy ExitCode)" "true 137"
contains "$(d events --since $since --until $(($(date +%s) + 1)) --filter event=oom --filter container=greedy --format '{{.Action}}')" oom
d rm greedy
"#,
        },
        Step {
            name: "health check",
            script: r#"
start healthy --health-cmd 'test -e /tmp/well' --health-interval 200ms --health-retries 1 $IMAGE sleep 1000
soon sh -c "[ \"\$($DOCKER inspect --format '{{.State.Health.Status}}' healthy)\" = unhealthy ]"
d exec healthy touch /tmp/well
soon sh -c "[ \"\$($DOCKER inspect --format '{{.State.Health.Status}}' healthy)\" = healthy ]"
d rm -f healthy
"#,
        },
        Step {
            name: "diff, cp, commit",
            script: r#"
start changed $IMAGE sh -c 'echo kept >/kept; sleep 1000'
soon d exec changed test -e /kept
contains "$(d diff changed)" "A /kept"
echo copied >$D/copied
d cp $D/copied changed:/copied
expect "$(d exec changed cat /copied)" copied
d cp changed:/kept $D/kept
expect "$(cat $D/kept)" kept
d commit changed committed
expect "$(r --rm committed cat /kept)" kept
d rm -f changed
"#,
        },
        Step {
            name: "checkpoint, restore",
            script: r#"
start counter --security-opt seccomp=unconfined $IMAGE sh -c 'n=0; while :; do n=$((n + 1)); echo $n; sleep 0.1; done'
soon logged counter '^5$'
if ! criu check >/dev/null 2>&1; then
  ! d checkpoint create counter point
  is counter running
  d rm -f counter
  skip "refused as it must be: $(criu check 2>&1 | tail -n 1)"
fi
d checkpoint create counter point
soon is counter exited
last=$(d logs counter | tail -n 1)
d start --checkpoint point counter
is counter running
soon logged counter "^$((last + 3))$"
d rm -f counter
"#,
        },
        Step {
            name: "error of the runtime",
            script: r#"
out=$(r --rm --workdir /etc/passwd $IMAGE true 2>&1) && exit 1
contains "$out" "/etc/passwd"
"#,
        },
        Step {
            name: "a daemon with a user name space",
            script: r#"
ids=$(sed -n 's/^stanza-test:\([0-9]*\):.*/\1/p' /etc/subuid)
setsid dockerd --data-root $D/remapped --exec-root /run/remapped --pidfile $D/remapped.pid --host unix://$D/remapped.socket \
  --bridge none --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs --userns-remap stanza-test \
  --add-runtime stanza=$RUNTIME --default-runtime stanza </dev/null >$D/remapped.log 2>&1 &
remapped() { ${DOCKER% --host*} --host unix://$D/remapped.socket "$@"; }
soon remapped version >/dev/null 2>&1 || { tail -n 20 $D/remapped.log; exit 1; }
remapped load --input $ARCHIVE
expect "$(remapped run --rm --network none $IMAGE sh -c 'id -u; cat /proc/self/uid_map' | tr -s ' \n' ' ')" "0 0 $ids 65536 "
remapped run -d --network none --name inside $IMAGE sleep 1000
expect "$(stat -c %u /proc/$(remapped inspect --format '{{.State.Pid}}' inside))" "$ids"
expect "$(remapped exec inside id -u)" 0
expect "$(remapped exec --user user inside id -u)" 1000
remapped rm -f inside
kill $(cat $D/remapped.pid)
soon sh -c "! test -e $D/remapped.pid"
"#,
        },
        Step { name: "remove all", script: r#"d rm -f $(d ps -aq); expect "$(d ps -aq)" ""; nothing_left"# },
    ],
};
