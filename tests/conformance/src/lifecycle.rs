//! From `create` to `delete`: the states, what may follow what, what is refused, the first process's end.

use std::fs;

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same, wait_for};
use crate::scene::{Scene, read};

cases!("lifecycle":
    run_prints_what_the_program_prints,
    run_exits_with_the_programs_code,
    run_exits_with_128_and_the_signal_that_ended_the_program,
    run_passes_standard_input_on,
    run_leaves_nothing_of_the_container,
    run_detached_returns_while_the_program_runs,
    run_in_the_foreground_ends_when_the_program_does_though_others_run_on,
    run_of_many_short_programs_never_hangs,
    create_does_not_start_the_program,
    create_of_an_id_in_use_is_refused,
    create_takes_the_working_directory_for_the_bundle,
    create_by_two_at_once_succeeds_for_one,
    create_of_a_program_that_is_not_there_is_refused_and_leaves_nothing,
    create_of_a_program_that_may_not_be_run_is_refused,
    create_without_configuration_is_refused,
    create_with_a_configuration_that_is_no_json_is_refused,
    create_with_a_configuration_of_nothing_is_refused,
    create_with_a_root_that_is_not_there_is_refused,
    create_without_a_process_is_refused_or_starts_nothing [Need::Lacks("runc", "wants a process at `create`")],
    start_starts_the_program,
    start_of_a_running_container_is_refused,
    start_of_a_stopped_container_is_refused,
    start_finds_the_program_by_the_path_of_the_container,
    state_shows_the_bundle_and_annotations,
    state_of_an_unknown_container_is_refused,
    state_is_stopped_when_the_program_has_ended,
    kill_by_number,
    kill_by_name,
    kill_without_a_signal_sends_term,
    kill_of_a_created_container_ends_it,
    kill_of_a_stopped_container_is_refused,
    kill_with_an_unknown_signal_is_refused,
    kill_all_reaches_every_process_when_the_pid_namespace_is_the_hosts,
    delete_of_a_running_container_is_refused,
    delete_force_ends_a_running_container,
    delete_of_a_created_container,
    delete_of_an_unknown_container_is_refused,
    delete_force_of_an_unknown_container_succeeds,
    delete_removes_the_cgroups,
    delete_makes_the_id_free,
    the_pid_file_holds_the_pid_alone,
    the_first_process_is_reparented_to_the_caller,
    the_configuration_may_change_after_create,
    verbs_on_a_container_that_is_not_there_are_refused,
);

fn run_prints_what_the_program_prints(s: &Scene) -> Outcome {
    let output = s.script("echo out; echo err >&2")?.run()?;
    same("code", output.code, 0)?;
    same("standard output", output.stdout, "out\n")?;
    same("standard error", output.stderr, "err\n")
}

fn run_exits_with_the_programs_code(s: &Scene) -> Outcome {
    for code in [1, 7, 125, 255] {
        same("code", s.script(&format!("exit {code}"))?.run()?.code, code)?;
    }
    Ok(())
}

fn run_exits_with_128_and_the_signal_that_ended_the_program(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    let running = container.spawn()?;
    wait_for("the container runs", || {
        let output = s.call(&["state", &container.id])?;
        Ok((output.code == 0 && output.stdout.contains("running")).then_some(()))
    })?;
    container.kill("KILL")?;
    same("code", running.finish()?.code, 137)
}

fn run_passes_standard_input_on(s: &Scene) -> Outcome {
    let container = s.container(&["cat"])?;
    container.bundle.write()?;
    let input = s.file("input", "line one\nline two")?;
    let bundle = container.bundle.directory.display().to_string();
    let mut command = container.command("run", &["--bundle", &bundle], &[]);
    command.stdin(fs::File::open(input).map_err(|error| error.to_string())?);
    let output = s.spawn_into(command, s.path("out"), s.path("err"))?.finish()?;
    same("output", output.stdout, "line one\nline two")
}

fn run_leaves_nothing_of_the_container(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.run()?.ok()?;
    holds("no state", s.call(&["state", &container.id])?.code != 0)?;
    holds("no directory", !s.path("state").join(&container.id).exists())?;
    same("cgroups", s.cgroups(&container.id).len(), 0)
}

fn run_detached_returns_while_the_program_runs(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    container.run_with(&["--detach"])?.ok()?;
    same("status", container.status()?, "running")?;
    container.kill("KILL")?;
    container.wait_status("stopped")?;
    container.delete()
}

fn run_in_the_foreground_ends_when_the_program_does_though_others_run_on(s: &Scene) -> Outcome {
    let output = s.script("sleep 1000 & echo started; exit 3")?.run()?;
    same("output", (output.stdout.as_str(), output.code), ("started\n", 3))
}

fn run_of_many_short_programs_never_hangs(s: &Scene) -> Outcome {
    let container = s.container(&["true"])?;
    for _ in 0..20 {
        container.run()?.ok()?;
    }
    Ok(())
}

fn create_does_not_start_the_program(s: &Scene) -> Outcome {
    let container = s.script("touch /started; echo ran")?;
    container.create()?;
    let state = container.state()?;
    same("status", &state["status"], &json!("created"))?;
    same("id", &state["id"], &json!(container.id))?;
    same("bundle", &state["bundle"], &json!(container.bundle.directory))?;
    let pid = container.pid()?;
    holds("a first process", pid > 1 && fs::metadata(format!("/proc/{pid}")).is_ok())?;
    holds("not started", !container.bundle.rootfs().join("started").exists())?;
    same("output", container.output(), "")?;
    container.start()?;
    container.wait_status("stopped")?;
    holds("started", container.bundle.rootfs().join("started").exists())?;
    same("output", container.output(), "ran\n")?;
    container.delete()
}

fn create_of_an_id_in_use_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let said = container.try_create(&[])?.refused()?;
    s.says(&said, &["container with given ID already exists"])?;
    same("the first one's status", container.status()?, "running")
}

fn create_takes_the_working_directory_for_the_bundle(s: &Scene) -> Outcome {
    let container = s.script("echo here")?;
    container.bundle.write()?;
    let mut command = container.command("run", &[], &[]);
    command.current_dir(&container.bundle.directory);
    same("output", s.finish(command)?.ok()?, "here")?;
    // A relative path is absolute in the state.
    let container = s.script("true")?;
    container.bundle.write()?;
    let mut command = container.command("create", &["--bundle", "."], &[]);
    command.current_dir(&container.bundle.directory);
    s.finish(command)?.ok()?;
    same("bundle", &container.state()?["bundle"], &json!(container.bundle.directory))
}

fn create_by_two_at_once_succeeds_for_one(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(s.spawn(container.command("create", &["--bundle", &bundle], &[]))?);
    }
    let mut good = 0;
    for running in running {
        good += i32::from(running.finish()?.code == 0);
    }
    same("creations that succeeded", good, 1)?;
    container.start()?;
    same("status", container.status()?, "running")
}

/// Nothing is there of a container that could not be made.
fn nothing_of(s: &Scene, id: &str) -> Outcome {
    holds("no state", s.call(&["state", id])?.code != 0)?;
    holds("no directory", !s.path("state").join(id).exists())?;
    same("cgroups", s.cgroups(id).len(), 0)
}

fn create_of_a_program_that_is_not_there_is_refused_and_leaves_nothing(s: &Scene) -> Outcome {
    for program in ["nosuchprogram", "/nosuchprogram", "./nosuch"] {
        let container = s.container(&[program])?;
        let output = container.run()?;
        // crun exits with 127 as a shell does, runc with 1.
        holds("the code", output.code == 1 || output.code == 127)?;
        let said = output.refused()?;
        s.says(&said, &["no such file or directory", "not found"])?;
        contains("what is said", &said, program)?;
        nothing_of(s, &container.id)?;
    }
    Ok(())
}

fn create_of_a_program_that_may_not_be_run_is_refused(s: &Scene) -> Outcome {
    let container = s.container(&["/etc/passwd"])?;
    let said = container.run()?.refused()?;
    contains("what is said", &said.to_lowercase(), "permission denied")?;
    nothing_of(s, &container.id)?;
    let container = s.container(&["/etc"])?;
    container.run()?.refused()?;
    nothing_of(s, &container.id)
}

fn create_without_configuration_is_refused(s: &Scene) -> Outcome {
    let empty = s.directory("empty")?;
    let output = s.call(&["create", "--bundle", &empty, "noconfig"])?;
    same("code", output.code, 1)?;
    contains("what is said", &output.stderr, "config.json")?;
    let output = s.call(&["create", "--bundle", &s.text("nowhere"), "noconfig"])?;
    same("code", output.code, 1)?;
    nothing_of(s, "noconfig")
}

fn create_with_a_configuration_that_is_no_json_is_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    for text in ["", "{", "[]", "{\"ociVersion\": 3}", "{\"ociVersion\": \"1.0.0\", \"process\": 7}"] {
        let path = container.bundle.directory.join("config.json");
        fs::write(&path, text).map_err(|error| error.to_string())?;
        let bundle = container.bundle.directory.display().to_string();
        let output = container.verb("create", &["--bundle", &bundle], &[])?;
        same(&format!("code for `{text}`"), output.code, 1)?;
        holds("something is said", !output.stderr.is_empty())?;
        nothing_of(s, &container.id)?;
    }
    Ok(())
}

/// runc 1.1.5 panics.
fn create_with_a_configuration_of_nothing_is_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    for text in ["null", "{}", "{\"ociVersion\": \"1.0.0\"}"] {
        let path = container.bundle.directory.join("config.json");
        fs::write(&path, text).map_err(|error| error.to_string())?;
        let bundle = container.bundle.directory.display().to_string();
        let output = container.verb("create", &["--bundle", &bundle], &[])?;
        same(&format!("code for `{text}`"), output.code, 1)?;
        nothing_of(s, &container.id)?;
    }
    Ok(())
}

fn create_with_a_root_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    let mut container = s.script("true")?;
    container.bundle.config["root"]["path"] = json!("nowhere");
    let said = container.try_create(&[])?.refused()?;
    contains("what is said", &said, "nowhere")?;
    nothing_of(s, &container.id)
}

fn create_without_a_process_is_refused_or_starts_nothing(s: &Scene) -> Outcome {
    let mut container = s.script("true")?;
    if let Some(config) = container.bundle.config.as_object_mut() {
        config.remove("process");
    }
    // The specification needs it only at `start`.
    if container.try_create(&[])?.code == 0 {
        container.verb("start", &[], &[])?.refused()?;
    } else {
        nothing_of(s, &container.id)?;
    }
    Ok(())
}

fn start_starts_the_program(s: &Scene) -> Outcome {
    let container = s.script("echo ready; exec sleep 1000")?;
    container.create()?;
    let before = container.pid()?;
    container.start()?;
    container.expect("ready\n")?;
    same("status", container.status()?, "running")?;
    same("pid", container.pid()?, before)
}

fn start_of_a_running_container_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let said = container.verb("start", &[], &[])?.refused()?;
    s.says(&said, &["running", "not in created state", "is not in `created` state", "not created"])?;
    same("status", container.status()?, "running")
}

fn start_of_a_stopped_container_is_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    container.verb("start", &[], &[])?.refused().map(drop)
}

fn start_finds_the_program_by_the_path_of_the_container(s: &Scene) -> Outcome {
    let mut container = s.container(&["mine"])?;
    let tool = container.bundle.rootfs().join("home/mine");
    fs::write(&tool, "#!/bin/sh\necho mine\n").map_err(|error| error.to_string())?;
    s.tool(&["chmod", "755", &tool.display().to_string()])?;
    container.bundle.config["process"]["env"] = json!(["PATH=/nowhere:/home"]);
    same("output", container.run()?.ok()?, "mine")
}

fn state_shows_the_bundle_and_annotations(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.config["annotations"] = json!({"com.example.key": "value", "other": ""});
    container.create()?;
    let state = container.state()?;
    same("annotations", &state["annotations"], &json!({"com.example.key": "value", "other": ""}))?;
    same("bundle", &state["bundle"], &json!(container.bundle.directory))?;
    holds("a version", state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")))
}

fn state_of_an_unknown_container_is_refused(s: &Scene) -> Outcome {
    let output = s.call(&["state", "nosuch"])?;
    same("code", output.code, 1)?;
    s.says(&output.stderr, &["container does not exist"])
}

fn state_is_stopped_when_the_program_has_ended(s: &Scene) -> Outcome {
    let container = s.script("exit 5")?;
    container.up()?;
    container.wait_status("stopped")?;
    let state = container.state()?;
    // runc shows 0, crun leaves the pid's place the same.
    same("pid", state["pid"].as_i64().unwrap_or(0), 0)
}

fn trapping(s: &Scene, signal: &str, send: &[&str]) -> Outcome {
    let script =
        format!("trap 'echo got {signal}; exit 9' {signal}; echo ready; while :; do sleep 0.01; done");
    let container = s.script(&script)?;
    container.up()?;
    container.expect("ready\n")?;
    container.verb("kill", &[], send)?.ok()?;
    container.expect(&format!("got {signal}\n"))?;
    container.wait_status("stopped")
}

fn kill_by_number(s: &Scene) -> Outcome {
    trapping(s, "USR1", &["10"])
}

fn kill_by_name(s: &Scene) -> Outcome {
    for name in ["HUP", "SIGHUP"] {
        trapping(s, "HUP", &[name])?;
    }
    Ok(())
}

fn kill_without_a_signal_sends_term(s: &Scene) -> Outcome {
    trapping(s, "TERM", &[])
}

fn kill_of_a_created_container_ends_it(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.create()?;
    container.kill("KILL")?;
    container.wait_status("stopped")?;
    container.delete()
}

fn kill_of_a_stopped_container_is_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    let said = container.verb("kill", &[], &["KILL"])?.refused()?;
    s.says(&said, &["container not running"])
}

fn kill_with_an_unknown_signal_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    for signal in ["NOSUCH", "-1", "99999"] {
        container.verb("kill", &[], &[signal])?.refused().map_err(|error| format!("`{signal}`: {error}"))?;
    }
    same("status", container.status()?, "running")
}

fn kill_all_reaches_every_process_when_the_pid_namespace_is_the_hosts(s: &Scene) -> Outcome {
    let mut container = s.script("sleep 1000 & sleep 1000 & echo ready; exec sleep 1000")?;
    container.bundle.without_namespace("pid");
    container.up()?;
    container.expect("ready\n")?;
    let pids = || -> Outcome<Vec<i32>> {
        Ok(container
            .cgroup_file("pids", "cgroup.procs")?
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect())
    };
    let before = wait_for("three processes", || Ok(Some(pids()?).filter(|pids| pids.len() == 3)))?;
    container.verb("kill", &["--all"], &["KILL"])?.ok()?;
    wait_for("all have ended", || {
        s.reap();
        let alive =
            |pid: &i32| !matches!(read(format!("/proc/{pid}/stat")).rsplit_once(") "), None | Some((_, "")));
        Ok((!before.iter().any(alive)).then_some(()))
    })?;
    container.wait_status("stopped")?;
    container.delete()
}

fn delete_of_a_running_container_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let said = container.verb("delete", &[], &[])?.refused()?;
    s.says(&said, &["not stopped", "running"])?;
    same("status", container.status()?, "running")
}

fn delete_force_ends_a_running_container(s: &Scene) -> Outcome {
    let container = s.script("sleep 1000 & echo ready; exec sleep 1000")?;
    container.up()?;
    container.expect("ready")?;
    let pid = container.pid()?;
    container.delete_force()?;
    s.reap();
    holds("the process is gone", !std::path::Path::new(&format!("/proc/{pid}")).exists())?;
    nothing_of(s, &container.id)
}

fn delete_of_a_created_container(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.create()?;
    let pid = container.pid()?;
    // runc ends the first process, crun wants --force.
    if s.runtime.is_crun() {
        container.delete_force()?;
    } else {
        container.delete()?;
    }
    wait_for("the process is gone", || {
        s.reap();
        Ok((!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()))
    })?;
    nothing_of(s, &container.id)
}

fn delete_of_an_unknown_container_is_refused(s: &Scene) -> Outcome {
    let output = s.call(&["delete", "nosuch"])?;
    same("code", output.code, 1)?;
    s.says(&output.stderr, &["container does not exist"])
}

fn delete_force_of_an_unknown_container_succeeds(s: &Scene) -> Outcome {
    same("code", s.call(&["delete", "--force", "nosuch"])?.code, 0)
}

fn delete_removes_the_cgroups(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    holds("there are cgroups", s.cgroups(&container.id).len() >= 8)?;
    container.kill("KILL")?;
    container.wait_status("stopped")?;
    container.delete()?;
    same("cgroups", s.cgroups(&container.id).len(), 0)
}

fn delete_makes_the_id_free(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    for _ in 0..3 {
        container.up()?;
        container.wait_status("stopped")?;
        container.delete()?;
    }
    Ok(())
}

fn the_pid_file_holds_the_pid_alone(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    container.create_with(&["--pid-file", &s.text("pid")])?;
    same("pid file", read(s.path("pid")), container.pid()?.to_string())?;
    let second = s.container(&["sleep", "1000"])?;
    second.run_with(&["--detach", "--pid-file", &s.text("pid2")])?.ok()?;
    same("pid file", read(s.path("pid2")), second.pid()?.to_string())
}

fn the_first_process_is_reparented_to_the_caller(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let pid = container.pid()?;
    let stat = read(format!("/proc/{pid}/stat"));
    let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)).unwrap_or_default();
    same("parent", parent, std::process::id().to_string().as_str())
}

fn the_configuration_may_change_after_create(s: &Scene) -> Outcome {
    let mut container = s.script("echo first; exec sleep 1000")?;
    container.create()?;
    let before = container.bundle.config.clone();
    container.bundle.config["process"]["args"] = json!(["sh", "-c", "echo second"]);
    container.bundle.config["annotations"] = json!({"late": "yes"});
    container.bundle.write()?;
    container.start()?;
    container.expect("first\n")?;
    same(
        "annotations",
        &container.state()?["annotations"],
        before.get("annotations").unwrap_or(&Value::Null),
    )?;
    container.delete_force()
}

fn verbs_on_a_container_that_is_not_there_are_refused(s: &Scene) -> Outcome {
    let verbs: [&[&str]; 7] = [
        &["start", "nosuch"],
        &["kill", "nosuch", "KILL"],
        &["exec", "nosuch", "true"],
        &["pause", "nosuch"],
        &["resume", "nosuch"],
        &["ps", "nosuch"],
        &["update", "--memory", "100000000", "nosuch"],
    ];
    for words in verbs {
        let output = s.call(words)?;
        holds(&format!("{words:?} is refused: {output:?}"), output.code != 0)?;
        s.says(&output.stderr, &["container does not exist"])?;
    }
    Ok(())
}
