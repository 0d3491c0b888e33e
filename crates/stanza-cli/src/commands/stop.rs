//! `stanza stop`.

use clap::{ArgMatches, Command};

use super::container_options::seconds;
use super::{Entry, Faults, Group, Needs, for_each};
use crate::arguments::{Given, command, value, words};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::flags::namespaces::signal_number;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["stop", "container stop"],
    group: Group::Common,
    about: "Stop running containers",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    declare(command(
        "stop",
        "stanza stop [OPTIONS] CONTAINER [CONTAINER...]",
        ENTRY.about,
        "Example:\n  stanza stop -t 30 web",
    ))
}

/// The options that `stop` and `restart` share.
pub(super) fn declare(command: Command) -> Command {
    command
        .arg(value("signal", 's', "SIGNAL", "Signal to send in place of the container's"))
        .arg(
            value("timeout", 't', "SECONDS", "Time to stop before it is killed; -1 waits for ever")
                .alias("time"),
        )
        .arg(words("CONTAINER"))
}

/// What they say.
pub(super) fn read(given: &ArgMatches) -> Result<(Option<i32>, Option<i64>), Failure> {
    let signal = given.text("signal").map(|text| signal_number("--signal", text)).transpose()?;
    let timeout = given.text("timeout").map(|text| seconds("--timeout", text)).transpose()?;
    Ok((signal, timeout))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let (signal, timeout) = read(given)?;
    let mut engine = door.engine()?;
    for_each(given.texts("CONTAINER"), |name| {
        let id = engine.find(name)?;
        engine.stop(&id, signal, timeout)?;
        output::line(name)
    })
}
