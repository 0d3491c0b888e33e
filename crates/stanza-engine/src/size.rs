//! How much disk a tree takes.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes that the files below `path` take on disk; a file with several names counts once. What cannot be read counts
/// nothing.
pub(crate) fn of_tree(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut total = 0;
    let mut waiting: Vec<PathBuf> = vec![path.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                // Not more than its length: Docker counts lengths, and a sparse file takes less.
                total += metadata.len().min(metadata.blocks().saturating_mul(512));
            }
        }
    }
    total
}

/// Bytes that a file, or a directory with all that is in it, takes on disk, as `du` counts: directories too, and a file
/// with several names once.
pub(crate) fn on_disk(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut total = 0;
    let mut waiting: Vec<PathBuf> = vec![path.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if metadata.nlink() > 1 && !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        total += metadata.blocks().saturating_mul(512);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/a"), vec![1; 5000]).unwrap();
        fs::hard_link(dir.path().join("d/a"), dir.path().join("b")).unwrap();
        assert_eq!(of_tree(dir.path()), 5000);
    }
}
