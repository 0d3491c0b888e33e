//! `stanza image prune`.

use clap::{ArgMatches, Command};
use stanza_engine::PruneOptions;

use super::system_prune::{confirm, show};
use super::{Entry, Faults, Group, Needs, filters};
use crate::arguments::{Given, command, list, switch};
use crate::door::{Door, Outcome};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image prune"],
    group: Group::Image,
    about: "Remove images that nothing uses",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command("image prune", "stanza image prune [OPTIONS]", ENTRY.about, "Example:\n  stanza image prune -f")
        .arg(switch("all", 'a', "Remove images with a name too, when no container uses them"))
        .arg(list(
            "filter",
            None,
            "NAME=VALUE",
            "Remove only those that match: `until=TIME`, `label=…`, `label!=…`, `dangling=true|false`",
        ))
        .arg(switch("force", 'f', "Do not ask"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let all = given.on("all");
    let what =
        if all { "images without at least one container associated to them" } else { "dangling images" };
    if !confirm(given, &format!("This will remove all {what}."))? {
        return Ok(0);
    }
    let options = PruneOptions {
        containers: false,
        images: true,
        all_images: all,
        volumes: false,
        filters: filters(given)?,
    };
    show(&door.engine()?.prune(&options)?, Vec::new())
}
