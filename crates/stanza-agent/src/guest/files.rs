//! Small files of the guest.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path};

use crate::wire::GuestFile;

/// Writes a file anew, with its directories. What a container could have put in its place is not followed.
pub(super) fn write(file: &GuestFile) -> io::Result<()> {
    check(&file.path)?;
    if let Some(parent) = file.path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(&file.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.path)?;
    to.write_all(&file.content.0)?;
    to.set_permissions(fs::Permissions::from_mode(file.mode & 0o7777))
}

/// A path of the host's plan is absolute and goes straight.
pub(super) fn check(path: &Path) -> io::Result<()> {
    let mut parts = path.components();
    let straight = parts.next() == Some(Component::RootDir)
        && path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if straight {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` is no absolute path", path.display())))
    }
}

/// Writes a kernel setting, which is there already.
pub(super) fn set(path: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}
