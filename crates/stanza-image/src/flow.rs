//! Bytes from one thread to the next, in buffers that go round: a stage never waits for memory, only for its neighbour.
//!
//! ```text
//!   writer -- full buffers ----> reader      the number of buffers is fixed, and so is the memory
//!          <-- empty buffers --
//! ```
//!
//! A stream that ends without [`FlowWriter::finish`] is cut, and its reader gets an error, never an end: what a broken
//! stage let through is not taken for the whole.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Bytes of one buffer: hashed and copied while they are in the processor's cache.
pub(crate) const BUFFER: usize = 128 * 1024;
/// Buffers of one flow.
const BUFFERS: usize = 12;

/// Makes a flow.
pub(crate) fn flow() -> (FlowWriter, FlowReader) {
    let (full_sender, full) = channel();
    let (empty_sender, empty) = channel();
    let writer = FlowWriter { full: full_sender, empty, made: 0 };
    (writer, FlowReader { full, empty: empty_sender, current: Vec::new(), used: 0, ended: false })
}

/// The reader has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// The end where bytes go in.
pub(crate) struct FlowWriter {
    /// `None` says that the stream is whole.
    full: Sender<Option<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    made: usize,
}

impl FlowWriter {
    /// An empty buffer with room for [`BUFFER`] bytes; waits for the reader when all are under way.
    pub(crate) fn buffer(&mut self) -> Result<Vec<u8>, Gone> {
        if self.made < BUFFERS {
            if let Ok(buffer) = self.empty.try_recv() {
                return Ok(buffer);
            }
            self.made += 1;
            return Ok(Vec::with_capacity(BUFFER));
        }
        self.empty.recv().map_err(|_| Gone)
    }

    /// Sends what is in the buffer.
    pub(crate) fn send(&mut self, buffer: Vec<u8>) -> Result<(), Gone> {
        self.full.send(Some(buffer)).map_err(|_| Gone)
    }

    /// Says that the stream is whole.
    pub(crate) fn finish(self) {
        // A reader that has gone does not want to know.
        let _ = self.full.send(None);
    }
}

/// The end where bytes come out.
pub(crate) struct FlowReader {
    full: Receiver<Option<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    used: usize,
    ended: bool,
}

impl BufRead for FlowReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.used == self.current.len() && !self.ended {
            let mut buffer = std::mem::take(&mut self.current);
            self.used = 0;
            if buffer.capacity() > 0 {
                buffer.clear();
                // The writer has ended when nobody takes it.
                let _ = self.empty.send(buffer);
            }
            match self.full.recv() {
                Ok(Some(buffer)) => self.current = buffer,
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream is cut off")),
            }
        }
        Ok(&self.current[self.used..])
    }

    fn consume(&mut self, length: usize) {
        self.used = self.current.len().min(self.used + length);
    }
}

impl Read for FlowReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_with_a_fixed_number_of_buffers() {
        let (mut writer, mut reader) = flow();
        let sender = std::thread::spawn(move || {
            for number in 0..1000_u32 {
                let mut buffer = writer.buffer().unwrap();
                assert!(buffer.is_empty());
                buffer.extend_from_slice(&number.to_le_bytes());
                writer.send(buffer).unwrap();
            }
            let made = writer.made;
            writer.finish();
            made
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, (0..1000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        assert!(sender.join().unwrap() <= BUFFERS);
        // The end stays the end.
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_cut_stream_is_an_error_and_a_reader_that_left_is_noticed() {
        let (mut writer, mut reader) = flow();
        let mut buffer = writer.buffer().unwrap();
        buffer.extend_from_slice(b"half");
        writer.send(buffer).unwrap();
        drop(writer);
        let mut all = Vec::new();
        assert_eq!(reader.read_to_end(&mut all).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(all, b"half");

        let (mut writer, reader) = flow();
        drop(reader);
        assert_eq!(writer.send(Vec::new()), Err(Gone));
        let mut taken = 0;
        while writer.buffer().is_ok() {
            taken += 1;
        }
        assert_eq!(taken, BUFFERS);
    }
}
