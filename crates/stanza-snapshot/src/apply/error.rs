//! Why a layer cannot be unpacked.

use std::io;
use std::path::PathBuf;

use stanza_spec::{Classify, Digest, ErrorKind};
use stanza_tar::TarError;

/// Why a layer cannot be unpacked. Paths are as in the archive, with everything but printable ASCII escaped.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The stream is not an archive that can be read.
    #[error("cannot read the layer")]
    Archive(#[source] TarError),
    /// An entry's name is refused.
    #[error("refused the entry `{path}` of the layer: {reason}")]
    Name {
        /// The entry.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A hard link that cannot be made.
    #[error("refused the hard link `{path}` to `{target}` of the layer: {reason}")]
    Link {
        /// The link.
        path: String,
        /// Its target.
        target: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An owner that is no user or group id.
    #[error("the entry `{path}` of the layer has the owner `{uid}:{gid}`, which is not a valid id")]
    Owner {
        /// The entry.
        path: String,
        /// The user.
        uid: u64,
        /// The group.
        gid: u64,
    },
    /// An owner that this user namespace does not have.
    #[error("cannot give `{path}` of the layer to `{uid}:{gid}`: the user namespace has no such id")]
    Unmapped {
        /// The entry.
        path: String,
        /// The user.
        uid: u64,
        /// The group.
        gid: u64,
    },
    /// The file system or the kernel refuses an entry.
    #[error("cannot {action} `{path}` of the layer")]
    Entry {
        /// The entry.
        path: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// More directories than are remembered for their times.
    #[error("the layer has too many directories: their paths are longer than `{limit}` bytes in all")]
    TooManyDirectories {
        /// The limit in bytes.
        limit: usize,
    },
    /// Erofs images of this store cannot be mounted.
    #[error("this machine does not mount erofs images from `{}`", path.display())]
    NoErofs {
        /// The store's directory.
        path: PathBuf,
    },
    /// More than an erofs image or the memory to make it holds.
    #[error("the layer has more {what} than the driver `erofs` takes: `{limit}`")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The stream's digest is another.
    #[error("the layer's diff id is `{actual}` in place of `{expected}`")]
    DiffId {
        /// What the image says.
        expected: Digest,
        /// What the stream is.
        actual: Digest,
    },
    /// The store's own directories fail.
    #[error("cannot unpack a layer in `{}`", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Classify for ApplyError {
    fn kind(&self) -> ErrorKind {
        match self {
            ApplyError::Archive(TarError::Read { source, .. }) => ErrorKind::of_io(source),
            ApplyError::Archive(_)
            | ApplyError::Name { .. }
            | ApplyError::Link { .. }
            | ApplyError::Owner { .. }
            | ApplyError::TooManyDirectories { .. }
            | ApplyError::DiffId { .. } => ErrorKind::Corrupt,
            ApplyError::Unmapped { .. } | ApplyError::TooLarge { .. } | ApplyError::NoErofs { .. } => {
                ErrorKind::Unsupported
            }
            ApplyError::Entry { source, .. } | ApplyError::Store { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ApplyError::Unmapped { .. } => {
                Some("give the user a larger range of ids in /etc/subuid and /etc/subgid".to_owned())
            }
            ApplyError::NoErofs { .. } => Some(
                "it needs root and the kernel's erofs; `--storage-driver overlay` needs neither".to_owned(),
            ),
            ApplyError::TooLarge { .. } => Some("use `--storage-driver overlay`".to_owned()),
            ApplyError::DiffId { .. } => Some("remove the image and pull it again".to_owned()),
            _ => None,
        }
    }
}
