//! `stanza vm kernel install`.

use clap::{ArgMatches, Command};
use std::path::Path;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, optional_word};
use crate::door::{Door, Outcome};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["vm kernel install"],
    group: Group::System,
    about: "Get a kernel for the guests of virtual machines",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "vm kernel install",
        "stanza vm kernel install [PACKAGE]",
        ENTRY.about,
        "PACKAGE is the file of a Debian kernel package; without one, apt fetches Debian's newest kernel for virtual \
         machines. It is unpacked into stanza's own directory: nothing is installed on this machine.\n\nExample:\n  \
         stanza vm kernel install ./linux-image-6.12.117+deb12-cloud-amd64_6.12.117-1_amd64.deb",
    )
    .arg(optional_word("PACKAGE"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let installed = door.engine()?.install_guest_kernel(given.text("PACKAGE").map(Path::new))?;
    output::line(&installed.version).map(|()| 0)
}
