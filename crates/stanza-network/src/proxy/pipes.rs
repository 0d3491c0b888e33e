//! Pipes between two sockets: a direction has one only while bytes are in it, so that quiet connections have none.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Bytes that a pipe holds where the kernel lets it: what moves in one go. With 64 KiB, its default, throughput is lower
/// by a fifth.
pub(super) const SIZE: usize = 256 << 10;
/// Empty pipes that are kept.
const KEPT: usize = 32;

/// An empty or filled pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) output: OwnedFd,
    pub(super) input: OwnedFd,
}

/// Empty pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Pipe>);

impl Pipes {
    pub(super) fn take(&mut self) -> Result<Pipe, Errno> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user with many pipes gets no large ones: then it is as it is.
        let _ = fcntl_setpipe_size(&input, SIZE);
        Ok(Pipe { output, input })
    }

    /// Takes an empty pipe back.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        if self.0.len() < KEPT {
            self.0.push(pipe);
        }
    }
}
