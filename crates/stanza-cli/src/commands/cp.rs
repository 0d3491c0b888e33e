//! `stanza cp`.

use std::io::{self, IsTerminal as _, stdin, stdout};

use clap::{ArgMatches, Command};
use stanza_engine::{CopyEnd, CopyError, CopyOptions, Engine};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["cp", "container cp"],
    group: Group::Other,
    about: "Copy files between containers and this machine",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "cp",
        "stanza cp [OPTIONS] CONTAINER:PATH PATH|-\n        stanza cp [OPTIONS] PATH|- CONTAINER:PATH\n        stanza cp [OPTIONS] CONTAINER:PATH CONTAINER:PATH",
        ENTRY.about,
        "Example:\n  stanza cp web:/var/log/nginx ./logs\n\n`-` is a tar archive on standard input or output. `DIR/.` is what a directory holds.",
    )
    .arg(switch("archive", 'a', "Keep owners; copy devices out"))
    .arg(switch("follow-link", 'L', "Copy what a link at the end of the source leads to"))
    .arg(switch("quiet", 'q', "Do not tell what was copied"))
    .arg(word("SOURCE"))
    .arg(word("TARGET"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let (source, target) =
        (given.text("SOURCE").unwrap_or_default(), given.text("TARGET").unwrap_or_default());
    for (word, name) in [(source, "source"), (target, "destination")] {
        if word.is_empty() {
            return Err(Failure::usage(format!("{name} can not be empty")));
        }
    }
    let mut engine = door.engine()?;
    let (from, to) = (end(&mut engine, source)?, end(&mut engine, target)?);
    let is_container = |end: &CopyEnd| matches!(end, CopyEnd::Container { .. });
    if from == CopyEnd::Stream && is_container(&to) && stdin().is_terminal() {
        return Err(
            Failure::usage("standard input is a terminal, not an archive").with_hint("pipe an archive in")
        );
    }
    if to == CopyEnd::Stream && is_container(&from) && stdout().is_terminal() {
        return Err(Failure::usage("an archive cannot be written to a terminal").with_hint("pipe it on"));
    }
    let options = CopyOptions { follow_link: given.on("follow-link"), archive: given.on("archive") };
    let copied =
        engine.copy(&from, &to, options, &mut stdin().lock(), &mut stdout().lock()).map_err(|error| {
            match &error {
                CopyError::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => {
                    Failure::closed_output()
                }
                _ => Failure::from(error),
            }
        })?;
    if copied.skipped_devices > 0 {
        let count = copied.skipped_devices;
        output::warning(&format!("{count} device files were left out: `--archive` copies them, as root"));
    }
    let quiet = given.choice("quiet").unwrap_or_else(|| !stdout().is_terminal());
    if !quiet && to != CopyEnd::Stream && from != CopyEnd::Stream {
        output::talk(&format!(
            "Successfully copied {} to {target}",
            stanza_spec::units::human_size(copied.bytes)
        ));
    }
    Ok(0)
}

/// Docker's way to tell a container's path: the first colon, unless the word is an absolute path or begins with a dot.
fn end(engine: &mut Engine, word: &str) -> Result<CopyEnd, Failure> {
    if word == "-" {
        return Ok(CopyEnd::Stream);
    }
    if !word.starts_with('/')
        && let Some((name, path)) = word.split_once(':')
        && !name.starts_with('.')
    {
        let id = engine.find(name)?;
        return Ok(CopyEnd::Container { id, name: name.to_owned(), path: path.to_owned() });
    }
    if word.starts_with('/') {
        return Ok(CopyEnd::Host(word.to_owned()));
    }
    let current =
        std::env::current_dir().map_err(|error| Failure::io("cannot tell the working directory", &error))?;
    let current = current.to_str().ok_or_else(|| {
        Failure::usage("the working directory is no UTF-8")
            .with_hint("give absolute paths, from another directory")
    })?;
    Ok(CopyEnd::Host(format!("{current}/{word}")))
}
