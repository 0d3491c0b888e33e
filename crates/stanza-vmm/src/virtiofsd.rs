//! The program that serves a directory of the host to a guest: `virtiofsd`, QEMU's own (before 8.0) or the one in Rust.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use crate::qemu::Command;

/// Where distributions have it, the newer first.
const PLACES: [&str; 5] = [
    "/usr/libexec/virtiofsd",
    "/usr/lib/virtiofsd",
    "/usr/bin/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
    "/usr/local/bin/virtiofsd",
];

/// A server of directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtiofsd {
    /// The executable.
    pub program: PathBuf,
}

/// It is not installed.
#[derive(Debug, thiserror::Error)]
#[error(
    "`virtiofsd` is not installed: install `qemu-system-common` (Debian 12) or `virtiofsd` (Debian 13, Ubuntu, Fedora, \
     RHEL, Arch, Alpine, openSUSE)"
)]
pub struct NoVirtiofsd;

impl Virtiofsd {
    /// The one of this host.
    ///
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Virtiofsd, NoVirtiofsd> {
        let found = PLACES.iter().map(Path::new).find(|path| path.is_file());
        found.map(|path| Virtiofsd { program: path.to_owned() }).ok_or(NoVirtiofsd)
    }

    /// How it serves `directory`, as it sees it, to the one that is connected to the listening socket `listener`.
    ///
    /// It keeps to the directory by `chroot`, which needs no more than that: the walls round it are the launcher's. Both
    /// programs understand these words.
    #[must_use]
    pub fn serve(&self, directory: &str, listener: RawFd) -> Command {
        let words = [
            "-f".to_owned(),
            format!("--fd={listener}"),
            "--rlimit-nofile=0".to_owned(),
            "-o".to_owned(),
            format!("source={directory}"),
            "-o".to_owned(),
            "sandbox=chroot,cache=auto,xattr,log_level=err".to_owned(),
        ];
        Command {
            program: self.program.clone(),
            arguments: words.into_iter().map(OsString::from).collect(),
            files: Vec::new(),
            descriptors: vec![listener],
        }
    }
}
