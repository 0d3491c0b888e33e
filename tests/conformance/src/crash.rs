//! The runtime killed at random moments: what it leaves, `delete --force` clears.
//!
//! `STANZA_CRASH_ROUNDS` says how many rounds all cases have together (40 when it is not set).

use std::time::{Duration, Instant, SystemTime};

use crate::case::{Need, Outcome, cases, holds, same, wait_for};
use crate::container::Container;
use crate::scene::{Scene, descendants, kill, mounts_below};

const RUNC: Need = Need::Lacks("runc", "cannot find what it has not written down yet");
const CRUN: Need = Need::Lacks("crun", "cannot find what it has not written down yet");

cases!("crash":
    during_create [RUNC, CRUN],
    during_run [RUNC, CRUN],
    during_start,
    during_exec,
    during_delete,
    during_kill,
);

/// How many rounds each case has.
pub(crate) fn rounds() -> u32 {
    let all: u32 = std::env::var("STANZA_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    u32::max(all.div_ceil(u32::try_from(CASES.len()).unwrap_or(1)), 1)
}

/// A number below a bound; not the same ones in each run.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Random((now.as_secs() ^ u64::from(now.subsec_nanos())) | 1)
    }

    fn below(&mut self, bound: u128) -> u64 {
        // Xorshift, by George Marsaglia.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % u64::try_from(bound.max(1)).unwrap_or(u64::MAX)
    }
}

/// Runs a verb to its end once to know how long it takes, then in each round kills it within that time.
fn crash(
    s: &Scene,
    prepare: impl Fn(&Container) -> Outcome,
    command: impl Fn(&Container) -> std::process::Command,
) -> Outcome {
    let mut random = Random::new();
    let mut takes = Duration::from_millis(1);
    for round in 0..=rounds() {
        let container = s.script("sleep 1000 & exec sleep 1000")?;
        container.bundle.write()?;
        prepare(&container)?;
        let start = Instant::now();
        let mut running = s.spawn(command(&container))?;
        let moment = Duration::from_micros(random.below((takes + takes / 4).as_micros()));
        if round == 0 {
            // `run` does not end by itself.
            while running.child.try_wait().map_err(|error| error.to_string())?.is_none()
                && start.elapsed() < Duration::from_millis(500)
            {
                std::thread::sleep(Duration::from_micros(200));
            }
            takes = start.elapsed().min(Duration::from_millis(200));
        } else {
            std::thread::sleep(moment);
        }
        kill(running.pid());
        running.finish()?;
        let cleared = clear(s, &container);
        cleared.map_err(|error| format!("round {round}, killed after {moment:?} of {takes:?}: {error}"))?;
    }
    Ok(())
}

/// After `delete --force` nothing is left.
fn clear(s: &Scene, container: &Container) -> Outcome {
    s.delete_force(&container.id)?;
    holds("no record", !s.path("state").join(&container.id).exists())?;
    wait_for("no process is left", || {
        s.reap();
        Ok(descendants(rustix::process::getpid().as_raw_pid()).is_empty().then_some(()))
    })?;
    same("cgroups left", s.cgroups(&container.id).len(), 0)?;
    same("mounts left", mounts_below(&s.scratch), Vec::<String>::new())?;
    holds("the id is free", s.call(&["state", &container.id])?.code != 0)?;
    std::fs::remove_dir_all(&container.bundle.directory).map_err(|error| error.to_string())
}

fn bundle_of(container: &Container) -> String {
    container.bundle.directory.display().to_string()
}

fn during_create(s: &Scene) -> Outcome {
    crash(s, |_| Ok(()), |container| container.command("create", &["--bundle", &bundle_of(container)], &[]))
}

fn during_run(s: &Scene) -> Outcome {
    crash(s, |_| Ok(()), |container| container.command("run", &["--bundle", &bundle_of(container)], &[]))
}

fn during_start(s: &Scene) -> Outcome {
    crash(s, |container| container.create(), |container| container.command("start", &[], &[]))
}

fn during_exec(s: &Scene) -> Outcome {
    crash(
        s,
        |container| container.up(),
        |container| container.command("exec", &[], &["sh", "-c", "sleep 0.01"]),
    )
}

fn during_delete(s: &Scene) -> Outcome {
    crash(s, |container| container.up(), |container| container.command("delete", &["--force"], &[]))
}

fn during_kill(s: &Scene) -> Outcome {
    crash(s, |container| container.up(), |container| container.command("kill", &[], &["KILL"]))
}
