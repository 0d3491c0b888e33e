//! `run -d` a thousand times, one after the other and eight at once; then the monitors' memory.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::peers::IMAGE;
use super::statistics::median;
use super::{Options, Peer, Workshop};

/// How many starts make the rate at container 10, from the first on.
pub(super) const FIRST: usize = 20;
/// How many make the rate at the end.
pub(super) const LAST: usize = 50;

/// One start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Seconds since the beginning at which it was done.
    end: f64,
    /// Seconds it took.
    pub(super) took: f64,
}

/// Starts `count` containers on a network in `lanes` lanes; the starts in the order of their ends.
pub(super) fn start(peer: &Peer, network: &str, count: usize, lanes: usize) -> Result<Vec<Start>, String> {
    let begin = Instant::now();
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Vec::new(), None));
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let before = begin.elapsed().as_secs_f64();
                    let words = peer.run(&["-d", "--network", network, IMAGE, "sleep", "1000"]);
                    let started = peer.ask(&words.iter().map(String::as_str).collect::<Vec<_>>());
                    let Ok(mut done) = done.lock() else { return };
                    match started {
                        Ok(_) => {
                            let end = begin.elapsed().as_secs_f64();
                            done.0.push(Start { end, took: end - before });
                        }
                        Err(error) => {
                            done.1 = Some(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    match done.into_inner() {
        Ok((times, None)) => Ok(times),
        Ok((_, Some(error))) => Err(error),
        Err(_) => Err("a lane broke".to_owned()),
    }
}

/// Starts per second of all lanes, by the median of what these starts took: a moment of load on the machine does not tell.
fn rate(starts: &[Start], lanes: u32) -> f64 {
    f64::from(lanes) / median(&starts.iter().map(|start| start.took).collect::<Vec<_>>())
}

/// Proportional memory of every monitor in KiB: the parents of the containers' first processes.
fn monitors(peer: &Peer) -> Result<Vec<f64>, String> {
    let ids = peer.ask(&["ps", "-q"])?;
    let ids: Vec<&str> = ids.lines().collect();
    let mut found = Vec::new();
    for some in ids.chunks(100) {
        let pids = peer.ask(&[&["inspect", "--format", "{{.State.Pid}}"], some].concat())?;
        for pid in pids.lines() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let parent = status
                .lines()
                .find_map(|line| line.strip_prefix("PPid:"))
                .unwrap_or_default()
                .trim()
                .to_owned();
            let rollup = fs::read_to_string(format!("/proc/{parent}/smaps_rollup")).unwrap_or_default();
            let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
            found.extend(pss.trim().trim_end_matches(" kB").parse::<f64>().ok());
        }
    }
    Ok(found)
}

fn remove_all(peer: &Peer) -> Result<f64, String> {
    let begin = Instant::now();
    let ids = peer.ask(&["ps", "-aq"])?;
    for some in ids.lines().collect::<Vec<_>>().chunks(100) {
        peer.ask(&[&["rm", "-f"], some].concat())?;
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// Start rates at the beginning and at the end, and the monitors' memory at the end.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<Value, String> {
    let count = options.containers.max(FIRST + LAST);
    let peer = Peer::stanza(workshop, "stanza-scale")?;
    let mut report = json!({});
    println!(
        "\n| {count} x run -d | starts/s at 10 | starts/s at {count} | ratio | all, s | monitor PSS median / most, KiB | rm -f all, s |\n|---|---|---|---|---|---|---|"
    );
    for (name, lanes) in [("one after the other", 1_u32), ("8 at once", 8)] {
        let times = start(&peer, "none", count, usize::try_from(lanes).unwrap_or(1))?;
        let memory = monitors(&peer)?;
        let removed = remove_all(&peer)?;
        let (early, late) = (rate(&times[..FIRST], lanes), rate(&times[count - LAST..], lanes));
        let most = memory.iter().copied().fold(0.0, f64::max);
        let total = times.last().map_or(0.0, |start| start.end);
        println!(
            "| {name} | {early:.1} | {late:.1} | {:.2} | {total:.1} | {:.0} / {most:.0} ({} seen) | {removed:.1} |",
            late / early,
            median(&memory),
            memory.len()
        );
        report[name] = json!({ "early": early, "late": late, "total_s": total, "pss_median_kib": median(&memory), "pss_most_kib": most, "rm_s": removed, "took_ms": times.iter().map(|start| start.took * 1000.0).collect::<Vec<_>>() });
    }
    Ok(report)
}
