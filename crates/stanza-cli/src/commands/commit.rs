//! `stanza commit`.

use clap::{Arg, ArgMatches, Command};
use stanza_engine::{CommitRequest, LayerCompression};

use super::tag::reference;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, list, optional_word, switch, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["commit", "container commit"],
    group: Group::Other,
    about: "Make an image of a container's changes",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "commit",
        "stanza commit [OPTIONS] CONTAINER [NAME[:TAG]]",
        ENTRY.about,
        "Example:\n  stanza commit -c 'CMD [\"nginx\"]' -m 'with my pages' web my/web:2",
    )
    .arg(value("author", 'a', "TEXT", "Set the author"))
    .arg(list("change", 'c', "INSTRUCTION", "Apply a Dockerfile instruction"))
    .arg(compression())
    .arg(value("message", 'm', "TEXT", "Set the commit message"))
    .arg(switch("pause", 'p', "Let the container stand still meanwhile (default true)"))
    .arg(switch("squash", None, "Make one layer of all"))
    .arg(word("CONTAINER"))
    .arg(optional_word("NAME"))
}

/// `--compression`.
pub(super) fn compression() -> Arg {
    value("compression", None, "gzip|zstd|none", "How the new layer is compressed (default `gzip`)")
}

/// What `--compression` says.
pub(super) fn read_compression(given: &ArgMatches) -> Result<LayerCompression, Failure> {
    match given.text("compression") {
        None | Some("gzip") => Ok(LayerCompression::Gzip),
        Some("zstd") => Ok(LayerCompression::Zstd),
        Some("none") => Ok(LayerCompression::None),
        Some(other) => Err(Failure::usage(format!("`{other}` is not a compression of layers"))
            .with_hint("there are `gzip`, `zstd` and `none`")),
    }
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let text = |name| given.text(name).unwrap_or_default().to_owned();
    let request = CommitRequest {
        name: given.text("NAME").map(reference).transpose()?,
        author: text("author"),
        message: text("message"),
        changes: given.texts("change").map(str::to_owned).collect(),
        keep_running: given.choice("pause") == Some(false),
        squash: given.on("squash"),
        compression: read_compression(given)?,
    };
    let mut engine = door.engine()?;
    let id = engine.find(&text("CONTAINER"))?;
    let (image, warnings) = engine.commit(&id, &request)?;
    for warning in &warnings {
        output::warning(warning);
    }
    output::line(image.id.as_str()).map(|()| 0)
}
