//! `stanza image verify`.

use clap::{ArgMatches, Command};
use stanza_engine::{Problem, Repair, Verification, VerifyOptions};
use stanza_spec::units::human_size;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::progress::{Display, Stream};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image verify"],
    group: Group::Image,
    about: "Compare what is stored with its digests, and repair it",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "image verify",
        "stanza image verify [OPTIONS] [IMAGE...]",
        ENTRY.about,
        "Example:\n  stanza image verify --repair",
    )
    .arg(switch("repair", None, "Fetch damaged blobs again, and unpack damaged layers again"))
    .arg(switch("tls-verify", None, "Ask for HTTPS with a known certificate (default true but on loopback)"))
    .arg(value("format", None, "FORMAT", "`json`"))
    .arg(clap::Arg::new("IMAGE").num_args(0..).action(clap::ArgAction::Append))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let json = match given.text("format") {
        None => false,
        Some("json") => true,
        Some(other) => return Err(Failure::usage(format!("format `{other}` is none: expected `json`"))),
    };
    let options = VerifyOptions {
        images: given.texts("IMAGE").map(str::to_owned).collect(),
        repair: given.on("repair"),
        threads: 0,
        tls_verify: given.choice("tls-verify").unwrap_or(true),
    };
    let mut display = Display::new(if json { Stream::Quiet } else { Stream::Stderr });
    let found = door.engine()?.verify(&options, &mut display)?;
    output::data(&if json { as_json(&found) } else { as_text(&found) })?;
    Ok(u8::from(!found.is_clean()))
}

fn outcome(problem: &Problem) -> (&'static str, Option<&str>) {
    match &problem.outcome {
        Repair::NotTried => ("damaged", None),
        Repair::Done => ("repaired", None),
        Repair::Failed(reason) => ("damaged", Some(reason)),
    }
}

fn as_text(found: &Verification) -> String {
    let mut text = String::new();
    for problem in &found.problems {
        let (word, reason) = outcome(problem);
        let images = match problem.images.as_slice() {
            [] => String::new(),
            images => format!(" of {}", images.join(", ")),
        };
        text.push_str(&format!("{word}: {} {}{images}: {}", problem.kind, problem.digest, problem.what));
        if let Some(reason) = reason {
            text.push_str(&format!("; not repaired: {reason}"));
        }
        text.push('\n');
    }
    for stray in &found.strays {
        text.push_str(&format!("unknown: {}\n", stray.display()));
    }
    let dropped = match found.dropped {
        0 => String::new(),
        count => format!("; {count} blobs are dropped on purpose"),
    };
    text.push_str(&format!(
        "{} blobs ({}) and {} layers verified{dropped}\n",
        found.blobs,
        human_size(found.bytes),
        found.layers
    ));
    text
}

fn as_json(found: &Verification) -> String {
    let problems: Vec<serde_json::Value> = found
        .problems
        .iter()
        .map(|problem| {
            let (word, reason) = outcome(problem);
            serde_json::json!({
                "Kind": problem.kind,
                "Digest": problem.digest.as_str(),
                "Images": problem.images,
                "Problem": problem.what,
                "Status": word,
                "Reason": reason,
            })
        })
        .collect();
    let strays: Vec<String> = found.strays.iter().map(|path| path.display().to_string()).collect();
    let value = serde_json::json!({
        "Blobs": found.blobs,
        "Bytes": found.bytes,
        "Layers": found.layers,
        "Dropped": found.dropped,
        "Problems": problems,
        "Unknown": strays,
    });
    format!("{value}\n")
}
