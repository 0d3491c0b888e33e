//! `cargo xtask bench image`: pull, push, save and load against Docker, Podman, containerd, skopeo and a lower bound.
//!
//! The images are made here once (see [`mod@reference`]). All contenders work in one room: a network name space of its own with
//! Debian's registry on loopback, a mount name space in which each of them gets a memory file system, empty before each pull and
//! load. Every round runs each of them once, in rotating order. CPU is the user and system time of the command and all it
//! waited for, and of the daemon with all below it where there is one. The lower bound is `benches/image_floor`, in the same rounds.
//! Ratios are those of one round, and of them the median.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Workshop;
use crate::packages::is_root;
use crate::shell::cargo;

mod processes;
mod random;
mod reference;
mod report;
mod room;
mod tool;
mod works;

pub(super) use report::verdict;
use room::Room;
use tool::{TOOLS, Tool};

const PARTS: &[&str] = &["pull", "push", "save", "load", "memory"];

/// What was asked for.
#[derive(Debug)]
struct Options {
    rounds: usize,
    /// The executable under test.
    stanza: Option<PathBuf>,
    parts: Vec<String>,
    tools: Vec<Tool>,
    markdown: bool,
    json: Option<PathBuf>,
}

fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options {
        rounds: 5,
        stanza: None,
        parts: Vec::new(),
        tools: TOOLS.to_vec(),
        markdown: false,
        json: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        match word.as_str() {
            "--rounds" => {
                options.rounds = value()?.parse().map_err(|_| "`--rounds` needs a number".to_owned())?
            }
            "--stanza" => options.stanza = Some(PathBuf::from(value()?)),
            "--markdown" => options.markdown = true,
            "--json" => options.json = Some(PathBuf::from(value()?)),
            "--only" => {
                let part = value()?;
                if !PARTS.contains(&part.as_str()) {
                    return Err(format!("no part `{part}` of `bench image`; there are {}", PARTS.join(", ")));
                }
                options.parts.push(part.clone());
            }
            "--peers" => {
                let names: Vec<&str> = value()?.split(',').collect();
                options.tools.retain(|tool| {
                    let first = tool.name().split(':').next().unwrap_or_default();
                    *tool == Tool::Stanza || names.contains(&first)
                });
            }
            other => return Err(format!("`bench image` has no option `{other}`")),
        }
    }
    if options.parts.is_empty() {
        options.parts = PARTS.iter().map(|part| (*part).to_owned()).collect();
    }
    Ok(options)
}

/// The lower bound's program, built with all optimisation.
fn floor() -> Result<PathBuf, String> {
    let words = ["build", "--release", "--quiet", "--manifest-path", "benches/image_floor/Cargo.toml"];
    let mut command = cargo();
    command.args(words).args(["--target-dir", "target/bench/floor", "--message-format", "json"]);
    super::built("lower bound's", "stanza-image-floor", &mut command)
}

/// Runs the parts asked for; `false` when one could not be run.
pub(super) fn run(words: &[String]) -> Result<bool, String> {
    let options = parse(words)?;
    if !is_root() {
        return Err("the peers need root; so does this comparison".to_owned());
    }
    let stanza = match &options.stanza {
        Some(path) => fs::canonicalize(path).map_err(|error| format!("no `{}`: {error}", path.display()))?,
        None => super::executable()?,
    };
    let room = Room::open(Workshop::open(stanza)?, floor()?)?;
    println!("==> {}; {} rounds", room.workshop.describe(), options.rounds);
    let (mut good, mut text, mut report) = (true, String::new(), BTreeMap::<String, Value>::new());
    for part in &options.parts {
        println!("==> {part}");
        let mut done = |tables: Vec<report::Table>| {
            for table in tables {
                text.push_str(&format!("\n{}", table.render(options.markdown)));
                report.insert(table.work.clone(), table.document());
            }
        };
        let tools = &options.tools;
        let result = match part.as_str() {
            "pull" => works::pull(&room, tools, options.rounds).map(&mut done),
            "push" => works::push(&room, tools, options.rounds).map(&mut done),
            "save" => works::save(&room, tools, options.rounds).map(&mut done),
            "load" => works::load(&room, tools, options.rounds).map(&mut done),
            _ => works::memory(&room, tools).map(|(lines, values)| {
                text.push_str(&format!("\n{}", super::oci::render(&lines, options.markdown)));
                report.insert("memory".to_owned(), values);
            }),
        };
        if let Err(error) = result {
            println!("error: {part}: {error}");
            good = false;
        }
    }
    println!("{text}");
    if let Some(path) = &options.json {
        let document = json!({
            "machine": room.workshop.describe(), "rounds": options.rounds, "works": report
        });
        fs::write(path, document.to_string())
            .map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    }
    Ok(good)
}
