//! Bytes from one thread to the next, with bounded memory: a stage never waits for memory, only for its neighbour.
//!
//! ```text
//!   flow:    writer -- full buffers ----> reader      buffers go round; their number is fixed
//!                   <-- empty buffers --
//!   frames:  writer -- frames ----------> reader      what the network gave, as it lies; their number is bounded
//! ```
//!
//! A stream that ends without `finish` is cut, and its reader gets an error, never an end: what a broken stage let
//! through is not taken for the whole.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use bytes::Bytes;

/// Bytes of one buffer: hashed and copied while they are in the processor's cache.
pub(crate) const BUFFER: usize = 256 * 1024;
/// Buffers of one flow.
const BUFFERS: usize = 6;
/// Frames under way.
const FRAMES: usize = 8;

/// Makes a flow of buffers.
pub(crate) fn flow() -> (FlowWriter, FlowReader<Buffer>) {
    let (full_sender, full) = channel();
    let (empty_sender, empty) = channel();
    let writer = FlowWriter { full: full_sender, empty, made: 0 };
    (writer, FlowReader { full, empty: Some(empty_sender), current: None, used: 0, ended: false })
}

/// Makes a flow of frames.
pub(crate) fn frames() -> (FrameWriter, FlowReader<Bytes>) {
    let (sender, full) = sync_channel(FRAMES);
    (FrameWriter(sender), FlowReader { full, empty: None, current: None, used: 0, ended: false })
}

/// The reader has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// A piece of memory that is used again and again, and so is cleared once only.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Buffer {
    /// All of its [`BUFFER`] bytes, to be written to.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Says how many bytes at its front are to be sent.
    pub(crate) fn fill(&mut self, count: usize) {
        self.filled = count.min(self.bytes.len());
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// The end where buffers go in.
pub(crate) struct FlowWriter {
    /// `None` says that the stream is whole.
    full: Sender<Option<Buffer>>,
    empty: Receiver<Buffer>,
    made: usize,
}

impl FlowWriter {
    /// A buffer to fill; waits for the reader when all are under way.
    pub(crate) fn buffer(&mut self) -> Result<Buffer, Gone> {
        if self.made < BUFFERS {
            if let Ok(buffer) = self.empty.try_recv() {
                return Ok(buffer);
            }
            self.made += 1;
            return Ok(Buffer { bytes: vec![0; BUFFER].into_boxed_slice(), filled: 0 });
        }
        self.empty.recv().map_err(|_| Gone)
    }

    /// Sends what is in the buffer.
    pub(crate) fn send(&mut self, buffer: Buffer) -> Result<(), Gone> {
        self.full.send(Some(buffer)).map_err(|_| Gone)
    }

    /// Says that the stream is whole.
    pub(crate) fn finish(self) {
        // A reader that has gone does not want to know.
        let _ = self.full.send(None);
    }
}

/// The end where frames go in.
pub(crate) struct FrameWriter(SyncSender<Option<Bytes>>);

impl FrameWriter {
    /// Sends a frame; waits for the reader when there are many.
    pub(crate) fn send(&self, frame: Bytes) -> Result<(), Gone> {
        self.0.send(Some(frame)).map_err(|_| Gone)
    }

    /// Says that the stream is whole.
    pub(crate) fn finish(self) {
        // A reader that has gone does not want to know.
        let _ = self.0.send(None);
    }
}

/// The end where bytes come out.
pub(crate) struct FlowReader<T> {
    full: Receiver<Option<T>>,
    /// Where what was read goes back to.
    empty: Option<Sender<T>>,
    current: Option<T>,
    used: usize,
    ended: bool,
}

impl<T: AsRef<[u8]>> FlowReader<T> {
    fn left(&self) -> &[u8] {
        self.current.as_ref().and_then(|current| current.as_ref().get(self.used..)).unwrap_or_default()
    }
}

impl<T: AsRef<[u8]>> BufRead for FlowReader<T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.left().is_empty() && !self.ended {
            self.used = 0;
            if let (Some(empty), Some(buffer)) = (&self.empty, self.current.take()) {
                // The writer has ended when nobody takes it.
                let _ = empty.send(buffer);
            }
            match self.full.recv() {
                Ok(Some(buffer)) => self.current = Some(buffer),
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream is cut off")),
            }
        }
        Ok(self.left())
    }

    fn consume(&mut self, length: usize) {
        self.used += length.min(self.left().len());
    }
}

impl<T: AsRef<[u8]>> Read for FlowReader<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(writer: &mut FlowWriter, bytes: &[u8]) -> Result<(), Gone> {
        let mut buffer = writer.buffer()?;
        buffer.room()[..bytes.len()].copy_from_slice(bytes);
        buffer.fill(bytes.len());
        writer.send(buffer)
    }

    #[test]
    fn bytes_come_out_as_they_went_in_with_a_fixed_number_of_buffers() {
        let (mut writer, mut reader) = flow();
        let sender = std::thread::spawn(move || {
            for number in 0..1000_u32 {
                put(&mut writer, &number.to_le_bytes()).unwrap();
            }
            put(&mut writer, b"").unwrap();
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
    fn frames_come_out_as_they_went_in() {
        let (writer, mut reader) = frames();
        let sender = std::thread::spawn(move || {
            for frame in [&b"one "[..], b"", b"two"] {
                writer.send(Bytes::from_static(frame)).unwrap();
            }
            writer.finish();
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"one two");
        sender.join().unwrap();
        let (writer, reader) = frames();
        drop(reader);
        assert_eq!(writer.send(Bytes::new()), Err(Gone));
    }

    #[test]
    fn a_cut_stream_is_an_error_and_a_reader_that_left_is_noticed() {
        let (mut writer, mut reader) = flow();
        put(&mut writer, b"half").unwrap();
        drop(writer);
        let mut all = Vec::new();
        assert_eq!(reader.read_to_end(&mut all).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(all, b"half");

        let (mut writer, reader) = flow();
        drop(reader);
        let mut taken = 0;
        while let Ok(buffer) = writer.buffer() {
            assert_eq!(writer.send(buffer), Err(Gone));
            taken += 1;
        }
        assert_eq!(taken, BUFFERS);
    }
}
