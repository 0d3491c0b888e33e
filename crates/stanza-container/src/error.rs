//! Why a process did not start, on both sides of the clone: the child fails with a [`Failure`], which travels as JSON
//! and becomes a [`LaunchError`] in the parent.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stanza_spec::{Classify, ErrorKind};

/// Why a process could not be started in a container.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The kernel refused the new process or a namespace.
    #[error("failed to create the container's namespaces")]
    Clone(#[source] io::Error),
    /// The program does not exist in the container.
    #[error("exec: `{0}`: executable file not found in $PATH")]
    CommandNotFound(String),
    /// A path was given, and nothing is there (or its interpreter is missing).
    #[error("exec: `{0}`: no such file or directory")]
    NoSuchCommand(String),
    /// The program exists and cannot be executed.
    #[error("exec: `{command}`")]
    CommandNotExecutable {
        /// The program as asked for.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("failed to enter the working directory `{}`", path.display())]
    WorkingDirectory {
        /// As asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The user or group is not in the container's files.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// As above, for a group.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// A mount failed.
    #[error("failed to mount at `{}`", destination.display())]
    Mount {
        /// Where in the container.
        destination: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The child ended without a word, before its program ran.
    #[error("the container's first process was killed while it was set up")]
    Died,
    /// What the caller does for the container once it exists failed.
    #[error("{0}")]
    Around(String),
    /// Another step failed.
    #[error("failed to {step}")]
    Step {
        /// What was tried.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration asks for something impossible.
    #[error("{0}")]
    Configuration(String),
}

impl Classify for LaunchError {
    fn kind(&self) -> ErrorKind {
        match self {
            LaunchError::CommandNotFound(_) | LaunchError::NoSuchCommand(_) => ErrorKind::CommandNotFound,
            LaunchError::CommandNotExecutable { .. } => ErrorKind::CommandNotExecutable,
            LaunchError::UnknownUser(_) | LaunchError::UnknownGroup(_) | LaunchError::Configuration(_) => {
                ErrorKind::InvalidArgument
            }
            LaunchError::WorkingDirectory { .. } => ErrorKind::CommandNotExecutable,
            LaunchError::Clone(source)
            | LaunchError::Mount { source, .. }
            | LaunchError::Step { source, .. } => ErrorKind::of_io(source),
            LaunchError::Around(_) | LaunchError::Died => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            LaunchError::Clone(source) if source.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) => {
                "the kernel's limit of namespaces is reached: see /proc/sys/user/max_*_namespaces".to_owned()
            }
            LaunchError::NoSuchCommand(_) => {
                "the file, or the interpreter that its first line or its ELF header names, is not in the image".to_owned()
            }
            LaunchError::CommandNotExecutable { source, .. } => match ErrorKind::of_io(source) {
                ErrorKind::PermissionDenied => {
                    "it is a directory, lacks the execute permission for the user, or its file system is mounted noexec"
                        .to_owned()
                }
                _ => "it is not a program of this machine's architecture, or a script without `#!` line".to_owned(),
            },
            LaunchError::Died => "its memory limit may be too small for the set-up, which needs about 2 MiB".to_owned(),
            LaunchError::UnknownUser(_) => "a number works without an entry in the image's /etc/passwd".to_owned(),
            _ => return None,
        })
    }
}

impl LaunchError {
    /// The same as the child says it.
    pub(crate) fn into_failure(self) -> Failure {
        let source = std::error::Error::source(&self).and_then(|source| source.downcast_ref::<io::Error>());
        let errno = source.and_then(io::Error::raw_os_error).unwrap_or(0);
        match self {
            LaunchError::Step { step, .. } => Failure { what: What::Step(step), errno },
            LaunchError::Clone(_) => {
                Failure { what: What::Step("create the container's namespaces".to_owned()), errno }
            }
            other => Failure::configuration(other.to_string()),
        }
    }
}

/// What failed in the child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum What {
    CommandNotFound(String),
    NoSuchCommand(String),
    CommandNotExecutable(String),
    WorkingDirectory(PathBuf),
    UnknownUser(String),
    UnknownGroup(String),
    Mount(PathBuf),
    Around(String),
    Step(String),
    Configuration(String),
}

/// A failure in the child, with the kernel's error number (0 when it was not the kernel).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) what: What,
    pub(crate) errno: i32,
}

impl Failure {
    pub(crate) fn new(what: What, error: &io::Error) -> Failure {
        Failure { what, errno: error.raw_os_error().unwrap_or(0) }
    }

    pub(crate) fn plain(what: What) -> Failure {
        Failure { what, errno: 0 }
    }

    /// The same without names, which may be long.
    pub(crate) fn shortened(&self) -> Failure {
        let step = match &self.what {
            What::CommandNotFound(_) | What::NoSuchCommand(_) | What::CommandNotExecutable(_) => {
                "execute the command"
            }
            What::WorkingDirectory(_) => "enter the working directory",
            What::UnknownUser(_) | What::UnknownGroup(_) => "find the user",
            What::Mount(_) => "mount",
            What::Around(_) | What::Step(_) | What::Configuration(_) => "set up the container",
        };
        Failure { what: What::Step(step.to_owned()), errno: self.errno }
    }

    pub(crate) fn configuration(text: impl Into<String>) -> Failure {
        Failure::plain(What::Configuration(text.into()))
    }
}

impl From<Failure> for LaunchError {
    fn from(failure: Failure) -> LaunchError {
        let source = if failure.errno == 0 {
            io::Error::other("unexpected answer")
        } else {
            io::Error::from_raw_os_error(failure.errno)
        };
        match failure.what {
            What::CommandNotFound(command) => LaunchError::CommandNotFound(command),
            What::NoSuchCommand(command) => LaunchError::NoSuchCommand(command),
            What::CommandNotExecutable(command) => LaunchError::CommandNotExecutable { command, source },
            What::WorkingDirectory(path) => LaunchError::WorkingDirectory { path, source },
            What::UnknownUser(user) => LaunchError::UnknownUser(user),
            What::UnknownGroup(group) => LaunchError::UnknownGroup(group),
            What::Mount(destination) => LaunchError::Mount { destination, source },
            What::Around(text) => LaunchError::Around(text),
            What::Step(step) => LaunchError::Step { step, source },
            What::Configuration(text) => LaunchError::Configuration(text),
        }
    }
}

/// Says what was being done when a system call failed.
pub(crate) trait During<T> {
    /// `failed to {step}`.
    fn during(self, step: &str) -> Result<T, Failure>;
    /// `failed to {step} `{name}``.
    fn during_on(self, step: &str, name: &Path) -> Result<T, Failure>;
    /// `failed to mount at `{destination}``.
    fn mounting(self, destination: &Path) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(What::Step(step.to_owned()), &error.into()))
    }

    fn during_on(self, step: &str, name: &Path) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(What::Step(format!("{step} `{}`", name.display())), &error.into()))
    }

    fn mounting(self, destination: &Path) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(What::Mount(destination.to_owned()), &error.into()))
    }
}
