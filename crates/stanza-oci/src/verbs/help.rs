//! What `--help` and `--version` print.

use std::io::Write;

use super::VERBS;
use crate::arguments::{Flag, Verb};
use crate::context::GLOBAL_FLAGS;
use crate::failure::{Doing, Failure};

/// The version of the runtime specification that is met.
pub(crate) const SPECIFICATION: &str = "1.3.0";

fn print(text: &str) -> Result<u8, Failure> {
    std::io::stdout().write_all(text.as_bytes()).step("write to standard output")?;
    Ok(0)
}

/// The first word, `spec:` and its version are what callers look for.
pub(crate) fn version() -> Result<u8, Failure> {
    print(&format!("stanza-oci version {}\nspec: {SPECIFICATION}\n", env!("CARGO_PKG_VERSION")))
}

fn flags(flags: &[Flag]) -> String {
    let line = |flag: &Flag| {
        let dashed = |name: &&str| if name.len() == 1 { format!("-{name}") } else { format!("--{name}") };
        let names: Vec<String> = flag.names.iter().map(dashed).collect();
        let value = flag.value.map_or_else(String::new, |value| format!(" {value}"));
        format!("  {:<32} {}\n", names.join(", ") + &value, flag.help)
    };
    flags.iter().map(line).collect()
}

/// All commands and the global options.
pub(crate) fn all() -> Result<u8, Failure> {
    let verbs: String = VERBS.iter().map(|verb| format!("  {:<12} {}\n", verb.name, verb.help)).collect();
    print(&format!(
        "Usage: stanza-oci [OPTION...] COMMAND [OPTION...] [ID] [WORD...]\n\nThe OCI runtime of stanza, called in place of runc.\n\nCommands:\n{verbs}\nOptions:\n{}",
        flags(GLOBAL_FLAGS)
    ))
}

/// One command and its options.
pub(crate) fn one(verb: &Verb) -> Result<u8, Failure> {
    print(&format!(
        "Usage: stanza-oci {} [OPTION...] {}\n\n{}.\n\nOptions:\n{}",
        verb.name,
        verb.usage,
        verb.help,
        flags(verb.flags)
    ))
}
