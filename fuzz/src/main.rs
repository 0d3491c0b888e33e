//! Hostile configurations, images and archives, with the stable compiler: seeds are mutated at random, and nothing may panic.
//!
//! ```text
//!  corpus/<target>/* ── mutate ──▶ target ──▶ fine | refused | PANIC, or a broken promise ──▶ found/<target>-<n>
//! ```
//!
//! * `seccomp`: a profile goes through the compiler; the program must be one that the kernel takes.
//! * `config`: a configuration goes through the types, the plans of cgroups (version 1, 2, systemd) and the compiler.
//! * `runtime`: a configuration is a bundle for the program itself, `create` and `delete --force`; besides not panicking it
//!   must leave no cgroup, mount, process or state. Needs root, and its own namespaces (see `runtime.rs`).
//! * `reference`: a name is one exactly when the distribution project's expressions say so, and is read back as it was written.
//! * `manifest`: manifests, indexes and configurations are read within bounds; what is taken is within the limits.
//! * `toc`: the table of a zstd:chunked layer is read within bounds, and its place is within the layer.
//! * `dns`: a message is answered, or is none, by a container's resolver; a query is never taken for a server's answer.
//! * `host`: what a guest sends its host; whatever it is, what the host keeps is bounded, and in which pieces it comes makes no difference.
//! * `guest`: what a host sends its guest is read or refused.
//! * `tar`: an archive that is read through says what GNU tar says.
//! * `layer`: an archive is unpacked, and changes nothing outside of its directory. Needs root; works in a root of its own.
//!
//! The same seed gives the same inputs. What was found stays a test: put it into the corpus.

#![forbid(unsafe_code)]

mod archives;
mod bytes;
mod config;
mod dns;
mod guest;
mod layer;
mod manifest;
mod mutate;
mod random;
mod reference;
mod runtime;
mod seccomp;
mod tar;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use random::Random;

const USAGE: &str = "usage: stanza-fuzz config|seccomp|runtime|reference|manifest|toc|dns|host|guest|tar|layer [--seconds N] [--seed N] [--runtime PATH]";

/// What came of one input: whether it was taken, or why that is wrong.
type Outcome = Result<bool, String>;

struct Options {
    target: String,
    seconds: u64,
    seed: u64,
    runtime: Option<PathBuf>,
}

fn options() -> Option<Options> {
    let mut words = std::env::args().skip(1);
    let mut options = Options { target: words.next()?, seconds: 60, seed: 1, runtime: None };
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--seconds" => options.seconds = value.parse().ok()?,
            "--seed" => options.seed = value.parse().ok()?,
            "--runtime" => options.runtime = Some(value.into()),
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let outcome = run(&options, &corpus);
    match outcome {
        Ok(found) => ExitCode::from(u8::from(found > 0)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options, corpus: &Path) -> Result<usize, String> {
    let documents = |name: &str| Documents::new(&corpus.join(name));
    // A target may go where there is no /proc.
    let status = File::open("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let fuzz = |source: &mut dyn Source, target: &mut dyn FnMut(&[u8]) -> Outcome| {
        fuzz(options, &status, source, target)
    };
    match (options.target.as_str(), &options.runtime) {
        ("seccomp", _) => fuzz(&mut documents("seccomp")?, &mut seccomp::run),
        ("config", _) => fuzz(&mut documents("config")?, &mut config::run),
        ("runtime", Some(program)) => {
            let mut place = runtime::Place::new(program)?;
            fuzz(&mut documents("config")?, &mut |text| place.run(text))
        }
        ("manifest", _) => fuzz(&mut documents("manifest")?, &mut manifest::run),
        ("toc", _) => fuzz(&mut documents("toc")?, &mut stanza_image::fuzzing::table),
        ("dns", _) => {
            let mut target = dns::Target::new()?;
            fuzz(&mut dns::Messages, &mut |message| target.run(message))
        }
        ("host", _) => {
            let host = guest::Host::new()?;
            fuzz(&mut guest::Conversations::of_guest(), &mut |bytes| host.run(bytes))
        }
        ("guest", _) => fuzz(&mut guest::Conversations::of_host(), &mut guest::run_guest),
        ("reference", _) => {
            let mut target = reference::Target::new()?;
            fuzz(&mut reference::Names, &mut |text| target.run(text))
        }
        ("tar", _) => fuzz(&mut archives::Archives::new()?, &mut tar::run),
        ("layer", _) => {
            let mut archives = archives::Archives::new()?;
            let scene = layer::Scene::new()?;
            fuzz(&mut archives, &mut |bytes| scene.run(bytes))
        }
        _ => Err(USAGE.to_owned()),
    }
}

/// Where inputs come from.
trait Source {
    /// The seed of this number as it is; `None` when there are no more.
    fn seed(&self, number: usize) -> Option<Vec<u8>>;
    /// Something near a seed.
    fn mutated(&mut self, random: &mut Random) -> Vec<u8>;
}

/// JSON documents.
struct Documents {
    seeds: Vec<Value>,
    keys: Vec<String>,
}

impl Documents {
    fn new(corpus: &Path) -> Result<Documents, String> {
        let seeds = seeds(corpus)?;
        Ok(Documents { keys: mutate::keys(&seeds), seeds })
    }
}

impl Source for Documents {
    fn seed(&self, number: usize) -> Option<Vec<u8>> {
        self.seeds.get(number).map(|seed| seed.to_string().into_bytes())
    }

    fn mutated(&mut self, random: &mut Random) -> Vec<u8> {
        mutate::mutated(&self.seeds, &self.keys, random)
    }
}

/// No input takes longer, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// No target takes more memory, in KiB.
const MEMORY: u64 = 512 << 10;

/// Runs a target until the time is over; the number of inputs that broke something.
fn fuzz(
    options: &Options,
    status: &File,
    source: &mut dyn Source,
    target: &mut dyn FnMut(&[u8]) -> Outcome,
) -> Result<usize, String> {
    let mut random = Random::new(options.seed);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    // A panic is told below, once.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut runs, mut taken, mut found) = (0_u64, 0_u64, 0);
    while Instant::now() < end && found < 20 {
        // The seeds as they are come first.
        let seed = source.seed(usize::try_from(runs).unwrap_or(usize::MAX));
        let text = seed.unwrap_or_else(|| source.mutated(&mut random));
        runs += 1;
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&text))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            Err(format!("panic: {words}"))
        });
        let outcome = match outcome {
            Ok(_) if start.elapsed() > PATIENCE => Err(format!("it took {:?}", start.elapsed())),
            other => other,
        };
        match outcome {
            Ok(good) => taken += u64::from(good),
            Err(reason) => {
                let path = keep(&options.target, found, &text)?;
                eprintln!("input {runs} of seed {}: {reason}\n  kept in {}", options.seed, path.display());
                found += 1;
            }
        }
    }
    let most = most_memory(status);
    if most > MEMORY && options.target != "runtime" {
        return Err(format!("it took {most} KiB of memory"));
    }
    println!(
        "{}: {runs} inputs in {} s, seed {}, at most {most} KiB: {taken} taken, {} refused, {found} broke something",
        options.target,
        options.seconds,
        options.seed,
        runs - taken - found as u64
    );
    Ok(found)
}

/// `VmHWM` of this process, in KiB.
fn most_memory(status: &File) -> u64 {
    let mut bytes = [0; 4096];
    let count = status.read_at(&mut bytes, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..count]);
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn seeds(corpus: &Path) -> Result<Vec<Value>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("read {}: {error}", corpus.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(corpus).map_err(|error| failed(&error))? {
        paths.push(entry.map_err(|error| failed(&error))?.path());
    }
    paths.sort_unstable();
    let mut seeds = Vec::new();
    for path in paths {
        let text = std::fs::read(&path).map_err(|error| failed(&error))?;
        seeds.push(serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    if seeds.is_empty() { Err(failed(&"no seeds")) } else { Ok(seeds) }
}

fn keep(target: &str, number: usize, text: &[u8]) -> Result<PathBuf, String> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    let path = found.join(format!("{target}-{number}"));
    std::fs::create_dir_all(&found)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| format!("write {}: {error}", path.display()))?;
    Ok(path)
}
