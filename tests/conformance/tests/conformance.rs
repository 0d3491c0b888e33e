//! Every case on stanza-oci.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    stanza_conformance::harness()
}
