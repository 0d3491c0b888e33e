//! `stanza image diff`.

use clap::{ArgMatches, Command};
use stanza_engine::{Change, ChangeKind};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, value, word};
use crate::door::{Door, Outcome};
use crate::format::listing::{self, Row};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image diff"],
    group: Group::Image,
    about: "Show what the files of one image have that another's have not",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "image diff",
        "stanza image diff [OPTIONS] BEFORE AFTER",
        ENTRY.about,
        "Example:\n  stanza image diff busybox:1.36 busybox:1.37\n\nA is added, C changed, D deleted.",
    )
    .arg(value("format", None, "FORMAT", "`json`, or a Go template"))
    .arg(word("BEFORE"))
    .arg(word("AFTER"))
}

/// The letter of a change.
pub(super) fn letter(change: &Change) -> &'static str {
    match change.kind {
        ChangeKind::Added => "A",
        ChangeKind::Modified => "C",
        ChangeKind::Deleted => "D",
    }
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let name = |word| given.text(word).unwrap_or_default();
    let changes = door.engine()?.image_diff(name("BEFORE"), name("AFTER"))?;
    let rows: Vec<Row> = changes
        .iter()
        .map(|change| {
            let path = change.path.to_string_lossy();
            Row::default().with("Kind", letter(change)).with("Path", path.as_ref())
        })
        .collect();
    let format = given.text("format").unwrap_or("{{.Kind}} {{.Path}}");
    output::data(&listing::render(Some(format), "", &[("Kind", "KIND"), ("Path", "PATH")], &rows)?)
        .map(|()| 0)
}
