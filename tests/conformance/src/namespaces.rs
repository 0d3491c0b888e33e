//! Every kind of namespace: new, joined by path, left out; user namespaces with mappings; time offsets.

use std::fs;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Need, Outcome, cases, contains, holds, same};
use crate::scene::Scene;

cases!("namespaces":
    each_kind_is_new,
    each_kind_is_the_callers_when_left_out,
    network_is_joined_by_path,
    ipc_is_joined_by_path,
    uts_is_joined_by_path,
    pid_is_joined_by_path,
    cgroup_is_joined_by_path,
    mount_is_joined_by_path [Need::Lacks("crun", "mounts the root again below the joined namespace's own")],
    user_is_joined_by_path [Need::Since("runc", "1.2")],
    path_to_another_kind_is_refused,
    path_that_is_not_there_is_refused,
    path_to_a_plain_file_is_refused,
    kind_twice_is_refused,
    kind_unknown_is_refused,
    new_network_has_the_loopback_up,
    new_pid_starts_at_one,
    new_uts_has_the_hostname,
    new_uts_has_the_domainname [Need::Since("runc", "1.2")],
    hostname_without_a_namespace_is_refused,
    hostname_of_the_host_stays,
    user_has_the_mappings,
    user_with_several_mappings,
    user_files_outside_of_the_mappings_are_the_overflow_users,
    user_of_the_process_is_inside,
    user_mappings_without_a_namespace_are_refused [Need::Lacks("crun", "makes the namespace")],
    user_namespace_without_mappings_is_refused,
    user_owns_the_other_namespaces,
    time_offsets [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    time_offsets_without_a_namespace_are_refused [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    cgroup_namespace_shows_the_container_as_root,
    exec_joins_every_namespace,
);

/// The kinds as the configuration names them, and as `/proc` does.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn link(pid: &str, file: &str) -> Outcome<String> {
    let path = format!("/proc/{pid}/ns/{file}");
    let target = fs::read_link(&path).map_err(|error| format!("cannot read `{path}`: {error}"))?;
    Ok(target.display().to_string())
}

fn each_kind_is_new(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let pid = container.pid()?.to_string();
    for (kind, file) in KINDS {
        holds(&format!("{kind} is new"), link(&pid, file)? != link("self", file)?)?;
    }
    same("user", link(&pid, "user")?, link("self", "user")?)
}

fn each_kind_is_the_callers_when_left_out(s: &Scene) -> Outcome {
    for (kind, file) in KINDS.into_iter().filter(|(kind, _)| *kind != "mount") {
        let mut container = s.container(&["sleep", "1000"])?;
        container.bundle.without_namespace(kind);
        if kind == "uts" {
            container.bundle.config["hostname"] = Value::Null;
            if let Some(config) = container.bundle.config.as_object_mut() {
                config.remove("hostname");
            }
        }
        if kind == "network" {
            // sysfs belongs to the network namespace, so it is bound.
            container.bundle.without_mount("/sys/fs/cgroup");
            container.bundle.without_mount("/sys");
        }
        container.up().map_err(|error| format!("{kind}: {error}"))?;
        same(kind, link(&container.pid()?.to_string(), file)?, link("self", file)?)?;
        container.delete_force()?;
    }
    Ok(())
}

fn joined(s: &Scene, kind: &str, file: &str, change: impl Fn(&mut Bundle)) -> Outcome {
    let first = s.waiting()?;
    let pid = first.pid()?.to_string();
    let mut second = s.container(&["sleep", "1000"])?;
    second.bundle.namespace(json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
    change(&mut second.bundle);
    second.up()?;
    let other = second.pid()?.to_string();
    same(kind, link(&other, file)?, link(&pid, file)?)?;
    for (kind, file) in KINDS.into_iter().filter(|(other, _)| *other != kind) {
        holds(&format!("{kind} is new"), link(&other, file)? != link(&pid, file)?)?;
    }
    second.delete_force()?;
    // The first process of a pid namespace cannot end before all others in it are reaped.
    s.reap();
    same("the first one", first.status()?, "running")
}

fn network_is_joined_by_path(s: &Scene) -> Outcome {
    joined(s, "network", "net", |_| ())
}

fn ipc_is_joined_by_path(s: &Scene) -> Outcome {
    joined(s, "ipc", "ipc", |_| ())
}

fn uts_is_joined_by_path(s: &Scene) -> Outcome {
    joined(s, "uts", "uts", |_| ())
}

fn pid_is_joined_by_path(s: &Scene) -> Outcome {
    joined(s, "pid", "pid", |_| ())
}

fn cgroup_is_joined_by_path(s: &Scene) -> Outcome {
    joined(s, "cgroup", "cgroup", |_| ())
}

fn mount_is_joined_by_path(s: &Scene) -> Outcome {
    let first = s.waiting()?;
    let pid = first.pid()?.to_string();
    let mut second = s.script("echo joined; exec sleep 1000")?;
    second.bundle.namespace(json!({"type": "mount", "path": format!("/proc/{pid}/ns/mnt")}));
    // The namespace's own root is the container's: nothing is mounted, what it shows is its files.
    second.bundle.config["mounts"] = json!([]);
    second.bundle.config["linux"]["maskedPaths"] = json!([]);
    second.bundle.config["linux"]["readonlyPaths"] = json!([]);
    let output = second.try_create(&[])?;
    if output.code != 0 {
        // Its root file system is not to be seen from there: a refusal is as good.
        return Ok(());
    }
    second.start()?;
    same("mount", link(&second.pid()?.to_string(), "mnt")?, link(&pid, "mnt")?)
}

/// 65,536 ids from 200,000 on, for both.
/// Gives the container a user namespace.
pub(crate) fn user(bundle: &mut Bundle) {
    bundle.namespace(json!({"type": "user"}));
    bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 300_000, "size": 65536}]);
}

/// Lets the mapped root reach the root file system, as whoever prepares a bundle does.
pub(crate) fn reachable(s: &Scene, bundle: &Bundle) -> Outcome {
    for path in [&s.scratch, &s.path("state"), &bundle.directory] {
        if path.exists() {
            s.tool(&["chmod", "755", &path.display().to_string()])?;
        }
    }
    s.tool(&["chown", "-Rh", "200000:300000", &bundle.rootfs().display().to_string()]).map(drop)
}

fn user_sh(s: &Scene, script: &str, change: impl FnOnce(&mut Bundle)) -> Outcome<String> {
    let mut container = s.script(script)?;
    user(&mut container.bundle);
    change(&mut container.bundle);
    reachable(s, &container.bundle)?;
    container.run()?.ok()
}

fn user_is_joined_by_path(s: &Scene) -> Outcome {
    let mut first = s.container(&["sleep", "1000"])?;
    user(&mut first.bundle);
    reachable(s, &first.bundle)?;
    first.up()?;
    let pid = first.pid()?.to_string();
    let mut second = s.script("id -u; cat /proc/self/uid_map")?;
    second.bundle.namespace(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    reachable(s, &second.bundle)?;
    let seen = second.run()?.ok()?;
    same("ids", seen.split_whitespace().collect::<Vec<_>>(), ["0", "0", "200000", "65536"])
}

fn path_to_another_kind_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.namespace(json!({"type": "network", "path": "/proc/self/ns/uts"})))
        .map(drop)
}

fn path_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    let said = s.refused_with(|bundle| bundle.namespace(json!({"type": "network", "path": "/nosuch/ns"})))?;
    contains("what is said", &said, "/nosuch/ns")
}

fn path_to_a_plain_file_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.namespace(json!({"type": "ipc", "path": "/etc/passwd"}))).map(drop)
}

fn kind_twice_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        crate::bundle::push(&mut bundle.config["linux"]["namespaces"], json!({"type": "network"}));
    })
    .map(drop)
}

fn kind_unknown_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.namespace(json!({"type": "nosuch"}))).map(drop)
}

fn new_network_has_the_loopback_up(s: &Scene) -> Outcome {
    let seen = s.sh("ip link; ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1; echo; cat /proc/net/dev | wc -l")?;
    contains("link", &seen, "lo: <LOOPBACK,UP,LOWER_UP>")?;
    same("devices and two headings", seen.lines().last(), Some("3"))
}

fn new_pid_starts_at_one(s: &Scene) -> Outcome {
    same("pid", s.sh("echo $$")?, "1")?;
    same("processes", s.sh("ls -d /proc/[0-9]*; true")?, "/proc/1")
}

fn new_uts_has_the_hostname(s: &Scene) -> Outcome {
    same("name", s.sh_with("hostname", |bundle| bundle.config["hostname"] = json!("a-name"))?, "a-name")
}

fn new_uts_has_the_domainname(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /proc/sys/kernel/domainname", |bundle| {
        bundle.config["domainname"] = json!("example.org")
    })?;
    same("name", seen, "example.org")
}

fn hostname_without_a_namespace_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.without_namespace("uts")).map(drop)
}

fn hostname_of_the_host_stays(s: &Scene) -> Outcome {
    let before = fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| error.to_string())?;
    s.sh("true")?;
    same("name", fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(), before)
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn user_has_the_mappings(s: &Scene) -> Outcome {
    let seen =
        user_sh(s, "cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c %u:%g /etc/passwd", |_| ())?;
    same("mappings", words(&seen), ["0", "200000", "65536", "0", "300000", "65536", "0", "0:0"])
}

fn user_with_several_mappings(s: &Scene) -> Outcome {
    let seen = user_sh(s, "cat /proc/self/uid_map", |bundle| {
        bundle.config["linux"]["uidMappings"] = json!([
            {"containerID": 0, "hostID": 200_000, "size": 10},
            {"containerID": 10, "hostID": 400_000, "size": 1},
            {"containerID": 100, "hostID": 500_000, "size": 65000}
        ]);
    })?;
    same("mappings", words(&seen), ["0", "200000", "10", "10", "400000", "1", "100", "500000", "65000"])
}

fn user_files_outside_of_the_mappings_are_the_overflow_users(s: &Scene) -> Outcome {
    let mut container =
        s.script("stat -c %u:%g /tmp/foreign; cat /tmp/foreign; echo x >/tmp/foreign || echo refused")?;
    user(&mut container.bundle);
    reachable(s, &container.bundle)?;
    let foreign = container.bundle.rootfs().join("tmp/foreign");
    fs::write(&foreign, "text\n").map_err(|error| error.to_string())?;
    let output = container.run()?;
    same("seen", output.stdout, "65534:65534\ntext\nrefused\n")
}

fn user_of_the_process_is_inside(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    user(&mut container.bundle);
    container.bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [2000]});
    reachable(s, &container.bundle)?;
    container.up()?;
    let status = crate::scene::read(format!("/proc/{}/status", container.pid()?));
    let line = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        found.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    same("user", line("Uid:"), vec!["201000"; 4])?;
    same("group", line("Gid:"), vec!["301000"; 4])?;
    same("groups", line("Groups:"), vec!["302000"])
}

fn user_mappings_without_a_namespace_are_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
        bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    })
    .map(drop)
}

fn user_namespace_without_mappings_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.namespace(json!({"type": "user"}))).map(drop)
}

fn user_owns_the_other_namespaces(s: &Scene) -> Outcome {
    let seen = user_sh(
        s,
        "hostname changed && hostname; ip link set lo down && echo down; mount -t tmpfs none /mnt && echo mounted",
        |bundle| {
            bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
        },
    )?;
    same("allowed", seen, "changed\ndown\nmounted")
}

fn time_offsets(s: &Scene) -> Outcome {
    let container = s.container(&["probe", "clock"])?;
    let now = |output: String| -> Outcome<Vec<i64>> {
        Ok(output.split_whitespace().filter_map(|word| word.parse().ok()).collect())
    };
    let plain = now(container.run()?.ok()?)?;
    let mut container = s.container(&["probe", "clock"])?;
    container.bundle.namespace(json!({"type": "time"}));
    container.bundle.config["linux"]["timeOffsets"] =
        json!({"monotonic": {"secs": 7_000_000, "nanosecs": 5}, "boottime": {"secs": 9_000_000}});
    let moved = now(container.run()?.ok()?)?;
    let near = |seen: i64, offset: i64| (offset..offset + 20).contains(&seen);
    holds("monotonic", near(moved[0] - plain[0], 7_000_000))?;
    holds("boot", near(moved[1] - plain[1], 9_000_000))
}

fn time_offsets_without_a_namespace_are_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 7}}))
        .map(drop)
}

fn cgroup_namespace_shows_the_container_as_root(s: &Scene) -> Outcome {
    let seen = s.sh("cut -d: -f3 /proc/self/cgroup | sort -u")?;
    same("paths", seen, "/")?;
    let mut container = s.script("grep pids /proc/self/cgroup")?;
    container.bundle.without_namespace("cgroup");
    let seen = container.run()?.ok()?;
    holds(&format!("the whole path in {seen}"), seen.ends_with(&format!("/{}", container.id)))
}

fn exec_joins_every_namespace(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    user(&mut container.bundle);
    reachable(s, &container.bundle)?;
    container.up()?;
    let script = "for kind in pid net ipc uts mnt cgroup user; do readlink /proc/self/ns/$kind; done";
    let seen = container.sh(script)?;
    let pid = container.pid()?.to_string();
    let mut expected = Vec::new();
    for file in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"] {
        expected.push(link(&pid, file)?);
    }
    same("namespaces", seen.lines().map(str::to_owned).collect::<Vec<_>>(), expected)
}
