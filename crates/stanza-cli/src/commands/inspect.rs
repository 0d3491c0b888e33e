//! `stanza inspect`: containers, images and networks alike.

use clap::{ArgMatches, Command};
use stanza_engine::Engine;
use stanza_spec::ErrorKind;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value, words};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::format::listing;
use crate::format::template::{Scope, Template};
use crate::output;
use crate::render::json::Json;
use crate::render::{container, image, network};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["inspect", "container inspect"],
    group: Group::Other,
    about: "Show all that is known of containers, images or networks",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "inspect",
        "stanza inspect [OPTIONS] NAME [NAME...]",
        ENTRY.about,
        "Example:\n  stanza inspect -f '{{.State.Status}}' web",
    )
    .arg(value("format", 'f', "FORMAT", "`json` or a Go template"))
    .arg(switch("size", 's', "Show a container's size"))
    .arg(value("type", None, "TYPE", "`container`, `image` or `network`"))
    .arg(words("NAME"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let (containers, images, networks) = match given.text("type") {
        None | Some("") => (true, true, true),
        Some("container") => (true, false, false),
        Some("image") => (false, true, false),
        Some("network") => (false, false, true),
        Some(other) => {
            let text = format!(
                "option `--type`: `{other}` is not a type: expected `container`, `image` or `network`"
            );
            return Err(Failure::usage(text));
        }
    };
    let size = given.on("size");
    let mut engine = door.engine()?;
    let root = door.options().root.clone();
    show(given, |name| {
        let missing = |failure: &Failure| failure.kind() == ErrorKind::NotFound;
        if containers {
            match engine.find(name) {
                Ok(id) => {
                    let found = if size { engine.inspect_size(&id)? } else { engine.inspect(&id)? };
                    return Ok(container::inspect(&found, &root));
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    if !images || !missing(&failure) {
                        return Err(failure);
                    }
                }
            }
        }
        if images {
            match inspect_image(&mut engine, name) {
                Err(failure) if networks && missing(&failure) => {}
                result => return result,
            }
        }
        match engine.network(name).map_err(Failure::from) {
            Ok(entry) => Ok(network::inspect(&entry)),
            Err(failure) if containers && missing(&failure) => {
                Err(Failure::new(ErrorKind::NotFound, format!("no such object: `{name}`")).with_hint(
                    "`stanza ps -a` lists containers, `stanza images` images, `stanza network ls` networks",
                ))
            }
            Err(failure) => Err(failure),
        }
    })
}

/// What is known of an image.
pub(super) fn inspect_image(engine: &mut Engine, name: &str) -> Result<Json, Failure> {
    Ok(image::inspect(&engine.image(name)?))
}

/// Shows every name's JSON, or what `--format` makes of it; those that are not found are told after the others.
pub(super) fn show(given: &ArgMatches, mut find: impl FnMut(&str) -> Result<Json, Failure>) -> Outcome {
    let format = given.text("format").filter(|format| !format.is_empty() && *format != "json");
    let lines = given.text("format") == Some("json");
    let template = format.map(listing::parse).transpose()?;
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in given.texts("NAME") {
        match find(name) {
            Ok(json) => found.push(json),
            Err(failure) => failures.push(failure),
        }
    }
    if let Some(template) = &template {
        for json in &found {
            output::line(&execute(template, json)?)?;
        }
    } else if lines {
        for json in &found {
            output::line(&serde_json::to_string(json).unwrap_or_default())?;
        }
    } else {
        output::line(&Json::List(found).pretty())?;
    }
    for failure in &failures {
        output::failure(failure);
    }
    Ok(u8::from(!failures.is_empty()))
}

fn execute(template: &Template, json: &Json) -> Result<String, Failure> {
    let scope = Scope { maps: container::MAPS, ..Scope::PLAIN };
    template.execute(&json.value(), &scope).map_err(|error| {
        Failure::usage(format!("template parsing error: {error}"))
            .with_hint("without `--format`, all fields are shown")
    })
}
