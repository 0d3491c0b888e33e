//! The reserved image `host`: this machine's own root file system, read-only below a private writable layer.
//!
//! ```text
//!   as root:                                       in a user namespace:
//!     /            overlay, lower /                  /            overlay, lower container_dir/skeleton
//!     /boot/efi    read-only bind                    /usr         overlay, lower /usr
//!     ...          one for each further mount        /etc         overlay, lower /etc ...
//!                                                    /snap        in the skeleton; its parts one by one
//! ```
//!
//! The kernel lets a user namespace neither stack nor bind a directory with mounts below it, because that would show
//! what those mounts cover (`EINVAL`, locked mounts, `man 7 mount_namespaces`). So there the tree is taken apart: a
//! directory without mounts below it is an overlay of its own; one with mounts is a directory of the skeleton, and its
//! entries are treated in the same way. Files that lie in such a directory are read-only binds, links are links.
//!
//! `/proc`, `/sys`, `/dev`, `/run` and `/tmp` are empty. A further mount that holds data is a read-only bind, or an
//! overlay when stanza's own state lies in it; one that holds kernel interfaces or network names is an empty directory.
//! A directory that the caller may not read is empty. Paths in `exclude` are not there: a whiteout in the upper layer
//! hides them, and `container_dir/hidden` remembers what stanza put into upper layers, so that [`crate::changes()`] does
//! not take it for the container's. An upper layer is filled before it gets its name, and never again: what is in it
//! later is the container's, and must not be walked by path.

mod mounts;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, Access, CWD, Mode, OFlags, Timespec, Timestamps};
use stanza_spec::{Layer, OverlayLayers, Rootfs, RootfsPart};

use crate::overlay::{make_opaque, make_whiteout};
use crate::plan::{PlanError, prepare_upper};
use crate::remove::remove_tree;
use crate::store::make_directory;
use mounts::Mounts;

/// What is empty in the container, and its mode.
const EMPTIED: [(&str, u32); 5] =
    [("/proc", 0o555), ("/sys", 0o555), ("/dev", 0o755), ("/run", 0o755), ("/tmp", 0o1777)];

/// Parts beyond which a start would take too long to be meant.
const PARTS: usize = 512;

/// The file in a container's directory that lists what stanza put into its upper layers: absolute paths, NUL after each.
pub(crate) const HIDDEN: &str = "hidden";

/// The plan of the image `host` for the container in `container_dir`, which is made when missing. `exclude` are
/// absolute paths that the container must not see: stanza's own roots.
///
/// Not pure: it makes and fills `container_dir/upper` (and `skeleton`, `parts` when `rootless`), once; [`crate::prepare`]
/// makes the rest. A container keeps the plan it was made with: what is mounted on the machine later may take the tree
/// apart in other places, where the container's changes are not.
///
/// # Errors
/// When the machine's mounts or top-level directories cannot be read, a directory of the container cannot be made, or
/// the machine's tree falls into too many parts.
pub fn plan_host(container_dir: &Path, exclude: &[PathBuf], rootless: bool) -> Result<Rootfs, PlanError> {
    let mut host = Host {
        container_dir,
        hidden: hidden_paths(container_dir, exclude)?,
        mounts: Mounts::read().map_err(PlanError::Mounts)?,
        rootless,
        parts: Vec::new(),
    };
    host.remember_hidden()?;
    let root = if rootless { host.split_root()? } else { host.whole_root()? };
    host.parts.sort_by(|a, b| destination(a).cmp(destination(b)));
    Ok(Rootfs::Layered { root, parts: host.parts })
}

struct Host<'a> {
    container_dir: &'a Path,
    /// Real paths, outside of the emptied directories.
    hidden: BTreeSet<PathBuf>,
    mounts: Mounts,
    rootless: bool,
    parts: Vec<RootfsPart>,
}

impl Host<'_> {
    fn whole_root(&mut self) -> Result<OverlayLayers, PlanError> {
        let root = self.layers(Path::new("/"), &self.container_dir.join("upper"), "work");
        self.fill_upper(&root, Path::new("/"))?;
        for path in self.mounts.visible() {
            if !is_emptied(&path) && !self.hidden.iter().any(|hidden| path.starts_with(hidden)) {
                self.mount(path)?;
            }
        }
        Ok(root)
    }

    fn split_root(&mut self) -> Result<OverlayLayers, PlanError> {
        let skeleton = self.skeleton(Path::new("/"));
        make_directory(&skeleton, 0o755).map_err(at(&skeleton, "make the directory"))?;
        self.split(Path::new("/"))?;
        Ok(self.layers(&skeleton, &self.container_dir.join("upper"), "work"))
    }

    /// Puts the entries of a directory with mounts below it into the plan.
    fn split(&mut self, directory: &Path) -> Result<(), PlanError> {
        let failed = || at(directory, "read the directory");
        for entry in std::fs::read_dir(directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let path = entry.path();
            if self.hidden.contains(&path) {
                continue;
            }
            let skeleton = self.skeleton(&path);
            let kind = entry.file_type().map_err(at(&path, "look at"))?;
            if kind.is_dir() {
                self.split_directory(&path, &skeleton)?;
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).map_err(at(&path, "read the link"))?;
                exists_ok(std::os::unix::fs::symlink(target, &skeleton))
                    .map_err(at(&skeleton, "make the link"))?;
            } else if kind.is_file() && readable(&path, Access::READ_OK) {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                fs::open(&skeleton, flags, Mode::from_raw_mode(0o644))
                    .map_err(|error| at(&skeleton, "make the file")(error.into()))?;
                self.add(RootfsPart::ReadOnlyBind { destination: path.clone(), source: path })?;
            }
            // Sockets, pipes and devices mean nothing without who serves them.
        }
        Ok(())
    }

    fn split_directory(&mut self, path: &Path, skeleton: &Path) -> Result<(), PlanError> {
        let emptied = EMPTIED.iter().find(|(emptied, _)| path == Path::new(emptied));
        let like = std::fs::symlink_metadata(path).map_err(at(path, "look at"))?;
        let mode = emptied.map_or(like.mode() & 0o7777, |(_, mode)| *mode);
        make_directory(skeleton, mode).map_err(at(skeleton, "make the directory"))?;
        if emptied.is_some() || !readable(path, Access::READ_OK | Access::EXEC_OK) {
            return Ok(());
        }
        if self.mounts.any_below(path) {
            return self.split(path);
        }
        match self.mounts.holds_data(path) {
            Some(true) => self.mount(path.to_owned()),
            Some(false) => Ok(()),
            None => self.overlay(path.to_owned()),
        }
    }

    /// A further mounted file system.
    fn mount(&mut self, path: PathBuf) -> Result<(), PlanError> {
        if self.hidden.iter().any(|hidden| hidden.starts_with(&path)) {
            return self.overlay(path);
        }
        self.add(RootfsPart::ReadOnlyBind { destination: path.clone(), source: path })
    }

    fn overlay(&mut self, path: PathBuf) -> Result<(), PlanError> {
        let name = path.to_string_lossy().trim_start_matches('/').replace('%', "%%").replace('/', "%-");
        let own = self.container_dir.join("parts").join(name);
        let layers = self.layers(&path, &own.join("upper"), "work");
        self.fill_upper(&layers, &path)?;
        self.add(RootfsPart::Overlay { destination: path, layers })
    }

    fn add(&mut self, part: RootfsPart) -> Result<(), PlanError> {
        if self.parts.len() >= PARTS {
            return Err(PlanError::TooManyParts { limit: PARTS });
        }
        self.parts.push(part);
        Ok(())
    }

    fn layers(&self, lower: &Path, upper: &Path, work: &str) -> OverlayLayers {
        OverlayLayers {
            lower: vec![Layer::Directory(lower.to_owned())],
            upper: upper.to_owned(),
            work: upper.with_file_name(work),
            userxattr: self.rootless,
        }
    }

    fn skeleton(&self, path: &Path) -> PathBuf {
        let skeleton = self.container_dir.join("skeleton");
        match path.strip_prefix("/") {
            Ok(rest) if !rest.as_os_str().is_empty() => skeleton.join(rest),
            _ => skeleton,
        }
    }

    /// Makes the upper layer of what is `destination` in the container and hides in it what must not be seen. Once: it
    /// gets its name when it is filled.
    fn fill_upper(&self, layers: &OverlayLayers, destination: &Path) -> Result<(), PlanError> {
        if readable(&layers.upper, Access::EXISTS) {
            return Ok(());
        }
        let failed = || at(&layers.upper, "fill the directory");
        let is_root = destination == Path::new("/");
        let hidden: Vec<&Path> = self
            .hidden
            .iter()
            .filter(|hidden| hidden.starts_with(destination) && !self.is_in_deeper_part(hidden, destination))
            .filter_map(|hidden| hidden.strip_prefix(destination).ok())
            .collect();
        if hidden.is_empty() && !is_root {
            return prepare_upper(layers).map_err(failed());
        }
        let new = OverlayLayers { upper: layers.upper.with_extension("new"), ..layers.clone() };
        remove_tree(&new.upper).map_err(failed())?;
        prepare_upper(&new).map_err(failed())?;
        if is_root {
            self.empty_directories(&new.upper).map_err(failed())?;
        }
        for below in hidden {
            hide(&new, destination, below).map_err(failed())?;
        }
        std::fs::rename(&new.upper, &layers.upper).map_err(failed())
    }

    /// Whether a mount between `destination` and `hidden` is the one that must hide it.
    fn is_in_deeper_part(&self, hidden: &Path, destination: &Path) -> bool {
        hidden
            .ancestors()
            .skip(1)
            .take_while(|above| *above != destination)
            .any(|above| self.mounts.holds_data(above).is_some())
    }

    fn empty_directories(&self, upper: &Path) -> io::Result<()> {
        for (path, mode) in EMPTIED {
            let Ok(like) = std::fs::symlink_metadata(path) else { continue };
            if !like.is_dir() {
                continue;
            }
            let directory = upper.join(path.trim_start_matches('/'));
            make_directory(&directory, mode)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = fs::open(&directory, flags, Mode::empty())?;
            make_opaque(&directory, self.rootless)?;
        }
        Ok(())
    }

    /// Writes down what is not the container's doing in its upper layers.
    fn remember_hidden(&self) -> Result<(), PlanError> {
        let path = self.container_dir.join(HIDDEN);
        let mut text = Vec::new();
        let emptied = EMPTIED.iter().map(|(path, _)| Path::new(path));
        for path in self.hidden.iter().map(PathBuf::as_path).chain(emptied) {
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(0);
        }
        if std::fs::read(&path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        std::fs::write(&path, text).map_err(at(&path, "write"))
    }
}

/// Makes `below` a whiteout in the upper layer, and the way to it such as the lower layer has it.
fn hide(layers: &OverlayLayers, lower: &Path, below: &Path) -> io::Result<()> {
    let mut way = Vec::new();
    for above in below.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        way.push((layers.upper.join(above), lower.join(above)));
    }
    for (upper, lower) in way.iter().rev() {
        let lower = vec![Layer::Directory(lower.clone())];
        let like = OverlayLayers { lower, upper: upper.clone(), ..layers.clone() };
        prepare_upper(&like)?;
    }
    let (parent, name) = (layers.upper.join(below), below.file_name().unwrap_or_default());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = fs::open(parent.parent().unwrap_or(&layers.upper), flags, Mode::empty())?;
    exists_ok(make_whiteout(parent, name.as_bytes()).map_err(io::Error::from))?;
    for (upper, lower) in &way {
        let like = fs::stat(lower)?;
        let nanos = i64::try_from(like.st_mtime_nsec).unwrap_or(0);
        let time = Timespec { tv_sec: like.st_mtime, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        fs::utimensat(CWD, upper, &times, fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// The real paths of what must not be seen, the container's own directory among them: the lower layer must not show the
/// upper one.
fn hidden_paths(container_dir: &Path, exclude: &[PathBuf]) -> Result<BTreeSet<PathBuf>, PlanError> {
    std::fs::create_dir_all(container_dir).map_err(at(container_dir, "make the directory"))?;
    let mut hidden = BTreeSet::new();
    for path in exclude.iter().map(PathBuf::as_path).chain([container_dir]) {
        match std::fs::canonicalize(path) {
            Ok(real) if real != Path::new("/") && !is_emptied(&real) => {
                hidden.insert(real);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(path, "look at")(error)),
            // Not there, or not there in the container anyway.
            _ => {}
        }
    }
    // What lies in something hidden is hidden with it.
    let all = hidden.clone();
    hidden.retain(|path| !path.ancestors().skip(1).any(|above| all.contains(above)));
    Ok(hidden)
}

fn is_emptied(path: &Path) -> bool {
    EMPTIED.iter().any(|(emptied, _)| path.starts_with(emptied))
}

fn readable(path: &Path, access: Access) -> bool {
    fs::access(path, access).is_ok()
}

fn exists_ok(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn destination(part: &RootfsPart) -> &Path {
    match part {
        RootfsPart::Overlay { destination, .. } | RootfsPart::ReadOnlyBind { destination, .. } => destination,
    }
}

fn at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> PlanError {
    let path = path.to_owned();
    move |source| PlanError::Path { path, action, source }
}
