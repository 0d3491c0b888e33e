//! `stanza load`.

use std::fs::File;
use std::io::{IsTerminal as _, stdin};
use std::os::fd::AsFd as _;
use std::path::Path;

use clap::{ArgMatches, Command};
use stanza_engine::{Admission, Source};

use super::pull::{platform, signature_policy};
use super::{Entry, Faults, Group, Needs, keep_budget};
use crate::arguments::{Given, command, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::progress::{Display, Stream};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["load", "image load"],
    group: Group::Image,
    about: "Load images from an archive or directory, of Docker's or the OCI's form",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command("load", "stanza load [OPTIONS]", ENTRY.about, "Example:\n  docker save busybox | stanza load")
        .arg(value("input", 'i', "FILE", "Read from a file or directory, not from standard input"))
        .arg(value("platform", None, "OS/ARCH", "Take the image for this platform"))
        .arg(switch("quiet", 'q', "Do not show progress"))
        .arg(signature_policy())
}

/// The archive at `path`; `None` and `-` are standard input, which must not be a terminal.
pub(super) fn archive(path: Option<&str>) -> Result<File, Failure> {
    match path.filter(|path| *path != "-") {
        Some(path) => File::open(path).map_err(|error| Failure::io(&format!("cannot open `{path}`"), &error)),
        None if stdin().is_terminal() => Err(Failure::usage("standard input is a terminal, not an archive")
            .with_hint("give a file, or pipe an archive in")),
        None => match stdin().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Ok(descriptor.into()),
            Err(error) => Err(Failure::io("cannot use standard input", &error)),
        },
    }
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let path = given.text("input");
    let archive = archive(path)?;
    let is_directory = archive.metadata().is_ok_and(|found| found.is_dir());
    let source = if is_directory { Source::Directory(archive) } else { Source::File(archive) };
    let platform = platform(given)?;
    let admission = Admission {
        path: path.filter(|path| *path != "-").map(Path::new),
        policy: given.text("signature-policy").map(Path::new),
    };
    let mut display = Display::new(if given.on("quiet") { Stream::Quiet } else { Stream::Stderr });
    let mut engine = door.engine()?;
    let loaded = engine.load(source, platform, &admission, &mut display)?;
    keep_budget(&mut engine);
    for image in &loaded {
        output::line(&match &image.name {
            Some(name) => format!("Loaded image: {}", name.familiar()),
            None => format!("Loaded image ID: {}", image.image),
        })?;
    }
    Ok(0)
}
