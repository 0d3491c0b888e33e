//! A real systemd as the maker of cgroups: a user's instance, in namespaces of the test's own, which is asked over its own socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use stanza_cgroup::systemd::{SystemdError, plan_systemd, start, stop, update};
use stanza_cgroup::{ApplyError, Layout, PlanOptions, adopt, apply, detect, plan_at};
use stanza_spec::oci::runtime::LinuxResources;

const INSIDE: &str = "STANZA_TEST_INSIDE";

#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// A process that waits for its end.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Sleeper {
        Sleeper(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.0.wait().unwrap().signal()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn systemd() -> Option<&'static str> {
    ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].into_iter().find(|path| Path::new(path).exists())
}

/// Everything of the namespace ends with the test, its first process; what is left of cgroups goes after.
fn run_inside(systemd: &str, group: &str, hybrid: bool) {
    let script = r#"
        mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user || exit 77
        if test -z "$HYBRID"; then mount -t cgroup2 none /sys/fs/cgroup || exit 77; roots=/sys/fs/cgroup
        else roots="/sys/fs/cgroup/systemd /sys/fs/cgroup/unified"; fi
        for root in $roots; do
            mkdir "$root/$GROUP" && echo 0 >"$root/$GROUP/cgroup.procs" || exit 77
        done
        export XDG_RUNTIME_DIR=/run/user
        unset DBUS_SESSION_BUS_ADDRESS
        "$SYSTEMD" --user --unit=basic.target >/dev/null 2>&1 </dev/null &
        exec "$@""#;
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_unit_is_made_changed_and_stopped", "--nocapture"])
        .env(INSIDE, group)
        .env("GROUP", group)
        .env("HYBRID", if hybrid { "1" } else { "" })
        .env("SYSTEMD", systemd)
        .status();
    let tree = "for root in /sys/fs/cgroup /sys/fs/cgroup/*; do \
                find \"$root/$GROUP\" -depth -type d -exec rmdir {} \\; 2>&-; done";
    drop(Command::new("sh").args(["-c", tree]).env("GROUP", group).status());
    match status {
        Ok(status) if status.code() == Some(77) => skip("the namespaces cannot be had here"),
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => skip(&error.to_string()),
    }
}

#[test]
fn a_unit_is_made_changed_and_stopped() {
    let Some(group) = std::env::var_os(INSIDE) else {
        match systemd() {
            _ if !rustix::process::getuid().is_root() => skip("needs root"),
            None => skip("needs systemd"),
            Some(systemd) => {
                let group = format!("stanza-test-{}-systemd", std::process::id());
                run_inside(systemd, &group, false);
                if matches!(detect(), Ok(Layout::V1(_))) {
                    run_inside(systemd, &group, true);
                }
            }
        }
        return;
    };
    let resources: LinuxResources =
        serde_json::from_value(json!({"pids": {"limit": 20}, "cpu": {"shares": 512}})).unwrap();
    let none = LinuxResources::default();
    let layout = detect().unwrap();
    // This machine may have no such controllers in version 2; systemd is told of them all the same.
    let plan = plan_systemd(&layout, "app.slice:stanza:test", "id", &resources, true).unwrap();
    let mut sleeper = Sleeper::new();
    let end = Instant::now() + Duration::from_secs(20);
    let location = loop {
        match start(&plan, &layout, sleeper.pid()) {
            // It is still starting.
            Err(SystemdError::NoBus(_)) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10))
            }
            other => break other.unwrap(),
        }
    };
    let expected = format!("/{}/app.slice/stanza-test.scope", group.to_str().unwrap());
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", sleeper.pid())).unwrap();
    assert!(cgroups.ends_with(&format!(":{expected}\n")), "{cgroups}");

    // The files are those of systemd's cgroup. On version 1 it has made only those of its own hierarchy.
    let options = PlanOptions { every_hierarchy: true, ..PlanOptions::default() };
    let (files, _) = plan_at(&layout, &location, &none, options).unwrap();
    let own: Vec<_> = files.groups.iter().filter(|group| group.directory().exists()).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].path, Path::new(&expected[1..]));
    let systemds = own[0].directory();
    // One with the process in it is never made by this project; it is taken as systemd made it.
    assert!(matches!(apply(&files), Err(ApplyError::Occupied(_))));
    let cgroup = adopt(&files).unwrap();
    cgroup.join(sleeper.pid()).unwrap();
    assert_eq!(cgroup.pids().unwrap(), [sleeper.pid()]);
    cgroup.update(&files).unwrap();

    // A name that is in use is refused, and the one who has it stays.
    let mut other = Sleeper::new();
    let refused = start(&plan, &layout, other.pid()).unwrap_err();
    assert!(
        matches!(&refused, SystemdError::Refused { name, .. } if name == "org.freedesktop.systemd1.UnitExists"),
        "{refused}"
    );
    update(&plan).unwrap();
    stop(plan.bus, &plan.unit).unwrap();
    assert_eq!(sleeper.signal(), Some(15));
    assert!(!systemds.exists());
    assert!(cgroup.remove().is_empty());
    stop(plan.bus, &plan.unit).unwrap();

    // The name is free again.
    start(&plan, &layout, other.pid()).unwrap();
    stop(plan.bus, &plan.unit).unwrap();
    assert_eq!(other.signal(), Some(15));
}
