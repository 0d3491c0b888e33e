//! `stanza rm`.

use clap::{ArgMatches, Command};
use stanza_spec::ErrorKind;

use super::{Entry, Faults, Group, Needs, for_each};
use crate::arguments::{Given, command, switch, words};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["rm", "container rm", "container remove"],
    group: Group::Common,
    about: "Remove containers",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command("rm", "stanza rm [OPTIONS] CONTAINER [CONTAINER...]", ENTRY.about, "Example:\n  stanza rm -f web")
        .arg(switch("force", 'f', "Kill a running container first; a missing one is no failure"))
        .arg(switch("volumes", 'v', "Remove anonymous volumes of the container too"))
        .arg(words("CONTAINER"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let (force, volumes) = (given.on("force"), given.on("volumes"));
    let mut engine = door.engine()?;
    engine.clear_interrupted();
    for_each(given.texts("CONTAINER"), |name| {
        let removed = match engine.find(name) {
            Ok(id) => engine.remove(&id, force, volumes).map_err(Failure::from),
            Err(error) => Err(error.into()),
        };
        match removed {
            // As in Docker: told, but with exit code 0.
            Err(failure) if force && failure.kind() == ErrorKind::NotFound => {
                output::failure(&failure);
                Ok(())
            }
            Err(failure) => Err(failure),
            Ok(()) => output::line(name),
        }
    })
}
