//! `stanza network reload`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, optional_words, switch};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network reload"],
    group: Group::Network,
    about: "Make bridges, devices and rules of running containers again",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network reload",
        "stanza network reload [OPTIONS] [CONTAINER...]",
        ENTRY.about,
        "Example:\n  nft flush ruleset; stanza network reload --all",
    )
    .arg(switch("all", 'a', "Those of all running containers"))
    .arg(optional_words("CONTAINER").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let (all, names) = (given.on("all"), given.texts("CONTAINER").collect::<Vec<_>>());
    match (all, names.is_empty()) {
        (true, false) => return Err(Failure::usage("`--all` and names of containers exclude each other")),
        (false, true) => {
            return Err(Failure::usage("`network reload` needs a word CONTAINER")
                .with_hint("`--all` reloads the networks of all running containers"));
        }
        _ => {}
    }
    let mut engine = door.engine()?;
    let mut containers = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match engine.find(name) {
            Ok(id) => containers.push(id),
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    let (done, errors) = engine.reload_networks(&containers, all)?;
    for id in done {
        output::line(id.as_str())?;
    }
    failures.extend(errors.into_iter().map(Failure::from));
    failures.iter().for_each(output::failure);
    Ok(u8::from(!failures.is_empty()))
}
