//! Extended attributes as a file system takes them: what `setxattr(2)` refuses is refused here, and an access control list
//! sets the mode.

use rustix::io::Errno;
use stanza_tar::Header;

use super::format::xattr_prefix;
use crate::Applied;
use crate::overlay::is_own_xattr;

pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const CAPABILITY: &[u8] = b"security.capability";

/// Bytes of attributes that one inode can hold with certainty: its count of 4-byte words has 16 bits.
pub(super) const ROOM: usize = 4 * (u16::MAX as usize) - 64;

/// Longest name, prefix included (`XATTR_NAME_MAX`), and value that the image's fields hold.
const NAME: usize = 255;
const VALUE: usize = u16::MAX as usize;

/// What an entry's attributes come to.
pub(super) struct Checked<'h> {
    /// Permission bits.
    pub(super) mode: u16,
    pub(super) xattrs: Vec<(&'h [u8], &'h [u8])>,
}

/// Checks the attributes of an entry with permission bits `mode`. `plain` says that it is a file or directory: nothing else
/// has attributes of users.
pub(super) fn check<'h>(
    header: &'h Header,
    mut mode: u16,
    plain: bool,
    symlink: bool,
    applied: &mut Applied,
) -> Result<Checked<'h>, Errno> {
    let mut xattrs = Vec::new();
    for (name, value) in &header.xattrs {
        if is_own_xattr(name) {
            applied.skipped_xattrs += 1;
            continue;
        }
        if name.len() > NAME {
            return Err(Errno::RANGE);
        }
        if value.len() > VALUE {
            return Err(Errno::TOOBIG);
        }
        let (prefix, _) = xattr_prefix(name).ok_or(match &name[..] {
            b"user." | b"trusted." | b"security." => Errno::INVAL,
            _ => Errno::OPNOTSUPP,
        })?;
        match &name[..] {
            ACCESS_ACL | DEFAULT_ACL if symlink => return Err(Errno::OPNOTSUPP),
            ACCESS_ACL => {
                let list = Acl::parse(value)?;
                if let Some(bits) = list.mode {
                    mode = mode & !0o777 | bits;
                }
                if !list.minimal {
                    xattrs.push((&name[..], &value[..]));
                }
            }
            DEFAULT_ACL => {
                let is_directory = header.kind == stanza_tar::EntryKind::Directory;
                let list = Acl::parse(value)?;
                match (is_directory, list.mode) {
                    (true, Some(_)) => xattrs.push((&name[..], &value[..])),
                    // An empty list takes one away.
                    (_, None) => {}
                    (false, Some(_)) => return Err(Errno::ACCESS),
                }
            }
            CAPABILITY if !is_capability(value) => return Err(Errno::INVAL),
            _ if prefix == 1 && !plain => return Err(Errno::PERM),
            _ => xattrs.push((&name[..], &value[..])),
        }
    }
    Ok(Checked { mode, xattrs })
}

/// Whether the kernel takes this for capabilities of a file: version 2 with 20 bytes, or 3 with 24 (capabilities(7)).
fn is_capability(value: &[u8]) -> bool {
    matches!((value.len(), value.get(3)), (20, Some(2)) | (24, Some(3)))
}

/// An access control list (`linux/posix_acl_xattr.h`).
struct Acl {
    /// The permission bits that it stands for; `None` when it is empty.
    mode: Option<u16>,
    /// It says no more than these bits.
    minimal: bool,
}

impl Acl {
    /// As the kernel's `posix_acl_from_xattr` and `posix_acl_valid`.
    fn parse(value: &[u8]) -> Result<Acl, Errno> {
        let (version, entries) = value.split_at_checked(4).ok_or(Errno::INVAL)?;
        if version != 2u32.to_le_bytes() {
            return Err(Errno::OPNOTSUPP);
        }
        if entries.is_empty() {
            return Ok(Acl { mode: None, minimal: true });
        }
        if entries.len() % 8 != 0 {
            return Err(Errno::INVAL);
        }
        let (mut owner, mut group, mut mask, mut others) = (None, None, None, None);
        let (mut last, mut named) = (0, false);
        for entry in entries.chunks_exact(8) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let bits = u16::from_le_bytes([entry[2], entry[3]]);
            // Tags come in order; those of named users and groups may repeat.
            if bits > 7 || tag < last || (tag == last && !matches!(tag, 0x02 | 0x08)) {
                return Err(Errno::INVAL);
            }
            last = tag;
            match tag {
                0x01 => owner = Some(bits),
                0x02 | 0x08 => {
                    named = true;
                    if entry[4..8] == u32::MAX.to_le_bytes() {
                        return Err(Errno::INVAL);
                    }
                }
                0x04 => group = Some(bits),
                0x10 => mask = Some(bits),
                0x20 => others = Some(bits),
                _ => return Err(Errno::INVAL),
            }
        }
        let (Some(owner), Some(group), Some(others)) = (owner, group, others) else {
            return Err(Errno::INVAL);
        };
        if named && mask.is_none() {
            return Err(Errno::INVAL);
        }
        let middle = mask.unwrap_or(group);
        Ok(Acl { mode: Some(owner << 6 | middle << 3 | others), minimal: mask.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(bits.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn access_control_lists_are_modes_or_refused() {
        let none = u32::MAX;
        let minimal = Acl::parse(&list(&[(1, 6, none), (4, 4, none), (32, 0, none)])).unwrap();
        assert_eq!((minimal.mode, minimal.minimal), (Some(0o640), true));
        let named = [(1, 7, none), (2, 6, 1000), (2, 4, 1001), (4, 4, none), (16, 6, none), (32, 1, none)];
        let named = Acl::parse(&list(&named)).unwrap();
        assert_eq!((named.mode, named.minimal), (Some(0o761), false));
        assert_eq!(Acl::parse(&list(&[])).unwrap().mode, None);
        for bad in [
            list(&[(1, 6, none), (4, 4, none)]),
            list(&[(1, 6, none), (2, 6, 1000), (4, 4, none), (32, 0, none)]),
            list(&[(4, 4, none), (1, 6, none), (32, 0, none)]),
            list(&[(1, 9, none), (4, 4, none), (32, 0, none)]),
            vec![2, 0, 0, 0, 1],
            vec![],
        ] {
            assert!(Acl::parse(&bad).is_err(), "{bad:?}");
        }
    }
}
