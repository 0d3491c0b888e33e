//! Hostile containers and images: lines of the attack list that `run` and `exec` must stand (the advisory's number with each).

use std::fs;
use std::process::Command;

use serde_json::json;
use stanza_test::{Layout, Running, Stanza, Tarball, fixture, hex_sha256};

const RUN: [&str; 4] = ["run", "--rm", "--network", "none"];

/// An image of busybox, a hostile layer and a configuration.
fn image(stanza: &Stanza, name: &str, hostile: Tarball, config: &serde_json::Value) {
    let archive = Layout::new(vec![stanza.busybox().to_vec(), hostile.finish()], config).archive(name);
    let loaded = stanza.output_with_input(&["load"], &archive);
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
}

/// CVE-2019-5736: the container gets hold of the runtime's executable by `/proc/self/exe` and writes to it.
#[test]
fn the_executable_cannot_be_written_from_a_container() {
    let stanza = fixture!();
    // A copy, so that a success harms nothing.
    let copy = stanza.directory().join("bin/copy").display().to_string();
    fs::copy(stanza.binary(), &copy).unwrap();
    let digest = hex_sha256(&fs::read(&copy).unwrap());
    let words = |args: &[&str]| {
        let mut command = Command::new(&copy);
        command.arg("--root").arg(stanza.root()).arg("--runroot").arg(stanza.runroot()).args(args);
        Running::start(command).finish()
    };
    image(
        &stanza,
        "exe:1",
        Tarball::new().file("entry", 0o755, "#!/proc/self/exe\n"),
        &json!({ "Entrypoint": ["/entry"] }),
    );
    words(&[&RUN[..], &["exe:1"]].concat());
    // Every process of the container's name space whose executable can be named is overwritten, over and over.
    let attack = "end=$(($(date +%s)+1)); while [ $(date +%s) -le $end ]; do for p in /proc/[0-9]*/exe; do \
                  case $(readlink $p) in */busybox|'') ;; *) echo found $p; echo broken > $p && echo written;; esac; done; done 2>/dev/null; true";
    let started = words(&["run", "-d", "--network", "none", "--name", "c1", "busybox", "sh", "-c", attack]);
    assert_eq!(started.code, 0, "{}", started.stderr);
    for _ in 0..10 {
        words(&["exec", "c1", "true"]);
        words(&["exec", "c1", "/proc/self/exe", "version"]);
    }
    stanza.ok(&["wait", "c1"]);
    assert!(!stanza.ok(&["logs", "c1"]).contains("written"));
    assert_eq!(hex_sha256(&fs::read(&copy).unwrap()), digest);
}

/// CVE-2024-21626: a working directory through a leaked descriptor.
#[test]
fn a_working_directory_through_a_descriptor_stays_inside() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    for number in 3..20 {
        let path = format!("/proc/self/fd/{number}");
        for verb in [&RUN[..], &["exec"]] {
            let target: &[&str] = if verb[0] == "exec" { &["c1"] } else { &["busybox"] };
            let output = stanza.output(
                &[
                    verb,
                    &["-w", &path],
                    target,
                    &["sh", "-c", "pwd; ls ../../../../../../etc/shadow ../etc/debian_version"],
                ]
                .concat(),
            );
            assert!(
                !output.stdout.contains("shadow") && !output.stdout.contains("debian_version"),
                "{path}: {}",
                output.stdout
            );
        }
    }
    image(
        &stanza,
        "cwd:1",
        Tarball::new().symlink("work", "/proc/self/fd/7"),
        &json!({ "WorkingDir": "/work", "Env": ["PATH=/bin"] }),
    );
    let output =
        stanza.output(&[&RUN[..], &["cwd:1", "sh", "-c", "ls ../../../../../../../etc/shadow"]].concat());
    assert!(!output.stdout.contains("shadow"), "{}", output.stdout);
}

/// CVE-2025-31133: masked paths with a `/dev/null` that is none.
#[test]
fn masking_does_not_trust_the_images_dev_null() {
    let stanza = fixture!();
    let hostile =
        Tarball::new().directory("dev/", 0o755).symlink("dev/null", "/proc/sys/kernel/core_pattern");
    image(&stanza, "null:1", hostile, &json!({ "Env": ["PATH=/bin"] }));
    let output = stanza.output(&[&RUN[..], &["null:1", "sh", "-c", "stat -c '%F %t:%T' /dev/null; for f in kcore keys timer_list; do [ ! -e /proc/$f ] || wc -c < /proc/$f; done | sort -u; echo x > /proc/sys/kernel/core_pattern"]].concat());
    assert!(output.stdout.starts_with("character special file 1:3\n"), "{output:?}");
    assert!(output.stdout.ends_with("\n0\n"), "{output:?}");
    assert!(output.stderr.contains("Read-only"), "{output:?}");
}

/// CVE-2026-41579, CVE-2026-47766: `/dev` and what is below it as links to elsewhere.
#[test]
fn links_in_the_place_of_dev_lead_nowhere() {
    let stanza = fixture!();
    let outside = stanza.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.display().to_string();
    for (name, hostile) in [
        ("dev:1", Tarball::new().symlink("dev", &target)),
        (
            "dev:2",
            Tarball::new()
                .directory("dev/", 0o755)
                .symlink("dev/pts", &target)
                .symlink("dev/shm", &target)
                .symlink("dev/mqueue", &target),
        ),
        ("dev:3", Tarball::new().symlink("proc", &target).symlink("sys", &target)),
        (
            "dev:4",
            Tarball::new()
                .directory("dev/", 0o755)
                .symlink("dev/fd", &target)
                .symlink("dev/console", &target)
                .symlink("dev/stdin", &target),
        ),
    ] {
        image(&stanza, name, hostile, &json!({ "Env": ["PATH=/bin"] }));
        let output = stanza.output(
            &[&RUN[..], &[name, "sh", "-c", "stat -c %F /dev/null && grep -c ' /proc proc ' /proc/mounts"]]
                .concat(),
        );
        assert!(output.code == 125 || output.stdout == "character special file\n1\n", "{name}: {output:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{name}");
    }
}

/// CVE-2021-30465, CVE-2024-45310, lightly: mount destinations that are links.
#[test]
fn a_mount_destination_through_a_link_stays_inside() {
    let stanza = fixture!();
    let outside = stanza.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    let hostile = Tarball::new()
        .symlink("data", &outside.display().to_string())
        .symlink("up", "../../../../../../../../tmp/stanza-attack");
    image(&stanza, "link:1", hostile, &json!({ "Env": ["PATH=/bin"] }));
    let source = stanza.directory().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "mounted").unwrap();
    for destination in ["/data/deep", "/up/deep"] {
        let volume = format!("{}:{destination}", source.display());
        let output = stanza
            .output(&[&RUN[..], &["-v", &volume, "link:1", "cat", &format!("{destination}/file")]].concat());
        assert!(output.code == 125 || output.stdout == "mounted", "{output:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(!fs::exists("/tmp/stanza-attack").unwrap());
    }
}

/// CVE-2019-16884, CVE-2019-18837: an image declares a volume over `/proc`.
#[test]
fn a_volume_over_proc_does_not_replace_it() {
    let stanza = fixture!();
    let hostile = Tarball::new().directory("proc/", 0o755).file("proc/marker", 0o644, "x");
    image(&stanza, "proc:1", hostile, &json!({ "Volumes": { "/proc": {} }, "Env": ["PATH=/bin"] }));
    let output = stanza.output(
        &[
            &RUN[..],
            &["proc:1", "sh", "-c", "ls /proc/marker; stat -f -c %T /proc; grep Seccomp: /proc/self/status"],
        ]
        .concat(),
    );
    assert!(output.code == 125 || output.stdout.contains("proc\nSeccomp:\t2"), "{output:?}");
    assert!(!output.stdout.contains("marker\n"), "{output:?}");
    let refused = stanza.output(&[&RUN[..], &["-v", "/tmp:/proc", "busybox", "true"]].concat());
    assert_eq!(refused.code, 125, "{refused:?}");
}

/// CVE-2022-29162, CVE-2022-27650: capabilities become inheritable.
#[test]
fn no_capability_is_inheritable_or_ambient() {
    let stanza = fixture!();
    let script = "grep -E '^Cap(Inh|Amb):' /proc/self/status";
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000";
    assert_eq!(stanza.shell_ok(&["--cap-add", "SYS_ADMIN"], script), none);
    assert_eq!(stanza.shell_ok(&["--privileged"], script), none);
    stanza.sleeper("c1");
    assert_eq!(stanza.ok(&["exec", "c1", "sh", "-c", script]), none);
    assert_eq!(stanza.ok(&["exec", "--privileged", "c1", "sh", "-c", script]), none);
}

/// CVE-2026-30892: users that are numbers in odd forms.
#[test]
fn odd_users_are_exact_or_refused_but_never_root_by_default() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    for (user, expected) in [
        ("1000:", None),
        ("+5", None),
        ("-1", None),
        ("4294967296", None),
        ("0x0", None),
        ("nosuch", None),
        ("1000:-1", None),
        ("1000:4294967296", None),
        ("user:group", None),
        ("1000", Some("1000 1000")),
        ("7:8", Some("7 8")),
        ("user", Some("1000 1000")),
    ] {
        let option = format!("--user={user}");
        for verb in [[&RUN[..], &[&option, "busybox"]].concat(), vec!["exec", &option, "c1"]] {
            let output = stanza.output(&[&verb[..], &["sh", "-c", "echo $(id -u) $(id -g)"]].concat());
            match expected {
                Some(expected) => assert_eq!(output.stdout.trim(), expected, "{user}: {}", output.stderr),
                None => assert!(output.code != 0 || output.stdout.starts_with("1000 "), "{user}: {output:?}"),
            }
        }
    }
}

/// CVE-2016-9962: the container's init looks into the process that enters, or traces it.
fn look_into_what_enters(options: &[&str]) -> Option<String> {
    let stanza = match Stanza::new(env!("CARGO_BIN_EXE_stanza"), &[]) {
        Ok(stanza) => stanza,
        Err(reason) => {
            stanza_test::skipped(&reason);
            return None;
        }
    };
    let script = "while :; do for p in /proc/[0-9]*; do case ${p#/proc/} in 1|$$) continue;; esac; \
                  for f in $p/fd/*; do t=$(readlink $f 2>/dev/null); case $t in /*stanza*|/var/lib*) echo found $t;; esac; done; done; done";
    let mut args = vec!["run", "-d", "--network", "none", "--name", "c1"];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    stanza.ok(&args);
    for _ in 0..20 {
        stanza.ok(&["exec", "c1", "true"]);
    }
    Some(stanza.ok(&["logs", "--tail", "3", "c1"]))
}

#[test]
fn a_process_that_enters_cannot_be_looked_into() {
    assert!(look_into_what_enters(&[]).unwrap_or_default().is_empty());
}

#[test]
fn a_process_that_enters_has_nothing_of_the_host_open_even_for_those_who_may_trace_it() {
    let seen = look_into_what_enters(&["--cap-add", "SYS_PTRACE"]).unwrap_or_default();
    assert!(seen.is_empty(), "{seen}");
}

/// CVE-2020-15257: abstract sockets, reachable wherever the host's network is shared.
#[test]
fn no_abstract_socket_is_made() {
    let stanza = fixture!();
    let list = || {
        fs::read_to_string("/proc/net/unix")
            .unwrap()
            .lines()
            .filter_map(|line| line.split(" @").nth(1))
            .filter(|name| name.contains("stanza"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    stanza.sleeper("c1");
    assert_eq!(list(), Vec::<String>::new());
}

/// CVE-2022-0492: the release agent of a v1 hierarchy.
#[test]
fn the_release_agent_cannot_be_written() {
    let stanza = fixture!();
    let script = "for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs 2>/dev/null); do echo 1 > $f && echo written $f; done 2>/dev/null; true";
    assert_eq!(stanza.shell_ok(&[], script), "");
    assert_eq!(
        stanza.shell_ok(
            &[],
            "mkdir /tmp/c && mount -t cgroup -o devices x /tmp/c 2>&1 | grep -c -e denied -e permitted"
        ),
        "1"
    );
}

/// CVE-2017-5226: typing into the caller's terminal.
#[test]
fn the_callers_terminal_is_not_the_containers() {
    let stanza = fixture!();
    let mut terminal = stanza.terminal(
        &[
            &RUN[..],
            &["busybox", "sh", "-c", "(: < /dev/tty) 2>&1; ps -o tty,args | tail -n +2 | head -1; echo end"],
        ]
        .concat(),
    );
    let text = terminal.expect("end");
    assert!(text.contains("/dev/tty"), "{text}");
}

/// The leaked descriptors of the listening protocol and of whoever calls.
#[test]
fn descriptors_and_variables_of_the_caller_do_not_pass() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    for args in [[&RUN[..], &["busybox"]].concat(), vec!["exec", "c1"]] {
        let inner =
            stanza.command(&[&args[..], &["sh", "-c", "ls /proc/self/fd; echo $LISTEN_FDS"]].concat());
        let mut command = Command::new("bash");
        command.args([
            "-c",
            "exec 3</etc/shadow 4</ 9</dev/null 200</; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\"",
            "bash",
        ]);
        command.arg(inner.get_program()).args(inner.get_args());
        let output = Running::start(command).finish();
        assert_eq!(output.stdout, "0\n1\n2\n3\n\n", "{}", output.stderr);
    }
}

/// Tampering with the state: names that are paths.
#[test]
fn names_that_are_paths_reach_nothing() {
    let stanza = fixture!();
    let victim = stanza.directory().join("victim");
    fs::create_dir(&victim).unwrap();
    for name in ["..", ".", "../../victim", "a/../../victim", "/", &"x".repeat(1024), "%2e%2e", "a\nb"] {
        for verb in ["rm", "start", "inspect", "logs", "kill", "wait", "diff"] {
            let output = stanza.output(&[verb, "--", name]);
            assert_eq!(output.code, 1, "{verb} {name}: {output:?}");
        }
        assert_eq!(stanza.output(&["rm", "-f", "--", name]).stdout, "");
        let option = format!("--name={name}");
        stanza.fails(125, &["run", "--rm", "--network", "none", &option, "busybox", "true"]);
    }
    assert!(victim.is_dir());
}

/// What a container writes into its own files must not mislead the host.
#[test]
fn hostile_names_are_no_escape_sequences_on_the_terminal() {
    let stanza = fixture!();
    let label = "l=\u{1b}[31mred";
    let output = stanza.output(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c1",
        "-l",
        label,
        "busybox",
        "sh",
        "-c",
        "sleep 1000 # \u{1b}[2J",
    ]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(!stanza.ok(&["ps", "--no-trunc"]).contains('\u{1b}'));
}
