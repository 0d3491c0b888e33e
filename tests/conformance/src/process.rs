//! The first process: who it is, what it may do, what it is limited to, where it runs.

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Need, Outcome, cases, contains, holds, same};
use crate::scene::Scene;

cases!("process":
    environment_is_the_configurations_alone,
    home_is_set_from_the_password_file,
    home_that_is_given_is_kept,
    arguments_are_passed_byte_for_byte,
    working_directory_is_entered,
    working_directory_that_is_missing_is_made,
    working_directory_that_is_relative_is_refused,
    user_and_groups,
    user_with_additional_groups_alone,
    user_without_groups_has_none_of_the_callers,
    umask_is_set,
    umask_is_022_when_none_is_given,
    capabilities_of_the_five_sets,
    capabilities_none,
    capabilities_all_that_there_are,
    capabilities_of_an_ordinary_user_come_by_ambience,
    capabilities_unknown_are_left_out,
    capabilities_cannot_be_gained_beyond_the_bounding_set,
    no_new_privileges_is_set,
    no_new_privileges_is_left_alone,
    rlimits_are_set,
    rlimit_twice_is_refused [Need::Lacks("runc", "takes the last"), Need::Lacks("crun", "takes the last")],
    rlimit_unknown_is_refused,
    oom_score_is_set,
    scheduler_batch [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    scheduler_other_with_a_nice_value [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    scheduler_idle_with_reset_on_fork [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    scheduler_fifo_with_a_priority [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    io_priority_is_set [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    exec_cpu_affinity_final [Need::Since("runc", "1.3"), Need::Since("crun", "1.20")],
    personality_linux32 [Need::Since("runc", "1.2")],
    personality_unknown_is_refused [Need::Since("runc", "1.2")],
    memory_policy_is_set [Need::Since("runc", "1.4"), Need::Since("crun", "1.24")],
    signals_are_neither_blocked_nor_ignored,
    descriptors_are_the_three_streams,
    preserve_fds_passes_so_many [Need::Lacks("crun", "leaves other descriptors of the caller open beyond them")],
    session_keyring_is_the_containers_own,
    session_keyring_is_the_callers_with_no_new_keyring,
    process_is_first_in_a_session_of_its_own,
    apparmor_profile_is_refused_where_the_kernel_has_none,
    selinux_label_is_refused_where_the_kernel_has_none [Need::Lacks("runc", "ignores it without SELinux")],
    program_by_a_relative_path,
    program_with_an_interpreter_line,
);

fn environment_is_the_configurations_alone(s: &Scene) -> Outcome {
    let seen = s.sh_with("env | grep -vE '^(PWD|SHLVL|HOME)='", |bundle| {
        bundle.config["process"]["env"] = json!(["PATH=/bin", "A=one two", "EMPTY=", "A2=x=y"]);
    })?;
    let mut lines: Vec<&str> = seen.lines().collect();
    lines.sort_unstable();
    same("environment", lines, ["A2=x=y", "A=one two", "EMPTY=", "PATH=/bin"])
}

fn home_is_set_from_the_password_file(s: &Scene) -> Outcome {
    same("of root", s.sh("echo $HOME")?, "/root")?;
    let user = |bundle: &mut Bundle| bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    same("of a user", s.sh_with("echo $HOME", user)?, "/home/user")?;
    let stranger = |bundle: &mut Bundle| bundle.config["process"]["user"] = json!({"uid": 4711, "gid": 4711});
    same("of a stranger", s.sh_with("echo $HOME", stranger)?, "/")
}

fn home_that_is_given_is_kept(s: &Scene) -> Outcome {
    let seen = s.sh_with("echo $HOME", |bundle| {
        bundle.config["process"]["env"] = json!(["PATH=/bin", "HOME=/given"]);
    })?;
    same("HOME", seen, "/given")
}

fn arguments_are_passed_byte_for_byte(s: &Scene) -> Outcome {
    let container = s.container(&["printf", "[%s]", "", "a b", "*", "ü\n", "--", "$HOME", "\\"])?;
    same("output", container.run()?.ok()?, "[][a b][*][ü\n][--][$HOME][\\]")
}

fn working_directory_is_entered(s: &Scene) -> Outcome {
    same("pwd", s.sh_with("pwd", |bundle| bundle.config["process"]["cwd"] = json!("/etc"))?, "/etc")
}

fn working_directory_that_is_missing_is_made(s: &Scene) -> Outcome {
    let seen = s.sh_with("pwd; stat -c %a /new/deep", |bundle| {
        bundle.config["process"]["cwd"] = json!("/new/deep");
    })?;
    same("pwd and mode", seen, "/new/deep\n755")
}

fn working_directory_that_is_relative_is_refused(s: &Scene) -> Outcome {
    let said = s.refused_with(|bundle| bundle.config["process"]["cwd"] = json!("etc"))?;
    s.says(&said, &["Cwd must be an absolute path", "cwd"])
}

fn user_and_groups(s: &Scene) -> Outcome {
    let seen = s.sh_with(
        "id -u; id -g; id -G; grep -E '^[UG]id|^Groups' /proc/self/status | tr -s '\\t ' '  '",
        |bundle| {
            bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 3000]});
        },
    )?;
    let lines: Vec<&str> = seen.lines().map(str::trim_end).collect();
    same(
        "ids",
        lines,
        [
            "1000",
            "1001",
            "1001 7 3000",
            "Uid: 1000 1000 1000 1000",
            "Gid: 1001 1001 1001 1001",
            "Groups: 7 3000",
        ],
    )
}

fn user_with_additional_groups_alone(s: &Scene) -> Outcome {
    let seen = s.sh_with("grep ^Groups /proc/self/status", |bundle| {
        bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [5]});
    })?;
    same("groups", seen.split_whitespace().collect::<Vec<_>>(), ["Groups:", "5"])
}

fn user_without_groups_has_none_of_the_callers(s: &Scene) -> Outcome {
    let container = s.script("grep ^Groups /proc/self/status")?;
    container.bundle.write()?;
    let mut command = std::process::Command::new("setpriv");
    command.args(["--groups", "4,20", "--"]).arg(&s.runtime.path).arg("--root").arg(s.path("state"));
    command.args(["run", "--bundle"]).arg(&container.bundle.directory).arg(&container.id);
    same("groups", s.finish(command)?.ok()?, "Groups:")
}

fn umask_is_set(s: &Scene) -> Outcome {
    let seen = s.sh_with("umask", |bundle| bundle.config["process"]["user"]["umask"] = json!(0o077))?;
    same("umask", seen, "0077")
}

fn umask_is_022_when_none_is_given(s: &Scene) -> Outcome {
    same("umask", s.sh("umask")?, "0022")
}

/// The five sets of the first process, as numbers: inheritable, permitted, effective, bounding, ambient.
fn sets(s: &Scene, change: impl FnOnce(&mut Bundle)) -> Outcome<Vec<u64>> {
    let seen = s.sh_with("grep ^Cap /proc/self/status", change)?;
    let numbers =
        seen.lines().filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok());
    Ok(numbers.collect())
}

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const SETUID: u64 = 1 << 7;
const NET_RAW: u64 = 1 << 13;

fn capabilities_of_the_five_sets(s: &Scene) -> Outcome {
    let seen = sets(s, |bundle| {
        bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        bundle.config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "effective": ["CAP_CHOWN"],
            "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
            "ambient": ["CAP_KILL"]
        });
    })?;
    // Across the execution of a program an ordinary user keeps the ambient ones alone (man 7 capabilities).
    same("sets", seen, [KILL | NET_RAW, KILL, KILL, CHOWN | KILL | SETUID | NET_RAW, KILL])
}

fn capabilities_none(s: &Scene) -> Outcome {
    let seen = sets(s, |bundle| bundle.config["process"]["capabilities"] = json!({}))?;
    same("sets", seen, [0, 0, 0, 0, 0])?;
    let seen = sets(s, |bundle| {
        if let Some(process) = bundle.config["process"].as_object_mut() {
            process.remove("capabilities");
        }
    })?;
    // Nothing said means nothing given up for runc, nothing given for crun; never more than the caller has.
    holds("bounded", seen.len() == 5)
}

/// Names of the capabilities that this process has itself.
fn own() -> (Vec<String>, u64) {
    const NAMES: &[&str] = &[
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    let status = crate::scene::read("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let set = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
    let names = NAMES.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
    (names.map(|(_, name)| format!("CAP_{name}")).collect(), set)
}

fn capabilities_all_that_there_are(s: &Scene) -> Outcome {
    let (names, set) = own();
    let seen = sets(s, |bundle| {
        bundle.config["process"]["capabilities"] = json!({
            "bounding": names, "permitted": names, "effective": names, "inheritable": names, "ambient": names
        });
    })?;
    same("sets", seen, [set; 5])
}

fn capabilities_of_an_ordinary_user_come_by_ambience(s: &Scene) -> Outcome {
    let names = ["CAP_NET_RAW"];
    let user = json!({"uid": 1000, "gid": 1000});
    let seen = sets(s, |bundle| {
        bundle.config["process"]["user"] = user.clone();
        bundle.capabilities(&names);
    })?;
    same("without", seen, [0, 0, 0, NET_RAW, 0])?;
    let seen = sets(s, |bundle| {
        bundle.config["process"]["user"] = user;
        bundle.capabilities(&names);
        bundle.config["process"]["capabilities"]["inheritable"] = json!(names);
        bundle.config["process"]["capabilities"]["ambient"] = json!(names);
    })?;
    same("with", seen, [NET_RAW; 5])
}

fn capabilities_unknown_are_left_out(s: &Scene) -> Outcome {
    let seen = sets(s, |bundle| bundle.capabilities(&["CAP_CHOWN", "CAP_NO_SUCH_THING"]))?;
    same("sets", seen, [0, CHOWN, CHOWN, CHOWN, 0])
}

fn capabilities_cannot_be_gained_beyond_the_bounding_set(s: &Scene) -> Outcome {
    let seen = s.sh_with(
        "cp /bin/busybox /tmp/busybox; chmod 4755 /tmp/busybox; /tmp/busybox grep ^CapEff /proc/self/status",
        |bundle| {
            bundle.config["process"]["noNewPrivileges"] = json!(false);
            bundle.capabilities(&["CAP_CHOWN"]);
        },
    )?;
    same("effective", seen.split_whitespace().nth(1), Some("0000000000000001"))
}

fn no_new_privileges_is_set(s: &Scene) -> Outcome {
    let seen = s.sh("grep NoNewPrivs /proc/self/status")?;
    same("set", seen.split_whitespace().nth(1), Some("1"))
}

fn no_new_privileges_is_left_alone(s: &Scene) -> Outcome {
    let seen = s.sh_with("grep NoNewPrivs /proc/self/status", |bundle| {
        bundle.config["process"]["noNewPrivileges"] = json!(false);
    })?;
    same("set", seen.split_whitespace().nth(1), Some("0"))
}

fn rlimits_are_set(s: &Scene) -> Outcome {
    let kinds = [
        ("RLIMIT_CORE", "Max core file size", 1000, 2000),
        ("RLIMIT_NOFILE", "Max open files", 100, 512),
        ("RLIMIT_NPROC", "Max processes", 50, 60),
        ("RLIMIT_STACK", "Max stack size", 1 << 20, 1 << 22),
        ("RLIMIT_FSIZE", "Max file size", 1 << 24, 1 << 25),
        ("RLIMIT_CPU", "Max cpu time", 100, 200),
        ("RLIMIT_DATA", "Max data size", 1 << 28, 1 << 29),
        ("RLIMIT_AS", "Max address space", 1 << 30, 1 << 31),
        ("RLIMIT_SIGPENDING", "Max pending signals", 10, 20),
        ("RLIMIT_RTTIME", "Max realtime timeout", 1000, 2000),
        ("RLIMIT_LOCKS", "Max file locks", 10, 20),
    ];
    let limits: Vec<Value> =
        kinds.iter().map(|(kind, _, soft, hard)| json!({"type": kind, "soft": soft, "hard": hard})).collect();
    // Seen by root, whose number of processes is not limited.
    let seen =
        s.sh_with("cat /proc/self/limits", |bundle| bundle.config["process"]["rlimits"] = json!(limits))?;
    for (kind, name, soft, hard) in kinds {
        let line = seen.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        same(kind, numbers, [soft, hard])?;
    }
    Ok(())
}

fn rlimit_twice_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        let limit = json!({"type": "RLIMIT_CORE", "soft": 1, "hard": 1});
        bundle.config["process"]["rlimits"] = json!([limit, limit]);
    })
    .map(drop)
}

fn rlimit_unknown_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NO_SUCH", "soft": 1, "hard": 1}]);
    })
    .map(drop)
}

fn oom_score_is_set(s: &Scene) -> Outcome {
    for score in [0, 100, 1000] {
        let change = |bundle: &mut Bundle| bundle.config["process"]["oomScoreAdj"] = json!(score);
        same("score", s.sh_with("cat /proc/self/oom_score_adj", change)?, score.to_string())?;
    }
    Ok(())
}

fn schedule(s: &Scene, scheduler: &Value) -> Outcome<String> {
    s.sh_with("exec probe sched", |bundle| bundle.config["process"]["scheduler"] = scheduler.clone())
}

fn scheduler_batch(s: &Scene) -> Outcome {
    same("scheduler", schedule(s, &json!({"policy": "SCHED_BATCH"}))?, "policy=3 nice=0 priority=0 flags=0")
}

fn scheduler_other_with_a_nice_value(s: &Scene) -> Outcome {
    let seen = schedule(s, &json!({"policy": "SCHED_OTHER", "nice": 7}))?;
    same("scheduler", seen, "policy=0 nice=7 priority=0 flags=0")
}

fn scheduler_idle_with_reset_on_fork(s: &Scene) -> Outcome {
    let seen = schedule(s, &json!({"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}))?;
    // The nice value of whoever runs the cases stays, and means nothing for this policy.
    let seen: Vec<&str> = seen.split(' ').filter(|word| !word.starts_with("nice=")).collect();
    same("scheduler", seen.join(" ").as_str(), "policy=5 priority=0 flags=1")
}

fn scheduler_fifo_with_a_priority(s: &Scene) -> Outcome {
    let mut container = s.script("exec probe sched")?;
    container.bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": 5});
    let output = container.run()?;
    if output.code != 0 && output.stderr.to_lowercase().contains("not permitted") {
        // Without a share of real time in its cgroup.
        return contains("what is said", &output.stderr.to_lowercase(), "sched");
    }
    same("scheduler", output.ok()?, "policy=1 nice=0 priority=5 flags=0")
}

fn io_priority_is_set(s: &Scene) -> Outcome {
    for (class, number) in [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)] {
        let level = if number == 3 { 0 } else { 4 };
        let seen = s.sh_with("exec probe ioprio", |bundle| {
            bundle.config["process"]["ioPriority"] = json!({"class": class, "priority": level});
        })?;
        same(class, seen, format!("class={number} level={level}"))?;
    }
    Ok(())
}

/// It is about `exec`, whose configuration of a process has it.
fn exec_cpu_affinity_final(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1"});
    container.up()?;
    let seen = container.sh("grep Cpus_allowed_list /proc/self/status")?;
    same("processors", seen.split_whitespace().nth(1), Some("1"))
}

fn personality_linux32(s: &Scene) -> Outcome {
    let seen = s.sh_with("uname -m; cat /proc/self/personality", |bundle| {
        bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    })?;
    same("machine and personality", seen, "i686\n00000008")
}

fn personality_unknown_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.config["linux"]["personality"] = json!({"domain": "SOLARIS"})).map(drop)
}

fn memory_policy_is_set(s: &Scene) -> Outcome {
    let seen = s.sh_with("exec probe mempolicy", |bundle| {
        bundle.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"});
    })?;
    same("policy", seen, "mode=3 nodes=1")
}

fn signals_are_neither_blocked_nor_ignored(s: &Scene) -> Outcome {
    let container = s.container(&["probe", "signals"])?;
    let seen = container.run()?.ok()?;
    for line in seen.lines() {
        let set = line.split_whitespace().nth(1).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        // What the caller of all this ignores of the real-time signals is inherited.
        same(line, set.map(|set| set & 0x7fff_ffff), Some(0))?;
    }
    same("lines", seen.lines().count(), 2)
}

fn descriptors_are_the_three_streams(s: &Scene) -> Outcome {
    let seen = s.container(&["probe", "fds"])?.run()?.ok()?;
    let numbers: Vec<&str> = seen.lines().filter_map(|line| line.split(' ').next()).collect();
    same(&format!("descriptors in {seen:?}"), numbers, ["0", "1", "2"])
}

fn preserve_fds_passes_so_many(s: &Scene) -> Outcome {
    for count in [0, 1, 3] {
        let container = s.container(&["probe", "fds"])?;
        container.bundle.write()?;
        // Descriptors 3 to 8 of the caller are files.
        let mut command = std::process::Command::new("sh");
        let script = "for fd in 3 4 5 6 7 8; do eval \"exec $fd</etc/passwd\"; done; exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(&s.runtime.path).arg("--root").arg(s.path("state"));
        command.args(["run", "--preserve-fds", &count.to_string(), "--bundle"]);
        command.arg(&container.bundle.directory).arg(&container.id);
        let seen = s.finish(command)?.ok()?;
        let passed = seen.lines().filter(|line| line.ends_with("/etc/passwd")).count();
        same(&format!("passed of {count} in {seen:?}"), passed, count)?;
        same("descriptors", seen.lines().count(), 3 + count)?;
    }
    Ok(())
}

fn session_keyring_is_the_containers_own(s: &Scene) -> Outcome {
    let container = s.container(&["probe", "keyring"])?;
    let seen = container.run()?.ok()?;
    contains("keyring", &seen, &container.id)
}

fn session_keyring_is_the_callers_with_no_new_keyring(s: &Scene) -> Outcome {
    let container = s.container(&["probe", "keyring"])?;
    let seen = container.run_with(&["--no-new-keyring"])?.ok()?;
    holds(&format!("not its own: {seen}"), !seen.contains(&container.id))
}

fn process_is_first_in_a_session_of_its_own(s: &Scene) -> Outcome {
    let seen = s.sh("cut -d' ' -f 1,5,6 /proc/self/stat; cut -d' ' -f 1,5,6 /proc/1/stat")?;
    same("pid, group, session of the first", seen.lines().nth(1), Some("1 1 1"))
}

fn apparmor_profile_is_refused_where_the_kernel_has_none(s: &Scene) -> Outcome {
    if std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        return Err(crate::case::skip("the kernel has AppArmor"));
    }
    s.refused_with(|bundle| bundle.config["process"]["apparmorProfile"] = json!("nosuch")).map(drop)
}

fn selinux_label_is_refused_where_the_kernel_has_none(s: &Scene) -> Outcome {
    if std::path::Path::new("/sys/fs/selinux").exists() {
        return Err(crate::case::skip("the kernel has SELinux"));
    }
    s.refused_with(|bundle| bundle.config["process"]["selinuxLabel"] = json!("system_u:system_r:t:s0"))
        .map(drop)
}

fn program_by_a_relative_path(s: &Scene) -> Outcome {
    let mut container = s.container(&["./echo", "relative"])?;
    container.bundle.config["process"]["cwd"] = json!("/bin");
    same("output", container.run()?.ok()?, "relative")
}

fn program_with_an_interpreter_line(s: &Scene) -> Outcome {
    let container = s.container(&["/tool", "word"])?;
    let path = container.bundle.rootfs().join("tool");
    std::fs::write(&path, "#!/bin/sh\necho script $1\n").map_err(|error| error.to_string())?;
    s.tool(&["chmod", "755", &path.display().to_string()])?;
    same("output", container.run()?.ok()?, "script word")
}
