//! Debian's containerd, driven by `ctr run --runc-binary`: the daemon's shim calls the runtime.

use super::{Caller, Step};

const PRELUDE: &str = r#"
c() { ctr --address $D/socket "$@"; }
# run with the runtime; options, image, name and command follow
r() { c run --runtime io.containerd.runc.v2 --runc-binary $RUNTIME --runc-root $D/runtime "$@"; }
# The status of a task by its name: RUNNING, PAUSED, STOPPED
status() { c task ls | sed -n "s/^$1  *[0-9]*  *//p"; }
is() { [ "$(status "$1")" = "$2" ]; }
pid() { c task ls | sed -n "s/^$1  *\([0-9]*\) .*/\1/p"; }
cgroup_file() { cat "/sys/fs/cgroup/$2$(sed -n "s/^[0-9]*:$2://p" "/proc/$(pid "$1")/cgroup")/$3"; }
# Kills and removes a container with its task
clear_away() { c task kill --signal KILL "$1"; soon is "$1" STOPPED; c task rm "$1"; c container rm "$1"; }
"#;

/// containerd's steps.
pub(super) const CALLER: Caller = Caller {
    name: "containerd",
    programs: &["containerd", "ctr", "script"],
    prelude: PRELUDE,
    cgroup: "/default/",
    steps: &[
        Step {
            name: "prepare the daemon and the image",
            script: r#"
cat >$D/config.toml <<END
version = 2
root = "$D/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$D/socket"
[ttrpc]
  address = "$D/socket.ttrpc"
END
setsid containerd --config $D/config.toml </dev/null >$D/log 2>&1 &
soon c version >/dev/null 2>&1 || { tail -n 20 $D/log; exit 1; }
c image import $ARCHIVE
"#,
        },
        Step { name: "run", script: r#"expect "$(r --rm $IMAGE one echo hello)" hello"# },
        Step { name: "run, the exit code", script: "fails_with 7 r --rm $IMAGE one sh -c 'exit 7'" },
        Step {
            name: "run, no such command",
            script: r#"
out=$(r --rm $IMAGE one nothing-here 2>&1) && exit 1
contains "$out" "nothing-here"
contains "$out" "executable file not found in \$PATH"
"#,
        },
        Step {
            name: "run on a terminal",
            script: r#"
contains "$(on_terminal "ctr --address $D/socket run --rm --tty --runtime io.containerd.runc.v2 --runc-binary $RUNTIME --runc-root $D/runtime $IMAGE one tty")" /dev/pts/0
"#,
        },
        Step {
            name: "run, options of the process",
            script: r#"
expect "$(r --rm --env A=b --cwd /tmp $IMAGE one sh -c 'id -u; echo $A; pwd' | tr '\n' ' ')" "0 b /tmp "
"#,
        },
        Step {
            name: "run, options of the file system",
            script: r#"
mkdir -p $D/shared; echo from-outside >$D/shared/a
expect "$(r --rm --mount type=bind,src=$D/shared,dst=/shared,options=rbind:rw $IMAGE one cat /shared/a)" from-outside
fails_with 1 r --rm --read-only $IMAGE one touch /c
"#,
        },
        Step {
            name: "run, options of security",
            script: r#"
expect "$(r --rm --cap-drop CAP_CHOWN --seccomp $IMAGE one sed -n 's/^Seccomp:\t//p' /proc/self/status)" 2
expect "$(r --rm --privileged $IMAGE one sed -n 's/^Seccomp:\t//p' /proc/self/status)" 0
r --rm --cap-add CAP_SYS_ADMIN $IMAGE one mount -t tmpfs tmpfs /tmp
"#,
        },
        Step {
            name: "run in the host's network",
            script: r#"same "$(r --rm --net-host $IMAGE one readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)""#,
        },
        Step {
            name: "run in a user name space",
            script: r#"
expect "$(r --rm --uidmap 0:100000:1000 --gidmap 0:200000:1000 $IMAGE one sh -c 'cat /proc/self/uid_map' | tr -s ' \n' ' ')" " 0 100000 1000 "
"#,
        },
        Step {
            name: "run, options of resources",
            script: r#"
r -d --memory-limit 67108864 --cpus 0.5 $IMAGE limits sleep 1000
expect "$(cgroup_file limits memory memory.limit_in_bytes)" 67108864
expect "$(cgroup_file limits cpu cpu.cfs_quota_us) $(cgroup_file limits cpu cpu.cfs_period_us)" "50000 100000"
clear_away limits
"#,
        },
        Step {
            name: "run, no descriptor comes along",
            script: r#"expect "$(r --rm $IMAGE one ls /proc/self/fd | tr '\n' ' ')" "0 1 2 3 ""#,
        },
        Step {
            name: "run without pivot_root",
            script: r#"expect "$(r --rm --no-pivot $IMAGE one ls /bin/sh)" /bin/sh"#,
        },
        Step {
            name: "run, many at once",
            script: r#"
for i in 1 2 3 4 5 6 7 8 9 10; do r --rm $IMAGE many$i echo $i >$D/many.$i 2>&1 & done
wait $(jobs -p)
expect "$(cat $D/many.* | sort -n | tr '\n' ' ')" "1 2 3 4 5 6 7 8 9 10 "
"#,
        },
        Step {
            name: "prepare a container to work with",
            script: "r -d --pid-file $D/pid $IMAGE long sleep 100000; is long RUNNING; same \"$(cat $D/pid)\" \"$(pid long)\"",
        },
        Step {
            name: "exec",
            script: r#"
expect "$(c task exec --exec-id e1 long echo inside)" inside
fails_with 9 c task exec --exec-id e2 long sh -c 'exit 9'
expect "$(c task exec --exec-id e3 --user 1000:1000 --cwd /tmp long sh -c 'id -u; pwd' | tr '\n' ' ')" "1000 /tmp "
expect "$(echo through | c task exec --exec-id e4 long cat)" through
out=$(c task exec --exec-id e5 long nothing-here 2>&1) && exit 1
contains "$out" "executable file not found in \$PATH"
"#,
        },
        Step {
            name: "exec on a terminal",
            script: r#"contains "$(on_terminal "ctr --address $D/socket task exec --tty --exec-id t1 long tty")" /dev/pts/"#,
        },
        Step {
            name: "exec, no descriptor comes along",
            script: r#"
expect "$(c task exec --exec-id f1 long ls /proc/self/fd | tr '\n' ' ')" "0 1 2 3 "
"#,
        },
        Step {
            name: "exec, detached",
            script: r#"
c task exec --detach --exec-id d1 long sh -c 'echo done >/tmp/detached'
soon c task exec --exec-id d2 long grep -q done /tmp/detached
"#,
        },
        Step { name: "ps", script: r#"contains "$(c task ps long)" "$(pid long)""# },
        Step {
            name: "metrics",
            script: r#"
contains "$(c task metrics long)" "memory.usage_in_bytes"
contains "$(c task metrics long)" "pids.current"
"#,
        },
        Step {
            name: "pause, resume",
            script: r#"
c task pause long
is long PAUSED
expect "$(cgroup_file long freezer freezer.state)" FROZEN
out=$(c task exec --exec-id p1 long true 2>&1) && exit 1
contains "$out" "paused"
c task resume long
is long RUNNING
c task exec --exec-id p2 long true
"#,
        },
        Step {
            name: "kill",
            script: r#"
r -d $IMAGE trapper sh -c 'trap "exit 5" TERM; echo ready >/tmp/ready; while :; do sleep 0.1; done'
soon c task exec --exec-id k1 trapper test -e /tmp/ready
c task kill --signal TERM trapper
soon is trapper STOPPED
contains "$(c task rm trapper 2>&1)" "non-zero exit code 5"
c container rm trapper
"#,
        },
        Step {
            name: "kill all",
            script: r#"
r -d --with-ns pid:/proc/1/ns/pid $IMAGE crowd sh -c 'sleep 12345 & sleep 12345 & wait'
count() { [ "$(cat /sys/fs/cgroup/pids/default/crowd/cgroup.procs 2>/dev/null | wc -l)" = "$1" ]; }
soon count 3
c task kill --all --signal KILL crowd
soon is crowd STOPPED
soon count 0
contains "$(c task rm crowd 2>&1)" "non-zero exit code 137"
c container rm crowd
"#,
        },
        Step {
            name: "rm of a running task",
            script: r#"
r -d $IMAGE victim sleep 1000
c task rm --force victim
c container rm victim
"#,
        },
        Step {
            name: "out of memory",
            script: r#"
setsid ctr --address $D/socket events >$D/events 2>&1 &
sleep 0.5
fails_with 137 r --memory-limit 16777216 $IMAGE greedy tail /dev/zero
c container rm greedy
soon grep -q '/tasks/oom.*greedy' $D/events
"#,
        },
        Step {
            name: "checkpoint, restore",
            script: r#"
r -d $IMAGE counter sh -c 'n=0; while :; do n=$((n + 1)); echo $n >/tmp/n; sleep 0.1; done'
soon c task exec --exec-id c1 counter grep -q 5 /tmp/n
if ! criu check >/dev/null 2>&1; then
  ! c container checkpoint --task --rw --image counter localhost/checkpoint:1
  is counter RUNNING
  clear_away counter
  skip "refused as it must be: $(criu check 2>&1 | tail -n 1)"
fi
c container checkpoint --task --rw --image counter localhost/checkpoint:1
clear_away counter
c container restore --live counter localhost/checkpoint:1
is counter RUNNING
clear_away counter
"#,
        },
        Step {
            name: "remove all",
            script: r#"
clear_away long
expect "$(c container ls -q)" ""
expect "$(ls $D/runtime/default 2>/dev/null)" ""
nothing_left
"#,
        },
    ],
};
