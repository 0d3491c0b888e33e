//! `stanza image referrers`.

use clap::{ArgMatches, Command};
use stanza_engine::{Connections, Remote};
use stanza_spec::units::human_size;

use super::tag::remote_reference;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value, word};
use crate::door::{Door, Outcome};
use crate::format::listing::{self, Row};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image referrers"],
    group: Group::Image,
    about: "List what a registry has about an image: signatures, attestations, bills of materials",
    needs: Needs::Nothing,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "image referrers",
        "stanza image referrers [OPTIONS] NAME[:TAG|@DIGEST]",
        ENTRY.about,
        "Example:\n  stanza image referrers --artifact-type application/spdx+json localhost:5000/box:1",
    )
    .arg(value("artifact-type", None, "TYPE", "Show only those of this sort"))
    .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
    .arg(switch("tls-verify", None, "Ask for HTTPS with a known certificate (default true but on loopback)"))
    .arg(word("NAME"))
}

const TITLES: &[(&str, &str)] = &[
    ("Digest", "DIGEST"),
    ("ArtifactType", "ARTIFACT TYPE"),
    ("MediaType", "MEDIA TYPE"),
    ("Size", "SIZE"),
    ("Annotations", "ANNOTATIONS"),
];

fn run(_: &mut Door, given: &ArgMatches) -> Outcome {
    let name = remote_reference(given.text("NAME").unwrap_or_default())?;
    let connections = Connections::load()?;
    let remote = Remote::new(&name, given.choice("tls-verify").unwrap_or(true), &connections)?;
    let rows: Vec<Row> = remote
        .referrers(given.text("artifact-type"))?
        .into_iter()
        .map(|referrer| {
            Row::default()
                .with("Digest", referrer.digest.as_str())
                .with("ArtifactType", referrer.artifact_type)
                .with("MediaType", referrer.media_type)
                .with("Size", human_size(referrer.size))
                .with("Annotations", serde_json::json!(referrer.annotations))
        })
        .collect();
    let table = "{{.Digest}}\t{{.ArtifactType}}\t{{.Size}}";
    output::data(&listing::render(given.text("format"), table, TITLES, &rows)?).map(|()| 0)
}
