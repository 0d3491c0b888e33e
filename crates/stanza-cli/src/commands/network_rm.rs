//! `stanza network rm`.

use clap::{ArgMatches, Command};
use stanza_engine::{Engine, NetworkError};
use stanza_spec::ErrorKind;

use super::container_options::seconds;
use super::{Entry, Faults, Group, Needs, for_each};
use crate::arguments::{Given, command, switch, value, words};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network rm", "network remove"],
    group: Group::Network,
    about: "Remove networks",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network rm",
        "stanza network rm [OPTIONS] NETWORK [NETWORK...]",
        ENTRY.about,
        "Example:\n  stanza network rm lan",
    )
    .arg(switch("force", 'f', "A missing network is no failure"))
    .arg(value("time", 't', "SECONDS", "With --force: stop and remove its containers too, after this time"))
    .arg(words("NETWORK").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let force = given.on("force");
    // Docker's `--force` touches no container and Podman's removes them. So it takes Podman's second option to say that.
    let timeout = given.text("time").map(|text| seconds("--time", text)).transpose()?;
    if timeout.is_some() && !force {
        return Err(Failure::usage("option `--time` needs `--force`"));
    }
    let mut engine = door.engine()?;
    for_each(given.texts("NETWORK"), |name| {
        let removed = match timeout {
            Some(timeout) => remove_all(&mut engine, name, timeout),
            None => engine.remove_network(name, false).map_err(Failure::from),
        };
        match removed {
            // As in Docker: told, but with exit code 0.
            Err(failure) if force && failure.kind() == ErrorKind::NotFound => {
                output::failure(&failure);
                Ok(())
            }
            Err(failure) => Err(failure),
            Ok(()) => output::line(name),
        }
    })
}

/// Removes a network and the containers that are in it, each asked to stop first.
fn remove_all(engine: &mut Engine, name: &str, timeout: i64) -> Result<(), Failure> {
    loop {
        let users = match engine.remove_network(name, false) {
            Err(NetworkError::InUse { users, .. }) => users,
            result => return Ok(result?),
        };
        for user in &users {
            // One that is gone meanwhile is as wished.
            let Ok(id) = engine.find(user) else { continue };
            // What does not stop is killed by the removal.
            let _ = engine.stop(&id, None, Some(timeout));
            engine.remove(&id, true, false)?;
        }
    }
}
