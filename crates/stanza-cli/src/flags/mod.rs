//! What options mean: each file turns one family of option texts into the words of `stanza-spec`, and names what is wrong.
//!
//! Everything here is pure but for what an option says to read: environment files and seccomp profiles.

pub(crate) mod bytes;
pub(crate) mod endpoints;
pub(crate) mod environment;
pub(crate) mod hosts;
pub(crate) mod keys;
pub(crate) mod labels;
pub(crate) mod limits;
pub(crate) mod logging;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod networks;
pub(crate) mod ports;
pub(crate) mod refused;
pub(crate) mod security;

/// An option's value that cannot be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("option `{option}`: {reason}")]
pub(crate) struct FlagError {
    /// The option with its dashes.
    pub(crate) option: &'static str,
    /// What is wrong, the literal in backticks.
    pub(crate) reason: String,
    /// What to write in its place.
    pub(crate) hint: Option<String>,
    /// Docker has it, stanza not yet.
    pub(crate) unsupported: bool,
}

impl FlagError {
    fn new(option: &'static str, reason: impl Into<String>) -> FlagError {
        FlagError { option, reason: reason.into(), hint: None, unsupported: false }
    }

    fn not_built(option: &'static str, what: &str) -> FlagError {
        FlagError { unsupported: true, ..FlagError::new(option, format!("`{what}` is not built yet")) }
    }

    fn hint(mut self, hint: impl Into<String>) -> FlagError {
        self.hint = Some(hint.into());
        self
    }
}

impl stanza_spec::Classify for FlagError {
    fn kind(&self) -> stanza_spec::ErrorKind {
        if self.unsupported {
            stanza_spec::ErrorKind::Unsupported
        } else {
            stanza_spec::ErrorKind::InvalidArgument
        }
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
