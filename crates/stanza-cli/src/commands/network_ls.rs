//! `stanza network ls`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs, filters};
use crate::arguments::{Given, command, list, switch, value};
use crate::door::{Door, Outcome};
use crate::format::listing;
use crate::output;
use crate::render::network;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network ls", "network list"],
    group: Group::Network,
    about: "List networks",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

const TABLE: &str = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";

fn build() -> Command {
    command(
        "network ls",
        "stanza network ls [OPTIONS]",
        ENTRY.about,
        "Example:\n  stanza network ls --filter driver=bridge --format '{{.Name}} {{.Subnets}}'",
    )
    .arg(list("filter", 'f', "NAME=VALUE", "Show only those that match"))
    .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
    .arg(switch("no-trunc", None, "Do not cut texts"))
    .arg(switch("noheading", 'n', "Leave the titles out"))
    .arg(switch("quiet", 'q', "Show ids only"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let entries = door.engine()?.networks(&filters(given)?)?;
    let truncate = !given.on("no-trunc");
    let rows: Vec<_> = entries.iter().map(|entry| network::row(entry, truncate)).collect();
    let format = given.text("format");
    let is_table =
        format.map(str::trim).is_none_or(|format| format.is_empty() || format.starts_with("table"));
    let text = if given.on("quiet") && format.is_none() {
        listing::render(Some("{{.ID}}"), "", network::TITLES, &rows)?
    } else {
        let text = listing::render(format, TABLE, network::TITLES, &rows)?;
        match text.split_once('\n') {
            Some((_, rest)) if is_table && given.on("noheading") => rest.to_owned(),
            _ => text,
        }
    };
    output::data(&text).map(|()| 0)
}
