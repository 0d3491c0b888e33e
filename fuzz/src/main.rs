//! Hostile configurations against the OCI runtime, with the stable compiler: seeds are mutated at random, and nothing may panic.
//!
//! ```text
//!  corpus/<target>/*.json ── mutate ──▶ target ──▶ fine | refused | PANIC, or a broken promise ──▶ found/<target>-<n>.json
//! ```
//!
//! * `seccomp`: a profile goes through the compiler; the program must be one that the kernel takes.
//! * `config`: a configuration goes through the types, the plans of cgroups (version 1, 2, systemd) and the compiler.
//! * `runtime`: a configuration is a bundle for the program itself, `create` and `delete --force`; besides not panicking it
//!   must leave no cgroup, mount, process or state. Needs root, and its own namespaces (see `runtime.rs`).
//!
//! The same seed gives the same inputs. What was found stays a test: put it into the corpus.

#![forbid(unsafe_code)]

mod config;
mod mutate;
mod random;
mod runtime;
mod seccomp;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use random::Random;

const USAGE: &str = "usage: stanza-fuzz config|seccomp|runtime [--seconds N] [--seed N] [--runtime PATH]";

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
    let outcome = match (options.target.as_str(), &options.runtime) {
        ("seccomp", _) => fuzz(&options, &corpus.join("seccomp"), &mut seccomp::run),
        ("config", _) => fuzz(&options, &corpus.join("config"), &mut config::run),
        ("runtime", Some(program)) => match runtime::Place::new(program) {
            Ok(mut place) => fuzz(&options, &corpus.join("config"), &mut |text| place.run(text)),
            Err(error) => Err(error),
        },
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(found) => ExitCode::from(u8::from(found > 0)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a target until the time is over; the number of inputs that broke something.
fn fuzz(options: &Options, corpus: &Path, target: &mut dyn FnMut(&[u8]) -> Outcome) -> Result<usize, String> {
    let seeds = seeds(corpus)?;
    let keys = mutate::keys(&seeds);
    let mut random = Random::new(options.seed);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    // A panic is told below, once.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut runs, mut taken, mut found) = (0_u64, 0_u64, 0);
    while Instant::now() < end && found < 20 {
        // The seeds as they are come first.
        let text = match seeds.get(usize::try_from(runs).unwrap_or(usize::MAX)) {
            Some(seed) => seed.to_string().into_bytes(),
            None => mutate::mutated(&seeds, &keys, &mut random),
        };
        runs += 1;
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&text))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            Err(format!("panic: {words}"))
        });
        match outcome {
            Ok(good) => taken += u64::from(good),
            Err(reason) => {
                let path = keep(&options.target, found, &text)?;
                eprintln!("input {runs} of seed {}: {reason}\n  kept in {}", options.seed, path.display());
                found += 1;
            }
        }
    }
    println!(
        "{}: {runs} inputs in {} s, seed {}: {taken} taken, {} refused, {found} broke something",
        options.target,
        options.seconds,
        options.seed,
        runs - taken - found as u64
    );
    Ok(found)
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
    let path = found.join(format!("{target}-{number}.json"));
    std::fs::create_dir_all(&found)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| format!("write {}: {error}", path.display()))?;
    Ok(path)
}
