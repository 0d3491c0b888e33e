//! The network name space that one user's containers share: where the bridges of a user without root are.
//!
//! ```text
//!   container        shared name space                            host
//!   eth0 ──veth────▶ bridge 10.77.0.1 ─ nft ─ tap 10.0.2.100 ───▶ pasta ───▶ the host's network
//!   container ─────▶                          ▲
//!                                             └── proxy ◀── socket of a published port
//!
//!   monitor ── stream ──┐
//!   monitor ── stream ──┴─▶ holder: keeps the name space, parent of pasta; ends with the last stream
//! ```
//!
//! It is for them what the host is for root's containers, and [`attach`](crate::attach()) does the same in it: bridges, veth
//! pairs, the nft tables. Only ports are taken on the host itself; a proxy that the container's monitor starts leads them in
//! ([`Attachment::proxied`](crate::Attachment::proxied)).
//!
//! Invariants
//! * The name space is there while a container is in it, and no longer: the holder lets go when the last stream to it has ended,
//!   however its owner died, and all that was made in the name space goes with it. pasta dies with the holder, a proxy with its
//!   monitor (`PR_SET_PDEATHSIG`).
//! * One holder: it is looked for, and started, under the lock of the directory.
//! * Who joins is in the user name space of who started the holder: the kernel lets nobody else in.
//!
//! A holder that is killed takes the way out along; containers keep each other until they end. The next one that starts makes a
//! new name space.

mod holder;
mod member;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stanza_spec::{Classify, ErrorKind, Protocol};

use crate::{EndpointsPlan, InsideError, UserModeDriver, UserModeError};

pub(crate) use member::Membership;

/// Where the shared name space is found, and what leads out of it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SharedPlan {
    /// A directory of the user's, in one that exists: the lock, the holder's socket, a mount point.
    pub directory: PathBuf,
    /// The program that leads out.
    pub driver: UserModeDriver,
    /// Its file.
    pub program: PathBuf,
}

/// Why the shared name space cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// A file of it.
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
    /// It cannot be made.
    #[error("cannot make the network name space that the user's containers share")]
    Make(#[source] io::Error),
    /// Its holder does not answer.
    #[error("the holder of the network name space that the user's containers share does not answer")]
    Silent(#[source] io::Error),
    /// Nothing leads out of it.
    #[error("{message}")]
    WayOut {
        /// What failed, in full.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// It cannot be entered.
    #[error("cannot enter the network name space that the user's containers share")]
    Enter(#[source] InsideError),
}

impl Classify for SharedError {
    fn kind(&self) -> ErrorKind {
        match self {
            SharedError::File { source, .. } | SharedError::Make(source) => ErrorKind::of_io(source),
            SharedError::Silent(_) | SharedError::WayOut { .. } => ErrorKind::Unavailable,
            SharedError::Enter(source) => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SharedError::WayOut { hint, .. } => hint.clone(),
            SharedError::Enter(source) if source.kind() == ErrorKind::PermissionDenied => {
                Some("it is of another user name space: stop the containers that are in it".to_owned())
            }
            _ => None,
        }
    }
}

impl SharedError {
    fn way_out(error: &UserModeError) -> SharedError {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        SharedError::WayOut { message, hint: error.hint() }
    }
}

/// Does `action` where the user's bridges are, in the name space that is found at `directory`; `None` when nobody is in it, and so
/// there is none. The action runs on a thread of its own.
///
/// # Errors
/// When it cannot be entered: by a process that is in another user name space.
pub fn within_shared<T: Send>(
    directory: &Path,
    action: impl FnOnce() -> T + Send,
) -> Result<Option<T>, SharedError> {
    Membership::find(directory)?.map(|member| member.run(action)).transpose()
}

/// What is done of a plan inside: all but its ports.
pub(crate) fn inner(plan: &EndpointsPlan) -> EndpointsPlan {
    EndpointsPlan { ports: Vec::new(), shared: None, ..plan.clone() }
}

/// Whether a proxy can serve it.
pub(crate) fn can_publish(protocol: Protocol) -> bool {
    protocol != Protocol::Sctp
}

fn file_failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SharedError {
    let path = path.to_owned();
    move |source| SharedError::File { what, path, source }
}

/// Whether something can be read, or the other end is gone.
fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec::default();
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}
