//! `stanza help`.

use std::ffi::OsString;

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs, find};
use crate::arguments::{Given, command, help_text, words};
use crate::door::{Door, Outcome};
use crate::{help, output};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["help"],
    group: Group::Hidden,
    about: "Show what commands there are, or what one takes",
    needs: Needs::Nothing,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command("help", "stanza help [COMMAND]", ENTRY.about, "Example:\n  stanza help run")
        .arg(words("COMMAND").required(false))
}

fn run(_door: &mut Door, given: &ArgMatches) -> Outcome {
    let words: Vec<OsString> = given.texts("COMMAND").map(OsString::from).collect();
    if words.is_empty() {
        return output::data(&help::overview()).map(|()| 0);
    }
    let (entry, _) = find(&words)?;
    output::data(&help_text(&(entry.build)())).map(|()| 0)
}
