//! Version 1 on the real kernel, in cgroups below `stanza-test-<pid>-<name>`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Place, Sleeper};
use rustix::process::Signal;
use serde_json::json;
use stanza_cgroup::{
    ApplyError, Layout, OomEvent, PlanOptions, apply, detect, leftovers, locate, open, plan_at,
};
use stanza_spec::Classify;

/// `None`, with the reason told, on machines without these hierarchies.
fn place(name: &str) -> Option<Place> {
    let layout = detect().unwrap();
    let reason = match &layout {
        Layout::V1(_) if rustix::process::getuid().is_root() => return Some(Place::new(layout, name)),
        Layout::V1(_) => "needs root",
        _ => "this machine has no cgroups of version 1",
    };
    #[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
    {
        eprintln!("skipped: {reason}");
    }
    None
}

/// The lines by which a shell moves itself into the cgroups: `0` to each `tasks` file.
fn join_lines(cgroup: &stanza_cgroup::Cgroup) -> String {
    cgroup.tasks_paths().iter().map(|path| format!("echo 0 >{} || exit 99\n", path.display())).collect()
}

/// Runs a shell script that moves itself into the cgroups first.
fn run_inside(cgroup: &stanza_cgroup::Cgroup, script: &str) -> std::process::ExitStatus {
    Command::new("sh").arg("-c").arg(join_lines(cgroup) + script).status().unwrap()
}

#[test]
fn limits_are_written_and_taken_back() {
    let Some(place) = place("limits") else { return };
    let cgroup = place.make(
        "a",
        json!({
            "memory": {"limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432},
            "cpu": {"shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0"},
            "pids": {"limit": 10},
        }),
    );
    let expected = [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "10"),
    ];
    for (controller, file, value) in expected {
        assert_eq!(place.read(controller, "a", file), value, "{file}");
    }
    assert_ne!(place.read("cpuset", "a", "cpuset.mems"), "");
    assert_eq!(leftovers(&place.layout, &place.parent), ["a"]);

    // Both limits rise above what the other was; then fall again.
    for limit in [268_435_456_u64, 33_554_432] {
        let more = json!({"memory": {"limit": limit, "swap": limit}, "pids": {"limit": -1}});
        cgroup.update(&place.plan("a", more)).unwrap();
        assert_eq!(place.read("memory", "a", "memory.limit_in_bytes"), limit.to_string());
        assert_eq!(place.read("memory", "a", "memory.memsw.limit_in_bytes"), limit.to_string());
    }
    assert_eq!(place.read("pids", "a", "pids.max"), "max");

    assert!(cgroup.remove().is_empty());
    assert!(cgroup.remove().is_empty());
    assert_eq!(leftovers(&place.layout, &place.parent), Vec::<String>::new());
}

#[test]
fn a_child_moves_itself_and_is_counted_frozen_thawed_and_killed() {
    let Some(place) = place("states") else { return };
    let cgroup = place.make("a", json!({"memory": {"limit": 67_108_864}}));
    assert!(run_inside(&cgroup, "test $(grep -c stanza-test /proc/self/cgroup) -ge 6").success());

    let mut sleepers = [Sleeper::new(), Sleeper::new()];
    sleepers.iter().for_each(|sleeper| cgroup.join(sleeper.pid()).unwrap());
    let mut expected = [sleepers[0].pid(), sleepers[1].pid()];
    expected.sort_unstable();
    assert_eq!(cgroup.pids().unwrap(), expected);

    let stats = cgroup.stats().unwrap();
    assert_eq!(stats.pids.unwrap().current, 2);
    assert_eq!(stats.memory.unwrap().limit, Some(67_108_864));
    assert!(stats.cpu.unwrap().usage > 0);
    assert_eq!(cgroup.oom_kills(), 0);

    cgroup.freeze().unwrap();
    assert_eq!(place.read("freezer", "a", "freezer.state"), "FROZEN");
    cgroup.thaw().unwrap();
    assert_eq!(place.read("freezer", "a", "freezer.state"), "THAWED");

    // Also frozen ones are killed.
    cgroup.freeze().unwrap();
    cgroup.kill().unwrap();
    assert_eq!(sleepers.each_mut().map(Sleeper::signal), [Some(9), Some(9)]);
    assert_eq!(cgroup.pids().unwrap(), Vec::<u32>::new());
    assert!(cgroup.remove().is_empty());
}

#[test]
fn only_the_devices_of_the_rules_can_be_opened() {
    let Some(place) = place("devices") else { return };
    let cgroup = place.make(
        "a",
        json!({"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        ]}),
    );
    let script = "echo x >/dev/null && ! head -c 1 /dev/zero 2>/dev/null && ! mknod /tmp/stanza-node c 1 3 2>/dev/null";
    let mut command = run_inside(&cgroup, &script.replace("2>/dev/null", "2>&-"));
    assert!(command.success(), "{command}");
    let all = json!({"devices": [{"allow": false}, {"allow": true, "type": "c", "major": 1}]});
    cgroup.update(&place.plan("a", all)).unwrap();
    command = run_inside(&cgroup, "head -c 1 /dev/zero >/dev/null");
    assert!(command.success(), "{command}");
    assert!(cgroup.remove().is_empty());
}

#[test]
fn a_process_killed_for_want_of_memory_is_counted() {
    let Some(place) = place("oom") else { return };
    let cgroup = place.make("a", json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}}));
    // `tail` keeps all that it reads when there is no end of line.
    let status = run_inside(&cgroup, "head -c 100000000 /dev/zero | tail -n 1 >/dev/null");
    assert!(!status.success());
    // `tail`, and at times the shell too.
    assert!((1..=3).contains(&cgroup.oom_kills()), "{}", cgroup.oom_kills());
    assert!(cgroup.remove().is_empty());
}

#[test]
fn what_the_kernel_refuses_names_the_file_and_leaves_nothing() {
    let Some(place) = place("refused") else { return };
    let error = apply(&place.plan("a", json!({"cpu": {"cpus": "4095"}, "pids": {"limit": 5}}))).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("write `4095` to `"), "{text}");
    assert!(text.ends_with("cpuset.cpus` of the cgroup controller `cpuset`"), "{text}");
    assert!(error.hint().unwrap().contains("processors"), "{:?}", error.hint());
    assert_eq!(leftovers(&place.layout, &place.parent), Vec::<String>::new());
}

#[test]
fn a_dead_containers_cgroup_is_made_anew_and_a_living_ones_is_not_touched() {
    let Some(place) = place("again") else { return };
    let plan = place.plan("a", json!({"pids": {"limit": 5}}));
    let first = apply(&plan).unwrap();
    let second = apply(&place.plan("a", json!({}))).unwrap();
    assert_eq!(place.read("pids", "a", "pids.max"), "max");

    let mut sleeper = Sleeper::new();
    second.join(sleeper.pid()).unwrap();
    assert!(matches!(apply(&plan), Err(ApplyError::Occupied(_))));
    assert_eq!(second.pids().unwrap(), [sleeper.pid()]);

    // A cgroup that the container made in its own, with a process in it.
    let roots = place.roots();
    let pids = roots.iter().find(|root| root.ends_with("pids")).unwrap();
    let inner = pids.join(&place.parent).join("a/inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("cgroup.procs"), sleeper.pid().to_string()).unwrap();
    assert!(open(&plan).remove().is_empty());
    assert_eq!(sleeper.signal(), Some(9));
    assert!(first.remove().is_empty());
    assert_eq!(leftovers(&place.layout, &place.parent), Vec::<String>::new());
}

#[test]
fn want_of_memory_and_the_end_are_told() {
    let Some(place) = place("watch") else { return };
    let cgroup = place.make("a", json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}}));
    let mut watch = cgroup.watch_oom().unwrap();
    assert_eq!(watch.check().unwrap(), OomEvent::None);
    assert!(!run_inside(&cgroup, "head -c 100000000 /dev/zero | tail -n 1 >/dev/null").success());
    assert_eq!(watch.wait(Some(Duration::from_secs(10))).unwrap(), Some(OomEvent::Oom));
    assert!(cgroup.remove().is_empty());
    assert_eq!(watch.wait(Some(Duration::from_secs(10))).unwrap(), Some(OomEvent::End));
}

#[test]
fn a_signal_reaches_all_and_leaves_frozen_ones_frozen() {
    let Some(place) = place("signal") else { return };
    let cgroup = place.make("a", json!({}));
    assert!(!cgroup.is_populated().unwrap());
    let mut sleepers = [Sleeper::new(), Sleeper::new()];
    cgroup.join(sleepers[0].pid()).unwrap();
    // One is in a cgroup that the container made below its own.
    let freezer = place.roots().into_iter().find(|root| root.ends_with("freezer")).unwrap();
    let inner = freezer.join(&place.parent).join("a/inner");
    cgroup.join(sleepers[1].pid()).unwrap();
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("cgroup.procs"), sleepers[1].pid().to_string()).unwrap();
    assert!(cgroup.is_populated().unwrap());

    cgroup.freeze().unwrap();
    cgroup.signal_all(Signal::TERM).unwrap();
    assert!(cgroup.is_paused());
    cgroup.thaw().unwrap();
    assert_eq!(sleepers.each_mut().map(Sleeper::signal), [Some(15), Some(15)]);

    let mut sleeper = Sleeper::new();
    cgroup.join(sleeper.pid()).unwrap();
    cgroup.signal_all(Signal::HUP).unwrap();
    assert_eq!(sleeper.signal(), Some(1));
    assert!(!cgroup.is_paused());

    let mut sleeper = Sleeper::new();
    cgroup.join(sleeper.pid()).unwrap();
    cgroup.freeze().unwrap();
    cgroup.signal_all(Signal::KILL).unwrap();
    assert_eq!(sleeper.signal(), Some(9));
    assert!(cgroup.remove().is_empty());
    assert!(!inner.exists());
}

#[test]
fn a_path_that_is_not_exclusive_is_not_cleared_of_what_others_made_there() {
    let Some(place) = place("shared") else { return };
    let pids = place.roots().into_iter().find(|root| root.ends_with("pids")).unwrap();
    let other = pids.join(&place.parent).join("a/other");
    std::fs::create_dir_all(&other).unwrap();
    let mut plan = place.plan("a", json!({"pids": {"limit": 5}}));
    plan.exclusive = false;
    let cgroup = apply(&plan).unwrap();
    assert!(other.exists());
    assert_eq!(place.read("pids", "a", "pids.max"), "5");
    // What it has stays; a limit that is asked for is written over it.
    let mut memory = place.plan("a", json!({"memory": {"limit": 67_108_864}}));
    memory.exclusive = false;
    apply(&memory).unwrap();
    assert_eq!(place.read("pids", "a", "pids.max"), "5");
    assert_eq!(place.read("memory", "a", "memory.limit_in_bytes"), "67108864");
    cgroup.freeze().unwrap();
    assert!(matches!(apply(&plan), Err(ApplyError::Frozen(_))));
    cgroup.thaw().unwrap();
    let sleeper = Sleeper::new();
    std::fs::write(other.join("cgroup.procs"), sleeper.pid().to_string()).unwrap();
    assert!(matches!(apply(&plan), Err(ApplyError::Occupied(_))));
    assert!(other.exists());
    assert!(open(&plan).remove().is_empty());
}

#[test]
fn limits_that_depend_on_each_other_rise_and_fall_together() {
    let Some(place) = place("order") else { return };
    let cgroup = place.make("a", json!({"cpu": {"quota": 50_000, "period": 100_000}}));
    for (quota, period) in [(900_000_u64, 1_000_000_u64), (5_000, 10_000), (50_000, 100_000)] {
        let plan = place.plan("a", json!({"cpu": {"quota": quota, "period": period, "burst": quota}}));
        cgroup.update(&plan).unwrap();
        let found =
            ["quota", "period", "burst"].map(|name| place.read("cpu", "a", &format!("cpu.cfs_{name}_us")));
        assert_eq!(found, [quota, period, quota].map(|value| value.to_string()));
    }
    let idle = place.plan("a", json!({"cpu": {"idle": 1, "shares": 512}}));
    cgroup.update(&idle).unwrap();
    assert_eq!(place.read("cpu", "a", "cpu.idle"), "1");
    cgroup.update(&place.plan("a", json!({"cpu": {"idle": 0, "shares": 512}}))).unwrap();
    assert_eq!(
        (place.read("cpu", "a", "cpu.idle"), place.read("cpu", "a", "cpu.shares")),
        ("0".into(), "512".into())
    );

    let memory = |limit: i64, swap: i64| place.plan("a", json!({"memory": {"limit": limit, "swap": swap}}));
    for (limit, swap) in
        [(50_000_000_i64, 60_000_000_i64), (100_003_840, 200_003_584), (20_000_768, 20_000_768), (-1, -1)]
    {
        cgroup.update(&memory(limit, swap)).unwrap();
    }
    let none = place.read("memory", "a", "memory.limit_in_bytes");
    assert_eq!(place.read("memory", "a", "memory.memsw.limit_in_bytes"), none);
    // Without a word about swap, no limit of memory lifts that of swap.
    cgroup.update(&memory(20_000_768, 20_000_768)).unwrap();
    cgroup.update(&place.plan("a", json!({"memory": {"limit": -1}}))).unwrap();
    assert_eq!(place.read("memory", "a", "memory.memsw.limit_in_bytes"), none);
    assert!(cgroup.remove().is_empty());
}

#[test]
fn devices_change_while_open_ones_stay_open() {
    let Some(place) = place("live") else { return };
    let rule = |minor: u32, access: &str| json!({"allow": true, "type": "c", "major": 1, "minor": minor, "access": access});
    let rules =
        |rules: &[serde_json::Value]| json!({"devices": ([&[json!({"allow": false})], rules].concat())});
    let cgroup = place.make("a", rules(&[rule(3, "rw"), rule(5, "r")]));
    // Opens and closes the device as fast as it can; fails when it once cannot.
    let script = "while : </dev/null; do [ -e \"$0\" ] && exit 0; done; exit 1";
    let stop = tempfile::tempdir().unwrap();
    let stop = stop.path().join("stop");
    let mut child =
        Command::new("sh").arg("-c").arg(join_lines(&cgroup) + script).arg(&stop).spawn().unwrap();
    for round in 0..200 {
        let other = if round % 2 == 0 { rule(8, "rwm") } else { rule(5, "r") };
        let access = if round % 3 == 0 { "rwm" } else { "r" };
        cgroup.update(&place.plan("a", rules(&[rule(3, access), other]))).unwrap();
    }
    std::fs::write(&stop, "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.read("devices", "a", "devices.list"), "c 1:3 r\nc 1:5 r");
    assert!(cgroup.remove().is_empty());
}

#[test]
fn a_relative_path_is_below_the_callers_own() {
    let Some(place) = place("relative") else { return };
    let location = locate(&place.layout, "", &format!("{}/a", place.parent)).unwrap();
    let options = PlanOptions { every_hierarchy: true, ..PlanOptions::default() };
    let (plan, _) = plan_at(&place.layout, &location, &Default::default(), options).unwrap();
    let cgroup = apply(&plan).unwrap();
    assert!(plan.groups.len() >= 6);
    let sleeper = Sleeper::new();
    cgroup.join(sleeper.pid()).unwrap();
    let below = |pid: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        text.lines().filter(|line| !line.starts_with("0::")).map(str::to_owned).collect::<Vec<_>>()
    };
    let expected: Vec<String> = below("self")
        .iter()
        .map(|line| format!("{}/{}/a", line.trim_end_matches('/'), place.parent))
        .collect();
    assert_eq!(below(&sleeper.pid().to_string()), expected);
    assert!(cgroup.remove().is_empty());
    for group in &plan.groups {
        std::fs::remove_dir(group.directory().parent().unwrap()).unwrap();
    }
}

#[test]
fn devices_can_be_opened_altogether_later() {
    let Some(place) = place("open") else { return };
    let cgroup = place.make("a", json!({"devices": [{"allow": false}]}));
    assert_eq!(place.read("devices", "a", "devices.list"), "");
    cgroup.update(&place.plan("a", json!({}))).unwrap();
    assert_eq!(place.read("devices", "a", "devices.list"), "");
    cgroup.update(&place.plan("a", json!({"devices": [{"allow": true, "access": "rwm"}]}))).unwrap();
    assert_eq!(place.read("devices", "a", "devices.list"), "a *:* rwm");
    assert!(cgroup.remove().is_empty());
}
