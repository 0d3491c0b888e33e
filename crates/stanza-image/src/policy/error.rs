//! How an image is refused.

use std::io;
use std::path::PathBuf;

use stanza_spec::{Classify, ErrorKind};

use crate::registry::RegistryError;

/// Why an image was not let in, or why that could not be decided: then it is not let in either.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A policy, a configuration or a key cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A policy or a file of `registries.d` is not what it should be.
    #[error("cannot use the policy `{}`: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that the policy names is none.
    #[error("cannot use the key `{key}` of the policy: {reason}")]
    Key {
        /// The file, or the field that holds it.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The policy wants what is not done here.
    #[error("the policy for `{image}` asks for `{field}`, which is not supported")]
    Unsupported {
        /// The image.
        image: String,
        /// The field of the requirement.
        field: String,
    },
    /// The policy refuses the image.
    // The words, with their capital, are those that containers/image's callers look for.
    #[error("Source image rejected: {reason}")]
    Rejected {
        /// Which rule was not kept.
        reason: String,
        /// Whether there was no signature at all.
        unsigned: bool,
    },
    /// The registry does not say which signatures it has.
    #[error("cannot fetch the signatures of `{image}`")]
    Signatures {
        /// The image.
        image: String,
        /// What the registry said.
        source: Box<RegistryError>,
    },
    /// Signatures kept beside the registry cannot be fetched.
    #[error("cannot fetch the signature `{location}`")]
    Lookaside {
        /// The file or URL.
        location: String,
        /// Why.
        source: io::Error,
    },
    /// There are more signatures than anybody needs.
    #[error("`{image}` has more than {limit} signatures")]
    TooMany {
        /// The image.
        image: String,
        /// How many are looked at.
        limit: usize,
    },
    /// The program that verifies OpenPGP signatures does not run.
    #[error("cannot run `gpgv`, which verifies OpenPGP signatures")]
    Gpgv {
        /// Why.
        source: io::Error,
    },
}

impl PolicyError {
    pub(super) fn rejected(reason: impl Into<String>) -> PolicyError {
        PolicyError::Rejected { reason: reason.into(), unsigned: false }
    }

    pub(super) fn unsigned() -> PolicyError {
        let reason = "a signature was required, but no signature exists".to_owned();
        PolicyError::Rejected { reason, unsigned: true }
    }
}

impl Classify for PolicyError {
    fn kind(&self) -> ErrorKind {
        match self {
            PolicyError::Read { source, .. } => ErrorKind::of_io(source),
            PolicyError::File { .. } | PolicyError::Key { .. } => ErrorKind::InvalidArgument,
            PolicyError::Unsupported { .. } => ErrorKind::Unsupported,
            PolicyError::Rejected { .. } | PolicyError::TooMany { .. } => ErrorKind::PermissionDenied,
            PolicyError::Signatures { source, .. } => source.kind(),
            PolicyError::Lookaside { .. } => ErrorKind::Unavailable,
            PolicyError::Gpgv { source } => match ErrorKind::of_io(source) {
                ErrorKind::NotFound => ErrorKind::Unsupported,
                kind => kind,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PolicyError::Rejected { unsigned: true, .. } => Some(
                "what must be signed is the manifest for the platform; of an index, `cosign sign --recursive` signs \
                 them all"
                    .to_owned(),
            ),
            PolicyError::Signatures { source, .. } => source.hint(),
            PolicyError::Gpgv { .. } => Some("install `gpgv` (package gpgv, or gnupg2)".to_owned()),
            _ => None,
        }
    }
}
