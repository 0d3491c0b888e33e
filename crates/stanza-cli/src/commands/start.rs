//! `stanza start`.

use clap::{ArgMatches, Command};
use stanza_engine::StartError;

use super::run::warn;
use super::session::{Session, check_terminal, console_size};
use super::{Entry, Faults, Group, Needs, for_each};
use crate::arguments::{Given, command, switch, value, words};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["start", "container start"],
    group: Group::Other,
    about: "Start containers that are created or have ended",
    needs: Needs::Monitor,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "start",
        "stanza start [OPTIONS] CONTAINER [CONTAINER...]",
        ENTRY.about,
        "Example:\n  stanza start -ai shell",
    )
    .arg(switch("attach", 'a', "Attach to the container's output and forward signals"))
    .arg(switch("interactive", 'i', "Attach standard input too"))
    .arg(value("detach-keys", None, "KEYS", "Keys that detach (default `ctrl-p,ctrl-q`)"))
    .arg(switch("sig-proxy", None, "Forward signals to the container (default true)"))
    .arg(words("CONTAINER"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let interactive = given.on("interactive");
    if given.on("attach") || interactive {
        return attached(door, given, interactive);
    }
    let mut engine = door.engine()?;
    for_each(given.texts("CONTAINER"), |name| {
        let id = engine.find(name)?;
        let monitor = door.monitor()?;
        match engine.start(&id, monitor, false, None) {
            Ok((_, warnings)) => warn(&warnings),
            // What was asked for is so.
            Err(StartError::Running(_)) => {}
            Err(error) => return Err(error.into()),
        }
        output::line(name)
    })
}

fn attached(door: &mut Door, given: &ArgMatches, interactive: bool) -> Outcome {
    let mut names = given.texts("CONTAINER");
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(Failure::usage("only one container can be started and attached to at once"));
    };
    let mut engine = door.engine()?;
    let id = engine.find(name)?;
    let config = engine.inspect(&id)?.config;
    let stdin = interactive && config.open_stdin;
    check_terminal(stdin, config.tty)?;
    let session = Session::read(given, stdin, config.tty)?;
    let size = if config.tty { console_size() } else { None };
    let (mut started, warnings) = engine.start(&id, door.monitor()?, true, size)?;
    warn(&warnings);
    session.pump(&mut engine, &id, &mut started.connection)
}
