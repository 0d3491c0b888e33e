//! `stanza diff`.

use clap::{ArgMatches, Command};

use super::image_diff::letter;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, word};
use crate::door::{Door, Outcome};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["diff", "container diff"],
    group: Group::Other,
    about: "Show what a container changed in its files",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "diff",
        "stanza diff CONTAINER",
        ENTRY.about,
        "Example:\n  stanza diff web\n\nA is added, C changed, D deleted.",
    )
    .arg(word("CONTAINER"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    let id = engine.find(given.text("CONTAINER").unwrap_or_default())?;
    let mut text = String::new();
    for change in engine.changes(&id)? {
        text.push_str(letter(&change));
        text.push(' ');
        text.push_str(&change.path.to_string_lossy());
        text.push('\n');
    }
    output::data(&text).map(|()| 0)
}
