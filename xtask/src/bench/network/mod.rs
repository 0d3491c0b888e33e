//! `cargo xtask bench network`: what networks cost, against Docker, Podman and, without root, plain pasta.
//!
//! Every contender has a room of its own with an uplink, a veth pair into one more network name space, the outside:
//!
//! ```text
//!   outside ── out1 10.213.1.1 ═══ up0 10.213.1.2 ── stanza's room ── its bridges and containers
//!           ── out2 10.213.2.1 ═══ up0 10.213.2.2 ── podman's room
//!           ── out3 …
//! ```
//!
//! so the machine's own network is in none of it, and whatever ends this task ends all of them. Every round runs each
//! contender once, in rotating order. Both ends of the traffic are `benches/wire`, the same file everywhere. Compared are
//! medians; `ask` and `connect` put the samples of all rounds together. A 100-port run takes Docker seconds: it has a third of
//! the rounds. `--with-peers` adds what takes them minutes: 1,000 published ports, 1,000 containers.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::Workshop;
use crate::packages::is_root;

mod names;
mod report;
mod rootless;
mod scene;
mod starts;
mod teardown;
mod thousand;
mod traffic;

use report::Report;
use scene::{Kind, Scene};

/// The rows of the specification's table.
const PARTS: &[&str] =
    &["added", "ports", "teardown", "throughput", "rootless", "dns", "connect", "thousand"];

/// What was asked for.
#[derive(Debug)]
struct Options {
    rounds: usize,
    parts: Vec<String>,
    /// Stanza first.
    kinds: Vec<Kind>,
    /// Whether the others take part where it takes them minutes.
    with_peers: bool,
    containers: usize,
    stanza: Option<PathBuf>,
    markdown: bool,
    json: Option<PathBuf>,
}

fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options {
        rounds: 10,
        parts: Vec::new(),
        kinds: vec![Kind::Stanza, Kind::Podman, Kind::Docker],
        with_peers: false,
        containers: 1000,
        stanza: None,
        markdown: false,
        json: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        let number = |text: &String| text.parse().map_err(|_| format!("`{word}` needs a number"));
        match word.as_str() {
            "--rounds" => options.rounds = number(value()?)?,
            "--containers" => options.containers = number(value()?)?,
            "--with-peers" => options.with_peers = true,
            "--stanza" => options.stanza = Some(PathBuf::from(value()?)),
            "--markdown" => options.markdown = true,
            "--json" => options.json = Some(PathBuf::from(value()?)),
            "--peers" => {
                let names: Vec<&str> = value()?.split(',').collect();
                options.kinds.retain(|kind| *kind == Kind::Stanza || names.contains(&kind.name()));
            }
            "--only" => {
                for part in value()?.split(',') {
                    if !PARTS.contains(&part) {
                        return Err(format!(
                            "no part `{part}` of `bench network`; there are {}",
                            PARTS.join(", ")
                        ));
                    }
                    options.parts.push(part.to_owned());
                }
            }
            other => return Err(format!("`bench network` has no option `{other}`")),
        }
    }
    if options.parts.is_empty() {
        options.parts = PARTS.iter().map(|part| (*part).to_owned()).collect();
    }
    Ok(options)
}

/// Runs the parts asked for; `false` when one could not be run whole.
pub(super) fn run(words: &[String]) -> Result<bool, String> {
    let options = parse(words)?;
    if !is_root() {
        return Err("the peers need root; so does this comparison".to_owned());
    }
    let stanza = match &options.stanza {
        Some(path) => fs::canonicalize(path).map_err(|error| format!("no `{}`: {error}", path.display()))?,
        None => super::executable()?,
    };
    let scene = Scene::open(Workshop::open(stanza)?)?;
    println!("==> {}; {} rounds", scene.workshop.describe(), options.rounds);
    let shared = |part: &String| !matches!(part.as_str(), "rootless" | "connect" | "thousand");
    let engines = if options.parts.iter().any(shared) { scene.engines(&options.kinds) } else { Vec::new() };
    let (mut report, mut good) = (Report::default(), true);
    for part in &options.parts {
        println!("==> {part}");
        let done = match part.as_str() {
            "added" => starts::added(&scene, &engines, options.rounds, &mut report),
            "ports" => starts::ports(&scene, &engines, options.rounds, &mut report),
            "teardown" => teardown::run(&scene, &engines, options.rounds, &mut report),
            "throughput" => traffic::throughput(&scene, &engines, options.rounds, &mut report),
            "dns" => names::run(&engines, options.rounds, &mut report),
            "rootless" => rootless::run(&scene, &options, &mut report),
            "connect" => traffic::connect(&scene, &options, &mut report),
            _ => thousand::run(&scene, &options, &mut report),
        };
        if let Err(error) = done {
            println!("error: {part}: {error}");
            good = false;
        }
    }
    if !report.is_empty() {
        println!("\n{}", report.render(options.markdown));
    }
    if let Some(path) = &options.json {
        let document = json!({
            "machine": scene.workshop.describe(), "rounds": options.rounds, "rows": report.document()
        });
        fs::write(path, document.to_string())
            .map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    }
    Ok(good)
}
