//! `stanza rmi`.

use clap::{ArgMatches, Command};
use stanza_spec::ErrorKind;

use super::{Entry, Faults, Group, Needs, for_each};
use crate::arguments::{Given, command, switch, words};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["rmi", "image rm", "image remove"],
    group: Group::Image,
    about: "Remove images, or names of images",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "rmi",
        "stanza rmi [OPTIONS] IMAGE [IMAGE...]",
        ENTRY.about,
        "Example:\n  stanza rmi busybox:1.36",
    )
    .arg(switch("force", 'f', "Remove an image that has several names or stopped containers"))
    // An image has no parents here that could be deleted with it.
    .arg(switch("no-prune", None, "Do not delete untagged parents"))
    .arg(words("IMAGE"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let force = given.on("force");
    let mut engine = door.engine()?;
    for_each(given.texts("IMAGE"), |name| match engine.remove_image(name, force).map_err(Failure::from) {
        Err(failure) if force && failure.kind() == ErrorKind::NotFound => {
            output::failure(&failure);
            Ok(())
        }
        Err(failure) => Err(failure),
        Ok(removed) => {
            let untagged = removed.untagged.iter().map(|name| format!("Untagged: {name}\n"));
            let deleted = removed.deleted.iter().map(|digest| format!("Deleted: {digest}\n"));
            output::data(&untagged.chain(deleted).collect::<String>())
        }
    })
}
