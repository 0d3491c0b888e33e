//! Filling an empty volume with what the image has at its mount point, as Docker does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, mkdirat,
    mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};
use serde::{Deserialize, Serialize};

use crate::root::Root;

/// A volume that is filled before it is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyUp {
    /// The volume's directory on the host; nothing happens when it is not empty.
    pub source: PathBuf,
    /// The path in the container whose content is copied, owner and mode included.
    pub destination: PathBuf,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl CopyUp {
    /// Copies, when the image has a directory there and the volume is empty.
    pub(crate) fn apply(&self, root: &Root) -> io::Result<()> {
        let volume = openat(rustix::fs::CWD, &self.source, DIRECTORY, Mode::empty())?;
        if entries(&volume)?.next().is_some() {
            return Ok(());
        }
        let image = match root.open(&self.destination, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        copy_directory(&image, &volume)
    }
}

/// The names in a directory, without `.` and `..`.
fn entries(directory: impl AsFd) -> io::Result<impl Iterator<Item = io::Result<rustix::fs::DirEntry>>> {
    Ok(Dir::read_from(directory)?.map(|entry| entry.map_err(io::Error::from)).filter(|entry| {
        !entry.as_ref().is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))
    }))
}

pub(crate) fn copy_directory(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    for entry in entries(from)? {
        let entry = entry?;
        copy_entry(from, to, entry.file_name())?;
    }
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    Ok(rustix::fs::futimens(to, &times(&stat))?)
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let (from, to) =
                (openat(from, name, DIRECTORY, Mode::empty())?, openat(to, name, DIRECTORY, Mode::empty())?);
            return copy_directory(&from, &to);
        }
        FileType::RegularFile => {
            let source =
                openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target.try_clone()?))?;
            // The owner first: a change of owner clears set-user-id bits.
            rustix::fs::fchown(&target, Some(uid), Some(gid))?;
            fchmod(&target, Mode::from_raw_mode(stat.st_mode))?;
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
            chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        kind => {
            mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
            chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
