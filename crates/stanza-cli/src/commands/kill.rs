//! `stanza kill`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs, for_each};
use crate::arguments::{Given, command, value, words};
use crate::door::{Door, Outcome};
use crate::flags::namespaces::signal_number;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["kill", "container kill"],
    group: Group::Other,
    about: "Send a signal to running containers, SIGKILL by default",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "kill",
        "stanza kill [OPTIONS] CONTAINER [CONTAINER...]",
        ENTRY.about,
        "Example:\n  stanza kill -s HUP web",
    )
    .arg(value("signal", 's', "SIGNAL", "Signal to send (default KILL)"))
    .arg(words("CONTAINER"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let signal = signal_number("--signal", given.text("signal").unwrap_or("KILL"))?;
    let mut engine = door.engine()?;
    for_each(given.texts("CONTAINER"), |name| {
        let id = engine.find(name)?;
        engine.kill(&id, signal)?;
        output::line(name)
    })
}
