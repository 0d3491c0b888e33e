//! `stanza save`.

use std::io::ErrorKind;
use std::path::Path;

use clap::{ArgMatches, Command};
use stanza_engine::{ArchiveForm, SaveError, Target};

use super::pull::platform;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value, words};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output_file::OutputFile;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["save", "image save"],
    group: Group::Image,
    about: "Save images to an archive that other engines read",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "save",
        "stanza save [OPTIONS] IMAGE [IMAGE...]",
        ENTRY.about,
        "Example:\n  stanza save -o busybox.tar busybox\n\nA name without a tag means all tags of the repository.",
    )
    .arg(value("format", None, "FORMAT", "`docker-archive` (default), `oci-archive`, `oci-dir` or `docker-dir`"))
    // podman's: there, several words are tags of one image without it.
    .arg(switch("multi-image-archive", 'm', "Save all the images that are named, which is done anyway"))
    .arg(value("output", 'o', "FILE", "Write to a file or directory, not to standard output"))
    .arg(value("platform", None, "OS/ARCH", "Refuse images for another platform"))
    .arg(switch("quiet", 'q', "Say nothing, which is done anyway"))
    .arg(words("IMAGE"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let names: Vec<&str> = given.texts("IMAGE").collect();
    let platform = platform(given)?;
    let output = given.text("output");
    let (form, as_directory) = match given.text("format") {
        None | Some("" | "docker-archive") => (ArchiveForm::Docker, false),
        Some("oci-archive") => (ArchiveForm::Oci, false),
        Some("oci-dir") => (ArchiveForm::Oci, true),
        Some("docker-dir") => (ArchiveForm::Directory, true),
        Some(other) => {
            return Err(Failure::usage(format!("option `--format`: `{other}` is not a format"))
                .with_hint("there are `docker-archive`, `oci-archive`, `oci-dir` and `docker-dir`"));
        }
    };
    if as_directory {
        let Some(path) = output.filter(|path| *path != "-") else {
            return Err(Failure::usage("a directory cannot go to standard output: `--output` must name it"));
        };
        door.engine()?.save(&names, platform.as_ref(), form, Target::Directory(Path::new(path)))?;
        return Ok(0);
    }
    let output = OutputFile::open(output, "save")?;
    match door.engine()?.save(&names, platform.as_ref(), form, Target::File(output.file())) {
        Err(SaveError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => {
            Err(Failure::closed_output())
        }
        result => {
            result?;
            output.finish().map(|()| 0)
        }
    }
}
