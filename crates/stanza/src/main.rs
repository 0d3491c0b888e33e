//! stanza: containers and virtual machines from the same images, without a daemon.
//!
//! One program, five roles, told apart by the name it is started by or its first word: the command line; the OCI runtime
//! (`stanza oci …`, or a link `stanza-oci`); the monitor that owns a running container; the proxy that serves some ports of
//! one; the process that enters one for `exec`.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// The first process of a guest: see `build.rs`. Its pages are read when a machine is started, not before.
static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stanza-agent"));

fn main() -> ExitCode {
    stanza_agent::provide_program(AGENT);
    let mut words = std::env::args_os();
    let name = words.next();
    let name = name.as_deref().map(Path::new);
    match name.and_then(Path::to_str) {
        Some("stanza-monitor") => return exit_code(stanza_sandbox::monitor_main()),
        Some("stanza-proxy") => return exit_code(stanza_sandbox::proxy_main()),
        Some("stanza-enter") => return exit_code(stanza_sandbox::enter_main()),
        _ => {}
    }
    match name.and_then(|path| path.file_name()?.to_str()) {
        Some("stanza-oci" | "runc" | "crun") => oci(1),
        _ if words.next().is_some_and(|word| word == "oci") => oci(2),
        _ => stanza_cli::main(),
    }
}

/// The OCI runtime, with the words from `first` on.
fn oci(first: usize) -> ExitCode {
    if let Err(error) = stanza_container::run_protected() {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "stanza-oci: cannot protect its own executable from the container: {error}");
        return ExitCode::FAILURE;
    }
    let words = std::env::args_os().skip(first).map(|word| word.to_string_lossy().into_owned());
    ExitCode::from(stanza_oci::main(words.collect()))
}

fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
