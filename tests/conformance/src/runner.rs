//! Runs cases, each in a process of its own that can be ended with all it started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::case::{Case, Missing};
use crate::runtime::Runtime;
use crate::scene::{CGROUP, Scene, descendants, kill, mounts_below, read};

/// A case that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// The same for one case: those with rounds have more of it.
fn deadline(case: &Case) -> Duration {
    if case.area == "crash" { DEADLINE + Duration::from_secs(1) * crate::crash::rounds() } else { DEADLINE }
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    /// The runtime does not have the feature.
    Unsupported(String),
    /// This machine cannot run it.
    Skipped(String),
}

/// A directory that all of the run's scratch directories are in, with a copy of this executable, which may be built anew
/// meanwhile; gone when dropped.
#[derive(Debug)]
pub(crate) struct Base(PathBuf);

impl Base {
    pub(crate) fn new() -> Result<Base, String> {
        let name = format!("stanza-conformance-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).map_err(|error| format!("cannot create `{}`: {error}", path.display()))?;
        let base = Base(path);
        fs::copy("/proc/self/exe", base.executable())
            .map_err(|error| format!("cannot copy this executable: {error}"))?;
        Ok(base)
    }

    fn executable(&self) -> PathBuf {
        self.0.join("cases")
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // Only when no other run is at work.
            let _ = fs::remove_dir(entry.path().join(CGROUP));
        }
    }
}

/// The words that make this executable run one case and print how it ended.
const ONE: &str = "--one-case";

/// Runs one case in a new process.
pub(crate) fn run(case: &Case, runtime: &Runtime, base: &Base) -> Verdict {
    for need in case.needs {
        match need.missing(runtime) {
            None => {}
            Some(Missing::Feature(reason)) => return Verdict::Unsupported(reason),
            Some(Missing::Machine(reason)) => return Verdict::Skipped(reason),
        }
    }
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let tag = format!("c{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let scratch = base.0.join(&tag);
    match run_in(case, runtime, &base.executable(), &scratch, &tag) {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Failed(error),
    }
}

fn run_in(
    case: &Case,
    runtime: &Runtime,
    executable: &Path,
    scratch: &Path,
    tag: &str,
) -> Result<Verdict, String> {
    fs::create_dir_all(scratch).map_err(|error| format!("cannot create `{}`: {error}", scratch.display()))?;
    let words = [
        ONE.to_owned(),
        format!("{}::{}", case.area, case.name),
        format!("{}={}", runtime.name, runtime.path.display()),
        scratch.display().to_string(),
        tag.to_owned(),
    ];
    // crun refuses the hybrid layout of cgroups, so it does not get to see version 2.
    let mut command = if runtime.is_crun() && Path::new("/sys/fs/cgroup/unified").exists() {
        let mut command = Command::new("unshare");
        let script = "umount /sys/fs/cgroup/unified; mount -t tmpfs none /sys/fs/cgroup/unified; exec \"$@\"";
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(executable);
        command
    } else {
        Command::new(executable)
    };
    let result = scratch.join("result");
    let talk = scratch.join("talk");
    let file = |path: &Path| {
        fs::File::create(path).map_err(|error| format!("cannot create `{}`: {error}", path.display()))
    };
    command.args(&words).stdin(Stdio::null()).stdout(file(&result)?).stderr(file(&talk)?);
    let mut child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let deadline = deadline(case);
    let end = Instant::now() + deadline;
    let mut ended = false;
    while !ended && Instant::now() < end {
        ended = child.try_wait().map_err(|error| format!("cannot wait: {error}"))?.is_some();
        if !ended {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    if !ended {
        end_all(pid);
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = read(&result);
    let verdict = match text.split_once('\n') {
        _ if !ended => Verdict::Failed(format!("hung for {deadline:?}; {}", hint(scratch))),
        Some(("passed", _)) => Verdict::Passed,
        Some(("failed", reason)) => match reason.trim_end().strip_prefix("skipped: ") {
            Some(reason) => Verdict::Skipped(reason.to_owned()),
            None => Verdict::Failed(reason.trim_end().to_owned()),
        },
        _ => Verdict::Failed(format!("the case's process ended early: {}", read(&talk))),
    };
    clear(scratch, tag);
    Ok(verdict)
}

/// What the last calls of a case that hangs have said.
fn hint(scratch: &Path) -> String {
    let mut said = Vec::new();
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = read(entry.path());
        if name.starts_with("call-") && !text.is_empty() {
            said.push(format!("{name}: {}", text.chars().take(300).collect::<String>()));
        }
    }
    format!("so far {said:?}")
}

/// Ends every process below one.
fn end_all(pid: i32) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let below = descendants(pid);
        if below.is_empty() || Instant::now() > end {
            return;
        }
        for pid in below {
            kill(pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes what a failed case left.
fn clear(scratch: &Path, tag: &str) {
    for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        remove_cgroup(&entry.path().join(CGROUP).join(tag));
    }
    for point in mounts_below(scratch).iter().rev() {
        let _ = rustix::mount::unmount(point.as_str(), rustix::mount::UnmountFlags::DETACH);
    }
    let _ = fs::remove_dir_all(scratch);
}

fn remove_cgroup(directory: &Path) {
    let state = directory.join("freezer.state");
    if state.exists() {
        let _ = fs::write(state, "THAWED");
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    for pid in read(directory.join("cgroup.procs")).lines().filter_map(|line| line.parse().ok()) {
        kill(pid);
    }
    let end = Instant::now() + Duration::from_secs(2);
    while directory.exists() && fs::remove_dir(directory).is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// When the words of this process ask for one case: runs it, prints how it ended. `None` when they do not.
pub(crate) fn one_case(words: &[String]) -> Option<String> {
    let [first, name, runtime, scratch, tag] = words else { return None };
    if first != ONE {
        return None;
    }
    let done = || -> Result<(), String> {
        let case = crate::all()
            .find(|case| format!("{}::{}", case.area, case.name) == *name)
            .ok_or_else(|| format!("no case `{name}`"))?;
        let (name, path) = runtime.split_once('=').ok_or("no runtime")?;
        let runtime = Runtime::new(name, Path::new(path))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| format!("cannot become the reaper: {error}"))?;
        let scene = Scene::new(runtime, PathBuf::from(scratch), tag.clone());
        let done = (case.run)(&scene);
        let closed = scene.close();
        done.and(closed)
    };
    Some(match done() {
        Ok(()) => "passed\n".to_owned(),
        Err(reason) => format!("failed\n{reason}\n"),
    })
}

/// Runs jobs on some threads; the results in the order of the jobs, each also told as it comes.
pub(crate) fn each<T: Sync, R: Send>(
    jobs: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
    tell: impl Fn(&T, &R) + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { return };
                    let result = work(job);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    tell(job, &result);
                    results.push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
