//! Paths that are hidden or read-only although root in the container could otherwise use them.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags, fstat};
use stanza_sys::{Handle, MountAttributes};

use crate::error::{During, Failure};
use crate::root::Root;
use crate::source;

const READ_ONLY: MountAttributes =
    MountAttributes { set: MountAttributes::READ_ONLY, clear: 0, propagation: 0, user_namespace: 0 };

/// What is at `path`; `None` when nothing is, which is fine for a path to hide.
fn find(root: &Root, path: &str) -> Result<Option<Handle>, Failure> {
    match root.open(Path::new(path), OFlags::PATH) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).during_on("open", Path::new(path)),
    }
}

/// Makes each path read-only, with what is below it.
pub(super) fn read_only(root: &Root, paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        if let Some(place) = find(root, path)? {
            let step = "make read-only";
            let tree = source::clone_of(place.as_fd(), true).during_on(step, Path::new(path))?;
            source::attach(&tree, &place).during_on(step, Path::new(path))?;
            source::set_attributes(&tree, true, &READ_ONLY).during_on(step, Path::new(path))?;
        }
    }
    Ok(())
}

/// Hides each path: a file behind the null device, a directory behind an empty one. All directories share one tmpfs.
pub(super) fn mask(root: &Root, paths: &[String], null: &Handle) -> Result<(), Failure> {
    let mut empty: Option<Handle> = None;
    for path in paths {
        let Some(place) = find(root, path)? else { continue };
        let step = "mask";
        let stat = fstat(&place).during_on(step, Path::new(path))?;
        if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            let cover = source::clone_of(null.as_fd(), false).during_on(step, Path::new(path))?;
            source::attach(&cover, &place).during_on(step, Path::new(path))?;
            continue;
        }
        let cover = match &empty {
            // Attached by now: before Linux 6.15 only such a mount can be cloned.
            Some(first) => source::clone_of(first.as_fd(), false),
            None => {
                let data =
                    [("size".to_owned(), Some("0".to_owned())), ("mode".to_owned(), Some("0555".to_owned()))];
                source::new_mount("tmpfs", "tmpfs", &data, MountAttributes::READ_ONLY)
            }
        };
        let cover = cover.during_on(step, Path::new(path))?;
        source::attach(&cover, &place).during_on(step, Path::new(path))?;
        empty.get_or_insert(cover);
    }
    Ok(())
}

/// Makes one mount read-only, not what is mounted below it.
pub(crate) fn make_read_only(mount: impl AsFd) -> io::Result<()> {
    source::set_attributes(mount, false, &READ_ONLY)
}
