//! Why a container was not created.

use std::io;
use std::path::PathBuf;

use stanza_image::{ResolveError, StoreError};
use stanza_snapshot::{LinksError, PlanError};
use stanza_spec::{Classify, Digest, ErrorKind};

use crate::database::DatabaseError;
use crate::networks::NetworkError;
use crate::settings::SettingsError;
use crate::spec::SpecError;

/// Why a container was not created. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A name that no container may have.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
    /// A name that another container has.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The other container's id.
        owner: String,
    },
    /// Something that this version or this machine cannot do.
    #[error("{what} is not supported{}", because(.reason))]
    Unsupported {
        /// The option.
        what: String,
        /// Why not; empty when it is just not built.
        reason: &'static str,
    },
    /// The request cannot become a container.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The network's helper has no such option.
    #[error(transparent)]
    NetworkOption(#[from] stanza_network::OptionError),
    /// The image is not in the store, and may not be pulled or cannot be named at a registry.
    #[error(transparent)]
    Image(#[from] ResolveError),
    /// The image is there, for another platform.
    #[error("image with reference {name} was found but does not provide the specified platform ({wanted})")]
    Platform {
        /// The image.
        name: String,
        /// The platform asked for.
        wanted: String,
    },
    /// The image cannot be pulled.
    #[error(transparent)]
    Pull(#[from] Box<stanza_image::PullError>),
    /// A layer cannot be unpacked, or the root file system not be put together.
    #[error("cannot unpack the image `{image}`")]
    Unpack {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// No range of user ids is left.
    #[error("{0}")]
    Exhausted(&'static str),
    /// A file or directory.
    #[error("cannot {what} `{}`", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its networks.
    #[error(transparent)]
    Network(Box<NetworkError>),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<NetworkError> for CreateError {
    fn from(error: NetworkError) -> CreateError {
        match error {
            NetworkError::Database(error) => error.into(),
            error => CreateError::Network(Box::new(error)),
        }
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// Why an image's layers are not on disk.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The layer's blob cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob that was dropped to save space cannot be fetched again.
    #[error(transparent)]
    Fetch(#[from] Box<stanza_image::PullError>),
    /// The layer store cannot be used.
    #[error(transparent)]
    Layers(#[from] stanza_snapshot::OpenError),
    /// The layer store cannot be used.
    #[error(transparent)]
    Sink(#[from] stanza_image::SinkError),
    /// A layer cannot be unpacked.
    #[error("cannot unpack the layer `{layer}`")]
    Layer {
        /// Its diff id.
        layer: Digest,
        /// Why.
        #[source]
        source: stanza_image::UnpackError,
    },
    /// Hard links between layers cannot be made.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// The layers do not make a root file system.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The configuration file does not say which form layers shall have.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// They cannot be copied for a user namespace.
    #[error("cannot shift the owners of the layers")]
    Shift(#[source] std::io::Error),
}

impl UnpackError {
    /// Whether a layer is not there in a form that can be used, so that unpacking it may help.
    pub(crate) fn is_of_layers(&self) -> bool {
        matches!(
            self,
            UnpackError::Plan(error) | UnpackError::Links(LinksError::Layer(error))
                if matches!(error, PlanError::Missing { .. } | PlanError::NotMountable { .. } | PlanError::Damaged { .. })
        ) || matches!(self, UnpackError::Links(LinksError::Missing { .. }))
    }
}

impl Classify for UnpackError {
    fn kind(&self) -> ErrorKind {
        match self {
            UnpackError::Store(error) => error.kind(),
            UnpackError::Fetch(error) => error.kind(),
            UnpackError::Layers(error) => error.kind(),
            UnpackError::Sink(error) => error.kind(),
            UnpackError::Layer { source, .. } => source.kind(),
            UnpackError::Links(error) => error.kind(),
            UnpackError::Plan(error) => error.kind(),
            UnpackError::Settings(error) => error.kind(),
            UnpackError::Shift(source) => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            UnpackError::Store(error) => error.hint(),
            UnpackError::Fetch(error) => error.hint(),
            UnpackError::Layers(error) => error.hint(),
            UnpackError::Sink(error) => error.hint(),
            UnpackError::Layer { source, .. } => source.hint(),
            UnpackError::Links(error) => error.hint(),
            UnpackError::Plan(error) => error.hint(),
            UnpackError::Settings(error) => error.hint(),
            UnpackError::Shift(_) => None,
        }
    }
}

impl Classify for CreateError {
    fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Name(_) => ErrorKind::InvalidArgument,
            CreateError::NetworkOption(error) => error.kind(),
            CreateError::NameTaken { .. } => ErrorKind::AlreadyExists,
            CreateError::Unsupported { .. } => ErrorKind::Unsupported,
            CreateError::Spec(error) => error.kind(),
            CreateError::Image(error) => error.kind(),
            CreateError::Platform { .. } => ErrorKind::NotFound,
            CreateError::Pull(error) => error.kind(),
            CreateError::Unpack { source, .. } => source.kind(),
            CreateError::Exhausted(_) => ErrorKind::Exhausted,
            CreateError::File { source, .. } => ErrorKind::of_io(source),
            CreateError::Network(error) => error.kind(),
            CreateError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CreateError::NameTaken { name, .. } => {
                Some(format!("remove it with `stanza rm -f {name}`, or choose another `--name`"))
            }
            CreateError::Spec(error) => error.hint(),
            CreateError::Image(error) => error.hint(),
            CreateError::Platform { .. } => Some("pull it with `--pull always`".to_owned()),
            CreateError::Pull(error) => error.hint(),
            CreateError::Unpack { source, .. } => source.hint(),
            CreateError::Exhausted(_) => Some(
                "remove containers that are not needed, or run `stanza system check --repair`".to_owned(),
            ),
            CreateError::Network(error) => error.hint(),
            CreateError::Database(error) => error.hint(),
            _ => None,
        }
    }
}
