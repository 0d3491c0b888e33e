//! Hostile containers and callers, after the bundle was taken: `exec`, records, ids, terminals, malformed configurations.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::attacks::{Outside, link};
use crate::case::{Need, Outcome, cases, contains, holds, same, wait_for};
use crate::scene::{Scene, kill, read};

cases!("attacks":
    exec_cap_leaves_the_inheritable_set_empty,
    exec_user_is_parsed_exactly,
    exec_is_not_traced_by_the_container,
    exec_survives_a_container_without_proc,
    exec_survives_a_replaced_program,
    exec_cgroup_upward_is_refused [Need::Lacks("crun", "ignores it with version 1 of cgroups")],
    no_abstract_socket_of_the_runtime,
    the_release_agent_cannot_be_written,
    no_terminal_of_the_caller_can_be_typed_into [Need::Program("script")],
    a_file_of_a_virtual_machine_through_a_link,
    annotations_change_nothing_unknown,
    features_tell_of_annotations_that_may_harm [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    ids_that_leave_the_state_directory_are_refused,
    ids_of_letters_and_signs_are_taken,
    a_pid_that_another_process_has_now_is_not_killed,
    works_where_proc_is_partly_covered,
    a_configuration_of_many_mappings,
    a_configuration_of_long_words,
    broken_configurations_leave_nothing,
);

fn exec_cap_leaves_the_inheritable_set_empty(s: &Scene) -> Outcome {
    // CVE-2022-29162, CVE-2022-27650.
    let container = s.waiting()?;
    let inheritable =
        |options: &[&str]| container.exec(options, &["grep", "^CapInh", "/proc/self/status"])?.ok();
    for options in [&["--cap", "CAP_NET_RAW"][..], &["--cap", "CAP_NET_RAW", "--user", "1000:1000"], &[]] {
        let seen = inheritable(options)?;
        same(&format!("{options:?}"), seen.split_whitespace().nth(1), Some("0000000000000000"))?;
    }
    let seen = s.sh("grep ^CapInh /proc/self/status")?;
    same("of the first process", seen.split_whitespace().nth(1), Some("0000000000000000"))
}

fn exec_user_is_parsed_exactly(s: &Scene) -> Outcome {
    // CVE-2026-30892: what is no number became root.
    let container = s.waiting()?;
    for text in [
        "1000:",
        ":100",
        "+5",
        "-1",
        "4294967296",
        "0x0",
        "user:group",
        " 5",
        "5 ",
        "5:-1",
        "1:2:3",
        "99999999999999999999",
        "1000:4294967296",
        "٣",
    ] {
        let output = container.exec(&["--user", text], &["sh", "-c", "echo $(id -u):$(id -g)"])?;
        let exact = match text {
            // Not more than these two can be meant.
            "1000:" => &["1000:0", "1000:1000"][..],
            "+5" | " 5" | "5 " => &["5:0"],
            _ => &[],
        };
        let seen = output.stdout.trim();
        holds(&format!("`{text}`: {output:?}"), output.code != 0 || exact.contains(&seen))?;
    }
    Ok(())
}

fn exec_is_not_traced_by_the_container(s: &Scene) -> Outcome {
    // CVE-2016-9962; one with the right to trace all cannot be kept from it.
    let container = s.container(&["probe", "trace", "2"])?;
    container.up()?;
    container.expect("ready")?;
    wait_for("the tracer's end", || {
        container.exec(&[], &["true"])?;
        s.reap();
        let said = container.output();
        Ok((said.contains("safe") || said.contains("attached")).then_some(()))
    })?;
    contains("what the container says", &container.output(), "safe")
}

fn exec_survives_a_container_without_proc(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.without_mount("/proc");
    for key in ["maskedPaths", "readonlyPaths"] {
        container.bundle.config["linux"][key] = json!([]);
    }
    // Without a look at its own descriptors a runtime may refuse.
    if container.try_create(&[])?.code != 0 && !s.runtime.is_stanza() {
        return Ok(());
    }
    container.start()?;
    same("output", container.exec(&[], &["echo", "well"])?.ok()?, "well")
}

fn exec_survives_a_replaced_program(s: &Scene) -> Outcome {
    // Its shell, its libraries and its password file are the container's own, and say what they like.
    let container = s.waiting()?;
    let (rootfs, long) = (container.bundle.rootfs(), "x".repeat(1 << 20));
    fs::write(rootfs.join("etc/passwd"), format!("{long}:x:0:0:{long}\nroot:::::::\n\u{0}\u{0}"))
        .map_err(|error| error.to_string())?;
    fs::remove_file(rootfs.join("etc/group")).map_err(|error| error.to_string())?;
    link("/proc/self/mem", rootfs.join("etc/group"))?;
    let output = container.exec(&["--user", "1000:1000"], &["id", "-u"])?;
    // runc refuses the long line.
    holds(&format!("{output:?}"), output.stdout == "1000\n" || (s.runtime.is_runc() && output.code != 0))?;
    fs::remove_file(rootfs.join("etc/passwd")).map_err(|error| error.to_string())?;
    s.tool(&["mkfifo", &rootfs.join("etc/passwd").display().to_string()])?;
    let mut running = s.spawn(container.command("exec", &["--user", "5:5"], &["echo", "well"]))?;
    let ended = wait_for("exec does not wait for a pipe that the container made", || {
        Ok(running.child.try_wait().map_err(|error| error.to_string())?.map(drop))
    });
    kill(running.pid());
    running.finish()?;
    ended
}

fn exec_cgroup_upward_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    for path in ["../..", "pids:../..", "pids:/..", "a/../../..", "pids:x/../.."] {
        let output = container.exec(&["--cgroup", path], &["cat", "/proc/self/cgroup"])?;
        holds(&format!("`{path}`: {output:?}"), output.code != 0)?;
    }
    Ok(())
}

fn no_abstract_socket_of_the_runtime(s: &Scene) -> Outcome {
    // CVE-2020-15257.
    let names = || -> Vec<String> {
        let text = read("/proc/net/unix");
        text.lines()
            .filter_map(|line| line.split_whitespace().nth(7))
            .filter(|name| name.starts_with('@'))
            .map(str::to_owned)
            .collect()
    };
    let before = names();
    let container = s.container(&["sleep", "1000"])?;
    container.create()?;
    let during: Vec<String> = names().into_iter().filter(|name| !before.contains(name)).collect();
    container.start()?;
    let own = |name: &String| {
        ["runc", "crun", "stanza", container.id.as_str()].iter().any(|part| name.contains(part))
    };
    same("sockets", during.into_iter().filter(own).collect::<Vec<_>>(), Vec::<String>::new())
}

fn the_release_agent_cannot_be_written(s: &Scene) -> Outcome {
    // CVE-2022-0492.
    let script = "for file in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name tasks); do \
                  (echo 1 >$file) 2>/dev/null && echo written $file; done; \
                  mount -t cgroup -o rdma cgroup /mnt 2>/dev/null && echo mounted; echo done";
    same("what could be done", s.sh(script)?, "done")
}

fn no_terminal_of_the_caller_can_be_typed_into(s: &Scene) -> Outcome {
    // CVE-2017-5226, CVE-2023-28100.
    let container = s.script("probe tiocsti; cut -d' ' -f7 /proc/self/stat")?;
    container.bundle.write()?;
    let mut command = Command::new("script");
    let line = format!(
        "{} --root {} run --bundle {} {}",
        s.runtime.path.display(),
        s.text("state"),
        container.bundle.directory.display(),
        container.id
    );
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let seen = s.finish(command)?.ok()?;
    holds(&format!("nothing is pushed: {seen:?}"), !seen.contains("pushed"))?;
    same("controlling terminal", seen.lines().last().map(str::trim_end), Some("0"))
}

fn a_file_of_a_virtual_machine_through_a_link(s: &Scene) -> Outcome {
    // CVE-2025-24965.
    let outside = Outside::new(s)?;
    let mut container = s.script("true")?;
    for name in [".krun_config.json", "krun-sev.json", ".stanza.json"] {
        link(outside.path.join("marker"), container.bundle.rootfs().join(name))?;
    }
    container.bundle.config["annotations"] = json!({"run.oci.handler": "krun", "run.oci.krun": "1"});
    container.run()?;
    outside.untouched()
}

fn annotations_change_nothing_unknown(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let seen =
        s.sh_with("id -u; grep ^CapEff /proc/self/status | cut -f2; ls / | tr '\\n' ' '", |bundle| {
            bundle.config["annotations"] = json!({
                "org.criu.config": outside.path.join("marker"),
                "module.wasm.image/variant": "compat",
                "io.stanza.unknown": "x", "dev.stanza.unknown": "{\"root\": true}"
            });
        })?;
    same("seen", seen, "0\n0000000020000420\nbin dev etc home mnt proc root run sys tmp")?;
    outside.untouched()
}

fn features_tell_of_annotations_that_may_harm(s: &Scene) -> Outcome {
    let seen: Value =
        serde_json::from_str(&s.call(&["features"])?.ok()?).map_err(|error| error.to_string())?;
    holds("a list", seen["potentiallyUnsafeConfigAnnotations"].is_array())
}

fn ids_that_leave_the_state_directory_are_refused(s: &Scene) -> Outcome {
    let container = s.script("echo ran")?;
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    let long = "x".repeat(1025);
    for id in ["", ".", "..", "../x", "a/b", "/x", "a b", "a\nb", "a\u{1}b", "ä", "a:b", "a*b", long.as_str()]
    {
        let words = ["run", "--bundle", &bundle, id];
        let output = s.call(&words)?;
        holds(&format!("`{id}`: {output:?}"), output.code != 0 && !output.stdout.contains("ran")).or_else(
            |error| {
                if s.runtime.is_crun() && !id.contains('/') && !id.is_empty() && !id.starts_with('.') {
                    Ok(())
                } else {
                    Err(error)
                }
            },
        )?;
        // Nor are verbs misled by one.
        if id.contains('/') || id.starts_with('.') {
            for verb in ["state", "kill", "delete"] {
                s.call(&[verb, id])?.refused().map_err(|error| format!("{verb} `{id}`: {error}"))?;
            }
        }
    }
    holds("the bundle is there", Path::new(&bundle).join("config.json").exists())
}

fn ids_of_letters_and_signs_are_taken(s: &Scene) -> Outcome {
    let container = s.script("echo ran")?;
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    for id in ["a", "A_b.c+d-e", "0", "...x", "x-", "_"] {
        same(id, s.call(&["run", "--bundle", &bundle, id])?.ok()?, "ran")?;
    }
    Ok(())
}

fn a_pid_that_another_process_has_now_is_not_killed(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    // Starts are told apart by ticks of a hundredth of a second; a pid comes back after thousands of others.
    std::thread::sleep(std::time::Duration::from_millis(30));
    let mut victim = Command::new("sleep");
    victim.arg("1000");
    let mut victim = s.spawn(victim)?;
    let (name, key) =
        if s.runtime.is_crun() { ("status", "pid") } else { ("state.json", "init_process_pid") };
    let path = s.path("state").join(&container.id).join(name);
    let text = read(&path);
    let mut record: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    record[key] = json!(victim.pid());
    fs::write(&path, record.to_string()).map_err(|error| error.to_string())?;
    container.verb("kill", &[], &["KILL"])?;
    container.verb("delete", &["--force"], &[])?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    let alive = victim.child.try_wait().map_err(|error| error.to_string())?.is_none();
    kill(victim.pid());
    victim.finish()?;
    if s.path("state").join(&container.id).exists() {
        fs::write(&path, text).map_err(|error| error.to_string())?;
    }
    // What was the container's is cleared by the case when the record did not lead there.
    for pid in crate::scene::descendants(rustix::process::getpid().as_raw_pid()) {
        kill(pid);
    }
    wait_for("the cgroups are gone", || {
        s.reap();
        for path in s.cgroups(&container.id).values() {
            let _ = fs::remove_dir(path);
        }
        Ok(s.cgroups(&container.id).is_empty().then_some(()))
    })?;
    holds("the other process is alive", alive)
}

fn works_where_proc_is_partly_covered(s: &Scene) -> Outcome {
    // runc issues 4968, 4972, 5058: inside of another container.
    let container = s.script("cat /proc/sys/net/ipv4/ip_unprivileged_port_start; id -u")?;
    let mut bundle = container.bundle.config.clone();
    bundle["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    fs::write(container.bundle.directory.join("config.json"), bundle.to_string())
        .map_err(|error| error.to_string())?;
    let mut command = Command::new("unshare");
    let script = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && mount -t tmpfs none /proc/acpi 2>/dev/null; \
                  mount --bind /dev/null /proc/keys 2>/dev/null; exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&s.runtime.path);
    command
        .arg("--root")
        .arg(s.path("state"))
        .arg("run")
        .arg("--bundle")
        .arg(&container.bundle.directory)
        .arg(&container.id);
    same("output", s.finish(command)?.ok()?, "77\n0")
}

fn a_configuration_of_many_mappings(s: &Scene) -> Outcome {
    // Beside CVE-2021-43784; the kernel takes 340 lines, but of a page at most.
    let mut container = s.script("wc -l </proc/self/uid_map; id -u")?;
    let map: Vec<Value> =
        (0..250).map(|at| json!({"containerID": at, "hostID": 200_000 + at, "size": 1})).collect();
    container.bundle.namespace(json!({"type": "user"}));
    container.bundle.config["linux"]["uidMappings"] = json!(map);
    container.bundle.config["linux"]["gidMappings"] = json!(map);
    s.tool(&["chmod", "755", &s.text("")])?;
    s.tool(&["chown", "-Rh", "200000:200000", &container.bundle.rootfs().display().to_string()])?;
    same("lines and user", container.run()?.ok()?, "250\n0")
}

fn a_configuration_of_long_words(s: &Scene) -> Outcome {
    let mut container = s.script("echo ${#LONG}")?;
    let long = "y".repeat(100_000);
    container.bundle.config["process"]["env"] =
        json!([format!("LONG={long}"), "PATH=/bin", format!("OTHER={long}")]);
    container.bundle.config["annotations"] = json!({"long": "z".repeat(300_000)});
    same("length", container.run()?.ok()?, "100000")
}

fn broken_configurations_leave_nothing(s: &Scene) -> Outcome {
    let container = s.script("echo ran")?;
    let usual = container.bundle.config.to_string();
    let mut texts: Vec<String> = (1..12).map(|part| usual[..usual.len() * part / 12].to_owned()).collect();
    texts.push("[".repeat(200_000));
    texts.push(usual.replace("\"args\"", "\"args\": 7, \"x\""));
    texts.push(usual.replace("\"mounts\":[", "\"mounts\":[{\"destination\": \"\", \"type\": \"tmpfs\"},"));
    texts.push(usual.replace("\"mounts\":[", "\"mounts\":[null,"));
    texts.push(usual.replace("\"namespaces\":[", "\"namespaces\":[{},"));
    texts.push(usual.replace("\"cwd\":\"/\"", "\"cwd\":\"\""));
    texts.push(usual.replace("\"cwd\":\"/\"", "\"cwd\":\"\\u0000/\""));
    texts.push(usual.replace("\"path\":\"rootfs\"", "\"path\":\"\""));
    texts.push(usual.replace("\"uid\":0", "\"uid\":4294967296"));
    texts.push(usual.replace("\"uid\":0", "\"uid\":-1"));
    let bundle = container.bundle.directory.display().to_string();
    for text in &texts {
        fs::write(container.bundle.directory.join("config.json"), text).map_err(|error| error.to_string())?;
        let output = s.call(&["run", "--bundle", &bundle, &container.id])?;
        let start: String = text.chars().take(60).collect();
        for word in ["panicked", "SIGSEGV", "core dumped", "overflowed its stack"] {
            holds(&format!("`{start}`: no `{word}` in {output:?}"), !output.stderr.contains(word))?;
        }
        holds(&format!("`{start}`: {output:?}"), output.code < 128 || s.runtime.is_crun())?;
        holds("no record", s.call(&["state", &container.id])?.code != 0)?;
        same("cgroups left", s.cgroups(&container.id).len(), 0)?;
    }
    Ok(())
}
