//! Being attached to a container: what `run`, `start -a` and `attach` share.

use std::io::IsTerminal as _;

use clap::ArgMatches;
use stanza_engine::Engine;
use stanza_sandbox::{AttachEnd, AttachOptions, Connection};
use stanza_spec::ContainerId;

use crate::arguments::Given;
use crate::door::Outcome;
use crate::failure::Failure;
use crate::flags::keys;
use crate::output;

/// How to attach.
#[derive(Debug)]
pub(super) struct Session {
    /// Forward standard input.
    pub(super) stdin: bool,
    /// The container has a terminal.
    pub(super) tty: bool,
    /// The keys that detach.
    pub(super) detach_keys: Vec<u8>,
    /// Forward signals.
    pub(super) sig_proxy: bool,
}

impl Session {
    /// What `--detach-keys` and `--sig-proxy` say.
    pub(super) fn read(given: &ArgMatches, stdin: bool, tty: bool) -> Result<Session, Failure> {
        let detach_keys = keys::detach_keys(given.text("detach-keys"))?;
        let sig_proxy = given.choice("sig-proxy").unwrap_or(true);
        Ok(Session { stdin, tty, detach_keys, sig_proxy })
    }

    /// Forwards until the container ends or the user detaches; the container's exit code.
    pub(super) fn pump(self, engine: &mut Engine, id: &ContainerId, connection: &mut Connection) -> Outcome {
        let options = AttachOptions {
            stdin: self.stdin,
            tty: self.tty,
            detach_keys: self.detach_keys,
            sig_proxy: self.sig_proxy,
        };
        match connection.attach(&options)? {
            AttachEnd::Exited(record) => {
                let code = exit_code(record.code);
                engine.finish(id)?;
                Ok(code)
            }
            AttachEnd::Detached => Ok(0),
            AttachEnd::OutputClosed => Ok(output::CLOSED_OUTPUT),
        }
    }
}

/// A container's exit code as this process's.
pub(super) fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Rows and columns of this process's terminal.
pub(super) fn console_size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout())
        .or_else(|_| rustix::termios::tcgetwinsize(std::io::stdin()))
        .ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Refuses `-i -t` without a terminal, as Docker does: raw mode would have nothing to act on.
pub(super) fn check_terminal(interactive: bool, tty: bool) -> Result<(), Failure> {
    if interactive && tty && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("the input device is not a TTY")
            .with_hint("leave `-t` out when standard input is a pipe or a file"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::exit_code;

    #[test]
    fn exit_codes_have_eight_bits() {
        assert_eq!((exit_code(0), exit_code(137), exit_code(256), exit_code(-1)), (0, 137, 0, 255));
    }
}
