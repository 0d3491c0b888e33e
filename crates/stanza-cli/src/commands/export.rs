//! `stanza export`.

use std::error::Error as _;
use std::io;

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output_file::OutputFile;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["export", "container export"],
    group: Group::Other,
    about: "Write a container's files as a tar archive",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "export",
        "stanza export [OPTIONS] CONTAINER",
        ENTRY.about,
        "Example:\n  stanza export -o web.tar web\n\nVolumes are not in it. `stanza import` makes an image of it.",
    )
    .arg(value("output", 'o', "FILE", "Write to a file, not to standard output"))
    .arg(word("CONTAINER"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let output = OutputFile::open(given.text("output"), "export")?;
    let mut engine = door.engine()?;
    let id = engine.find(given.text("CONTAINER").unwrap_or_default())?;
    match engine.export(&id, output.file()) {
        Err(error) if is_closed(error.source()) => Err(Failure::closed_output()),
        result => {
            result?;
            output.finish().map(|()| 0)
        }
    }
}

/// Whether nobody reads what is written.
fn is_closed(cause: Option<&(dyn std::error::Error + 'static)>) -> bool {
    cause
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
