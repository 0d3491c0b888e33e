//! Debian's podman again, of an ordinary user: the runtime enters a user name space that podman has made, and has no cgroups.

use super::{Caller, Step};

const PRELUDE: &str = r#"
USER_NAME=stanza-test
RUN=/run/user/$(id -u $USER_NAME)
P="setpriv --reuid $USER_NAME --regid $USER_NAME --init-groups env HOME=$D/home XDG_RUNTIME_DIR=$RUN CONTAINERS_CONF=$D/containers.conf \
  podman --root $D/root --runroot $RUN/containers --tmpdir $RUN/libpod --cgroup-manager cgroupfs --events-backend file --runtime $RUNTIME"
p() { (cd $D/home && $P "$@"); }
start() { name=$1; shift; p run -d --name "$name" --network none "$@"; }
state() { p inspect --format "{{.State.$2}}" "$1"; }
is() { [ "$(state "$1" Status)" = "$2" ]; }
logged() { p logs "$1" 2>&1 | grep -q "$2"; }
"#;

/// The steps of the user's podman.
pub(super) const CALLER: Caller = Caller {
    name: "rootless",
    programs: &["podman", "conmon", "script", "newuidmap"],
    prelude: PRELUDE,
    cgroup: "/libpod-",
    steps: &[
        Step {
            name: "prepare the user and the image",
            script: r#"
mkdir -p $D/home $D/root $RUN
chown $USER_NAME: $D/home $D/root $RUN
chmod 700 $RUN
cat >$D/containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime_supports_json = ["crun", "runc", "stanza-oci"]
END
p load --quiet --input $ARCHIVE
"#,
        },
        Step { name: "info", script: r#"expect "$(p info --format '{{.Host.Security.Rootless}}')" true"# },
        Step { name: "run", script: r#"expect "$(p run --rm --network none $IMAGE echo hello)" hello"# },
        Step {
            name: "run, the exit code",
            script: r#"
fails_with 7 p run --rm --network none $IMAGE sh -c 'exit 7'
fails_with 127 p run --rm --network none $IMAGE nothing-here
fails_with 126 p run --rm --network none $IMAGE /etc
"#,
        },
        Step {
            name: "run on a terminal",
            script: r#"contains "$(cd $D/home && on_terminal "$P run --rm -it --network none $IMAGE tty")" /dev/pts/0"#,
        },
        Step {
            name: "run, whose ids are whose",
            script: r#"
expect "$(p run --rm --network none $IMAGE sh -c 'id -u; cat /proc/self/uid_map' | tr -s ' \n' ' ')" \
  "0 0 $(id -u $USER_NAME) 1 1 $(sed -n "s/^$USER_NAME:\([0-9]*\):\([0-9]*\)/\1 \2/p" /etc/subuid) "
expect "$(p run --rm --network none --user 1000:1000 $IMAGE sh -c 'id -u; id -g' | tr '\n' ' ')" "1000 1000 "
expect "$(p run --rm --network none --userns keep-id $IMAGE id -u)" "$(id -u $USER_NAME)"
"#,
        },
        Step {
            name: "run, options of the file system",
            script: r#"
mkdir -p $D/home/shared; echo from-outside >$D/home/shared/a; chown -R $USER_NAME: $D/home/shared
expect "$(p run --rm --network none -v $D/home/shared:/shared $IMAGE sh -c 'cat /shared/a; echo from-inside >/shared/b')" from-outside
expect "$(cat $D/home/shared/b; stat -c %U $D/home/shared/b)" "$(printf 'from-inside\n%s' $USER_NAME)"
fails_with 1 p run --rm --network none -v $D/home/shared:/shared:ro $IMAGE touch /shared/c
fails_with 1 p run --rm --network none --read-only $IMAGE touch /c
"#,
        },
        Step {
            name: "run, options of security",
            script: r#"
expect "$(p run --rm --network none $IMAGE sed -n 's/^Seccomp:\t//p' /proc/self/status)" 2
expect "$(p run --rm --network none --cap-drop ALL $IMAGE sed -n 's/^CapEff:\t//p' /proc/self/status)" 0000000000000000
p run --rm --network none --privileged $IMAGE mount -t tmpfs tmpfs /tmp
"#,
        },
        Step {
            name: "run in the host's network",
            script: r#"same "$(p run --rm --network host $IMAGE readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)""#,
        },
        Step {
            name: "prepare a container to work with",
            script: "start long $IMAGE sleep 100000; is long running",
        },
        Step {
            name: "exec",
            script: r#"
expect "$(p exec long echo inside)" inside
fails_with 9 p exec long sh -c 'exit 9'
fails_with 127 p exec long nothing-here
expect "$(p exec --user user long id -un)" user
expect "$(echo through | p exec -i long cat)" through
for i in user pid mnt net ipc uts; do
  same "$(p exec long readlink /proc/self/ns/$i)" "$(readlink /proc/$(state long Pid)/ns/$i)"
done
"#,
        },
        Step {
            name: "exec on a terminal",
            script: r#"contains "$(cd $D/home && on_terminal "$P exec -it long tty")" /dev/pts/"#,
        },
        Step { name: "top", script: r#"contains "$(p top long pid args)" "sleep 100000""# },
        Step {
            name: "kill, stop",
            script: r#"
start obeys $IMAGE sh -c 'trap "echo caught" USR1; trap "exit 6" TERM; echo ready; while :; do sleep 0.1; done'
soon logged obeys ready
p kill --signal USR1 obeys
soon logged obeys caught
p stop -t 20 obeys
expect "$(state obeys ExitCode)" 6
start deaf $IMAGE sh -c 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
soon logged deaf ready
p stop -t 1 deaf
expect "$(state deaf ExitCode)" 137
p rm obeys deaf
"#,
        },
        Step {
            name: "remove all",
            script: r#"
p rm -f -t 0 long
expect "$(p ps -aq)" ""
soon sh -c "! pgrep -x '$(basename $RUNTIME | cut -c1-15)'"
"#,
        },
    ],
};
