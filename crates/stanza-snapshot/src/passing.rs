//! A reader that shows what passes to somebody, once, while it is in the processor's cache and where it lies.

use std::io::{self, BufRead, Read};

/// Who is shown what passes.
pub(crate) trait Witness {
    /// The next bytes. Those of a failure are shown again.
    fn see(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// See the module.
pub(crate) struct Passing<'a, W> {
    inner: &'a mut dyn BufRead,
    witness: W,
    /// Bytes at the front of the inner buffer that were shown already.
    seen: usize,
}

impl<'a, W> Passing<'a, W> {
    pub(crate) fn new(inner: &'a mut dyn BufRead, witness: W) -> Self {
        Passing { inner, witness, seen: 0 }
    }

    pub(crate) fn into_witness(self) -> W {
        self.witness
    }
}

impl<W: Witness> BufRead for Passing<'_, W> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = self.inner.fill_buf()?;
        if let Some(new @ [_, ..]) = bytes.get(self.seen..) {
            self.witness.see(new)?;
            self.seen = bytes.len();
        }
        Ok(bytes)
    }

    fn consume(&mut self, length: usize) {
        // Only what was shown can be used up.
        let length = length.min(self.seen);
        self.inner.consume(length);
        self.seen -= length;
    }
}

impl<W: Witness> Read for Passing<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}
