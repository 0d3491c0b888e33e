//! `stanza network exists`.

use clap::{ArgMatches, Command};
use stanza_spec::ErrorKind;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network exists"],
    group: Group::Network,
    about: "Tell by the exit code whether there is such a network",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network exists",
        "stanza network exists NETWORK",
        ENTRY.about,
        "Example:\n  stanza network exists lan || stanza network create lan",
    )
    .arg(word("NETWORK").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    match door.engine()?.network(given.text("NETWORK").unwrap_or_default()).map_err(Failure::from) {
        Ok(_) => Ok(0),
        Err(failure) if failure.kind() == ErrorKind::NotFound => Ok(1),
        Err(failure) => Err(failure),
    }
}
