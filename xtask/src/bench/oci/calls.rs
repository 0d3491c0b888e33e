//! The system calls of one `run`, counted and sorted into stages, by `strace`.
//!
//! A traced run is several times slower than a free one: the times tell which stage is large, not how long it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::Scene;
use super::report::{Goal, Report, render};
use super::run::floor_words;
use crate::shell::output;

/// One system call that has ended.
#[derive(Clone, Debug, PartialEq)]
struct Call {
    task: u32,
    name: String,
    arguments: String,
    milliseconds: f64,
}

/// Traces `words` in the room.
fn trace(scene: &Scene, words: &[String]) -> Result<Vec<Call>, String> {
    let file = scene.workshop.make("trace")?.join("calls");
    let path = file.display().to_string();
    let strace = ["strace", "-f", "-y", "-T", "-s", "64", "-o", &path];
    let all: Vec<&str> = scene
        .enter
        .iter()
        .map(String::as_str)
        .chain(strace)
        .chain(words.iter().map(String::as_str))
        .collect();
    output(&all)?;
    let text = fs::read(&file).map_err(|error| format!("cannot read `{path}`: {error}"))?;
    Ok(calls(&String::from_utf8_lossy(&text)))
}

/// The calls of a trace; the halves of interrupted lines are put together.
fn calls(text: &str) -> Vec<Call> {
    let mut halves: BTreeMap<u32, (String, String)> = BTreeMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((task, rest)) = line.split_once(' ') else { continue };
        let (Ok(task), rest) = (task.parse::<u32>(), rest.trim_start()) else { continue };
        let (name, arguments) = if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, arguments)) = halves.remove(&task) else { continue };
            let more = resumed.split_once("resumed>").map_or("", |(_, more)| more);
            (name, arguments + more)
        } else if let Some((name, arguments)) = rest.split_once('(') {
            (name.to_owned(), arguments.to_owned())
        } else {
            continue;
        };
        if let Some(first) = arguments.strip_suffix("<unfinished ...>") {
            halves.insert(task, (name, first.to_owned()));
            continue;
        }
        // `exit_group` does not return and takes no time.
        let spent =
            arguments.rsplit_once('<').and_then(|(_, time)| time.strip_suffix('>')?.parse::<f64>().ok());
        found.push(Call { task, name, arguments, milliseconds: spent.unwrap_or(0.0) * 1000.0 });
    }
    found
}

/// The stages in the order in which they are shown.
const STAGES: [&str; 13] = [
    "program start, memory",
    "clone",
    "name spaces",
    "cgroups",
    "mounts",
    "root file system",
    "/proc",
    "rights",
    "seccomp",
    "configuration, state",
    "network, keys",
    "waiting",
    "other",
];

/// Which stage a call belongs to: by what it names, else by what it is.
fn stage(call: &Call, state: &str) -> &'static str {
    let has = |part: &str| call.arguments.contains(part);
    match call.name.as_str() {
        "seccomp" => "seccomp",
        "prctl" if has("PR_SET_SECCOMP") => "seccomp",
        "clone" | "clone3" | "fork" | "vfork" => "clone",
        "unshare" | "setns" => "name spaces",
        "mount" | "umount2" | "move_mount" | "fsopen" | "fsconfig" | "fsmount" | "open_tree"
        | "mount_setattr" | "pivot_root" | "chroot" => "mounts",
        "wait4" | "waitid" | "poll" | "ppoll" | "epoll_wait" | "epoll_pwait" | "futex" | "nanosleep"
        | "clock_nanosleep" | "pause" | "select" | "pselect6" | "rt_sigtimedwait" => "waiting",
        "read" | "recvfrom" | "recvmsg" if has("<pipe:") || has("<socket:") || has("<UNIX") => "waiting",
        _ if has("/sys/fs/cgroup") || has("sys/fs/cgroup") => "cgroups",
        _ if has("config.json") || has(state) => "configuration, state",
        _ if has("\"/proc") || has("</proc") => "/proc",
        "mknod" | "mknodat" | "symlink" | "symlinkat" | "mkdir" | "mkdirat" | "chmod" | "fchmod"
        | "fchmodat" | "chown" | "fchown" | "fchownat" | "openat2" => "root file system",
        _ if has("/dev/") || has("\"dev") || has("/rootfs") => "root file system",
        "prctl" | "capset" | "capget" | "setresuid" | "setresgid" | "setuid" | "setgid" | "setgroups"
        | "prlimit64" | "setrlimit" | "umask" => "rights",
        "socket" | "ioctl" | "sendto" | "bind" | "keyctl" => "network, keys",
        "execve" | "execveat" | "mmap" | "munmap" | "mprotect" | "brk" | "madvise" | "arch_prctl"
        | "set_tid_address" | "set_robust_list" | "rseq" | "getrandom" | "rt_sigaction"
        | "rt_sigprocmask" | "sigaltstack" | "pread64" | "exit_group" | "exit" => "program start, memory",
        _ if has("/lib") || has("/etc/ld.so") => "program start, memory",
        _ => "other",
    }
}

fn contenders(scene: &Scene) -> Vec<(String, Vec<String>)> {
    let runtimes = scene.runtimes.iter().map(|runtime| {
        (runtime.name.clone(), runtime.command(&["run", "--bundle", &runtime.bundle("true"), "bench"]))
    });
    runtimes.chain([("floor".to_owned(), floor_words(scene))]).collect()
}

fn count(length: usize) -> f64 {
    f64::from(u32::try_from(length).unwrap_or(u32::MAX))
}

/// The rows of system calls and of tasks.
pub(super) fn run(scene: &Scene, report: &mut Report) -> Result<(), String> {
    let (mut numbers, mut tasks) = (Vec::new(), Vec::new());
    for (name, words) in contenders(scene) {
        let all = trace(scene, &words)?;
        numbers.push((name.clone(), count(all.len())));
        tasks.push((name, count(all.iter().map(|call| call.task).collect::<BTreeSet<_>>().len())));
    }
    let goal = Goal { most: Some(300.0), ..Goal::default() };
    report.row("run, system calls", numbers, goal)?;
    report.row("run, processes and threads", tasks, Goal::default())
}

/// Prints which stage of `run` takes how many calls and how long.
pub(super) fn stages(scene: &Scene, markdown: bool) -> Result<(), String> {
    let mut head = vec!["stage".to_owned()];
    let mut columns = Vec::new();
    let mut stanza: BTreeMap<(&str, String), (usize, f64)> = BTreeMap::new();
    for (name, words) in contenders(scene) {
        let mut sums: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        let state = format!("/run/{name}");
        for call in trace(scene, &words)? {
            let stage = stage(&call, &state);
            let sum = sums.entry(stage).or_default();
            sum.0 += 1;
            sum.1 += call.milliseconds;
            if name == "stanza" {
                let sum = stanza.entry((stage, call.name)).or_default();
                sum.0 += 1;
                sum.1 += call.milliseconds;
            }
        }
        head.extend([format!("{name}, calls"), "ms".to_owned()]);
        columns.push(sums);
    }
    let mut lines = vec![head];
    for stage in STAGES {
        let mut line = vec![stage.to_owned()];
        for column in &columns {
            let (calls, spent) = column.get(stage).copied().unwrap_or_default();
            line.extend([calls.to_string(), format!("{spent:.2}")]);
        }
        lines.push(line);
    }
    println!(
        "time inside system calls under strace, several times slower than free\n\n{}",
        render(&lines, markdown)
    );
    let mut lines = vec![["stanza's stage", "call", "times", "ms"].map(str::to_owned).to_vec()];
    for wanted in STAGES {
        let mut calls: Vec<_> = stanza.iter().filter(|((stage, _), _)| *stage == wanted).collect();
        calls.sort_by_key(|(_, (times, _))| std::cmp::Reverse(*times));
        for ((stage, name), (times, spent)) in calls {
            lines.push(vec![(*stage).to_owned(), name.clone(), times.to_string(), format!("{spent:.2}")]);
        }
    }
    println!("{}", render(&lines, markdown));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_call_are_put_together() {
        let text = "7  wait4(-1,  <unfinished ...>\n\
                    8  openat(AT_FDCWD</>, \"/sys/fs/cgroup/memory\", O_PATH) = 3 <0.000020>\n\
                    8  exit_group(0)  = ?\n\
                    8  +++ exited with 0 +++\n\
                    7  <... wait4 resumed>NULL, 0, NULL) = 8 <0.001500>\n";
        let found = calls(text);
        let names: Vec<(u32, &str)> = found.iter().map(|call| (call.task, call.name.as_str())).collect();
        assert_eq!(names, [(8, "openat"), (8, "exit_group"), (7, "wait4")]);
        assert!((found[2].milliseconds - 1.5).abs() < 1e-9);
        let stages: Vec<&str> = found.iter().map(|call| stage(call, "/run/own")).collect();
        assert_eq!(stages, ["cgroups", "program start, memory", "waiting"]);
    }
}
