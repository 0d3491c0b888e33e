//! How a pull fails.

use stanza_spec::{Classify, Digest, ErrorKind};

use crate::policy::PolicyError;
use crate::registry::RegistryError;
use crate::sink::SinkError;
use crate::store::{ResolveError, StoreError};
use crate::unpack::UnpackError;

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry cannot be reached, refuses, or answers with nonsense.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The policy does not let it in.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The image is not made for the platform.
    #[error("`{reference}` has nothing for `{wanted}`{}", list(available))]
    Platform {
        /// The image.
        reference: String,
        /// The platform asked for.
        wanted: String,
        /// The platforms that there are.
        available: Vec<String>,
    },
    /// A manifest, index or configuration does not pass the checks.
    #[error("manifest or configuration `{digest}` of `{reference}` cannot be used: {reason}")]
    Document {
        /// The image.
        reference: String,
        /// Which document.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest is of schema version 1.
    #[error("`{reference}` has a manifest of schema version 1, which is not supported")]
    Schema1 {
        /// The image.
        reference: String,
    },
    /// Bytes are not what their digest says.
    #[error("{what} has the digest `{actual}`, expected `{expected}`")]
    Digest {
        /// Which document or blob.
        what: String,
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A blob has another size than the manifest says.
    #[error("blob `{digest}` has {actual} bytes or more, expected {expected}")]
    Size {
        /// Which blob.
        digest: Digest,
        /// What was promised.
        expected: u64,
        /// What came, or was announced.
        actual: u64,
    },
    /// The registry stopped sending, again and again.
    #[error("blob `{digest}` breaks off after {received} of {expected} bytes")]
    Truncated {
        /// Which blob.
        digest: Digest,
        /// How much came at most.
        received: u64,
        /// What was promised.
        expected: u64,
        /// The last failure of the connection, when there was one.
        source: Option<std::io::Error>,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack the layer `{digest}`")]
    Unpack {
        /// Its blob.
        digest: Digest,
        /// Why.
        source: UnpackError,
    },
    /// The layer store cannot be used.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
    /// Something else failed first.
    #[error("the pull was stopped")]
    Stopped,
    /// The store could not take it.
    #[error(transparent)]
    Store(StoreError),
    /// The image vanished from the store as soon as it was there.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

fn list(available: &[String]) -> String {
    if available.is_empty() { String::new() } else { format!(", only for `{}`", available.join("`, `")) }
}

impl PullError {
    pub(super) fn unpack(digest: &Digest, source: UnpackError) -> PullError {
        PullError::Unpack { digest: digest.clone(), source }
    }
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> PullError {
        match error {
            StoreError::Corrupt { expected, actual } => {
                PullError::Digest { what: format!("blob `{expected}`"), expected, actual }
            }
            StoreError::Size { digest, expected, actual } => PullError::Size { digest, expected, actual },
            other => PullError::Store(other),
        }
    }
}

impl Classify for PullError {
    fn kind(&self) -> ErrorKind {
        match self {
            PullError::Registry(error) => error.kind(),
            PullError::Policy(error) => error.kind(),
            PullError::Platform { .. } => ErrorKind::NotFound,
            PullError::Document { .. } | PullError::Digest { .. } | PullError::Size { .. } => {
                ErrorKind::Corrupt
            }
            PullError::Schema1 { .. } => ErrorKind::Unsupported,
            PullError::Truncated { .. } => ErrorKind::Unavailable,
            PullError::Unpack { source, .. } => source.kind(),
            PullError::Sink(error) => error.kind(),
            PullError::Thread { source } => ErrorKind::of_io(source),
            PullError::Stopped => ErrorKind::Internal,
            PullError::Store(error) => error.kind(),
            PullError::Resolve(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PullError::Registry(error) => error.hint(),
            PullError::Policy(error) => error.hint(),
            PullError::Platform { available, .. } if !available.is_empty() => {
                Some(format!("choose one with `--platform`, as `--platform {}`", available[0]))
            }
            PullError::Schema1 { .. } => {
                Some("ask for the image to be pushed again by a current tool".to_owned())
            }
            PullError::Digest { .. } | PullError::Size { .. } => Some(
                "what the registry sent was not kept; try again, or tell who runs the registry".to_owned(),
            ),
            PullError::Truncated { .. } => Some("try again later".to_owned()),
            PullError::Unpack { source, .. } => source.hint(),
            PullError::Sink(error) => error.hint(),
            PullError::Store(error) => error.hint(),
            PullError::Resolve(error) => error.hint(),
            _ => None,
        }
    }
}
