//! `stanza port`.

use clap::{ArgMatches, Command};
use stanza_engine::{Container, Engine, ListQuery, State};
use stanza_spec::ErrorKind;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, optional_word, switch};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::flags::ports::private;
use crate::output;
use crate::render::ports;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["port", "container port"],
    group: Group::Other,
    about: "List the published ports of a container, or where one of them is",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "port",
        "stanza port CONTAINER [PRIVATE_PORT[/PROTOCOL]]\n        stanza port --all",
        ENTRY.about,
        "Example:\n  stanza port web 80/tcp",
    )
    .arg(switch("all", 'a', "Those of all running containers"))
    .arg(optional_word("CONTAINER").hide(true))
    .arg(optional_word("PRIVATE_PORT").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    let text = match (given.on("all"), given.text("CONTAINER")) {
        (true, Some(_)) => {
            return Err(Failure::usage("`--all` and the name of a container exclude each other"));
        }
        (true, None) => all(&mut engine)?,
        (false, None) => return Err(Failure::usage("`port` needs a word CONTAINER")),
        (false, Some(name)) => {
            let id = engine.find(name)?;
            let container = engine.inspect(&id)?;
            match given.text("PRIVATE_PORT") {
                None => listed(&container, ""),
                Some(port) => one(&container, name, port)?,
            }
        }
    };
    output::data(&text).map(|()| 0)
}

/// The ports of a container that runs.
fn published(container: &Container) -> Vec<(String, Vec<String>)> {
    match container.state {
        State::Running(_) => ports::lines(&container.ports),
        State::Created | State::Exited(_) => Vec::new(),
    }
}

fn listed(container: &Container, prefix: &str) -> String {
    let line = |(inside, sides): (String, Vec<String>)| {
        sides.iter().map(|side| format!("{prefix}{inside} -> {side}\n")).collect::<String>()
    };
    published(container).into_iter().map(line).collect()
}

/// Podman's form for many containers: the id before each line.
fn all(engine: &mut Engine) -> Result<String, Failure> {
    let containers = engine.list(&ListQuery::default())?;
    Ok(containers.iter().map(|one| listed(one, &format!("{}\t", one.id.short()))).collect())
}

fn one(container: &Container, name: &str, text: &str) -> Result<String, Failure> {
    let port = private(text)?;
    let wanted = format!("{}/{}", port.port, port.protocol.word());
    let found = published(container).into_iter().find(|(inside, _)| *inside == wanted);
    match found {
        Some((_, sides)) => Ok(sides.iter().map(|side| format!("{side}\n")).collect()),
        None => {
            Err(Failure::new(ErrorKind::NotFound, format!("no public port '{wanted}' published for {name}"))
                .with_hint(format!("`stanza port {name}` lists those that are")))
        }
    }
}
