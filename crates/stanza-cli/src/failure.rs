//! What went wrong, ready to be printed once.

use std::fmt;
use std::fmt::Write as _;

use stanza_spec::{Classify, ErrorKind};

/// A failure with its whole chain of causes, and perhaps what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    kind: ErrorKind,
    /// The caller closed our output: nothing to tell, and nobody to tell it to.
    silent: bool,
    /// The parser did not take an option.
    bad_option: bool,
}

impl Failure {
    /// A failure of the given kind.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, kind, silent: false, bad_option: false }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, message)
    }

    /// An option that Docker has and stanza has not.
    pub(crate) fn not_built(what: &str) -> Failure {
        Failure::new(ErrorKind::Unsupported, format!("{what} is not built yet"))
            .with_hint("leave it out; stanza refuses what it cannot do rather than ignore it")
    }

    /// Standard output is closed.
    pub(crate) fn closed_output() -> Failure {
        Failure { silent: true, ..Failure::new(ErrorKind::Unavailable, "standard output is closed") }
    }

    /// A system call of the door itself failed.
    pub(crate) fn io(what: &str, error: &std::io::Error) -> Failure {
        Failure::new(ErrorKind::of_io(error), format!("{what}: {error}"))
    }

    /// The same with a hint.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The same, as the parser's.
    #[must_use]
    pub(crate) fn bad_option(mut self) -> Failure {
        self.bad_option = true;
        self
    }

    /// Whether the parser did not take an option.
    pub(crate) fn is_bad_option(&self) -> bool {
        self.bad_option
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The kind.
    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether nothing is to be printed.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    /// The exit code of `run` and `exec`: 126 and 127 tell of the command, `otherwise` of stanza.
    pub(crate) fn command_code(&self, otherwise: u8) -> u8 {
        match self.kind {
            ErrorKind::CommandNotFound => 127,
            ErrorKind::CommandNotExecutable => 126,
            _ => otherwise,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Classify> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(message, ": {cause}");
            source = cause.source();
        }
        Failure { message, hint: error.hint(), kind: error.kind(), silent: false, bad_option: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open `x`")]
    struct Outer(#[source] std::io::Error);

    impl Classify for Outer {
        fn kind(&self) -> ErrorKind {
            ErrorKind::CommandNotFound
        }
        fn hint(&self) -> Option<String> {
            Some("look".to_owned())
        }
    }

    #[test]
    fn the_whole_chain_is_told_once() {
        let failure = Failure::from(Outer(std::io::Error::other("broken")));
        assert_eq!(failure.to_string(), "cannot open `x`: broken");
        assert_eq!((failure.hint(), failure.command_code(125)), (Some("look"), 127));
    }
}
