//! `stanza network prune`.

use clap::{ArgMatches, Command};

use super::system_prune::confirm;
use super::{Entry, Faults, Group, Needs, filters};
use crate::arguments::{command, list, switch};
use crate::door::{Door, Outcome};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network prune"],
    group: Group::Network,
    about: "Remove networks that no container is in",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network prune",
        "stanza network prune [OPTIONS]",
        ENTRY.about,
        "Example:\n  stanza network prune -f --filter until=24h",
    )
    .arg(list(
        "filter",
        None,
        "NAME=VALUE",
        "Remove only those that match: `until=TIME`, `label=…`, `label!=…`",
    ))
    .arg(switch("force", 'f', "Do not ask"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let filters = filters(given)?;
    if !confirm(given, "This will remove all custom networks not used by at least one container.")? {
        return Ok(0);
    }
    let removed = door.engine()?.prune_networks(&filters)?;
    if removed.is_empty() {
        return Ok(0);
    }
    output::data(&format!("Deleted Networks:\n{}\n\n", removed.join("\n"))).map(|()| 0)
}
