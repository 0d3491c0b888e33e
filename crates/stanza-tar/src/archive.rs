//! Walking an archive.

use std::io::{self, BufRead, Read, Seek};

use crate::block::{BLOCK, Block};
use crate::extensions::{Described, Pending, describe, long_name};
use crate::pax::Records;
use crate::sparse::{MapLines, check};
use crate::{Header, Limits, Segment, TarError};

/// An archive on a stream, read once from front to back, in the stream's own buffer: no byte of a file's content is
/// copied on its way.
pub struct Archive<R> {
    reader: R,
    limits: Limits,
    /// Bytes used so far.
    offset: u64,
    /// Content of the current entry that is not used yet, and the padding after it.
    content: u64,
    padding: u64,
    globals: Records,
    /// Bytes of global headers so far.
    global_bytes: u64,
    ended: bool,
}

/// One entry: what it says, and its content.
///
/// Reading gives the *stored* content. For a sparse file that is the segments' bytes one after another, not the file;
/// see [`Entry::sparse`].
pub struct Entry<'a, R> {
    header: Header,
    sparse: Option<Vec<Segment>>,
    content: Content<'a, R>,
}

/// The stored content of an entry.
pub struct Content<'a, R> {
    archive: &'a mut Archive<R>,
}

/// An entry's header, and its map when it is sparse.
type Found = (Header, Option<Vec<Segment>>);

impl<R: BufRead> Archive<R> {
    /// Starts reading at the stream's position.
    pub fn new(reader: R, limits: Limits) -> Self {
        Archive {
            reader,
            limits,
            offset: 0,
            content: 0,
            padding: 0,
            globals: Records::default(),
            global_bytes: 0,
            ended: false,
        }
    }

    /// The next entry, or `None` at the end; content that was not read is passed over.
    ///
    /// # Errors
    /// When the stream fails, ends early, or is not an archive within the limits. After an error the archive cannot be
    /// read further; a repeated call ends it.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_, R>>, TarError> {
        if self.ended {
            return Ok(None);
        }
        // Until an entry is found: whoever calls again after an error gets the end, not a guess.
        self.ended = true;
        let Some((header, sparse)) = self.advance()? else { return Ok(None) };
        self.ended = false;
        Ok(Some(Entry { header, sparse, content: Content { archive: self } }))
    }

    /// Reads the stream to its end, what follows the archive included, so that a hash below is whole. Gives the stream
    /// back.
    ///
    /// # Errors
    /// When the stream fails, or ends inside an entry.
    pub fn finish(mut self) -> Result<R, TarError> {
        self.skip_content()?;
        loop {
            let length = self.fill()?.len();
            if length == 0 {
                return Ok(self.reader);
            }
            self.use_up(length);
        }
    }

    /// The stream, wherever it stands: after `next_entry` gave `None`, behind the archive's end.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.reader
    }

    /// Where the next byte stands, counted from where reading began: right after [`Archive::next_entry`], the start of
    /// the entry's stored content.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn advance(&mut self) -> Result<Option<Found>, TarError> {
        self.skip_content()?;
        let mut pending = Pending::default();
        let mut extensions = 0;
        loop {
            let offset = self.offset;
            let Some(block) = self.block()?.filter(|block| !block.is_zero()) else {
                return self.end(offset, &pending);
            };
            if !block.has_valid_checksum() {
                return Err(TarError::Checksum { offset });
            }
            match block.flag() {
                b'x' | b'g' | b'L' | b'K' => {
                    extensions += 1;
                    if extensions > self.limits.extensions {
                        return Err(TarError::Extensions { offset, reason: "there are too many" });
                    }
                    self.extension(&block, &mut pending, offset)?;
                }
                // Volume names, continued files and Solaris ACLs say nothing about a file system tree.
                b'V' | b'M' | b'A' => {
                    if !pending.is_empty() {
                        return Err(TarError::Extensions { offset, reason: "no file follows them" });
                    }
                    self.set_content(size_of(&block, offset)?);
                    self.skip_content()?;
                }
                _ => return self.entry(&block, pending, offset).map(Some),
            }
        }
    }

    /// The end of the archive: a zero block, which `block` has used up, or the stream's end.
    fn end(&mut self, offset: u64, pending: &Pending) -> Result<Option<Found>, TarError> {
        if !pending.is_empty() {
            return Err(TarError::Extensions { offset, reason: "no file follows them" });
        }
        match self.block()? {
            Some(block) if !block.is_zero() => Err(TarError::LoneZeroBlock { offset }),
            _ => Ok(None),
        }
    }

    fn extension(&mut self, block: &Block, pending: &mut Pending, offset: u64) -> Result<(), TarError> {
        let size = size_of(block, offset)?;
        let (what, limit) = match block.flag() {
            b'x' => ("pax header", self.limits.pax),
            b'g' => ("global pax header", self.limits.pax.saturating_sub(self.global_bytes)),
            _ => ("long name", self.limits.long_name),
        };
        if size > limit {
            return Err(TarError::TooLarge { offset, what, limit });
        }
        self.set_content(size);
        if matches!(block.flag(), b'L' | b'K') {
            // GNU tar reads a name on into the padding until a NUL, Go does not.
            self.content += std::mem::take(&mut self.padding);
        }
        let mut data = Vec::new();
        Content { archive: self }.read_to_end(&mut data).map_err(|source| self.failed(source))?;
        self.skip_content()?;
        let behind = data.get(usize::try_from(size).unwrap_or(usize::MAX)..).unwrap_or_default();
        if behind.iter().any(|byte| *byte != 0) {
            return Err(TarError::Extensions { offset, reason: "a name goes on behind its end" });
        }
        match block.flag() {
            b'x' => {
                // As Go's reader and GNU tar have it: a second header replaces the first.
                let mut records = Records::default();
                records.read(&data, false).map_err(|fault| fault.at(offset))?;
                pending.records = Some(records);
            }
            b'g' => {
                self.global_bytes += size;
                self.globals.read(&data, true).map_err(|fault| fault.at(offset))?;
            }
            b'L' => pending.long_name = Some(long_name(data, "path", offset)?),
            _ => pending.long_link = Some(long_name(data, "link target", offset)?),
        }
        Ok(())
    }

    fn entry(&mut self, block: &Block, pending: Pending, offset: u64) -> Result<Found, TarError> {
        let Described { mut header, stored, mut records } =
            describe(block, pending, &self.globals, &self.limits, offset)?;
        let malformed = |reason| TarError::Sparse { offset, reason };
        let records = &mut records.sparse;
        let is_file = header.kind == crate::EntryKind::File;

        let (map, real_size) = if block.flag() == b'S' {
            // Go refuses it; GNU tar takes what is stored for the whole file.
            if !block.is_gnu() {
                return Err(malformed("its header is not GNU's"));
            }
            let map = self.old_map(block, offset)?;
            (map, block.sparse_real_size().and_then(|size| u64::try_from(size).ok()))
        } else if is_file && records.major == Some(1) && records.minor.unwrap_or(0) == 0 {
            self.set_content(stored);
            let map = self.leading_map().map_err(|error| match error {
                MapError::Malformed(reason) => malformed(reason),
                MapError::Tar(error) => error,
            })?;
            (map, records.real_size)
        } else if is_file && records.major.unwrap_or(0) == 0 && records.map.is_some() {
            (records.map.take().unwrap_or_default(), records.real_size)
        } else if is_file && records.major.is_some_and(|major| major > 0) {
            return Err(malformed("its format is not known"));
        } else {
            self.set_content(stored);
            return Ok((header, None));
        };

        if records.count.is_some_and(|count| u64::try_from(map.len()) != Ok(count)) {
            return Err(malformed("its map is not as long as announced"));
        }
        if block.flag() == b'S' || records.major != Some(1) {
            self.set_content(stored);
        }
        let real_size = real_size.ok_or_else(|| malformed("its size is missing"))?;
        if real_size > self.limits.file || map.len() > self.limits.segments {
            return Err(TarError::TooLarge { offset, what: "sparse file", limit: self.limits.file });
        }
        header.size = real_size;
        let map = check(map, real_size, self.content).map_err(malformed)?;
        Ok((header, Some(map)))
    }

    /// The map of GNU's old sparse type: in the header, and in blocks of their own after it.
    fn old_map(&mut self, block: &Block, offset: u64) -> Result<Vec<Segment>, TarError> {
        let malformed = || TarError::Sparse { offset, reason: "its map is not made of numbers" };
        let mut map = Vec::new();
        let mut more = block.sparse_segments(&mut map).ok_or_else(malformed)?;
        while more {
            let block = self.block()?.ok_or(TarError::Truncated { offset: self.offset })?;
            let before = map.len();
            more = block.more_sparse_segments(&mut map).ok_or_else(malformed)?;
            // An empty block that announces another one could go on for ever.
            if map.len() > self.limits.segments || (more && map.len() == before) {
                return Err(TarError::Sparse { offset, reason: "its map does not end" });
            }
        }
        Ok(map)
    }

    /// The map of format 1.0: whole blocks at the start of the content.
    fn leading_map(&mut self) -> Result<Vec<Segment>, MapError> {
        let mut lines = MapLines::new(self.limits.segments);
        loop {
            let Some(left) = self.content.checked_sub(BLOCK as u64) else {
                return Err(MapError::Malformed("its map is cut off"));
            };
            let block = self.block().map_err(MapError::Tar)?;
            let block = block.ok_or(MapError::Tar(TarError::Truncated { offset: self.offset }))?;
            self.content = left;
            if lines.feed(&block.0).map_err(MapError::Malformed)? {
                return Ok(lines.into_map());
            }
        }
    }

    fn set_content(&mut self, size: u64) {
        self.content = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Passes over what is left of the current entry. A last entry without its padding is accepted.
    fn skip_content(&mut self) -> Result<(), TarError> {
        while self.content > 0 {
            let left = self.content;
            let length = bounded(self.fill()?.len(), left);
            if length == 0 {
                return Err(TarError::Truncated { offset: self.offset });
            }
            self.content -= self.use_up(length);
        }
        while self.padding > 0 {
            let left = self.padding;
            let length = bounded(self.fill()?.len(), left);
            if length == 0 {
                break;
            }
            self.padding -= self.use_up(length);
        }
        self.padding = 0;
        Ok(())
    }

    /// The next 512 bytes; `None` when the stream has ended.
    fn block(&mut self) -> Result<Option<Block>, TarError> {
        let mut block = Block([0; BLOCK]);
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.fill()?;
            let length = bytes.len().min(BLOCK - filled);
            if length == 0 {
                return if filled == 0 { Ok(None) } else { Err(TarError::Truncated { offset: self.offset }) };
            }
            block.0[filled..filled + length].copy_from_slice(&bytes[..length]);
            self.use_up(length);
            filled += length;
        }
        Ok(Some(block))
    }

    /// Bytes that are there; none at the stream's end.
    fn fill(&mut self) -> Result<&[u8], TarError> {
        let offset = self.offset;
        fill(&mut self.reader).map_err(|source| TarError::Read { offset, source })
    }

    fn use_up(&mut self, length: usize) -> u64 {
        self.reader.consume(length);
        self.offset += length as u64;
        length as u64
    }

    fn failed(&self, source: io::Error) -> TarError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            TarError::Truncated { offset: self.offset }
        } else {
            TarError::Read { offset: self.offset, source }
        }
    }
}

impl<R: BufRead + Seek> Archive<R> {
    /// Passes over what is left of the current entry without reading it. A stream that ends before does not show: the
    /// caller knows its length.
    ///
    /// # Errors
    /// When the stream cannot be moved so far.
    pub fn skip(&mut self) -> Result<(), TarError> {
        let offset = self.offset;
        let failed = |source| TarError::Read { offset, source };
        let left = self.content.saturating_add(self.padding);
        let distance = i64::try_from(left).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
        self.reader.seek_relative(distance).map_err(failed)?;
        self.offset = offset.saturating_add(left);
        (self.content, self.padding) = (0, 0);
        Ok(())
    }
}

enum MapError {
    Malformed(&'static str),
    Tar(TarError),
}

fn size_of(block: &Block, offset: u64) -> Result<u64, TarError> {
    block.size().and_then(|size| u64::try_from(size).ok()).ok_or(TarError::Number { offset, field: "size" })
}

/// The stream's next bytes, whatever signals come.
fn fill<R: BufRead>(reader: &mut R) -> io::Result<&[u8]> {
    loop {
        match reader.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // What is there is given again, without another read.
    reader.fill_buf()
}

fn bounded(length: usize, limit: u64) -> usize {
    usize::try_from(limit).map_or(length, |limit| length.min(limit))
}

impl<'a, R: BufRead> Entry<'a, R> {
    /// What the entry says about itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the stored bytes belong in a sparse file, sorted and not overlapping; `None` for every other entry. Their
    /// lengths add up to the stored content, and the file is `header().size` bytes long.
    #[must_use]
    pub fn sparse(&self) -> Option<&[Segment]> {
        self.sparse.as_deref()
    }

    /// The entry in its parts, so that the content can be read while the header is in use.
    #[must_use]
    pub fn into_parts(self) -> (Header, Option<Vec<Segment>>, Content<'a, R>) {
        (self.header, self.sparse, self.content)
    }
}

impl<R: BufRead> Content<'_, R> {
    /// Stored bytes that are not read yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.archive.content
    }

    /// Where in the stream the next stored byte is. Stored content starts at a multiple of 512.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.archive.offset
    }

    /// What a failure to read this content says about the archive.
    #[must_use]
    pub fn failure(&self, source: io::Error) -> TarError {
        self.archive.failed(source)
    }
}

impl<R: BufRead> BufRead for Content<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = self.archive.content;
        if left == 0 {
            return Ok(&[]);
        }
        let bytes = fill(&mut self.archive.reader)?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends inside a file"));
        }
        Ok(&bytes[..bounded(bytes.len(), left)])
    }

    fn consume(&mut self, length: usize) {
        let length = bounded(length, self.archive.content);
        self.archive.content -= self.archive.use_up(length);
    }
}

impl<R: BufRead> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Entry<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.content.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.content.consume(length);
    }
}

impl<R: BufRead> Read for Entry<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(buffer)
    }
}
