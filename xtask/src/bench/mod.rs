//! `cargo xtask bench`: stanza, its peers and the kernel's floor, measured in turns; prints tables for
//! `docs/specification.md`.
//!
//! Every round runs each contender once, in rotating order, so that a load on the machine meets all of them. What is
//! compared are ratios of medians; the minimum stands beside it. A command is timed by `benches/measure`, which starts inside
//! the name spaces that the contender needs (see [`peers`]), so the way there does not count.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::packages::is_root;
use crate::shell::{cargo, step};

mod commands;
mod image;
mod listing;
mod measure;
mod network;
mod oci;
mod peers;
mod scale;
mod startup;
mod statistics;
mod vm;
mod workshop;

pub(crate) use measure::{Sample, Timer};
pub(crate) use peers::Peer;
pub(crate) use workshop::{Workshop, make_rootfs};

/// All benches; `startup` builds stanza three times and is run only by name.
const NAMES: &[&str] = &["run_none", "run_bridge", "exec", "ps", "scale", "startup"];
const DEFAULT: &[&str] = &["run_none", "run_bridge", "exec", "ps", "scale"];

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    names: Vec<String>,
    /// Rounds of each comparison.
    pub(crate) runs: usize,
    /// Containers of `scale`.
    pub(crate) containers: usize,
    json: Option<PathBuf>,
}

fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options { names: Vec::new(), runs: 30, containers: 1000, json: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        match word.as_str() {
            "--runs" => options.runs = value()?.parse().map_err(|_| "`--runs` needs a number".to_owned())?,
            "--containers" => {
                options.containers =
                    value()?.parse().map_err(|_| "`--containers` needs a number".to_owned())?;
            }
            "--json" => options.json = Some(PathBuf::from(value()?)),
            name if NAMES.contains(&name) => options.names.push(name.to_owned()),
            other => return Err(format!("no bench `{other}`; there are {}", NAMES.join(", "))),
        }
    }
    if options.names.is_empty() {
        options.names = DEFAULT.iter().map(|name| (*name).to_owned()).collect();
    }
    Ok(options)
}

/// The executable to measure: `STANZA_BIN`, or the release build made now.
fn executable() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("STANZA_BIN") {
        return Ok(PathBuf::from(path));
    }
    if !step("build stanza", cargo().args(["build", "--release", "--package", "stanza"]))? {
        return Err("stanza does not build".to_owned());
    }
    built(
        "release",
        "stanza",
        cargo().args(["build", "--release", "--package", "stanza", "--message-format", "json", "--quiet"]),
    )
}

/// Where cargo put the executable called `name`, by its own messages.
pub(crate) fn built(what: &str, name: &str, command: &mut Command) -> Result<PathBuf, String> {
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("the {what} build fails: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut paths = messages.filter_map(|message| {
        let ours = message["target"]["name"] == name && message["target"]["kind"][0] == "bin";
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    paths.next().ok_or_else(|| format!("the {what} build made no executable"))
}

/// Runs the benches asked for; `false` when one could not be run.
pub(crate) fn run(words: &[String]) -> Result<bool, String> {
    if let Some((first, rest)) = words.split_first()
        && first == "oci"
    {
        return oci::run(rest);
    }
    if let Some((first, rest)) = words.split_first()
        && first == "image"
    {
        return image::run(rest);
    }
    if let Some((first, rest)) = words.split_first()
        && first == "network"
    {
        return network::run(rest);
    }
    if let Some((first, rest)) = words.split_first()
        && first == "vm"
    {
        return vm::run(rest);
    }
    let options = parse(words)?;
    if !is_root() {
        return Err("the peers need root; so does this comparison".to_owned());
    }
    let workshop = Workshop::open(executable()?)?;
    println!("==> {}", workshop.describe());
    let mut report = json!({ "runs": options.runs, "machine": workshop.describe() });
    let mut good = true;
    let compared = |name: &String| matches!(name.as_str(), "run_none" | "run_bridge" | "exec");
    let peers = if options.names.iter().any(compared) { Peer::all(&workshop)? } else { Vec::new() };
    for name in &options.names {
        println!("\n==> {name}");
        let result = match name.as_str() {
            "run_none" => commands::run(&workshop, &peers, &options, "none"),
            "run_bridge" => commands::run(&workshop, &peers, &options, "bridge"),
            "exec" => commands::exec(&workshop, &peers, &options),
            "ps" => listing::run(&workshop, &options),
            "scale" => scale::run(&workshop, &options),
            _ => startup::run(&workshop, &options),
        };
        match result {
            Ok(value) => report[name.as_str()] = value,
            Err(error) => {
                println!("error: {name}: {error}");
                good = false;
            }
        }
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        fs::write(path, text).map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    }
    Ok(good)
}
