//! Filters of system calls: every action, arguments, architectures, flags, listeners.

use std::process::Command;

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same, wait_for};
use crate::container::Container;
use crate::scene::{Scene, read};

cases!("seccomp":
    errno_with_the_default_number,
    errno_with_a_number,
    errno_as_the_default_action,
    errno_as_the_default_action_with_a_number [Need::Since("crun", "1.9")],
    kill_ends_the_process,
    kill_process_ends_the_process,
    kill_thread_ends_the_process_of_one_thread,
    trap_sends_a_signal,
    trace_without_a_tracer_is_enosys,
    log_lets_it_through,
    allow_lets_it_through,
    several_names_in_one_rule,
    a_name_in_several_rules,
    a_name_that_is_unknown_is_left_out,
    arguments_compared_each_way,
    arguments_masked,
    arguments_of_64_bits,
    arguments_all_must_hold,
    arguments_of_one_index_twice,
    arguments_beyond_six_are_refused,
    rules_of_the_32_bit_entry,
    an_architecture_that_is_left_out_is_stopped,
    an_architecture_that_is_unknown_is_refused,
    an_action_that_is_unknown_is_refused,
    an_operator_that_is_unknown_is_refused,
    flags_are_taken,
    a_flag_that_is_unknown_is_refused,
    system_calls_newer_than_the_profile_are_enosys [Need::Lacks("crun", "gives the default action's number")],
    notify_passes_a_listener,
    notify_of_write_is_refused,
    notify_without_a_listener_path_is_refused,
    the_filter_holds_for_exec,
    the_filter_holds_without_no_new_privileges,
    the_mode_is_shown,
    the_usual_profile_of_docker,
    an_empty_profile_allows_all,
);

const GETPID: &str = "39";
const UNAME: &str = "63";
const GETPGID: &str = "121";
const PERSONALITY: &str = "135";

/// A container that makes one system call, under these rules; all else is allowed.
fn call<'a>(s: &'a Scene, rules: &Value, words: &[&str]) -> Outcome<Container<'a>> {
    let mut container = s.container(&[&["probe", "syscall"], words].concat())?;
    container.bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules
    });
    Ok(container)
}

fn result(s: &Scene, rules: &Value, words: &[&str]) -> Outcome<String> {
    call(s, rules, words)?.run()?.ok()
}

fn errno_with_the_default_number(s: &Scene) -> Outcome {
    let rules = json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}]);
    same("result", result(s, &rules, &[GETPGID, "0"])?, "errno=1")?;
    same("another", result(s, &rules, &[GETPID])?, "ret=1")
}

fn errno_with_a_number(s: &Scene) -> Outcome {
    for number in [2, 38, 100, 0] {
        let rules = json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": number}]);
        let expected = if number == 0 { "ret=0".to_owned() } else { format!("errno={number}") };
        same("result", result(s, &rules, &[GETPGID, "0"])?, expected)?;
    }
    Ok(())
}

/// What busybox and the probe need.
fn allowed() -> Value {
    json!([{"action": "SCMP_ACT_ALLOW", "names": [
        "access", "arch_prctl", "brk", "capget", "capset", "chdir", "clone", "close", "close_range", "dup", "dup2", "dup3",
        "epoll_create1", "epoll_ctl", "epoll_pwait", "execve", "execveat", "exit", "exit_group", "fchdir", "fchown", "fcntl",
        "fstat", "fstatfs", "futex", "getcwd", "getdents64", "getegid", "geteuid", "getgid", "getpid", "getppid", "getrandom",
        "gettid", "getuid", "ioctl", "lseek", "lstat", "madvise", "mmap", "mprotect", "mremap", "munmap", "nanosleep", "newfstatat",
        "open", "openat", "pipe2", "poll", "prctl", "pread64", "prlimit64", "read", "readlink", "readlinkat", "rseq", "rt_sigaction",
        "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address", "setgid",
        "setgroups", "setuid", "sigaltstack", "stat", "statx", "tgkill", "umask", "uname", "wait4", "write", "writev", "sendto",
        "seccomp", "getsid", "setsid", "recvmsg", "sendmsg", "fchmod", "fchmodat", "faccessat", "faccessat2"
    ]}])
}

fn by_default(s: &Scene, profile: Value, words: &[&str]) -> Outcome<String> {
    let mut container = s.container(&[&["probe", "syscall"], words].concat())?;
    container.bundle.config["linux"]["seccomp"] = profile;
    container.run()?.ok()
}

fn errno_as_the_default_action(s: &Scene) -> Outcome {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": allowed()});
    same("refused", by_default(s, profile.clone(), &[PERSONALITY, "0xffffffff"])?, "errno=1")?;
    same("allowed", by_default(s, profile, &[GETPID])?, "ret=1")
}

fn errno_as_the_default_action_with_a_number(s: &Scene) -> Outcome {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 77, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": allowed()});
    same("refused", by_default(s, profile, &[PERSONALITY, "0xffffffff"])?, "errno=77")
}

fn ends(s: &Scene, action: &str, code: i32) -> Outcome {
    let rules = json!([{"names": ["getpgid"], "action": action}]);
    let container = call(s, &rules, &[GETPGID, "0"])?;
    let output = container.run()?;
    same("code", output.code, code)?;
    same("output", output.stdout, "")
}

/// 128 and SIGSYS.
const SIGSYS: i32 = 159;

fn kill_ends_the_process(s: &Scene) -> Outcome {
    ends(s, "SCMP_ACT_KILL", SIGSYS)
}

fn kill_process_ends_the_process(s: &Scene) -> Outcome {
    ends(s, "SCMP_ACT_KILL_PROCESS", SIGSYS)
}

fn kill_thread_ends_the_process_of_one_thread(s: &Scene) -> Outcome {
    ends(s, "SCMP_ACT_KILL_THREAD", SIGSYS)
}

fn trap_sends_a_signal(s: &Scene) -> Outcome {
    // The first process of a pid namespace is not ended by a signal it has no handler for, but for one the kernel forces.
    ends(s, "SCMP_ACT_TRAP", SIGSYS)
}

fn trace_without_a_tracer_is_enosys(s: &Scene) -> Outcome {
    let rules = json!([{"names": ["getpgid"], "action": "SCMP_ACT_TRACE", "errnoRet": 5}]);
    same("result", result(s, &rules, &[GETPGID, "0"])?, "errno=38")
}

fn log_lets_it_through(s: &Scene) -> Outcome {
    let rules = json!([{"names": ["getpgid"], "action": "SCMP_ACT_LOG"}]);
    holds("it has a result", result(s, &rules, &[GETPGID, "0"])?.starts_with("ret="))
}

fn allow_lets_it_through(s: &Scene) -> Outcome {
    let rules = json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}, {"names": ["getpid"], "action": "SCMP_ACT_ALLOW"}]);
    same("result", result(s, &rules, &[GETPID])?, "ret=1")
}

fn several_names_in_one_rule(s: &Scene) -> Outcome {
    let rules =
        json!([{"names": ["getpgid", "getpid", "personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9}]);
    for number in [GETPGID, GETPID, PERSONALITY] {
        same(number, result(s, &rules, &[number, "0"])?, "errno=9")?;
    }
    Ok(())
}

fn compare(index: u32, value: u64, two: u64, operator: &str) -> Value {
    json!({"index": index, "value": value, "valueTwo": two, "op": operator})
}

fn when(arguments: &Value) -> Value {
    json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": arguments}])
}

fn a_name_in_several_rules(s: &Scene) -> Outcome {
    let rules = json!([
        {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11, "args": [compare(0, 1, 0, "SCMP_CMP_EQ")]},
        {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 12, "args": [compare(0, 2, 0, "SCMP_CMP_EQ")]}
    ]);
    same("first", result(s, &rules, &[GETPGID, "1"])?, "errno=11")?;
    same("second", result(s, &rules, &[GETPGID, "2"])?, "errno=12")?;
    holds("neither", result(s, &rules, &[GETPGID, "0"])?.starts_with("ret="))
}

fn a_name_that_is_unknown_is_left_out(s: &Scene) -> Outcome {
    let rules = json!([{"names": ["no_such_call", "getpgid"], "action": "SCMP_ACT_ERRNO"}]);
    same("result", result(s, &rules, &[GETPGID, "0"])?, "errno=1")
}

fn arguments_compared_each_way(s: &Scene) -> Outcome {
    let cases = [
        ("SCMP_CMP_EQ", [false, true, false]),
        ("SCMP_CMP_NE", [true, false, true]),
        ("SCMP_CMP_LT", [true, false, false]),
        ("SCMP_CMP_LE", [true, true, false]),
        ("SCMP_CMP_GE", [false, true, true]),
        ("SCMP_CMP_GT", [false, false, true]),
    ];
    for (operator, expected) in cases {
        let rules = when(&json!([compare(0, 1_000_000, 0, operator)]));
        for (value, refused) in ["999999", "1000000", "1000001"].iter().zip(expected) {
            let seen = result(s, &rules, &[GETPGID, value])?;
            // There is no such process, so the kernel's own answer is ESRCH.
            same(&format!("{value} {operator} 1000000"), seen, if refused { "errno=99" } else { "errno=3" })?;
        }
    }
    Ok(())
}

fn arguments_masked(s: &Scene) -> Outcome {
    let rules = when(&json!([compare(0, 0xf0, 0x50, "SCMP_CMP_MASKED_EQ")]));
    same("matches", result(s, &rules, &[GETPGID, "0x100051"])?, "errno=99")?;
    same("does not", result(s, &rules, &[GETPGID, "0x100061"])?, "errno=3")
}

fn arguments_of_64_bits(s: &Scene) -> Outcome {
    let wide = 0x1_0000_0005_u64;
    let rules = when(&json!([compare(1, wide, 0, "SCMP_CMP_EQ")]));
    same("matches", result(s, &rules, &[GETPGID, "9999999", &wide.to_string()])?, "errno=99")?;
    same("the lower half alone", result(s, &rules, &[GETPGID, "9999999", "5"])?, "errno=3")?;
    let rules = when(&json!([compare(1, wide, 0, "SCMP_CMP_GT")]));
    same("greater", result(s, &rules, &[GETPGID, "9999999", &(wide + 1).to_string()])?, "errno=99")?;
    same("a greater lower half", result(s, &rules, &[GETPGID, "9999999", "9"])?, "errno=3")?;
    same("a greater upper half", result(s, &rules, &[GETPGID, "9999999", "0x200000000"])?, "errno=99")
}

fn arguments_all_must_hold(s: &Scene) -> Outcome {
    let rules = when(&json!([compare(0, 7_000_000, 0, "SCMP_CMP_EQ"), compare(1, 8, 0, "SCMP_CMP_EQ")]));
    same("both", result(s, &rules, &[GETPGID, "7000000", "8"])?, "errno=99")?;
    same("one", result(s, &rules, &[GETPGID, "7000000", "9"])?, "errno=3")
}

/// Of one argument any may hold, as Docker's profiles rely on (runc's rule).
fn arguments_of_one_index_twice(s: &Scene) -> Outcome {
    let rules =
        when(&json!([compare(0, 7_000_000, 0, "SCMP_CMP_EQ"), compare(0, 8_000_000, 0, "SCMP_CMP_EQ")]));
    same("first", result(s, &rules, &[GETPGID, "7000000"])?, "errno=99")?;
    same("second", result(s, &rules, &[GETPGID, "8000000"])?, "errno=99")?;
    same("neither", result(s, &rules, &[GETPGID, "9000000"])?, "errno=3")
}

fn refused(s: &Scene, profile: &Value) -> Outcome<String> {
    s.refused_with(|bundle| bundle.config["linux"]["seccomp"] = profile.clone())
}

fn with_rules(rules: &Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

fn arguments_beyond_six_are_refused(s: &Scene) -> Outcome {
    refused(s, &with_rules(&when(&json!([compare(6, 1, 0, "SCMP_CMP_EQ")])))).map(drop)
}

fn rules_of_the_32_bit_entry(s: &Scene) -> Outcome {
    let rules = json!([{"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 55}]);
    let mut container = call(s, &rules, &[GETPID])?;
    // getpid is 20 there.
    container.bundle.args(&["probe", "int80", "20"]);
    same("refused", container.run()?.ok()?, "errno=55")?;
    container.bundle.args(&["probe", "int80", "24"]);
    same("another", container.run()?.ok()?, "ret=0")
}

fn an_architecture_that_is_left_out_is_stopped(s: &Scene) -> Outcome {
    let mut container = s.container(&["probe", "int80", "20"])?;
    container.bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": allowed()});
    let output = container.run()?;
    // libseccomp ends the thread; an error is as good. It must not get through.
    holds(&format!("stopped: {output:?}"), output.code == SIGSYS || output.stdout.starts_with("errno="))
}

fn an_architecture_that_is_unknown_is_refused(s: &Scene) -> Outcome {
    refused(s, &json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"], "syscalls": when(&json!([]))})).map(drop)
}

fn an_action_that_is_unknown_is_refused(s: &Scene) -> Outcome {
    refused(s, &with_rules(&json!([{"names": ["getpid"], "action": "SCMP_ACT_FROWN"}])))?;
    refused(s, &json!({"defaultAction": "SCMP_ACT_FROWN"})).map(drop)
}

fn an_operator_that_is_unknown_is_refused(s: &Scene) -> Outcome {
    refused(s, &with_rules(&when(&json!([compare(0, 1, 0, "SCMP_CMP_LIKE")])))).map(drop)
}

fn flags_are_taken(s: &Scene) -> Outcome {
    let rules = json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}]);
    for flags in [
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]),
        json!([]),
    ] {
        let mut container = call(s, &rules, &[GETPGID, "0"])?;
        container.bundle.config["linux"]["seccomp"]["flags"] = flags;
        same("result", container.run()?.ok()?, "errno=1")?;
    }
    Ok(())
}

fn a_flag_that_is_unknown_is_refused(s: &Scene) -> Outcome {
    let mut profile = with_rules(&json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}]));
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_NOSUCH"]);
    refused(s, &profile).map(drop)
}

/// So that programs fall back to older calls instead of giving up (runc's rule).
fn system_calls_newer_than_the_profile_are_enosys(s: &Scene) -> Outcome {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": allowed()});
    same("newer", by_default(s, profile.clone(), &["1000"])?, "errno=38")?;
    same("older", by_default(s, profile, &[PERSONALITY, "0xffffffff"])?, "errno=1")
}

/// A listener of the probe's, its output in a file.
fn listener(s: &Scene, socket: &str, error: &str) -> Outcome<crate::scene::Running> {
    let mut command = Command::new(s.probe()?);
    command.args(["notify", socket, error]);
    let running = s.spawn(command)?;
    wait_for("the listener is ready", || Ok(read(&running.stdout).contains("ready").then_some(())))?;
    Ok(running)
}

fn notify_passes_a_listener(s: &Scene) -> Outcome {
    let socket = s.text("seccomp.sock");
    let running = listener(s, &socket, "123")?;
    let rules = json!([{"names": ["getpgid"], "action": "SCMP_ACT_NOTIFY"}]);
    let mut container = call(s, &rules, &[GETPGID, "0"])?;
    container.bundle.config["linux"]["seccomp"]["listenerPath"] = json!(socket);
    container.bundle.config["linux"]["seccomp"]["listenerMetadata"] = json!("some metadata");
    same("result", container.run()?.ok()?, "errno=123")?;
    let said = read(&running.stdout);
    crate::scene::kill(running.pid());
    running.finish()?;
    contains("the listener", &said, "notified 121")?;
    let message = said.lines().find_map(|line| line.strip_prefix("message ")).unwrap_or_default();
    let state: Value =
        serde_json::from_str(message).map_err(|error| format!("no JSON: {error}: {message}"))?;
    same("descriptors", &state["fds"], &json!(["seccompFd"]))?;
    same("metadata", &state["metadata"], &json!("some metadata"))?;
    same("id", &state["state"]["id"], &json!(container.id))?;
    holds("a pid", state["pid"].as_i64().is_some_and(|pid| pid > 1))?;
    holds("a version", state["ociVersion"].is_string())
}

/// The runtime itself writes after the filter is in place.
fn notify_of_write_is_refused(s: &Scene) -> Outcome {
    let socket = s.text("seccomp.sock");
    let running = listener(s, &socket, "1")?;
    let mut profile = with_rules(&json!([{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]));
    profile["listenerPath"] = json!(socket);
    let said = refused(s, &profile);
    crate::scene::kill(running.pid());
    running.finish()?;
    if s.runtime.is_crun() { Ok(()) } else { said.map(drop) }
}

fn notify_without_a_listener_path_is_refused(s: &Scene) -> Outcome {
    refused(s, &with_rules(&json!([{"names": ["getpgid"], "action": "SCMP_ACT_NOTIFY"}]))).map(drop)
}

fn the_filter_holds_for_exec(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.config["linux"]["seccomp"] =
        with_rules(&json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 44}]));
    container.up()?;
    same("result", container.exec(&[], &["probe", "syscall", GETPGID, "0"])?.ok()?, "errno=44")
}

fn the_filter_holds_without_no_new_privileges(s: &Scene) -> Outcome {
    let rules = json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 44}]);
    let mut container = call(s, &rules, &[GETPGID, "0"])?;
    container.bundle.config["process"]["noNewPrivileges"] = json!(false);
    same("result", container.run()?.ok()?, "errno=44")
}

fn the_mode_is_shown(s: &Scene) -> Outcome {
    let line = "grep ^Seccomp: /proc/self/status";
    same("without", s.sh(line)?.split_whitespace().nth(1), Some("0"))?;
    let seen = s.sh_with(line, |bundle| {
        bundle.config["linux"]["seccomp"] =
            with_rules(&json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}]));
    })?;
    same("with", seen.split_whitespace().nth(1), Some("2"))
}

/// A profile of the size and shape that Docker always passes.
fn the_usual_profile_of_docker(s: &Scene) -> Outcome {
    let mut rules = vec![allowed()[0].clone()];
    rules.push(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [compare(0, 0, 0, "SCMP_CMP_EQ")]}));
    rules.push(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [compare(0, 8, 0, "SCMP_CMP_EQ")]}));
    rules.push(
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [compare(0, 40, 0, "SCMP_CMP_NE")]}),
    );
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [compare(0, 0x7E02_0000, 0, "SCMP_CMP_MASKED_EQ")]}));
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": rules
    });
    let checks: [(&[&str], &str); 8] = [
        (&[PERSONALITY, "0"], "ret=0"),
        (&[PERSONALITY, "8"], "ret=0"),
        (&[PERSONALITY, "0x40000"], "errno=1"),
        (&["41", "1", "1", "0"], "ret=3"),
        (&["41", "40", "1", "0"], "errno=1"),
        (&["435", "0", "0"], "errno=38"),
        (&[GETPGID, "0"], "errno=1"),
        (&[UNAME, "0"], "errno=14"),
    ];
    for (words, expected) in checks {
        same(&format!("{words:?}"), by_default(s, profile.clone(), words)?, expected)?;
    }
    Ok(())
}

fn an_empty_profile_allows_all(s: &Scene) -> Outcome {
    holds(
        "it has a result",
        by_default(s, json!({"defaultAction": "SCMP_ACT_ALLOW"}), &[GETPGID, "0"])?.starts_with("ret="),
    )
}
