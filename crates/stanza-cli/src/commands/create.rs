//! `stanza create`: a container that is not started yet.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};

use clap::{ArgMatches, Command};

use super::container_options::{self, Asked};
use super::run::warn;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::command;
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::progress::Display;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["create", "container create"],
    group: Group::Other,
    about: "Create a new container without starting it",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    container_options::declare(command(
        "create",
        "stanza create [OPTIONS] IMAGE [COMMAND] [ARG...]",
        ENTRY.about,
        "Example:\n  stanza create --name web -p 8080:80 nginx",
    ))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let Asked { config, cidfile, quiet } = container_options::read(given)?;
    let cidfile = cidfile.map(Cidfile::reserve).transpose()?;
    let mut engine = door.engine()?;
    let mut progress = Display::for_run(&config.image, quiet);
    let created = engine.create(config, &mut progress)?;
    progress.finish();
    warn(&created.warnings);
    if let Some(cidfile) = cidfile {
        cidfile.write(created.id.as_str())?;
    }
    output::line(created.id.as_str()).map(|()| 0)
}

/// The file of `--cidfile`: made before the container, so that it is known to be new and writable; removed again when no
/// container comes of it.
#[derive(Debug)]
pub(super) struct Cidfile {
    path: String,
    file: File,
    written: bool,
}

impl Cidfile {
    /// Makes the file.
    pub(super) fn reserve(path: String) -> Result<Cidfile, Failure> {
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => Ok(Cidfile { path, file, written: false }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Failure::usage(format!("option `--cidfile`: the file `{path}` exists"))
                    .with_hint("make sure that no container uses it, and remove it"))
            }
            Err(error) => Err(Failure::io(&format!("option `--cidfile`: cannot make `{path}`"), &error)),
        }
    }

    /// Writes the id into it.
    pub(super) fn write(mut self, id: &str) -> Result<(), Failure> {
        self.file.write_all(id.as_bytes()).map_err(|error| {
            Failure::io(&format!("option `--cidfile`: cannot write `{}`", self.path), &error)
        })?;
        self.written = true;
        Ok(())
    }
}

impl Drop for Cidfile {
    fn drop(&mut self) {
        if !self.written {
            // Nothing can be done about a file that does not go.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cidfile_is_new_and_gone_when_nothing_came_of_it() {
        let path = std::env::temp_dir().join(format!("stanza-cidfile-{}", std::process::id()));
        let path = path.to_str().unwrap().to_owned();
        drop(Cidfile::reserve(path.clone()).unwrap());
        assert!(!std::fs::exists(&path).unwrap());
        Cidfile::reserve(path.clone()).unwrap().write("abc").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abc");
        assert!(Cidfile::reserve(path.clone()).unwrap_err().to_string().ends_with("exists"));
        std::fs::remove_file(path).unwrap();
    }
}
