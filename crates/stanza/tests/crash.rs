//! `kill -9` of anything at any moment: `ps` tells the truth, `rm` cleans, names come free, nothing stays.

use std::fs;
use std::time::Duration;

use stanza_test::{Stanza, fixture, wait_until};

/// The name can be taken again and everything be as before.
fn assert_recovers(stanza: &Stanza, before: &stanza_test::Leftovers, name: &str) {
    stanza.output(&["rm", "-f", name]);
    stanza.assert_clean(before);
    let output =
        stanza.output(&["run", "--rm", "--network", "none", "--name", name, "busybox", "echo", "again"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "again\n"), "{}", output.stderr);
    stanza.assert_clean(before);
}

#[test]
fn a_container_that_is_killed_from_outside_is_recorded() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    stanza.kill_9(stanza.pid("c1"));
    stanza.wait_state("c1", "exited");
    assert_eq!(stanza.inspect("c1")["State"]["ExitCode"], 137);
    assert_recovers(&stanza, &before, "c1");
}

#[test]
fn the_death_of_the_monitor_ends_the_container_and_is_told() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    let (init, monitor) = (stanza.pid("c1"), stanza.monitor("c1"));
    stanza.kill_9(monitor);
    wait_until("ps tells it", || stanza.ok(&["ps", "-q"]).is_empty());
    assert_eq!(stanza.state("c1"), "exited");
    assert_eq!(stanza.inspect("c1")["State"]["ExitCode"], 137);
    wait_until("init is dead", || {
        !fs::exists(format!("/proc/{init}/ns/pid")).unwrap_or(false)
            || stanza.output(&["rm", "-f", "c1"]).code == 0
    });
    assert_recovers(&stanza, &before, "c1");
}

#[test]
fn a_container_starts_again_after_its_monitors_death() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    stanza.kill_9(stanza.monitor("c1"));
    stanza.wait_state("c1", "exited");
    stanza.ok(&["start", "c1"]);
    assert_eq!(stanza.state("c1"), "running");
    assert_eq!(stanza.ok(&["exec", "c1", "echo", "here"]), "here");
    assert_recovers(&stanza, &before, "c1");
}

#[test]
fn init_and_monitor_may_die_together() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    let (init, monitor) = (stanza.pid("c1"), stanza.monitor("c1"));
    stanza.kill_9(monitor);
    stanza.kill_9(init);
    stanza.wait_state("c1", "exited");
    assert_recovers(&stanza, &before, "c1");
}

#[test]
fn an_attached_door_tells_of_the_monitors_death() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    let mut door = stanza.spawn(&[
        "run",
        "--network",
        "none",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "echo ready; exec sleep 1000",
    ]);
    door.expect("ready");
    stanza.kill_9(stanza.monitor("c1"));
    let output = door.finish();
    assert_ne!(output.code, 0);
    assert!(!output.stderr.is_empty());
    assert_recovers(&stanza, &before, "c1");
}

#[test]
fn a_door_killed_at_any_moment_of_a_run_leaves_nothing_that_rm_does_not_clear() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    // The moments are spread over a start's time, on this machine or a slower one.
    for microseconds in [0, 300, 1000, 2000, 3000, 4000, 5000, 7000, 10_000, 15_000, 25_000, 50_000] {
        let door =
            stanza.spawn(&["run", "-d", "--network", "none", "--name", "c1", "busybox", "sleep", "1000"]);
        std::thread::sleep(Duration::from_micros(microseconds));
        stanza.kill_9(door.pid());
        drop(door);
        let listed = stanza.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
        assert!(
            ["", "c1 created", "c1 running", "c1 exited"].contains(&listed.as_str()),
            "after {microseconds} µs: {listed}"
        );
        assert_recovers(&stanza, &before, "c1");
    }
}

#[test]
fn a_foreground_door_killed_early_with_rm_leaves_nothing_at_last() {
    let stanza = fixture!();
    // Layers are unpacked by now: a lease that is left of that is for the next pull to clear.
    stanza.shell_ok(&[], "true");
    let before = stanza.leftovers();
    for microseconds in [500, 2000, 4000, 8000, 20_000] {
        let door =
            stanza.spawn(&["run", "--rm", "--network", "none", "--name", "c1", "busybox", "sleep", "0.05"]);
        std::thread::sleep(Duration::from_micros(microseconds));
        stanza.kill_9(door.pid());
        drop(door);
        assert_recovers(&stanza, &before, "c1");
    }
}

#[test]
fn a_killed_rm_can_be_said_again() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    for microseconds in [500, 1500, 3000, 6000, 12_000] {
        stanza.sleeper("c1");
        let door = stanza.spawn(&["rm", "-f", "c1"]);
        std::thread::sleep(Duration::from_micros(microseconds));
        stanza.kill_9(door.pid());
        drop(door);
        assert_recovers(&stanza, &before, "c1");
    }
}

#[test]
fn a_killed_import_leaves_no_half_image() {
    let stanza = fixture!(Empty);
    let file = stanza.file("busybox.tar", stanza.busybox());
    for microseconds in [1000, 3000, 6000, 12_000, 25_000] {
        let door = stanza.spawn(&["import", &file, "half:1"]);
        std::thread::sleep(Duration::from_micros(microseconds));
        stanza.kill_9(door.pid());
        drop(door);
        let listed = stanza.ok(&["images", "-q", "half"]);
        if listed.is_empty() {
            continue;
        }
        // It was quick enough: then it must be whole.
        assert_eq!(stanza.ok(&["run", "--rm", "--network", "none", "half:1", "echo", "whole"]), "whole");
        stanza.ok(&["rmi", "half:1"]);
    }
    stanza.ok(&["import", &file, "half:1"]);
    assert_eq!(stanza.ok(&["run", "--rm", "--network", "none", "half:1", "echo", "whole"]), "whole");
}

#[test]
fn after_a_reboot_containers_show_as_exited_and_start_again() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    let (init, monitor) = (stanza.pid("c1"), stanza.monitor("c1"));
    // What a reboot does: all processes and the run root are gone, the root stays.
    stanza.kill_9(monitor);
    stanza.kill_9(init);
    wait_until("both are gone", || {
        ![init, monitor].iter().any(|pid| fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false))
    });
    fs::remove_dir_all(stanza.runroot()).unwrap();
    let listed = stanza.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
    assert_eq!(listed, "c1 exited");
    stanza.ok(&["start", "c1"]);
    assert_eq!(stanza.state("c1"), "running");
    assert_recovers(&stanza, &before, "c1");
}

#[test]
fn system_check_finds_and_repairs_what_a_dead_monitor_left() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    stanza.kill_9(stanza.monitor("c1"));
    let output = stanza.output(&["system", "check", "--repair"]);
    assert!(output.stdout.len() > 20, "{} {}", output.stdout, output.stderr);
    assert_eq!(stanza.state("c1"), "exited");
    stanza.ok(&["rm", "c1"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_killed_exec_leaves_the_container_alone() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    for microseconds in [500, 2000, 5000] {
        let door = stanza.spawn(&["exec", "c1", "sleep", "1000"]);
        std::thread::sleep(Duration::from_micros(microseconds));
        stanza.kill_9(door.pid());
        drop(door);
        assert_eq!(stanza.ok(&["exec", "c1", "echo", "well"]), "well");
    }
    assert_recovers(&stanza, &before, "c1");
}
