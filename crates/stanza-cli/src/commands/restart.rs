//! `stanza restart`.

use clap::{ArgMatches, Command};
use stanza_engine::State;

use super::run::warn;
use super::{Entry, Faults, Group, Needs, for_each, stop};
use crate::arguments::{Given, command};
use crate::door::{Door, Outcome};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["restart", "container restart"],
    group: Group::Other,
    about: "Stop and start containers",
    needs: Needs::Monitor,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    stop::declare(command(
        "restart",
        "stanza restart [OPTIONS] CONTAINER [CONTAINER...]",
        ENTRY.about,
        "Example:\n  stanza restart web",
    ))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let (signal, timeout) = stop::read(given)?;
    let mut engine = door.engine()?;
    for_each(given.texts("CONTAINER"), |name| {
        let id = engine.find(name)?;
        if matches!(engine.inspect(&id)?.state, State::Running(_)) {
            engine.stop(&id, signal, timeout)?;
        }
        let (_, warnings) = engine.start(&id, door.monitor()?, false, None)?;
        warn(&warnings);
        output::line(name)
    })
}
