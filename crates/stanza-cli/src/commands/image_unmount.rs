//! `stanza image unmount`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs, for_each};
use crate::arguments::{Given, command, optional_words, switch};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image unmount", "image umount"],
    group: Group::Image,
    about: "Take images off that were mounted",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "image unmount",
        "stanza image unmount [OPTIONS] [IMAGE...]",
        ENTRY.about,
        "Example:\n  stanza image unmount busybox",
    )
    .arg(switch("all", 'a', "All that are mounted"))
    .arg(switch("force", 'f', "Also when somebody uses the files"))
    .arg(optional_words("IMAGE"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    let force = given.on("force");
    let names: Vec<String> = if given.on("all") {
        engine.image_mounts().iter().map(|mount| mount.id.to_string()).collect()
    } else {
        given.texts("IMAGE").map(str::to_owned).collect()
    };
    if names.is_empty() && !given.on("all") {
        return Err(Failure::usage("`image unmount` needs an image").with_hint("`--all` takes all off"));
    }
    for_each(names.iter().map(String::as_str), |name| {
        let mount = engine.unmount_image(name, force)?;
        output::line(mount.id.hex())
    })
}
