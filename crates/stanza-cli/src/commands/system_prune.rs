//! `stanza system prune`.

use std::io::IsTerminal as _;

use clap::{ArgMatches, Command};
use stanza_engine::{PruneOptions, Pruned};
use stanza_spec::units::human_size;

use super::{Entry, Faults, Group, Needs, filters};
use crate::arguments::{Given, command, list, switch};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["system prune"],
    group: Group::System,
    about: "Remove what nothing uses",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "system prune",
        "stanza system prune [OPTIONS]",
        ENTRY.about,
        "Example:\n  stanza system prune -af --volumes",
    )
    .arg(switch("all", 'a', "Remove images with a name too, when no container uses them"))
    .arg(list("filter", None, "NAME=VALUE", "Remove only those that match: `until=TIME`, `label=…`"))
    .arg(switch("force", 'f', "Do not ask"))
    .arg(switch("volumes", None, "Remove anonymous volumes too"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let (all, volumes) = (given.on("all"), given.on("volumes"));
    let mut lines = vec!["all stopped containers", "all networks not used by at least one container"];
    if volumes {
        lines.push("all anonymous volumes not used by at least one container");
    }
    lines.push(if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    });
    let what: String = lines.iter().map(|line| format!("\n  - {line}")).collect();
    if !confirm(given, &format!("This will remove:{what}\n"))? {
        return Ok(0);
    }
    let filters = filters(given)?;
    let mut engine = door.engine()?;
    let options =
        PruneOptions { containers: true, images: true, all_images: all, volumes, filters: filters.clone() };
    let pruned = engine.prune(&options)?;
    // After the containers, which were in them. What is gone already is told in any case.
    let (networks, failure) = match engine.prune_networks(&filters) {
        Ok(networks) => (networks, None),
        Err(error) => (Vec::new(), Some(Failure::from(error))),
    };
    let code = show(&pruned, networks)?;
    failure.map_or(Ok(code), Err)
}

/// Asks in Docker's words before something is removed, unless `--force` is given.
pub(super) fn confirm(given: &ArgMatches, warning: &str) -> Result<bool, Failure> {
    if given.on("force") {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::usage("nobody can be asked: standard input is no terminal").with_hint("add `--force`")
        );
    }
    let question = "Are you sure you want to continue? [y/N] ";
    output::raw_talk(format!("WARNING! {warning}\n{question}").as_bytes());
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| Failure::io("cannot read the answer", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Shows what was removed, in Docker's words.
pub(super) fn show(pruned: &Pruned, networks: Vec<String>) -> Outcome {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("{title}:\n{}\n\n", lines.join("\n")));
        }
    };
    section("Deleted Containers", pruned.containers.clone());
    section("Deleted Networks", networks);
    section("Deleted Volumes", pruned.volumes.clone());
    let untagged = pruned.untagged.iter().map(|name| format!("untagged: {name}"));
    let deleted = pruned.deleted.iter().map(|digest| format!("deleted: {digest}"));
    section("Deleted Images", untagged.chain(deleted).collect());
    text.push_str(&format!("Total reclaimed space: {}\n", human_size(pruned.reclaimed)));
    output::data(&text).map(|()| 0)
}
