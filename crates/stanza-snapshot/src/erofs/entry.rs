//! What each entry of a layer becomes: the same as in a directory (`apply/entry.rs`), told to the tree in memory.

use std::collections::BTreeMap;
use std::io::BufRead;

use rustix::io::Errno;
use stanza_tar::{Content, Entry, EntryKind, Header, Segment};

use super::attributes::{self, Checked};
use super::format::{BLOCK, BLOCK_BITS, Chunk};
use super::tree::{BYTES, Directory, FileContent, Id, Kind, NODES, Node, ROOT, Refusal};
use super::{Copy, Image, Storage};
use crate::ApplyError;
use crate::apply::entry::{failed, mode, owner, shown, times};
use crate::apply::name::{Meaning, joined, meaning, split};

/// Chunks of one sparse file.
const CHUNKS: u64 = 1 << 16;

/// Pieces of sparse files that are copied into the image because they do not begin where blocks do.
const COPIES: usize = 1 << 20;

/// Bytes of the image that these pieces take.
const OWN: u64 = 4 << 30;

/// Longest target of a symbolic link, as in ext4 and in `symlink(2)`.
const TARGET: usize = 4095;

impl Image<'_> {
    /// Adds one entry of the archive.
    pub(super) fn add<R: BufRead>(&mut self, entry: Entry<'_, R>) -> Result<(), ApplyError> {
        let (header, sparse, mut content) = entry.into_parts();
        self.applied.entries += 1;
        let meaning =
            meaning(&header.path).map_err(|reason| ApplyError::Name { path: shown(&header.path), reason })?;
        let (parent_path, name) = match meaning {
            Meaning::Nothing => return Ok(()),
            Meaning::Opaque { directory } => {
                let found = self.tree.parent(&directory).map_err(refused(&header, "make opaque"))?;
                if let Some(directory) = self.tree.directory_mut(found) {
                    directory.opaque = true;
                }
                return Ok(());
            }
            Meaning::Whiteout { parent, name } => {
                return self.whiteout(&parent, &name).map_err(refused(&header, "make the whiteout"));
            }
            Meaning::Root => return self.root(&header),
            Meaning::Entry { parent, name } => (parent, name),
        };
        let parent = self.tree.parent(&parent_path).map_err(refused(&header, "make the directory of"))?;
        self.links.replace(&parent_path, &name);
        match header.kind {
            EntryKind::File => self.file(parent, &name, &header, sparse.as_deref(), &mut content),
            EntryKind::Directory => self.directory(parent, &name, &header),
            EntryKind::HardLink => self.hard_link(&parent_path, parent, &name, &header),
            EntryKind::Symlink => {
                let fail = || refused(&header, "make the link");
                match header.link.len() {
                    0 => return Err(fail()(Errno::NOENT.into())),
                    length if length > TARGET => return Err(fail()(Errno::NAMETOOLONG.into())),
                    _ => {}
                }
                self.tree.charge(header.link.len()).map_err(fail())?;
                let kind = Kind::Symlink(header.link.as_slice().into());
                self.node(parent, &name, &header, kind, "make the link")
            }
            EntryKind::Fifo => self.node(parent, &name, &header, Kind::Fifo, "make the device"),
            EntryKind::CharacterDevice => self.device(parent, &name, &header, false),
            EntryKind::BlockDevice => self.device(parent, &name, &header, true),
        }
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Refusal> {
        let parent = self.tree.parent(parent)?;
        match self.tree.entry(parent, name) {
            None => {
                let node =
                    Node { kind: Kind::Whiteout, mode: 0, owner: (0, 0), time: (0, 0), xattrs: Vec::new() };
                self.tree.add(parent, name, node)?;
            }
            Some(found) => {
                if let Some(directory) = self.tree.directory_mut(found) {
                    directory.opaque = true;
                }
            }
        }
        Ok(())
    }

    fn root(&mut self, header: &Header) -> Result<(), ApplyError> {
        if header.kind != EntryKind::Directory {
            let reason = "it is the layer's root and not a directory";
            return Err(ApplyError::Name { path: shown(&header.path), reason });
        }
        self.describe_directory(ROOT, header)
    }

    fn file<R: BufRead>(
        &mut self,
        parent: Id,
        name: &[u8],
        header: &Header,
        sparse: Option<&[Segment]>,
        content: &mut Content<'_, R>,
    ) -> Result<(), ApplyError> {
        let content = match self.storage {
            Storage::Archive => self.point(header, sparse, content)?,
            Storage::Image(file) => self.store(header, sparse, content, file)?,
        };
        self.node(parent, name, header, Kind::File { size: header.size, content }, "make the file")
    }

    /// Where a file's content is in the archive.
    fn point<R: BufRead>(
        &mut self,
        header: &Header,
        sparse: Option<&[Segment]>,
        content: &Content<'_, R>,
    ) -> Result<FileContent, ApplyError> {
        let at = content.offset();
        let full = || ApplyError::TooLarge { what: "bytes", limit: u64::from(u32::MAX) * BLOCK };
        // Content begins where a block begins; the archive's reader counts from the stream's start.
        let block = u32::try_from(at / BLOCK).map_err(|_| full())?;
        u32::try_from((at + content.left()).div_ceil(BLOCK)).map_err(|_| full())?;
        match sparse {
            None => Ok(FileContent::Tar { block }),
            Some(segments) => self.sparse(header, segments, at),
        }
    }

    /// The map of a sparse file, whose segments are stored one after another from `at` on. A chunk is a hole, or all of
    /// it is in the archive and begins where a block begins, or it is copied into the image's own data, where what is
    /// not written is a hole as well.
    fn sparse(&mut self, header: &Header, segments: &[Segment], at: u64) -> Result<FileContent, ApplyError> {
        let wanted = (header.size.div_ceil(CHUNKS)).max(4096).next_power_of_two();
        let bits = u8::try_from(wanted.trailing_zeros()).unwrap_or(BLOCK_BITS) - BLOCK_BITS;
        let count = usize::try_from(header.size.div_ceil(wanted)).unwrap_or(0);
        self.tree.charge(count * size_of::<Chunk>()).map_err(refused(header, "make the file"))?;
        let mut chunks = vec![Chunk::Hole; count];
        let mut stored = at;
        for segment in segments {
            let end = segment.offset + segment.length;
            let mut from = segment.offset;
            while from < end {
                let index = from / wanted;
                let start = index * wanted;
                let chunk_end = (start + wanted).min(header.size);
                let to = chunk_end.min(end);
                let place = stored + (from - segment.offset);
                let slot = usize::try_from(index).ok().and_then(|index| chunks.get_mut(index));
                let Some(slot) = slot else { break };
                *slot = match *slot {
                    Chunk::Hole if from == start && to == chunk_end && place.is_multiple_of(BLOCK) => {
                        Chunk::Tar { block: u32::try_from(place / BLOCK).unwrap_or(u32::MAX) }
                    }
                    Chunk::Hole => {
                        let block = own_block(&mut self.own, wanted)?;
                        copy(&mut self.copies, place, to - from, block, from - start)?;
                        Chunk::Own { block }
                    }
                    Chunk::Own { block } => {
                        copy(&mut self.copies, place, to - from, block, from - start)?;
                        Chunk::Own { block }
                    }
                    // Segments do not overlap.
                    whole @ Chunk::Tar { .. } => whole,
                };
                from = to;
            }
            stored += segment.length;
        }
        Ok(FileContent::Chunks { bits, chunks })
    }

    fn directory(&mut self, parent: Id, name: &[u8], header: &Header) -> Result<(), ApplyError> {
        let fail = || refused(header, "make the directory");
        let found = self.tree.entry(parent, name);
        let id = match found {
            Some(id) if self.tree.directory(id).is_some() => id,
            _ => {
                let hides = found.is_some_and(|id| matches!(self.tree.node(id).kind, Kind::Whiteout));
                let directory = Directory { parent, entries: BTreeMap::new(), opaque: hides };
                let node = Node {
                    kind: Kind::Directory(directory),
                    mode: 0o755,
                    owner: (0, 0),
                    time: (0, 0),
                    xattrs: Vec::new(),
                };
                self.tree.add(parent, name, node).map_err(fail())?
            }
        };
        self.describe_directory(id, header)
    }

    fn describe_directory(&mut self, id: Id, header: &Header) -> Result<(), ApplyError> {
        let (uid, gid) = owner(header)?;
        let checked = self.check(header, true)?;
        let time = time(header);
        let table = &self.tree.xattrs;
        // Attributes of an earlier entry stay unless this one has them too; the default list is set at the end, once.
        let kept: Vec<u32> = self
            .tree
            .node(id)
            .xattrs
            .iter()
            .copied()
            .filter(|known| {
                let name = &*table[*known as usize].0;
                name != attributes::DEFAULT_ACL && !checked.xattrs.iter().any(|(new, _)| **new == *name)
            })
            .collect();
        let xattrs = self.intern(header, &checked)?;
        let node = self.tree.node_mut(id);
        node.owner = (uid.as_raw(), gid.as_raw());
        node.mode = checked.mode;
        node.time = time;
        node.xattrs = kept;
        node.xattrs.extend(xattrs);
        self.check_room(id).map_err(refused(header, "set the extended attributes of"))
    }

    fn hard_link(&mut self, path: &[u8], parent: Id, name: &[u8], header: &Header) -> Result<(), ApplyError> {
        let refuse =
            |reason| ApplyError::Link { path: shown(&header.path), target: shown(&header.link), reason };
        let fail = || refused(header, "make the hard link");
        let (target_parent, target_name) =
            split(&header.link).map_err(&refuse)?.ok_or_else(|| refuse("its target is a directory"))?;
        let directory = match self.tree.find(&target_parent) {
            Ok(directory) => Some(directory),
            Err(Refusal::Errno(Errno::NOENT | Errno::NOTDIR)) => None,
            Err(error) => return Err(fail()(error)),
        };
        let found =
            directory.and_then(|directory| Some((directory, self.tree.entry(directory, &target_name)?)));
        let found = found.filter(|(_, target)| !matches!(self.tree.node(*target).kind, Kind::Whiteout));
        let Some((directory, target)) = found else {
            self.tree.unlink(parent, name);
            let noted = self.links.add(joined(path, name), &joined(&target_parent, &target_name));
            return if noted {
                Ok(())
            } else {
                Err(refuse("there are too many links to files of lower layers"))
            };
        };
        if self.tree.directory(target).is_some() {
            return Err(refuse("its target is a directory"));
        }
        match self.tree.entry(parent, name) {
            Some(same) if same == target => return Ok(()),
            // What the link replaces has its target in it.
            Some(there) if self.tree.directory(there).is_some() && self.tree.lies_in(directory, there) => {
                return Err(fail()(Errno::NOENT.into()));
            }
            _ => {}
        }
        self.tree.link(parent, name, target).map_err(fail())
    }

    fn device(&mut self, parent: Id, name: &[u8], header: &Header, block: bool) -> Result<(), ApplyError> {
        let (major, minor) = header.device;
        if (major, minor) == (0, 0) {
            self.applied.skipped_devices += 1;
            return Ok(());
        }
        // The kernel's `new_encode_dev`. As in `mknod(2)`, 12 bits of the major and 20 of the minor number count.
        let number = (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12);
        self.node(parent, name, header, Kind::Device { block, number }, "make the device")
    }

    /// Adds what is not a directory, with owner, mode, attributes and time.
    fn node(
        &mut self,
        parent: Id,
        name: &[u8],
        header: &Header,
        kind: Kind,
        action: &'static str,
    ) -> Result<(), ApplyError> {
        let (uid, gid) = owner(header)?;
        let open = matches!(kind, Kind::File { .. });
        let checked = self.check(header, open)?;
        let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { checked.mode };
        let xattrs = self.intern(header, &checked)?;
        let owner = (uid.as_raw(), gid.as_raw());
        let node = Node { kind, mode, owner, time: time(header), xattrs };
        let id = self.tree.add(parent, name, node).map_err(refused(header, action))?;
        self.check_room(id).map_err(refused(header, "set the extended attributes of"))
    }

    /// The attributes that the node gets, as a file system would take them.
    fn check<'h>(&mut self, header: &'h Header, user: bool) -> Result<Checked<'h>, ApplyError> {
        let symlink = header.kind == EntryKind::Symlink;
        let mode = u16::try_from(mode(header).bits()).unwrap_or(0);
        let checked = attributes::check(header, mode, user, symlink, &mut self.applied)
            .map_err(failed(header, "set the extended attributes of"))?;
        Ok(checked)
    }

    fn intern(&mut self, header: &Header, checked: &Checked<'_>) -> Result<Vec<u32>, ApplyError> {
        let fail = || refused(header, "set the extended attributes of");
        checked.xattrs.iter().map(|(name, value)| self.tree.xattr(name, value).map_err(fail())).collect()
    }

    /// Whether a node's attributes fit into what an inode can hold.
    fn check_room(&self, id: Id) -> Result<(), Refusal> {
        let table = &self.tree.xattrs;
        let xattrs = self.tree.node(id).xattrs.iter().map(|place| &table[*place as usize]);
        let length: usize = xattrs.map(|(name, value)| name.len() + value.len() + 8).sum();
        if length > attributes::ROOM { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }
}

/// Takes `length` bytes of the image's own data: the number of the first block.
fn own_block(own: &mut u64, length: u64) -> Result<u32, ApplyError> {
    let too_large =
        || ApplyError::TooLarge { what: "bytes of sparse files that begin inside a block", limit: OWN };
    let block = u32::try_from(*own / BLOCK).map_err(|_| too_large())?;
    *own += length;
    if *own > OWN { Err(too_large()) } else { Ok(block) }
}

fn copy(copies: &mut Vec<Copy>, from: u64, length: u64, block: u32, within: u64) -> Result<(), ApplyError> {
    if copies.len() >= COPIES {
        return Err(ApplyError::TooLarge {
            what: "pieces of sparse files that begin inside a block",
            limit: COPIES as u64,
        });
    }
    copies.push(Copy { from, to: u64::from(block) * BLOCK + within, length });
    Ok(())
}

fn time(header: &Header) -> (i64, u32) {
    let time = times(header).last_modification;
    (time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn refused(header: &Header, action: &'static str) -> impl FnOnce(Refusal) -> ApplyError {
    move |refusal| match refusal {
        Refusal::Errno(errno) => failed(header, action)(errno),
        Refusal::Full => ApplyError::TooLarge { what: "entries", limit: NODES.min(BYTES) as u64 },
    }
}
