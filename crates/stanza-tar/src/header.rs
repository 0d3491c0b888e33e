//! What an entry says about itself.

/// One entry's description, all extensions applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The path as the archive has it: any bytes but NUL, at most [`Limits::path`]; may be empty, absolute or hold `..`.
    pub path: Vec<u8>,
    /// What the entry is.
    pub kind: EntryKind,
    /// The target of a symbolic or hard link; empty for everything else.
    pub link: Vec<u8>,
    /// Permission bits with set-user-id, set-group-id and sticky: 0 to 7777 octal.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Bytes of the file, holes included; 0 for everything that is not a file.
    pub size: u64,
    /// Modification time: seconds since 1970, which may be negative, and nanoseconds after them, 0 to 999,999,999.
    pub mtime: (i64, u32),
    /// Major and minor number of a device; `(0, 0)` for everything else.
    pub device: (u32, u32),
    /// Extended attributes: name and value, sorted by name, each name once. Names are not empty and hold no NUL.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    #[default]
    File,
    /// Another name of the file that `link` names.
    HardLink,
    /// A symbolic link to `link`.
    Symlink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A piece of a sparse file that holds data; what lies between the pieces is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: u64,
    /// Its length in bytes, never 0.
    pub length: u64,
}

/// How much an archive may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one pax header, and of all global pax records together.
    pub pax: u64,
    /// Bytes of one GNU long name or link, padding included.
    pub long_name: u64,
    /// Bytes of a path or link target.
    pub path: usize,
    /// Extension headers before one file.
    pub extensions: u32,
    /// Bytes of one file, holes included.
    pub file: u64,
    /// Segments of one sparse file.
    pub segments: usize,
}

impl Default for Limits {
    /// 1 MiB of pax records, long names of 64 KiB, paths of 4,096 bytes, 16 extension headers, files of 16 TiB, 262,144
    /// segments (4 MiB of memory).
    fn default() -> Limits {
        Limits {
            pax: 1 << 20,
            long_name: 64 << 10,
            path: 4096,
            extensions: 16,
            file: 1 << 44,
            segments: 1 << 18,
        }
    }
}
