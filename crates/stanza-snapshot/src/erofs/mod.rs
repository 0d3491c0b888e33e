//! The driver `erofs`: a layer is its archive as it came and an index of it, so that unpacking makes two files however many
//! the layer has, and removing it takes two calls.
//!
//! ```text
//!   layers/sha256/<diff id>/
//!     layer.tar      the archive, not compressed; zeros fill its last block
//!     index.erofs    an erofs image, blocks of 512 bytes:
//!       0            nothing
//!       1024         superblock, table of devices (the archive is device 1)
//!       4096         own data: pieces of sparse files that begin inside a block of the archive
//!       ...          inodes, each with its attributes and what is left of its content when that fills no block
//!       ...          directories and long links in whole blocks
//!       ...          attributes that several inodes have
//!     record.json    digest, size and checksum of the index
//! ```
//!
//! A stream is read once: it goes through the hash into `layer.tar`, and its headers become a tree in memory
//! ([`mod@tree`], bounded), which is written when the archive has ended and its digest is right ([`mod@write`]). The tree is
//! the one that the directory driver makes: same names, refusals, whiteouts, last entry wins ([`mod@entry`]). A file with its
//! content in the archive is one chunk; marks of overlayfs are those of directories with root (character device 0/0,
//! `trusted.overlay.opaque`). What a layer leaves open (whiteouts, directories it does not describe) is as old as 1970, so
//! that the index is a function of the archive alone.
//!
//! Only images made here are mounted, and only while size and checksum are those on record: an erofs image from outside
//! would let its author at the kernel's parser. Not without root: erofs cannot be mounted in a user namespace.

mod attributes;
mod disk;
mod entry;
pub(crate) mod format;
mod probe;
pub(crate) mod tree;
mod write;

use std::fs::File;
use std::io::{self, BufRead, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use stanza_spec::{Digest, Instant};
use stanza_tar::{Archive, Limits};

pub(crate) use disk::write_disk;
pub(crate) use probe::probe;
pub(crate) use write::digest_of;

use format::Blocks;

use crate::apply::Hash;
use crate::ingest::Ingest;
use crate::links::Noted;
use crate::passing::{Passing, Witness};
use crate::record::{ErofsRecord, LayerRecord};
use crate::{Applied, ApplyError, LayerStore};

/// The archive's name beside a layer's index.
pub(crate) const TAR: &str = "layer.tar";
/// The index's name.
pub(crate) const INDEX: &str = "index.erofs";
/// Where the image's own data begins.
const OWN_START: u64 = 4096;

/// A layer or a disk being read.
struct Image<'f> {
    tree: tree::Tree,
    storage: Storage<'f>,
    /// Hard links to files that this layer does not have.
    links: Noted,
    applied: Applied,
    /// Where the next own data goes.
    own: u64,
    copies: Vec<Copy>,
    /// Content on its way into the image.
    buffer: Vec<u8>,
}

/// Where the content of files is kept.
#[derive(Clone, Copy)]
enum Storage<'f> {
    /// In the archive that they come from, which stays beside the image.
    Archive,
    /// In the image, this file.
    Image(&'f File),
}

/// A piece of the archive that is copied into the image.
struct Copy {
    from: u64,
    to: u64,
    length: u64,
}

/// What was written of a layer.
struct Layer {
    image: Image<'static>,
    erofs: ErofsRecord,
    written: write::Written,
    /// Bytes on disk of both files.
    allocated: u64,
}

impl LayerStore {
    /// [`LayerStore::apply`] and [`LayerStore::renew`] of this driver.
    pub(crate) fn unpack_erofs(
        &self,
        diff_id: &Digest,
        tar: &mut dyn BufRead,
        replace: bool,
    ) -> Result<Applied, ApplyError> {
        let fail = |error| self.ingest_failed(error);
        if self.erofs_way().is_none() {
            return Err(ApplyError::NoErofs { path: self.ingest() });
        }
        let ingest = Ingest::create(&self.ingest()).map_err(|error| fail(error.into()))?;
        let home = ingest.path();
        crate::store::make_directory(home, 0o700).map_err(fail)?;
        let Layer { image, erofs, written, allocated } = write_layer(home, diff_id, tar, &fail)?;
        let mut applied = image.applied;
        let record = LayerRecord {
            version: LayerRecord::VERSION,
            entries: applied.entries,
            tree: None,
            size: written.content,
            allocated,
            inodes: written.inodes,
            created: Instant::now().rfc3339(),
            erofs: Some(erofs),
        };
        applied.existed = !self.complete(&ingest, diff_id, &record, image.links.into_bytes(), replace)?;
        Ok(applied)
    }
}

/// Writes archive and index of a layer into a directory.
fn write_layer(
    home: &Path,
    diff_id: &Digest,
    tar: &mut dyn BufRead,
    fail: &dyn Fn(io::Error) -> ApplyError,
) -> Result<Layer, ApplyError> {
    let create = |name| File::options().read(true).write(true).create_new(true).open(home.join(name));
    let kept = create(TAR).map_err(fail)?;
    let index = create(INDEX).map_err(fail)?;
    let mut keeping = Passing::new(tar, Kept { file: &kept, length: 0, failed: false });
    let mut image = Image::new(Storage::Archive);
    let read = read_archive(&mut image, &mut keeping, diff_id);
    let Kept { length: tar_size, failed, .. } = keeping.into_witness();
    let actual = match read {
        // The disk is full, not the archive damaged.
        Err(ApplyError::Archive(stanza_tar::TarError::Read { source, .. })) if failed => {
            return Err(fail(source));
        }
        read => read?,
    };
    if actual != *diff_id {
        return Err(ApplyError::DiffId { expected: diff_id.clone(), actual });
    }
    // A file at the very end may lack its padding, and a device has whole blocks.
    kept.set_len(tar_size.next_multiple_of(format::BLOCK)).map_err(fail)?;
    image.copy_pieces(&kept, &index).map_err(fail)?;
    let opaque = image.tree.directory(tree::ROOT).is_some_and(|root| root.opaque);
    let frame = write::Frame {
        own: image.own,
        blocks: Blocks::LAYER,
        archive: Some((diff_id, tar_size)),
        name: diff_id.as_str(),
    };
    let written = write::write(&image.tree, &frame, &index).map_err(|error| unwritten(error, fail))?;
    let on_disk = |file: &File| file.metadata().map(|metadata| metadata.blocks().saturating_mul(512));
    let allocated = on_disk(&kept).map_err(fail)? + on_disk(&index).map_err(fail)?;
    let erofs = ErofsRecord {
        digest: written.digest.clone(),
        size: written.size,
        checksum: written.checksum,
        tar_size,
        opaque,
    };
    Ok(Layer { image, erofs, written, allocated })
}

fn unwritten(error: write::WriteError, fail: &dyn Fn(io::Error) -> ApplyError) -> ApplyError {
    match error {
        write::WriteError::TooLarge => {
            ApplyError::TooLarge { what: "blocks in its index", limit: u64::from(u32::MAX) }
        }
        write::WriteError::Io(error) => fail(error),
    }
}

fn read_archive(
    image: &mut Image<'_>,
    stream: &mut dyn BufRead,
    diff_id: &Digest,
) -> Result<Digest, ApplyError> {
    let mut archive = Archive::new(Passing::new(stream, Hash::like(diff_id)), Limits::default());
    while let Some(entry) = archive.next_entry().map_err(ApplyError::Archive)? {
        image.add(entry)?;
    }
    Ok(archive.finish().map_err(ApplyError::Archive)?.into_witness().finish())
}

impl<'f> Image<'f> {
    fn new(storage: Storage<'f>) -> Image<'f> {
        Image {
            tree: tree::Tree::new(),
            storage,
            links: Noted::default(),
            applied: Applied::default(),
            own: OWN_START,
            copies: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Copies what the index itself holds of files, and sets the length of that part; the rest of it is holes.
    fn copy_pieces(&self, tar: &File, index: &File) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        index.set_len(self.own)?;
        for piece in &self.copies {
            let mut done = 0;
            while done < piece.length {
                let left = usize::try_from(piece.length - done).unwrap_or(usize::MAX).min(buffer.len());
                tar.read_exact_at(&mut buffer[..left], piece.from + done)?;
                index.write_all_at(&buffer[..left], piece.to + done)?;
                done += left as u64;
            }
        }
        Ok(())
    }
}

/// Keeps what passes in a file.
struct Kept<'a> {
    file: &'a File,
    length: u64,
    /// The file could not be written.
    failed: bool,
}

impl Witness for Kept<'_> {
    fn see(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).inspect_err(|_| self.failed = true)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}
