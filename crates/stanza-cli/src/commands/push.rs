//! `stanza push`.

use clap::{ArgMatches, Command};

use super::pull::platform;
use super::tag::reference;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::progress::{Display, Stream};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["push", "image push"],
    group: Group::Common,
    about: "Send an image to a registry",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "push",
        "stanza push [OPTIONS] NAME[:TAG]",
        ENTRY.about,
        "Example:\n  stanza tag busybox localhost:5000/box:1 && stanza push localhost:5000/box:1",
    )
    .arg(switch("all-tags", 'a', "Send all tags of the repository"))
    .arg(value("digestfile", None, "FILE", "Write the digest of what was sent into this file"))
    .arg(value("platform", None, "OS/ARCH", "Of an image for several platforms, send the one for this"))
    .arg(switch("quiet", 'q', "Print the name only"))
    .arg(switch("tls-verify", None, "Ask for HTTPS with a known certificate (default true but on loopback)"))
    .arg(word("NAME"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let text = given.text("NAME").unwrap_or_default();
    let name = reference(text)?;
    let quiet = given.on("quiet");
    let all_tags = given.on("all-tags");
    // The repository's own text has no tag; a tag that was typed makes the two differ.
    let is_bare = name.tag().is_none_or(|tag| !text.ends_with(&format!(":{tag}")));
    if all_tags && !is_bare {
        return Err(Failure::usage("tag can't be used with --all-tags/-a"));
    }
    let mut display = Display::new(if quiet { Stream::Quiet } else { Stream::Stdout });
    if let Some(tag) = name.tag().filter(|_| is_bare && !all_tags) {
        display.line(&format!("Using default tag: {tag}"));
    }
    display.line(&format!("The push refers to repository [{}]", name.repository()));
    let tls_verify = given.choice("tls-verify").unwrap_or(true);
    let pushed = door.engine()?.push(&name, all_tags, platform(given)?, tls_verify, &mut display)?;
    if let Some(file) = given.text("digestfile") {
        let digests: Vec<&str> = pushed.iter().map(|one| one.digest.as_str()).collect();
        std::fs::write(file, digests.join("\n"))
            .map_err(|error| Failure::io(&format!("cannot write `{file}`"), &error))?;
    }
    match quiet {
        true if all_tags => output::line(&name.repository())?,
        true => output::line(&name.to_string())?,
        false => {}
    }
    Ok(0)
}
