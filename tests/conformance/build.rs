//! Compiles the probe, which the cases run inside containers: static, so that it needs nothing of the root file system.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=probe/probe.c");
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a directory")).join("probe");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&compiler)
        .args(["-static", "-O1", "-Wall", "-Wextra", "-o"])
        .arg(&output)
        .arg("probe/probe.c")
        .status()
        .unwrap_or_else(|error| panic!("cannot run `{compiler}`: {error}"));
    assert!(status.success(), "`{compiler}` cannot compile `probe/probe.c`: {status}");
}
