//! How a push fails.

use std::io;

use stanza_spec::{Classify, Digest, ErrorKind};

use crate::pull::PullError;
use crate::registry::RegistryError;
use crate::store::{ResolveError, StoreError};

/// Why an image was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry cannot be reached, refuses, or answers with nonsense.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// No image has the name.
    #[error("tag does not exist: {name}")]
    NoTag {
        /// The name as listings show it.
        name: String,
    },
    /// No image has a name in the repository.
    #[error("An image does not exist locally with the tag: {repository}")]
    NoRepository {
        /// The repository as listings show it.
        repository: String,
    },
    /// A name by digest: the digest follows from what is pushed.
    #[error("cannot push a digest reference: `{name}`")]
    ByDigest {
        /// The name as listings show it.
        name: String,
    },
    /// A blob is in the index of images only, and the registry does not have it.
    #[error("`{name}` cannot be pushed: its blob `{digest}` is not in the image store")]
    Missing {
        /// The image.
        name: String,
        /// Which blob.
        digest: Digest,
    },
    /// A blob that is not in the store cannot be fetched again from where it came from.
    #[error("cannot fetch blob `{digest}`, which is not in the image store any more")]
    Fetch {
        /// Which blob.
        digest: Digest,
        /// Why not.
        source: Box<PullError>,
    },
    /// The index has nothing for the platform.
    #[error("`{name}` has nothing for `{wanted}`")]
    Platform {
        /// The image.
        name: String,
        /// The platform asked for.
        wanted: String,
    },
    /// A manifest or index in the store cannot be pushed.
    #[error("document `{digest}` of `{name}` cannot be pushed: {reason}")]
    Document {
        /// The image.
        name: String,
        /// Which document.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// A blob's file cannot be opened.
    #[error("cannot open blob `{digest}`")]
    Open {
        /// Which blob.
        digest: Digest,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(StoreError),
    /// The name means nothing, or is none.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl From<StoreError> for PushError {
    fn from(error: StoreError) -> PushError {
        PushError::Store(error)
    }
}

impl Classify for PushError {
    fn kind(&self) -> ErrorKind {
        match self {
            PushError::Registry(error) => error.kind(),
            PushError::Fetch { source, .. } => source.kind(),
            PushError::NoTag { .. }
            | PushError::NoRepository { .. }
            | PushError::Missing { .. }
            | PushError::Platform { .. } => ErrorKind::NotFound,
            PushError::ByDigest { .. } => ErrorKind::InvalidArgument,
            PushError::Document { .. } => ErrorKind::Corrupt,
            PushError::Open { source, .. } => ErrorKind::of_io(source),
            PushError::Store(error) => error.kind(),
            PushError::Resolve(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PushError::Registry(error) => error.hint(),
            PushError::Fetch { source, .. } => source.hint(),
            PushError::NoTag { .. } | PushError::NoRepository { .. } => {
                Some("`stanza images` lists the names; `stanza tag` gives one more".to_owned())
            }
            PushError::ByDigest { .. } => Some("push by tag: the digest comes out the same".to_owned()),
            PushError::Missing { name, .. } => {
                Some(format!("fetch it again first, with `stanza pull {name}`"))
            }
            PushError::Store(error) => error.hint(),
            PushError::Resolve(error) => error.hint(),
            _ => None,
        }
    }
}
