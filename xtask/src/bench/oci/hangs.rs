//! `run` many times while the machine is busy: none may hang.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::report::{Goal, Report};
use super::{Runtime, Scene};

/// How long a run may take, in seconds, before it is said to hang.
const PATIENCE: &str = "30";
/// The exit code of a command that `timeout` has killed.
const KILLED: i32 = 128 + 9;
/// Runs at the same time, each with a cgroup of its own.
pub(super) const LANES: usize = 4;

/// Processes that do nothing but run; ended when dropped.
struct Load(Vec<Child>);

impl Load {
    fn start() -> Load {
        let count = 2 * thread::available_parallelism().map_or(2, usize::from);
        let spin = || {
            let mut command = Command::new("setpriv");
            command
                .args(["--pdeathsig", "KILL", "sh", "-c", "while :; do :; done"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .ok()
        };
        Load((0..count).filter_map(|_| spin()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether one run hangs.
fn hangs(scene: &Scene, runtime: &Runtime, bundle: &str, id: &str) -> Result<bool, String> {
    // A file: what is left of a run that hangs would hold a pipe open.
    let path = Path::new(bundle).join("told");
    let file = File::create(&path).map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    let (enter, rest) = scene.enter.split_first().ok_or("no room")?;
    let status = Command::new(enter)
        .args(rest)
        .args(["timeout", "-s", "KILL", PATIENCE])
        .args(runtime.command(&["run", "--bundle", bundle, id]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .map_err(|error| format!("cannot run `{enter}`: {error}"))?;
    if status.success() {
        return Ok(false);
    }
    let _ = scene.ask(runtime, &["delete", "--force", id]);
    if status.code() == Some(KILLED) || status.signal() == Some(KILLED - 128) {
        return Ok(true);
    }
    let told = fs::read_to_string(&path).unwrap_or_default();
    Err(format!("run {id} failed ({status}): {}", told.trim()))
}

/// The row of hangs, of stanza alone: the others are slow under load.
pub(super) fn run(scene: &Scene, count: usize, report: &mut Report) -> Result<(), String> {
    let runtime = scene.runtimes.first().ok_or("no runtime")?;
    let _load = Load::start();
    let (next, hung) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for lane in 0..LANES {
            let bundle = runtime.bundle(&format!("lane{lane}"));
            let (next, hung, failed) = (&next, &hung, &failed);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    match hangs(scene, runtime, &bundle, &format!("busy{number}")) {
                        Ok(true) => drop(hung.fetch_add(1, Ordering::Relaxed)),
                        Ok(false) => {}
                        Err(error) => {
                            if let Ok(mut failed) = failed.lock() {
                                *failed = Some(error);
                            }
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_default() {
        return Err(error);
    }
    let hung = f64::from(u32::try_from(hung.into_inner()).unwrap_or(u32::MAX));
    let goal = Goal { most: Some(0.0), ..Goal::default() };
    report.row(&format!("runs of {count} under load that hang"), vec![(runtime.name.clone(), hung)], goal)
}
