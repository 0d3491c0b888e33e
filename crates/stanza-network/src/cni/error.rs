//! Why a chain of plugins did not do what it was asked for.

use std::fmt;
use std::io;
use std::path::PathBuf;

use stanza_spec::{Classify, ErrorKind};

use crate::AttachError;

/// Who was called for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniCall {
    /// The network.
    pub network: String,
    /// The plugin.
    pub plugin: String,
    /// `ADD`, `CHECK`, `DEL`, `GC`, `STATUS` or `VERSION`.
    pub verb: &'static str,
}

impl fmt::Display for CniCall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} of the CNI plugin `{}` for the network `{}`",
            self.verb, self.plugin, self.network
        )
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// A name or argument cannot be handed to plugins.
    #[error("cannot join the CNI network `{network}`: {what}")]
    Argument {
        /// The network.
        network: String,
        /// What is wrong.
        what: String,
    },
    /// Something is asked for that no plugin declares to be able to do.
    #[error("the CNI network `{network}` {what}: none of its plugins declares `{capability}`")]
    Incapable {
        /// The network.
        network: String,
        /// What it does not do.
        what: &'static str,
        /// The capability.
        capability: &'static str,
    },
    /// A port of the host.
    #[error(transparent)]
    Port(#[from] AttachError),
    /// The plugin is in none of the directories.
    #[error("{call}: there is no such plugin")]
    NoPlugin {
        /// The call.
        call: CniCall,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// The plugin cannot be executed.
    #[error("cannot execute {call}")]
    Run {
        /// The call.
        call: CniCall,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It takes too long, and was killed.
    #[error("{call} was killed: it took longer than {seconds} s")]
    Late {
        /// The call.
        call: CniCall,
        /// The limit for the whole chain.
        seconds: u64,
    },
    /// The plugin says why it failed.
    #[error("{call} failed: {message} (code {code})")]
    Failed {
        /// The call.
        call: CniCall,
        /// The plugin's code; below 100 it is the specification's.
        code: u64,
        /// The plugin's message and details.
        message: String,
        /// The versions that the plugin speaks, when that was the reason.
        supported: Vec<String>,
    },
    /// The plugin's answer is none.
    #[error("{call} gives no answer that can be used: {reason}")]
    Answer {
        /// The call.
        call: CniCall,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no attachment to check.
    #[error("the container `{container}` is not in the CNI network `{network}`")]
    NotAttached {
        /// The network.
        network: String,
        /// The container.
        container: String,
    },
    /// The record of an attachment.
    #[error("cannot {what} `{}`", path.display())]
    Record {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Classify for CniError {
    fn kind(&self) -> ErrorKind {
        match self {
            CniError::Argument { .. } | CniError::Incapable { .. } => ErrorKind::InvalidArgument,
            CniError::Port(error) => error.kind(),
            CniError::NoPlugin { .. } | CniError::NotAttached { .. } => ErrorKind::NotFound,
            CniError::Run { source, .. } | CniError::Record { source, .. } => ErrorKind::of_io(source),
            CniError::Late { .. } => ErrorKind::Unavailable,
            CniError::Answer { .. } => ErrorKind::Corrupt,
            // "Error Codes" of the specification.
            CniError::Failed { code, .. } => match code {
                1 => ErrorKind::Unsupported,
                2 | 6 | 7 => ErrorKind::InvalidArgument,
                3 => ErrorKind::NotFound,
                5 | 11 | 50 | 51 => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CniError::Port(error) => error.hint(),
            CniError::Incapable { capability, .. } => Some(match *capability {
                "portMappings" => {
                    "add `{\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}` to its `plugins`"
                        .to_owned()
                }
                capability => format!(
                    "add `\"capabilities\": {{\"{capability}\": true}}` to a plugin that can do it, if there is one"
                ),
            }),
            CniError::NoPlugin { call, dirs } => {
                let dirs: Vec<String> = dirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
                Some(format!(
                    "put `{}` into one of {}, or install the package `containernetworking-plugins`",
                    call.plugin,
                    dirs.join(", ")
                ))
            }
            CniError::Failed { call, supported, .. } if !supported.is_empty() => Some(format!(
                "`{}` speaks {}: set `cniVersion` to one of them",
                call.plugin,
                supported.join(", ")
            )),
            CniError::Failed { code: 11, .. } => Some("try again in a moment".to_owned()),
            _ => None,
        }
    }
}
