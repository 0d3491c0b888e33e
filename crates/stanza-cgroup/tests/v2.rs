//! Version 2 on the real kernel: in a mount namespace of the test's own, where the unified tree is mounted over
//! `/sys/fs/cgroup`, and in cgroups below `stanza-test-<pid>-<name>`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::os::fd::AsRawFd;
use std::process::Command;

use common::{Place, Sleeper};
use serde_json::json;
use stanza_cgroup::{Layout, detect, leftovers};

const INSIDE: &str = "STANZA_TEST_INSIDE";

/// Runs `test`, of this file, again in a mount namespace in which version 2 is all there is. `false` there.
fn entered(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    if !rustix::process::getuid().is_root() {
        skip("needs root");
        return true;
    }
    // 77 says that the namespace could not be had.
    let script = r#"mount -t cgroup2 none /sys/fs/cgroup || exit 77; exec "$@""#;
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    match status {
        Ok(status) if status.code() == Some(77) => skip("cgroup2 cannot be mounted here"),
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => skip(&error.to_string()),
    }
    true
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

fn place(name: &str) -> Place {
    let layout = detect().unwrap();
    assert!(matches!(&layout, Layout::V2 { root, .. } if root.ends_with("sys/fs/cgroup")), "{layout:?}");
    Place::new(layout, name)
}

#[test]
fn a_process_is_joined_frozen_thawed_and_killed() {
    if entered("a_process_is_joined_frozen_thawed_and_killed") {
        return;
    }
    let place = place("states");
    let cgroup = place.make("a", json!({"unified": {"cgroup.max.depth": "3"}}));
    assert_eq!(place.read("", "a", "cgroup.max.depth"), "3");
    assert_eq!(leftovers(&place.layout, &place.parent), ["a"]);
    assert!(cgroup.directory().unwrap().is_some());
    assert_eq!(cgroup.tasks_paths().len(), 0);

    let mut sleepers = [Sleeper::new(), Sleeper::new()];
    sleepers.iter().for_each(|sleeper| cgroup.join(sleeper.pid()).unwrap());
    assert_eq!(cgroup.pids().unwrap().len(), 2);
    assert!(cgroup.stats().unwrap().cpu.is_some());
    cgroup.freeze().unwrap();
    assert!(place.read("", "a", "cgroup.events").contains("frozen 1"));
    cgroup.thaw().unwrap();
    assert!(place.read("", "a", "cgroup.events").contains("frozen 0"));
    cgroup.freeze().unwrap();
    cgroup.kill().unwrap();
    assert_eq!(sleepers.each_mut().map(Sleeper::signal), [Some(9), Some(9)]);
    assert!(cgroup.remove().is_empty());
    assert_eq!(leftovers(&place.layout, &place.parent), Vec::<String>::new());
}

#[test]
fn one_who_cannot_be_in_the_containers_cgroup_goes_to_where_its_first_process_is() {
    if entered("one_who_cannot_be_in_the_containers_cgroup_goes_to_where_its_first_process_is") {
        return;
    }
    let place = place("beside");
    let Layout::V2 { controllers, .. } = &place.layout else { unreachable!() };
    let cgroup = place.make("a", json!({}));
    let inner = place.roots()[0].join(&place.parent).join("a/inner");
    std::fs::create_dir(&inner).unwrap();
    let (first, second, outside) = (Sleeper::new(), Sleeper::new(), Sleeper::new());
    let inner_only = cgroup.sub(&["inner"]).unwrap();
    inner_only.join(first.pid()).unwrap();
    let beside = cgroup.beside(first.pid()).unwrap().unwrap();
    beside.join(second.pid()).unwrap();
    let mut expected = [first.pid(), second.pid()];
    expected.sort_unstable();
    assert_eq!(inner_only.pids().unwrap(), expected);
    assert!(cgroup.beside(outside.pid()).unwrap().is_none());
    // The rule that this is for.
    if let Some(controller) = controllers.iter().find(|name| *name == "hugetlb") {
        for parent in ["", &place.parent, &format!("{}/a", place.parent)] {
            let path = place.roots()[0].join(parent).join("cgroup.subtree_control");
            std::fs::write(path, format!("+{controller}")).unwrap();
        }
        assert!(cgroup.join(outside.pid()).is_err());
    }
    assert!(cgroup.remove().is_empty());
}

#[test]
fn controllers_are_handed_down_for_a_limit() {
    if entered("controllers_are_handed_down_for_a_limit") {
        return;
    }
    let place = place("limit");
    let Layout::V2 { controllers, .. } = &place.layout else { unreachable!() };
    let size = std::fs::read_dir("/sys/kernel/mm/hugepages").map(Iterator::count).unwrap_or(0);
    if !controllers.iter().any(|name| name == "hugetlb") || size == 0 {
        return skip("the tree has no controller `hugetlb`");
    }
    let cgroup = place.make("a", json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}));
    assert_eq!(place.read("", "a", "hugetlb.2MB.max"), "4194304");
    assert!(cgroup.remove().is_empty());
}

#[test]
fn only_the_devices_of_the_rules_can_be_opened() {
    if entered("only_the_devices_of_the_rules_can_be_opened") {
        return;
    }
    let place = place("devices");
    let rules = json!({"devices": [
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "w"},
    ]});
    let cgroup = place.make("a", rules);
    let directory = cgroup.directory().unwrap().unwrap();
    let join = format!(
        "echo 0 >/proc/{}/fd/{}/cgroup.procs || exit 99\n",
        std::process::id(),
        directory.as_raw_fd()
    );
    let run = |script: &str| Command::new("sh").arg("-c").arg(format!("{join}{script}")).status().unwrap();
    // Read and write at once, by two rules; another node; making one.
    let status = run(
        "exec 3<>/dev/null || exit 1; ! head -c 1 /dev/zero 2>&- || exit 2; ! mknod /tmp/stanza-node c 1 3 2>&-",
    );
    assert!(status.success(), "{status}");
    for _ in 0..2 {
        let more = json!({"devices": [{"allow": false}, {"allow": true, "type": "c", "major": 1}]});
        cgroup.update(&place.plan("a", more)).unwrap();
        let status = run("head -c 1 /dev/zero >/dev/null && ! (: </dev/tty0) 2>&-");
        assert!(status.success(), "{status}");
    }
    cgroup.update(&place.plan("a", json!({"devices": [{"allow": true, "access": "rwm"}]}))).unwrap();
    let status = run("head -c 1 /dev/zero >/dev/null && mknod /tmp/stanza-node c 1 3 && rm /tmp/stanza-node");
    assert!(status.success(), "{status}");
    assert!(cgroup.remove().is_empty());
}
