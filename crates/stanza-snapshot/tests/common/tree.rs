//! All that a file system tells of a tree, to compare two.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::path::{Path, PathBuf};

/// All that a file system tells of a tree.
pub(crate) struct Tree(pub(crate) BTreeMap<PathBuf, Node>);

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) size: Option<u64>,
    /// Not of whiteouts.
    pub(crate) time: Option<(i64, i64)>,
    pub(crate) links: u64,
    pub(crate) device: u64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) content: Vec<u8>,
    /// The first path of the same file.
    pub(crate) same_as: PathBuf,
}

impl Tree {
    pub(crate) fn of(root: &Path) -> Tree {
        let mut tree = Tree(BTreeMap::new());
        let mut seen = BTreeMap::new();
        let mut waiting = vec![PathBuf::new()];
        let mut files = Vec::new();
        while let Some(path) = waiting.pop() {
            let full = root.join(&path);
            if fs::symlink_metadata(full.join(".")).is_ok()
                && !fs::symlink_metadata(&full).unwrap().is_symlink()
                || path.as_os_str().is_empty()
            {
                let names: Vec<_> =
                    fs::read_dir(full.join(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                waiting.extend(names.iter().map(|name| path.join(name)));
            }
            files.push(path);
        }
        files.sort();
        for path in files {
            let full = if path.as_os_str().is_empty() { root.join(".") } else { root.join(&path) };
            let meta = fs::symlink_metadata(&full).unwrap();
            let kind = meta.mode() & 0o170_000;
            let content = match kind {
                0o100_000 if meta.len() < 64 << 20 => fs::read(&full).unwrap(),
                0o100_000 => sample(&full, meta.len()),
                0o120_000 => fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec(),
                _ => Vec::new(),
            };
            let same_as = seen.entry(meta.ino()).or_insert_with(|| path.clone()).clone();
            let left_open = kind == 0o020_000 && meta.rdev() == 0;
            let node = Node {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                size: (kind != 0o040_000).then_some(meta.len()),
                time: (!left_open).then(|| (meta.mtime(), meta.mtime_nsec())),
                links: meta.nlink(),
                device: meta.rdev(),
                xattrs: xattrs(&full),
                content,
                same_as,
            };
            tree.0.insert(path, node);
        }
        tree
    }
}

/// The beginning, the end, and every megabyte's first bytes of a large file.
fn sample(path: &Path, length: u64) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let mut bytes = Vec::new();
    let places = (0..length).step_by(1 << 20).take(256).chain([length - 4096, length / 2]);
    for place in places {
        let mut buffer = [0; 4096];
        file.read_exact_at(&mut buffer, place.min(length - 4096)).unwrap();
        bytes.extend(buffer);
    }
    bytes
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}
