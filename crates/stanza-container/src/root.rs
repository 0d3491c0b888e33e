//! Paths in a root file system that is not `/` yet and is not trusted: every path is resolved by the kernel as if the
//! root were `/` (openat2 with `RESOLVE_IN_ROOT`), so no symbolic link leads out, and what is found is used by
//! descriptor, never by name again.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;
use stanza_sys::Handle;

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A root file system, by the descriptor of its top directory.
#[derive(Debug)]
pub(crate) struct Root(Handle);

impl Root {
    /// The directory at `path`, from the host's view.
    pub(crate) fn open_at(path: &Path) -> io::Result<Root> {
        Ok(Root(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?.into()))
    }

    /// The top directory.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What `path` is in this root.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> io::Result<Handle> {
        match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT) {
            Err(Errno::NOSYS) => self.walk(path, flags),
            other => Ok(other?.into()),
        }
    }

    /// As [`Root::open`] before Linux 5.6, step by step: no step follows a link or leaves the root by `..`.
    fn walk(&self, path: &Path, flags: OFlags) -> io::Result<Handle> {
        let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut left = components(path);
        // The directories gone through, the root left out, and where each step was found.
        let mut reached: Vec<(Handle, OsString)> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                reached.pop();
                continue;
            }
            let directory = reached.last().map_or(self.0.as_fd(), |(directory, _)| directory.as_fd());
            let found = Handle::from(openat(directory, &name, step, Mode::empty())?);
            let is_link = FileType::from_raw_mode(fstat(&found)?.st_mode).is_symlink();
            if !is_link || (left.is_empty() && flags.contains(OFlags::NOFOLLOW)) {
                reached.push((found, name));
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = readlinkat(&found, "", Vec::new())?;
            let target = Path::new(OsStr::from_bytes(target.to_bytes()));
            if target.is_absolute() {
                reached.clear();
            }
            left.extend(components(target));
        }
        let Some((found, name)) = reached.pop() else {
            return Ok(openat(&self.0, ".", flags | OFlags::CLOEXEC, Mode::empty())?.into());
        };
        if flags.contains(OFlags::PATH) {
            let kind = FileType::from_raw_mode(fstat(&found)?.st_mode);
            let wrong = flags.contains(OFlags::DIRECTORY) && !kind.is_dir();
            return if wrong { Err(Errno::NOTDIR.into()) } else { Ok(found) };
        }
        let directory = reached.last().map_or(self.0.as_fd(), |(directory, _)| directory.as_fd());
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(directory, &name, flags, Mode::empty())?.into())
    }

    /// The directory at `path`, made with its parents (mode 755) where missing, also where a link leads to nothing yet.
    pub(crate) fn ensure_directory(&self, path: &Path) -> io::Result<Handle> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(path, Wanted::Directory),
            other => other,
        }
    }

    /// What is at `path`, or an empty file made there with its parents.
    pub(crate) fn ensure_file(&self, path: &Path) -> io::Result<Handle> {
        match self.open(path, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(path, Wanted::File),
            other => other,
        }
    }

    /// Makes the last part of `path` where the rest is there, which is nearly always so; `None` when it is not that simple.
    fn make_last(&self, path: &Path, wanted: Wanted) -> Option<Handle> {
        let (parent, name) = (path.parent()?, path.file_name()?);
        let parent = self.open(parent, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        make_one(parent.as_fd(), name, wanted == Wanted::File).ok()?;
        let flags = if wanted == Wanted::Directory { OFlags::DIRECTORY } else { OFlags::empty() };
        let made = self.open(path, OFlags::PATH | OFlags::NOFOLLOW | flags).ok()?;
        let link = wanted == Wanted::File && FileType::from_raw_mode(fstat(&made).ok()?.st_mode).is_symlink();
        (!link).then_some(made)
    }

    /// Goes down `path` and makes what is missing. Links are followed by hand, as the kernel would beneath this root: an
    /// image may have `/var/run -> /run` without `/run`.
    fn make(&self, path: &Path, wanted: Wanted) -> io::Result<Handle> {
        if let Some(made) = self.make_last(path, wanted) {
            return Ok(made);
        }
        let mut left: Vec<OsString> = components(path);
        let mut reached = PathBuf::from("/");
        let mut directory = self.open(&reached, OFlags::PATH | OFlags::DIRECTORY)?;
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                reached.pop();
                directory = self.open(&reached, OFlags::PATH | OFlags::DIRECTORY)?;
                continue;
            }
            make_one(directory.as_fd(), &name, left.is_empty() && wanted == Wanted::File)?;
            let place = reached.join(&name);
            let found = self.open(&place, OFlags::PATH | OFlags::NOFOLLOW)?;
            if FileType::from_raw_mode(fstat(&found)?.st_mode).is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = readlinkat(&found, "", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                if target.is_absolute() {
                    reached = PathBuf::from("/");
                    directory = self.open(&reached, OFlags::PATH | OFlags::DIRECTORY)?;
                }
                left.extend(components(target));
                continue;
            }
            (reached, directory) = (place, found);
        }
        match wanted {
            Wanted::Directory => self.open(&reached, OFlags::PATH | OFlags::DIRECTORY),
            Wanted::File => Ok(directory),
        }
    }

    /// The directory that `path` is in, made where missing, and the last component.
    pub(crate) fn ensure_parent<'a>(&self, path: &'a Path) -> io::Result<(Handle, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.ensure_directory(parent)?, name))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Directory,
    File,
}

/// As many as the kernel follows.
const MOST_LINKS: u32 = 40;

/// The parts of a path, last first; the root and `.` are left out.
fn components(path: &Path) -> Vec<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(part).collect()
}

/// Makes a directory or an empty file, unless something is there.
fn make_one(directory: BorrowedFd<'_>, name: &OsStr, file: bool) -> io::Result<()> {
    let made = if file {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        mkdirat(directory, name, Mode::from_raw_mode(0o755))
    };
    match made {
        // A directory is not made on a read-only file system, whether it is there or not.
        Ok(()) | Err(Errno::EXIST | Errno::ROFS) => Ok(()),
        Err(error) => Err(error.into()),
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
        // Both links lead to nothing inside the root at first, and never outside.
        root.ensure_directory(Path::new("/absolute/x")).unwrap();
        root.ensure_file(Path::new("/relative/y")).unwrap();
        assert!(top.join("root/outside/x").is_dir() && top.join("root/outside/y").is_file());
        assert_eq!(fs::read_dir(top.join("outside")).unwrap().count(), 0);
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn step_by_step_the_same_is_found() {
        let top = scratch("steps");
        fs::create_dir_all(top.join("root/a/b")).unwrap();
        fs::write(top.join("root/a/file"), "inside").unwrap();
        fs::write(top.join("file"), "outside").unwrap();
        symlink("../../../../file", top.join("root/a/out")).unwrap();
        symlink("/a/file", top.join("root/a/b/in")).unwrap();
        symlink("loop", top.join("root/loop")).unwrap();
        let root = Root::open_at(&top.join("root")).unwrap();
        let flags = OFlags::RDONLY;
        for path in
            ["/a/file", "a/b/../file", "/../a/file", "/a/b/in", "/a/out", "/loop", "/a/file/x", "/", "/no"]
        {
            let number = |handle: io::Result<Handle>| {
                handle.and_then(|handle| Ok(fstat(&handle)?.st_ino)).map_err(|error| error.raw_os_error())
            };
            let path = Path::new(path);
            assert_eq!(number(root.walk(path, flags)), number(root.open(path, flags)), "{}", path.display());
        }
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn parents_are_made_and_dots_stay_inside() {
        let top = scratch("parents");
        let root = Root::open_at(&top).unwrap();
        root.ensure_file(Path::new("/a/b/c")).unwrap();
        assert!(top.join("a/b/c").is_file());
        root.ensure_directory(Path::new("/a/../../x")).unwrap();
        assert!(top.join("x").is_dir() && !top.parent().unwrap().join("x").exists());
        symlink("loop", top.join("loop")).unwrap();
        assert!(root.ensure_directory(Path::new("/loop/x")).is_err());
        // A file is not gone through.
        assert!(root.ensure_directory(Path::new("/a/b/c/d")).is_err());
        fs::remove_dir_all(top).unwrap();
    }
}
