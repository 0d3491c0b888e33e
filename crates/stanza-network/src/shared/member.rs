//! A member's side: finding the holder or starting it, and working in the name space.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use stanza_sys::{CloneFlags, Cloned, clone_process, receive_descriptors, unshare};

use super::holder::{self, Answer};
use super::{SharedError, SharedPlan, file_failed};
use crate::inside;

/// Longer than a program that leads out may take to get ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// The holder's socket.
pub(super) const SOCKET: &str = "socket";

/// A hold on the shared name space. It is there until the last one is dropped, or its owner's process has ended.
#[derive(Debug)]
pub(crate) struct Membership {
    _holder: UnixStream,
    netns: OwnedFd,
}

impl Membership {
    /// Joins; with nobody in it, a new one is made.
    ///
    /// The caller must be single-threaded, and in the network that the name space is to lead to.
    pub(crate) fn join(plan: &SharedPlan) -> Result<Membership, SharedError> {
        let directory = &plan.directory;
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(file_failed("make the directory", directory)(error));
            }
            _ => {}
        }
        let _lock = lock(directory, FlockOperation::LockExclusive)?;
        match connect(directory)? {
            Some(member) => Ok(member),
            None => start(plan),
        }
    }

    /// Joins when somebody is in it.
    pub(crate) fn find(directory: &Path) -> Result<Option<Membership>, SharedError> {
        if !directory.join(SOCKET).exists() {
            return Ok(None);
        }
        let _lock = lock(directory, FlockOperation::LockExclusive)?;
        connect(directory)
    }

    /// Does `action` on a thread in the name space.
    pub(crate) fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T, SharedError> {
        inside::aside(self.netns.as_fd(), action).map_err(SharedError::Enter)
    }

    /// The name space.
    pub(crate) fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
}

/// The lock under which the holder is looked for, started, and ends.
pub(super) fn lock(directory: &Path, operation: FlockOperation) -> Result<File, SharedError> {
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(file_failed("open", &path))?;
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(file),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(file_failed("lock", &path)(errno.into())),
        }
    }
}

/// The socket's path through a descriptor of its directory: an address has room for 107 bytes only.
fn through(directory: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(SOCKET)
}

/// `None` when there is no holder.
fn connect(directory: &Path) -> Result<Option<Membership>, SharedError> {
    let opened = File::open(directory).map_err(file_failed("open", directory))?;
    match UnixStream::connect(through(&opened)) {
        Ok(stream) => receive(stream),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // The holder was killed.
            holder::clear(directory);
            Ok(None)
        }
        Err(error) => Err(SharedError::Silent(error)),
    }
}

fn start(plan: &SharedPlan) -> Result<Membership, SharedError> {
    let directory = File::open(&plan.directory).map_err(file_failed("open", &plan.directory))?;
    let path = plan.directory.join(SOCKET);
    holder::clear(&plan.directory);
    let netns = make()?;
    let listener = UnixListener::bind(through(&directory)).map_err(file_failed("listen at", &path))?;
    let (ours, theirs) = UnixStream::pair().map_err(SharedError::Make)?;
    match clone_process(CloneFlags::NONE, None).map_err(SharedError::Make)? {
        Cloned::Child => holder::live(plan, &listener, theirs, &netns),
        Cloned::Parent { .. } => {}
    }
    drop((theirs, listener));
    receive(ours)?.ok_or_else(|| SharedError::Silent(io::ErrorKind::UnexpectedEof.into()))
}

/// A new name space, in which there is loopback only.
fn make() -> Result<File, SharedError> {
    let make = || {
        unshare(CloneFlags::NETWORK)?;
        stanza_sys::bring_up_loopback()?;
        File::open("/proc/thread-self/ns/net")
    };
    // This thread stays where it is: who has rights over the new one only does not get back.
    std::thread::scope(|scope| scope.spawn(make).join())
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        .map_err(SharedError::Make)
}

/// The holder's answer; `None` when it had ended already.
fn receive(mut stream: UnixStream) -> Result<Option<Membership>, SharedError> {
    stream.set_read_timeout(Some(PATIENCE)).map_err(SharedError::Silent)?;
    let mut descriptors = Vec::new();
    let mut text = vec![0; 1];
    let count = receive_descriptors(&stream, &mut text, &mut descriptors).map_err(SharedError::Silent)?;
    if count == 0 {
        return Ok(None);
    }
    if let Some(netns) = descriptors.pop() {
        return Ok(Some(Membership { _holder: stream, netns }));
    }
    stream.read_to_end(&mut text).map_err(SharedError::Silent)?;
    let Answer { message, hint } =
        serde_json::from_slice(&text).map_err(|error| SharedError::Silent(error.into()))?;
    Err(SharedError::WayOut { message, hint })
}
