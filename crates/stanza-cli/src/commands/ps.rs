//! `stanza ps`.

use clap::{ArgMatches, Command};
use stanza_engine::ListQuery;
use stanza_spec::Instant;

use super::{Entry, Faults, Group, Needs, filters};
use crate::arguments::{Given, command, list, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::format::listing;
use crate::format::template::Template;
use crate::output;
use crate::render::container;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["ps", "container ls", "container ps", "container list"],
    group: Group::Common,
    about: "List containers",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

fn build() -> Command {
    command(
        "ps",
        "stanza ps [OPTIONS]",
        ENTRY.about,
        "Example:\n  stanza ps -a --filter status=exited --format '{{.Names}}'",
    )
    .arg(switch("all", 'a', "Show containers that do not run too"))
    .arg(list("filter", 'f', "NAME=VALUE", "Show only those that match"))
    .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
    .arg(value("last", 'n', "COUNT", "Show the last created ones"))
    .arg(switch("latest", 'l', "Show the last created one"))
    .arg(switch("no-trunc", None, "Do not cut texts"))
    .arg(switch("quiet", 'q', "Show ids only"))
    .arg(switch("size", 's', "Show sizes"))
}

/// Whether a template shows sizes, which cost a walk over all files.
fn uses_size(format: &str) -> bool {
    let source = format.strip_prefix("table").unwrap_or(format);
    Template::parse(source).is_ok_and(|template| template.uses("Size"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let last = match given.text("last") {
        None | Some("-1") => None,
        Some(text) => Some(text.parse::<usize>().map_err(|_| {
            Failure::usage(format!("option `--last`: `{text}` is not a number of containers"))
        })?),
    };
    let format = given.text("format");
    let quiet = given.on("quiet");
    let truncate = !given.on("no-trunc");
    // A template that shows sizes asks for them.
    let size = given.on("size") || (!quiet && format.is_some_and(uses_size));
    let query =
        ListQuery { all: given.on("all"), latest: given.on("latest"), last, filters: filters(given)?, size };
    let containers = door.engine()?.list(&query)?;
    let now = Instant::now();
    let rows: Vec<_> = containers.iter().map(|one| container::row(one, truncate, now)).collect();
    let text = if quiet && format.is_none() {
        listing::render(Some("{{.ID}}"), "", container::TITLES, &rows)?
    } else {
        let table = if given.on("size") { format!("{TABLE}\t{{{{.Size}}}}") } else { TABLE.to_owned() };
        listing::render(format, &table, container::TITLES, &rows)?
    };
    output::data(&text).map(|()| 0)
}
