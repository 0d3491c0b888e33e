//! stanza: containers and virtual machines from the same images, without a daemon.
//!
//! One program, three roles, told apart by the name it is started by: the command line; the monitor that owns a running
//! container; the process that enters one for `exec`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    match name.as_deref().and_then(|name| name.to_str()) {
        Some("stanza-monitor") => exit_code(stanza_sandbox::monitor_main()),
        Some("stanza-enter") => exit_code(stanza_sandbox::enter_main()),
        _ => stanza_cli::main(),
    }
}

fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
