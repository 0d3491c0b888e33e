//! What version 2 needs round the writes: parents hand controllers down, and a program decides about devices.

use std::io;
use std::path::{Path, PathBuf};

use crate::file;
use crate::plan::{Enable, Group};

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
        let is_off = |enable: &&Enable| !on.split_whitespace().any(|name| name == enable.controller);
        let off: Vec<&Enable> = group.enable.iter().filter(is_off).collect();
        let all: Vec<String> = off.iter().map(|enable| format!("+{}", enable.controller)).collect();
        // All at once; one by one when the kernel refuses, since it then enables none.
        if off.is_empty() || (off.len() > 1 && file::write(&path, &all.join(" ")).is_ok()) {
            continue;
        }
        for (enable, value) in off.into_iter().zip(all) {
            match file::write(&path, &value) {
                Err(error) if enable.required => return Err((path, value, error)),
                // Only statistics are lost.
                Err(_) | Ok(()) => {}
            }
        }
    }
    Ok(())
}
