//! `stanza network graph`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::render::network_graph;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network graph"],
    group: Group::Network,
    about: "Draw networks, containers and ports",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network graph",
        "stanza network graph [OPTIONS]",
        ENTRY.about,
        "Example:\n  stanza network graph --format svg > networks.svg",
    )
    .arg(value("format", None, "FORMAT", "`text` (default), `dot` or `svg`"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let draw = match given.text("format") {
        None | Some("" | "text") => network_graph::text,
        Some("dot") => network_graph::dot,
        Some("svg") => network_graph::svg,
        Some(other) => {
            let text = format!("option `--format`: `{other}` is none of `text`, `dot` and `svg`");
            return Err(Failure::usage(text));
        }
    };
    let graph = door.engine()?.network_graph()?;
    output::data(&draw(&graph)).map(|()| 0)
}
