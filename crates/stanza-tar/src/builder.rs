//! Writing archives: the same entries give the same bytes.

use std::io::{self, Read, Write};

use crate::block::BLOCK;
use crate::{EntryKind, Header};

/// Writes a pax archive: ustar headers, and a pax header before those that ustar cannot hold. No user names, no access
/// times, no version of a library: nothing but what the entries say.
pub struct Builder<W> {
    writer: W,
    /// Content on its way, made for the first file that has some.
    buffer: Vec<u8>,
}

/// Bytes of content read at once.
const CHUNK: usize = 128 << 10;

impl<W: Write> Builder<W> {
    /// Starts an archive.
    pub fn new(writer: W) -> Self {
        Builder { writer, buffer: Vec::new() }
    }

    /// Adds an entry. `content` is read for a [`EntryKind::File`] only, and must hold exactly `header.size` bytes.
    ///
    /// # Errors
    /// When writing or reading fails, when `content` has another length than the header says, or when a name holds a
    /// NUL byte.
    pub fn append(&mut self, header: &Header, content: &mut dyn Read) -> io::Result<()> {
        self.start(header)?;
        if header.kind == EntryKind::File {
            self.content(header.size, content)?;
            self.pad(header.size)?;
        }
        Ok(())
    }

    /// Starts an entry. Of a file, exactly `header.size` bytes must be written to [`Builder::get_mut`] next, then
    /// [`Builder::pad`] be called: for content that the kernel copies.
    ///
    /// # Errors
    /// When writing fails, or when a name holds a NUL byte.
    pub fn start(&mut self, header: &Header) -> io::Result<()> {
        if header.path.contains(&0) || header.link.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name holds a NUL byte"));
        }
        let records = records(header);
        if !records.is_empty() {
            let pax = Header { path: b"PaxHeaders/entry".to_vec(), mode: 0o644, ..Header::default() };
            let size = records.len() as u64;
            self.writer.write_all(&block(&pax, b'x', size))?;
            self.writer.write_all(&records)?;
            self.pad(size)?;
        }
        let size = if header.kind == EntryKind::File { header.size } else { 0 };
        self.writer.write_all(&block(header, flag(header.kind), size))
    }

    fn content(&mut self, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut left = size;
        if left > 0 && self.buffer.is_empty() {
            self.buffer = vec![0; CHUNK];
        }
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match content.read(&mut self.buffer[..room]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.writer.write_all(&self.buffer[..count])?;
            left -= count as u64;
        }
        if left > 0 || content.read(&mut [0])? != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "content and size do not agree"));
        }
        Ok(())
    }

    /// Ends the archive with its two zero blocks and gives the stream back, not flushed.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.writer.write_all(&[0; 2 * BLOCK])?;
        Ok(self.writer)
    }

    /// The stream below, to write content or blocks of one's own.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.writer
    }

    /// Ends the content of a file of `size` bytes.
    ///
    /// # Errors
    /// When writing fails.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        self.writer.write_all(&[0; BLOCK][..padding])
    }
}

fn flag(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharacterDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}

/// The largest numbers of ustar's fields of 8 and 12 bytes.
const MAX_8: u64 = 0o7_777_777;
const MAX_12: u64 = 0o77_777_777_777;

/// The pax records of what ustar cannot hold.
fn records(header: &Header) -> Vec<u8> {
    let mut out = Vec::new();
    let texts = [&header.path, &header.link];
    if texts.iter().any(|text| needs_record(text) && std::str::from_utf8(text).is_err()) {
        record(&mut out, b"hdrcharset", b"BINARY");
    }
    for (key, text) in [(&b"path"[..], &header.path), (b"linkpath", &header.link)] {
        if needs_record(text) {
            record(&mut out, key, text);
        }
    }
    for (key, number, max) in
        [(&b"uid"[..], header.uid, MAX_8), (b"gid", header.gid, MAX_8), (b"size", header.size, MAX_12)]
    {
        if number > max {
            record(&mut out, key, number.to_string().as_bytes());
        }
    }
    let (seconds, nanos) = header.mtime;
    if nanos != 0 || !u64::try_from(seconds).is_ok_and(|seconds| seconds <= MAX_12) {
        // A negative time counts its fraction downwards.
        let (sign, whole, nanos) = match (seconds < 0, nanos) {
            (true, 0) => ("-", seconds.unsigned_abs(), 0),
            (true, nanos) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
            (false, nanos) => ("", seconds.unsigned_abs(), nanos),
        };
        let text = format!("{sign}{whole}.{nanos:09}");
        record(&mut out, b"mtime", text.trim_end_matches('0').trim_end_matches('.').as_bytes());
    }
    for (name, value) in &header.xattrs {
        record(&mut out, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    out
}

/// Longer than the field of the header, or not plain text.
fn needs_record(text: &[u8]) -> bool {
    text.len() > 100 || !text.is_ascii()
}

fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Space, equals sign, newline, and the digits of the length, which count themselves.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn block(header: &Header, flag: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    text(&mut block[..100], &header.path);
    octal(&mut block[100..108], u64::from(header.mode & 0o7777));
    octal(&mut block[108..116], header.uid);
    octal(&mut block[116..124], header.gid);
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], u64::try_from(header.mtime.0).unwrap_or(0));
    block[156] = flag;
    text(&mut block[157..257], &header.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], u64::from(header.device.0));
    octal(&mut block[337..345], u64::from(header.device.1));
    block[148..156].fill(b' ');
    let sum = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

fn text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits and a NUL; a number that does not fit is in a pax record, and 0 here.
fn octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let text = format!("{number:0digits$o}");
    let text = if text.len() > digits { "0".repeat(digits) } else { text };
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
}
