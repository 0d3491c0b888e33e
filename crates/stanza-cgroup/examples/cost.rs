//! What the cgroups of one container cost, with the resources of `runc spec` and a cgroup in every hierarchy: run it under
//! `strace -f -c`, or without to see the time of each step. The marks for `strace` are `chdir`s to names that are not there.

use std::path::Path;
use std::time::Instant;

use stanza_cgroup::{PlanOptions, apply, detect, locate, plan_at};
use stanza_spec::oci::runtime::LinuxResources;

#[expect(clippy::print_stdout, reason = "an example's output")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = |kind: &str, major: i64, minor: i64, access: &str| serde_json::json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
    let mut devices = vec![serde_json::json!({"allow": false, "access": "rwm"})];
    devices.extend([device("c", -1, -1, "m"), device("b", -1, -1, "m")]);
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (10, 200), (136, -1)] {
        devices.push(device("c", major, minor, "rwm"));
    }
    let resources: LinuxResources = serde_json::from_value(serde_json::json!({ "devices": devices }))?;
    let options = PlanOptions { every_hierarchy: true, ..PlanOptions::default() };
    let path = format!("/stanza-cost-{}", std::process::id());
    let rounds: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut best = [u128::MAX; 4];
    for _ in 0..rounds {
        let start = Instant::now();
        mark("detect");
        let layout = detect()?;
        mark("plan");
        let location = locate(&layout, &path, "id")?;
        let (plan, _) = plan_at(&layout, &location, &resources, options)?;
        let planned = Instant::now();
        mark("apply");
        let cgroup = apply(&plan)?;
        let applied = Instant::now();
        mark("join");
        for tasks in cgroup.tasks_paths() {
            std::hint::black_box(Path::new(&tasks));
        }
        mark("remove");
        let errors = cgroup.remove();
        mark("end");
        if let Some(error) = errors.into_iter().next() {
            return Err(error.into());
        }
        let removed = Instant::now();
        let steps = [planned - start, applied - planned, removed - applied, removed - start];
        for (best, step) in best.iter_mut().zip(steps) {
            *best = (*best).min(step.as_nanos() / 1000);
        }
    }
    let [plan, apply, remove, all] = best;
    println!(
        "detect and plan {plan} us, apply {apply} us, remove {remove} us, all {all} us (the best of {rounds})"
    );
    Ok(())
}

fn mark(name: &str) {
    let _ = rustix::process::chdir(format!("/mark-{name}"));
}
