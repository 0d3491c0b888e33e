//! Comparing an unpacked layer with what its record says.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{self, Mode, OFlags, Stat};
use stanza_spec::{Classify, Digest, ErrorKind};

use crate::LayerStore;
use crate::record::{LayerRecord, RECORD};
use crate::tree_digest::{Summary, TreeSum};
use crate::walk::{to_path, walk};

/// Changed paths that are named.
const NAMED: usize = 5;

/// Why a layer is not what it was when it was unpacked, or why that cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not there.
    #[error("no layer `{0}`")]
    NotFound(Digest),
    /// Its record cannot be read.
    #[error("the record of the layer `{layer}` is damaged")]
    Record {
        /// The layer.
        layer: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in it cannot be read.
    #[error("cannot read `{}` of the layer `{layer}`", path.display())]
    Read {
        /// The layer.
        layer: Digest,
        /// Path in the layer.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds something else than was unpacked.
    #[error("the layer `{layer}` is damaged: {difference}{}", names(changed))]
    Differs {
        /// The layer.
        layer: Digest,
        /// What is known of the difference.
        difference: String,
        /// Paths in the layer that were changed after it was unpacked, the first few; empty when nothing says that it
        /// was changed: then the disk gives other bytes than it got.
        changed: Vec<PathBuf>,
    },
}

fn names(changed: &[PathBuf]) -> String {
    let names: Vec<String> = changed.iter().map(|path| format!("`{}`", path.display())).collect();
    if names.is_empty() { String::new() } else { format!("; changed since: {}", names.join(", ")) }
}

impl VerifyError {
    /// Which layer.
    #[must_use]
    pub fn layer(&self) -> &Digest {
        match self {
            VerifyError::NotFound(layer)
            | VerifyError::Record { layer, .. }
            | VerifyError::Read { layer, .. }
            | VerifyError::Differs { layer, .. } => layer,
        }
    }
}

impl Classify for VerifyError {
    fn kind(&self) -> ErrorKind {
        match self {
            VerifyError::NotFound(_) => ErrorKind::NotFound,
            VerifyError::Record { .. } | VerifyError::Differs { .. } => ErrorKind::Corrupt,
            VerifyError::Read { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            VerifyError::NotFound(_) | VerifyError::Read { .. } => None,
            VerifyError::Record { .. } | VerifyError::Differs { .. } => {
                Some("unpack it again with `stanza image verify --repair`".to_owned())
            }
        }
    }
}

impl LayerStore {
    /// What was recorded of a layer when it was unpacked.
    ///
    /// # Errors
    /// When it is not there, or its record is damaged.
    pub fn record(&self, layer: &Digest) -> Result<LayerRecord, VerifyError> {
        LayerRecord::read(&self.home(layer)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => VerifyError::NotFound(layer.clone()),
            _ => VerifyError::Record { layer: layer.clone(), source },
        })
    }

    /// [`LayerStore::verify`] of several layers on `threads` threads; those that are not as they were, in the order given.
    #[must_use]
    pub fn verify_all(&self, layers: &[Digest], threads: usize) -> Vec<VerifyError> {
        let next = AtomicUsize::new(0);
        let mut failures: Vec<(usize, VerifyError)> = std::thread::scope(|scope| {
            let work = || {
                let mut failures = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(layer) = layers.get(at) else { return failures };
                    failures.extend(self.verify(layer).err().map(|error| (at, error)));
                }
            };
            let workers: Vec<_> =
                (0..threads.clamp(1, layers.len().max(1))).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().expect("a thread that verifies does not panic"))
                .collect()
        });
        failures.sort_by_key(|(at, _)| *at);
        failures.into_iter().map(|(_, error)| error).collect()
    }

    /// Reads all of an unpacked layer, and compares it with the digest of the tree that was unpacked.
    ///
    /// # Errors
    /// When it is not there, is another tree by now, or cannot be read.
    pub fn verify(&self, layer: &Digest) -> Result<(), VerifyError> {
        let recorded = self.record(layer)?;
        let unreadable = |path: PathBuf, source: io::Error| {
            // Removed meanwhile: it was there a moment ago.
            if self.contains(layer) {
                VerifyError::Read { layer: layer.clone(), path, source }
            } else {
                VerifyError::NotFound(layer.clone())
            }
        };
        let written = fs::stat(self.member(layer, RECORD))
            .map_err(|error| unreadable(PathBuf::from("/"), error.into()))?;
        if let Some(erofs) = &recorded.erofs {
            let found = self.verify_erofs(layer, erofs).map_err(|error| unreadable("/".into(), error))?;
            let Some(difference) = found else { return Ok(()) };
            return Err(VerifyError::Differs {
                layer: layer.clone(),
                difference: difference.to_owned(),
                changed: Vec::new(),
            });
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = fs::open(self.path(layer), flags, Mode::empty())
            .map_err(|error| unreadable(PathBuf::from("/"), error.into()))?;
        let mut changed = Vec::new();
        let mut sum = TreeSum::default();
        walk(&root, &mut sum, &mut |path, stat| {
            if changed.len() < NAMED && is_younger(stat, &written) {
                changed.push(to_path(path));
            }
        })
        .map_err(|error| unreadable(error.path, error.source))?;
        let found = sum.summary();
        if recorded.tree == Some(found.digest) {
            return Ok(());
        }
        let difference = difference(&recorded, &found);
        Err(VerifyError::Differs { layer: layer.clone(), difference, changed })
    }
}

/// Whether it was changed after the record was written, which is the last thing that is done to a layer.
fn is_younger(stat: &Stat, record: &Stat) -> bool {
    (stat.st_ctime, stat.st_ctime_nsec) > (record.st_mtime, record.st_mtime_nsec)
}

fn difference(recorded: &LayerRecord, found: &Summary) -> String {
    if recorded.inodes != found.inodes {
        return format!("it has `{}` files and directories in place of `{}`", found.inodes, recorded.inodes);
    }
    if recorded.size != found.size {
        return format!("its files have `{}` bytes in place of `{}`", found.size, recorded.size);
    }
    "a file's content or metadata is another".to_owned()
}
