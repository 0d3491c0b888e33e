//! The start of the thousandth container on one network beside that of the tenth.

use super::Options;
use super::report::{Goal, Report, Unit, Values};
use super::scene::{Engine, Kind, Scene};
use super::traffic::quotient;
use crate::bench::scale;
use crate::bench::statistics::median;

/// The medians of the first starts and of the last, in milliseconds.
fn start(engine: &Engine, containers: usize) -> Result<(f64, f64), String> {
    let subnet = ["network", "create", "--subnet", "10.214.0.0/20", "many"];
    let network = match engine.peer.ask(&subnet) {
        Ok(_) => "many",
        Err(error) => {
            println!("note: {}: the default network in place of one made: {error}", engine.title);
            "bridge"
        }
    };
    let starts = scale::start(&engine.peer, network, containers, 1)?;
    let of =
        |starts: &[scale::Start]| median(&starts.iter().map(|start| start.took * 1000.0).collect::<Vec<_>>());
    let first = &starts[..scale::FIRST.min(starts.len())];
    Ok((of(first), of(&starts[starts.len().saturating_sub(scale::LAST)..])))
}

/// Stanza alone, unless the others are asked for: they take minutes.
pub(super) fn run(scene: &Scene, options: &Options, report: &mut Report) -> Result<(), String> {
    let (mut early, mut late) = (Values::new(), Values::new());
    for kind in options.kinds.iter().filter(|kind| **kind == Kind::Stanza || options.with_peers) {
        let engine = scene.engine(*kind)?;
        match start(&engine, options.containers) {
            Ok((first, last)) => {
                early.push((engine.title.clone(), first));
                late.push((engine.title.clone(), last));
            }
            Err(error) => println!("skipped: {}: {error}", engine.title),
        }
    }
    let ratio = quotient(&late, &early);
    report.row("`run -d`, the 10th container of a network", Unit::Milliseconds, early, Goal::None)?;
    report.row("`run -d`, the last of 1,000", Unit::Milliseconds, late, Goal::None)?;
    report.row("the last is x of the 10th", Unit::Ratio, ratio, Goal::Most(1.2))
}
