//! The words between a monitor and its clients: `kind (1 byte) | length (4 bytes, little-endian) | body`.
//!
//! Both sides are of one version of stanza, run by one user. A body is at most [`MAX_BODY`] bytes.

use std::io;

use serde::{Deserialize, Serialize};
use stanza_spec::{Classify, ErrorKind};

use crate::error::chain;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// To the monitor: a [`crate::SandboxPlan`] as JSON.
    Plan = b'p',
    /// To the monitor: bytes for standard input.
    Stdin = b'i',
    /// To the monitor: standard input has ended.
    StdinEnd = b'c',
    /// To the monitor: rows and columns, two little-endian u16.
    Resize = b'w',
    /// To the monitor: a signal number, little-endian i32.
    Signal = b's',
    /// To the monitor: [`crate::NetworkChange`] as JSON.
    Networks = b'n',
    /// To the monitor: [`crate::ExecPlan`] as JSON. The conversation is that command's from here on.
    Exec = b'X',
    /// From the monitor: what was asked for last is done.
    Done = b'd',
    /// From the monitor: [`crate::Running`] as JSON.
    Started = b'R',
    /// From the monitor: [`Refusal`] as JSON.
    Failed = b'F',
    /// From the monitor: bytes of standard output.
    Stdout = b'o',
    /// From the monitor: bytes of standard error.
    Stderr = b'e',
    /// From the monitor: [`crate::ExitRecord`] as JSON; the last frame.
    Exit = b'x',
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [
            Kind::Plan,
            Kind::Stdin,
            Kind::StdinEnd,
            Kind::Resize,
            Kind::Signal,
            Kind::Networks,
            Kind::Exec,
            Kind::Done,
            Kind::Started,
            Kind::Failed,
            Kind::Stdout,
            Kind::Stderr,
            Kind::Exit,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Why a container did not start, as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) kind: String,
    pub(crate) hint: Option<String>,
}

impl Refusal {
    /// A refusal that says all that `error` knows.
    pub(crate) fn of(error: &impl Classify) -> Refusal {
        Refusal { message: chain(error), kind: error.kind().name().to_owned(), hint: error.hint() }
    }

    /// A refusal for a failure of the kernel's: `what` was tried.
    pub(crate) fn of_io(what: &str, error: &io::Error) -> Refusal {
        let kind = ErrorKind::of_io(error).name().to_owned();
        Refusal { message: format!("{what}: {error}"), kind, hint: None }
    }
}

/// The longest body: a plan with a large environment fits.
pub(crate) const MAX_BODY: usize = 16 << 20;
const HEADER: usize = 5;

/// Appends a frame to `buffer`.
pub(crate) fn push(buffer: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    buffer.push(kind as u8);
    // The callers' bodies are bounded by MAX_BODY, far below u32::MAX.
    buffer.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    buffer.extend_from_slice(body);
}

/// Takes whole frames off a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// Adds received bytes.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let Some((header, rest)) = self.buffer.split_at_checked(HEADER) else { return Ok(None) };
        let kind = Kind::from_byte(header[0]).ok_or(io::ErrorKind::InvalidData)?;
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?;
        if length > MAX_BODY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let body = body.to_vec();
        self.buffer.drain(..HEADER + length);
        Ok(Some((kind, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        push(&mut bytes, Kind::Stdout, b"hello");
        push(&mut bytes, Kind::StdinEnd, b"");
        for cut in 0..bytes.len() {
            let mut reader = Reader::default();
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                reader.extend(part);
                while let Some((kind, body)) = reader.next().unwrap() {
                    seen.push((kind, body));
                }
            }
            assert_eq!(seen, [(Kind::Stdout, b"hello".to_vec()), (Kind::StdinEnd, vec![])]);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&b"?\0\0\0\0"[..], b"o\xff\xff\xff\xff"] {
            let mut reader = Reader::default();
            reader.extend(bytes);
            assert!(reader.next().is_err());
        }
    }
}
