//! Hooks: when each kind runs, where, with what, and what follows when one fails.

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same, wait_for};
use crate::container::Container;
use crate::scene::{Scene, read};

cases!("hooks":
    each_kind_runs_in_its_turn [Need::Since("runc", "1.3")],
    several_of_one_kind_run_in_their_order,
    run_runs_all_kinds_once [Need::Since("runc", "1.3")],
    each_kind_is_told_the_state [Need::Since("runc", "1.3")],
    the_state_has_the_bundle_and_annotations,
    the_pid_is_the_first_process,
    the_environment_is_the_hooks_alone,
    without_an_environment_there_is_none [Need::Since("runc", "1.3"), Need::Lacks("crun", "passes on its own")],
    the_arguments_are_passed_on,
    no_descriptor_of_the_runtime_is_passed_on [Need::Since("runc", "1.2"), Need::Lacks("crun", "leaves descriptors of its own open")],
    create_runtime_is_in_the_callers_namespaces,
    create_container_is_in_the_containers_before_its_root,
    start_container_is_inside,
    create_runtime_sees_the_new_namespaces_of_the_pid,
    a_failure_of_prestart_ends_create,
    a_failure_of_create_runtime_ends_create,
    a_failure_of_create_container_ends_create,
    a_failure_of_start_container_ends_start,
    a_failure_of_poststart_stops_the_container [Need::Since("runc", "1.3"), Need::Lacks("crun", "goes on")],
    a_failure_of_poststop_does_not_stop_delete,
    the_first_failure_keeps_the_later_ones_from_running,
    the_failure_says_what_the_hook_said [Need::Lacks("crun", "says the exit code alone")],
    a_program_that_is_not_there_is_a_failure,
    a_relative_path_is_refused [Need::Lacks("runc", "runs it"), Need::Lacks("crun", "runs it")],
    a_timeout_ends_the_hook,
    a_timeout_that_is_long_enough_does_not,
    a_hook_that_does_not_read_the_state_does_not_block [Need::Lacks("crun", "is ended by a closed pipe now and then")],
    a_hook_that_writes_a_lot_does_not_block,
    a_hook_that_leaves_a_process_behind_does_not_block [Need::Lacks("crun", "waits for it")],
);

/// The kinds, in the order in which they run.
const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that takes the state, as crun is ended by a closed pipe now and then, and runs a script.
fn shell(script: &str) -> Value {
    raw(&format!("cat >/dev/null; {script}"))
}

/// A hook that is a script.
fn raw(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]})
}

/// A container whose directory `/shared` is one of the host's; the latter's path.
fn shared<'a>(s: &'a Scene, script: &str) -> Outcome<(Container<'a>, String)> {
    let mut container = s.script(script)?;
    let directory = s.directory("shared")?;
    container.bundle.mount(
        json!({"destination": "/shared", "type": "bind", "source": directory, "options": ["bind", "rw"]}),
    );
    Ok((container, directory))
}

/// Where a hook of a kind sees the shared directory.
fn seen_from<'a>(kind: &str, directory: &'a str) -> &'a str {
    if kind == "startContainer" { "/shared" } else { directory }
}

/// Sets the hooks of one kind.
fn set(container: &mut Container, kind: &str, hooks: &[Value]) {
    container.bundle.config["hooks"][kind] = json!(hooks);
}

/// All kinds, each writing its name.
fn all_kinds(container: &mut Container, directory: &str) {
    for kind in KINDS {
        let line = format!("echo {kind} >>{}/log", seen_from(kind, directory));
        set(container, kind, &[shell(&line)]);
    }
}

fn lines(directory: &str) -> Vec<String> {
    read(format!("{directory}/log")).lines().map(str::to_owned).collect()
}

fn each_kind_runs_in_its_turn(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "echo program >>/shared/log; exec sleep 1000")?;
    all_kinds(&mut container, &directory);
    container.create()?;
    same("after create", lines(&directory), ["prestart", "createRuntime", "createContainer"])?;
    container.start()?;
    let seen = wait_for("the program", || {
        let seen = lines(&directory);
        Ok(seen.iter().any(|line| line == "program").then_some(seen))
    })?;
    let place = |name: &str| seen.iter().position(|line| line == name);
    holds(
        &format!("startContainer before the program in {seen:?}"),
        place("startContainer") < place("program"),
    )?;
    holds(&format!("poststart in {seen:?}"), place("poststart").is_some())?;
    // crun lets the first process go on its way while it runs its own.
    holds(
        &format!("poststart last in {seen:?}"),
        s.runtime.is_crun() || place("startContainer") < place("poststart"),
    )?;
    same("after start", seen.len(), 6)?;
    container.delete_force()?;
    same("the last", lines(&directory).get(6..).map(<[String]>::to_vec), Some(vec!["poststop".to_owned()]))
}

fn several_of_one_kind_run_in_their_order(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    let hooks: Vec<Value> =
        (1..=4).map(|number| shell(&format!("echo {number} >>{directory}/log"))).collect();
    set(&mut container, "createRuntime", &hooks);
    container.run()?.ok()?;
    same("order", lines(&directory), ["1", "2", "3", "4"])
}

fn run_runs_all_kinds_once(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    all_kinds(&mut container, &directory);
    container.run()?.ok()?;
    let seen = lines(&directory);
    same("the last", seen.last().map(String::as_str), Some("poststop"))?;
    same(
        "all but the order of the two around the start",
        [&seen[..3], &seen[5..]].concat(),
        [&KINDS[..3], &KINDS[5..]].concat(),
    )?;
    same("how many", seen.len(), KINDS.len())
}

fn each_kind_is_told_the_state(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "sleep 1000")?;
    for kind in KINDS {
        set(&mut container, kind, &[raw(&format!("cat >{}/{kind}", seen_from(kind, &directory)))]);
    }
    container.up()?;
    wait_for("the hook in the container", || {
        Ok(serde_json::from_str::<Value>(&read(format!("{directory}/startContainer"))).ok())
    })?;
    container.delete_force()?;
    let statuses = ["creating", "creating", "creating", "created", "running", "stopped"];
    for (kind, status) in KINDS.into_iter().zip(statuses) {
        let text = read(format!("{directory}/{kind}"));
        let state: Value = serde_json::from_str(&text).map_err(|error| format!("{kind}: {error}: {text}"))?;
        // crun calls it `created` from the first on.
        let told = state["status"].as_str().unwrap_or_default();
        let known = told == status
            || (s.runtime.is_crun() && told == "created")
            || (s.runtime.is_crun() && kind == "startContainer");
        holds(&format!("{kind} is told {status}, not {told}"), known)?;
        same(kind, &state["id"], &json!(container.id))?;
        holds(&format!("{kind} is told a version"), state["ociVersion"].is_string())?;
    }
    Ok(())
}

fn the_state_has_the_bundle_and_annotations(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    container.bundle.config["annotations"] = json!({"org.example.one": "two \"quoted\""});
    set(&mut container, "createRuntime", &[raw(&format!("cat >{directory}/state"))]);
    container.run()?.ok()?;
    let state: Value =
        serde_json::from_str(&read(format!("{directory}/state"))).map_err(|error| error.to_string())?;
    same("bundle", &state["bundle"], &json!(container.bundle.directory))?;
    same("annotation", &state["annotations"]["org.example.one"], &json!("two \"quoted\""))
}

fn the_pid_is_the_first_process(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "sleep 1000")?;
    for kind in ["prestart", "createRuntime", "poststart"] {
        set(&mut container, kind, &[raw(&format!("cat >{directory}/{kind}"))]);
    }
    container.up()?;
    let pid = container.pid()?;
    for kind in ["prestart", "createRuntime", "poststart"] {
        let state: Value =
            serde_json::from_str(&read(format!("{directory}/{kind}"))).map_err(|error| error.to_string())?;
        same(kind, &state["pid"], &json!(pid))?;
    }
    Ok(())
}

fn the_environment_is_the_hooks_alone(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    let mut hook = shell(&format!("tr '\\0' '\\n' </proc/$$/environ >{directory}/log"));
    hook["env"] = json!(["PATH=/usr/bin:/bin", "ONE=1", "TWO=a b=c"]);
    set(&mut container, "createRuntime", &[hook]);
    container.run()?.ok()?;
    let mut seen = lines(&directory);
    seen.sort_unstable();
    same("environment", seen, ["ONE=1", "PATH=/usr/bin:/bin", "TWO=a b=c"])
}

fn without_an_environment_there_is_none(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    let script = format!("/usr/bin/tr '\\0' '\\n' </proc/$$/environ >{directory}/log");
    set(&mut container, "createRuntime", &[json!({"path": "/bin/sh", "args": ["sh", "-c", script]})]);
    container.run()?.ok()?;
    same("environment", lines(&directory), Vec::<String>::new())
}

fn the_arguments_are_passed_on(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    let script = format!("/usr/bin/tr '\\0' '\\n' </proc/$$/cmdline >{directory}/log");
    set(
        &mut container,
        "createRuntime",
        &[json!({"path": "/bin/sh", "args": ["other name", "-c", script, "", "a  b"]})],
    );
    container.run()?.ok()?;
    let seen = lines(&directory);
    same("name", seen.first().map(String::as_str), Some("other name"))?;
    same("words", seen.get(3..).map(<[String]>::to_vec), Some(vec![String::new(), "a  b".to_owned()]))
}

fn no_descriptor_of_the_runtime_is_passed_on(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    let probe = s.probe()?.display().to_string();
    for kind in KINDS {
        let probe = if kind == "startContainer" { "/bin/probe" } else { &probe };
        set(
            &mut container,
            kind,
            &[shell(&format!("exec {probe} fds >{}/{kind}", seen_from(kind, &directory)))],
        );
    }
    container.run()?.ok()?;
    for kind in KINDS {
        let seen = read(format!("{directory}/{kind}"));
        let numbers: Vec<&str> = seen.lines().filter_map(|line| line.split(' ').next()).collect();
        same(&format!("{kind}: {seen:?}"), numbers, ["0", "1", "2"])?;
    }
    Ok(())
}

/// The namespaces that a hook of a kind is in, as it sees them.
fn namespaces_of(s: &Scene, kind: &str) -> Outcome<(Vec<String>, Vec<String>)> {
    let (mut container, directory) = shared(s, "exec sleep 1000")?;
    let script = "for kind in mnt net uts ipc pid; do readlink /proc/self/ns/$kind; done";
    set(&mut container, kind, &[shell(&format!("({script}) >{}/log", seen_from(kind, &directory)))]);
    container.up()?;
    let pid = container.pid()?;
    let mut inside = Vec::new();
    for file in ["mnt", "net", "uts", "ipc", "pid"] {
        let target =
            std::fs::read_link(format!("/proc/{pid}/ns/{file}")).map_err(|error| error.to_string())?;
        inside.push(target.display().to_string());
    }
    // `start` need not wait for the hook in the container.
    let seen = wait_for("the hook's lines", || {
        let seen = lines(&directory);
        Ok((seen.len() == 5).then_some(seen))
    })?;
    Ok((seen, inside))
}

fn create_runtime_is_in_the_callers_namespaces(s: &Scene) -> Outcome {
    let mut own = Vec::new();
    for file in ["mnt", "net", "uts", "ipc", "pid"] {
        let target =
            std::fs::read_link(format!("/proc/self/ns/{file}")).map_err(|error| error.to_string())?;
        own.push(target.display().to_string());
    }
    for kind in ["prestart", "createRuntime", "poststart"] {
        same(kind, namespaces_of(s, kind)?.0, own.clone())?;
    }
    Ok(())
}

fn create_container_is_in_the_containers_before_its_root(s: &Scene) -> Outcome {
    let (seen, inside) = namespaces_of(s, "createContainer")?;
    same("namespaces but for that of pids", seen.get(..4), inside.get(..4))?;
    let (mut container, directory) = shared(s, "true")?;
    let rootfs = container.bundle.rootfs().display().to_string();
    let script = format!("grep -c ' {rootfs}/dev/shm ' /proc/self/mountinfo >{directory}/mounted");
    set(&mut container, "createContainer", &[shell(&script)]);
    container.run()?.ok()?;
    same("the container's mounts by the host's paths", read(format!("{directory}/mounted")), "1\n")
}

fn start_container_is_inside(s: &Scene) -> Outcome {
    let (seen, inside) = namespaces_of(s, "startContainer")?;
    same("namespaces", seen, inside)?;
    let (mut container, directory) = shared(s, "true")?;
    set(&mut container, "startContainer", &[shell("ls /bin/probe >/shared/log; hostname >>/shared/log")]);
    container.run()?.ok()?;
    same("the container's root", lines(&directory), ["/bin/probe", "conformance"])
}

fn create_runtime_sees_the_new_namespaces_of_the_pid(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "ip link | grep -c veth-in")?;
    // What network plugins do: a device moved in by the pid of the state.
    let script = format!(
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/' | tr -d '\\n '); \
         pid=$(echo \"$pid\" | tr -cd 0-9); ip link add veth-in netns $pid type veth peer name veth-out netns $pid 2>{directory}/log"
    );
    set(&mut container, "createRuntime", &[raw(&format!("tr -d '\\n' | {{ {script}; }}"))]);
    let seen = container.run()?.ok().map_err(|error| format!("{error}: {:?}", lines(&directory)))?;
    same("devices", seen, "2")
}

/// A first hook that succeeds and a second that does not.
fn failing(s: &Scene, kind: &str) -> Outcome<String> {
    let (mut container, directory) = shared(s, "echo ran >/shared/ran; exec sleep 1000")?;
    set(
        &mut container,
        kind,
        &[shell("true"), shell("echo because >&2; exit 9"), shell(&format!("echo >{directory}/third"))],
    );
    let starts = matches!(kind, "startContainer" | "poststart");
    let said = if starts {
        container.create()?;
        let said = container.verb("start", &[], &[])?.refused()?;
        if container.state().is_ok() {
            container.wait_status("stopped")?;
        }
        container.delete_force()?;
        said
    } else {
        let said = container.try_create(&[])?.refused()?;
        holds("no state is left", s.call(&["state", &container.id])?.code != 0)?;
        same("cgroups left", s.cgroups(&container.id).len(), 0)?;
        said
    };
    holds("the third hook has not run", !std::path::Path::new(&format!("{directory}/third")).exists())?;
    if kind != "poststart" {
        holds("the program has not run", !std::path::Path::new(&format!("{directory}/ran")).exists())?;
    }
    // runc says which kind since 1.3.
    s.says(&said, &[&format!("error running {kind} hook #1:"), "error running hook #1:"])?;
    if s.runtime.is_stanza() {
        contains("what is said", &said, &format!("error running {kind} hook #1:"))?
    }
    Ok(said)
}

fn a_failure_of_prestart_ends_create(s: &Scene) -> Outcome {
    failing(s, "prestart").map(drop)
}

fn a_failure_of_create_runtime_ends_create(s: &Scene) -> Outcome {
    failing(s, "createRuntime").map(drop)
}

fn a_failure_of_create_container_ends_create(s: &Scene) -> Outcome {
    failing(s, "createContainer").map(drop)
}

fn a_failure_of_start_container_ends_start(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "echo ran >/shared/ran; exec sleep 1000")?;
    set(&mut container, "startContainer", &[shell("true"), shell("exit 9")]);
    container.create()?;
    // The program is not run; runc finds that out in the first process, whose end may come after `start`.
    let output = container.verb("start", &[], &[])?;
    if s.runtime.is_stanza() {
        contains("what is said", &output.refused()?, "error running startContainer hook #1:")?;
    }
    container.wait_status("stopped")?;
    holds("the program has not run", !std::path::Path::new(&format!("{directory}/ran")).exists())?;
    container.delete()
}

fn a_failure_of_poststart_stops_the_container(s: &Scene) -> Outcome {
    failing(s, "poststart").map(drop)
}

fn a_failure_of_poststop_does_not_stop_delete(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    set(&mut container, "poststop", &[shell("exit 9"), shell(&format!("echo second >{directory}/log"))]);
    container.up()?;
    container.wait_status("stopped")?;
    // A warning is all that may be said (runtime-spec, "Lifecycle").
    let output = container.verb("delete", &[], &[])?;
    if s.runtime.is_stanza() {
        same("code", output.code, 0)?;
    }
    holds("no state is left", s.call(&["state", &container.id])?.code != 0)?;
    same("cgroups left", s.cgroups(&container.id).len(), 0)?;
    if s.runtime.is_stanza() {
        same("the hooks after it", lines(&directory), ["second"])?;
    }
    Ok(())
}

fn the_first_failure_keeps_the_later_ones_from_running(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    set(
        &mut container,
        "createRuntime",
        &[shell("exit 1"), shell(&format!("echo second >>{directory}/log"))],
    );
    set(&mut container, "createContainer", &[shell(&format!("echo inner >>{directory}/log"))]);
    container.try_create(&[])?.refused()?;
    let seen = lines(&directory);
    holds(&format!("no later one of the kind in {seen:?}"), !seen.contains(&"second".to_owned()))
}

fn the_failure_says_what_the_hook_said(s: &Scene) -> Outcome {
    let said = failing(s, "createRuntime")?;
    contains("what is said", &said, "exit status 9")?;
    contains("what is said", &said, "because")
}

fn a_program_that_is_not_there_is_a_failure(s: &Scene) -> Outcome {
    let mut container = s.script("echo ran")?;
    set(&mut container, "createRuntime", &[json!({"path": "/no/such/hook"})]);
    let said = container.run()?.refused()?;
    holds("the program has not run", !said.contains("ran\n"))?;
    if s.runtime.is_crun() { Ok(()) } else { contains("what is said", &said, "/no/such/hook") }
}

fn a_relative_path_is_refused(s: &Scene) -> Outcome {
    // "This REQUIRED value MUST be an absolute path" (runtime-spec, "Hooks").
    s.refused_with(|bundle| bundle.config["hooks"]["createRuntime"] = json!([{"path": "bin/true"}])).map(drop)
}

fn a_timeout_ends_the_hook(s: &Scene) -> Outcome {
    let mut container = s.script("echo ran")?;
    let mut hook = shell("exec sleep 20");
    hook["timeout"] = json!(1);
    set(&mut container, "createRuntime", &[hook]);
    let start = std::time::Instant::now();
    let said = container.run()?.refused()?;
    holds("in time", start.elapsed() < std::time::Duration::from_secs(10))?;
    s.says(&said, &["hook ran past specified timeout of 1.0s"])
}

fn a_timeout_that_is_long_enough_does_not(s: &Scene) -> Outcome {
    let (mut container, directory) = shared(s, "true")?;
    let mut hook = shell(&format!("sleep 0.2; echo done >{directory}/log"));
    hook["timeout"] = json!(60);
    set(&mut container, "createRuntime", &[hook]);
    container.run()?.ok()?;
    same("the hook", lines(&directory), ["done"])
}

fn a_hook_that_does_not_read_the_state_does_not_block(s: &Scene) -> Outcome {
    let mut container = s.script("echo ran")?;
    // More than a pipe takes; the hook lives until long after the deadline of this case would it be waited on to read.
    container.bundle.config["annotations"] = json!({"org.example.large": "x".repeat(200_000)});
    set(&mut container, "createRuntime", &[raw("exec </dev/null; exit 0"), shell("sleep 0.2")]);
    same("output", container.run()?.ok()?, "ran")
}

fn a_hook_that_writes_a_lot_does_not_block(s: &Scene) -> Outcome {
    let mut container = s.script("echo ran")?;
    let script = "head -c 300000 /dev/zero | tr '\\0' x >&2; head -c 300000 /dev/zero | tr '\\0' x; exit 0";
    set(&mut container, "createRuntime", &[shell(script)]);
    let output = container.run()?;
    holds("the program has run", output.stdout.ends_with("ran\n") && output.code == 0)
}

fn a_hook_that_leaves_a_process_behind_does_not_block(s: &Scene) -> Outcome {
    let mut container = s.script("echo ran")?;
    set(&mut container, "createRuntime", &[shell("sleep 4 >/dev/null 2>&1 </dev/null & exit 0")]);
    let start = std::time::Instant::now();
    same("output", container.run()?.ok()?, "ran")?;
    holds("without waiting for it", start.elapsed() < std::time::Duration::from_secs(4))
}
