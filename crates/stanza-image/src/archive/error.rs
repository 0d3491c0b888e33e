//! Why an archive was not loaded.

use std::io;

use stanza_spec::{Classify, Digest, ErrorKind, ReferenceError};
use stanza_tar::TarError;

use crate::document::DocumentError;
use crate::policy::PolicyError;
use crate::sink::SinkError;
use crate::store::StoreError;

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The stream fails or does not decompress.
    #[error("cannot read the archive")]
    Read {
        /// What it said.
        source: io::Error,
    },
    /// It is no tar archive, or a damaged one.
    #[error("cannot read the archive")]
    Tar(#[from] TarError),
    /// A tar archive, but not of an image.
    #[error("the archive holds no image: neither `manifest.json` nor `index.json`")]
    NotAnImage,
    /// A file of the archive is missing, or not what it should be.
    #[error("cannot use `{path}` of the archive: {reason}")]
    Path {
        /// The file, control characters escaped.
        path: String,
        /// Why.
        reason: String,
    },
    /// A document of the archive does not pass the checks.
    #[error("cannot use the document `{path}` of the archive: {reason}")]
    Document {
        /// The file or the digest.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob or a layer is not what its digest says.
    #[error("`{path}` of the archive has the digest `{actual}`, expected `{expected}`")]
    Digest {
        /// The file.
        path: String,
        /// What the archive's documents promise.
        expected: Digest,
        /// What there is.
        actual: Digest,
    },
    /// A tag that is no reference.
    #[error("the archive names an image `{name}`")]
    Name {
        /// The tag, control characters escaped.
        name: String,
        /// Why it is none.
        source: ReferenceError,
    },
    /// An index has several images and none for this machine.
    #[error("the archive has nothing for `{wanted}`, only for `{}`", available.join("`, `"))]
    Platform {
        /// This machine's platform.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// A layer of the archive cannot be unpacked.
    #[error("cannot unpack the layer `{layer}`")]
    Unpack {
        /// The layer's diff id.
        layer: Digest,
        /// Why.
        source: SinkError,
    },
    /// There is no place to unpack layers.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The policy does not let it in.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    pub(super) fn path(path: &str, reason: &str) -> LoadError {
        LoadError::Path { path: path.escape_debug().to_string(), reason: reason.to_owned() }
    }

    pub(super) fn document(path: &str, error: &DocumentError) -> LoadError {
        let reason = match error {
            DocumentError::Json(source) => format!("{error}: {source}"),
            other => other.to_string(),
        };
        LoadError::Document { path: path.escape_debug().to_string(), reason }
    }
}

impl Classify for LoadError {
    fn kind(&self) -> ErrorKind {
        match self {
            LoadError::Read { source } => match ErrorKind::of_io(source) {
                ErrorKind::Internal => ErrorKind::Corrupt,
                kind => kind,
            },
            LoadError::Tar(_)
            | LoadError::Path { .. }
            | LoadError::Document { .. }
            | LoadError::Digest { .. } => ErrorKind::Corrupt,
            LoadError::NotAnImage | LoadError::Name { .. } => ErrorKind::InvalidArgument,
            LoadError::Platform { .. } => ErrorKind::NotFound,
            LoadError::Unpack { source, .. } | LoadError::Sink(source) => source.kind(),
            LoadError::Policy(error) => error.kind(),
            LoadError::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            LoadError::NotAnImage => {
                Some("an archive of a root file system is taken by `stanza import`".to_owned())
            }
            LoadError::Unpack { source, .. } | LoadError::Sink(source) => source.hint(),
            LoadError::Policy(error) => error.hint(),
            LoadError::Store(error) => error.hint(),
            _ => None,
        }
    }
}
