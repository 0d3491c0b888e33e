//! `stanza system df`.

use clap::{ArgMatches, Command};
use serde_json::Value;
use stanza_engine::{Engine, ListQuery, Part};
use stanza_spec::Instant;
use stanza_spec::units::human_size;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
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
        return details(&mut engine, given.text("format"));
    }
    let usage = engine.df()?;
    let row = |kind: &str, part: &Part| {
        Row::default()
            .with("Type", kind)
            .with("TotalCount", part.total.to_string())
            .with("Active", part.active.to_string())
            .with("Size", human_size(part.size))
            .with("Bytes", part.size)
            .with("Reclaimable", reclaimable(part.reclaimable, part.size))
    };
    let rows = [
        row("Images", &usage.images),
        row("Containers", &usage.containers),
        row("Local Volumes", &usage.volumes),
        row("Build Cache", &Part::default()),
        row("Partial Images", &usage.partial),
        row("Other", &usage.other),
    ];
    output::data(&listing::render(given.text("format"), TABLE, TITLES, &rows)?).map(|()| 0)
}

/// Every image, container and volume with its size.
fn details(engine: &mut Engine, format: Option<&str>) -> Outcome {
    const IMAGES: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}";
    const CONTAINERS: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
    const VOLUMES: &str = "{{.Name}}\t{{.Links}}\t{{.Size}}";
    const VOLUME_TITLES: &[(&str, &str)] = &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];
    let json = match format.map(str::trim) {
        None | Some("" | "table") => false,
        Some("json") => true,
        Some(other) => {
            return Err(Failure::usage(format!("format `{other}` is none for `--verbose`: expected `json`")));
        }
    };
    let now = Instant::now();
    let mut images = Vec::new();
    for usage in engine.usage_by_image()? {
        for row in image::rows(&usage.image, Some(usage.containers), true, now) {
            let row = row
                .with("Size", human_size(usage.size))
                .with("SharedSize", human_size(usage.shared))
                .with("UniqueSize", human_size(usage.unique()));
            images.push(row);
        }
    }
    let query = ListQuery { all: true, size: true, ..ListQuery::default() };
    let containers: Vec<Row> =
        engine.list(&query)?.iter().map(|one| container::row(one, true, now)).collect();
    let volumes: Vec<Row> = engine
        .volume_usage()?
        .into_iter()
        .map(|volume| {
            Row::default()
                .with("Name", volume.name)
                .with("Links", volume.links.to_string())
                .with("Size", human_size(volume.size))
        })
        .collect();
    if json {
        let values = |rows: Vec<Row>| -> Vec<Value> {
            rows.into_iter().map(|row| Value::Object(row.fields)).collect()
        };
        let value = serde_json::json!({
            "Images": values(images),
            "Containers": values(containers),
            "Volumes": values(volumes),
            "BuildCache": [],
        });
        return output::line(&value.to_string()).map(|()| 0);
    }
    let mut text = String::from("Images space usage:\n\n");
    text.push_str(&listing::render(None, IMAGES, image::TITLES, &images)?);
    text.push_str("\nContainers space usage:\n\n");
    text.push_str(&listing::render(None, CONTAINERS, container::TITLES, &containers)?);
    text.push_str("\nLocal Volumes space usage:\n\n");
    text.push_str(&listing::render(None, VOLUMES, VOLUME_TITLES, &volumes)?);
    text.push_str("\nBuild cache usage: 0B\n");
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
