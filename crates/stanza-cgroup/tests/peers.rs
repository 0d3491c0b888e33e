//! What runc tells about a container of its own, beside what is told here about the same cgroups.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use stanza_cgroup::{Event, PlanOptions, detect, locate, open, plan_at};
use stanza_spec::oci::runtime::LinuxResources;

#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

fn runc(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("runc");
    command.arg("--root").arg(place.join("state")).args(arguments).current_dir(place);
    command.stdin(Stdio::null());
    command
}

const INSIDE: &str = "STANZA_TEST_INSIDE";

#[test]
fn event_stats_are_those_of_runc() {
    if !rustix::process::getuid().is_root() {
        return skip("needs root");
    }
    if Command::new("runc").arg("--version").output().is_err() {
        return skip("needs runc");
    }
    if std::env::var_os(INSIDE).is_some() {
        return compare(serde_json::json!({}));
    }
    compare(serde_json::json!({"limit": 67_108_864}));
    // The same in a mount namespace in which version 2 is all there is; 77 says that it could not be had. It may be without a
    // memory controller.
    let script = r#"mount -t cgroup2 none /sys/fs/cgroup || exit 77; exec "$@""#;
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "event_stats_are_those_of_runc", "--nocapture"])
        .env(INSIDE, "1")
        .status();
    match status {
        Ok(status) if status.code() == Some(77) => skip("cgroup2 cannot be mounted here"),
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => skip(&error.to_string()),
    }
}

/// Runs a container by runc, and compares what both tell while all in it stand still.
fn compare(memory: Value) {
    let place = tempfile::tempdir().unwrap();
    let bin = place.path().join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    if std::fs::copy("/bin/busybox", bin.join("sleep")).is_err() {
        return skip("needs a static busybox");
    }
    let id = format!("stanza-test-{}-events", std::process::id());
    let path = format!("/{id}");
    assert!(runc(place.path(), &["spec"]).status().unwrap().success());
    let config = place.path().join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["sleep", "100"]);
    spec["linux"]["cgroupsPath"] = path.clone().into();
    spec["linux"]["resources"]["memory"] = memory;
    std::fs::write(&config, spec.to_string()).unwrap();
    let run = |arguments: &[&str]| {
        runc(place.path(), arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    let ran = run(&["run", "--detach", &id]);
    // Nothing counts while all stand still.
    let paused = ran && run(&["pause", &id]);
    let theirs = runc(place.path(), &["events", "--stats", &id]).output().unwrap().stdout;
    let layout = detect().unwrap();
    let location = locate(&layout, &path, &id).unwrap();
    let options = PlanOptions { every_hierarchy: true, ..PlanOptions::default() };
    let (plan, _) = plan_at(&layout, &location, &LinuxResources::default(), options).unwrap();
    let stats = open(&plan).event_stats();
    let deleted = run(&["delete", "--force", &id]);
    assert!(ran && paused && deleted);

    let mut theirs: Value = serde_json::from_slice(&theirs).unwrap();
    let stats = stats.unwrap();
    let mut ours = serde_json::to_value(Event { kind: "stats", id: &id, data: Some(&stats) }).unwrap();
    // Pages that were freed lazily are told differently from one reading to the next; the names stay.
    for side in [&mut theirs, &mut ours] {
        let memory = &mut side["data"]["memory"];
        for (_, value) in memory["raw"].as_object_mut().into_iter().flatten() {
            assert!(value.take().is_u64());
        }
        for kind in ["usage", "swap", "kernel"] {
            memory[kind]["usage"].take();
        }
        // Younger runcs tell of waiting too, this project always does.
        for part in ["cpu", "memory", "blkio"] {
            side["data"][part].as_object_mut().unwrap().remove("psi");
        }
        side["data"]["memory"].as_object_mut().unwrap().remove("cache");
    }
    assert_eq!(ours, theirs);
}
