//! A store in a directory of its own, with something beside it that no layer may touch.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::Digest as _;
use stanza_snapshot::{Applied, ApplyError, LayerStore};
use stanza_spec::{Digest, Layer};
use stanza_tar::{Builder, EntryKind, Header};

/// Why a test cannot run, printed; `true` when it can.
#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: making devices and trusted attributes needs root");
    }
    root
}

pub(crate) struct Scene {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: LayerStore,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        // Not /tmp: a memory file system there may know no attributes.
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/victim"), b"safe").unwrap();
        fs::set_permissions(directory.path().join("outside/victim"), fs::Permissions::from_mode(0o600))
            .unwrap();
        let store = LayerStore::open(&directory.path().join("layers"), false).unwrap();
        Scene { directory, store }
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    /// Applies an archive under its own digest.
    pub(crate) fn apply(&self, tar: &[u8]) -> (Digest, Result<Applied, ApplyError>) {
        let diff_id = digest(tar);
        let result = self.store.apply(&diff_id, &mut &*tar);
        self.assert_untouched();
        assert_eq!(self.store.contains(&diff_id), result.is_ok());
        if result.is_ok() {
            // What was summed up on the way is what is there.
            self.store.verify(&diff_id).unwrap();
        }
        (diff_id, result)
    }

    /// Applies an archive that is fine; gives the layer's directory.
    pub(crate) fn layer(&self, tar: &[u8]) -> PathBuf {
        let (diff_id, result) = self.apply(tar);
        result.unwrap();
        self.store.path(&diff_id)
    }

    /// Nothing beside the store has changed and nothing is left in its ingest directory.
    pub(crate) fn assert_untouched(&self) {
        let names = |path: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(self.directory.path()), ["layers", "outside"]);
        assert_eq!(names(&self.outside()), ["victim"]);
        let victim = self.outside().join("victim");
        let meta = fs::symlink_metadata(&victim).unwrap();
        assert_eq!((fs::read(&victim).unwrap(), meta.mode(), meta.nlink()), (b"safe".to_vec(), 0o100_600, 1));
        let layers = self.directory.path().join("layers");
        let mut there = names(&layers);
        // Says that some layer has links to files of others.
        there.retain(|name| name != "links");
        assert_eq!(there, ["base", "ingest", "sha256", "sha512"]);
        assert_eq!(names(&layers.join("ingest")), [""; 0]);
    }
}

pub(crate) fn digest(tar: &[u8]) -> Digest {
    Digest::from_hash(&sha2::Sha256::digest(tar))
}

/// An archive under construction.
pub(crate) struct Tar(pub(crate) Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar(Builder::new(Vec::new()))
    }

    pub(crate) fn entry(mut self, header: Header, content: &[u8]) -> Tar {
        let header = Header { size: content.len() as u64, ..header };
        self.0.append(&header, &mut &*content).unwrap();
        self
    }

    pub(crate) fn file(self, path: impl AsRef<[u8]>, content: &str) -> Tar {
        self.entry(header(path, EntryKind::File), content.as_bytes())
    }

    pub(crate) fn dir(self, path: impl AsRef<[u8]>) -> Tar {
        self.entry(Header { mode: 0o755, ..header(path, EntryKind::Directory) }, b"")
    }

    pub(crate) fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        let header = header(path, EntryKind::Symlink);
        self.entry(Header { link: target.as_ref().to_vec(), ..header }, b"")
    }

    pub(crate) fn hard_link(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        let header = header(path, EntryKind::HardLink);
        self.entry(Header { link: target.as_ref().to_vec(), ..header }, b"")
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

pub(crate) fn header(path: impl AsRef<[u8]>, kind: EntryKind) -> Header {
    Header { path: path.as_ref().to_vec(), kind, mode: 0o644, mtime: (1_000_000, 0), ..Header::default() }
}

pub(crate) fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.mode() & 0o170_000 == 0o020_000 && meta.rdev() == 0)
}

pub(crate) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

pub(crate) fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

/// The directory of a layer that is one.
pub(crate) fn directory(layer: &Layer) -> &Path {
    match layer {
        Layer::Directory(path) | Layer::Shifted(path) => path,
        Layer::Erofs { .. } => panic!("{layer:?} is no directory"),
    }
}

/// Set in the process that [`in_namespaces`] starts.
const INSIDE: &str = "STANZA_TEST_INSIDE";

/// Runs `body` in new namespaces, by starting the calling test, `name`, once more there; skips when there are none to
/// be had.
#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
pub(crate) fn in_namespaces(options: &str, name: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let possible = Command::new("unshare").args([options, "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: `unshare {options}` is not possible here");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg(options)
        .arg(this)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in `unshare {options}`");
}
