//! `stanza network disconnect`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, word};
use crate::door::{Door, Outcome};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network disconnect"],
    group: Group::Network,
    about: "Take a container, running or not, out of a network",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network disconnect",
        "stanza network disconnect [OPTIONS] NETWORK CONTAINER",
        ENTRY.about,
        "Example:\n  stanza network disconnect lan web",
    )
    .arg(switch("force", 'f', "Also when the container does not answer"))
    .arg(word("NETWORK").hide(true))
    .arg(word("CONTAINER").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    let container = engine.find(given.text("CONTAINER").unwrap_or_default())?;
    engine.disconnect_network(given.text("NETWORK").unwrap_or_default(), &container, given.on("force"))?;
    Ok(0)
}
