//! The agent's own program, as the program that starts machines carries it.

use std::sync::OnceLock;

use stanza_spec::{Classify, ErrorKind};

static PROGRAM: OnceLock<&'static [u8]> = OnceLock::new();

/// There is no agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this program was built without the agent that runs in virtual machines")]
pub struct NoAgent;

impl Classify for NoAgent {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unsupported
    }

    fn hint(&self) -> Option<String> {
        Some("build it without `STANZA_AGENT=none`".to_owned())
    }
}

/// Says what [`program`] is, at the start of `main`; empty for none.
pub fn provide_program(bytes: &'static [u8]) {
    // The first one counts: there is one `main`.
    let _ = PROGRAM.set(bytes);
}

/// The executable to be a guest's first process.
///
/// # Errors
/// When this program carries none.
pub fn program() -> Result<&'static [u8], NoAgent> {
    PROGRAM.get().copied().filter(|bytes| !bytes.is_empty()).ok_or(NoAgent)
}
