//! `stanza network rm`.

use std::time::Duration;

use clap::{ArgMatches, Command};
use stanza_spec::ErrorKind;

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
    let timeout = given.text("time").map(seconds).transpose()?;
    if timeout.is_some() && !force {
        return Err(Failure::usage("option `--time` needs `--force`"));
    }
    let mut engine = door.engine()?;
    for_each(given.texts("NETWORK"), |name| {
        match engine.remove_network(name, timeout.is_some(), timeout).map_err(Failure::from) {
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

fn seconds(text: &str) -> Result<Duration, Failure> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| Failure::usage(format!("option `--time`: `{text}` is not a number of seconds")))
}
