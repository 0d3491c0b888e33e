//! Logs, errors and exit codes: the texts and forms that callers of runc match on; the global options.

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same};
use crate::runtime::Output;
use crate::scene::{Scene, read};

cases!("logs":
    errors_are_text_on_standard_error [Need::Lacks("crun", "other words")],
    errors_are_json_in_a_log_file,
    errors_are_text_in_a_log_file,
    errors_are_on_standard_error_besides_the_log_file [Need::Lacks("crun", "writes to the file alone")],
    the_log_file_grows,
    debug_adds_records [Need::Lacks("crun", "writes none")],
    an_unknown_format_is_refused,
    special_characters_are_escaped,
    every_failure_exits_with_one,
    an_unknown_verb_is_refused,
    an_unknown_option_is_refused,
    an_option_without_its_value_is_refused,
    missing_and_superfluous_words_are_refused,
    text_of_an_unknown_container [Need::Lacks("crun", "other words")],
    text_of_an_id_in_use [Need::Lacks("crun", "other words")],
    text_of_start_twice [Need::Lacks("crun", "other words")],
    text_of_start_after_the_end [Need::Lacks("crun", "other words")],
    text_of_kill_after_the_end [Need::Lacks("crun", "other words")],
    text_of_pause_after_the_end [Need::Lacks("crun", "other words")],
    text_of_delete_while_it_runs [Need::Lacks("crun", "other words")],
    text_of_a_program_that_is_not_there,
    text_of_a_mount_of_proc_over_a_link [Need::Lacks("crun", "other words")],
    text_of_a_cgroup_in_use [Need::Since("runc", "1.2"), Need::Lacks("crun", "takes it")],
    text_of_a_missing_configuration [Need::Lacks("crun", "other words")],
    options_in_every_spelling [Need::Lacks("crun", "takes the long ones with two dashes alone")],
    options_after_the_id [Need::Lacks("crun", "takes them before it alone")],
    options_that_callers_pass_are_taken,
    option_keep [Need::Since("runc", "1.1.6"), Need::Lacks("crun", "1.8.1 has no --keep")],
    option_config [Need::Lacks("runc", "no --config")],
    option_cgroup_manager_cgroupfs [Need::Lacks("runc", "no --cgroup-manager")],
    option_cgroup_manager_disabled [Need::Lacks("runc", "no --cgroup-manager")],
    option_cgroup_manager_unknown_is_refused [Need::Lacks("runc", "no --cgroup-manager"), Need::Lacks("crun", "1.8.1 ends with a broken assertion")],
    option_systemd_cgroup_without_systemd_is_refused,
    option_pidfd_socket [Need::Since("runc", "1.2"), Need::Lacks("crun", "no --pidfd-socket")],
    the_state_directory_is_made_and_is_private,
);

/// The runtime with global options and a verb.
fn with(s: &Scene, global: &[&str], words: &[&str]) -> Outcome<Output> {
    let mut command = s.command();
    command.args(global).args(words);
    s.finish(command)
}

/// The records of a log file.
fn records(path: &str) -> Outcome<Vec<Value>> {
    read(path)
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}")))
        .collect()
}

fn errors_are_text_on_standard_error(s: &Scene) -> Outcome {
    let output = with(s, &[], &["state", "nosuch"])?;
    let last = output.stderr.lines().last().unwrap_or_default();
    holds(&format!("{last:?} begins with the time"), last.starts_with("time=\""))?;
    contains("record", last, "level=error msg=\"container does not exist\"")?;
    same("standard output", output.stdout, "")
}

fn errors_are_json_in_a_log_file(s: &Scene) -> Outcome {
    let log = s.text("log");
    let output = with(s, &["--log", &log, "--log-format", "json"], &["state", "nosuch"])?;
    same("code", output.code, 1)?;
    let records = records(&log)?;
    let last = records.last().ok_or("no record")?;
    same("level", &last["level"], &json!("error"))?;
    let message = last["msg"].as_str().unwrap_or_default();
    holds(&format!("a message: {message:?}"), !message.is_empty())?;
    if !s.runtime.is_crun() {
        same("message", message, "container does not exist")?;
    }
    let time = last["time"].as_str().unwrap_or_default();
    s.tool(&["date", "--date", time, "+%s"])
        .map_err(|error| format!("{time:?} is no time: {error}"))
        .map(drop)
}

fn errors_are_text_in_a_log_file(s: &Scene) -> Outcome {
    let log = s.text("log");
    with(s, &["--log", &log, "--log-format", "text"], &["state", "nosuch"])?.refused()?;
    let text = read(&log);
    if s.runtime.is_crun() {
        holds("a line", text.ends_with('\n'))
    } else {
        contains("record", &text, "level=error msg=\"container does not exist\"")
    }
}

fn errors_are_on_standard_error_besides_the_log_file(s: &Scene) -> Outcome {
    let output = with(s, &["--log", &s.text("log"), "--log-format", "json"], &["state", "nosuch"])?;
    contains("standard error", &output.stderr, "container does not exist")
}

fn the_log_file_grows(s: &Scene) -> Outcome {
    let log = s.file("log", "{\"level\":\"info\",\"msg\":\"mine\",\"time\":\"2026-01-01T00:00:00Z\"}\n")?;
    for _ in 0..2 {
        with(s, &["--log", &log, "--log-format=json"], &["state", "nosuch"])?.refused()?;
    }
    let records = records(&log)?;
    same("the first", &records[0]["msg"], &json!("mine"))?;
    same("records of errors", records.iter().filter(|record| record["level"] == "error").count(), 2)
}

fn debug_adds_records(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.bundle.write()?;
    let (log, bundle) = (s.text("log"), container.bundle.directory.display().to_string());
    with(
        s,
        &["--debug", "--log", &log, "--log-format", "json"],
        &["run", "--bundle", &bundle, &container.id],
    )?
    .ok()?;
    holds("records of debugging", records(&log)?.iter().any(|record| record["level"] == "debug"))
}

fn an_unknown_format_is_refused(s: &Scene) -> Outcome {
    with(s, &["--log", &s.text("log"), "--log-format", "xml"], &["list"])?.refused().map(drop)
}

fn special_characters_are_escaped(s: &Scene) -> Outcome {
    let log = s.text("log");
    let mut container = s.container(&["no\"such\nprogram\t\u{1}"])?;
    container.bundle.config["process"]["env"] = json!(["PATH=/bin"]);
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    with(s, &["--log", &log, "--log-format", "json"], &["run", "--bundle", &bundle, &container.id])?
        .refused()?;
    holds("a record", records(&log)?.iter().any(|record| record["level"] == "error"))
}

fn every_failure_exits_with_one(s: &Scene) -> Outcome {
    for verb in ["state", "start", "delete", "pause", "resume", "ps", "kill"] {
        let code = s.call(&[verb, "nosuch"])?.code;
        // 253 of crun's `ps`.
        holds(&format!("{verb}: {code}"), code == 1 || (s.runtime.is_crun() && code > 0))?;
    }
    let container = s.container(&["/no/such/program"])?;
    same("create", container.try_create(&[])?.code, 1)
}

fn an_unknown_verb_is_refused(s: &Scene) -> Outcome {
    s.call(&["nosuch"])?.refused().map(drop)
}

fn an_unknown_option_is_refused(s: &Scene) -> Outcome {
    s.call(&["--nosuch", "list"])?.refused()?;
    s.call(&["list", "--nosuch"])?.refused().map(drop)
}

fn an_option_without_its_value_is_refused(s: &Scene) -> Outcome {
    s.call(&["list", "--format"])?.refused().map(drop)
}

fn missing_and_superfluous_words_are_refused(s: &Scene) -> Outcome {
    for verb in ["state", "start", "delete", "pause", "resume", "create", "kill", "update"] {
        s.call(&[verb])?.refused().map_err(|error| format!("{verb}: {error}"))?;
    }
    let container = s.waiting()?;
    if s.runtime.is_stanza() {
        s.call(&["state", &container.id, "superfluous"])?.refused()?;
    }
    same("status", container.status()?, "running")
}

fn says(text: &str, part: &str) -> Outcome {
    contains("what is said", text, part)
}

fn text_of_an_unknown_container(s: &Scene) -> Outcome {
    for verb in ["state", "start", "delete", "pause", "resume", "ps", "kill", "update"] {
        says(&s.call(&[verb, "nosuch"])?.refused()?, "container does not exist")
            .map_err(|error| format!("{verb}: {error}"))?;
    }
    Ok(())
}

fn text_of_an_id_in_use(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    says(&container.try_create(&[])?.refused()?, "container with given ID already exists")
}

fn text_of_start_twice(s: &Scene) -> Outcome {
    says(&s.waiting()?.verb("start", &[], &[])?.refused()?, "cannot start an already running container")
}

fn ended(s: &Scene) -> Outcome<crate::container::Container<'_>> {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    Ok(container)
}

fn text_of_start_after_the_end(s: &Scene) -> Outcome {
    says(&ended(s)?.verb("start", &[], &[])?.refused()?, "cannot start a container that has stopped")
}

fn text_of_kill_after_the_end(s: &Scene) -> Outcome {
    says(&ended(s)?.verb("kill", &[], &["KILL"])?.refused()?, "container not running")
}

fn text_of_pause_after_the_end(s: &Scene) -> Outcome {
    says(&ended(s)?.verb("pause", &[], &[])?.refused()?, "container not running")
}

fn text_of_delete_while_it_runs(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let expected = format!("cannot delete container {} that is not stopped: running", container.id);
    says(&container.verb("delete", &[], &[])?.refused()?, &expected)
}

fn text_of_a_program_that_is_not_there(s: &Scene) -> Outcome {
    // What Docker makes exit code 127 of.
    let said = s.container(&["nosuch"])?.run()?.refused()?;
    contains("what is said", &said, "executable file")?;
    contains("what is said", &said, "not found in $PATH")?;
    let said = s.container(&["/no/such"])?.run()?.refused()?;
    contains("what is said", &said.to_lowercase(), "no such file or directory")?;
    let said = s.container(&["/etc/passwd"])?.run()?.refused()?;
    contains("what is said", &said.to_lowercase(), "permission denied")
}

fn text_of_a_mount_of_proc_over_a_link(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    let proc = container.bundle.rootfs().join("proc");
    std::fs::remove_dir(&proc).map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink("tmp", &proc).map_err(|error| error.to_string())?;
    says(&container.run()?.refused()?, "must be mounted on ordinary directory")
}

fn text_of_a_cgroup_in_use(s: &Scene) -> Outcome {
    let first = s.waiting()?;
    let mut second = s.script("true")?;
    second.bundle.config["linux"]["cgroupsPath"] = first.bundle.config["linux"]["cgroupsPath"].clone();
    says(&second.run()?.refused()?, "container's cgroup is not empty")
}

fn text_of_a_missing_configuration(s: &Scene) -> Outcome {
    let directory = s.directory("empty")?;
    says(
        &s.call(&["create", "--bundle", &directory, "x"])?.refused()?,
        "JSON specification file config.json not found",
    )
}

fn options_in_every_spelling(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    let root = s.text("state");
    let spellings: [&[&str]; 4] = [
        &["-root", &root, "run", "-bundle", &bundle, &container.id],
        &[&format!("--root={root}"), "run", &format!("--bundle={bundle}"), &container.id],
        &[&format!("-root={root}"), "run", &format!("-b={bundle}"), &container.id],
        &["--root", &root, "run", "-b", &bundle, &container.id],
    ];
    for words in spellings {
        let mut command = std::process::Command::new(&s.runtime.path);
        command.args(words);
        s.finish(command)?.ok().map_err(|error| format!("{words:?}: {error}"))?;
    }
    Ok(())
}

fn options_after_the_id(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    container.bundle.write()?;
    let (bundle, pid) = (container.bundle.directory.display().to_string(), s.text("pid"));
    let call = |words: &[&str]| s.call(words)?.ok().map(drop).map_err(|error| format!("{words:?}: {error}"));
    call(&["create", &container.id, "--bundle", &bundle, "--pid-file", &pid])?;
    same("pid", read(&pid), container.pid()?.to_string())?;
    call(&["start", &container.id])?;
    call(&["kill", &container.id, "KILL"])?;
    container.wait_status("stopped")?;
    call(&["delete", &container.id, "--force"])
}

fn options_that_callers_pass_are_taken(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.bundle.write()?;
    let (bundle, log) = (container.bundle.directory.display().to_string(), s.text("log"));
    // containerd's shim, conmon; of crun's, which has no `--rootless=auto` for root in some versions, those that it has.
    let mut global = vec!["--log", &log, "--log-format", "json", "--debug"];
    if !s.runtime.is_crun() {
        global.extend(["--rootless=auto", "--criu", "/usr/sbin/criu"]);
    }
    let create = [
        "create",
        "--bundle",
        &bundle,
        "--pid-file",
        &s.text("pid"),
        "--no-pivot",
        "--no-new-keyring",
        "--preserve-fds",
        "0",
        &container.id,
    ];
    with(s, &global, &create)?.ok()?;
    container.start()?;
    container.wait_status("stopped")?;
    with(s, &global, &["delete", &container.id])?.ok()?;
    let run = ["run", "--no-subreaper", "--bundle", &bundle, &container.id];
    with(s, &global, &run)?.ok().map(drop)
}

fn option_keep(s: &Scene) -> Outcome {
    let container = s.script("exit 3")?;
    same("code", container.run_with(&["--keep"])?.code, 3)?;
    same("status", container.status()?, "stopped")?;
    container.delete()
}

fn option_config(s: &Scene) -> Outcome {
    let container = s.script("echo by another name")?;
    container.bundle.write()?;
    let (from, to) =
        (container.bundle.directory.join("config.json"), container.bundle.directory.join("other.json"));
    std::fs::rename(from, &to).map_err(|error| error.to_string())?;
    let bundle = container.bundle.directory.display().to_string();
    let seen =
        s.call(&["run", "--config", &to.display().to_string(), "--bundle", &bundle, &container.id])?.ok()?;
    same("output", seen, "by another name")
}

fn managed(s: &Scene, name: &str) -> Outcome<(Output, usize)> {
    let container = s.container(&["sleep", "1000"])?;
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    let output =
        with(s, &["--cgroup-manager", name], &["run", "--detach", "--bundle", &bundle, &container.id])?;
    let count = s.cgroups(&container.id).len();
    if output.code == 0 {
        with(s, &["--cgroup-manager", name], &["delete", "--force", &container.id])?.ok()?;
    }
    Ok((output, count))
}

fn option_cgroup_manager_cgroupfs(s: &Scene) -> Outcome {
    let (output, count) = managed(s, "cgroupfs")?;
    output.ok()?;
    holds("cgroups", count > 0)
}

fn option_cgroup_manager_disabled(s: &Scene) -> Outcome {
    let (output, count) = managed(s, "disabled")?;
    output.ok()?;
    same("cgroups", count, 0)
}

fn option_cgroup_manager_unknown_is_refused(s: &Scene) -> Outcome {
    managed(s, "nosuch")?.0.refused().map(drop)
}

fn option_systemd_cgroup_without_systemd_is_refused(s: &Scene) -> Outcome {
    if std::path::Path::new("/run/systemd/system").exists() {
        return Err(crate::case::skip("systemd runs here"));
    }
    let mut container = s.script("echo ran")?;
    container.bundle.config["linux"]["cgroupsPath"] =
        json!(format!("system.slice:conformance:{}", container.id));
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    let said = with(s, &["--systemd-cgroup"], &["run", "--bundle", &bundle, &container.id])?.refused()?;
    holds("the program has not run", !said.contains("ran\n"))?;
    holds("no state is left", s.call(&["state", &container.id])?.code != 0)
}

fn option_pidfd_socket(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    let socket = s.text("pidfd");
    let receiver = crate::exec::listening(s, &["pidfd", &socket])?;
    container.create_with(&["--pidfd-socket", &socket])?;
    says(&receiver.finish()?.ok()?, &format!("pid {}", container.pid()?))
}

fn the_state_directory_is_made_and_is_private(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let mode = s.tool(&["stat", "-c", "%a", &s.path("state").join(&container.id).display().to_string()])?;
    // Nobody else may write there.
    let others = mode.trim().chars().skip(1).all(|digit| matches!(digit, '0' | '1' | '5'));
    holds(&format!("mode {mode}"), mode.trim().len() == 3 && others)
}
