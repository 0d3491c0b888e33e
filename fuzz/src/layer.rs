//! An archive as a layer, unpacked where anything outside of its directory would be seen to change.
//!
//! This process makes a directory its root first, so that an archive that does get out changes nothing of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::Digest as _;
use stanza_snapshot::LayerStore;
use stanza_spec::Digest;

use crate::Outcome;

/// What must stay as it is: mode, owner, links, size, modification, content.
type Picture = BTreeMap<PathBuf, (u32, u32, u64, u64, (i64, i64), Vec<u8>)>;

/// The store and what lies beside it.
pub(crate) struct Scene {
    store: LayerStore,
    before: Picture,
}

fn told<T>(result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

impl Scene {
    pub(crate) fn new() -> Result<Scene, String> {
        // In memory where that is: of thousands of layers none needs a disk.
        let place = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/var/tmp" };
        let directory = told(tempfile::tempdir_in(place))?.keep();
        for name in ["outside", "etc", "d", "proc/self"] {
            told(fs::create_dir_all(directory.join(name)))?;
        }
        for name in ["outside/victim", "etc/passwd", "d/victim", "victim", "x", "y", "proc/self/status"] {
            told(fs::write(directory.join(name), name))?;
        }
        told(std::os::unix::fs::symlink("/outside", directory.join("link")))?;
        rustix::process::chroot(&directory).map_err(|error| format!("chroot: {error}"))?;
        told(std::env::set_current_dir("/"))?;
        let store = LayerStore::open(Path::new("/layers"), false).map_err(|error| error.to_string())?;
        // Says that some layer has links to files of lower ones: it comes with the first.
        told(fs::write("/layers/links", ""))?;
        Ok(Scene { store, before: picture()? })
    }

    pub(crate) fn run(&self, bytes: &[u8]) -> Outcome {
        let diff_id = Digest::from_hash(&sha2::Sha256::digest(bytes));
        let result = self.store.apply(&diff_id, &mut &*bytes);
        let taken = result.is_ok();
        if let Err(error) = &result {
            drop(error.to_string());
        }
        if self.store.contains(&diff_id) != taken {
            return Err(format!("a layer that is there against {result:?}"));
        }
        if taken {
            // Its links are made, or refused; either way they stay in the store.
            for layer in self.store.with_links(std::slice::from_ref(&diff_id)).unwrap_or_default() {
                if layer != diff_id {
                    self.store.remove(&layer).map_err(|error| format!("its links cannot be removed: {error}"))?;
                }
            }
            self.store.remove(&diff_id).map_err(|error| format!("it cannot be removed: {error}"))?;
        }
        let after = picture()?;
        if after != self.before {
            let changed = |(path, what): &(&PathBuf, &_)| self.before.get(*path) != Some(*what);
            let new: Vec<_> = after.iter().filter(changed).map(|(path, _)| path).collect();
            let gone: Vec<_> = self.before.keys().filter(|path| !after.contains_key(*path)).collect();
            return Err(format!("changed outside: {new:?}, gone: {gone:?}"));
        }
        Ok(taken)
    }
}

/// All that is not a layer: directories of the store too, but for their times.
fn picture() -> Result<Picture, String> {
    let mut found = Picture::new();
    let mut next = vec![PathBuf::from("/")];
    while let Some(directory) = next.pop() {
        for entry in told(fs::read_dir(&directory))? {
            let path = told(entry)?.path();
            let meta = told(fs::symlink_metadata(&path))?;
            let inside = path.starts_with("/layers");
            let time = if inside { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
            let content = if meta.is_file() { told(fs::read(&path))? } else { Vec::new() };
            let size = if inside { 0 } else { meta.size() };
            found.insert(path.clone(), (meta.mode(), meta.uid(), meta.nlink(), size, time, content));
            if meta.is_dir() {
                next.push(path);
            }
        }
    }
    Ok(found)
}
