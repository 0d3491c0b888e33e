//! The project's own tasks: `cargo xtask check | test | bench`.
//!
//! Each runs the tools of the machine and prints what they say; nothing here ships.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a task talks to whoever runs it")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod bench;
mod check;
mod conformance;
mod floors;
mod interop;
mod kernels;
mod links;
mod packages;
mod room;
mod shell;
mod test;

const HELP: &str = "\
Usage: cargo xtask TASK

  check                                   format, lints, floors, links of the documentation, licences
  test [FILTER]                           install what the tests need, run them all
  bench [NAMES] [--runs N] [--containers N] [--json FILE]
                                          measure against the peers that are installed, print a table
  bench oci [NAMES] [--stanza PATH] [--rounds N] [--hangs N] [--stages] [--markdown] [--json FILE]
                                          the OCI runtime against runc, crun and the kernel's floor
  bench image [--only pull|push|save|load|memory] [--peers A,B] [--rounds N] [--stanza PATH] [--markdown] [--json FILE]
                                          images in and out, against the peers and a lower bound
  bench network [--only PART] [--peers A,B] [--with-peers] [--rounds N] [--stanza PATH] [--markdown] [--json FILE]
                                          networks against Docker and Podman
  conformance [--markdown] [--area A] [--case C] [--runtime NAME[=PATH]]
                                          the black-box cases on runc, crun and stanza, side by side
  interop [podman|rootless|containerd|docker] [--runtime PATH] [--only PART]
                                          the callers of an OCI runtime, with stanza's or another
";

/// The repository's root.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let rest = words.get(1..).unwrap_or_default();
    if let Err(error) = env::set_current_dir(root()) {
        println!("error: cannot enter `{}`: {error}", root().display());
        return ExitCode::FAILURE;
    }
    let done = match words.first().map(String::as_str) {
        Some("check") => check::run(),
        Some("test") => test::run(rest),
        Some("bench") => bench::run(rest),
        Some("conformance") => conformance::run(rest),
        Some("interop") => interop::run(rest),
        Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            Ok(true)
        }
        other => Err(format!("no task `{}`\n\n{HELP}", other.unwrap_or_default())),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
