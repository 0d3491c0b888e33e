//! From the end of a container's process to the end of its network device, and to that of `run --rm`, which waits until all is removed.

use super::report::{Goal, Report, Unit};
use super::scene::{Engine, Samples, Scene, add, medians, numbers, rotate};
use super::starts::difference;
use crate::bench::peers::IMAGE;

/// What the container sleeps, so that its process is found: no other has this argument.
const MARK: &str = "98765";

/// One end; nanoseconds to that of the command and to that of the device.
fn end(scene: &Scene, engine: &Engine, network: &[&str]) -> Result<(f64, f64), String> {
    let run = engine.peer.run(&[&["--rm"], network, &[IMAGE, "sleep", MARK]].concat());
    let command = engine.peer.command(&run.iter().map(String::as_str).collect::<Vec<_>>());
    let links = if network.is_empty() { "1" } else { "0" };
    let words =
        [scene.wire.as_str(), "end", links, MARK].into_iter().chain(command.iter().map(String::as_str));
    match numbers(&engine.ask_room(&words.collect::<Vec<_>>())?)[..] {
        [whole, link] => Ok((whole / 1e6, link / 1e6)),
        _ => Err("the end was not measured".to_owned()),
    }
}

/// With the default bridge and with no network, in turns.
pub(super) fn run(
    scene: &Scene,
    engines: &[Engine],
    rounds: usize,
    report: &mut Report,
) -> Result<(), String> {
    let (mut bridge, mut none, mut link) = (Samples::new(), Samples::new(), Samples::new());
    rotate(
        engines,
        |engine| &engine.title,
        rounds,
        |engine| {
            let (whole, gone) = end(scene, engine, &[])?;
            add(&mut bridge, &engine.title, [whole]);
            add(&mut link, &engine.title, [gone]);
            add(&mut none, &engine.title, [end(scene, engine, &["--network", "none"])?.0]);
            Ok(())
        },
    );
    let (bridge, none) = (medians(&bridge), medians(&none));
    let added = difference(&bridge, &none);
    report.row("from the exit to the device's end", Unit::Milliseconds, medians(&link), Goal::None)?;
    report.row(
        "from the exit to the end of `run --rm`, `--network none`",
        Unit::Milliseconds,
        none,
        Goal::None,
    )?;
    report.row(
        "from the exit to the end of `run --rm`, default bridge",
        Unit::Milliseconds,
        bridge,
        Goal::None,
    )?;
    report.row("added by the network's teardown", Unit::Milliseconds, added, Goal::Most(5.0))
}
