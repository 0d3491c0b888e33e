//! The digest of a layer's tree, told while the tree grows, of what is at hand anyway.
//!
//! Each entry is added once it is as it stays. Where that cannot be said of one (it is replaced later, or lies behind a
//! link, so that its path is not what the archive calls it) the layer is irregular, and read back in the end.

use std::collections::HashMap;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::name::joined;
use super::tree::Late;
use crate::overlay::is_kind;
use crate::tree_digest::{ContentDigest, ContentHash, Part, TreeSum};
use crate::walk::{add_entry, content_at, read_xattrs};
use crate::xattrs::Xattrs;

/// Files whose content is remembered for hard links to them: 21 MiB. What is linked to a later one is read back.
const REMEMBERED: usize = 400_000;

/// The sum so far.
#[derive(Default)]
pub(super) struct Fingerprint {
    pub(super) tree: TreeSum,
    pub(super) irregular: bool,
    /// By inode.
    contents: HashMap<u64, ContentDigest>,
}

impl Fingerprint {
    /// Adds a directory that is as it stays.
    pub(super) fn directory(&mut self, path: &[u8], directory: &OwnedFd, late: &Late) -> Result<(), Errno> {
        if self.irregular {
            return Ok(());
        }
        let stat = fs::fstat(directory)?;
        let xattrs = if late.xattrs { read_xattrs(directory.as_fd())? } else { Xattrs::new() };
        self.tree.add(path, &stat, &xattrs, Part::Nothing);
        self.tree.count(&stat);
        Ok(())
    }

    /// Adds a file that was just written.
    pub(super) fn file(
        &mut self,
        parent: &[u8],
        name: &[u8],
        file: &OwnedFd,
        has_xattrs: bool,
        content: ContentHash,
    ) -> Result<(), Errno> {
        if self.irregular {
            return Ok(());
        }
        let stat = fs::fstat(file)?;
        let xattrs = if has_xattrs { read_xattrs(file.as_fd())? } else { Xattrs::new() };
        let content = content.finish();
        self.tree.add(&joined(parent, name), &stat, &xattrs, Part::Content(&content));
        self.tree.count(&stat);
        if self.contents.len() < REMEMBERED {
            self.contents.insert(stat.st_ino, content);
        }
        Ok(())
    }

    /// Adds a link, a pipe or a device that was just made.
    pub(super) fn special(
        &mut self,
        parent_path: &[u8],
        parent: &OwnedFd,
        name: &[u8],
        link: &[u8],
        has_xattrs: bool,
    ) -> Result<(), Errno> {
        if self.irregular {
            return Ok(());
        }
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let path = joined(parent_path, name);
        self.tree.count(&stat);
        if has_xattrs {
            return add_entry(&mut self.tree, parent.as_fd(), name, &path, &stat, None);
        }
        let part = if is_kind(&stat, FileType::Symlink) { Part::Link(link) } else { Part::Nothing };
        self.tree.add(&path, &stat, &Xattrs::new(), part);
        Ok(())
    }

    /// Adds one more name of a file.
    pub(super) fn hard_link(
        &mut self,
        parent_path: &[u8],
        parent: &OwnedFd,
        name: &[u8],
        stat: &Stat,
    ) -> Result<(), Errno> {
        if self.irregular {
            return Ok(());
        }
        let content = match self.contents.get(&stat.st_ino) {
            Some(content) => Some(*content),
            None if is_kind(stat, FileType::RegularFile) => {
                Some(content_at(parent.as_fd(), name, stat, &mut vec![0; 64 << 10])?)
            }
            None => None,
        };
        add_entry(&mut self.tree, parent.as_fd(), name, &joined(parent_path, name), stat, content)
    }
}
