//! The OCI runtime: what containerd, Docker, Podman and CRI-O call in place of runc.
//!
//! ```text
//!  words ── arguments ──▶ context (--root, --log, …) + one verb of `verbs/` ──▶ exit code
//!                                          │
//!     bundle/config.json ── bundle ──▶ stanza-container (walls)  stanza-cgroup (limits)
//!                                          │
//!     <root>/<id>/  state.json  config.json  exec.fifo           ── state
//! ```
//!
//! One file per verb. Texts of errors, the log's formats and exit codes are runc's where callers match on them.

#![forbid(unsafe_code)]

mod arguments;
mod bundle;
mod cgroups;
mod context;
mod creation;
mod criu;
mod descriptors;
mod failure;
mod foreground;
mod hooks;
mod log;
mod network;
mod process;
mod seccomp;
mod state;
mod teardown;
mod validate;
mod verbs;

use std::io::{self, Write};

use arguments::{Parsed, parse, parse_verb};
use context::{Context, GLOBAL_FLAGS};
use failure::Failure;

/// Runs the runtime with the words of a command line, the program's name left out; the exit code.
#[must_use]
pub fn main(words: Vec<String>) -> u8 {
    let (global, taken) = match parse(&words, GLOBAL_FLAGS, 1) {
        Ok(parsed) => parsed,
        Err(failure) => return log::fatal(None, &failure),
    };
    let context = match Context::new(&global) {
        Ok(context) => context,
        Err(failure) => return log::fatal(None, &failure),
    };
    let code = match run(&context, &global, &words[taken..]) {
        Ok(code) => code,
        Err(failure) => log::fatal(Some(&context), &failure),
    };
    // The standard library does it only for programs that it starts itself.
    let _ = io::stdout().flush();
    code
}

fn run(context: &Context, global: &Parsed, words: &[String]) -> Result<u8, Failure> {
    if global.is_on("version") {
        return verbs::help::version();
    }
    let Some(name) = global.words.first().filter(|_| !global.is_on("help")) else {
        return verbs::help::all();
    };
    let verb = verbs::find(name).ok_or_else(|| Failure::Usage(format!("no such command: {name}")))?;
    let own = words.iter().take_while(|word| *word != "--");
    let asks = |word: &String| matches!(word.as_str(), "--help" | "-help" | "-h");
    let asked = match verb.own_words {
        usize::MAX => own.clone().any(asks),
        // The others may be the container's command's.
        _ => own.clone().next().is_some_and(asks),
    };
    if asked {
        return verbs::help::one(verb);
    }
    log::debug(context, &format!("{name} {}", words.join(" ")));
    (verb.run)(context, &parse_verb(verb, words)?)
}
