//! The walls of a container: limits, capabilities, seccomp, masks, name spaces, devices, descriptors.

use std::fs;

use stanza_test::{Stanza, fixture};

/// Reads a file of the container's cgroup from the host: v1 or v2.
fn limit(stanza: &Stanza, name: &str, controller: &str, v1: &str, v2: &str) -> String {
    let id = stanza.inspect(name)["Id"].as_str().unwrap_or_default().to_owned();
    let candidates =
        [format!("/sys/fs/cgroup/{controller}/stanza/{id}/{v1}"), format!("/sys/fs/cgroup/stanza/{id}/{v2}")];
    let found = candidates.iter().find_map(|path| fs::read_to_string(path).ok());
    found.unwrap_or_else(|| panic!("none of {candidates:?}")).trim().to_owned()
}

#[test]
fn limits_are_those_of_the_cgroup() {
    let stanza = fixture!();
    let options = [
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c1",
        "--memory",
        "64m",
        "--pids-limit",
        "33",
        "--cpus",
        "0.5",
        "--cpuset-cpus",
        "0",
    ];
    stanza.ok(&[&options[..], &["busybox", "sleep", "1000"]].concat());
    assert_eq!(limit(&stanza, "c1", "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(limit(&stanza, "c1", "pids", "pids.max", "pids.max"), "33");
    let quota = limit(&stanza, "c1", "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    assert_eq!(limit(&stanza, "c1", "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    let processes = limit(&stanza, "c1", "pids", "cgroup.procs", "cgroup.procs");
    assert!(processes.lines().any(|pid| pid == stanza.pid("c1").to_string()), "{processes}");
}

#[test]
fn a_container_that_takes_too_much_memory_is_killed_and_says_so() {
    let stanza = fixture!();
    let output = stanza.output(&[
        "run",
        "--network",
        "none",
        "--name",
        "c1",
        "--memory",
        "16m",
        "busybox",
        "sh",
        "-c",
        "tail -c 100m /dev/zero",
    ]);
    assert_eq!(output.code, 137, "{}", output.stderr);
    assert_eq!(stanza.inspect("c1")["State"]["OOMKilled"], true);
}

#[test]
fn too_many_processes_are_refused() {
    let stanza = fixture!();
    let output = stanza.shell(&["--pids-limit", "5"], "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait");
    assert!(output.stderr.contains("can't fork"), "{}", output.stderr);
}

#[test]
fn user_limits_are_set() {
    let stanza = fixture!();
    assert_eq!(
        stanza.shell_ok(
            &["--ulimit", "nofile=123:456", "--ulimit", "core=0"],
            "ulimit -Sn; ulimit -Hn; ulimit -c"
        ),
        "123\n456\n0"
    );
}

/// A field of the container's own `/proc/self/status`.
fn status(stanza: &Stanza, options: &[&str], field: &str) -> String {
    stanza.shell_ok(options, &format!("sed -n 's/^{field}:[[:space:]]*//p' /proc/self/status"))
}

#[test]
fn capabilities_are_dockers_defaults_plus_and_minus_the_options() {
    let stanza = fixture!();
    let default = "00000000a80425fb";
    assert_eq!(status(&stanza, &[], "CapEff"), default);
    assert_eq!(status(&stanza, &[], "CapBnd"), default);
    assert_eq!(status(&stanza, &[], "CapPrm"), default);
    assert_eq!(status(&stanza, &[], "CapInh"), "0000000000000000");
    assert_eq!(status(&stanza, &[], "CapAmb"), "0000000000000000");
    assert_eq!(status(&stanza, &["--cap-drop", "ALL"], "CapBnd"), "0000000000000000");
    assert_eq!(
        status(&stanza, &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "CapEff"),
        "0000000000001000"
    );
    assert_eq!(
        status(&stanza, &["--cap-drop", "all", "--cap-add", "cap_chown"], "CapEff"),
        "0000000000000001"
    );
    assert_eq!(status(&stanza, &["-u", "user"], "CapEff"), "0000000000000000");
    assert_eq!(status(&stanza, &["-u", "user"], "CapBnd"), default);
}

#[test]
fn the_default_seccomp_profile_is_on_and_refuses() {
    let stanza = fixture!();
    assert_eq!(status(&stanza, &[], "Seccomp"), "2");
    assert_eq!(status(&stanza, &["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
    let refused = stanza.shell(&[], "unshare -m true");
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("not permitted"), "{}", refused.stderr);
}

#[test]
fn a_seccomp_profile_of_a_file_is_used() {
    let stanza = fixture!();
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    let option = format!("seccomp={}", stanza.file("profile.json", profile));
    let output = stanza.shell(&["--security-opt", &option], "mkdir /tmp/x");
    assert!(output.stderr.contains("Operation not supported"), "{}", output.stderr);
}

#[test]
fn no_new_privileges_is_honoured() {
    let stanza = fixture!();
    assert_eq!(status(&stanza, &[], "NoNewPrivs"), "0");
    assert_eq!(status(&stanza, &["--security-opt", "no-new-privileges"], "NoNewPrivs"), "1");
}

#[test]
fn a_privileged_container_has_what_root_has() {
    let stanza = fixture!();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim().to_owned();
    assert_eq!(status(&stanza, &["--privileged"], "CapEff"), own);
    assert_eq!(status(&stanza, &["--privileged"], "Seccomp"), "0");
    assert_eq!(
        stanza.shell_ok(
            &["--privileged"],
            "mount -t tmpfs x /mnt 2>/dev/null || mkdir /mnt && mount -t tmpfs x /mnt && echo mounted"
        ),
        "mounted"
    );
}

#[test]
fn kernel_paths_are_masked_and_read_only() {
    let stanza = fixture!();
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
        let script = format!("if [ -e {path} ]; then wc -c < {path}; else echo 0; fi");
        assert_eq!(stanza.shell_ok(&[], &script), "0", "{path}");
    }
    for path in ["/proc/acpi", "/proc/scsi", "/sys/firmware"] {
        assert_eq!(stanza.shell_ok(&[], &format!("ls -A {path} 2>/dev/null | wc -l")), "0", "{path}");
    }
    for path in
        ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/mm/transparent_hugepage/enabled"]
    {
        let output = stanza.shell(&[], &format!("echo x > {path}"));
        assert_ne!(output.code, 0, "{path}");
        assert!(
            output.stderr.contains("Read-only file system") || output.stderr.contains("nonexistent"),
            "{path}: {}",
            output.stderr
        );
    }
}

#[test]
fn nothing_of_the_host_is_mounted_inside() {
    let stanza = fixture!();
    let mounts = stanza.shell_ok(&[], "cat /proc/self/mountinfo");
    let allowed = [
        "overlay", "proc", "tmpfs", "devpts", "sysfs", "mqueue", "cgroup", "cgroup2", "ext4", "xfs", "btrfs",
    ];
    for line in mounts.lines() {
        let mut halves = line.split(" - ");
        let (mount, source) = (halves.next().unwrap(), halves.next().unwrap());
        let point = mount.split(' ').nth(4).unwrap();
        let kind = source.split(' ').next().unwrap();
        if kind == "devtmpfs" {
            // What masks a file: the null device, taken before the root was changed.
            assert_eq!(mount.split(' ').nth(3), Some("/null"), "{line}");
            continue;
        }
        assert!(allowed.contains(&kind), "{line}");
        let files = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
        if ["ext4", "xfs", "btrfs"].contains(&kind) {
            assert!(files.contains(&point), "{line}");
        }
        assert!(!mount.contains("shared:") && !mount.contains("master:"), "propagates: {line}");
    }
    assert_eq!(mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count(), 1, "{mounts}");
}

#[test]
fn the_container_has_name_spaces_of_its_own() {
    let stanza = fixture!();
    let inside =
        stanza.shell_ok(&[], "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done");
    for (line, name) in inside.lines().zip(["mnt", "pid", "net", "ipc", "uts", "cgroup"]) {
        let outside = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(line, outside.to_str().unwrap());
    }
    assert_eq!(stanza.shell_ok(&[], "grep -v '^ *lo:' /proc/net/dev | tail -n +3 | wc -l"), "0");
}

#[test]
fn name_spaces_of_the_host_are_shared_when_asked() {
    let stanza = fixture!();
    for name in ["pid", "ipc", "uts"] {
        let inside = stanza.shell_ok(&[&format!("--{name}=host")], &format!("readlink /proc/self/ns/{name}"));
        assert_eq!(inside, fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap());
    }
    let inside = stanza.ok(&["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"]);
    assert_eq!(inside, fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
}

#[test]
fn a_private_user_name_space_maps_root_to_another_user() {
    let stanza = fixture!();
    let output =
        stanza.shell(&["--userns", "private"], "id -u; readlink /proc/self/ns/user; cat /proc/self/uid_map");
    if output.code == 125 && output.stderr.contains("sub") {
        stanza_test::skip!("{}", output.stderr.trim());
    }
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[0], "0", "{}", output.stderr);
    assert_ne!(lines[1], fs::read_link("/proc/self/ns/user").unwrap().to_str().unwrap());
    assert!(!lines[2].split_whitespace().nth(1).unwrap().starts_with("0"), "{}", lines[2]);
}

#[test]
fn standard_devices_are_there_and_no_others() {
    let stanza = fixture!();
    let names = stanza.shell_ok(&[], "ls /dev | sort | tr '\\n' ' '");
    assert_eq!(names, "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ");
    assert_eq!(
        stanza
            .shell_ok(&[], "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c"),
        "4\n4"
    );
}

#[test]
fn devices_that_are_not_allowed_cannot_be_opened() {
    let stanza = fixture!();
    // MKNOD is among the default capabilities; the device cgroup refuses the opening.
    let output = stanza.shell(&[], "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem");
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("not permitted"), "{}", output.stderr);
}

#[test]
fn no_descriptor_is_inherited() {
    let stanza = fixture!();
    let mut command = std::process::Command::new("bash");
    let inner = stanza.command(&["run", "--rm", "--network", "none", "busybox", "ls", "/proc/self/fd"]);
    command
        .arg("-c")
        .arg("exec 5</etc/passwd 17</ 99</dev/null; exec \"$@\"")
        .arg("bash")
        .arg(inner.get_program())
        .args(inner.get_args());
    let output = stanza_test::Running::start(command).finish();
    // 3 is the directory that `ls` itself has open.
    assert_eq!(output.stdout, "0\n1\n2\n3\n", "{}", output.stderr);
}
