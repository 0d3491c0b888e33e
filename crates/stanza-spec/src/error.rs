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

/// Kinds of failure by name, to travel between processes.
const NAMES: [(ErrorKind, &str); 13] = [
    (ErrorKind::NotFound, "not-found"),
    (ErrorKind::AlreadyExists, "already-exists"),
    (ErrorKind::InvalidArgument, "invalid-argument"),
    (ErrorKind::Conflict, "conflict"),
    (ErrorKind::PermissionDenied, "permission-denied"),
    (ErrorKind::Unauthorized, "unauthorized"),
    (ErrorKind::Unavailable, "unavailable"),
    (ErrorKind::Corrupt, "corrupt"),
    (ErrorKind::Exhausted, "exhausted"),
    (ErrorKind::Unsupported, "unsupported"),
    (ErrorKind::CommandNotFound, "command-not-found"),
    (ErrorKind::CommandNotExecutable, "command-not-executable"),
    (ErrorKind::Internal, "internal"),
];

impl ErrorKind {
    /// Its name, as it travels between processes: `not-found`.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(known, _)| *known == self).map_or("internal", |(_, name)| name)
    }

    /// The kind of that name; [`ErrorKind::Internal`] when there is none.
    #[must_use]
    pub fn of_name(name: &str) -> ErrorKind {
        NAMES.iter().find(|(_, known)| *known == name).map_or(ErrorKind::Internal, |(kind, _)| *kind)
    }

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

/// An error with its causes, as one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_travel_by_name() {
        for (kind, name) in NAMES {
            assert_eq!((kind.name(), ErrorKind::of_name(name)), (name, kind));
        }
        assert_eq!(ErrorKind::of_name("no such kind"), ErrorKind::Internal);
    }
}
