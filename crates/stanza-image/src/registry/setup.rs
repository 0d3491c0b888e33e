//! How the user's own files about registries fail.

use std::io;
use std::path::PathBuf;

use stanza_spec::{Classify, ErrorKind};

/// Why a setting, or what keeps credentials, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file with credentials that does not parse.
    #[error("cannot read credentials from `{}`", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A file with credentials that cannot be written.
    #[error("cannot keep credentials in `{}`", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A credential helper that fails.
    #[error("`docker-credential-{helper} {action}` fails")]
    Helper {
        /// Its name, as the file of credentials has it.
        helper: String,
        /// What it was to do.
        action: &'static str,
        /// What is wrong.
        source: io::Error,
    },
    /// A file `registries.conf` that cannot be read.
    #[error("cannot read settings of registries from `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A file `registries.conf` that does not say what it may.
    #[error("`{}`{} is wrong: {reason}", path.display(), place(*line))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1, when it is known.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A registry that `registries.conf` forbids.
    #[error("registry `{prefix}` is blocked by `{}`, so `{reference}` is not fetched", path.display())]
    Blocked {
        /// The prefix of its entry.
        prefix: String,
        /// The file with the entry.
        path: PathBuf,
        /// What was asked for.
        reference: String,
    },
}

fn place(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line},"))
}

impl Classify for SetupError {
    fn kind(&self) -> ErrorKind {
        match self {
            SetupError::Store { source, .. } | SetupError::Unreadable { source, .. } => {
                ErrorKind::of_io(source)
            }
            SetupError::Credentials { .. } | SetupError::Wrong { .. } => ErrorKind::InvalidArgument,
            SetupError::Helper { .. } => ErrorKind::Unavailable,
            SetupError::Blocked { .. } => ErrorKind::PermissionDenied,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SetupError::Helper { helper, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!(
                    "install `docker-credential-{helper}`, or take `{helper}` out of `credsStore` and `credHelpers` in \
                 `~/.docker/config.json`"
                ))
            }
            _ => None,
        }
    }
}
