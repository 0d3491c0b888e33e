//! `stanza tag`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["tag", "image tag"],
    group: Group::Image,
    about: "Give an image one more name",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "tag",
        "stanza tag IMAGE NAME[:TAG]",
        ENTRY.about,
        "Example:\n  stanza tag busybox localhost:5000/box:1",
    )
    .arg(word("IMAGE"))
    .arg(word("NAME"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let name = reference(given.text("NAME").unwrap_or_default())?;
    door.engine()?.tag(given.text("IMAGE").unwrap_or_default(), &name)?;
    Ok(0)
}

/// An image reference from the command line.
pub(super) fn reference(text: &str) -> Result<stanza_spec::Reference, Failure> {
    text.parse().map_err(|error: stanza_spec::ReferenceError| {
        Failure::usage(error.to_string()).with_hint("a reference is `[REGISTRY/]NAME[:TAG][@DIGEST]`")
    })
}

/// An image reference from the command line that only a registry is asked about: a short name may be an alias.
pub(super) fn remote_reference(text: &str) -> Result<stanza_spec::Reference, Failure> {
    let alias = stanza_image::expand_alias(text)?;
    reference(alias.as_deref().unwrap_or(text))
}
