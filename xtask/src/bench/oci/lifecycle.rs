//! `create`, `start` and `delete --force`, each timed, with the container's first process counted in.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::report::{Goal, Report};
use super::{Runtime, Scene};
use crate::bench::statistics::{median, minimum};

const STEPS: [&str; 3] = ["create", "start", "delete -f"];

/// What one command took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wall_ms: f64,
    cpu_ms: f64,
}

/// Milliseconds that a process has run, all its threads together.
fn used(pid: &str) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e6
}

fn sleeps(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tS"))
}

fn executes(pid: &str, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}

fn wait_for(what: &str, condition: impl Fn() -> bool) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        if Instant::now() > end {
            return Err(format!("waited in vain for {what}"));
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn once(scene: &Scene, runtime: &Runtime) -> Result<[Cost; 3], String> {
    let time = |arguments: &[&str]| scene.workshop.timer.time(&scene.enter, &runtime.command(arguments));
    let file = runtime.directory.join("pid").display().to_string();
    let created = time(&["create", "--bundle", &runtime.bundle("pause"), "--pid-file", &file, "bench"])?;
    let pid = fs::read_to_string(&file).map_err(|error| format!("no pid file: {error}"))?;
    let pid = pid.trim();
    wait_for("the container to wait", || sleeps(pid))?;
    let before = used(pid);
    let started = time(&["start", "bench"])?;
    wait_for("the container's program", || executes(pid, "pause") && sleeps(pid))?;
    // Threads of a runtime's init end with its execve, and their time with them.
    let during = (used(pid) - before).max(0.0);
    let deleted = time(&["delete", "--force", "bench"])?;
    let cost = |sample: crate::bench::Sample, more: f64| Cost {
        wall_ms: sample.wall_ms,
        cpu_ms: sample.cpu_ms + more,
    };
    Ok([cost(created, before), cost(started, during), cost(deleted, 0.0)])
}

/// The three rows of CPU and the three of wall time.
pub(super) fn run(scene: &Scene, rounds: usize, report: &mut Report) -> Result<(), String> {
    let mut costs: BTreeMap<&str, Vec<[Cost; 3]>> = BTreeMap::new();
    let count = scene.runtimes.len();
    for round in 0..rounds {
        for turn in 0..count {
            let runtime = &scene.runtimes[(turn + round) % count];
            let cost = once(scene, runtime).map_err(|error| {
                let _ = scene.ask(runtime, &["delete", "--force", "bench"]);
                format!("{}: {error}", runtime.name)
            })?;
            costs.entry(&runtime.name).or_default().push(cost);
        }
    }
    let of = |at: usize, value: fn(&Cost) -> f64, sum: fn(&[f64]) -> f64| -> Vec<(String, f64)> {
        let each = costs.iter();
        each.map(|(name, all)| {
            ((*name).to_owned(), sum(&all.iter().map(|steps| value(&steps[at])).collect::<Vec<_>>()))
        })
        .collect()
    };
    for (at, step) in STEPS.iter().enumerate() {
        let goal = Goal { crun: Some(0.5), ..Goal::default() };
        report.row(&format!("{step}, CPU ms"), of(at, |cost| cost.cpu_ms, median), goal)?;
        let wall = of(at, |cost| cost.wall_ms, minimum);
        report.row(&format!("{step}, wall minimum ms"), wall, Goal::default())?;
    }
    Ok(())
}
