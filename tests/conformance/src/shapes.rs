//! What the verbs print for programs to read: `state`, `list`, `ps`, `events`, `features`, `spec`, versions, the record.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same, wait_for};
use crate::container::Container;
use crate::scene::{Scene, kill, read};

cases!("shapes":
    state_has_the_usual_members,
    state_of_a_stopped_container_has_no_pid,
    created_is_a_time_of_rfc_3339,
    list_as_json_has_the_usual_members,
    list_of_nothing_as_json,
    list_as_a_table,
    list_of_ids_alone,
    list_shows_stopped_containers,
    list_with_an_unknown_format_is_refused,
    ps_as_json_is_the_pids,
    ps_as_a_table,
    ps_with_options_of_ps [Need::Lacks("crun", "takes no options of ps")],
    ps_of_a_stopped_container [Need::Lacks("crun", "lists nothing")],
    events_stats_has_the_usual_members [Need::Lacks("crun", "no events")],
    events_stats_counts_processes_and_memory [Need::Lacks("crun", "no events")],
    events_of_an_interval [Need::Lacks("crun", "no events")],
    events_tell_of_an_oom [Need::Lacks("crun", "no events"), Need::Controller("memory")],
    events_of_a_stopped_container_are_refused [Need::Lacks("crun", "no events")],
    features_has_the_usual_members [Need::Since("runc", "1.1"), Need::Since("crun", "1.9")],
    features_are_all_of_them [Need::Lacks("runc", "1.1.5 knows fewer"), Need::Since("crun", "1.9")],
    features_of_mount_options_are_true [Need::Since("runc", "1.1"), Need::Since("crun", "1.9")],
    features_of_seccomp_are_true [Need::Since("runc", "1.1"), Need::Since("crun", "1.9")],
    spec_writes_a_configuration_that_runs,
    spec_into_a_bundle,
    spec_does_not_overwrite,
    spec_for_ordinary_users,
    version_as_callers_read_it,
    help_of_everything [Need::Lacks("crun", "prints other words")],
    the_record_is_runcs [Need::Lacks("crun", "another file")],
);

fn parse(text: &str) -> Outcome<Value> {
    serde_json::from_str(text).map_err(|error| format!("no JSON: {error}: {text:?}"))
}

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

fn usual(s: &Scene, seen: &Value) -> Outcome {
    let expected: BTreeSet<&str> =
        ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"].into_iter().collect();
    if s.runtime.is_crun() {
        // `systemd-scope` and others of its own.
        return holds(
            "the usual members",
            members(seen).is_superset(&["id", "pid", "status", "bundle"].into()),
        );
    }
    same("members", members(seen), expected)
}

fn state_has_the_usual_members(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let state = container.state()?;
    usual(s, &state)?;
    same("id", &state["id"], &json!(container.id))?;
    same("status", &state["status"], &json!("running"))?;
    same("bundle", &state["bundle"], &json!(container.bundle.directory))?;
    let root = container.bundle.rootfs();
    holds("root", s.runtime.is_crun() || state["rootfs"] == json!(root))?;
    holds("a version", state["ociVersion"].as_str().is_some_and(|text| text.starts_with("1.")))
}

fn state_of_a_stopped_container_has_no_pid(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    same("pid", &container.state()?["pid"], &json!(0))
}

fn created_is_a_time_of_rfc_3339(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let state = container.state()?;
    let created = state["created"].as_str().unwrap_or_default().to_owned();
    let seconds = s.tool(&["date", "--utc", "--date", &created, "+%s"])?;
    let now = s.tool(&["date", "+%s"])?;
    let number = |text: &str| text.trim().parse::<i64>().unwrap_or(0);
    holds(&format!("{created} is now"), (0..20).contains(&(number(&now) - number(&seconds))))?;
    holds("in UTC", created.ends_with('Z'))
}

fn list(s: &Scene, options: &[&str]) -> Outcome<String> {
    s.call(&[&["list"], options].concat())?.ok()
}

fn list_as_json_has_the_usual_members(s: &Scene) -> Outcome {
    let (first, second) = (s.waiting()?, s.container(&["true"])?);
    second.create()?;
    let seen = parse(&list(s, &["--format", "json"])?)?;
    let entries = seen.as_array().ok_or("no array")?;
    same("entries", entries.len(), 2)?;
    for entry in entries {
        usual(s, entry)?;
    }
    let of = |container: &Container| {
        entries.iter().find(|entry| entry["id"] == json!(container.id)).cloned().unwrap_or_default()
    };
    same("status", (&of(&first)["status"], &of(&second)["status"]), (&json!("running"), &json!("created")))?;
    same("pid", &of(&first)["pid"], &json!(first.pid()?))
}

fn list_of_nothing_as_json(s: &Scene) -> Outcome {
    let seen = parse(&list(s, &["--format=json"])?)?;
    // runc's empty list is `null`.
    holds("nothing", seen.is_null() || seen == json!([]))
}

fn list_as_a_table(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let seen = list(s, &[])?;
    let mut lines = seen.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let heading = lines.next().unwrap_or_default();
    let expected: &[&str] = if s.runtime.is_crun() {
        &["NAME", "PID", "STATUS", "BUNDLE", "PATH", "CREATED", "OWNER"]
    } else {
        &["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    };
    same("heading", heading, expected)?;
    let line = lines.next().unwrap_or_default();
    let (pid, bundle) = (container.pid()?.to_string(), container.bundle.directory.display().to_string());
    same(
        "line",
        line.get(..4).map(<[String]>::to_vec),
        Some(vec![container.id.clone(), pid, "running".to_owned(), bundle]),
    )?;
    same("no more lines", lines.next(), None)
}

fn list_of_ids_alone(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    for option in ["--quiet", "-q"] {
        same("ids", list(s, &[option])?, container.id.clone())?;
    }
    Ok(())
}

fn list_shows_stopped_containers(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    let seen = parse(&list(s, &["-f", "json"])?)?;
    same("status", (&seen[0]["id"], &seen[0]["status"]), (&json!(container.id), &json!("stopped")))
}

fn list_with_an_unknown_format_is_refused(s: &Scene) -> Outcome {
    let _container = s.waiting()?;
    s.call(&["list", "--format", "nosuch"])?.refused().map(drop)
}

fn ps_as_json_is_the_pids(s: &Scene) -> Outcome {
    let container = s.script("sleep 1000 & sleep 1000 & wait")?;
    container.up()?;
    let pid = container.pid()?;
    let seen = wait_for("three processes", || {
        let seen = parse(&container.verb("ps", &["--format", "json"], &[])?.ok()?)?;
        Ok((seen.as_array().map(Vec::len) == Some(3)).then_some(seen))
    })?;
    holds("the first process among them", seen.as_array().is_some_and(|pids| pids.contains(&json!(pid))))
}

fn ps_as_a_table(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let seen = container.verb("ps", &[], &[])?.ok()?;
    let pid = container.pid()?.to_string();
    contains("heading", seen.lines().next().unwrap_or_default(), "PID")?;
    same("lines", seen.lines().count(), 2)?;
    let line: Vec<&str> = seen.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    holds(&format!("the pid in {line:?}"), line.contains(&pid.as_str()))
}

fn ps_with_options_of_ps(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let seen = container.verb("ps", &[], &["-e", "-o", "pid,comm"])?.ok()?;
    let lines: Vec<Vec<&str>> = seen.lines().map(|line| line.split_whitespace().collect()).collect();
    let pid = container.pid()?.to_string();
    same("lines", lines, vec![vec!["PID", "COMMAND"], vec![pid.as_str(), "sleep"]])
}

fn ps_of_a_stopped_container(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    // Nobody, or a refusal: no error that says something else is wrong.
    let output = container.verb("ps", &["--format", "json"], &[])?;
    holds(&format!("{output:?}"), output.code != 0 || matches!(output.stdout.trim(), "null" | "[]"))
}

fn stats(container: &Container) -> Outcome<Value> {
    let text = container.verb("events", &["--stats"], &[])?.ok()?;
    same("lines", text.lines().count(), 1)?;
    parse(&text)
}

fn events_stats_has_the_usual_members(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let seen = stats(&container)?;
    same("type", &seen["type"], &json!("stats"))?;
    same("id", &seen["id"], &json!(container.id))?;
    let data = &seen["data"];
    holds(
        "members",
        members(data).is_superset(&["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb"].into()),
    )?;
    for path in [
        "/cpu/usage/total",
        "/cpu/usage/percpu",
        "/cpu/usage/kernel",
        "/cpu/usage/user",
        "/cpu/throttling",
        "/memory/usage/usage",
        "/memory/usage/limit",
        "/memory/usage/max",
        "/memory/usage/failcnt",
        "/memory/raw",
        "/pids/current",
    ] {
        // Members that are zero may be left out where the kernel tells none.
        let optional = matches!(path, "/cpu/usage/percpu" | "/memory/usage/max" | "/memory/raw");
        holds(&format!("{path} in {data}"), optional || data.pointer(path).is_some())?;
    }
    Ok(())
}

fn events_stats_counts_processes_and_memory(s: &Scene) -> Outcome {
    let mut container = s.script("sleep 1000 & sleep 1000 & wait")?;
    container.bundle.config["linux"]["resources"]["memory"] = json!({"limit": 67_108_864});
    container.bundle.config["linux"]["resources"]["pids"] = json!({"limit": 33});
    container.up()?;
    let seen = wait_for("three processes", || {
        let seen = stats(&container)?;
        Ok((seen["data"]["pids"]["current"] == json!(3)).then_some(seen))
    })?;
    same("limit of processes", &seen["data"]["pids"]["limit"], &json!(33))?;
    same("limit of memory", &seen["data"]["memory"]["usage"]["limit"], &json!(67_108_864))?;
    holds("memory in use", seen["data"]["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0))?;
    holds("processor time", seen["data"]["cpu"]["usage"]["total"].as_u64().is_some_and(|time| time > 0))
}

fn events_of_an_interval(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let running = s.spawn(container.command("events", &["--interval", "100ms"], &[]))?;
    let seen = wait_for("two lines", || {
        let text = read(&running.stdout);
        Ok((text.matches('\n').count() >= 2).then_some(text))
    });
    let seen = seen.inspect_err(|_| kill(running.pid()))?;
    for line in seen.lines().take(2) {
        same("type", &parse(line)?["type"], &json!("stats"))?;
    }
    container.kill("KILL")?;
    s.delete_force(&container.id)?;
    let ended = wait_for("its end", || {
        Ok((!std::path::Path::new(&format!("/proc/{}/exe", running.pid())).exists()).then_some(()))
    });
    kill(running.pid());
    ended
}

fn events_tell_of_an_oom(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.config["linux"]["resources"]["memory"] =
        json!({"limit": 33_554_432, "swap": 33_554_432});
    container.up()?;
    let running = s.spawn(container.command("events", &["--interval", "1s"], &[]))?;
    // It listens from its first line on.
    let told = wait_for("the first line", || Ok(read(&running.stdout).contains('\n').then_some(())))
        .and_then(|()| {
            container.exec(&[], &["probe", "eat", "100"])?;
            wait_for("the event", || {
                let text = read(&running.stdout);
                let oom = text.lines().find(|line| line.contains("\"oom\"")).map(str::to_owned);
                Ok(oom.filter(|line| line.ends_with('}')))
            })
        });
    kill(running.pid());
    let event = parse(&told?)?;
    same("event", (&event["type"], &event["id"]), (&json!("oom"), &json!(container.id)))
}

fn events_of_a_stopped_container_are_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    container.verb("events", &["--stats"], &[])?.refused().map(drop)
}

fn features(s: &Scene) -> Outcome<Value> {
    parse(&s.call(&["features"])?.ok()?)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn features_has_the_usual_members(s: &Scene) -> Outcome {
    let seen = features(s)?;
    for path in [
        "/ociVersionMin",
        "/ociVersionMax",
        "/hooks",
        "/mountOptions",
        "/linux/namespaces",
        "/linux/capabilities",
        "/linux/cgroup",
        "/linux/seccomp",
    ] {
        holds(&format!("{path} in {seen}"), seen.pointer(path).is_some())?;
    }
    same(
        "hooks",
        texts(&seen["hooks"]),
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    )?;
    for (path, value) in
        [("/linux/cgroup/v1", true), ("/linux/cgroup/v2", true), ("/linux/seccomp/enabled", true)]
    {
        same(path, seen.pointer(path), Some(&json!(value)))?;
    }
    let namespaces = texts(&seen["linux"]["namespaces"]);
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        holds(&format!("{kind} in {namespaces:?}"), namespaces.contains(&kind.to_owned()))?;
    }
    holds("capabilities", texts(&seen["linux"]["capabilities"]).contains(&"CAP_SYS_ADMIN".to_owned()))
}

fn features_are_all_of_them(s: &Scene) -> Outcome {
    let seen = features(s)?;
    same("the newest specification", &seen["ociVersionMax"], &json!("1.3.0"))?;
    holds("time namespaces", texts(&seen["linux"]["namespaces"]).contains(&"time".to_owned()))?;
    same("idmapped mounts", seen.pointer("/linux/mountExtensions/idmap/enabled"), Some(&json!(true)))?;
    same("network devices", seen.pointer("/linux/netDevices/enabled"), Some(&json!(true)))?;
    same("memory policy", seen.pointer("/linux/memoryPolicy/modes").map(Value::is_array), Some(true))?;
    for path in [
        "/linux/intelRdt/enabled",
        "/linux/apparmor/enabled",
        "/linux/selinux/enabled",
        "/linux/cgroup/systemd",
        "/linux/cgroup/rdma",
    ] {
        holds(&format!("{path} is told"), seen.pointer(path).is_some_and(Value::is_boolean))?;
    }
    holds("its annotations", seen["potentiallyUnsafeConfigAnnotations"].is_array())
}

fn features_of_mount_options_are_true(s: &Scene) -> Outcome {
    let options = texts(&features(s)?["mountOptions"]);
    for expected in [
        "bind",
        "rbind",
        "ro",
        "rro",
        "rnosuid",
        "noexec",
        "nosymfollow",
        "rshared",
        "tmpcopyup",
        "relatime",
        "rstrictatime",
    ] {
        holds(&format!("{expected} in {options:?}"), options.contains(&expected.to_owned()))?;
    }
    if !s.runtime.is_stanza() {
        return Ok(());
    }
    // Each that is told is taken, by a mount of its own: some exclude each other.
    let mut container = s.script("grep -c ' /many/' /proc/self/mountinfo")?;
    let (mut count, source) = (0, s.directory("source")?);
    for option in options
        .iter()
        .filter(|option| !matches!(option.as_str(), "remount" | "idmap" | "ridmap" | "tmpcopyup" | "copy-up"))
    {
        let mut words = vec!["rbind"];
        if !option.ends_with("bind") {
            words.push(option);
        }
        container.bundle.mount(json!({"destination": format!("/many/{option}"), "type": "bind", "source": source, "options": words}));
        count += 1;
    }
    same("mounts", container.run()?.ok()?, count.to_string())
}

fn features_of_seccomp_are_true(s: &Scene) -> Outcome {
    let seen = &features(s)?["linux"]["seccomp"];
    let actions = texts(&seen["actions"]);
    for action in [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRAP",
    ] {
        holds(&format!("{action} in {actions:?}"), actions.contains(&action.to_owned()))?;
    }
    same("operators", texts(&seen["operators"]).len(), 7)?;
    let architectures = texts(&seen["archs"]);
    for architecture in ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"] {
        holds(
            &format!("{architecture} in {architectures:?}"),
            s.runtime.is_crun() || architectures.contains(&architecture.to_owned()),
        )?;
    }
    Ok(())
}

fn spec_writes_a_configuration_that_runs(s: &Scene) -> Outcome {
    let mut container = s.script("echo ran")?;
    let mut command = s.command();
    command.arg("spec").current_dir(&container.bundle.directory);
    s.finish(command)?.ok()?;
    let mut config = parse(&read(container.bundle.directory.join("config.json")))?;
    same("a terminal", &config["process"]["terminal"], &json!(true))?;
    same("program", &config["process"]["args"], &json!(["sh"]))?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] =
        json!(["sh", "-c", "echo ran; id -u; grep ^NoNewPrivs /proc/self/status | cut -f2"]);
    config["linux"]["cgroupsPath"] = container.bundle.config["linux"]["cgroupsPath"].clone();
    container.bundle.config = config;
    same("output", container.run()?.ok()?, "ran\n0\n1")
}

fn spec_into_a_bundle(s: &Scene) -> Outcome {
    let directory = s.directory("bundle")?;
    s.call(&["spec", "--bundle", &directory])?.ok()?;
    let config = parse(&read(s.path("bundle/config.json")))?;
    holds("a version", config["ociVersion"].is_string())?;
    for point in ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"] {
        let points: Vec<&Value> =
            config["mounts"].as_array().into_iter().flatten().map(|mount| &mount["destination"]).collect();
        holds(&format!("{point} in {points:?}"), points.contains(&&json!(point)))?;
    }
    Ok(())
}

fn spec_does_not_overwrite(s: &Scene) -> Outcome {
    let directory = s.directory("bundle")?;
    s.file("bundle/config.json", "mine")?;
    let output = s.call(&["spec", "--bundle", &directory])?;
    same("the file", read(s.path("bundle/config.json")), "mine")?;
    output.refused().map(drop)
}

fn spec_for_ordinary_users(s: &Scene) -> Outcome {
    let directory = s.directory("bundle")?;
    s.call(&["spec", "--rootless", "--bundle", &directory])?.ok()?;
    let config = parse(&read(s.path("bundle/config.json")))?;
    let kinds: Vec<&Value> =
        config["linux"]["namespaces"].as_array().into_iter().flatten().map(|one| &one["type"]).collect();
    holds(&format!("a user namespace in {kinds:?}"), kinds.contains(&&json!("user")))?;
    holds("none of the network", s.runtime.is_crun() || !kinds.contains(&&json!("network")))?;
    same(
        "mappings",
        (&config["linux"]["uidMappings"][0]["size"], &config["linux"]["gidMappings"][0]["size"]),
        (&json!(1), &json!(1)),
    )
}

fn version_as_callers_read_it(s: &Scene) -> Outcome {
    for option in ["--version", "-v"] {
        if option == "-v" && s.runtime.is_crun() {
            continue;
        }
        let seen = s.call(&[option])?.ok()?;
        let first: Vec<&str> = seen.lines().next().unwrap_or_default().split_whitespace().collect();
        same("words", (first.len(), first.get(1).copied()), (3, Some("version")))?;
        contains("the specification", &seen, "\nspec: 1.")?;
    }
    Ok(())
}

fn help_of_everything(s: &Scene) -> Outcome {
    let all = s.call(&["--help"])?.ok()?;
    for verb in [
        "checkpoint",
        "create",
        "delete",
        "events",
        "exec",
        "features",
        "kill",
        "list",
        "pause",
        "ps",
        "restore",
        "resume",
        "run",
        "spec",
        "start",
        "state",
        "update",
    ] {
        contains("all", &all, &format!("{verb} "))?;
        let one = s.call(&[verb, "--help"])?.ok()?;
        contains(verb, &one, verb)?;
    }
    Ok(())
}

fn the_record_is_runcs(s: &Scene) -> Outcome {
    // Other programs read it (lowRISC/container-hotplug).
    let container = s.waiting()?;
    let record = parse(&read(s.path("state").join(&container.id).join("state.json")))?;
    same("id", &record["id"], &json!(container.id))?;
    same("pid", &record["init_process_pid"], &json!(container.pid()?))?;
    holds("start", record["init_process_start"].as_u64().is_some_and(|ticks| ticks > 0))?;
    let cgroup = record["cgroup_paths"]["devices"].as_str().unwrap_or_default().to_owned();
    holds(&format!("cgroup {cgroup}"), std::path::Path::new(&cgroup).is_dir())?;
    same(
        "namespace",
        &record["namespace_paths"]["NEWNET"],
        &json!(format!("/proc/{}/ns/net", container.pid()?)),
    )
}
