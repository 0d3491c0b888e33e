//! The digest of a layer's tree: one number over everything that is in its `fs/`, to find damage by.
//!
//! ```text
//!   entry  = xxh3(kind, path, mode, owner, device, size, time, link, attributes, xxh3(content))     128 bits each
//!   digest = the sum of all entries' hashes, wrapping
//! ```
//!
//! A sum does not care about order, so that it grows while a layer is unpacked, in the order of the archive, and is told
//! again by walking the tree, in the order of the file system. Each name of a file with several counts, its content once
//! per name.
//!
//! What an entry says is what the file system has ([`Stat`]), not what the archive asked for: times that a file system
//! cannot hold and rights that it takes away are no damage. Left out is what is not a layer's content: times of access
//! and change, sizes and link counts of directories, everything of a whiteout but its place, and attributes that a
//! security module or a file system puts on files by itself.
//!
//! It finds accidents, not malice: who may write a layer may write its record. So the hash need not be a cryptographic one;
//! blake3 in its place took a twentieth of a pull's CPU.

use std::fmt;

use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use crate::overlay::is_whiteout;
use crate::xattrs::Xattrs;

/// The digest of a tree; `xxh3-sum:` and 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TreeDigest(u128);

const PREFIX: &str = "xxh3-sum:";

/// A text that is not a tree digest.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not `{PREFIX}` and 32 hexadecimal digits")]
pub struct NotADigest(String);

impl TryFrom<String> for TreeDigest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<TreeDigest, NotADigest> {
        let is_hex =
            |digits: &&str| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digits = text.strip_prefix(PREFIX).filter(is_hex);
        match digits.and_then(|digits| u128::from_str_radix(digits, 16).ok()) {
            Some(number) => Ok(TreeDigest(number)),
            None => Err(NotADigest(text)),
        }
    }
}

impl From<TreeDigest> for String {
    fn from(digest: TreeDigest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for TreeDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{:032x}", self.0)
    }
}

impl fmt::Debug for TreeDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What is known of the trees of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) digest: TreeDigest,
    /// Bytes of all files' content.
    pub(crate) size: u64,
    /// Bytes that all of it takes on disk.
    pub(crate) allocated: u64,
    pub(crate) inodes: u64,
}

/// A tree's digest and sizes on the way.
#[derive(Debug, Default)]
pub(crate) struct TreeSum {
    sum: u128,
    size: u64,
    allocated: u64,
    inodes: u64,
    scratch: Vec<u8>,
}

/// What kind-specific part an entry has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    /// Of a file.
    Content(&'a ContentDigest),
    /// The target of a symbolic link.
    Link(&'a [u8]),
    /// Of everything else.
    Nothing,
}

impl TreeSum {
    /// Adds one name.
    pub(crate) fn add(&mut self, path: &[u8], stat: &Stat, xattrs: &Xattrs, part: Part<'_>) {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let record = &mut self.scratch;
        record.clear();
        put_bytes(record, path);
        record.push(letter(kind));
        // What a whiteout is otherwise, nobody ever sees.
        if !is_whiteout(stat) {
            record.extend_from_slice(&(stat.st_mode & 0o7777).to_le_bytes());
            record.extend_from_slice(&stat.st_uid.to_le_bytes());
            record.extend_from_slice(&stat.st_gid.to_le_bytes());
            #[expect(clippy::useless_conversion, reason = "their types differ between architectures")]
            record.extend_from_slice(&i64::from(stat.st_mtime).to_le_bytes());
            record.extend_from_slice(&stat.st_mtime_nsec.to_le_bytes());
            if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
                record.extend_from_slice(&stat.st_rdev.to_le_bytes());
            }
            match part {
                Part::Content(digest) => {
                    record.extend_from_slice(&stat.st_size.to_le_bytes());
                    record.extend_from_slice(&digest.to_le_bytes());
                }
                Part::Link(target) => put_bytes(record, target),
                Part::Nothing => {}
            }
            for (name, value) in xattrs {
                put_bytes(record, name);
                put_bytes(record, value);
            }
        }
        self.sum = self.sum.wrapping_add(XxHash3_128::oneshot(record));
    }

    /// Counts one inode: each once, however many names it has.
    pub(crate) fn count(&mut self, stat: &Stat) {
        self.inodes += 1;
        self.allocated += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            self.size += u64::try_from(stat.st_size).unwrap_or(0);
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            digest: TreeDigest(self.sum),
            size: self.size,
            allocated: self.allocated,
            inodes: self.inodes,
        }
    }
}

fn put_bytes(record: &mut Vec<u8>, bytes: &[u8]) {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(bytes);
}

fn letter(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => b'f',
        FileType::Directory => b'd',
        FileType::Symlink => b'l',
        FileType::CharacterDevice => b'c',
        FileType::BlockDevice => b'b',
        FileType::Fifo => b'p',
        FileType::Socket => b's',
        FileType::Unknown => b'?',
    }
}

/// Whether an attribute is content of a layer, and not put there by a security module or a file system.
pub(crate) fn is_content(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || name.starts_with(b"system.posix_acl_")
        || name == b"security.capability"
}

/// The digest of a file's content.
pub(crate) type ContentDigest = u128;

/// Pieces of a file of this size, and at multiples of it, are left out when they are all zero, so that a hole of
/// terabytes costs nothing.
const PIECE: u64 = 1 << 20;

static ZEROS: [u8; 4096] = [0; 4096];

/// A file's content on its way: xxh3 of the pieces that hold something, and of where pieces are left out.
pub(crate) struct ContentHash {
    hash: XxHash3_128,
    offset: u64,
    /// Zero bytes at the beginning of the current piece that `hash` has not seen.
    zeros: u64,
    /// The current piece holds something.
    solid: bool,
    /// Numbers of the pieces that follow a gap, and how many bytes of the gap were left out.
    gaps: Option<Box<XxHash3_128>>,
    /// Bytes left out since the last piece that was hashed.
    gap: u64,
}

impl Default for ContentHash {
    fn default() -> ContentHash {
        ContentHash { hash: XxHash3_128::new(), offset: 0, zeros: 0, solid: false, gaps: None, gap: 0 }
    }
}

impl ContentHash {
    /// The next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let left = PIECE - self.offset % PIECE;
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(length);
            self.piece(now);
            self.advance(length as u64);
            bytes = later;
        }
    }

    /// Bytes of one piece.
    fn piece(&mut self, bytes: &[u8]) {
        if !self.solid {
            let Some(at) = bytes.iter().position(|byte| *byte != 0) else {
                self.zeros += bytes.len() as u64;
                return;
            };
            self.solidify();
            self.hash_zeros(at as u64);
            self.hash.write(&bytes[at..]);
            return;
        }
        self.hash.write(bytes);
    }

    /// The current piece holds something: what was left out of it counts.
    fn solidify(&mut self) {
        self.solid = true;
        if self.gap > 0 {
            let gaps = self.gaps.get_or_insert_default();
            gaps.write(&(self.offset / PIECE).to_le_bytes());
            gaps.write(&self.gap.to_le_bytes());
            self.gap = 0;
        }
        let zeros = std::mem::take(&mut self.zeros);
        self.hash_zeros(zeros);
    }

    fn hash_zeros(&mut self, mut count: u64) {
        while count > 0 {
            let length = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len());
            self.hash.write(&ZEROS[..length]);
            count -= length as u64;
        }
    }

    fn advance(&mut self, count: u64) {
        self.offset += count;
        if self.offset.is_multiple_of(PIECE) {
            self.gap += std::mem::take(&mut self.zeros);
            self.solid = false;
        }
    }

    /// The next `count` bytes are zero.
    pub(crate) fn skip(&mut self, mut count: u64) {
        while count > 0 {
            let into = self.offset % PIECE;
            if into == 0 && count >= PIECE {
                let whole = count - count % PIECE;
                self.gap += whole;
                self.offset += whole;
                count -= whole;
                continue;
            }
            let length = count.min(PIECE - into);
            if self.solid {
                self.hash_zeros(length);
            } else {
                self.zeros += length;
            }
            self.advance(length);
            count -= length;
        }
    }

    /// The digest. Zeros at the end are told by the file's size, which the entry has.
    pub(crate) fn finish(self) -> ContentDigest {
        let content = self.hash.finish_128();
        match self.gaps {
            None => content,
            Some(mut gaps) => {
                gaps.write(&content.to_le_bytes());
                gaps.finish_128()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: &[(&[u8], u64)]) -> ContentDigest {
        let mut hash = ContentHash::default();
        for (bytes, hole) in parts {
            hash.update(bytes);
            hash.skip(*hole);
        }
        hash.finish()
    }

    #[test]
    fn holes_are_zeros_and_their_place_counts() {
        let big = usize::try_from(PIECE).unwrap();
        let data = vec![7u8; 300];
        for hole in [1, 4095, PIECE - 301, PIECE - 300, PIECE, 3 * PIECE, 3 * PIECE + 17] {
            let zeros = vec![0; usize::try_from(hole).unwrap()];
            let whole = [&data[..], &zeros, &data].concat();
            let expected = hash(&[(&whole, 0)]);
            assert_eq!(hash(&[(&data, hole), (&data, 0)]), expected, "{hole}");
            let (a, b) = whole.split_at(whole.len() / 2);
            assert_eq!(hash(&[(a, 0), (b, 0)]), expected, "{hole}");
            let other = hash(&[(&data, hole + PIECE), (&data, 0)]);
            assert_ne!(other, expected, "{hole}");
        }
        // A dense file's digest is xxh3's own.
        let dense: Vec<u8> = (0..3 * big).map(|at| u8::try_from(at % 251).unwrap()).collect();
        assert_eq!(hash(&[(&dense, 0)]), XxHash3_128::oneshot(&dense));
        // Where the gap is counts, not only how long it is.
        assert_ne!(
            hash(&[(&data, 2 * PIECE - 300), (&dense[..big], PIECE), (&data, 0)]),
            hash(&[(&data, PIECE - 300), (&dense[..big], 2 * PIECE), (&data, 0)])
        );
    }

    #[test]
    fn a_hole_of_terabytes_costs_nothing() {
        assert_ne!(hash(&[(b"a", 1 << 44), (b"b", 0)]), hash(&[(b"a", 1 << 43), (b"b", 0)]));
    }

    #[test]
    fn its_text_is_read_back() {
        let digest = TreeDigest(u128::from(u64::MAX) << 1 | 42);
        assert_eq!(TreeDigest::try_from(digest.to_string()).unwrap(), digest);
        for bad in ["", "xxh3-sum:", "sha256:00", &digest.to_string()[1..], &(digest.to_string() + "0")] {
            assert!(TreeDigest::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        let sign = digest.to_string().replace(":0000", ":+000");
        assert!(TreeDigest::try_from(sign).is_err());
    }
}
