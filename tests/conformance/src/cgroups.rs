//! Limits of each controller as the configuration asks for them, the freezer, who is inside, what is left.

use std::fs;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Need, Outcome, cases, contains, contains_any, holds, same, wait_for};
use crate::container::Container;
use crate::scene::{CGROUP, Scene, read};

cases!("cgroups":
    the_process_is_in_its_own_in_every_hierarchy,
    path_that_is_relative,
    path_that_is_empty_is_the_id,
    path_upward_stays_inside_the_hierarchy,
    memory_limits [Need::Controller("memory")],
    memory_limit_is_enforced [Need::Controller("memory")],
    memory_swap_below_memory_is_refused [Need::Controller("memory")],
    memory_swappiness_beyond_100_is_refused [Need::Controller("memory")],
    memory_oom_killer_disabled [Need::Controller("memory")],
    memory_check_before_update [Need::Controller("memory"), Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    cpu_limits [Need::Controller("cpu")],
    cpu_burst [Need::Controller("cpu"), Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    cpu_idle [Need::Controller("cpu"), Need::Since("runc", "1.2")],
    cpu_quota_beyond_reason_is_refused [Need::Controller("cpu")],
    cpuset_limits [Need::Controller("cpuset")],
    cpuset_beyond_the_machine_is_refused [Need::Controller("cpuset")],
    cpuset_of_a_new_parent_is_filled [Need::Controller("cpuset")],
    pids_limit_is_enforced [Need::Controller("pids")],
    pids_without_limit [Need::Controller("pids")],
    block_throttling [Need::Controller("blkio")],
    hugetlb_unknown_page_size_is_refused,
    unified_settings_without_version_2_are_refused,
    pause_and_resume [Need::Controller("freezer")],
    pause_of_a_stopped_container_is_refused [Need::Controller("freezer")],
    pause_of_a_paused_container_is_refused [Need::Controller("freezer"), Need::Lacks("runc", "freezes again"), Need::Lacks("crun", "freezes again")],
    resume_of_a_running_container_is_refused [Need::Controller("freezer"), Need::Lacks("crun", "thaws again")],
    kill_reaches_a_paused_container [Need::Controller("freezer")],
    delete_force_of_a_paused_container [Need::Controller("freezer")],
    exec_into_a_paused_container_is_refused [Need::Controller("freezer")],
    exec_ignoring_the_pause_waits_for_resume [Need::Controller("freezer"), Need::Since("runc", "1.1"), Need::Lacks("crun", "no --ignore-paused")],
    exec_is_inside,
    children_are_inside,
    delete_removes_what_the_container_made_below,
    delete_force_ends_processes_that_left_the_pid_namespace,
    an_old_empty_one_is_taken,
    an_old_one_with_processes [Need::Since("runc", "1.2"), Need::Lacks("crun", "takes it")],
    the_parent_stays,
    many_limits_at_once,
    intel_rdt_without_hardware_is_refused,
);

/// A waiting container with these resources.
pub(crate) fn with<'a>(s: &'a Scene, resources: &[(&str, Value)]) -> Outcome<Container<'a>> {
    let mut container = s.container(&["sleep", "1000"])?;
    for (name, value) in resources {
        container.bundle.config["linux"]["resources"][*name] = value.clone();
    }
    container.up()?;
    Ok(container)
}

/// The files of one controller must say so.
pub(crate) fn files(container: &Container, controller: &str, expected: &[(&str, &str)]) -> Outcome {
    for (file, value) in expected {
        same(file, container.cgroup_file(controller, file)?, *value)?;
    }
    Ok(())
}

fn the_process_is_in_its_own_in_every_hierarchy(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let pid = container.pid()?;
    let text = read(format!("/proc/{pid}/cgroup"));
    let expected = format!("/{CGROUP}/{}/{}", s.tag, container.id);
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let controller = fields.nth(1).unwrap_or_default();
        // Version 2 of the hybrid layout is of no use without controllers; a runtime may leave it alone.
        if !controller.is_empty() {
            same(controller, fields.next(), Some(expected.as_str()))?;
        }
    }
    Ok(())
}

fn path_that_is_relative(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    let path = format!("{CGROUP}/{}/{}", s.tag, container.id);
    container.bundle.config["linux"]["cgroupsPath"] = json!(path);
    container.up()?;
    let text = read(format!("/proc/{}/cgroup", container.pid()?));
    let line = text.lines().find(|line| line.contains(":pids:")).unwrap_or_default();
    // Below the caller's own for runc, below the root for crun.
    holds(&format!("`{path}` in `{line}`"), line.ends_with(&path))?;
    container.delete_force()?;
    same("left", s.cgroups(&container.id).len(), 0)
}

fn path_that_is_empty_is_the_id(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    if let Some(linux) = container.bundle.config["linux"].as_object_mut() {
        linux.remove("cgroupsPath");
    }
    container.up()?;
    let text = read(format!("/proc/{}/cgroup", container.pid()?));
    let line = text.lines().find(|line| line.contains(":pids:")).unwrap_or_default().to_owned();
    container.delete_force()?;
    let path = line.splitn(3, ':').nth(2).unwrap_or_default();
    let left = std::path::Path::new("/sys/fs/cgroup/pids").join(path.trim_start_matches('/'));
    holds(&format!("the id in `{path}`"), path.contains(&container.id))?;
    holds(&format!("`{}` is gone", left.display()), !left.exists())
}

/// What climbs is cleaned before it is joined to the hierarchy's directory, or refused.
fn path_upward_stays_inside_the_hierarchy(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    let path = format!("/../../../../{CGROUP}/{}/{}", s.tag, container.id);
    container.bundle.config["linux"]["cgroupsPath"] = json!(path);
    let refused = container.try_create(&[])?.code != 0;
    let outside = std::path::Path::new("/").join(CGROUP);
    let escaped = outside.join(&s.tag).exists();
    let _ = fs::remove_dir_all(outside.join(&s.tag));
    let _ = fs::remove_dir(outside);
    holds("nothing outside", !escaped)?;
    if refused {
        return Ok(());
    }
    let text = read(format!("/proc/{}/cgroup", container.pid()?));
    let line = text.lines().find(|line| line.contains(":pids:")).unwrap_or_default();
    holds(line, line.ends_with(&format!("/{CGROUP}/{}/{}", s.tag, container.id)) && !line.contains(".."))?;
    container.delete_force()
}

fn memory_limits(s: &Scene) -> Outcome {
    let memory =
        json!({"limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728, "swappiness": 20});
    let container = with(s, &[("memory", memory)])?;
    files(
        &container,
        "memory",
        &[
            ("memory.limit_in_bytes", "67108864"),
            ("memory.soft_limit_in_bytes", "33554432"),
            ("memory.memsw.limit_in_bytes", "134217728"),
            ("memory.swappiness", "20"),
        ],
    )?;
    // Without a limit of its own; and one of less than none.
    let container = with(s, &[("memory", json!({"limit": -1}))])?;
    files(&container, "memory", &[("memory.limit_in_bytes", "9223372036854771712")])
}

fn memory_limit_is_enforced(s: &Scene) -> Outcome {
    let limit = |bundle: &mut Bundle| {
        bundle.config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    };
    same("within", s.sh_with("probe eat 4", limit)?, "ate 4")?;
    let mut container = s.container(&["probe", "eat", "64"])?;
    limit(&mut container.bundle);
    same("beyond", container.run()?.code, 137)
}

fn memory_swap_below_memory_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        bundle.config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 32 << 20});
    })
    .map(drop)
}

fn memory_swappiness_beyond_100_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.config["linux"]["resources"]["memory"] = json!({"swappiness": 101}))
        .map(drop)
}

fn memory_oom_killer_disabled(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.config["linux"]["resources"]["memory"] =
        json!({"limit": 32 << 20, "disableOOMKiller": true});
    let output = container.try_create(&[])?;
    if output.code != 0 {
        // The kernel refuses it where nobody could see that memory is short.
        return contains("what is said", &output.stderr, "oom");
    }
    contains("state", &container.cgroup_file("memory", "memory.oom_control")?, "oom_kill_disable 1")
}

fn memory_check_before_update(s: &Scene) -> Outcome {
    let container = with(s, &[("memory", json!({"limit": 64 << 20}))])?;
    let resources = s.file("resources", r#"{"memory": {"limit": 4096, "checkBeforeUpdate": true}}"#)?;
    let said = container.verb("update", &["--resources", &resources], &[])?.refused()?;
    s.says(&said, &["rejecting memory limit"])?;
    files(&container, "memory", &[("memory.limit_in_bytes", "67108864")])
}

fn cpu_limits(s: &Scene) -> Outcome {
    let container = with(s, &[("cpu", json!({"shares": 100, "quota": 20000, "period": 50000}))])?;
    files(
        &container,
        "cpu",
        &[("cpu.shares", "100"), ("cpu.cfs_quota_us", "20000"), ("cpu.cfs_period_us", "50000")],
    )?;
    let container = with(s, &[("cpu", json!({"quota": -1}))])?;
    files(&container, "cpu", &[("cpu.cfs_quota_us", "-1")])
}

fn cpu_burst(s: &Scene) -> Outcome {
    let container = with(s, &[("cpu", json!({"quota": 20000, "period": 50000, "burst": 5000}))])?;
    files(&container, "cpu", &[("cpu.cfs_burst_us", "5000")])
}

fn cpu_idle(s: &Scene) -> Outcome {
    let container = with(s, &[("cpu", json!({"idle": 1}))])?;
    files(&container, "cpu", &[("cpu.idle", "1")])
}

fn cpu_quota_beyond_reason_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        bundle.config["linux"]["resources"]["cpu"] = json!({"quota": 10, "period": 100_000})
    })
    .map(drop)
}

fn cpuset_limits(s: &Scene) -> Outcome {
    let container = with(s, &[("cpu", json!({"cpus": "0", "mems": "0"}))])?;
    files(&container, "cpuset", &[("cpuset.cpus", "0"), ("cpuset.mems", "0")])?;
    let seen = container.sh("grep Cpus_allowed_list /proc/self/status")?;
    same("processors", seen.split_whitespace().nth(1), Some("0"))
}

fn cpuset_beyond_the_machine_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.config["linux"]["resources"]["cpu"] = json!({"cpus": "4000"})).map(drop)
}

fn cpuset_of_a_new_parent_is_filled(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.config["linux"]["cgroupsPath"] =
        json!(format!("/{CGROUP}/{}/new/parent/{}", s.tag, container.id));
    container.up()?;
    let all = read("/sys/fs/cgroup/cpuset/cpuset.cpus");
    let parent = std::path::Path::new("/sys/fs/cgroup/cpuset").join(CGROUP).join(&s.tag).join("new");
    same("of the parent", read(parent.join("cpuset.cpus")), all.clone())?;
    same("of the container", read(parent.join("parent").join(&container.id).join("cpuset.cpus")), all)?;
    container.delete_force()?;
    for (_, hierarchy) in crate::scene::hierarchies() {
        let new = hierarchy.join(CGROUP).join(&s.tag).join("new");
        if new.exists() {
            fs::remove_dir(new.join("parent"))
                .and_then(|()| fs::remove_dir(&new))
                .map_err(|error| format!("left: {error}"))?;
        }
    }
    Ok(())
}

fn pids_limit_is_enforced(s: &Scene) -> Outcome {
    let seen = s.sh_with("exec probe forks 100", |bundle| {
        bundle.config["linux"]["resources"]["pids"] = json!({"limit": 10});
    })?;
    same("processes", seen, "made=9 errno=11")
}

fn pids_without_limit(s: &Scene) -> Outcome {
    let container = with(s, &[("pids", json!({"limit": -1}))])?;
    files(&container, "pids", &[("pids.max", "max")])?;
    let container = with(s, &[("pids", json!({"limit": 0}))])?;
    // No limit to runc and crun before specification 1.3, no process to those who follow it: it runs, so there is none.
    holds("some limit", ["max", "0", "1"].contains(&container.cgroup_file("pids", "pids.max")?.as_str()))
}

fn block_throttling(s: &Scene) -> Outcome {
    // The major and minor numbers of a disk.
    let dev = fs::read_dir("/sys/block").into_iter().flatten().flatten().find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (!name.starts_with("loop") && !name.starts_with("ram"))
            .then(|| read(entry.path().join("dev")).trim().to_owned())
    });
    let Some((major, minor)) = dev.as_deref().and_then(|dev| dev.split_once(':')) else {
        return Err(crate::case::skip("no disk"));
    };
    let numbers = (major.parse::<u32>().unwrap_or(0), minor.parse::<u32>().unwrap_or(0));
    let rate = |rate: u64| json!([{"major": numbers.0, "minor": numbers.1, "rate": rate}]);
    let container = with(
        s,
        &[(
            "blockIO",
            json!({
                "throttleReadBpsDevice": rate(1_000_000), "throttleWriteBpsDevice": rate(2_000_000),
                "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(400)
            }),
        )],
    )?;
    let line = |rate: u64| format!("{major}:{minor} {rate}");
    files(
        &container,
        "blkio",
        &[
            ("blkio.throttle.read_bps_device", &line(1_000_000)),
            ("blkio.throttle.write_bps_device", &line(2_000_000)),
            ("blkio.throttle.read_iops_device", &line(300)),
            ("blkio.throttle.write_iops_device", &line(400)),
        ],
    )
}

fn hugetlb_unknown_page_size_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        bundle.config["linux"]["resources"]["hugepageLimits"] = json!([{"pageSize": "3MB", "limit": 1}]);
    })
    .map(drop)
}

fn unified_settings_without_version_2_are_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        bundle.config["linux"]["resources"]["unified"] = json!({"memory.high": "100000000"});
    })
    .map(drop)
}

/// A container that counts in a file of its own.
fn counting(s: &Scene) -> Outcome<Container<'_>> {
    let container =
        s.script("echo ready; n=0; while :; do n=$((n+1)); echo $n >/tmp/count; sleep 0.005; done")?;
    container.up()?;
    container.expect("ready")?;
    Ok(container)
}

fn pause_and_resume(s: &Scene) -> Outcome {
    let container = counting(s)?;
    let count = container.bundle.rootfs().join("tmp/count");
    wait_for("it counts", || Ok(read(&count).trim().parse::<u32>().ok()))?;
    container.verb("pause", &[], &[])?.ok()?;
    same("status", container.status()?, "paused")?;
    same("freezer", container.cgroup_file("freezer", "freezer.state")?, "FROZEN")?;
    let before = read(&count);
    std::thread::sleep(std::time::Duration::from_millis(50));
    same("count while it is paused", read(&count), before.clone())?;
    container.verb("resume", &[], &[])?.ok()?;
    same("status", container.status()?, "running")?;
    wait_for("it counts on", || Ok((read(&count) != before).then_some(())))?;
    container.delete_force()
}

fn pause_of_a_stopped_container_is_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    container.verb("pause", &[], &[])?.refused()?;
    container.verb("resume", &[], &[])?.refused().map(drop)
}

fn pause_of_a_paused_container_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    container.verb("pause", &[], &[])?.ok()?;
    container.verb("pause", &[], &[])?.refused()?;
    same("status", container.status()?, "paused")
}

fn resume_of_a_running_container_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let said = container.verb("resume", &[], &[])?.refused()?;
    s.says(&said, &["container not paused"])
}

fn kill_reaches_a_paused_container(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    container.verb("pause", &[], &[])?.ok()?;
    container.kill("KILL")?;
    // runc thaws it then, others leave it to whoever resumes; either way it must end.
    if container.status()? == "paused" {
        container.verb("resume", &[], &[])?.ok()?;
    }
    container.wait_status("stopped")?;
    container.delete()
}

fn delete_force_of_a_paused_container(s: &Scene) -> Outcome {
    let container = counting(s)?;
    container.verb("pause", &[], &[])?.ok()?;
    container.delete_force()?;
    same("cgroups", s.cgroups(&container.id).len(), 0)
}

fn exec_into_a_paused_container_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    container.verb("pause", &[], &[])?.ok()?;
    let said = container.exec(&[], &["true"])?.refused()?;
    contains("what is said", &said, "paused")?;
    container.verb("resume", &[], &[])?.ok().map(drop)
}

fn exec_ignoring_the_pause_waits_for_resume(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    container.verb("pause", &[], &[])?.ok()?;
    let running = s.spawn(container.command("exec", &["--ignore-paused"], &["echo", "late"]))?;
    wait_for("it is inside", || {
        Ok((container.cgroup_file("pids", "cgroup.procs")?.lines().count() > 1).then_some(()))
    })?;
    same("output", read(&running.stdout), "")?;
    container.verb("resume", &[], &[])?.ok()?;
    same("output", running.finish()?.ok()?, "late")
}

fn exec_is_inside(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let first = container.sh("cat /proc/1/cgroup")?;
    same("cgroups", container.sh("cat /proc/self/cgroup")?, first)?;
    let limited = with(s, &[("pids", json!({"limit": 10}))])?;
    contains("exec", &limited.exec(&[], &["probe", "forks", "100"])?.ok()?, "errno=11")
}

fn children_are_inside(s: &Scene) -> Outcome {
    let container = s.script("sleep 1000 & sleep 1000 & echo ready; wait")?;
    container.up()?;
    container.expect("ready")?;
    for controller in ["pids", "memory", "freezer"] {
        same(controller, container.cgroup_file(controller, "cgroup.procs")?.lines().count(), 3)?;
    }
    Ok(())
}

fn writable(bundle: &mut Bundle) {
    bundle.without_mount("/sys/fs/cgroup");
    bundle.mount(
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}),
    );
}

fn delete_removes_what_the_container_made_below(s: &Scene) -> Outcome {
    let script = "mkdir -p /sys/fs/cgroup/pids/a/b /sys/fs/cgroup/memory/c && sleep 1000 & echo $! ; sleep 0.01; \
                  sh -c 'echo $$ >/sys/fs/cgroup/pids/a/b/cgroup.procs; exec sleep 1000' & echo ready; wait";
    let mut container = s.script(script)?;
    writable(&mut container.bundle);
    container.up()?;
    container.expect("ready")?;
    let below = s.cgroups(&container.id)["pids"].join("a/b/cgroup.procs");
    wait_for("a process is below", || Ok((!read(&below).is_empty()).then_some(())))?;
    container.delete_force()?;
    same("cgroups", s.cgroups(&container.id).len(), 0)
}

fn delete_force_ends_processes_that_left_the_pid_namespace(s: &Scene) -> Outcome {
    let mut container = s.script("sleep 1000 & sleep 1000 & echo ready; exec sleep 1000")?;
    container.bundle.without_namespace("pid");
    container.up()?;
    container.expect("ready")?;
    container.delete_force()?;
    same("cgroups", s.cgroups(&container.id).len(), 0)
}

fn an_old_empty_one_is_taken(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    for controller in ["pids", "memory"] {
        let path = std::path::Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(CGROUP)
            .join(&s.tag)
            .join(&container.id);
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
    }
    container.up()?;
    same("status", container.status()?, "running")?;
    container.delete_force()
}

/// Else two containers would share limits and ends.
fn an_old_one_with_processes(s: &Scene) -> Outcome {
    let first = s.waiting()?;
    let mut second = s.container(&["sleep", "1000"])?;
    second.bundle.config["linux"]["cgroupsPath"] = json!(format!("/{CGROUP}/{}/{}", s.tag, first.id));
    let said = second.try_create(&[])?.refused()?;
    s.says(&said, &["container's cgroup is not empty"])?;
    same("the first one", first.status()?, "running")
}

fn the_parent_stays(s: &Scene) -> Outcome {
    let first = s.waiting()?;
    let second = s.waiting()?;
    first.delete_force()?;
    same("the second one", second.status()?, "running")?;
    holds("its cgroup", s.cgroups(&second.id).len() >= 8)
}

fn many_limits_at_once(s: &Scene) -> Outcome {
    let seen = s.sh_with(
        "cd /sys/fs/cgroup; cat pids/pids.max memory/memory.limit_in_bytes cpu/cpu.shares cpuset/cpuset.cpus",
        |bundle| {
            let resources = &mut bundle.config["linux"]["resources"];
            resources["pids"] = json!({"limit": 50});
            resources["memory"] = json!({"limit": 64 << 20});
            resources["cpu"] = json!({"shares": 512, "cpus": "0-1"});
        },
    )?;
    contains_any("files", &seen, &["50\n67108864\n512\n0-1"])
}

fn intel_rdt_without_hardware_is_refused(s: &Scene) -> Outcome {
    if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        return Err(crate::case::skip("the machine has resource control"));
    }
    s.refused_with(|bundle| {
        bundle.config["linux"]["intelRdt"] = json!({"closID": "conformance", "l3CacheSchema": "L3:0=f"});
    })
    .map(drop)
}
