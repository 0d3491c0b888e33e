//! `stanza manifest inspect`.

use clap::{ArgMatches, Command};
use stanza_engine::{Connections, Remote};

use super::tag::remote_reference;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::render::document;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["manifest inspect"],
    group: Group::Image,
    about: "Show a manifest or index as a registry has it",
    needs: Needs::Nothing,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "manifest inspect",
        "stanza manifest inspect [OPTIONS] NAME[:TAG|@DIGEST]",
        ENTRY.about,
        "Example:\n  stanza manifest inspect busybox",
    )
    .arg(switch("insecure", None, "Take any certificate, and plain HTTP"))
    .arg(switch("tls-verify", None, "Ask for HTTPS with a known certificate (default true but on loopback)"))
    .arg(switch("verbose", 'v', "Show digests and platforms, and of an index every manifest"))
    .arg(word("NAME"))
}

/// Whether the registry must prove who it is.
fn tls_verify(given: &ArgMatches) -> bool {
    given.choice("tls-verify").unwrap_or(!given.on("insecure"))
}

fn run(_: &mut Door, given: &ArgMatches) -> Outcome {
    let name = remote_reference(given.text("NAME").unwrap_or_default())?;
    let connections = Connections::load()?;
    let remote = Remote::new(&name, tls_verify(given), &connections)?;
    let found = remote.document()?;
    let text = if given.on("verbose") {
        let children = remote.children(&found)?;
        if children.is_empty() {
            let platform = remote.platform(&found)?;
            document::verbose(&name.to_string(), &found, platform.as_ref())
        } else {
            let shown: Vec<String> = children
                .iter()
                .map(|child| {
                    let reference = format!("{name}@{}", child.digest);
                    document::verbose(&reference, child, child.platform.as_ref())
                })
                .collect();
            format!("[{}]", shown.join(","))
        }
    } else {
        String::from_utf8(found.bytes)
            .map_err(|_| Failure::new(stanza_spec::ErrorKind::Corrupt, "the manifest is not text"))?
    };
    output::line(&document::indent(&text)).map(|()| 0)
}
