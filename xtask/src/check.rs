//! `cargo xtask check`: everything that can be said of the code without running it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{cargo, have, step};
use crate::{floors, links};

/// A file past this many lines is named: it asks for a reason.
const LONG_FILE: usize = 600;

/// Runs all checks, the later ones too when one fails; whether all passed.
pub(crate) fn run() -> Result<bool, String> {
    let mut good = step("format", cargo().args(["fmt", "--all", "--check"]))?;
    good &= report("floors", &floors::check()?);
    good &= report("links of the documents", &links::check());
    name_long_files();
    good &= step(
        "lints",
        cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    good &= step(
        "links of the code's documentation",
        cargo()
            .args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D rustdoc::broken_intra_doc_links"),
    )?;
    if have("cargo-deny") {
        good &= step("dependencies", cargo().args(["deny", "--log-level", "error", "check"]))?;
    } else {
        println!("==> dependencies: skipped, no `cargo-deny` (`cargo install cargo-deny`)");
    }
    println!("==> {}", if good { "all checks passed" } else { "some checks failed" });
    Ok(good)
}

fn report(name: &str, faults: &[String]) -> bool {
    println!("==> {name}");
    for fault in faults {
        println!("error: {fault}");
    }
    faults.is_empty()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn name_long_files() {
    let mut paths = Vec::new();
    for directory in ["crates", "xtask"] {
        sources(Path::new(directory), &mut paths);
    }
    paths.sort();
    for path in paths {
        let lines = fs::read_to_string(&path).unwrap_or_default().lines().count();
        if lines > LONG_FILE {
            println!("note: {} has {lines} lines", path.display());
        }
    }
}
