//! Builds the agent that runs in guests, to be part of this program: by a `cargo` of its own, since it is optimized for size and
//! linked as a whole, which nothing else here is.
//!
//! `STANZA_AGENT` says otherwise: the path of one that is built already, or `none` for a program that starts no virtual machine.
//! `cargo clippy` gets none either.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the agent is built from, by the root of the workspace.
const SOURCES: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "crates/stanza-agent/Cargo.toml",
    "crates/stanza-agent/src",
    "crates/stanza-cgroup/src",
    "crates/stanza-container/src",
    "crates/stanza-spec/src",
    "crates/stanza-sys/src",
    "patches/regex",
];

/// Static and of a fixed place like everything here (`.cargo/config.toml`), and without tables that only unwinding needs.
const FLAGS: [&str; 3] =
    ["-Ctarget-feature=+crt-static", "-Crelocation-model=static", "-Cforce-unwind-tables=no"];

fn main() -> Result<(), Box<dyn Error>> {
    for name in ["STANZA_AGENT", "RUSTC_WORKSPACE_WRAPPER"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let to = out.join("stanza-agent");
    let given = env::var("STANZA_AGENT").ok();
    let linted = env::var_os("RUSTC_WORKSPACE_WRAPPER").is_some();
    match given.as_deref() {
        Some("none") => fs::write(to, b"")?,
        None if linted => fs::write(to, b"")?,
        Some(path) => {
            println!("cargo::rerun-if-changed={path}");
            fs::copy(path, to).map_err(|error| format!("STANZA_AGENT is `{path}`: {error}"))?;
        }
        None => drop(fs::copy(build(&out)?, to)?),
    }
    Ok(())
}

fn build(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    // One that is built for tests is built quickly, and after a change only in part.
    let profile = if env::var("PROFILE")? == "release" { "agent" } else { "agent-dev" };
    let target = env::var("TARGET")?;
    let place = out.join("agent");
    let built = Command::new(env::var("CARGO")?)
        .current_dir(&root)
        .args(["build", "--quiet", "--locked", "--package", "stanza-agent", "--bin", "stanza-agent"])
        .args(["--profile", profile, "--target", &target, "--target-dir"])
        .arg(&place)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .status()?;
    if !built.success() {
        return Err("the agent for guests cannot be built".into());
    }
    Ok(place.join(target).join(profile).join("stanza-agent"))
}
