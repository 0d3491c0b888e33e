//! `stanza load`.

use std::fs::File;
use std::io::{IsTerminal as _, Read, stdin};
use std::path::Path;

use clap::{ArgMatches, Command};
use stanza_image::LoadOptions;

use super::pull::signature_policy;
use super::{Entry, Faults, Group, Needs, keep_budget};
use crate::arguments::{Given, command, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::progress::{Display, Stream};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["load", "image load"],
    group: Group::Image,
    about: "Load images from an archive (docker-archive or oci-archive)",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command("load", "stanza load [OPTIONS]", ENTRY.about, "Example:\n  docker save busybox | stanza load")
        .arg(value("input", 'i', "FILE", "Read the archive from a file, not from standard input"))
        .arg(switch("quiet", 'q', "Do not show progress"))
        .arg(signature_policy())
}

/// The archive at `path`; `None` and `-` are standard input, which must not be a terminal.
pub(super) fn archive(path: Option<&str>) -> Result<Box<dyn Read>, Failure> {
    match path.filter(|path| *path != "-") {
        Some(path) => match File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(Failure::io(&format!("cannot open `{path}`"), &error)),
        },
        None if stdin().is_terminal() => Err(Failure::usage("standard input is a terminal, not an archive")
            .with_hint("give a file, or pipe an archive in")),
        None => Ok(Box::new(stdin())),
    }
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let path = given.text("input");
    let archive = archive(path)?;
    let mut display = Display::new(if given.on("quiet") { Stream::Quiet } else { Stream::Stderr });
    let mut options = LoadOptions {
        path: path.filter(|path| *path != "-").map(Path::new),
        signature_policy: given.text("signature-policy").map(Path::new),
        progress: &mut display,
    };
    let mut engine = door.engine()?;
    let loaded = engine.load(archive, &mut options)?;
    keep_budget(&mut engine);
    for image in &loaded {
        output::line(&match &image.name {
            Some(name) => format!("Loaded image: {}", name.familiar()),
            None => format!("Loaded image ID: {}", image.image),
        })?;
    }
    Ok(0)
}
