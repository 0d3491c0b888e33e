//! The parts of an erofs image as bytes (kernel, `fs/erofs/erofs_fs.h`); all numbers are little-endian.

/// The size of an image's blocks, as a shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks(u8);

impl Blocks {
    /// Of a layer: as in tar archives, so that every file's content in one is aligned.
    pub(crate) const LAYER: Blocks = Blocks(9);
    /// Of a disk: a page. Kernels before 6.4 mount nothing else.
    pub(crate) const DISK: Blocks = Blocks(12);

    /// Bytes of a block.
    pub(crate) const fn bytes(self) -> u64 {
        1 << self.0
    }

    /// The same as a length in memory.
    pub(crate) const fn length(self) -> usize {
        1 << self.0
    }

    /// The same as a shift.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// Bytes from the superblock's start to the end of its block: what its checksum covers.
    pub(crate) const fn superblock_length(self) -> usize {
        // The first block of a disk begins with nothing; the superblock of a layer begins a block.
        if self.length() > BEFORE_SUPERBLOCK { self.length() - BEFORE_SUPERBLOCK } else { self.length() }
    }
}

/// Bytes of a layer's block.
pub(crate) const BLOCK: u64 = Blocks::LAYER.bytes();
/// The same as a shift.
pub(crate) const BLOCK_BITS: u8 = Blocks::LAYER.bits();
/// Where the superblock is.
pub(crate) const SUPERBLOCK: u64 = BEFORE_SUPERBLOCK as u64;
const BEFORE_SUPERBLOCK: usize = 1024;
/// Bytes of the superblock, and of an entry in the table of devices, which follows it.
const SLOT: usize = 128;
/// The place of the table of devices, right after the superblock, in such pieces.
const DEVICES: u16 = 9;
/// Inodes lie at multiples of this from the start of the metadata; a node's number is how many.
pub(crate) const INODE_SLOT: u64 = 32;
/// Bytes of the head of an inode's attributes.
pub(crate) const XATTR_HEADER: u64 = 12;
/// Bytes of a directory entry without its name.
pub(crate) const DIRENT: usize = 12;
/// A chunk that is a hole.
const NO_BLOCK: u32 = u32::MAX;

const MAGIC: u32 = 0xE0F5_E1E2;
const COMPAT_CHECKSUM: u32 = 0x1;
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED: u32 = 0x4;
const INCOMPAT_DEVICES: u32 = 0x8;
const CHUNK_INDEXES: u16 = 0x20;

/// How an inode's content is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// In whole blocks from this one on; an empty file has none.
    Plain { block: u32 },
    /// As [`Content::Plain`], but for what does not fill a block, which follows the inode.
    Inline { block: u32 },
    /// In chunks of a block times two to this power, told by indexes that follow the inode.
    Chunks { bits: u8 },
    /// A device's number.
    Device(u32),
}

/// What the superblock says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Superblock {
    pub(crate) root: u16,
    pub(crate) inodes: u64,
    /// The modification time of inodes in compact form.
    pub(crate) time: (i64, u32),
    pub(crate) blocks: u32,
    pub(crate) meta_block: u32,
    pub(crate) xattr_block: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) size: Blocks,
    /// The extra device of a layer.
    pub(crate) device: Option<Device>,
}

/// A device that an image points into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    pub(crate) tag: [u8; 64],
    pub(crate) blocks: u32,
}

impl Superblock {
    /// The superblock, the table of devices and the rest of their block, and the checksum of it all.
    pub(crate) fn bytes(&self) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(self.size.superblock_length());
        put(&mut bytes, &[&MAGIC.to_le_bytes(), &[0; 4], &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes()]);
        put(&mut bytes, &[&[self.size.bits(), 0], &self.root.to_le_bytes(), &self.inodes.to_le_bytes()]);
        put(&mut bytes, &[&self.time.0.to_le_bytes(), &self.time.1.to_le_bytes()]);
        for number in [self.blocks, self.meta_block, self.xattr_block] {
            bytes.extend(number.to_le_bytes());
        }
        let (features, devices, slot) = match self.device {
            Some(_) => (INCOMPAT_CHUNKED | INCOMPAT_DEVICES, 1u16, DEVICES),
            None => (0, 0, 0),
        };
        put(&mut bytes, &[&self.uuid, &[0; 16], &features.to_le_bytes()]);
        put(&mut bytes, &[&[0; 2], &devices.to_le_bytes(), &slot.to_le_bytes()]);
        bytes.resize(SLOT, 0);
        if let Some(device) = &self.device {
            put(&mut bytes, &[&device.tag, &device.blocks.to_le_bytes()]);
        }
        bytes.resize(self.size.superblock_length(), 0);
        let checksum = crc32c(&bytes);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }
}

/// An inode without what follows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inode {
    pub(crate) content: Content,
    /// Bytes of its attributes, header included; 0 without any.
    pub(crate) xattrs: u64,
    /// Kind and permission bits.
    pub(crate) mode: u16,
    pub(crate) size: u64,
    pub(crate) number: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) time: (i64, u32),
    pub(crate) links: u32,
}

impl Inode {
    /// Bytes of one with these properties when the superblock has this time: half as many when they are small.
    pub(crate) fn length(
        owner: (u32, u32),
        size: u64,
        links: u32,
        time: (i64, u32),
        common: (i64, u32),
    ) -> u64 {
        let small = |number: u32| u16::try_from(number).is_ok();
        let compact =
            time == common && small(owner.0) && small(owner.1) && small(links) && u32::try_from(size).is_ok();
        if compact { 32 } else { 64 }
    }

    /// Adds it, `length` bytes as [`Inode::length`] gives.
    pub(crate) fn write(&self, length: u64, bytes: &mut Vec<u8>) {
        let compact = length == 32;
        let (layout, union) = match self.content {
            Content::Plain { block } => (0u16, block),
            Content::Inline { block } => (2, block),
            Content::Chunks { bits } => (4, u32::from(CHUNK_INDEXES | u16::from(bits))),
            Content::Device(number) => (0, number),
        };
        let format = layout << 1 | u16::from(!compact);
        let count = match self.xattrs {
            0 => 0,
            // Checked when the tree was made: at most 65,535.
            length => u16::try_from((length - XATTR_HEADER) / 4 + 1).unwrap_or(u16::MAX),
        };
        put(bytes, &[&format.to_le_bytes(), &count.to_le_bytes(), &self.mode.to_le_bytes()]);
        if compact {
            let half = |number: u32| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
            let size = u32::try_from(self.size).unwrap_or(u32::MAX);
            put(bytes, &[&half(self.links), &size.to_le_bytes(), &[0; 4], &union.to_le_bytes()]);
            put(bytes, &[&self.number.to_le_bytes(), &half(self.owner.0), &half(self.owner.1), &[0; 4]]);
        } else {
            put(bytes, &[&[0; 2], &self.size.to_le_bytes(), &union.to_le_bytes()]);
            for number in [self.number, self.owner.0, self.owner.1] {
                bytes.extend(number.to_le_bytes());
            }
            put(bytes, &[&self.time.0.to_le_bytes(), &self.time.1.to_le_bytes(), &self.links.to_le_bytes()]);
            bytes.extend([0; 16]);
        }
    }
}

/// The checksum that a superblock tells, when it is the right one.
pub(crate) fn told_checksum(superblock: &[u8]) -> Option<u32> {
    let told = u32::from_le_bytes(superblock.get(4..8)?.try_into().ok()?);
    let mut bytes = superblock.to_vec();
    bytes[4..8].fill(0);
    (crc32c(&bytes) == told).then_some(told)
}

/// The number of blocks that a superblock tells.
pub(crate) fn told_blocks(superblock: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(superblock.get(36..40)?.try_into().ok()?))
}

/// Adds the index of one chunk: in the extra device, in the image itself, or a hole.
pub(crate) fn put_chunk(place: Chunk, bytes: &mut Vec<u8>) {
    let (device, block) = match place {
        Chunk::Hole => (0u16, NO_BLOCK),
        Chunk::Own { block } => (0, block),
        Chunk::Tar { block } => (1, block),
    };
    put(bytes, &[&[0; 2], &device.to_le_bytes(), &block.to_le_bytes()]);
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Nowhere: it is zeros.
    Hole,
    /// In the image.
    Own {
        /// Its first block.
        block: u32,
    },
    /// In the archive.
    Tar {
        /// Its first block.
        block: u32,
    },
}

/// Adds a directory entry; its name follows all entries of its block, at `name_offset`.
pub(crate) fn put_dirent(node: u64, name_offset: usize, kind: u8, bytes: &mut Vec<u8>) {
    let offset = u16::try_from(name_offset).unwrap_or(u16::MAX);
    put(bytes, &[&node.to_le_bytes(), &offset.to_le_bytes(), &[kind, 0]]);
}

/// The number of an attribute's prefix, and the rest of its name; `None` when the kernel knows no such kind.
pub(crate) fn xattr_prefix(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((2, b"")),
        b"system.posix_acl_default" => return Some((3, b"")),
        _ => {}
    }
    [(1, &b"user."[..]), (4, b"trusted."), (6, b"security.")]
        .into_iter()
        .find_map(|(number, prefix)| Some((number, name.strip_prefix(prefix)?)))
        .filter(|(_, rest)| !rest.is_empty())
}

/// Bytes of an attribute with its value.
pub(crate) fn xattr_length(rest: &[u8], value: &[u8]) -> u64 {
    (4 + rest.len() + value.len()).next_multiple_of(4) as u64
}

/// Adds an attribute.
pub(crate) fn put_xattr(prefix: u8, rest: &[u8], value: &[u8], bytes: &mut Vec<u8>) {
    // Both checked when the attribute was read.
    let name_length = u8::try_from(rest.len()).unwrap_or(u8::MAX);
    let value_length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    put(bytes, &[&[name_length, prefix], &value_length.to_le_bytes(), rest, value]);
    let padding = (rest.len() + value.len()).next_multiple_of(4) - rest.len() - value.len();
    bytes.extend(&[0; 3][..padding]);
}

/// Adds the head of an inode's attributes: the shared ones by their place in the shared area, in units of 4 bytes.
pub(crate) fn put_xattr_header(shared: &[u32], bytes: &mut Vec<u8>) {
    let count = u8::try_from(shared.len()).unwrap_or(u8::MAX);
    put(bytes, &[&[0; 4], &[count], &[0; 7]]);
    for place in shared {
        bytes.extend(place.to_le_bytes());
    }
}

fn put(bytes: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
}

/// CRC-32C as the kernel's `crc32c(~0, …)`: not inverted at the end.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & 0u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_kernels() {
        // The check value of CRC-32C, and the constant that the kernel starts with after the magic number.
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
        let start: Vec<u8> = [MAGIC.to_le_bytes(), [0; 4]].concat();
        assert_eq!(crc32c(&start), 0x5045_B54A);
    }

    #[test]
    fn attributes_have_the_prefixes_that_the_kernel_reads() {
        assert_eq!(xattr_prefix(b"user.a"), Some((1, &b"a"[..])));
        assert_eq!(xattr_prefix(b"security.capability"), Some((6, &b"capability"[..])));
        assert_eq!(xattr_prefix(b"system.posix_acl_access"), Some((2, &b""[..])));
        for none in [&b"user."[..], b"system.foo", b"foo", b"lustre.x"] {
            assert_eq!(xattr_prefix(none), None);
        }
    }
}
