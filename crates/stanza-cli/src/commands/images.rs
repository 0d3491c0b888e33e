//! `stanza images`.

use clap::{ArgMatches, Command};
use stanza_engine::Image;
use stanza_spec::Instant;

use super::{Entry, Faults, Group, Needs, filters};
use crate::arguments::{Given, command, list, optional_word, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::format::listing;
use crate::output;
use crate::render::{image, image_tree};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["images", "image ls", "image list"],
    group: Group::Common,
    about: "List images",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "images",
        "stanza images [OPTIONS] [REPOSITORY[:TAG]]",
        ENTRY.about,
        "Example:\n  stanza images --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
    )
    // There are no hidden images here, so all are shown anyway.
    .arg(switch("all", 'a', "Show all images"))
    .arg(switch("digests", None, "Show digests"))
    .arg(list("filter", 'f', "NAME=VALUE", "Show only those that match"))
    .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
    .arg(switch("no-trunc", None, "Do not cut texts"))
    .arg(switch("quiet", 'q', "Show ids only"))
    .arg(switch("tree", None, "Show what is in each image, and what it takes on disk"))
    .arg(optional_word("REPOSITORY"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let wanted = given.text("REPOSITORY");
    if given.on("tree") {
        return tree(door, given, wanted);
    }
    let images = door.engine()?.images(&filters(given)?)?;
    let now = Instant::now();
    let truncate = !given.on("no-trunc");
    let mut rows = Vec::new();
    for one in &images {
        rows.extend(image::rows(&one.image, Some(one.containers), truncate, now).into_iter().filter(|row| {
            let cell = |name: &str| row.fields.get(name).and_then(|value| value.as_str()).unwrap_or_default();
            // An image may have other names than the one that was asked for.
            wanted.is_none_or(|wanted| names(wanted, cell("Repository"), cell("Tag")))
        }));
    }
    let format = given.text("format");
    let text = if given.on("quiet") && format.is_none() {
        let mut ids: Vec<&str> = rows.iter().filter_map(|row| row.fields.get("ID")?.as_str()).collect();
        ids.dedup();
        ids.iter().map(|id| format!("{id}\n")).collect()
    } else {
        let digest = if given.on("digests") { "{{.Digest}}\t" } else { "" };
        let table = format!(
            "{{{{.Repository}}}}\t{{{{.Tag}}}}\t{digest}{{{{.ID}}}}\t{{{{.CreatedSince}}}}\t{{{{.Size}}}}"
        );
        listing::render(format, &table, image::TITLES, &rows)?
    };
    output::data(&text).map(|()| 0)
}

/// `--tree`.
fn tree(door: &mut Door, given: &ArgMatches, wanted: Option<&str>) -> Outcome {
    for name in ["quiet", "no-trunc", "digests"] {
        if given.on(name) {
            return Err(Failure::usage(format!("--{name} is not yet supported with --tree")));
        }
    }
    let json = match given.text("format") {
        None | Some("" | "table") => false,
        Some("json") => true,
        Some(_) => return Err(Failure::usage("--format is not yet supported with --tree, but for `json`")),
    };
    // Unlike a listing, this looks into files of other owners.
    stanza_container::rootless::enter(&door.options().runroot)?;
    let mut engine = door.engine()?;
    let mut images = engine.images(&filters(given)?)?;
    if let Some(wanted) = wanted {
        for row in &mut images {
            row.image
                .names
                .retain(|name| names(wanted, &name.familiar_repository(), name.tag().unwrap_or_default()));
        }
        images.retain(|row| !row.image.names.is_empty());
    }
    let all: Vec<&Image> = images.iter().map(|row| &row.image).collect();
    let unpacked = engine.unpacked_sizes(&all)?;
    let text = if json { image_tree::json(&images, &unpacked) } else { image_tree::text(&images, &unpacked) };
    output::data(&text).map(|()| 0)
}

/// Whether `REPOSITORY[:TAG]`, in which `*` stands for anything, names this row.
fn names(wanted: &str, repository: &str, tag: &str) -> bool {
    if wanted.contains('*') {
        return true;
    }
    match wanted.rsplit_once(':') {
        Some((name, wanted)) if !wanted.contains('/') => same(name, repository) && wanted == tag,
        _ => same(wanted, repository),
    }
}

/// Whether two spellings are one repository.
fn same(typed: &str, familiar: &str) -> bool {
    typed == familiar
        || typed.parse::<stanza_spec::Reference>().is_ok_and(|typed| typed.familiar_repository() == familiar)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_repository_is_known_in_every_spelling() {
        assert!(names("busybox", "busybox", "1"));
        assert!(names("docker.io/library/busybox", "busybox", "1"));
        assert!(names("busybox:1", "busybox", "1") && !names("busybox:2", "busybox", "1"));
        assert!(names("localhost:5000/a", "localhost:5000/a", "x") && !names("a", "localhost:5000/a", "x"));
    }
}
