//! Asking a process that stands among a container's files (see [`stanza_container::visit()`]).
//!
//! ```text
//!  caller ── question ──▶ visitor: answers one after the other, until the line is closed
//!         ◀── answer ───
//!         ◀═══ data ═══▶  a second socket, for the bytes of one archive in either direction
//! ```

use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stanza_container::{CopyUp, LaunchError, View, Visited};
use stanza_spec::oci::runtime::Spec;
use stanza_spec::{Classify, ErrorKind, Rootfs};

use crate::error::StatusError;
use crate::frame::{self, Kind, Refusal};
use crate::status::{Status, open_init, status};

/// Which container is visited.
#[derive(Clone, Copy, Debug)]
pub enum VisitPlace<'a> {
    /// One that runs.
    Running {
        /// Its run directory.
        run_dir: &'a Path,
        /// Its state directory.
        state_dir: &'a Path,
    },
    /// One that does not; the caller keeps others from starting it.
    Standing {
        /// Its root file system.
        rootfs: &'a Rootfs,
        /// Its configuration; all of its mounts are made.
        spec: &'a Spec,
        /// Volumes that are filled first.
        copy_up: &'a [CopyUp],
        /// Nothing but what is mounted may be written.
        read_only: bool,
    },
}

/// Why a visitor does not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// The container does not run any more.
    #[error("the container does not run any more")]
    NotRunning,
    /// Its state cannot be read.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// No process can be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The conversation broke off.
    #[error("the process that visits the container does not answer")]
    Line(#[source] io::Error),
    /// It answered with a failure.
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

impl Classify for VisitError {
    fn kind(&self) -> ErrorKind {
        match self {
            VisitError::NotRunning => ErrorKind::Conflict,
            VisitError::Status(error) => error.kind(),
            VisitError::Launch(error) => error.kind(),
            VisitError::Line(_) => ErrorKind::Internal,
            VisitError::Refused { kind, .. } => *kind,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            VisitError::Launch(error) => error.hint(),
            VisitError::Refused { hint, .. } => hint.clone(),
            _ => None,
        }
    }
}

/// A process among a container's files. Dropped, it is killed.
#[derive(Debug)]
pub struct Visitor<Q, A> {
    process: OwnedFd,
    line: UnixStream,
    data: UnixStream,
    conversation: PhantomData<(Q, A)>,
}

/// Starts a visitor, whose `answer` is called there for each question.
///
/// The caller must be single-threaded.
///
/// # Errors
/// When it cannot be started. That it cannot go in is the answer to the first question.
pub fn visit<Q, A, E>(
    place: VisitPlace<'_>,
    answer: impl Fn(&View, &UnixStream, Q) -> Result<A, E>,
) -> Result<Visitor<Q, A>, VisitError>
where
    Q: Serialize + DeserializeOwned,
    A: Serialize + DeserializeOwned,
    E: Classify,
{
    let (line, their_line) = UnixStream::pair().map_err(VisitError::Line)?;
    let (data, their_data) = UnixStream::pair().map_err(VisitError::Line)?;
    let kept = [their_line.as_fd(), their_data.as_fd()];
    let work = |view: Result<View, LaunchError>| serve(&view, &their_line, &their_data, &answer);
    let process = match place {
        VisitPlace::Running { run_dir, state_dir } => {
            let Status::Running(running) = status(run_dir, state_dir)? else {
                return Err(VisitError::NotRunning);
            };
            let pidfd = open_init(&running).map_err(VisitError::Line)?.ok_or(VisitError::NotRunning)?;
            let pid = Pid::from_raw(running.pid).ok_or(VisitError::NotRunning)?;
            stanza_container::visit(Visited::Running { pid, pidfd: pidfd.as_fd() }, &kept, work)?
        }
        VisitPlace::Standing { rootfs, spec, copy_up, read_only } => {
            stanza_container::visit(Visited::Standing { rootfs, spec, copy_up, read_only }, &kept, work)?
        }
    };
    Ok(Visitor { process, line, data, conversation: PhantomData })
}

/// The visitor's side; its exit code, which nobody reads.
fn serve<Q: DeserializeOwned, A: Serialize, E: Classify>(
    view: &Result<View, LaunchError>,
    line: &UnixStream,
    data: &UnixStream,
    answer: &impl Fn(&View, &UnixStream, Q) -> Result<A, E>,
) -> i32 {
    let mut reader = frame::Reader::default();
    while let Ok((_, body)) = receive(line, &mut reader) {
        let (kind, body) = match (view, serde_json::from_slice::<Q>(&body)) {
            (Ok(view), Ok(question)) => match answer(view, data, question) {
                Ok(answer) => (Kind::Started, serde_json::to_vec(&answer)),
                Err(error) => (Kind::Failed, serde_json::to_vec(&Refusal::of(&error))),
            },
            (Err(error), _) => (Kind::Failed, serde_json::to_vec(&Refusal::of(error))),
            (_, Err(_)) => return 1,
        };
        let mut bytes = Vec::new();
        frame::push(&mut bytes, kind, &body.unwrap_or_default());
        if (&mut &*line).write_all(&bytes).is_err() {
            return 1;
        }
    }
    0
}

fn receive(line: &UnixStream, reader: &mut frame::Reader) -> io::Result<(Kind, Vec<u8>)> {
    loop {
        if let Some(frame) = reader.next()? {
            return Ok(frame);
        }
        let mut buffer = [0; 4096];
        match (&mut &*line).read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => reader.extend(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl<Q: Serialize, A: DeserializeOwned> Visitor<Q, A> {
    /// Asks, and does not wait for the answer.
    ///
    /// # Errors
    /// When the visitor is gone.
    pub fn ask(&self, question: &Q) -> Result<(), VisitError> {
        let body = serde_json::to_vec(question).map_err(|error| VisitError::Line(error.into()))?;
        let mut bytes = Vec::new();
        frame::push(&mut bytes, Kind::Plan, &body);
        (&mut &self.line).write_all(&bytes).map_err(VisitError::Line)
    }

    /// Waits for the answer to the oldest question.
    ///
    /// # Errors
    /// As the visitor says, or when it is gone.
    pub fn hear(&self) -> Result<A, VisitError> {
        let (kind, body) = receive(&self.line, &mut frame::Reader::default()).map_err(VisitError::Line)?;
        let broken = |error: serde_json::Error| VisitError::Line(error.into());
        if kind == Kind::Started {
            return serde_json::from_slice(&body).map_err(broken);
        }
        let refusal: Refusal = serde_json::from_slice(&body).map_err(broken)?;
        let Refusal { message, kind, hint } = refusal;
        Err(VisitError::Refused { message, kind: ErrorKind::of_name(&kind), hint })
    }

    /// The socket for an archive's bytes.
    #[must_use]
    pub fn data(&self) -> &UnixStream {
        &self.data
    }
}

impl<Q, A> Drop for Visitor<Q, A> {
    fn drop(&mut self) {
        // One that has ended already is only waited for.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        while let Err(Errno::INTR) = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED) {}
    }
}
