//! How the store fails.

use std::io;
use std::path::{Path, PathBuf};

use stanza_spec::{Classify, Digest, ErrorKind, ReferenceError};

use crate::document::DocumentError;

/// Why the content store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// `oci-layout` is not of version 1.
    #[error("image store `{}` has the layout version `{version}`, expected `1.0.0`", path.display())]
    Layout {
        /// The file `oci-layout`.
        path: PathBuf,
        /// What it says.
        version: String,
    },
    /// `index.json` does not parse.
    #[error("image store index `{}` is damaged", path.display())]
    Index {
        /// The file `index.json`.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// A blob that should be there is not.
    #[error("blob `{digest}` is not in the image store")]
    Missing {
        /// Which blob.
        digest: Digest,
    },
    /// A blob has other content than its digest says.
    #[error("blob `{expected}` has the wrong content: its digest is `{actual}`")]
    Corrupt {
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("blob `{digest}` has {actual} bytes, expected {expected}")]
    Size {
        /// Which blob.
        digest: Digest,
        /// Bytes that the descriptor claims.
        expected: u64,
        /// Bytes that there are; for a blob that is too long, as many as were read.
        actual: u64,
    },
    /// A manifest, index or configuration cannot be used.
    #[error("document `{digest}` cannot be used: {reason}")]
    Document {
        /// Which blob.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The table of a zstd:chunked layer is not to be gone by.
    #[error("the zstd:chunked table of the layer `{digest}` is wrong")]
    Table {
        /// Which blob.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tag was asked for with a digest in it.
    #[error("cannot tag as `{name}`: a name with a digest cannot be given")]
    TagDigest {
        /// The name.
        name: String,
    },
}

impl StoreError {
    /// A document that does not pass, with the whole reason.
    pub(crate) fn document(digest: &Digest, error: &DocumentError) -> StoreError {
        let mut reason = error.to_string();
        if let DocumentError::Json(source) = error {
            reason = format!("{reason}: {source}");
        }
        StoreError::Document { digest: digest.clone(), reason }
    }
}

impl Classify for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            StoreError::Io { source, .. } => ErrorKind::of_io(source),
            StoreError::Layout { .. } => ErrorKind::Unsupported,
            StoreError::Index { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Size { .. }
            | StoreError::Table { .. }
            | StoreError::Document { .. } => ErrorKind::Corrupt,
            StoreError::Missing { .. } => ErrorKind::NotFound,
            StoreError::TagDigest { .. } => ErrorKind::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, for example with `stanza image prune`".to_owned())
            }
            StoreError::Missing { .. } => Some("the image was removed meanwhile; pull it again".to_owned()),
            StoreError::Corrupt { .. } | StoreError::Size { .. } => {
                Some("repair it with `stanza image verify --repair`".to_owned())
            }
            _ => None,
        }
    }
}

/// Why a name does not lead to an image.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nothing in the store has this name or id.
    #[error("no such image: `{name}`")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// The id prefix fits several images.
    #[error("image id prefix `{name}` is ambiguous: it fits {count} images")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many images it fits.
        count: usize,
    },
    /// Neither a reference nor an id.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for ResolveError {
    fn kind(&self) -> ErrorKind {
        match self {
            ResolveError::NotFound { .. } => ErrorKind::NotFound,
            ResolveError::Ambiguous { .. } | ResolveError::Name(_) => ErrorKind::InvalidArgument,
            // Found by name, but its content is gone: damage, not absence.
            ResolveError::Store(StoreError::Missing { .. }) => ErrorKind::Corrupt,
            ResolveError::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ResolveError::NotFound { name } => Some(format!("fetch it with `stanza pull {name}`")),
            ResolveError::Ambiguous { .. } => Some("give more digits of the id".to_owned()),
            ResolveError::Name(_) => None,
            ResolveError::Store(error) => error.hint(),
        }
    }
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The name leads nowhere.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The id of an image that has several names, without force.
    #[error("cannot remove image `{id}`: it has {count} names in several repositories")]
    SeveralNames {
        /// The short id.
        id: String,
        /// How many names it has.
        count: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for RemoveError {
    fn kind(&self) -> ErrorKind {
        match self {
            RemoveError::Resolve(error) => error.kind(),
            RemoveError::SeveralNames { .. } => ErrorKind::Conflict,
            RemoveError::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            RemoveError::Resolve(ResolveError::NotFound { .. }) => {
                Some("`stanza images` lists what there is".to_owned())
            }
            RemoveError::Resolve(error) => error.hint(),
            RemoveError::SeveralNames { .. } => Some("remove it by name, or with `--force`".to_owned()),
            RemoveError::Store(error) => error.hint(),
        }
    }
}

/// Adds the action and the path to a failing call.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { action, path: path.to_owned(), source })
    }
}
