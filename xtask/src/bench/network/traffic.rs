//! Throughput inside a room, and how long a connection to a published port takes.

use super::Options;
use super::report::{Goal, Report, Unit, Values};
use super::scene::{Engine, Kind, Samples, Scene, add, ask, medians, numbers, prepared, rotate};

/// The port of `wire serve` in containers.
pub(super) const PORT: &str = "7777";
/// The first published one.
pub(super) const FIRST: usize = 20_000;
/// How long one transfer lasts, in milliseconds.
pub(super) const TRANSFER: &str = "400";
/// Connections of one round.
const CONNECTIONS: &str = "300";
/// The many ports.
const MANY: usize = 1000;

/// Between the host and a container, both ways, and between two containers of the default bridge.
pub(super) fn throughput(
    scene: &Scene,
    engines: &[Engine],
    rounds: usize,
    report: &mut Report,
) -> Result<(), String> {
    let ready = prepared(engines, |engine| {
        engine.start("server", &[], &["wire", "serve", PORT])?;
        engine.start("client", &[], &["sleep", "100000"])
    });
    let (mut to, mut from, mut between) = (Samples::new(), Samples::new(), Samples::new());
    rotate(
        &ready,
        |engine| &engine.title,
        rounds,
        |engine| {
            let address = engine.address("server")?;
            let gigabits = |text: String| numbers(&text).into_iter().map(|bits| bits / 1e9);
            for (verb, samples) in [("send", &mut to), ("receive", &mut from)] {
                let text = engine.ask_room(&[&scene.wire, verb, &address, PORT, TRANSFER])?;
                add(samples, &engine.title, gigabits(text));
            }
            let text = engine.exec("client", &["wire", "send", &address, PORT, TRANSFER])?;
            add(&mut between, &engine.title, gigabits(text));
            Ok(())
        },
    );
    ready.iter().for_each(|engine| engine.remove(&["server", "client"]));
    let goal = Goal::OfGreatest(1.0);
    report.row("TCP, host to container", Unit::Gigabits, medians(&to), goal)?;
    report.row("TCP, container to host", Unit::Gigabits, medians(&from), goal)?;
    report.row("TCP, container to container", Unit::Gigabits, medians(&between), goal)
}

/// An engine whose container has so many ports published.
struct Published {
    engine: Engine,
    ports: usize,
}

fn publish(scene: &Scene, kind: Kind, ports: usize) -> Result<Published, String> {
    let engine = scene.engine(kind)?;
    let pairs: Vec<String> = (FIRST..FIRST + ports).map(|port| format!("{port}:{PORT}")).collect();
    let options: Vec<&str> = pairs.iter().flat_map(|pair| ["-p", pair]).collect();
    engine.start("server", &options, &["wire", "serve", PORT])?;
    Ok(Published { engine, ports })
}

/// The first byte through published ports, from outside: one of one, and each of a thousand.
pub(super) fn connect(scene: &Scene, options: &Options, report: &mut Report) -> Result<(), String> {
    let mut contenders = Vec::new();
    for kind in options.kinds.iter().filter(|kind| **kind == Kind::Stanza || options.with_peers) {
        for ports in [1, MANY] {
            match publish(scene, *kind, ports) {
                Ok(published) => contenders.push(published),
                Err(error) => println!("skipped: {}, {ports} ports: {error}", kind.name()),
            }
        }
    }
    let (mut one, mut many) = (Samples::new(), Samples::new());
    rotate(
        &contenders,
        |published| &published.engine.title,
        options.rounds,
        |published| {
            let (first, span) = (FIRST.to_string(), published.ports.to_string());
            let words = [&scene.wire, "connect", &published.engine.uplink.inner, &first, &span, CONNECTIONS];
            let times = numbers(&ask(&scene.outside, &words)?);
            let samples = if published.ports == 1 { &mut one } else { &mut many };
            add(samples, &published.engine.title, times.into_iter().map(|time| time / 1e3));
            Ok(())
        },
    );
    let (one, many) = (medians(&one), medians(&many));
    let ratio = quotient(&many, &one);
    report.row("connect and first byte, 1 published port", Unit::Microseconds, one, Goal::None)?;
    report.row("connect and first byte, 1,000 published ports", Unit::Microseconds, many, Goal::None)?;
    report.row("with 1,000 published ports is x of with 1", Unit::Ratio, ratio, Goal::Most(1.1))
}

/// One row divided by another.
pub(super) fn quotient(more: &Values, less: &Values) -> Values {
    let other =
        |name: &str| less.iter().find(|(known, _)| known == name).map_or(f64::NAN, |(_, value)| *value);
    more.iter().map(|(name, value)| (name.clone(), value / other(name))).collect()
}
