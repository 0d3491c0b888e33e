//! Paths in a root file system that is not `/` yet and is not trusted: every path is resolved by the kernel as if the
//! root were `/` (openat2 with `RESOLVE_IN_ROOT`), so no symbolic link leads out, and what is found is used by
//! descriptor, never by name again.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A root file system, by the descriptor of its top directory.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// The directory at `path`, from the host's view.
    pub(crate) fn open_at(path: &Path) -> io::Result<Root> {
        Ok(Root(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// The top directory.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What `path` is in this root.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT)?)
    }

    /// The directory at `path`, made with its parents (mode 755) where missing.
    pub(crate) fn ensure_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut reached = PathBuf::from("/");
        let mut directory = self.open(&reached, OFlags::PATH | OFlags::DIRECTORY)?;
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    match mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    reached.push(name);
                }
                Component::ParentDir => return Err(io::ErrorKind::InvalidInput.into()),
                _ => continue,
            }
            directory = self.open(&reached, OFlags::PATH | OFlags::DIRECTORY)?;
        }
        Ok(directory)
    }

    /// What is at `path`, or an empty file made there with its parents.
    pub(crate) fn ensure_file(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = self.ensure_parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
            Ok(_) | Err(rustix::io::Errno::EXIST) => self.open(path, OFlags::PATH),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that `path` is in, made where missing, and the last component.
    pub(crate) fn ensure_parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.ensure_directory(parent)?, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("stanza-root-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn links_out_of_the_root_stay_inside() {
        let top = scratch("links");
        fs::create_dir(top.join("root")).unwrap();
        fs::create_dir(top.join("outside")).unwrap();
        symlink("/outside", top.join("root/absolute")).unwrap();
        symlink("../../outside", top.join("root/relative")).unwrap();
        let root = Root::open_at(&top.join("root")).unwrap();
        // Both links dangle inside the root, so nothing can be made through them, and never outside.
        assert!(root.ensure_directory(Path::new("/absolute/x")).is_err());
        assert!(root.ensure_file(Path::new("/relative/y")).is_err());
        fs::create_dir(top.join("root/outside")).unwrap();
        root.ensure_directory(Path::new("/absolute/x")).unwrap();
        root.ensure_file(Path::new("/relative/y")).unwrap();
        assert!(top.join("root/outside/x").is_dir() && top.join("root/outside/y").is_file());
        assert_eq!(fs::read_dir(top.join("outside")).unwrap().count(), 0);
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn parents_are_made_and_dots_refused() {
        let top = scratch("parents");
        let root = Root::open_at(&top).unwrap();
        root.ensure_file(Path::new("/a/b/c")).unwrap();
        assert!(top.join("a/b/c").is_file());
        assert!(root.ensure_directory(Path::new("/a/../../x")).is_err());
        assert!(!top.parent().unwrap().join("x").exists());
        fs::remove_dir_all(top).unwrap();
    }
}
