//! Writing the tree: places first, then bytes, front to back.
//!
//! Every inode gets its place before anything is written, for directories name inodes by their places. What a directory or
//! link has beyond whole blocks follows its inode in the same block (the kernel refuses what crosses one).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};
use stanza_spec::Digest;

use super::format::{
    BLOCK, BLOCK_BITS, Blocks, Chunk, Content, DIRENT, Device, INODE_SLOT, Inode, SUPERBLOCK, Superblock,
    XATTR_HEADER, put_chunk, put_dirent, put_xattr, put_xattr_header, xattr_length, xattr_prefix,
};
use super::tree::{FileContent, Id, Kind, ROOT, Tree, Xattr};

/// What was written.
pub(super) struct Written {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) checksum: u32,
    /// Files, directories and everything else, each once.
    pub(super) inodes: u64,
    /// Bytes of all files' content.
    pub(super) content: u64,
}

/// Why nothing was.
pub(super) enum WriteError {
    /// It has more blocks than can be numbered.
    TooLarge,
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        WriteError::Io(error)
    }
}

/// The most attributes of one inode that are shared: their number has 8 bits.
const SHARED: usize = 255;

/// Where the inode of a node is and how its content is stored.
#[derive(Clone, Copy)]
struct Place {
    /// From the image's start.
    at: u64,
    length: u64,
    xattrs: u64,
    size: u64,
    /// The first of its own blocks, from the start of the blocks.
    block: u64,
    /// Bytes that follow the inode.
    tail: u64,
    links: u32,
}

/// An image to be written, but for its tree.
pub(super) struct Frame<'a> {
    /// Where the image's own data ends.
    pub(super) own: u64,
    pub(super) blocks: Blocks,
    /// The archive that the image of a layer points into: its digest and size.
    pub(super) archive: Option<(&'a Digest, u64)>,
    /// What the image is called in its superblock.
    pub(super) name: &'a str,
}

/// Writes the image after its own data.
pub(super) fn write(tree: &Tree, frame: &Frame<'_>, file: &File) -> Result<Written, WriteError> {
    let own = frame.own;
    let block = frame.blocks.bytes();
    let mut layout = Layout::of(tree, own, frame.blocks);
    let blocks_at = layout.end.next_multiple_of(block);
    let xattrs_at = blocks_at + layout.blocks * block;
    let size = (xattrs_at + layout.shared_length).next_multiple_of(block);
    let number = |bytes: u64| u32::try_from(bytes / block).map_err(|_| WriteError::TooLarge);
    layout.first_block = number(blocks_at)?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&Sha256::digest(frame.name)[..16]);
    let device = frame.archive.map(|(diff_id, size)| archive(diff_id, size)).transpose()?;
    let superblock = Superblock {
        root: u16::try_from((layout.place(ROOT).at - own) / INODE_SLOT).unwrap_or(0),
        inodes: layout.order.len() as u64,
        time: layout.common,
        blocks: number(size)?,
        meta_block: number(own)?,
        xattr_block: number(xattrs_at)?,
        uuid,
        size: frame.blocks,
        device,
    };
    let (block, checksum) = superblock.bytes();
    file.write_all_at(&block, SUPERBLOCK)?;
    let mut output = Output { file: BufWriter::with_capacity(128 << 10, file), at: own };
    output.file.seek(SeekFrom::Start(own))?;
    layout.write_inodes(&mut output)?;
    output.pad_to(blocks_at)?;
    layout.write_blocks(&mut output)?;
    output.write(&layout.shared_bytes())?;
    output.pad_to(size)?;
    output.file.flush()?;
    drop(output);
    let contents = layout.order.iter().map(|id| match tree.node(*id).kind {
        Kind::File { size, .. } => size,
        _ => 0,
    });
    let (inodes, content) = (layout.order.len() as u64, contents.sum());
    Ok(Written { digest: digest_of(file, size)?, size, checksum, inodes, content })
}

/// The archive of a layer, as a device of its image.
fn archive(diff_id: &Digest, size: u64) -> Result<Device, WriteError> {
    let mut tag = [0; 64];
    let hex = diff_id.hex().as_bytes();
    let length = hex.len().min(tag.len());
    tag[..length].copy_from_slice(&hex[..length]);
    let blocks = u32::try_from(size.div_ceil(BLOCK)).map_err(|_| WriteError::TooLarge)?;
    Ok(Device { tag, blocks })
}

/// The digest of the first `size` bytes of a file.
pub(crate) fn digest_of(file: &File, size: u64) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    let mut at = 0;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..length], at)?;
        hash.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(Digest::from_hash(&hash.finalize()))
}

struct Output<'a> {
    file: BufWriter<&'a File>,
    at: u64,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn pad_to(&mut self, end: u64) -> io::Result<()> {
        const ZEROS: [u8; Blocks::DISK.length()] = [0; Blocks::DISK.length()];
        while self.at < end {
            let length = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write(&ZEROS[..length])?;
        }
        Ok(())
    }
}

struct Layout<'a> {
    tree: &'a Tree,
    size: Blocks,
    /// Nodes that have a name, directories before what is in them, the root first.
    order: Vec<Id>,
    /// By node; those without a name have none.
    places: Vec<Option<Place>>,
    /// The modification time that most nodes have.
    common: (i64, u32),
    /// Where the image's own data ends and inodes begin.
    start: u64,
    /// The end of the inodes.
    end: u64,
    /// Whole blocks of directories and links.
    blocks: u64,
    first_block: u32,
    /// Places of shared attributes in their area, by number in the tree's table.
    shared: HashMap<u32, u32>,
    shared_order: Vec<u32>,
    shared_length: u64,
    /// The mark of an opaque directory, in the tree's form.
    opaque: Xattr,
}

/// An attribute of a node, shared or not.
type Attribute<'a> = (Option<u32>, &'a Xattr);

impl<'a> Layout<'a> {
    fn of(tree: &'a Tree, own: u64, size: Blocks) -> Layout<'a> {
        let start = own.next_multiple_of(size.bytes());
        let opaque: Xattr = (b"trusted.overlay.opaque".as_slice().into(), b"y".as_slice().into());
        let mut layout = Layout {
            tree,
            size,
            order: Vec::new(),
            places: vec![None; tree.nodes.len()],
            common: (0, 0),
            start,
            // Number 0 would be an inode that many programs take for none.
            end: start + INODE_SLOT,
            blocks: 0,
            first_block: 0,
            shared: HashMap::new(),
            shared_order: Vec::new(),
            shared_length: 0,
            opaque,
        };
        let links = layout.walk();
        layout.count();
        for at in 0..layout.order.len() {
            layout.put(layout.order[at], links[layout.order[at] as usize]);
        }
        layout
    }

    fn place(&self, id: Id) -> Place {
        self.places[id as usize].expect("every node with a name has a place")
    }

    /// Lists the nodes that have a name, and counts those.
    fn walk(&mut self) -> Vec<u32> {
        let mut links = vec![0u32; self.tree.nodes.len()];
        links[ROOT as usize] = 2;
        self.order.push(ROOT);
        let mut at = 0;
        while let Some(id) = self.order.get(at).copied() {
            at += 1;
            let Some(directory) = self.tree.directory(id) else { continue };
            for child in directory.entries.values() {
                let seen = links[*child as usize] > 0;
                if self.tree.directory(*child).is_some() {
                    links[*child as usize] = 2;
                    links[id as usize] += 1;
                } else {
                    links[*child as usize] += 1;
                }
                if !seen {
                    self.order.push(*child);
                }
            }
        }
        links
    }

    /// Finds the most frequent time, and the attributes that several nodes have.
    fn count(&mut self) {
        let mut times: HashMap<(i64, u32), u32> = HashMap::new();
        let mut users = vec![0u32; self.tree.xattrs.len()];
        for id in &self.order {
            let node = self.tree.node(*id);
            *times.entry(node.time).or_default() += 1;
            for xattr in &node.xattrs {
                users[*xattr as usize] += 1;
            }
        }
        self.common = times.into_iter().max_by_key(|(time, count)| (*count, *time)).unwrap_or_default().0;
        for (number, _) in users.iter().enumerate().filter(|(_, users)| **users > 1) {
            let Ok(number) = u32::try_from(number) else { break };
            let (name, value) = &self.tree.xattrs[number as usize];
            let Some((_, rest)) = xattr_prefix(name) else { continue };
            // Bounded by the memory that the tree may take.
            self.shared.insert(number, u32::try_from(self.shared_length / 4).unwrap_or(u32::MAX));
            self.shared_order.push(number);
            self.shared_length += xattr_length(rest, value);
        }
    }

    /// The attributes of a node: at most [`SHARED`] by their place in the shared area.
    fn attributes(&self, id: Id) -> Vec<Attribute<'_>> {
        let node = self.tree.node(id);
        let mut shared = 0;
        let mut attributes: Vec<Attribute<'_>> = node
            .xattrs
            .iter()
            .map(|number| {
                let place = self.shared.get(number).copied().filter(|_| shared < SHARED);
                shared += usize::from(place.is_some());
                (place, &self.tree.xattrs[*number as usize])
            })
            .collect();
        if self.tree.directory(id).is_some_and(|directory| directory.opaque) {
            attributes.push((None, &self.opaque));
        }
        attributes
    }

    /// Gives a node its place.
    fn put(&mut self, id: Id, links: u32) {
        let node = self.tree.node(id);
        let block = self.size.bytes();
        let (size, tail) = match &node.kind {
            Kind::Directory(_) => {
                let size = self.directory_size(id);
                (size, size % block)
            }
            Kind::Symlink(target) => (target.len() as u64, target.len() as u64 % block),
            Kind::File { size, .. } => (*size, 0),
            _ => (0, 0),
        };
        let attributes = self.attributes(id);
        let xattrs = if attributes.is_empty() {
            0
        } else {
            let length = |(place, (name, value)): &Attribute<'_>| match place {
                Some(_) => 4,
                None => xattr_prefix(name).map_or(0, |(_, rest)| xattr_length(rest, value)),
            };
            XATTR_HEADER + attributes.iter().map(length).sum::<u64>()
        };
        let length = Inode::length(node.owner, size, links, node.time, self.common);
        let head = length + xattrs;
        let mut at = self.end.next_multiple_of(INODE_SLOT);
        // The tail must lie in one block: at the next inode slot where it does, or in a block of its own.
        let fits = |at: u64| (at + head) % block + tail <= block;
        let inline = tail > 0 && (head % INODE_SLOT) + tail <= block;
        while inline && !fits(at) {
            at += INODE_SLOT;
        }
        let tail = if inline { tail } else { 0 };
        let chunks = match &node.kind {
            Kind::File { size: 0, .. } => 0,
            Kind::File { content: FileContent::Tar { .. }, .. } => tar_chunks(size).1,
            Kind::File { content: FileContent::Chunks { chunks, .. }, .. } => chunks.len() as u64,
            _ => 0,
        };
        let head_end = at + head;
        self.end = if chunks > 0 { head_end.next_multiple_of(8) + 8 * chunks } else { head_end + tail };
        self.places[id as usize] = Some(Place { at, length, xattrs, size, block: self.blocks, tail, links });
        if !matches!(node.kind, Kind::File { .. }) {
            self.blocks += (size - tail).div_ceil(block);
        }
    }

    fn write_inodes(&self, output: &mut Output<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (number, id) in self.order.iter().enumerate() {
            let place = self.place(*id);
            output.pad_to(place.at)?;
            bytes.clear();
            self.inode(*id, number, &place, &mut bytes);
            output.write(&bytes)?;
        }
        Ok(())
    }

    fn inode(&self, id: Id, number: usize, place: &Place, bytes: &mut Vec<u8>) {
        let node = self.tree.node(id);
        let block = self.first_block.saturating_add(u32::try_from(place.block).unwrap_or(u32::MAX));
        let content = match &node.kind {
            Kind::Directory(_) | Kind::Symlink(_) if place.tail > 0 => Content::Inline { block },
            Kind::Directory(_) | Kind::Symlink(_) => Content::Plain { block },
            Kind::File { size: 0, .. } | Kind::Fifo => Content::Plain { block: 0 },
            Kind::File { content: FileContent::Own { block }, .. } => Content::Plain { block: *block },
            Kind::File { content: FileContent::Tar { .. }, size } => {
                Content::Chunks { bits: tar_chunks(*size).0 }
            }
            Kind::File { content: FileContent::Chunks { bits, .. }, .. } => Content::Chunks { bits: *bits },
            Kind::Device { number, .. } => Content::Device(*number),
            Kind::Whiteout => Content::Device(0),
        };
        let inode = Inode {
            content,
            xattrs: place.xattrs,
            mode: node.mode | kind_bits(&node.kind),
            size: place.size,
            number: u32::try_from(number + 1).unwrap_or(u32::MAX),
            owner: node.owner,
            time: node.time,
            links: place.links,
        };
        inode.write(place.length, bytes);
        self.put_xattrs(id, bytes);
        match &node.kind {
            Kind::File { size: 0, .. } | Kind::File { content: FileContent::Own { .. }, .. } => {}
            Kind::File { content, size } => {
                // Inodes begin at multiples of 8, so what is aligned among them is aligned in the image.
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                put_chunks(content, *size, bytes);
            }
            Kind::Directory(_) if place.tail > 0 => {
                let all = self.directory_bytes(id);
                bytes.extend(&all[all.len() - usize::try_from(place.tail).unwrap_or(0)..]);
            }
            Kind::Symlink(target) if place.tail > 0 => {
                bytes.extend(&target[target.len() - usize::try_from(place.tail).unwrap_or(0)..]);
            }
            _ => {}
        }
    }

    fn put_xattrs(&self, id: Id, bytes: &mut Vec<u8>) {
        let attributes = self.attributes(id);
        if attributes.is_empty() {
            return;
        }
        let shared: Vec<u32> = attributes.iter().filter_map(|(place, _)| *place).collect();
        put_xattr_header(&shared, bytes);
        for (_, (name, value)) in attributes.iter().filter(|(place, _)| place.is_none()) {
            if let Some((prefix, rest)) = xattr_prefix(name) {
                put_xattr(prefix, rest, value, bytes);
            }
        }
    }

    fn write_blocks(&self, output: &mut Output<'_>) -> io::Result<()> {
        for id in &self.order {
            let place = self.place(*id);
            let whole = usize::try_from(place.size - place.tail).unwrap_or(0);
            match &self.tree.node(*id).kind {
                Kind::Directory(_) if whole > 0 => output.write(&self.directory_bytes(*id)[..whole])?,
                Kind::Symlink(target) if whole > 0 => output.write(&target[..whole])?,
                _ => continue,
            }
            output.pad_to(output.at.next_multiple_of(self.size.bytes()))?;
        }
        Ok(())
    }

    fn shared_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in &self.shared_order {
            let (name, value) = &self.tree.xattrs[*number as usize];
            if let Some((prefix, rest)) = xattr_prefix(name) {
                put_xattr(prefix, rest, value, &mut bytes);
            }
        }
        bytes
    }

    /// A directory's entries in the order of their bytes, `.` and `..` among them.
    fn entries(&self, id: Id) -> Vec<(&[u8], Id)> {
        let Some(directory) = self.tree.directory(id) else { return Vec::new() };
        let mut entries: Vec<(&[u8], Id)> =
            directory.entries.iter().map(|(name, child)| (&**name, *child)).collect();
        for special in [(&b"."[..], id), (&b".."[..], directory.parent)] {
            let place = entries.partition_point(|(name, _)| *name < special.0);
            entries.insert(place, special);
        }
        entries
    }

    fn directory_size(&self, id: Id) -> u64 {
        let entries = self.entries(id);
        let blocks = split_blocks(&entries, self.size);
        let last = blocks.last().map_or(0, |block| block_length(block));
        (blocks.len() as u64 - 1) * self.size.bytes() + last as u64
    }

    fn directory_bytes(&self, id: Id) -> Vec<u8> {
        let entries = self.entries(id);
        let mut bytes = Vec::new();
        for block in split_blocks(&entries, self.size) {
            bytes.resize(bytes.len().next_multiple_of(self.size.length()), 0);
            let mut name_offset = block.len() * DIRENT;
            for (name, child) in block {
                let node = (self.place(*child).at - self.start) / INODE_SLOT;
                put_dirent(node, name_offset, kind_number(&self.tree.node(*child).kind), &mut bytes);
                name_offset += name.len();
            }
            block.iter().for_each(|(name, _)| bytes.extend_from_slice(name));
        }
        bytes
    }
}

fn block_length(entries: &[(&[u8], Id)]) -> usize {
    entries.iter().map(|(name, _)| DIRENT + name.len()).sum()
}

/// Entries by the block that they fit into.
fn split_blocks<'e, 'n>(entries: &'e [(&'n [u8], Id)], size: Blocks) -> Vec<&'e [(&'n [u8], Id)]> {
    let mut blocks = Vec::new();
    let (mut first, mut length) = (0, 0);
    for (at, (name, _)) in entries.iter().enumerate() {
        let one = DIRENT + name.len();
        if length + one > size.length() {
            blocks.push(&entries[first..at]);
            (first, length) = (at, 0);
        }
        length += one;
    }
    blocks.push(&entries[first..]);
    blocks
}

/// The size of the chunks of a file in the archive, as a shift of blocks, and their number: one as large as can be.
fn tar_chunks(size: u64) -> (u8, u64) {
    let blocks = size.div_ceil(BLOCK).max(1).next_power_of_two();
    let bits = u8::try_from(blocks.trailing_zeros()).unwrap_or(0).min(31);
    (bits, size.div_ceil(1 << (bits + BLOCK_BITS)))
}

fn put_chunks(content: &FileContent, size: u64, bytes: &mut Vec<u8>) {
    match content {
        // No chunks: its blocks follow each other.
        FileContent::Own { .. } => {}
        FileContent::Tar { block } => {
            let (bits, count) = tar_chunks(size);
            for number in 0..count {
                // The file's end was checked when it was added.
                let further = u32::try_from(number << bits).unwrap_or(u32::MAX);
                put_chunk(Chunk::Tar { block: block.saturating_add(further) }, bytes);
            }
        }
        FileContent::Chunks { chunks, .. } => chunks.iter().for_each(|chunk| put_chunk(*chunk, bytes)),
    }
}

fn kind_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => 0o040_000,
        Kind::File { .. } => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Device { block: true, .. } => 0o060_000,
        Kind::Device { block: false, .. } | Kind::Whiteout => 0o020_000,
        Kind::Fifo => 0o010_000,
    }
}

/// Kinds in directory entries.
fn kind_number(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Directory(_) => 2,
        Kind::Device { block: false, .. } | Kind::Whiteout => 3,
        Kind::Device { block: true, .. } => 4,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
    }
}
