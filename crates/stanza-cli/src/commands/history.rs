//! `stanza history`.

use clap::{ArgMatches, Command};
use stanza_spec::Instant;
use stanza_spec::units::human_size;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value, word};
use crate::door::{Door, Outcome};
use crate::format::listing::{self, Row};
use crate::format::time;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["history", "image history"],
    group: Group::Image,
    about: "Show how an image was made",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

/// Characters of an instruction that are shown.
const CREATED_BY: usize = 45;

fn build() -> Command {
    command(
        "history",
        "stanza history [OPTIONS] IMAGE",
        ENTRY.about,
        "Example:\n  stanza history --no-trunc --format '{{.Size}} {{.CreatedBy}}' busybox",
    )
    .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
    .arg(switch("human", 'H', "Show sizes and times as people read them (default true)"))
    .arg(switch("no-trunc", None, "Do not cut texts"))
    .arg(switch("quiet", 'q', "Show ids only"))
    .arg(word("IMAGE"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let human = given.choice("human").unwrap_or(true);
    let truncate = !given.on("no-trunc");
    let (id, steps) = door.engine()?.history(given.text("IMAGE").unwrap_or_default())?;
    let now = Instant::now();
    let mut rows = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let created = step.created.as_deref().unwrap_or_default();
        let at_time = Instant::parse_rfc3339(created).map_or_else(|_| String::new(), whole_seconds);
        let by = step.created_by.replace('\t', " ");
        let size = if human { human_size(step.size) } else { step.size.to_string() };
        let id = match (at, truncate) {
            // Only the last step left an image that can be named.
            (0, true) => id.short(),
            (0, false) => id.as_str(),
            _ => "<missing>",
        };
        rows.push(
            Row::default()
                .with("ID", id)
                .with("CreatedSince", if human { time::ago(created, now) } else { at_time.clone() })
                .with("CreatedAt", at_time)
                .with("CreatedBy", if truncate { ellipsis(&by, CREATED_BY) } else { by })
                .with("Size", size)
                .with("Comment", step.comment.as_str()),
        );
    }
    let format = given.text("format");
    let text = if given.on("quiet") && format.is_none() {
        rows.iter().filter_map(|row| Some(format!("{}\n", row.fields.get("ID")?.as_str()?))).collect()
    } else {
        let time = if human { "CreatedSince" } else { "CreatedAt" };
        let table =
            format!("{{{{.ID}}}}\t{{{{.{time}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
        let titles = [
            ("ID", "IMAGE"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("CreatedBy", "CREATED BY"),
            ("Size", "SIZE"),
            ("Comment", "COMMENT"),
        ];
        listing::render(format, &table, &titles, &rows)?
    };
    output::data(&text).map(|()| 0)
}

/// RFC 3339 without a fraction.
fn whole_seconds(instant: Instant) -> String {
    let text = instant.rfc3339();
    text.get(..19).map(|text| format!("{text}Z")).unwrap_or_default()
}

/// At most `length` characters, the last one a mark when there were more.
fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_instructions_are_cut_by_characters() {
        assert_eq!(ellipsis("ähem", 4), "ähem");
        assert_eq!(ellipsis("ähemm", 4), "ähe…");
    }

    #[test]
    fn times_have_whole_seconds() {
        let instant = Instant::parse_rfc3339("2025-01-31T12:03:00.5Z").unwrap();
        assert_eq!(whole_seconds(instant), "2025-01-31T12:03:00Z");
    }
}
