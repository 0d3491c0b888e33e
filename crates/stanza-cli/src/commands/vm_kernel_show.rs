//! `stanza vm kernel show`.

use clap::{ArgMatches, Command};
use stanza_spec::ErrorKind;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::command;
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["vm kernel show"],
    group: Group::System,
    about: "Show the kernel that guests of virtual machines get",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command("vm kernel show", "stanza vm kernel show", ENTRY.about, "Example:\n  stanza vm kernel show")
}

fn run(door: &mut Door, _given: &ArgMatches) -> Outcome {
    match door.engine()?.guest_kernel()? {
        Some(kernel) => output::line(&format!("{}  {}", kernel.version, kernel.image.display())).map(|()| 0),
        None => Err(Failure::new(ErrorKind::NotFound, "there is no kernel for virtual machines")
            .with_hint("`stanza vm kernel install` gets one")),
    }
}
