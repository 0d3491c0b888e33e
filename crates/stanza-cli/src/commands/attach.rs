//! `stanza attach`.

use clap::{ArgMatches, Command};
use stanza_engine::State;

use super::session::{Session, check_terminal};
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["attach", "container attach"],
    group: Group::Other,
    about: "Attach to a running container",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "attach",
        "stanza attach [OPTIONS] CONTAINER",
        ENTRY.about,
        "Example:\n  stanza attach --no-stdin web",
    )
    .arg(switch("no-stdin", None, "Do not forward standard input"))
    .arg(switch("sig-proxy", None, "Forward signals to the container (default true)"))
    .arg(value("detach-keys", None, "KEYS", "Keys that detach (default `ctrl-p,ctrl-q`)"))
    .arg(word("CONTAINER"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let name = given.text("CONTAINER").unwrap_or_default();
    let mut engine = door.engine()?;
    let id = engine.find(name)?;
    let container = engine.inspect(&id)?;
    if !matches!(container.state, State::Running(_)) {
        return Err(Failure::new(
            stanza_spec::ErrorKind::Conflict,
            format!("cannot attach to the container `{name}`: it is {}", container.state.word()),
        )
        .with_hint(format!("`stanza start -a {name}` starts it")));
    }
    let stdin = container.config.open_stdin && !given.on("no-stdin");
    check_terminal(stdin, container.config.tty)?;
    let session = Session::read(given, stdin, container.config.tty)?;
    let mut connection = engine.connect(&id)?;
    session.pump(&mut engine, &id, &mut connection)
}
