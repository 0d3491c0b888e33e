//! `stanza wait`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs, for_each};
use crate::arguments::{Given, command, words};
use crate::door::{Door, Outcome};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["wait", "container wait"],
    group: Group::Other,
    about: "Wait until containers end, and print their exit codes",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command("wait", "stanza wait CONTAINER [CONTAINER...]", ENTRY.about, "Example:\n  stanza wait job")
        .arg(words("CONTAINER"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    for_each(given.texts("CONTAINER"), |name| {
        let id = engine.find(name)?;
        let record = engine.wait(&id)?;
        output::line(&record.code.to_string())
    })
}
