//! `stanza-conformance [--runtime NAME[=PATH]]... [--area AREA]... [--case PART]... [--markdown]`: all cases on all runtimes,
//! side by side.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    stanza_conformance::table()
}
