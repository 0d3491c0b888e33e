//! `stanza pull`.

use std::path::Path;

use clap::{Arg, ArgMatches, Command};
use stanza_image::Platforms;
use stanza_spec::Platform;

use super::tag::reference;
use super::{Entry, Faults, Group, Needs, keep_budget};
use crate::arguments::{Given, command, switch, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::flags::namespaces;
use crate::output;
use crate::progress::{Display, Stream};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["pull", "image pull"],
    group: Group::Common,
    about: "Fetch an image from a registry",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "pull",
        "stanza pull [OPTIONS] NAME[:TAG|@DIGEST]",
        ENTRY.about,
        "Example:\n  stanza pull busybox:1.36",
    )
    .arg(switch("quiet", 'q', "Print the name only"))
    .arg(value("platform", None, "OS/ARCH", "Take the image for this platform"))
    .arg(switch(
        "all-platforms",
        None,
        "Take the image for every platform that there is; unpack this machine's",
    ))
    .arg(value(
        "progress",
        None,
        "FORM",
        "Show progress as `auto`, `plain`, `tty`, `json` or `quiet` (default auto)",
    ))
    .arg(signature_policy())
    .arg(switch("tls-verify", None, "Ask for HTTPS with a known certificate (default true but on loopback)"))
    .arg(word("NAME"))
}

/// `--signature-policy`, of all commands that bring images in.
pub(super) fn signature_policy() -> Arg {
    let help = "Let in what this policy.json allows (default ~/.config/containers/policy.json or \
                /etc/containers/policy.json)";
    value("signature-policy", None, "FILE", help)
}

/// The platform that `--platform` names.
pub(super) fn platform(given: &ArgMatches) -> Result<Option<Platform>, Failure> {
    Ok(given.text("platform").map(namespaces::platform).transpose()?)
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let typed = given.text("NAME").unwrap_or_default();
    let alias = stanza_image::expand_alias(typed)?;
    let text = alias.as_deref().unwrap_or(typed);
    let name = reference(text)?;
    let platforms = match (platform(given)?, given.on("all-platforms")) {
        (Some(_), true) => {
            return Err(Failure::usage("`--platform` and `--all-platforms` exclude each other"));
        }
        (_, true) => Platforms::All,
        (Some(platform), false) => Platforms::One(platform),
        (None, false) => Platforms::default(),
    };
    let tls_verify = given.choice("tls-verify").unwrap_or(true);
    let policy = given.text("signature-policy").map(Path::new);
    let quiet = given.on("quiet");
    let mut display = match given.text("progress") {
        _ if quiet => Display::new(Stream::Quiet),
        word => Display::of(word).ok_or_else(|| {
            let word = word.unwrap_or_default();
            Failure::usage(format!(
                "`{word}` is no form of progress: expected `auto`, `plain`, `tty`, `json` or `quiet`"
            ))
        })?,
    };
    if let (None, Some(tag)) = (name.digest(), name.tag().filter(|_| !text.contains('@'))) {
        if !quiet && !text.ends_with(&format!(":{tag}")) {
            display.line(&format!("Using default tag: {tag}"));
        }
        display.line(&format!("{tag}: Pulling from {}", name.path()));
    } else {
        display.line(&format!("Pulling from {}", name.path()));
    }
    let mut engine = door.engine()?;
    let image = engine.pull(&name, platforms, tls_verify, policy, &mut display)?;
    keep_budget(&mut engine);
    let digest = display.digest.clone().unwrap_or(image.manifest);
    display.line(&format!("Digest: {digest}"));
    let status =
        if display.changed == Some(false) { "Image is up to date for" } else { "Downloaded newer image for" };
    display.line(&format!("Status: {status} {}", name.familiar()));
    output::line(&name.to_string()).map(|()| 0)
}
