//! `stanza image tags`.

use clap::{ArgMatches, Command};
use stanza_engine::{Connections, Remote};

use super::tag::remote_reference;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::format::listing::{self, Row};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image tags"],
    group: Group::Image,
    about: "List the tags that a registry has of a repository",
    needs: Needs::Nothing,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "image tags",
        "stanza image tags [OPTIONS] REPOSITORY",
        ENTRY.about,
        "Example:\n  stanza image tags --limit 10 busybox",
    )
    .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
    .arg(value("limit", None, "N", "Show no more than this many"))
    .arg(switch("tls-verify", None, "Ask for HTTPS with a known certificate (default true but on loopback)"))
    .arg(word("REPOSITORY"))
}

const TITLES: &[(&str, &str)] = &[("Repository", "REPOSITORY"), ("Tag", "TAG")];

fn run(_: &mut Door, given: &ArgMatches) -> Outcome {
    let name = remote_reference(given.text("REPOSITORY").unwrap_or_default())?;
    let limit = match given.text("limit") {
        None => None,
        Some(text) => Some(text.parse::<usize>().ok().filter(|limit| *limit > 0).ok_or_else(|| {
            Failure::usage(format!("`{text}` is not a limit: expected a number from 1 on"))
        })?),
    };
    let connections = Connections::load()?;
    let remote = Remote::new(&name, given.choice("tls-verify").unwrap_or(true), &connections)?;
    let tags = remote.tags(limit)?;
    let text = match given.text("format") {
        // One a line, as scripts want them.
        None => tags.iter().map(|tag| format!("{tag}\n")).collect(),
        format => {
            let rows: Vec<Row> = tags
                .iter()
                .map(|tag| {
                    Row::default().with("Repository", name.familiar_repository()).with("Tag", tag.as_str())
                })
                .collect();
            listing::render(format, "{{.Repository}}\t{{.Tag}}", TITLES, &rows)?
        }
    };
    output::data(&text).map(|()| 0)
}
