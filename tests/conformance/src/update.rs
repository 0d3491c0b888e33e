//! `update`: each flag, resources as a file or on standard input, devices of a running container.

use std::fs;

use serde_json::json;

use crate::case::{Need, Outcome, cases, contains, same};
use crate::cgroups::{files, with};
use crate::container::Container;
use crate::scene::Scene;

cases!("update":
    memory,
    memory_reservation,
    memory_swap,
    memory_below_what_is_used_is_refused_and_changes_nothing,
    cpu_share,
    cpu_quota_and_period,
    cpu_period_alone_keeps_the_quota,
    cpu_burst [Need::Since("runc", "1.2"), Need::Since("crun", "1.21")],
    cpu_idle [Need::Since("runc", "1.2"), Need::Since("crun", "1.21")],
    cpuset,
    pids_limit,
    pids_limit_none,
    several_flags_at_once,
    resources_of_a_file,
    resources_on_standard_input,
    resources_by_the_short_option,
    resources_that_are_no_json_are_refused,
    resources_with_devices_change_a_running_container [Need::Lacks("runc", "refuses devices at update (issue 3401)"), Need::Since("crun", "1.9")],
    resources_without_devices_keep_them,
    nothing_asked_changes_nothing,
    of_a_created_container,
    of_a_paused_container,
    of_a_stopped_container_is_refused [Need::Lacks("crun", "writes to what is left")],
    units_of_numbers,
    words_that_are_no_number_are_refused,
    l3_cache_without_hardware_is_refused,
    every_flag_is_known,
);

fn limited(s: &Scene) -> Outcome<Container<'_>> {
    with(
        s,
        &[
            ("memory", json!({"limit": 64 << 20, "reservation": 32 << 20, "swap": 128 << 20})),
            ("cpu", json!({"shares": 100, "quota": 20000, "period": 50000, "cpus": "0", "mems": "0"})),
            ("pids", json!({"limit": 20})),
        ],
    )
}

fn update(container: &Container, words: &[&str]) -> Outcome {
    container.verb("update", words, &[])?.ok().map(drop)
}

fn memory(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--memory", "50331648"])?;
    files(
        &container,
        "memory",
        &[
            ("memory.limit_in_bytes", "50331648"),
            ("memory.soft_limit_in_bytes", "33554432"),
            ("memory.memsw.limit_in_bytes", "134217728"),
        ],
    )
}

fn memory_reservation(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--memory-reservation", "16777216"])?;
    files(
        &container,
        "memory",
        &[("memory.soft_limit_in_bytes", "16777216"), ("memory.limit_in_bytes", "67108864")],
    )
}

fn memory_swap(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--memory-swap", "100663296"])?;
    files(
        &container,
        "memory",
        &[("memory.memsw.limit_in_bytes", "100663296"), ("memory.limit_in_bytes", "67108864")],
    )?;
    // Both beyond the old limits of each other: the order of the writes matters.
    update(&container, &["--memory", "201326592", "--memory-swap", "268435456"])?;
    files(
        &container,
        "memory",
        &[("memory.limit_in_bytes", "201326592"), ("memory.memsw.limit_in_bytes", "268435456")],
    )?;
    update(&container, &["--memory", "33554432", "--memory-swap", "50331648"])?;
    files(
        &container,
        "memory",
        &[("memory.limit_in_bytes", "33554432"), ("memory.memsw.limit_in_bytes", "50331648")],
    )?;
    update(&container, &["--memory-swap", "-1"])?;
    files(&container, "memory", &[("memory.memsw.limit_in_bytes", "9223372036854771712")])
}

fn memory_below_what_is_used_is_refused_and_changes_nothing(s: &Scene) -> Outcome {
    let container = limited(s)?;
    // More memory than memory and swap together.
    container.verb("update", &["--memory", "268435456"], &[])?.refused()?;
    files(&container, "memory", &[("memory.limit_in_bytes", "67108864")])
}

fn cpu_share(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--cpu-share", "300"])?;
    files(&container, "cpu", &[("cpu.shares", "300"), ("cpu.cfs_quota_us", "20000")])
}

fn cpu_quota_and_period(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--cpu-quota", "30000", "--cpu-period", "100000"])?;
    files(
        &container,
        "cpu",
        &[("cpu.cfs_quota_us", "30000"), ("cpu.cfs_period_us", "100000"), ("cpu.shares", "100")],
    )?;
    update(&container, &["--cpu-quota", "-1"])?;
    files(&container, "cpu", &[("cpu.cfs_quota_us", "-1")])
}

fn cpu_period_alone_keeps_the_quota(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--cpu-period", "90000"])?;
    files(&container, "cpu", &[("cpu.cfs_quota_us", "20000"), ("cpu.cfs_period_us", "90000")])
}

fn cpu_burst(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--cpu-burst", "7000"])?;
    files(&container, "cpu", &[("cpu.cfs_burst_us", "7000")])
}

fn cpu_idle(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    update(&container, &["--cpu-idle", "1"])?;
    files(&container, "cpu", &[("cpu.idle", "1")])
}

fn cpuset(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--cpuset-cpus", "0-1", "--cpuset-mems", "0"])?;
    files(&container, "cpuset", &[("cpuset.cpus", "0-1"), ("cpuset.mems", "0")])
}

fn pids_limit(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--pids-limit", "33"])?;
    files(&container, "pids", &[("pids.max", "33")])
}

fn pids_limit_none(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--pids-limit", "-1"])?;
    files(&container, "pids", &[("pids.max", "max")])
}

fn several_flags_at_once(s: &Scene) -> Outcome {
    let container = limited(s)?;
    update(&container, &["--pids-limit=44", "--cpu-share=400", "--memory=40000000", "--cpuset-cpus=1"])?;
    files(&container, "pids", &[("pids.max", "44")])?;
    files(&container, "cpu", &[("cpu.shares", "400")])?;
    files(&container, "cpuset", &[("cpuset.cpus", "1")])?;
    files(&container, "memory", &[("memory.limit_in_bytes", "39997440")])
}

const RESOURCES: &str = r#"{"memory": {"limit": 50331648}, "cpu": {"shares": 200, "quota": 25000, "period": 60000}, "pids": {"limit": 30}}"#;

fn changed(container: &Container) -> Outcome {
    files(container, "memory", &[("memory.limit_in_bytes", "50331648")])?;
    files(
        container,
        "cpu",
        &[("cpu.shares", "200"), ("cpu.cfs_quota_us", "25000"), ("cpu.cfs_period_us", "60000")],
    )?;
    files(container, "pids", &[("pids.max", "30")])
}

fn resources_of_a_file(s: &Scene) -> Outcome {
    let container = limited(s)?;
    let path = s.file("resources", RESOURCES)?;
    update(&container, &["--resources", &path])?;
    changed(&container)
}

fn from_standard_input(s: &Scene, option: &[&str]) -> Outcome {
    let container = limited(s)?;
    let path = s.file("resources", RESOURCES)?;
    let mut command = container.command("update", option, &[]);
    command.stdin(fs::File::open(path).map_err(|error| error.to_string())?);
    s.spawn_into(command, s.path("out"), s.path("err"))?.finish()?.ok()?;
    changed(&container)
}

fn resources_on_standard_input(s: &Scene) -> Outcome {
    from_standard_input(s, &["--resources", "-"])?;
    from_standard_input(s, &["--resources=-"])
}

fn resources_by_the_short_option(s: &Scene) -> Outcome {
    from_standard_input(s, &["-r", "-"])
}

fn resources_that_are_no_json_are_refused(s: &Scene) -> Outcome {
    let container = limited(s)?;
    for text in ["", "{", "{\"memory\": 7}", "[]"] {
        let path = s.file("resources", text)?;
        let output = container.verb("update", &["--resources", &path], &[])?;
        output.refused().map_err(|error| format!("`{text}`: {error}"))?;
    }
    files(&container, "memory", &[("memory.limit_in_bytes", "67108864")])
}

fn resources_with_devices_change_a_running_container(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    container.bundle.config["process"]["noNewPrivileges"] = json!(false);
    container.up()?;
    let script = "test -e /tmp/kmsg || mknod /tmp/kmsg c 1 11 2>/dev/null; probe open /tmp/kmsg r";
    let full = |container: &Container| -> Outcome<String> {
        container.exec(&["--cap", "CAP_MKNOD", "--cap", "CAP_SYSLOG"], &["sh", "-c", script])?.ok()
    };
    same("before", full(&container)?, "errno=1")?;
    let allow = s.file(
        "allow",
        r#"{"devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]}"#,
    )?;
    update(&container, &["--resources", &allow])?;
    same("allowed", full(&container)?, "opened")?;
    let deny = s.file(
        "deny",
        r#"{"devices": [{"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]}"#,
    )?;
    update(&container, &["--resources", &deny])?;
    same("denied again", full(&container)?, "errno=1")?;
    // The default ones are left.
    same("null", container.exec(&[], &["probe", "open", "/dev/null", "rw"])?.ok()?, "opened")
}

fn resources_without_devices_keep_them(s: &Scene) -> Outcome {
    let container = limited(s)?;
    let before = container.cgroup_file("devices", "devices.list")?;
    update(&container, &["--pids-limit", "33"])?;
    let path = s.file("resources", RESOURCES)?;
    update(&container, &["--resources", &path])?;
    same("devices", container.cgroup_file("devices", "devices.list")?, before)
}

fn nothing_asked_changes_nothing(s: &Scene) -> Outcome {
    let container = limited(s)?;
    let path = s.file("resources", "{}")?;
    update(&container, &["--resources", &path])?;
    files(&container, "memory", &[("memory.limit_in_bytes", "67108864")])?;
    files(&container, "cpu", &[("cpu.shares", "100"), ("cpu.cfs_quota_us", "20000")])?;
    files(&container, "cpuset", &[("cpuset.cpus", "0")])?;
    files(&container, "pids", &[("pids.max", "20")])
}

fn of_a_created_container(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    container.create()?;
    update(&container, &["--pids-limit", "33"])?;
    files(&container, "pids", &[("pids.max", "33")])?;
    container.start()
}

fn of_a_paused_container(s: &Scene) -> Outcome {
    let container = limited(s)?;
    container.verb("pause", &[], &[])?.ok()?;
    update(&container, &["--pids-limit", "33"])?;
    files(&container, "pids", &[("pids.max", "33")])?;
    same("status", container.status()?, "paused")?;
    container.verb("resume", &[], &[])?.ok().map(drop)
}

fn of_a_stopped_container_is_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    container.verb("update", &["--pids-limit", "33"], &[])?.refused().map(drop)
}

fn units_of_numbers(s: &Scene) -> Outcome {
    let container = limited(s)?;
    let output = container.verb("update", &["--memory", "48M"], &[])?;
    if s.runtime.is_crun() {
        return output.refused().map(drop);
    }
    output.ok()?;
    files(&container, "memory", &[("memory.limit_in_bytes", "50331648")])
}

fn words_that_are_no_number_are_refused(s: &Scene) -> Outcome {
    let container = limited(s)?;
    for flag in ["--memory", "--cpu-share", "--cpu-quota", "--pids-limit", "--blkio-weight"] {
        let output = container.verb("update", &[flag, "many"], &[])?;
        output.refused().map_err(|error| format!("{flag}: {error}"))?;
    }
    Ok(())
}

fn l3_cache_without_hardware_is_refused(s: &Scene) -> Outcome {
    if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        return Err(crate::case::skip("the machine has resource control"));
    }
    let container = limited(s)?;
    let said = container.verb("update", &["--l3-cache-schema", "L3:0=f"], &[])?.refused()?;
    if s.runtime.is_crun() { Ok(()) } else { contains("what is said", &said.to_lowercase(), "rdt") }
}

fn every_flag_is_known(s: &Scene) -> Outcome {
    let container = limited(s)?;
    // What the kernel has no file for may be refused, but not as a word that is not known.
    let flags = [
        ("--blkio-weight", "100"),
        ("--cpu-rt-period", "1000000"),
        ("--cpu-rt-runtime", "0"),
        ("--kernel-memory", "0"),
        ("--kernel-memory-tcp", "0"),
        ("--mem-bw-schema", "MB:0=10"),
    ];
    for (flag, value) in flags {
        let output = container.verb("update", &[flag, value], &[])?;
        let said = format!("{}{}", output.stdout, output.stderr);
        for text in ["flag provided but not defined", "unrecognized option", "Incorrect Usage"] {
            // crun has neither of the last two in this version.
            let known = !said.contains(text) || (s.runtime.is_crun() && !flag.starts_with("--cpu"));
            crate::case::holds(&format!("{flag}: {said:?}"), known)?;
        }
    }
    files(&container, "memory", &[("memory.limit_in_bytes", "67108864")])
}
