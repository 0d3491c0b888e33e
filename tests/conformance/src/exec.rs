//! `exec`: each option, a process as a file, what the new process is given and what it is kept from.

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same, wait_for};
use crate::container::Container;
use crate::scene::{Scene, read};

cases!("exec":
    passes_the_programs_code,
    exits_with_128_and_the_signal,
    passes_the_streams,
    words_after_the_id_are_the_commands,
    without_a_command_is_refused,
    of_a_program_that_is_not_there_is_refused,
    in_a_created_container,
    in_a_stopped_container_is_refused,
    in_an_unknown_container_is_refused,
    many_at_once,
    detached_returns_at_once,
    the_pid_file_holds_the_pid_the_host_knows,
    user_by_number,
    user_and_group_by_number,
    additional_groups [Need::Lacks("crun", "no --additional-gids")],
    working_directory,
    working_directory_that_is_relative_is_refused [Need::Lacks("crun", "takes it from the root")],
    environment_is_added [Need::Lacks("crun", "1.8.1 takes it in place of the container's")],
    environment_of_the_same_name_is_replaced [Need::Lacks("crun", "1.8.1 takes it in place of the container's")],
    home_is_that_of_the_user,
    capability_is_added [Need::Lacks("crun", "1.8.1 takes them in place of the container's")],
    capability_unknown,
    no_new_privileges,
    no_new_privileges_of_the_container_hold,
    preserve_fds [Need::Lacks("crun", "leaves other descriptors of the caller open beyond them")],
    cgroup_below_the_containers [Need::Lacks("crun", "for version 2 of cgroups alone"), Need::Controller("pids")],
    cgroup_that_is_not_there_is_refused [Need::Lacks("crun", "for version 2 of cgroups alone")],
    apparmor_where_the_kernel_has_none_is_refused,
    process_label_where_the_kernel_has_none_is_refused [Need::Lacks("runc", "ignores it without SELinux"), Need::Lacks("crun", "ignores it without SELinux")],
    pidfd_socket [Need::Since("runc", "1.2"), Need::Lacks("crun", "no --pidfd-socket")],
    process_of_a_file,
    process_of_a_file_has_its_user_and_groups,
    process_of_a_file_has_its_capabilities_alone,
    process_of_a_file_has_its_limits,
    process_of_a_file_has_its_oom_score [Need::Lacks("runc", "sets that of the first process alone"), Need::Lacks("crun", "sets that of the first process alone")],
    process_of_a_file_is_detached_with_a_pid_file,
    process_that_is_no_json_is_refused,
    process_file_that_is_not_there_is_refused,
    inherits_the_limits_of_the_container,
    has_the_containers_namespaces_but_is_not_its_first_process,
    in_a_container_with_the_hosts_pid_namespace,
    the_detached_process_ends_with_the_container,
    the_root_is_the_containers,
    a_caller_that_reaps_everything_does_no_harm,
    a_process_that_leaves_children_does_not_block [Need::Lacks("runc", "waits until all have closed the streams")],
);

fn passes_the_programs_code(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    for code in [0, 1, 42, 255] {
        same("code", container.exec(&[], &["sh", "-c", &format!("exit {code}")])?.code, code)?;
    }
    Ok(())
}

fn exits_with_128_and_the_signal(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    same("code", container.exec(&[], &["sh", "-c", "kill -9 $$"])?.code, 137)
}

fn passes_the_streams(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let input = s.file("input", "line one\nline two\n")?;
    let mut command = container.command("exec", &[], &["sh", "-c", "cat; echo err >&2"]);
    command.stdin(std::fs::File::open(input).map_err(|error| error.to_string())?);
    let output = s.spawn_into(command, s.path("out"), s.path("err"))?.finish()?;
    same("output", (output.stdout.as_str(), output.stderr.as_str()), ("line one\nline two\n", "err\n"))
}

fn words_after_the_id_are_the_commands(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let seen = container
        .exec(&[], &["sh", "-c", "echo \"$@\"", "--user", "--cwd", "/tmp", "--detach", "-e"])?
        .ok()?;
    same("words", seen, "--cwd /tmp --detach -e")
}

fn without_a_command_is_refused(s: &Scene) -> Outcome {
    s.waiting()?.exec(&[], &[])?.refused().map(drop)
}

fn of_a_program_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let said = container.exec(&[], &["nosuch"])?.refused()?;
    s.says(&said, &["executable file not found in $PATH"])?;
    let said = container.exec(&[], &["/no/such"])?.refused()?;
    s.says(&said, &["no such file or directory"])?;
    // The container has come to no harm.
    same("output", container.sh("echo well")?, "well")
}

fn in_a_created_container(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    container.create()?;
    same("output", container.sh("hostname")?, "conformance")?;
    same("status", container.status()?, "created")
}

fn in_a_stopped_container_is_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    let said = container.exec(&[], &["true"])?.refused()?;
    s.says(&said, &["cannot exec in a stopped container"])
}

fn in_an_unknown_container_is_refused(s: &Scene) -> Outcome {
    let said = s.call(&["exec", "nosuch", "true"])?.refused()?;
    s.says(&said, &["container does not exist"])
}

fn many_at_once(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let mut running = Vec::new();
    for number in 0..8 {
        let script = format!("echo {number}; exit {number}");
        running.push(s.spawn(container.command("exec", &[], &["sh", "-c", &script]))?);
    }
    for (number, one) in (0..).zip(running) {
        let output = one.finish()?;
        same("code and output", (output.code, output.stdout), (number, format!("{number}\n")))?;
    }
    Ok(())
}

fn detached_returns_at_once(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let start = std::time::Instant::now();
    container.exec(&["--detach"], &["sh", "-c", "sleep 2; echo late >/late"])?.ok()?;
    holds("before the program's end", start.elapsed() < std::time::Duration::from_secs(2))?;
    wait_for("the program's end", || Ok(container.bundle.rootfs().join("late").exists().then_some(())))
}

/// Whether a process is in the container's cgroup.
fn is_in(container: &Container, pid: i32) -> Outcome {
    contains("cgroup", &read(format!("/proc/{pid}/cgroup")), &format!("/{}", container.id))
}

fn the_pid_file_holds_the_pid_the_host_knows(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let path = s.text("pid");
    container.exec(&["--detach", "--pid-file", &path], &["sleep", "999"])?.ok()?;
    let text = read(&path);
    let pid: i32 = text.parse().map_err(|_| format!("no number alone: {text:?}"))?;
    let program = || Ok(read(format!("/proc/{pid}/cmdline")).starts_with("sleep\0999").then_some(()));
    wait_for("the program", program)?;
    is_in(&container, pid)
}

fn user_by_number(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let seen =
        container.exec(&["--user", "1000"], &["sh", "-c", "id -u; grep ^CapEff /proc/self/status"])?.ok()?;
    same(
        "user and capabilities",
        seen.split_whitespace().collect::<Vec<_>>(),
        ["1000", "CapEff:", "0000000000000000"],
    )
}

fn user_and_group_by_number(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    for option in [&["--user", "1000:1001"][..], &["-u", "1000:1001"], &["--user=1000:1001"]] {
        same("user", container.exec(option, &["sh", "-c", "echo $(id -u):$(id -g)"])?.ok()?, "1000:1001")?;
    }
    Ok(())
}

fn additional_groups(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let options = ["--user", "1000:1000", "--additional-gids", "7", "--additional-gids", "8"];
    let seen = container.exec(&options, &["grep", "^Groups", "/proc/self/status"])?.ok()?;
    same("groups", seen.split_whitespace().collect::<Vec<_>>(), ["Groups:", "7", "8"])
}

fn working_directory(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    same("directory", container.exec(&["--cwd", "/home"], &["pwd"])?.ok()?, "/home")?;
    same("of the container", container.exec(&[], &["pwd"])?.ok()?, "/")
}

fn working_directory_that_is_relative_is_refused(s: &Scene) -> Outcome {
    s.waiting()?.exec(&["--cwd", "home"], &["pwd"])?.refused().map(drop)
}

fn environment_is_added(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let seen =
        container.exec(&["--env", "A=1 2", "--env", "B=x=y"], &["sh", "-c", "echo \"$A|$B|$TERM\""])?.ok()?;
    same("variables", seen, "1 2|x=y|xterm")
}

fn environment_of_the_same_name_is_replaced(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let seen = container.exec(&["--env", "TERM=other"], &["sh", "-c", "env | grep ^TERM"])?.ok()?;
    // The last one holds.
    same("variable", seen.lines().last(), Some("TERM=other"))
}

fn home_is_that_of_the_user(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    same("of root", container.exec(&[], &["sh", "-c", "echo $HOME"])?.ok()?, "/root")?;
    same(
        "of the user",
        container.exec(&["--user", "1000:1000"], &["sh", "-c", "echo $HOME"])?.ok()?,
        "/home/user",
    )
}

fn capability_is_added(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let sets = |options: &[&str]| -> Outcome<Vec<String>> {
        let seen = container.exec(options, &["grep", "^Cap", "/proc/self/status"])?.ok()?;
        Ok(seen.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect())
    };
    let (plain, added) = (sets(&[])?, sets(&["--cap", "CAP_NET_RAW", "--cap", "CAP_SYS_PTRACE"])?);
    for (at, name) in [(1, "permitted"), (2, "effective"), (3, "bounding")] {
        let number =
            |sets: &[String]| sets.get(at).and_then(|set| u64::from_str_radix(set, 16).ok()).unwrap_or(0);
        same(name, number(&added), number(&plain) | 1 << 13 | 1 << 19)?;
    }
    Ok(())
}

fn capability_unknown(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    // Left out with a warning, or refused: never taken for another.
    let output = container.exec(&["--cap", "CAP_NO_SUCH"], &["grep", "^CapEff", "/proc/self/status"])?;
    if output.code != 0 {
        return Ok(());
    }
    let set = output.stdout.split_whitespace().nth(1).and_then(|set| u64::from_str_radix(set, 16).ok());
    holds("no other one", set.is_some_and(|set| set & !0x2000_0420 == 0))
}

fn no_new_privileges(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.config["process"]["noNewPrivileges"] = json!(false);
    container.up()?;
    let of = |options: &[&str]| container.exec(options, &["grep", "^NoNewPrivs", "/proc/self/status"])?.ok();
    same("without", of(&[])?.split_whitespace().nth(1), Some("0"))?;
    same("with", of(&["--no-new-privs"])?.split_whitespace().nth(1), Some("1"))
}

fn no_new_privileges_of_the_container_hold(s: &Scene) -> Outcome {
    let seen = s.waiting()?.exec(&[], &["grep", "^NoNewPrivs", "/proc/self/status"])?.ok()?;
    same("set", seen.split_whitespace().nth(1), Some("1"))
}

fn preserve_fds(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    for count in [0, 1, 3] {
        let mut command = std::process::Command::new("sh");
        let script = "for fd in 3 4 5 6 7 8; do eval \"exec $fd</etc/passwd\"; done; exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(&s.runtime.path).arg("--root").arg(s.path("state"));
        command.args(["exec", "--preserve-fds", &count.to_string(), &container.id, "probe", "fds"]);
        let seen = s.finish(command)?.ok()?;
        let passed = seen.lines().filter(|line| line.ends_with("/etc/passwd")).count();
        same(&format!("passed of {count} in {seen:?}"), passed, count)?;
        same("descriptors", seen.lines().count(), 3 + count)?;
    }
    Ok(())
}

fn cgroup_below_the_containers(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let path = s.cgroups(&container.id).remove("pids").ok_or("no cgroup")?.join("below");
    std::fs::create_dir(&path).map_err(|error| error.to_string())?;
    let pid = s.text("pid");
    container.exec(&["--detach", "--pid-file", &pid, "--cgroup", "pids:below"], &["sleep", "1000"])?.ok()?;
    same("the cgroup's processes", read(path.join("cgroup.procs")).trim(), read(pid).trim())
}

fn cgroup_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    s.waiting()?.exec(&["--cgroup", "pids:nosuch"], &["true"])?.refused().map(drop)
}

fn apparmor_where_the_kernel_has_none_is_refused(s: &Scene) -> Outcome {
    if std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        return Err(crate::case::skip("the kernel has AppArmor"));
    }
    s.waiting()?.exec(&["--apparmor", "nosuch"], &["true"])?.refused().map(drop)
}

fn process_label_where_the_kernel_has_none_is_refused(s: &Scene) -> Outcome {
    if std::path::Path::new("/sys/fs/selinux").exists() {
        return Err(crate::case::skip("the kernel has SELinux"));
    }
    s.waiting()?.exec(&["--process-label", "system_u:system_r:t:s0"], &["true"])?.refused().map(drop)
}

/// The probe on the host, with a socket it listens at.
pub(crate) fn listening(s: &Scene, words: &[&str]) -> Outcome<crate::scene::Running> {
    let mut command = std::process::Command::new(s.probe()?);
    command.args(words);
    let running = s.spawn(command)?;
    wait_for("the probe listens", || Ok(read(&running.stdout).contains("ready").then_some(())))?;
    Ok(running)
}

fn pidfd_socket(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let socket = s.text("pidfd");
    let receiver = listening(s, &["pidfd", &socket])?;
    let pid = s.text("pid");
    container.exec(&["--detach", "--pid-file", &pid, "--pidfd-socket", &socket], &["sleep", "1000"])?.ok()?;
    let said = receiver.finish()?.ok()?;
    contains("the process of the pidfd", &said, &format!("pid {}", read(pid)))
}

/// A file with a process.
fn process(s: &Scene, words: &[&str], change: impl FnOnce(&mut Value)) -> Outcome<String> {
    let mut process = json!({
        "terminal": false, "user": {"uid": 0, "gid": 0}, "args": words, "cwd": "/",
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "FROM=file"]
    });
    change(&mut process);
    s.file("process.json", &process.to_string())
}

fn by_file(s: &Scene, script: &str, change: impl FnOnce(&mut Value)) -> Outcome<String> {
    let container = s.waiting()?;
    let path = process(s, &["sh", "-c", script], change)?;
    container.exec(&["--process", &path], &[])?.ok()
}

fn process_of_a_file(s: &Scene) -> Outcome {
    let seen = by_file(s, "pwd; echo $FROM; echo $TERM", |process| process["cwd"] = json!("/tmp"))?;
    same("directory and environment", seen, "/tmp\nfile")?;
    let container = s.waiting()?;
    let path = process(s, &["echo", "short"], |_| ())?;
    same("output", container.exec(&["-p", &path], &[])?.ok()?, "short")
}

fn process_of_a_file_has_its_user_and_groups(s: &Scene) -> Outcome {
    let seen = by_file(s, "id -u; id -g; grep ^Groups /proc/self/status; umask", |process| {
        process["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 3000], "umask": 0o027});
    })?;
    let words: Vec<&str> = seen.split_whitespace().collect();
    same("user", words, ["1000", "1001", "Groups:", "7", "3000", "0027"])
}

fn process_of_a_file_has_its_capabilities_alone(s: &Scene) -> Outcome {
    let seen = by_file(s, "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status", |process| {
        process["capabilities"] =
            json!({"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]});
    })?;
    let sets: Vec<&str> = seen.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let (none, one) = ("0000000000000000", "0000000000000001");
    same("sets", sets, [none, one, one, one, none])
}

fn process_of_a_file_has_its_limits(s: &Scene) -> Outcome {
    let seen = by_file(s, "ulimit -n; ulimit -c", |process| {
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    })?;
    same("limits", seen, "77\n0")
}

fn process_of_a_file_has_its_oom_score(s: &Scene) -> Outcome {
    let seen = by_file(s, "cat /proc/self/oom_score_adj", |process| process["oomScoreAdj"] = json!(321))?;
    same("score", seen, "321")
}

fn process_of_a_file_is_detached_with_a_pid_file(s: &Scene) -> Outcome {
    // As containerd and conmon call it.
    let container = s.waiting()?;
    let (path, pid) = (process(s, &["sleep", "1000"], |_| ())?, s.text("pid"));
    container.exec(&["--process", &path, "--detach", "--pid-file", &pid], &[])?.ok()?;
    let pid: i32 = read(&pid).parse().map_err(|_| "no pid".to_owned())?;
    is_in(&container, pid)
}

fn process_that_is_no_json_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    for text in ["", "{", "[]", "{\"args\": 7}", "{}"] {
        let path = s.file("process.json", text)?;
        container
            .exec(&["--process", &path], &[])?
            .refused()
            .map_err(|error| format!("`{text}`: {error}"))?;
    }
    Ok(())
}

fn process_file_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    let said = s.waiting()?.exec(&["--process", "/no/such/file"], &[])?.refused()?;
    contains("what is said", &said, "/no/such/file")
}

fn inherits_the_limits_of_the_container(s: &Scene) -> Outcome {
    same("open files", s.waiting()?.sh("ulimit -n")?, "1024")
}

fn has_the_containers_namespaces_but_is_not_its_first_process(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let seen = container
        .sh("test $$ -gt 1 && readlink /proc/self/ns/pid && readlink /proc/1/ns/pid && cat /proc/1/comm")?;
    let lines: Vec<&str> = seen.lines().collect();
    same("lines", lines.len(), 3)?;
    same("pid namespace", lines[0], lines[1])?;
    same("the first process", lines[2], "sleep")
}

fn in_a_container_with_the_hosts_pid_namespace(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.without_namespace("pid");
    container.up()?;
    let seen = container.sh("readlink /proc/self/ns/pid")?;
    let own = std::fs::read_link("/proc/self/ns/pid").map_err(|error| error.to_string())?;
    same("pid namespace", seen, own.display().to_string())
}

fn the_detached_process_ends_with_the_container(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let path = s.text("pid");
    container.exec(&["--detach", "--pid-file", &path], &["sleep", "1000"])?.ok()?;
    let pid: i32 = read(&path).parse().map_err(|_| "no pid".to_owned())?;
    container.kill("KILL")?;
    wait_for("its end", || {
        s.reap();
        Ok((!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()))
    })
}

fn the_root_is_the_containers(s: &Scene) -> Outcome {
    let seen = s.waiting()?.sh("ls -d /bin/probe; ls / | tr '\\n' ' '; stat -c %i / /..| uniq | wc -l")?;
    same("files", seen, "/bin/probe\nbin dev etc home mnt proc root run sys tmp 1")
}

fn a_process_that_leaves_children_does_not_block(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let start = std::time::Instant::now();
    same("output", container.sh("sleep 5 & echo done")?, "done")?;
    holds("without waiting for it", start.elapsed() < std::time::Duration::from_secs(5))
}

fn a_caller_that_reaps_everything_does_no_harm(s: &Scene) -> Outcome {
    // Callers are reapers of orphans, and take whatever ends.
    let container = s.waiting()?;
    for _ in 0..40 {
        let output = s.finish_reaping(container.command("exec", &[], &["echo", "well"]))?;
        same("output", (output.stdout.as_str(), output.code, output.stderr.as_str()), ("well\n", 0, ""))?;
    }
    Ok(())
}
