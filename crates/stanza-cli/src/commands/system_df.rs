//! `stanza system df`.

use clap::{ArgMatches, Command};
use stanza_engine::Part;
use stanza_engine::{Engine, Filters, ListQuery};
use stanza_spec::Instant;
use stanza_spec::units::human_size;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value};
use crate::door::{Door, Outcome};
use crate::format::listing::{self, Row};
use crate::output;
use crate::render::{container, image};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["system df"],
    group: Group::System,
    about: "Show how much of the disk is used",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

const TITLES: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

const TABLE: &str = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

fn build() -> Command {
    command("system df", "stanza system df [OPTIONS]", ENTRY.about, "Example:\n  stanza system df")
        .arg(switch("verbose", 'v', "Show every image and container"))
        .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    if given.on("verbose") {
        return details(&mut engine);
    }
    let usage = engine.df()?;
    let row = |kind: &str, part: &Part| {
        Row::default()
            .with("Type", kind)
            .with("TotalCount", part.total.to_string())
            .with("Active", part.active.to_string())
            .with("Size", human_size(part.size))
            .with("Reclaimable", reclaimable(part.reclaimable, part.size))
    };
    let rows = [
        row("Images", &usage.images),
        row("Containers", &usage.containers),
        row("Local Volumes", &usage.volumes),
    ];
    output::data(&listing::render(given.text("format"), TABLE, TITLES, &rows)?).map(|()| 0)
}

/// Every image and container with its size.
fn details(engine: &mut Engine) -> Outcome {
    const IMAGES: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.Containers}}";
    const CONTAINERS: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
    let now = Instant::now();
    let mut images = Vec::new();
    for row in engine.images(&Filters::default())? {
        images.extend(image::rows(&row.image, Some(row.containers), true, now));
    }
    let query = ListQuery { all: true, size: true, ..ListQuery::default() };
    let containers: Vec<Row> =
        engine.list(&query)?.iter().map(|one| container::row(one, true, now)).collect();
    let mut text = String::from("Images space usage:\n\n");
    text.push_str(&listing::render(None, IMAGES, image::TITLES, &images)?);
    text.push_str("\nContainers space usage:\n\n");
    text.push_str(&listing::render(None, CONTAINERS, container::TITLES, &containers)?);
    output::data(&text).map(|()| 0)
}

/// `12MB (50%)`.
fn reclaimable(part: u64, whole: u64) -> String {
    match (u128::from(part) * 100).checked_div(u128::from(whole)) {
        Some(percent) => format!("{} ({percent}%)", human_size(part)),
        None => human_size(part),
    }
}

#[cfg(test)]
mod tests {
    use super::reclaimable;

    #[test]
    fn shares_are_whole_percents() {
        assert_eq!((reclaimable(5, 10), reclaimable(0, 0)), ("5B (50%)".to_owned(), "0B".to_owned()));
    }
}
