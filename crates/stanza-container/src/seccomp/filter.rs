//! A compiled filter, in memory and as the bytes of a cache file.

use stanza_spec::{Classify, ErrorKind};

/// Identifies a cache file and its form; changed whenever the compiler may give another program for the same
/// profile, so that an old file is never taken.
const MAGIC: [u8; 8] = *b"stzbpf\x00\x01";

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: u32 = 1 << 3;

/// The kernel's `BPF_MAXINSNS`.
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

/// A seccomp program and the flags to install it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    program: Vec<u8>,
    flags: u32,
}

/// Bytes that are not a cached filter of this version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} bytes are not a compiled seccomp filter of this version")]
pub struct FilterError(usize);

impl Classify for FilterError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}

impl Filter {
    pub(super) fn new(program: Vec<u8>, flags: u32) -> Filter {
        Filter { program, flags }
    }

    /// The program: whole `struct sock_filter` of 8 bytes each, in this machine's byte order.
    #[must_use]
    pub fn program(&self) -> &[u8] {
        &self.program
    }

    /// The number of instructions, 1 to 4096.
    #[must_use]
    pub fn instructions(&self) -> usize {
        self.program.len() / 8
    }

    /// `SECCOMP_FILTER_FLAG_*` bits for `seccomp(2)`.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether installing it gives a descriptor that a seccomp agent must be handed.
    #[must_use]
    pub fn notifies(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }

    /// The content of a cache file: a magic with a version, the flags, the program.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&MAGIC[..], &self.flags.to_ne_bytes(), &self.program].concat()
    }

    /// What [`Filter::to_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are of another version, or cut short within an instruction.
    pub fn from_bytes(bytes: &[u8]) -> Result<Filter, FilterError> {
        let filter = || {
            let (flags, program) = bytes.strip_prefix(&MAGIC)?.split_first_chunk::<4>()?;
            let whole =
                !program.is_empty() && program.len() % 8 == 0 && program.len() / 8 <= MAX_INSTRUCTIONS;
            whole.then(|| Filter { program: program.to_vec(), flags: u32::from_ne_bytes(*flags) })
        };
        filter().ok_or(FilterError(bytes.len()))
    }
}
