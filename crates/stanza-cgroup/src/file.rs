//! Reading and writing the small files of a cgroup.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Writes `value` in one system call, as the kernel wants it; the file must be there.
pub(crate) fn write(path: &Path, value: &str) -> io::Result<()> {
    write_open(&open_to_write(path)?, value)
}

pub(crate) fn open_to_write(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

pub(crate) fn write_open(file: &OwnedFd, value: &str) -> io::Result<()> {
    match rustix::io::write(file, value.as_bytes())? {
        written if written == value.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The text of a file that the kernel makes in one piece: most files of a cgroup, `/proc/self/cgroup`. `None` when it is
/// not there (no such controller, or an older kernel). A read that does not fill the buffer was the whole.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    read_until(path, |read, room| read < room)
}

/// The text of a file that the kernel makes record by record (`cgroup.procs`, `/proc/self/mountinfo`): any read may be
/// short.
pub(crate) fn read_records(path: &Path) -> io::Result<Option<String>> {
    read_until(path, |read, _| read == 0)
}

fn read_until(path: &Path, is_last: impl Fn(usize, usize) -> bool) -> io::Result<Option<String>> {
    match read_bytes(path, is_last) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| io::ErrorKind::InvalidData.into()),
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn read_bytes(path: &Path, is_last: impl Fn(usize, usize) -> bool) -> Result<Vec<u8>, Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = vec![0; 4096];
    let mut filled = 0;
    loop {
        let room = bytes.len() - filled;
        let read = match rustix::io::read(&file, &mut bytes[filled..]) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        filled += read;
        if is_last(read, room) {
            bytes.truncate(filled);
            return Ok(bytes);
        }
        if filled == bytes.len() {
            bytes.resize(filled * 2, 0);
        }
    }
}

/// Whether an error says that the file, or the cgroup under an open file of it, is not there (any more).
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

/// A file with one number; `None` when it is not there or says `max`.
pub(crate) fn read_number(path: &Path) -> io::Result<Option<u64>> {
    Ok(read(path)?.and_then(|text| text.trim().parse().ok()))
}

/// The number after `key` in a file of `key number` lines.
pub(crate) fn number_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// `directory` and all cgroups below it, parents first; empty when it is not there.
pub(crate) fn tree(directory: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut found = vec![directory.to_owned()];
    let mut at = 0;
    while at < found.len() {
        match children(&found[at]) {
            Ok(names) => {
                let parent = found[at].clone();
                found.extend(names.into_iter().map(|name| parent.join(name)));
                at += 1;
            }
            Err(error) if is_gone(&error) => {
                found.remove(at);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The names of the cgroups right below `directory`.
pub(crate) fn children(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}
