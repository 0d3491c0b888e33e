//! `stanza rename`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, word};
use crate::door::{Door, Outcome};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["rename", "container rename"],
    group: Group::Other,
    about: "Give a container another name",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command("rename", "stanza rename CONTAINER NAME", ENTRY.about, "Example:\n  stanza rename web old-web")
        .arg(word("CONTAINER"))
        .arg(word("NAME"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    let id = engine.find(given.text("CONTAINER").unwrap_or_default())?;
    engine.rename(&id, given.text("NAME").unwrap_or_default())?;
    Ok(0)
}
