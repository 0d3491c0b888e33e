//! What can go wrong around a running container, one enum per operation.

use std::io;
use std::path::PathBuf;

use crate::frame::Refusal;
pub(crate) use stanza_spec::chain;
use stanza_spec::{Classify, ErrorKind};

/// Why a container did not start. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The monitor process could not be started, or died before it answered.
    #[error("the container's monitor did not answer")]
    Monitor(#[source] io::Error),
    /// The monitor answered with a failure of its own or of the container's first process.
    #[error("{message}")]
    Refused {
        /// What failed, in full.
        message: String,
        /// What sort of failure it is.
        kind: ErrorKind,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Classify for StartError {
    fn kind(&self) -> ErrorKind {
        match self {
            StartError::Monitor(_) => ErrorKind::Internal,
            StartError::Refused { kind, .. } => *kind,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            StartError::Monitor(_) => None,
            StartError::Refused { hint, .. } => hint.clone(),
        }
    }
}

/// Why the networks of a running container were not changed, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum NetworkChangeError {
    /// The monitor does not answer.
    #[error("the container's monitor did not answer")]
    Monitor(#[from] io::Error),
    /// The monitor was refused something.
    #[error("{message}")]
    Refused {
        /// What failed, in full.
        message: String,
        /// What sort of failure it is.
        kind: ErrorKind,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Classify for NetworkChangeError {
    fn kind(&self) -> ErrorKind {
        match self {
            NetworkChangeError::Monitor(_) => ErrorKind::Internal,
            NetworkChangeError::Refused { kind, .. } => *kind,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            NetworkChangeError::Monitor(_) => None,
            NetworkChangeError::Refused { hint, .. } => hint.clone(),
        }
    }
}

/// Why a container's state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// A file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what its monitor writes.
    #[error("`{}` is corrupt", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Classify for StatusError {
    fn kind(&self) -> ErrorKind {
        match self {
            StatusError::Read { source, .. } => ErrorKind::of_io(source),
            StatusError::Corrupt { .. } => ErrorKind::Corrupt,
        }
    }
}

/// Why a client could not reach a container's monitor.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The container does not run.
    #[error("the container is not running")]
    NotRunning,
    /// The socket does not answer.
    #[error("failed to connect to the container's monitor")]
    Socket(#[source] io::Error),
}

impl Classify for ConnectError {
    fn kind(&self) -> ErrorKind {
        match self {
            ConnectError::NotRunning => ErrorKind::Conflict,
            ConnectError::Socket(source) => ErrorKind::of_io(source),
        }
    }
}

/// Why an attached client lost its container.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The monitor went away without an exit record: it was killed.
    #[error("the container's monitor went away")]
    Lost,
    /// The conversation with the monitor failed.
    #[error("failed to talk to the container's monitor")]
    Socket(#[source] io::Error),
    /// This process's own terminal or standard streams failed.
    #[error("failed to use the terminal")]
    Terminal(#[source] io::Error),
}

impl Classify for AttachError {
    fn kind(&self) -> ErrorKind {
        match self {
            AttachError::Lost => ErrorKind::Unavailable,
            AttachError::Socket(source) | AttachError::Terminal(source) => ErrorKind::of_io(source),
        }
    }
}

/// Why a signal could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The container does not run.
    #[error("the container is not running")]
    NotRunning,
    /// The kernel has no such signal.
    #[error("signal {0} does not exist")]
    NoSuchSignal(i32),
    /// The kernel refused.
    #[error("failed to signal process {pid}")]
    Send {
        /// The container's first process.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The monitor, which signals what runs in a virtual machine, does not listen.
    #[error("failed to ask the container's monitor for the signal")]
    Monitor(#[source] io::Error),
    /// The state could not be read.
    #[error(transparent)]
    Status(#[from] StatusError),
}

impl Classify for SignalError {
    fn kind(&self) -> ErrorKind {
        match self {
            SignalError::NotRunning => ErrorKind::Conflict,
            SignalError::NoSuchSignal(_) => ErrorKind::InvalidArgument,
            SignalError::Send { source, .. } | SignalError::Monitor(source) => ErrorKind::of_io(source),
            SignalError::Status(error) => error.kind(),
        }
    }
}

/// Why waiting failed.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The monitor's lock could not be watched.
    #[error("failed to wait for the container's monitor")]
    Watch(#[source] io::Error),
    /// The state could not be read.
    #[error(transparent)]
    Status(#[from] StatusError),
}

impl Classify for WaitError {
    fn kind(&self) -> ErrorKind {
        match self {
            WaitError::Watch(source) => ErrorKind::of_io(source),
            WaitError::Status(error) => error.kind(),
        }
    }
}

/// Something that a dead container left and that could not be cleared.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// A process could not be killed.
    #[error("failed to kill process {pid}")]
    Kill {
        /// Which.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A control group could not be removed.
    #[error("failed to remove the container's cgroup")]
    Cgroup(#[source] stanza_cgroup::RemoveError),
    /// A part of the network could not be removed.
    #[error("failed to remove the container's network")]
    Network(#[source] stanza_network::DetachError),
    /// Others still find it by its names.
    #[error("failed to take the container's names away")]
    Names(#[source] stanza_network::names::NamesError),
    /// A plugin did not take down what it made.
    #[error("failed to take the container out of its CNI network")]
    Cni(#[source] stanza_network::cni::CniError),
    /// A file could not be written or removed.
    #[error("failed to clear `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Classify for ClearError {
    fn kind(&self) -> ErrorKind {
        match self {
            ClearError::Kill { source, .. } | ClearError::File { source, .. } => ErrorKind::of_io(source),
            ClearError::Cgroup(_) | ClearError::Network(_) | ClearError::Names(_) => ErrorKind::Internal,
            ClearError::Cni(source) => source.kind(),
        }
    }
}

/// Why a command did not run in a running container.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The container does not run.
    #[error("the container is not running")]
    NotRunning,
    /// The process that enters the container could not be started, or died before it answered.
    #[error("the process that enters the container did not answer")]
    Spawn(#[source] io::Error),
    /// The command could not be started in the container.
    #[error("{message}")]
    Refused {
        /// What failed, in full.
        message: String,
        /// What sort of failure it is.
        kind: ErrorKind,
    },
    /// The terminal of this process failed.
    #[error("failed to use the terminal")]
    Terminal(#[source] io::Error),
    /// The state could not be read.
    #[error(transparent)]
    Status(#[from] StatusError),
}

impl Classify for ExecError {
    fn kind(&self) -> ErrorKind {
        match self {
            ExecError::NotRunning => ErrorKind::Conflict,
            ExecError::Spawn(_) => ErrorKind::Internal,
            ExecError::Refused { kind, .. } => *kind,
            ExecError::Terminal(source) => ErrorKind::of_io(source),
            ExecError::Status(error) => error.kind(),
        }
    }
}

/// A refusal as the monitor sent it.
pub(crate) fn refusal(body: &[u8]) -> StartError {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => StartError::Refused {
            message: refusal.message,
            kind: ErrorKind::of_name(&refusal.kind),
            hint: refusal.hint,
        },
        Err(error) => StartError::Monitor(error.into()),
    }
}
