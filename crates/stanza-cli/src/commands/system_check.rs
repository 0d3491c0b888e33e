//! `stanza system check`.

use clap::{ArgMatches, Command};
use stanza_engine::FindingStatus;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value};
use crate::door::{Door, Outcome};
use crate::format::listing::{self, Row};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["system check"],
    group: Group::System,
    about: "Show what this machine offers and lacks, and what was left behind",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

const TITLES: &[(&str, &str)] = &[("Area", "AREA"), ("Status", "STATUS"), ("What", "WHAT"), ("Advice", "")];

fn build() -> Command {
    command(
        "system check",
        "stanza system check [OPTIONS]",
        ENTRY.about,
        "Example:\n  stanza system check --repair",
    )
    .arg(switch("repair", None, "Clear what was left behind"))
    .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
}

fn word(status: FindingStatus) -> &'static str {
    match status {
        FindingStatus::Ok => "ok",
        FindingStatus::Warning => "warning",
        FindingStatus::Missing => "missing",
        FindingStatus::Leftover => "leftover",
        FindingStatus::Repaired => "repaired",
    }
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let findings = door.engine()?.check(given.on("repair"))?;
    let rows: Vec<Row> = findings
        .iter()
        .map(|finding| {
            Row::default()
                .with("Area", finding.area)
                .with("Status", word(finding.status))
                .with("What", finding.what.as_str())
                .with("Advice", finding.advice.clone().unwrap_or_default())
        })
        .collect();
    output::data(&listing::render(
        given.text("format"),
        "{{.Area}}\t{{.Status}}\t{{.What}}{{with .Advice}} ({{.}}){{end}}",
        TITLES,
        &rows,
    )?)?;
    // Something that was left behind is for a script to see.
    Ok(u8::from(findings.iter().any(|finding| finding.status == FindingStatus::Leftover)))
}
