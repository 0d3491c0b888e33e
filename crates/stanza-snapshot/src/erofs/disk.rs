//! A whole root file system as one image, to be a machine's read-only disk: the content of files is in it.
//!
//! ```text
//!   0        nothing
//!   1024     superblock; blocks are pages, which every kernel with erofs mounts
//!   4096     the content of files, each from a block's start on; zeros are holes
//!   ...      inodes, directories, links and attributes, as in the index of a layer
//! ```

use std::fs::File;
use std::io::{self, BufRead, Read as _};
use std::os::unix::fs::FileExt as _;

use stanza_tar::{Archive, Content, Header, Limits, Segment};

use super::format::Blocks;
use super::tree::FileContent;
use super::write::{Frame, write};
use super::{Image, Storage, unwritten};
use crate::ApplyError;

/// Content is copied in such pieces.
const PIECE: usize = 128 << 10;

/// Writes what an archive holds into `file`, which is empty; `name` tells the image from others.
pub(crate) fn write_disk(
    tar: &mut dyn BufRead,
    name: &str,
    file: &File,
    fail: &dyn Fn(io::Error) -> ApplyError,
) -> Result<(), ApplyError> {
    let mut image = Image::new(Storage::Image(file));
    let mut archive = Archive::new(tar, Limits::default());
    while let Some(entry) = archive.next_entry().map_err(ApplyError::Archive)? {
        image.add(entry)?;
    }
    archive.finish().map_err(ApplyError::Archive)?;
    let frame = Frame { own: image.own, blocks: Blocks::DISK, archive: None, name };
    write(&image.tree, &frame, file).map_err(|error| unwritten(error, fail))?;
    Ok(())
}

impl Image<'_> {
    /// Copies a file's content into the image.
    pub(super) fn store<R: BufRead>(
        &mut self,
        header: &Header,
        sparse: Option<&[Segment]>,
        content: &mut Content<'_, R>,
        file: &File,
    ) -> Result<FileContent, ApplyError> {
        let block = Blocks::DISK.bytes();
        let full = || ApplyError::TooLarge { what: "bytes", limit: u64::from(u32::MAX) * block };
        let at = self.own;
        let end = at.checked_add(header.size).and_then(|end| end.checked_next_multiple_of(block));
        self.own = end.filter(|end| end / block < u64::from(u32::MAX)).ok_or_else(full)?;
        let whole = [Segment { offset: 0, length: header.size }];
        for segment in sparse.unwrap_or(&whole) {
            self.copy(content, segment, at, file, header)?;
        }
        Ok(FileContent::Own { block: u32::try_from(at / block).map_err(|_| full())? })
    }

    fn copy<R: BufRead>(
        &mut self,
        content: &mut Content<'_, R>,
        segment: &Segment,
        at: u64,
        file: &File,
        header: &Header,
    ) -> Result<(), ApplyError> {
        let mut to = at + segment.offset;
        let end = to + segment.length;
        while to < end {
            let length = usize::try_from(end - to).unwrap_or(usize::MAX).min(PIECE);
            self.buffer.resize(length, 0);
            if let Err(error) = content.read_exact(&mut self.buffer) {
                return Err(ApplyError::Archive(content.failure(error)));
            }
            // Zeros are holes, whatever they were in the layer.
            if self.buffer.iter().any(|byte| *byte != 0) {
                file.write_all_at(&self.buffer, to).map_err(|source| ApplyError::Entry {
                    path: crate::apply::entry::shown(&header.path),
                    action: "write the content of",
                    source,
                })?;
            }
            to += length as u64;
        }
        Ok(())
    }
}
