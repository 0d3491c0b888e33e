//! `stanza stats`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::thread;
use std::time::Duration;

use clap::{ArgMatches, Command};
use stanza_engine::{ContainerUsage, Engine, ListQuery};
use stanza_spec::{Classify as _, ContainerId, ErrorKind};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, optional_words, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::format::listing;
use crate::output;
use crate::render::usage;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["stats", "container stats"],
    group: Group::Other,
    about: "Show what containers use of processors, memory, network and disks",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

const TABLE: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";
/// Between the two looks of `--no-stream`: processor time is known by its growth.
const GLANCE: Duration = Duration::from_millis(500);

/// The containers of one look, in the order in which they are shown.
type Sample = Vec<(ContainerId, ContainerUsage)>;

fn build() -> Command {
    command(
        "stats",
        "stanza stats [OPTIONS] [CONTAINER...]",
        ENTRY.about,
        "Example:\n  stanza stats --no-stream --format '{{.Name}} {{.CPUPerc}} {{.NetIO}}'",
    )
    .arg(switch("all", 'a', "Show containers that do not run too"))
    .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
    .arg(value("interval", 'i', "SECONDS", "Time between two looks; 1 by default"))
    .arg(switch("no-stream", None, "Show them once"))
    .arg(switch("no-reset", None, "Do not clear the screen"))
    .arg(switch("no-trunc", None, "Do not cut texts"))
    .arg(optional_words("CONTAINER").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let seconds = given.text("interval").unwrap_or("1");
    let interval =
        seconds.parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(|| {
            Failure::usage(format!("option `--interval`: `{seconds}` is not a number of seconds"))
        })?;
    let mut engine = door.engine()?;
    let named =
        given.texts("CONTAINER").map(|name| engine.find(name)).collect::<Result<Vec<ContainerId>, _>>()?;
    let stream = !given.on("no-stream");
    let in_place = stream && !given.on("no-reset") && std::io::stdout().is_terminal();
    let mut before = BTreeMap::new();
    if !stream {
        before = look(&mut engine, given, &named)?.into_iter().collect();
        thread::sleep(GLANCE);
    }
    loop {
        let sample = look(&mut engine, given, &named)?;
        let truncate = !given.on("no-trunc");
        let row = |(id, now): &(ContainerId, ContainerUsage)| usage::row(id, now, before.get(id), truncate);
        let rows: Vec<_> = sample.iter().map(row).collect();
        let text = listing::render(given.text("format"), TABLE, usage::TITLES, &rows)?;
        if in_place {
            // To the upper left corner, each line cleared behind it, and all below.
            let text = output::escaped(&text).replace('\n', "\x1b[K\n");
            output::raw(format!("\x1b[H{text}\x1b[J").as_bytes())?;
        } else {
            output::data(&text)?;
        }
        if !stream {
            return Ok(0);
        }
        before = sample.into_iter().collect();
        thread::sleep(interval);
    }
}

/// What is used now. A container that is gone is shown no more.
fn look(engine: &mut Engine, given: &ArgMatches, named: &[ContainerId]) -> Result<Sample, Failure> {
    let ids = if named.is_empty() {
        let query = ListQuery { all: given.on("all"), ..ListQuery::default() };
        engine.list(&query)?.into_iter().map(|container| container.id).collect()
    } else {
        named.to_vec()
    };
    let mut sample = Vec::new();
    for id in ids {
        match engine.usage(&id) {
            Ok(usage) => sample.push((id, usage)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sample)
}
