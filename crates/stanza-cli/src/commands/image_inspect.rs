//! `stanza image inspect`.

use clap::{ArgMatches, Command};

use super::inspect::{inspect_image, show};
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{command, value, words};
use crate::door::{Door, Outcome};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image inspect"],
    group: Group::Image,
    about: "Show all that is known of images",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "image inspect",
        "stanza image inspect [OPTIONS] IMAGE [IMAGE...]",
        ENTRY.about,
        "Example:\n  stanza image inspect -f '{{.Config.Env}}' busybox",
    )
    .arg(value("format", 'f', "FORMAT", "`json` or a Go template"))
    .arg(words("NAME").value_name("IMAGE"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    show(given, |name| inspect_image(&mut engine, name))
}
