//! Why a verb failed. The texts are runc's where callers match on them.

use std::io;
use std::path::PathBuf;

use stanza_container::LaunchError;

/// Why a verb failed; the exit code is 1 for all of them, but for `run` and `exec`, which pass on their command's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The words are wrong.
    #[error("{0}")]
    Usage(String),
    /// No record of that id.
    #[error("container does not exist")]
    NoContainer,
    /// The id is taken.
    #[error("container with given ID already exists")]
    Exists,
    /// Not a name for a container.
    #[error("invalid container ID format: {0:?}")]
    Id(String),
    /// The container is in the wrong state for the verb.
    #[error("{0}")]
    State(String),
    /// The bundle or its configuration is wrong.
    #[error("{0}")]
    Configuration(String),
    /// The process could not be started.
    #[error("unable to start container process: {0}")]
    Launch(String),
    /// A file of the host cannot be used.
    #[error("{action} {}", path.display())]
    File {
        /// `open`, `write`, …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that a lower floor said.
    #[error("{0}")]
    Below(Box<dyn std::error::Error>),
    /// Another step failed.
    #[error("{step}")]
    Step {
        /// What was tried.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<LaunchError> for Failure {
    /// In runc's words.
    fn from(error: LaunchError) -> Failure {
        let because = |source: &io::Error| lower_errno(&source.to_string());
        Failure::Launch(match &error {
            LaunchError::CommandNotFound(command) => {
                format!("exec: {command:?}: executable file not found in $PATH")
            }
            LaunchError::NoSuchCommand(command) => {
                format!("exec: {command:?}: stat {command}: no such file or directory")
            }
            LaunchError::CommandNotExecutable { command, source } => {
                format!("exec: {command:?}: {}", because(source))
            }
            LaunchError::WorkingDirectory { path, source } => {
                let name = path.display();
                format!("chdir to cwd (\"{name}\") set in config.json failed: {}", because(source))
            }
            LaunchError::Mount { destination, source } => {
                let name = destination.display();
                format!(
                    "error during container init: error mounting to rootfs at \"{name}\": {}",
                    because(source)
                )
            }
            LaunchError::Step { step, source } => {
                format!("error during container init: {step}: {}", because(source))
            }
            other => format!("error during container init: {}", chain_of(other)),
        })
    }
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&lower_errno(&error.to_string()));
        cause = error.source();
    }
    text
}

impl Failure {
    /// An error of a lower floor, with all that it says.
    pub(crate) fn below(error: impl std::error::Error + 'static) -> Failure {
        Failure::Below(Box::new(error))
    }

    /// The failure and all its causes in one line, as runc's callers expect it.
    pub(crate) fn chain(&self) -> String {
        match self {
            Failure::Below(error) => chain_of(error.as_ref()),
            other => chain_of(other),
        }
    }
}

/// `No such file or directory (os error 2)` as every other program says it.
fn lower_errno(text: &str) -> String {
    match text.split_once(" (os error ") {
        Some((said, _)) => said
            .chars()
            .next()
            .map_or_else(String::new, |first| first.to_lowercase().chain(said.chars().skip(1)).collect()),
        None => text.to_owned(),
    }
}

/// Says what was being done to which file when a system call failed.
pub(crate) trait Doing<T> {
    /// `{action} {path}`.
    fn doing(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Failure>;
    /// `{step}`.
    fn step(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Failure> {
        self.map_err(|error| Failure::File { action, path: path.into(), source: error.into() })
    }

    fn step(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::Step { step: step.to_owned(), source: error.into() })
    }
}
