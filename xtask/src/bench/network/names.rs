//! How long a container waits for a neighbour's address, alone with it and beside a thousand names.

use super::report::{Goal, Report, Unit, Values};
use super::scene::{Engine, Samples, add, numbers, prepared, rotate};
use crate::bench::statistics::quantile;

/// Questions of one round.
const QUESTIONS: &str = "300";
/// The many names are aliases of these containers.
const CONTAINERS: usize = 10;
const ALIASES: usize = 100;

/// A network with as many names, and one container more that asks.
fn fill(engine: &Engine, network: &str, containers: usize, aliases: usize) -> Result<(), String> {
    engine.peer.ask(&["network", "create", network])?;
    for container in 0..containers {
        let names: Vec<String> =
            (0..aliases).map(|alias| format!("name{}", container * aliases + alias)).collect();
        let options = ["--network", network].into_iter();
        let options: Vec<&str> =
            options.chain(names.iter().flat_map(|name| ["--network-alias", name])).collect();
        engine.start(&format!("{network}-{container}"), &options, &["sleep", "100000"])?;
    }
    engine.start(&format!("{network}-asks"), &["--network", network], &["sleep", "100000"])
}

/// Two networks of each engine, asked in turns.
pub(super) fn run(engines: &[Engine], rounds: usize, report: &mut Report) -> Result<(), String> {
    let ready = prepared(engines, |engine| {
        fill(engine, "alone", 1, 1)?;
        fill(engine, "crowd", CONTAINERS, ALIASES)
    });
    let (mut alone, mut crowd) = (Samples::new(), Samples::new());
    rotate(
        &ready,
        |engine| &engine.title,
        rounds,
        |engine| {
            for (network, names, samples) in
                [("alone", 1, &mut alone), ("crowd", CONTAINERS * ALIASES, &mut crowd)]
            {
                let asks = format!("{network}-asks");
                let text = engine.exec(&asks, &["wire", "ask", "name", &names.to_string(), QUESTIONS])?;
                add(samples, &engine.title, numbers(&text).into_iter().map(|time| time / 1e3));
            }
            Ok(())
        },
    );
    for engine in engines {
        let all = engine.peer.ask(&["ps", "-aq"]).unwrap_or_default();
        engine.remove(&all.lines().collect::<Vec<_>>());
        let _ = engine.peer.ask(&["network", "rm", "alone", "crowd"]);
    }
    let values = |samples: &Samples, share: f64| -> Values {
        samples.iter().map(|(name, times)| (name.clone(), quantile(times, share))).collect()
    };
    let mut told = Vec::new();
    for (samples, where_) in [(&alone, "one neighbour"), (&crowd, "1,000 names")] {
        for (share, word) in [(0.5, "p50"), (0.99, "p99")] {
            let work = format!("DNS answer for a neighbour, {where_}, {word}");
            told.push(report.row(&work, Unit::Microseconds, values(samples, share), Goal::OfLeast(0.5)));
        }
    }
    told.into_iter().collect()
}
