//! Version 2 of cgroups: the runtime sees nothing else below `/sys/fs/cgroup`.
//!
//! It is called in a mount namespace where version 2 covers all; which controllers it has there is the machine's matter.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::case::{Need, Outcome, cases, contains, holds, same, wait_for};
use crate::container::Container;
use crate::runtime::Output;
use crate::scene::{CGROUP, Scene, read};

const CRUN: Need = Need::Lacks("crun", "1.8.1 wants CAP_SYS_RESOURCE for its program");

cases!("version2":
    the_process_is_in_its_own [CRUN],
    a_limit_of_the_unified_map [CRUN],
    an_unknown_file_of_the_unified_map_is_refused [CRUN],
    a_path_in_the_unified_map_is_refused [CRUN],
    hugetlb_limits [CRUN],
    devices_are_refused_by_a_program [CRUN],
    devices_are_allowed_by_a_program [CRUN],
    devices_are_changed_while_it_runs [CRUN, Need::Lacks("runc", "refuses devices at update (issue 3401)")],
    pause_and_resume [CRUN],
    exec_is_inside [CRUN],
    the_container_sees_its_own_alone [CRUN],
    delete_removes_what_the_container_made_below [CRUN],
    kill_all_reaches_every_process [CRUN],
    limits_of_a_controller_that_is_not_there_are_refused [CRUN],
);

/// Where version 2 is mounted on the host, if it is.
fn host() -> Outcome<PathBuf> {
    let found = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].into_iter().map(PathBuf::from);
    let mut found = found.filter(|path| path.join("cgroup.controllers").exists());
    found.next().ok_or_else(|| crate::case::skip("no cgroups of version 2"))
}

/// The container's directory.
fn directory(container: &Container) -> Outcome<PathBuf> {
    Ok(host()?.join(CGROUP).join(&container.scene.tag).join(&container.id))
}

/// Calls the runtime where version 2 is all there is.
fn call(container: &Container, verb: &str, options: &[&str], rest: &[&str]) -> Outcome<Output> {
    host()?;
    let plain = container.command(verb, options, rest);
    let mut command = Command::new("unshare");
    let script = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(plain.get_program()).args(plain.get_args());
    container.scene.finish_reaping(command)
}

fn done(container: &Container, verb: &str, options: &[&str], rest: &[&str]) -> Outcome<String> {
    call(container, verb, options, rest)?.ok().map_err(|error| format!("{verb}: {error}"))
}

fn run(container: &Container, options: &[&str]) -> Outcome<Output> {
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    call(container, "run", &[options, &["--bundle", &bundle]].concat(), &[])
}

fn waiting(s: &Scene) -> Outcome<Container<'_>> {
    let container = s.container(&["sleep", "1000"])?;
    run(&container, &["--detach"])?.ok()?;
    Ok(container)
}

fn end(container: &Container) -> Outcome {
    done(container, "delete", &["--force"], &[])?;
    holds("no cgroup is left", !directory(container)?.exists())
}

fn the_process_is_in_its_own(s: &Scene) -> Outcome {
    let container = waiting(s)?;
    let seen = read(directory(&container)?.join("cgroup.procs"));
    same("processes", seen.trim(), container.pid()?.to_string())?;
    end(&container)
}

/// Whether a file of the kernel's is there in a new cgroup.
fn has(name: &str) -> Outcome {
    let controllers = read(host()?.join("cgroup.controllers"));
    let controller = name.split('.').next().unwrap_or_default();
    if controller == "cgroup" || controllers.split_whitespace().any(|word| word == controller) {
        return Ok(());
    }
    Err(crate::case::skip(&format!("no {controller} controller of cgroup version 2")))
}

fn a_limit_of_the_unified_map(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.config["linux"]["resources"]["unified"] =
        json!({"cgroup.max.descendants": "7", "cgroup.max.depth": "3"});
    run(&container, &["--detach"])?.ok()?;
    let path = directory(&container)?;
    same("descendants", read(path.join("cgroup.max.descendants")).trim(), "7")?;
    same("depth", read(path.join("cgroup.max.depth")).trim(), "3")?;
    end(&container)
}

fn refused(s: &Scene, name: &str) -> Outcome {
    let mut container = s.script("echo ran")?;
    container.bundle.config["linux"]["resources"]["unified"] = json!({name: "7"});
    let said = run(&container, &[])?.refused()?;
    holds("the program has not run", !said.contains("ran\n"))?;
    holds("no cgroup is left", !directory(&container)?.exists())
}

fn an_unknown_file_of_the_unified_map_is_refused(s: &Scene) -> Outcome {
    refused(s, "cgroup.no.such.file")?;
    refused(s, "nosuch.max")
}

fn a_path_in_the_unified_map_is_refused(s: &Scene) -> Outcome {
    let marker = s.file("marker", "untouched")?;
    refused(s, &format!("../../../../../..{marker}"))?;
    refused(s, "../cgroup.max.depth")?;
    same("the file", read(marker), "untouched")
}

fn hugetlb_limits(s: &Scene) -> Outcome {
    has("hugetlb.max")?;
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.config["linux"]["resources"]["hugepageLimits"] =
        json!([{"pageSize": "2MB", "limit": 4_194_304}]);
    run(&container, &["--detach"])?.ok()?;
    same("limit", read(directory(&container)?.join("hugetlb.2MB.max")).trim(), "4194304")?;
    end(&container)
}

const TRY: &str = "mknod /tmp/kmsg c 1 11 2>/dev/null; probe open /tmp/kmsg r; probe open /dev/zero rw";

fn devices_are_refused_by_a_program(s: &Scene) -> Outcome {
    let mut container = s.script(TRY)?;
    container.bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    same("attempts", run(&container, &[])?.ok()?, "errno=1\nopened")
}

fn devices_are_allowed_by_a_program(s: &Scene) -> Outcome {
    let mut container = s.script("mknod /tmp/kmsg c 1 11; probe open /tmp/kmsg r; probe open /tmp/kmsg w")?;
    container.bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    container.bundle.config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rm"}]);
    same("attempts", run(&container, &[])?.ok()?, "opened\nerrno=1")
}

fn devices_are_changed_while_it_runs(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    run(&container, &["--detach"])?.ok()?;
    let attempt = || {
        done(
            &container,
            "exec",
            &[],
            &["sh", "-c", "test -e /tmp/kmsg || mknod /tmp/kmsg c 1 11 2>/dev/null; probe open /tmp/kmsg r"],
        )
    };
    holds("refused before", attempt()?.starts_with("errno="))?;
    let file = s.file(
        "allow",
        r#"{"devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]}"#,
    )?;
    done(&container, "update", &["--resources", &file], &[])?;
    same("allowed", attempt()?, "opened")?;
    end(&container)
}

fn pause_and_resume(s: &Scene) -> Outcome {
    let container = waiting(s)?;
    let file = directory(&container)?.join("cgroup.freeze");
    done(&container, "pause", &[], &[])?;
    same("frozen", read(&file).trim(), "1")?;
    contains("state", &done(&container, "state", &[], &[])?, "\"paused\"")?;
    done(&container, "resume", &[], &[])?;
    same("thawed", read(&file).trim(), "0")?;
    end(&container)
}

fn exec_is_inside(s: &Scene) -> Outcome {
    let container = waiting(s)?;
    let pid = s.text("pid");
    done(&container, "exec", &["--detach", "--pid-file", &pid], &["sleep", "1000"])?;
    let seen = read(directory(&container)?.join("cgroup.procs"));
    holds(&format!("{} in {seen:?}", read(&pid)), seen.lines().any(|line| line == read(&pid)))?;
    end(&container)
}

fn the_container_sees_its_own_alone(s: &Scene) -> Outcome {
    let script = "cut -d: -f3 /proc/self/cgroup | tail -n 1; cat /sys/fs/cgroup/cgroup.procs; (echo 1 >/sys/fs/cgroup/cgroup.procs) 2>/dev/null || echo refused";
    let seen = run(&s.script(script)?, &[])?.ok()?;
    let lines: Vec<&str> = seen.lines().collect();
    same("path", lines.first().copied(), Some("/"))?;
    holds(&format!("the first process in {lines:?}"), lines.contains(&"1"))?;
    same("writing", lines.last().copied(), Some("refused"))
}

fn delete_removes_what_the_container_made_below(s: &Scene) -> Outcome {
    let container = waiting(s)?;
    let below = directory(&container)?.join("a/b");
    fs::create_dir_all(&below).map_err(|error| error.to_string())?;
    end(&container)
}

fn kill_all_reaches_every_process(s: &Scene) -> Outcome {
    let mut container = s.script("sleep 1000 & sleep 1000 & wait")?;
    container.bundle.without_namespace("pid");
    run(&container, &["--detach"])?.ok()?;
    let file = directory(&container)?.join("cgroup.procs");
    wait_for("three processes", || Ok((read(&file).lines().count() == 3).then_some(())))?;
    done(&container, "kill", &["--all"], &["KILL"])?;
    wait_for("their end", || {
        s.reap();
        Ok(read(&file).is_empty().then_some(()))
    })?;
    end(&container)
}

fn limits_of_a_controller_that_is_not_there_are_refused(s: &Scene) -> Outcome {
    let controllers = read(host()?.join("cgroup.controllers"));
    if controllers.split_whitespace().any(|word| word == "memory") {
        return Err(crate::case::skip("version 2 has the memory controller here"));
    }
    let mut container = s.script("echo ran")?;
    container.bundle.config["linux"]["resources"]["memory"] = json!({"limit": 67_108_864});
    let said = run(&container, &[])?.refused()?;
    holds("the program has not run", !said.contains("ran\n"))
}
