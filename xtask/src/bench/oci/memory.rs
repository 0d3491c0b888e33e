//! What a container costs in memory while it waits between `create` and `start`, and whether one with a limit of 4 MiB starts.

use std::fs;

use super::report::{Goal, Report};
use super::{Runtime, Scene};
use crate::bench::statistics::median;

/// The private memory of a process, in KiB.
fn private(pid: &str) -> Result<f64, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read `{path}`: {error}"))?;
    let lines =
        text.lines().filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"));
    Ok(lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum())
}

/// The private memory of one waiting container.
fn once(scene: &Scene, runtime: &Runtime) -> Result<f64, String> {
    let file = runtime.directory.join("pid").display().to_string();
    let bundle = runtime.bundle("pause");
    scene.ask(runtime, &["create", "--bundle", &bundle, "--pid-file", &file, "waiting"])?;
    let pid = fs::read_to_string(&file).map_err(|error| format!("no pid file: {error}"));
    let found = pid.and_then(|pid| private(pid.trim()));
    scene.ask(runtime, &["delete", "--force", "waiting"])?;
    found
}

/// Both rows.
pub(super) fn run(scene: &Scene, report: &mut Report) -> Result<(), String> {
    let (mut waiting, mut starts) = (Vec::new(), Vec::new());
    for runtime in &scene.runtimes {
        let found: Result<Vec<f64>, String> = (0..5).map(|_| once(scene, runtime)).collect();
        waiting.push((runtime.name.clone(), median(&found?)));
        let small = (0..10).filter(|_| {
            let done = scene.ask(runtime, &["run", "--bundle", &runtime.bundle("small"), "small"]);
            if done.is_err() {
                let _ = scene.ask(runtime, &["delete", "--force", "small"]);
            }
            done.is_ok()
        });
        starts.push((runtime.name.clone(), f64::from(u32::try_from(small.count()).unwrap_or(0))));
    }
    let goal = Goal { most: Some(600.0), ..Goal::default() };
    report.row("init between create and start, private KiB", waiting, goal)?;
    report.row("starts of 10 with a limit of 4 MiB", starts, Goal::default())
}
