//! The program that a guest's kernel starts as its first process.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // Not in a machine of its own: the channel is standard input.
        ["--serve"] => stanza_agent::guest::serve(),
        // The kernel hands on words of its command line that it does not know.
        _ => stanza_agent::guest::boot(),
    }
}
