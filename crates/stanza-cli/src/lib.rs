//! The command line of stanza: words in, one engine call, text out.
//!
//! ```text
//! argv --door--> command word --arguments--> matches --flags--> ContainerConfig --engine--> render/format --> stdout
//! ```
//!
//! `door.rs` finds the command and prints the one failure; `commands/` has a file for each command; `flags/` reads what
//! options mean; `format/` has tables and Go templates; `render/` gives what the engine knows Docker's shape.
//!
//! Invariants: nothing is decided here that another door would have to decide again; standard output is data, standard
//! error is talk; an option that is not built is refused by name, never ignored; only the command that was asked for is
//! built for the parser, since starting a container takes a few milliseconds in all.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod door;
mod failure;
mod flags;
mod format;
mod help;
mod output;
mod output_file;
mod progress;
mod render;

use std::process::ExitCode;

/// The program: reads the arguments of this process, does what they say, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    ExitCode::from(door::enter(&words))
}
