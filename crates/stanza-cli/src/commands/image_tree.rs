//! `stanza image tree`: the layers of an image. Docker has no word for it.

use clap::{ArgMatches, Command};
use stanza_engine::{Image, LayerRow};
use stanza_spec::Reference;
use stanza_spec::units::human_size;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::render::json::Json;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image tree"],
    group: Group::Image,
    about: "Show the layers of an image, and what is in each",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "image tree",
        "stanza image tree [OPTIONS] IMAGE",
        ENTRY.about,
        "Example:\n  stanza image tree busybox\n\nThe topmost layer comes first. Sizes are compressed / unpacked.",
    )
    .arg(value("format", None, "FORMAT", "`json`"))
    .arg(word("IMAGE"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let json = match given.text("format") {
        None | Some("") => false,
        Some("json") => true,
        Some(other) => {
            return Err(Failure::usage(format!(
                "option `--format`: `{other}` is not a format: expected `json`"
            )));
        }
    };
    let (image, layers) = door.engine()?.image_tree(given.text("IMAGE").unwrap_or_default())?;
    let text = if json { as_json(&image, &layers).pretty() + "\n" } else { as_text(&image, &layers) };
    output::data(&text).map(|()| 0)
}

fn as_text(image: &Image, layers: &[LayerRow]) -> String {
    let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
    let unpacked = layers.iter().map(|row| row.summary.size).sum();
    let mut text = format!(
        "{}  {}  {} / {}\n",
        if names.is_empty() { "<none>".to_owned() } else { names.join(", ") },
        image.id.short(),
        human_size(image.size),
        human_size(unpacked)
    );
    for (at, row) in layers.iter().enumerate() {
        let (branch, trunk) = if at + 1 == layers.len() { ("└─", "  ") } else { ("├─", "│ ") };
        let summary = &row.summary;
        text.push_str(&format!(
            "{branch} {}  {} / {}  {}\n",
            row.layer.diff_id.short(),
            human_size(row.layer.size),
            human_size(summary.size),
            row.created_by.replace(['\n', '\t'], " ")
        ));
        text.push_str(&format!(
            "{trunk}   {} files, {} directories, {} others, {} hidden\n",
            summary.files, summary.directories, summary.others, summary.hidden
        ));
        if !row.shared_with.is_empty() {
            text.push_str(&format!("{trunk}   shared with {}\n", row.shared_with.join(", ")));
        }
        for (path, size) in &summary.largest {
            text.push_str(&format!("{trunk}   {:>8}  {}\n", human_size(*size), path.to_string_lossy()));
        }
    }
    text
}

fn as_json(image: &Image, layers: &[LayerRow]) -> Json {
    let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
    let layer = |row: &LayerRow| {
        let largest = row.summary.largest.iter().map(|(path, size)| {
            Json::object([("Path", path.to_string_lossy().into_owned().into()), ("Size", (*size).into())])
        });
        Json::object([
            ("DiffID", row.layer.diff_id.as_str().into()),
            ("Digest", row.layer.digest.as_str().into()),
            ("MediaType", row.layer.media_type.as_str().into()),
            ("Size", row.layer.size.into()),
            ("UnpackedSize", row.summary.size.into()),
            ("CreatedBy", row.created_by.as_str().into()),
            ("SharedWith", row.shared_with.clone().into()),
            ("Files", row.summary.files.into()),
            ("Directories", row.summary.directories.into()),
            ("Others", row.summary.others.into()),
            ("Hidden", row.summary.hidden.into()),
            ("Largest", Json::List(largest.collect())),
        ])
    };
    Json::object([
        ("Id", image.id.as_str().into()),
        ("RepoTags", names.into()),
        ("Size", image.size.into()),
        ("Layers", Json::List(layers.iter().map(layer).collect())),
    ])
}
