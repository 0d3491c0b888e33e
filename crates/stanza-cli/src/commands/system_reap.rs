//! `stanza system reap`: what the monitor of a detached `--rm` container turns itself into at its end.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["system reap"],
    group: Group::Hidden,
    about: "Record the end of a container, and remove it when it was asked to be",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command("system reap", "stanza system reap ID", ENTRY.about, "").arg(word("ID"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let text = given.text("ID").unwrap_or_default();
    let id = text.parse().map_err(|error: stanza_spec::IdError| Failure::usage(error.to_string()))?;
    door.engine()?.reap(&id)?;
    Ok(0)
}
