//! What version 1 needs round the writes: a new cpuset is empty, and nothing can join it before it is filled.

use std::io;
use std::path::{Path, PathBuf};

use crate::file;
use crate::plan::Group;

/// Fills the files that a group must take over, in every directory from below the root to the group itself. One that has a
/// value keeps it. A `fresh` group is not asked, and takes no value that its limits replace at once.
pub(crate) fn inherit(group: &Group, fresh: bool) -> Result<(), (PathBuf, io::Error)> {
    for name in &group.inherit {
        let limited = group.writes.iter().any(|write| write.file == *name);
        let parents = group.path.parent().unwrap_or(Path::new(""));
        if fresh && limited && parents.as_os_str().is_empty() {
            continue;
        }
        let value = value_of(group, parents, name)?;
        let path = group.directory().join(name);
        if fresh && limited {
            continue;
        }
        if fresh || read(&path)?.is_empty() {
            file::write(&path, &value).map_err(|error| (path, error))?;
        }
    }
    Ok(())
}

/// The value of a file in the cgroup `path`, which takes over its parent's when it has none.
fn value_of(group: &Group, path: &Path, name: &str) -> Result<String, (PathBuf, io::Error)> {
    let file = group.root.join(path).join(name);
    let own = read(&file)?;
    match path.parent() {
        Some(parent) if own.is_empty() => {
            let value = value_of(group, parent, name)?;
            file::write(&file, &value).map_err(|error| (file, error))?;
            Ok(value)
        }
        _ => Ok(own),
    }
}

fn read(path: &Path) -> Result<String, (PathBuf, io::Error)> {
    let text = file::read(path).map_err(|error| (path.to_owned(), error))?;
    Ok(text.unwrap_or_default().trim().to_owned())
}
