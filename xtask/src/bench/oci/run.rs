//! `run` plain and with the engines' seccomp profile, and `exec`: one command, timed.

use std::path::Path;

use super::Scene;
use super::report::{Goal, Report};
use crate::bench::commands::{Contender, compete, hierarchies};
use crate::bench::statistics::{Row, median, minimum};
use crate::shell::find;

fn floor(scene: &Scene) -> Contender {
    let words = [
        scene.workshop.floor.display().to_string(),
        scene.workshop.rootfs.display().to_string(),
        "-".to_owned(),
        hierarchies(),
        "/true".to_owned(),
    ];
    Contender { name: "floor".into(), enter: scene.enter.clone(), words: words.to_vec(), fresh: None }
}

/// The floor's own words, for the counting of its system calls.
pub(super) fn floor_words(scene: &Scene) -> Vec<String> {
    floor(scene).words
}

/// What bubblewrap does of it: no cgroup, no masks.
fn bubblewrap(scene: &Scene) -> Option<Contender> {
    let rootfs = scene.workshop.rootfs.display().to_string();
    let words = [
        &find("bwrap")?,
        "--unshare-all",
        "--ro-bind",
        &rootfs,
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "/true",
    ];
    let words = words.map(str::to_owned).to_vec();
    Some(Contender { name: "bwrap".into(), enter: scene.enter.clone(), words, fresh: None })
}

fn runs(scene: &Scene, bundle: &str, cold: bool) -> Vec<Contender> {
    let runtimes = scene.runtimes.iter();
    runtimes
        .map(|runtime| Contender {
            name: runtime.name.clone(),
            enter: scene.enter.clone(),
            words: runtime.command(&["run", "--bundle", &runtime.bundle(bundle), "bench"]),
            fresh: cold.then(|| runtime.state.clone()),
        })
        .collect()
}

fn values(rows: &[Row], value: fn(&Row) -> f64) -> Vec<(String, f64)> {
    rows.iter().map(|row| (row.name.clone(), value(row))).collect()
}

fn cpu(row: &Row) -> f64 {
    median(&row.cpu())
}

#[expect(clippy::cast_precision_loss, reason = "page faults and switches of one run are few")]
fn counted(rows: &[Row], count: fn(&crate::bench::Sample) -> u64) -> Vec<(String, f64)> {
    let of = |row: &Row| median(&row.samples.iter().map(|sample| count(sample) as f64).collect::<Vec<_>>());
    rows.iter().map(|row| (row.name.clone(), of(row))).collect()
}

/// `run` of the default configuration.
pub(super) fn run(scene: &Scene, rounds: usize, report: &mut Report) -> Result<(), String> {
    let mut contenders = runs(scene, "true", false);
    contenders.extend(bubblewrap(scene));
    contenders.push(floor(scene));
    let rows = compete(&scene.workshop, contenders, rounds);
    let goal = Goal { floor: Some(1.5), crun: Some(0.55), most: None };
    report.row("run, CPU ms", values(&rows, cpu), goal)?;
    let goal = Goal { floor: Some(1.6), ..Goal::default() };
    report.row("run, wall minimum ms", values(&rows, |row| minimum(&row.wall())), goal)?;
    report.row("run, wall median ms", values(&rows, |row| median(&row.wall())), Goal::default())?;
    report.row("run, page faults", counted(&rows, |sample| sample.page_faults), Goal::default())?;
    report.row("run, context switches", counted(&rows, |sample| sample.switches), Goal::default())
}

/// `run` with the engines' default profile: what was compiled before kept, and nothing kept.
pub(super) fn seccomp(scene: &Scene, rounds: usize, report: &mut Report) -> Result<(), String> {
    let there = scene.runtimes.iter().all(|runtime| Path::new(&runtime.bundle("seccomp")).exists());
    if !there {
        return Err("the engines' default profile is not installed here".to_owned());
    }
    for (cold, goal) in [(false, Goal::default()), (true, Goal { floor: Some(1.6), ..Goal::default() })] {
        let mut contenders = runs(scene, "seccomp", cold);
        contenders.push(floor(scene));
        let rows = compete(&scene.workshop, contenders, rounds);
        let name = if cold { "cold" } else { "warm" };
        report.row(&format!("run with seccomp, {name}, CPU ms"), values(&rows, cpu), goal)?;
        let wall = values(&rows, |row| minimum(&row.wall()));
        report.row(&format!("run with seccomp, {name}, wall minimum ms"), wall, Goal::default())?;
    }
    Ok(())
}

/// `exec` of the same program into a running container, beside `nsenter` into stanza's.
pub(super) fn exec(scene: &Scene, rounds: usize, report: &mut Report) -> Result<(), String> {
    let mut contenders = Vec::new();
    let mut entered = None;
    for runtime in &scene.runtimes {
        let file = runtime.directory.join("pid").display().to_string();
        let bundle = runtime.bundle("pause");
        scene.ask(runtime, &["run", "--detach", "--bundle", &bundle, "--pid-file", &file, "long"])?;
        contenders.push(Contender {
            name: runtime.name.clone(),
            enter: scene.enter.clone(),
            words: runtime.command(&["exec", "long", "/true"]),
            fresh: None,
        });
        entered = entered.or(Some(file));
    }
    let pid = entered.and_then(|file| std::fs::read_to_string(file).ok()).ok_or("no pid file was written")?;
    let words = ["nsenter", "-m", "-u", "-i", "-n", "-p", "-t", pid.trim(), "/true"];
    contenders.push(Contender {
        name: "nsenter".into(),
        enter: scene.enter.clone(),
        words: words.map(str::to_owned).to_vec(),
        fresh: None,
    });
    let rows = compete(&scene.workshop, contenders, rounds);
    for runtime in &scene.runtimes {
        scene.ask(runtime, &["delete", "--force", "long"])?;
    }
    let goal = Goal { floor: Some(1.4), ..Goal::default() };
    report.row("exec, CPU ms", values(&rows, cpu), goal)?;
    report.row("exec, wall minimum ms", values(&rows, |row| minimum(&row.wall())), Goal::default())
}
