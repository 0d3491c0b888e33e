//! What version 1 needs round the writes: a new cpuset is empty, and nothing can join it before it is filled.

use std::io;
use std::path::{Path, PathBuf};

use crate::file;
use crate::plan::Group;

/// Fills the files that a group must take over, in every directory from below the root to the group itself. One that has a
/// value keeps it.
pub(crate) fn inherit(group: &Group) -> Result<(), (PathBuf, io::Error)> {
    if group.inherit.is_empty() {
        return Ok(());
    }
    let mut below: Vec<&Path> = group.path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    below.reverse();
    for name in &group.inherit {
        let mut value = read(&group.root.join(name))?;
        for directory in &below {
            let path = group.root.join(directory).join(name);
            let own = read(&path)?;
            if own.is_empty() {
                file::write(&path, &value).map_err(|error| (path, error))?;
            } else {
                value = own;
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, (PathBuf, io::Error)> {
    let text = file::read(path).map_err(|error| (path.to_owned(), error))?;
    Ok(text.unwrap_or_default().trim().to_owned())
}
