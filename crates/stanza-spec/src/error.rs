//! The kinds of failure, one vocabulary for every door.
//!
//! A library's error enum says what was tried on what; its kind says which exit code, HTTP status or gRPC code a
//! door answers with. `docs/errors.md` holds the table.

/// What sort of failure an error is. Doors map it to their protocol's code, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing named does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The request itself is wrong, whatever the state.
    InvalidArgument,
    /// The request is right but the thing is in the wrong state for it.
    Conflict,
    /// The kernel, a file mode or a policy says no.
    PermissionDenied,
    /// A registry wants credentials, or other ones.
    Unauthorized,
    /// Something elsewhere does not answer, or answers with a failure of its own; trying again may help.
    Unavailable,
    /// Bytes are not what their digest, size or format says.
    Corrupt,
    /// Disk, memory, addresses or another resource ran out.
    Exhausted,
    /// This machine or this version cannot do it.
    Unsupported,
    /// The container's command does not exist: exit code 127.
    CommandNotFound,
    /// The container's command exists but cannot be executed: exit code 126.
    CommandNotExecutable,
    /// A broken promise inside stanza or a failing system call with no better name.
    Internal,
}

/// An error that knows its kind, and perhaps what to do about it.
pub trait Classify: std::error::Error {
    /// The kind of this failure.
    fn kind(&self) -> ErrorKind;

    /// One sentence that tells the user what to try, without full stop; `None` when there is nothing useful to say.
    fn hint(&self) -> Option<String> {
        None
    }
}

impl ErrorKind {
    /// The kind that a bare system call failure stands for.
    #[must_use]
    pub fn of_io(error: &std::io::Error) -> ErrorKind {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
            Io::StorageFull | Io::QuotaExceeded | Io::OutOfMemory => ErrorKind::Exhausted,
            Io::ConnectionRefused | Io::ConnectionReset | Io::TimedOut => ErrorKind::Unavailable,
            Io::InvalidData | Io::UnexpectedEof => ErrorKind::Corrupt,
            Io::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        }
    }
}
