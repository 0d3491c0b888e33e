//! The mounts of this machine, from `/proc/self/mountinfo` (`man 5 proc_pid_mountinfo`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// File systems without files of a machine's own: kernel interfaces, and names that something else stands behind.
const PSEUDO: [&str; 19] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
];

/// The mounts, by mount point; of several at one point the topmost.
pub(super) struct Mounts(BTreeMap<PathBuf, Mount>);

struct Mount {
    id: u64,
    holds_data: bool,
}

impl Mounts {
    pub(super) fn read() -> io::Result<Mounts> {
        Ok(Mounts::parse(&std::fs::read("/proc/self/mountinfo")?))
    }

    fn parse(text: &[u8]) -> Mounts {
        let mut mounts = BTreeMap::new();
        for line in text.split(|byte| *byte == b'\n') {
            // id parent major:minor root mount-point options [optional ...] - type source super-options
            let mut fields = line.split(|byte| *byte == b' ');
            let id = fields.next().and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
            let (Some(id), Some(point)) = (id, fields.nth(3)) else { continue };
            let kind = fields.skip_while(|field| *field != b"-").nth(1).unwrap_or_default();
            let holds_data = !PSEUDO.iter().any(|pseudo| pseudo.as_bytes() == kind);
            mounts.insert(PathBuf::from(OsString::from_vec(unescape(point))), Mount { id, holds_data });
        }
        Mounts(mounts)
    }

    /// Whether something is mounted strictly below `path`.
    pub(super) fn any_below(&self, path: &Path) -> bool {
        use std::ops::Bound::{Excluded, Unbounded};
        // Paths are ordered part by part, so what is below follows directly.
        let mut after = self.0.range::<Path, _>((Excluded(path), Unbounded));
        after.next().is_some_and(|(next, _)| next.starts_with(path))
    }

    /// Whether the mount at `path` holds files of its own; `None` when nothing is mounted there.
    pub(super) fn holds_data(&self, path: &Path) -> Option<bool> {
        self.0.get(path).map(|mount| mount.holds_data)
    }

    /// The mounts with files, sorted, but for the root and what other mounts cover.
    pub(super) fn visible(&self) -> Vec<PathBuf> {
        let shown = self.0.iter().filter(|(path, mount)| {
            mount.holds_data && *path != Path::new("/") && {
                // What is cached will do: a server that does not answer must not hold up a start.
                let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
                statx(CWD, *path, flags, StatxFlags::MNT_ID).is_ok_and(|stat| stat.stx_mnt_id == mount.id)
            }
        });
        shown.map(|(path, _)| path.clone()).collect()
    }
}

/// Blanks, newlines and backslashes are written as `\` and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let digits = after
            .get(..3)
            .filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let code =
            digits.map(|digits| digits.iter().fold(0u16, |code, digit| code * 8 + u16::from(digit - b'0')));
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => out.push(first),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let mounts = Mounts::parse(
            b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
              22 21 0:5 / /proc rw shared:3 master:1 - proc proc rw\n\
              23 21 8:2 / /mnt/a\\040b rw shared:1 - xfs /dev/sdb rw\n\
              24 21 8:3 / /mnt-x rw - vfat /dev/sdc rw\n\
              garbage\n",
        );
        assert_eq!(mounts.holds_data(Path::new("/proc")), Some(false));
        assert_eq!(mounts.holds_data(Path::new("/mnt/a b")), Some(true));
        assert_eq!(mounts.holds_data(Path::new("/mnt")), None);
        assert!(mounts.any_below(Path::new("/mnt")));
        assert!(mounts.any_below(Path::new("/")));
        assert!(!mounts.any_below(Path::new("/mnt/a b")));
        assert!(!mounts.any_below(Path::new("/mn")));
    }
}
