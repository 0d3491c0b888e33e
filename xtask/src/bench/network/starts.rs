//! What the default bridge, one port and a hundred add to `run --rm true`.

use super::report::{Goal, Report, Unit, Values};
use super::scene::{Engine, Scene};
use crate::bench::commands::{Contender, compete};
use crate::bench::peers::IMAGE;
use crate::bench::statistics::{Row, median};

/// A way to run the container: its name and its options.
type Way = (&'static str, &'static [&'static str]);

const NONE: Way = ("--network none", &["--network", "none"]);
const BRIDGE: Way = ("default bridge", &[]);
const ONE: Way = ("-p, one port", &["-p", "8000:80"]);
const HUNDRED: Way = ("-p, 100 ports", &["-p", "8000-8099:8000-8099"]);

/// Times every way of every engine, all in turns.
fn measure(scene: &Scene, engines: &[Engine], ways: &[Way], rounds: usize) -> Vec<Row> {
    let contenders = engines.iter().flat_map(|engine| {
        ways.iter().map(|(way, options)| {
            let words = engine.peer.run(&[&["--rm"], *options, &[IMAGE, "true"]].concat());
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Contender {
                name: format!("{} {way}", engine.title),
                enter: engine.peer.enter.clone(),
                words: engine.peer.command(&words),
                fresh: None,
            }
        })
    });
    compete(&scene.workshop, contenders.collect(), rounds)
}

/// The medians of one way.
fn of(rows: &[Row], engines: &[Engine], way: Way) -> Values {
    let value = |engine: &Engine| {
        let name = format!("{} {}", engine.title, way.0);
        let row = rows.iter().find(|row| row.name == name);
        (engine.title.clone(), row.map_or(f64::NAN, |row| median(&row.wall())))
    };
    engines.iter().map(value).collect()
}

/// What one way takes more than another.
pub(super) fn difference(more: &Values, less: &Values) -> Values {
    let other =
        |name: &str| less.iter().find(|(known, _)| known == name).map_or(f64::NAN, |(_, value)| *value);
    more.iter().map(|(name, value)| (name.clone(), value - other(name))).collect()
}

/// The default bridge.
pub(super) fn added(
    scene: &Scene,
    engines: &[Engine],
    rounds: usize,
    report: &mut Report,
) -> Result<(), String> {
    let rows = measure(scene, engines, &[NONE, BRIDGE], rounds);
    let (none, bridge) = (of(&rows, engines, NONE), of(&rows, engines, BRIDGE));
    let added = difference(&bridge, &none);
    report.row("`run --rm --network none IMG true`", Unit::Milliseconds, none, Goal::None)?;
    report.row("`run --rm IMG true`, default bridge", Unit::Milliseconds, bridge, Goal::None)?;
    report.row("added by the default bridge", Unit::Milliseconds, added, Goal::Most(4.0))
}

/// One published port and a hundred, each beside a run without.
pub(super) fn ports(
    scene: &Scene,
    engines: &[Engine],
    rounds: usize,
    report: &mut Report,
) -> Result<(), String> {
    for (way, rounds, work, most) in [
        (ONE, rounds, "added by one published port", 0.5),
        (HUNDRED, rounds.div_ceil(3), "added by 100 published ports", 3.0),
    ] {
        let mut rows = measure(scene, engines, &[BRIDGE, way], rounds);
        if way.0 == HUNDRED.0 {
            // Those that take milliseconds need more rounds than those that take seconds.
            let quick: Vec<Row> =
                measure(scene, &engines[..engines.len().min(1)], &[BRIDGE, way], rounds * 2);
            for row in &mut rows {
                let more = quick.iter().find(|more| more.name == row.name);
                row.samples.extend(more.into_iter().flat_map(|more| more.samples.iter().copied()));
            }
        }
        let added = difference(&of(&rows, engines, way), &of(&rows, engines, BRIDGE));
        report.row(work, Unit::Milliseconds, added, Goal::Most(most))?;
    }
    Ok(())
}
