//! Without root: an ordinary user with one id or with a range of subordinate ones, and root of a user namespace.

use std::process::Command;

use serde_json::json;

use crate::case::{Need, Outcome, cases, contains, holds, same};
use crate::container::Container;
use crate::runtime::{Account, Output, ordinary};
use crate::scene::{Scene, read};

cases!("rootless":
    a_user_with_one_id [Need::Ordinary],
    a_user_with_a_range_of_ids [Need::Ordinary],
    a_user_with_a_range_that_is_not_its_own_is_refused [Need::Ordinary],
    create_start_exec_kill_delete [Need::Ordinary],
    exec_as_another_user_of_the_range [Need::Ordinary],
    groups_cannot_be_given_up_with_one_id [Need::Ordinary],
    without_a_user_namespace_is_refused [Need::Ordinary],
    limits_without_delegation_are_refused [Need::Ordinary],
    the_cgroups_cannot_be_written [Need::Ordinary],
    devices_are_the_hosts [Need::Ordinary],
    a_mount_of_the_hosts_files_is_refused_beyond_the_users_rights [Need::Ordinary],
    nothing_is_gained_outside [Need::Ordinary],
    hooks_run_as_the_user [Need::Ordinary],
    the_record_is_the_users [Need::Ordinary],
    root_inside_of_a_range [Need::Ordinary],
    root_inside_of_a_range_executes_and_deletes [Need::Ordinary],
    the_option_rootless_is_taken [Need::Ordinary, Need::Lacks("crun", "no --rootless")],
);

/// The usual bundle as an ordinary user can run it: a user namespace with one id, no limits, the host's `/sys`.
fn prepare<'a>(s: &'a Scene, words: &[&str]) -> Outcome<(Container<'a>, Account)> {
    let account = ordinary()?;
    let mut container = s.container(words)?;
    let bundle = &mut container.bundle;
    bundle.namespace(json!({"type": "user"}));
    bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": account.uid, "size": 1}]);
    bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": account.gid, "size": 1}]);
    if let Some(linux) = bundle.config["linux"].as_object_mut() {
        linux.remove("resources");
        linux.remove("cgroupsPath");
    }
    for point in ["/sys", "/sys/fs/cgroup", "/dev/pts"] {
        bundle.without_mount(point);
    }
    bundle.mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}));
    bundle.mount(json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}));
    Ok((container, account))
}

/// The same with the whole range of subordinate ids above the user's own.
fn prepare_range<'a>(s: &'a Scene, words: &[&str]) -> Outcome<(Container<'a>, Account)> {
    let (mut container, account) = prepare(s, words)?;
    let map = |own: u32, first: u32| json!([{"containerID": 0, "hostID": own, "size": 1}, {"containerID": 1, "hostID": first, "size": 65535}]);
    container.bundle.config["linux"]["uidMappings"] = map(account.uid, account.subuid);
    container.bundle.config["linux"]["gidMappings"] = map(account.gid, account.subgid);
    Ok((container, account))
}

/// The runtime, called by the user; `wrapper` comes between.
fn call(container: &Container, account: &Account, wrapper: &[&str], words: &[&str]) -> Outcome<Output> {
    let s = container.scene;
    container.bundle.write()?;
    s.directory("run")?;
    s.tool(&["chown", "-Rh", &format!("{}:{}", account.uid, account.gid), &s.text("")])?;
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", account.uid))
        .arg(format!("--regid={}", account.gid))
        .args(["--clear-groups", "--"]);
    command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"]);
    command.arg(format!("XDG_RUNTIME_DIR={}", s.text("run"))).args(wrapper);
    command.arg(&s.runtime.path).arg("--root").arg(s.path("run/state")).args(words);
    command.current_dir(&s.scratch);
    s.finish(command)
}

fn run(container: &Container, account: &Account, wrapper: &[&str]) -> Outcome<Output> {
    let bundle = container.bundle.directory.display().to_string();
    call(container, account, wrapper, &["run", "--bundle", &bundle, &container.id])
}

fn a_user_with_one_id(s: &Scene) -> Outcome {
    let (container, account) = prepare(s, &["sh", "-c", "id -u; cat /proc/self/uid_map; hostname; echo $$"])?;
    let seen = run(&container, &account, &[])?.ok()?;
    let uid = account.uid.to_string();
    same("seen", seen.split_whitespace().collect::<Vec<_>>(), ["0", "0", &uid, "1", "conformance", "1"])
}

fn a_user_with_a_range_of_ids(s: &Scene) -> Outcome {
    let (mut container, account) =
        prepare_range(s, &["sh", "-c", "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map"])?;
    container.bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let seen = run(&container, &account, &[])?.ok()?;
    let words = [account.uid, account.subuid, account.gid, account.subgid].map(|number| number.to_string());
    let expected = [
        "1000", "1000", "0", &words[0], "1", "1", &words[1], "65535", "0", &words[2], "1", "1", &words[3],
        "65535",
    ];
    same("ids and mappings", seen.split_whitespace().collect::<Vec<_>>(), expected)
}

fn a_user_with_a_range_that_is_not_its_own_is_refused(s: &Scene) -> Outcome {
    let (mut container, account) = prepare_range(s, &["sh", "-c", "echo ran"])?;
    container.bundle.config["linux"]["uidMappings"][1]["hostID"] = json!(3_000_000_000_u32);
    let said = run(&container, &account, &[])?.refused()?;
    holds("the program has not run", !said.contains("ran\n"))
}

fn create_start_exec_kill_delete(s: &Scene) -> Outcome {
    let (container, account) = prepare(s, &["sleep", "1000"])?;
    let bundle = container.bundle.directory.display().to_string();
    let step = |words: &[&str]| {
        call(&container, &account, &[], words)?.ok().map_err(|error| format!("{words:?}: {error}"))
    };
    step(&["create", "--bundle", &bundle, &container.id])?;
    step(&["start", &container.id])?;
    contains("state", &step(&["state", &container.id])?, "running")?;
    same(
        "exec",
        step(&["exec", &container.id, "sh", "-c", "id -u; hostname; readlink /proc/1/exe"])?,
        "0\nconformance\n/bin/busybox",
    )?;
    step(&["kill", &container.id, "KILL"])?;
    crate::case::wait_for("its end", || {
        s.reap();
        Ok(step(&["state", &container.id])?.contains("stopped").then_some(()))
    })?;
    step(&["delete", &container.id])?;
    holds("no record", !s.path("run/state").join(&container.id).exists())
}

fn exec_as_another_user_of_the_range(s: &Scene) -> Outcome {
    let (container, account) = prepare_range(s, &["sleep", "1000"])?;
    let bundle = container.bundle.directory.display().to_string();
    let step = |words: &[&str]| {
        call(&container, &account, &[], words)?.ok().map_err(|error| format!("{words:?}: {error}"))
    };
    step(&["run", "--detach", "--bundle", &bundle, &container.id])?;
    let seen = step(&["exec", "--user", "1000:1000", &container.id, "id", "-u"]);
    let deleted = step(&["delete", "--force", &container.id]);
    same("user", seen?, "1000")?;
    deleted.map(drop)
}

fn groups_cannot_be_given_up_with_one_id(s: &Scene) -> Outcome {
    let (mut container, account) = prepare(s, &["sh", "-c", "echo ran"])?;
    // setgroups is denied in a user namespace that an ordinary user maps (man 7 user_namespaces).
    container.bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [7]});
    let said = run(&container, &account, &[])?.refused()?;
    holds("the program has not run", !said.contains("ran\n"))
}

fn without_a_user_namespace_is_refused(s: &Scene) -> Outcome {
    let (mut container, account) = prepare(s, &["sh", "-c", "echo ran"])?;
    container.bundle.without_namespace("user");
    if let Some(linux) = container.bundle.config["linux"].as_object_mut() {
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    }
    let output = run(&container, &account, &[])?;
    if s.runtime.is_crun() && output.code == 0 {
        return Ok(()); // It makes one by itself.
    }
    holds("the program has not run", !output.refused()?.contains("ran\n"))
}

fn limits_without_delegation_are_refused(s: &Scene) -> Outcome {
    let (mut container, account) = prepare(s, &["sh", "-c", "echo ran"])?;
    container.bundle.config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}});
    let output = run(&container, &account, &[])?;
    if s.runtime.is_crun() && output.code == 0 {
        return Ok(()); // It goes without, silently.
    }
    let said = output.refused()?;
    holds("the program has not run", !said.contains("ran\n"))?;
    contains("what is said", &said.to_lowercase(), "cgroup")
}

fn the_cgroups_cannot_be_written(s: &Scene) -> Outcome {
    // CVE-2023-25809: without a cgroup namespace the host's own hierarchy was writable.
    let script = "for file in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/tasks /sys/fs/cgroup/*/release_agent; do \
                  [ -e $file ] && (echo 0 >$file) 2>/dev/null && echo written $file; done; \
                  [ -e /sys/fs/cgroup/pids/tasks ] && mkdir /sys/fs/cgroup/pids/x 2>/dev/null && echo made; echo done";
    for own in [true, false] {
        let (mut container, account) = prepare(s, &["sh", "-c", script])?;
        if !own {
            container.bundle.without_namespace("cgroup");
        }
        container.bundle.mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                                      "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}));
        let output = run(&container, &account, &[])?;
        // A refusal is as good.
        holds(&format!("{output:?}"), output.code != 0 || output.stdout == "done\n")?;
    }
    Ok(())
}

fn devices_are_the_hosts(s: &Scene) -> Outcome {
    let script = "echo x >/dev/null && head -c 3 /dev/zero | wc -c; stat -c %t:%T /dev/null; mknod /tmp/x c 1 3 2>/dev/null || echo refused";
    let (container, account) = prepare(s, &["sh", "-c", script])?;
    same("devices", run(&container, &account, &[])?.ok()?, "3\n1:3\nrefused")
}

fn a_mount_of_the_hosts_files_is_refused_beyond_the_users_rights(s: &Scene) -> Outcome {
    let (mut container, account) = prepare(s, &["sh", "-c", "cat /mnt/secret"])?;
    let directory = std::env::temp_dir().join(format!("secret-{}", s.tag));
    std::fs::create_dir(&directory).map_err(|error| error.to_string())?;
    let path = directory.display().to_string();
    let made = s.tool(&["sh", "-c", &format!("echo hidden >{path}/secret; chmod 700 {path}")]);
    container
        .bundle
        .mount(json!({"destination": "/mnt", "type": "bind", "source": path, "options": ["bind"]}));
    let output = made.and_then(|_| run(&container, &account, &[]));
    let _ = std::fs::remove_dir_all(&directory);
    let output = output?;
    holds(&format!("{output:?}"), !output.stdout.contains("hidden"))
}

fn nothing_is_gained_outside(s: &Scene) -> Outcome {
    let (container, account) = prepare(s, &["sh", "-c", "echo mine >/made"])?;
    run(&container, &account, &[])?.ok()?;
    let owner =
        s.tool(&["stat", "-c", "%u:%g", &container.bundle.rootfs().join("made").display().to_string()])?;
    same("owner of what it made", owner.trim(), format!("{}:{}", account.uid, account.gid))
}

fn hooks_run_as_the_user(s: &Scene) -> Outcome {
    let (mut container, account) = prepare(s, &["true"])?;
    let log = s.text("log");
    container.bundle.config["hooks"]["poststop"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("/usr/bin/id -u >{log}")], "env": ["PATH=/usr/bin:/bin"]}]);
    run(&container, &account, &[])?.ok()?;
    same("user", read(&log).trim(), account.uid.to_string())
}

fn the_record_is_the_users(s: &Scene) -> Outcome {
    let (container, account) = prepare(s, &["sleep", "1000"])?;
    let bundle = container.bundle.directory.display().to_string();
    call(&container, &account, &[], &["run", "--detach", "--bundle", &bundle, &container.id])?.ok()?;
    let owner = s.tool(&["stat", "-c", "%u", &s.path("run/state").join(&container.id).display().to_string()]);
    let listed = call(&container, &account, &[], &["list", "--quiet"]);
    call(&container, &account, &[], &["delete", "--force", &container.id])?.ok()?;
    same("owner", owner?.trim(), account.uid.to_string())?;
    same("listed", listed?.ok()?, container.id.clone())
}

/// Puts the caller into a user namespace as its root, with the whole range, and a mount namespace: as podman does.
const RANGE: [&str; 6] =
    ["unshare", "--user", "--map-root-user", "--map-users=auto", "--map-groups=auto", "--mount"];

fn inner<'a>(s: &'a Scene, words: &[&str]) -> Outcome<(Container<'a>, Account)> {
    let (mut container, account) = prepare(s, words)?;
    container.bundle.without_namespace("user");
    if let Some(linux) = container.bundle.config["linux"].as_object_mut() {
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    }
    Ok((container, account))
}

fn root_inside_of_a_range(s: &Scene) -> Outcome {
    let (mut container, account) =
        inner(s, &["sh", "-c", "id -u; id -g; hostname; cat /proc/self/uid_map | head -n 1"])?;
    container.bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1001});
    let seen = run(&container, &account, &RANGE)?.ok()?;
    let uid = account.uid.to_string();
    same("seen", seen.split_whitespace().collect::<Vec<_>>(), ["1000", "1001", "conformance", "0", &uid, "1"])
}

fn root_inside_of_a_range_executes_and_deletes(s: &Scene) -> Outcome {
    let (container, account) = inner(s, &["sleep", "1000"])?;
    let bundle = container.bundle.directory.display().to_string();
    // One shell in the namespace makes all calls, as podman's one does.
    let script = "runtime=\"$0 $1 $2\"; $runtime run --detach --bundle $3 $4 && $runtime exec --user 5:6 $4 id -u && \
                  $runtime state $4 | grep -c running && $runtime delete --force $4 && echo deleted";
    let mut wrapper = RANGE.to_vec();
    wrapper.extend(["sh", "-c", script]);
    let seen = call(&container, &account, &wrapper, &[&bundle, &container.id])?.ok()?;
    same("seen", seen, "5\n1\ndeleted")
}

fn the_option_rootless_is_taken(s: &Scene) -> Outcome {
    for value in ["--rootless=true", "--rootless=auto"] {
        let (container, account) = prepare(s, &["echo", "ran"])?;
        let bundle = container.bundle.directory.display().to_string();
        let seen = call(&container, &account, &[], &[value, "run", "--bundle", &bundle, &container.id])?.ok();
        same(value, seen?, "ran")?;
    }
    Ok(())
}
