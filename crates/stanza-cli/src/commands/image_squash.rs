//! `stanza image squash`.

use clap::{ArgMatches, Command};
use stanza_engine::CommitRequest;

use super::commit::{compression, read_compression};
use super::tag::reference;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, value, word};
use crate::door::{Door, Outcome};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image squash"],
    group: Group::Image,
    about: "Make one layer of an image's layers",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "image squash",
        "stanza image squash [OPTIONS] IMAGE",
        ENTRY.about,
        "Example:\n  stanza image squash -t my/web:flat my/web:2\n\nThe image itself stays as it is.",
    )
    .arg(compression())
    .arg(value(
        "from",
        None,
        "LAYER",
        "The lowest layer to squash, by the beginning of its digest (default all)",
    ))
    .arg(value("message", 'm', "TEXT", "Set the comment in the history"))
    .arg(value("tag", 't', "NAME[:TAG]", "Give the new image a name"))
    .arg(word("IMAGE"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let request = CommitRequest {
        name: given.text("tag").map(reference).transpose()?,
        message: given.text("message").unwrap_or_default().to_owned(),
        compression: read_compression(given)?,
        ..CommitRequest::default()
    };
    let (image, warnings) =
        door.engine()?.squash(given.text("IMAGE").unwrap_or_default(), given.text("from"), &request)?;
    for warning in &warnings {
        output::warning(warning);
    }
    output::line(image.id.as_str()).map(|()| 0)
}
