//! `stanza network inspect`.

use clap::{ArgMatches, Command};

use super::inspect::show;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{command, switch, value, words};
use crate::door::{Door, Outcome};
use crate::render::network;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network inspect"],
    group: Group::Network,
    about: "Show all that is known of networks: addresses, containers, ports, peers",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network inspect",
        "stanza network inspect [OPTIONS] NETWORK [NETWORK...]",
        ENTRY.about,
        "Example:\n  stanza network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{println}}{{end}}' lan",
    )
    .arg(value("format", 'f', "FORMAT", "`json` or a Go template"))
    // What Docker adds for swarms.
    .arg(switch("verbose", 'v', "Accepted: all is shown anyway"))
    .arg(words("NAME").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    show(given, |name| Ok(network::inspect(&engine.network(name)?)))
}
