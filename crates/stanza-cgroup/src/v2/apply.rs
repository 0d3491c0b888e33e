//! What version 2 needs round the writes: parents hand controllers down, and a program decides about devices.

use std::io;
use std::path::{Path, PathBuf};

use crate::file;
use crate::plan::Group;

/// Why a controller was not handed down: the file, what was written, what the kernel said.
pub(crate) type Refused = (PathBuf, String, io::Error);

/// Enables the group's controllers in every directory from the root to the group's parent, where they are not yet.
/// A parent that has processes of its own refuses (`EBUSY`); they are not ours to move.
pub(crate) fn enable(group: &Group) -> Result<(), Refused> {
    let mut parents: Vec<&Path> = group.path.ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents {
        let directory = group.root.join(parent);
        let path = directory.join("cgroup.subtree_control");
        let on = file::read(&path).map_err(|error| (path.clone(), String::new(), error))?.unwrap_or_default();
        for enable in &group.enable {
            if on.split_whitespace().any(|name| name == enable.controller) {
                continue;
            }
            let value = format!("+{}", enable.controller);
            match file::write(&path, &value) {
                Err(error) if enable.required => return Err((path, value, error)),
                // Only statistics are lost.
                Err(_) | Ok(()) => {}
            }
        }
    }
    Ok(())
}
