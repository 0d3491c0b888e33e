//! What a virtual machine costs here: processor seconds of the whole tree and wall time, medians.
//!
//! `cargo run --release -p stanza-vmm --example measure -- PACKAGE.deb [RUNS]` unpacks the kernel package into a new store and
//! measures, interleaved: a cold boot up to the agent; a template gone on from, up to an answer; the same with a disk that is
//! found and mounted. This executable is the guest's first process as well.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    dead_code,
    reason = "a measurement, with the tests' machines"
)]

#[path = "../tests/guest/mod.rs"]
mod guest;
#[path = "../tests/machine/mod.rs"]
mod machine;

use std::path::Path;
use std::time::{Duration, Instant};

use machine::{LIMIT, Machine, Room, disk};
use stanza_vmm::Memory;

/// One run: processor time and wall time.
type Cost = (Duration, Duration);

fn main() {
    if guest::is_guest() {
        guest::serve();
    }
    let words: Vec<String> = std::env::args().collect();
    let package = words.get(1).expect("a kernel package");
    let runs = words.get(2).map_or(7, |word| word.parse().expect("a number of runs"));
    // Where `TMPDIR` is: on a disk or in memory.
    let directory = tempfile::tempdir().unwrap();
    let room = Room::install(directory.path(), Path::new(package));
    let begin = Instant::now();
    let template = room.template();
    println!("{}: template made in {:.2} s", room.version, begin.elapsed().as_secs_f64());
    let root = disk(&room, "content");
    let restored = |disks| {
        let mut spec = room.spec();
        spec.memory = Memory::Template(template.ram.clone());
        spec.restore = true;
        spec.disks = disks;
        let mut machine = room.start(spec, false);
        template.restore(&mut machine.qmp, LIMIT).unwrap();
        machine
    };
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for _ in 0..runs {
        costs[0].push(cost(|| room.start(room.spec(), true), "ping", "pong"));
        costs[1].push(cost(|| restored(Vec::new()), "ping", "pong"));
        costs[2].push(cost(|| restored(vec![root.clone()]), "disk", "content"));
    }
    for (name, costs) in
        ["cold boot", "from the template", "from the template, a disk"].iter().zip(&mut costs)
    {
        let median = |pick: fn(&Cost) -> Duration, costs: &[Cost]| {
            let mut values: Vec<Duration> = costs.iter().map(pick).collect();
            values.sort();
            values[values.len() / 2].as_secs_f64()
        };
        let (cpu, wall) = (median(|cost| cost.0, costs), median(|cost| cost.1, costs));
        println!("{name}: {cpu:.3} CPU-s, {wall:.3} s to the answer");
    }
}

fn cost(start: impl FnOnce() -> Machine, question: &str, answer: &str) -> Cost {
    let (before, begin) = (children(), Instant::now());
    let mut machine = start();
    assert_eq!(machine.ask(question), answer);
    let wall = begin.elapsed();
    machine.qmp.quit(LIMIT).unwrap();
    machine.wait();
    (children() - before, wall)
}

/// Processor time of all children that were waited for: cutime and cstime of proc_pid_stat(5), hundredths of a second.
fn children() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[13..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
