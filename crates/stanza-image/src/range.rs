//! A piece of a file as a stream.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Reads a piece of a file, wherever others read in it.
#[derive(Debug)]
pub(crate) struct FileRange<F> {
    file: F,
    position: u64,
    left: u64,
}

impl<F: Borrow<File>> FileRange<F> {
    /// The `length` bytes from `start` on; fewer where the file ends before.
    pub(crate) fn new(file: F, start: u64, length: u64) -> FileRange<F> {
        FileRange { file, position: start, left: length }
    }
}

impl<F: Borrow<File>> Read for FileRange<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.borrow().read_at(&mut buffer[..room], self.position)?;
        let length = u64::try_from(count).unwrap_or(u64::MAX);
        self.position += length;
        self.left = self.left.saturating_sub(length);
        Ok(count)
    }
}
