//! `stanza logs`.

use clap::{ArgMatches, Command};
use stanza_engine::{LogLine, LogQuery, LogStream};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["logs", "container logs"],
    group: Group::Common,
    about: "Show the output of a container",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "logs",
        "stanza logs [OPTIONS] CONTAINER",
        ENTRY.about,
        "Example:\n  stanza logs -f --tail 20 web",
    )
    .arg(switch("follow", 'f', "Go on with what the container says from now on"))
    .arg(value("since", None, "TIME", "Show what was said from then on: RFC 3339, or as `10m` ago"))
    .arg(value("until", None, "TIME", "Show what was said before"))
    .arg(value("tail", 'n', "COUNT", "Show the last lines only (default `all`)"))
    .arg(switch("timestamps", 't', "Show the time of every line"))
    .arg(word("CONTAINER"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let tail = match given.text("tail") {
        None | Some("all" | "-1") => None,
        Some(text) => Some(text.parse::<usize>().map_err(|_| {
            Failure::usage(format!("option `--tail`: `{text}` is not a number of lines, nor `all`"))
        })?),
    };
    let timestamps = given.on("timestamps");
    let query = LogQuery {
        follow: given.on("follow"),
        since: given.text("since").map(str::to_owned),
        until: given.text("until").map(str::to_owned),
        tail,
        timestamps,
    };
    let mut engine = door.engine()?;
    let id = engine.find(given.text("CONTAINER").unwrap_or_default())?;
    engine.logs(&id, &query, &mut |line| show(&line, timestamps))?;
    Ok(0)
}

/// A container's output is shown as it was written, a terminal's commands and all, as `run` shows it.
fn show(line: &LogLine, timestamps: bool) {
    let mut text = String::with_capacity(line.text.len() + 32);
    if timestamps {
        text.push_str(&line.time);
        text.push(' ');
    }
    text.push_str(&line.text);
    match line.stream {
        LogStream::Stderr => output::raw_talk(text.as_bytes()),
        LogStream::Stdout => {
            if let Err(failure) = output::raw(text.as_bytes()) {
                output::end(&failure);
            }
        }
    }
}
