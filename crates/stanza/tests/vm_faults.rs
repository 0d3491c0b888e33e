//! Virtual machines that end badly, what QEMU has, and what is refused.

use std::fs;

use stanza_test::{Stanza, fixture, wait_until};

fn status(pid: u32, word: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    text.lines().find_map(|line| line.strip_prefix(word)).expect("a line").trim().to_owned()
}

fn failed(stanza: &Stanza, reason: &str) {
    stanza.wait_state("c1", "exited");
    let state = &stanza.inspect("c1")["State"];
    assert_eq!(state["ExitCode"], 137);
    let error = state["Error"].as_str().unwrap_or_default();
    assert!(error.contains(reason), "{state}");
}

#[test]
fn a_guest_whose_kernel_panics_has_failed_and_says_why() {
    let stanza = fixture!(Machines);
    let before = stanza.leftovers();
    stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c1",
        "--privileged",
        "busybox",
        "sleep",
        "1000",
    ]);
    stanza.output(&["exec", "c1", "sh", "-c", "echo c > /proc/sysrq-trigger"]);
    failed(&stanza, "virtual machine");
    stanza.ok(&["rm", "c1"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_machine_whose_qemu_is_killed_has_failed() {
    let stanza = fixture!(Machines);
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    stanza.kill_9(stanza.pid("c1"));
    failed(&stanza, "virtual machine");
    stanza.ok(&["start", "c1"]);
    assert_eq!(stanza.state("c1"), "running");
    stanza.ok(&["rm", "-f", "c1"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_monitor_that_is_killed_takes_its_machine_along() {
    let stanza = fixture!(Machines, PrivateNetwork);
    let before = stanza.leftovers();
    stanza.ok(&["run", "-d", "--name", "c1", "-p", "8080:80", "busybox", "sleep", "1000"]);
    let machine = stanza.pid("c1");
    stanza.kill_9(stanza.monitor("c1"));
    stanza.wait_state("c1", "exited");
    wait_until("the machine has ended", || !fs::exists(format!("/proc/{machine}")).unwrap_or(true));
    stanza.ok(&["rm", "c1"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_broken_template_is_made_anew() {
    let stanza = fixture!(Machines);
    let templates = stanza.root().join("vm/templates");
    let one = fs::read_dir(&templates).unwrap().flatten().next().unwrap().path();
    for (name, content) in [("state", "garbage"), ("ram", "short"), ("manifest.json", "{}")] {
        // A file of its own: the one of this name is other tests' too.
        fs::remove_file(one.join(name)).unwrap();
        fs::write(one.join(name), content).unwrap();
        assert_eq!(stanza.shell_ok(&[], "echo well"), "well");
        assert_ne!(fs::read(one.join(name)).unwrap(), content.as_bytes(), "{name}");
    }
}

#[test]
fn qemu_has_nothing_that_it_does_not_need() {
    let stanza = fixture!(Machines);
    stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c1",
        "--memory",
        "64m",
        "busybox",
        "sleep",
        "1000",
    ]);
    let pid = stanza.pid("c1");
    for word in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(pid, word), "0000000000000000", "{word}");
    }
    assert_eq!((status(pid, "NoNewPrivs:").as_str(), status(pid, "Seccomp:").as_str()), ("1", "2"));
    let ids = status(pid, "Uid:");
    assert!(ids.split_whitespace().all(|id| id.parse::<u32>().unwrap() >= 0x6000_0000), "{ids}");
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{name}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let written: Vec<&str> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|words| words[5].split(',').any(|option| option == "rw"))
        .map(|words| words[4])
        .filter(|path| !path.starts_with("/dev") && !path.starts_with("/proc"))
        .collect();
    assert_eq!(written, ["/machine/upper"]);
    let root = stanza.directory().display().to_string();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap().display().to_string();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().display())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let writes = u32::from_str_radix(flags, 8).unwrap() & 3 != 0;
        assert!(!target.ends_with("/ram") || !writes, "{target}: {flags}");
        assert!(!target.contains("stanza.db") && !target.contains("/dev/kvm"), "{target}");
        assert!(
            !target.starts_with(&root) || target.ends_with("/ram") || target.ends_with("console.log"),
            "{target}"
        );
    }
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains(&stanza.inspect("c1")["Id"].as_str().unwrap().to_owned()), "{cgroup}");
}

#[test]
fn verbs_that_need_its_files_are_refused_by_name() {
    let stanza = fixture!(Machines);
    stanza.sleeper("c1");
    let verbs: [(&str, &[&str]); 5] = [
        ("diff", &["diff", "c1"]),
        ("export", &["export", "-o", "/dev/null", "c1"]),
        ("commit", &["commit", "c1", "image"]),
        ("cp", &["cp", "c1:/etc/passwd", "-"]),
        ("cp", &["cp", "/etc/hostname", "c1:/x"]),
    ];
    for (verb, args) in verbs {
        let error = stanza.fails(1, args);
        let told = format!("`{verb}` of a container in a virtual machine is not built yet");
        assert!(error.contains(&told) && error.contains("hint"), "{error}");
    }
}

#[test]
fn options_that_a_machine_cannot_have_are_refused_by_name() {
    let stanza = fixture!(Machines);
    let before = stanza.leftovers();
    let all: [&[&str]; 8] = [
        &["--pid", "host"],
        &["--ipc", "host"],
        &["--uts", "host"],
        &["--userns", "private"],
        &["--network", "host"],
        &["--cpuset-cpus", "0"],
        &["--security-opt", "apparmor=other"],
        &["-v", "/proc:/data"],
    ];
    for options in all {
        let error = stanza.fails(125, &[&["run", "--rm"], options, &["busybox", "true"]].concat());
        let named = ["`--isolation vm` is not supported", "cannot be mounted in a virtual machine"];
        assert!(named.iter().any(|text| error.contains(text)), "{options:?}: {error}");
    }
    stanza.assert_clean(&before);
}

#[test]
fn machines_in_numbers_leave_nothing() {
    let stanza = fixture!(Machines);
    let before = stanza.leftovers();
    let count = std::env::var("STANZA_TEST_MACHINES").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let run = ["run", "--rm", "--network", "none", "busybox", "echo"];
    let mut all: Vec<_> = (0..count)
        .map(|number: u32| stanza.spawn(&[&run[..], &[number.to_string().as_str()]].concat()))
        .collect();
    for (number, running) in all.iter_mut().enumerate() {
        let output = running.finish();
        assert_eq!((output.code, output.stdout), (0, format!("{number}\n")), "{}", output.stderr);
    }
    stanza.assert_clean(&before);
}

#[test]
fn without_qemu_it_is_said_how_to_get_it() {
    let stanza = fixture!(Machines, PrivateNetwork);
    let before = stanza.leftovers();
    let host = stanza.network().unwrap();
    for directory in ["/usr/bin", "/usr/local/bin", "/usr/libexec"] {
        for name in ["qemu-system-x86_64", "qemu-kvm"] {
            let path = format!("{directory}/{name}");
            if fs::exists(&path).unwrap() {
                let hidden = host.run(&["mount", "--bind", "/dev/null", &path]);
                assert_eq!(hidden.code, 0, "{}", hidden.stderr);
            }
        }
    }
    let error = stanza.fails(125, &["run", "--rm", "--network", "none", "busybox", "true"]);
    assert!(error.contains("is not installed") && error.contains("qemu-system-x86"), "{error}");
    stanza.assert_clean(&before);
}
