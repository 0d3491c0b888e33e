//! Where `save` and `export` write: standard output, or a file that appears when it is whole.
//!
//! A new file has no name while it is written (`O_TMPFILE`): a process that is killed leaves nothing. On a file system
//! that cannot do that it has a temporary name, which goes when the command fails.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, stdout};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;

use crate::failure::Failure;

/// A file to be written.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: File,
    goal: Option<Goal>,
}

/// What a whole file becomes.
#[derive(Debug)]
struct Goal {
    path: PathBuf,
    /// Its name so far, when it has one.
    temporary: Option<PathBuf>,
}

impl OutputFile {
    /// Standard output for `None` and `-`, which must not be a terminal; `verb` is what is refused then.
    pub(crate) fn open(path: Option<&str>, verb: &str) -> Result<OutputFile, Failure> {
        let Some(path) = path.filter(|path| *path != "-") else {
            if stdout().is_terminal() {
                let text = format!("cowardly refusing to {verb} to a terminal. Use the -o flag or redirect");
                return Err(Failure::usage(text));
            }
            let descriptor = stdout().as_fd().try_clone_to_owned();
            let file = descriptor.map_err(|error| Failure::io("cannot use standard output", &error))?.into();
            return Ok(OutputFile { file, goal: None });
        };
        let failed = |error: io::Error| Failure::io(&format!("cannot write `{path}`"), &error);
        let path = PathBuf::from(path);
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(failed(Errno::ISDIR.into())),
            // A pipe or a device is there to be written to.
            Ok(found) if found.file_type().is_fifo() || !found.is_file() => {
                let file = File::options().write(true).open(&path).map_err(failed)?;
                Ok(OutputFile { file, goal: None })
            }
            Ok(_) => fs::canonicalize(&path).and_then(create).map_err(failed),
            Err(_) => create(path).map_err(failed),
        }
    }

    /// The file, to be written from its position.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let Some(goal) = &mut self.goal else { return Ok(()) };
        let failed =
            |error: io::Error| Failure::io(&format!("cannot write `{}`", goal.path.display()), &error);
        if goal.temporary.is_none() {
            let nameless = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let link = |path: &Path| linkat(CWD, &*nameless, CWD, path, AtFlags::SYMLINK_FOLLOW);
            match link(&goal.path) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error.into())),
            }
            // Only a rename takes the place of another file.
            let beside = beside(&goal.path).map_err(failed)?;
            link(&beside).map_err(|error| failed(error.into()))?;
            goal.temporary = Some(beside);
        }
        if let Some(temporary) = &goal.temporary {
            fs::rename(temporary, &goal.path).map_err(failed)?;
        }
        goal.temporary = None;
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.goal.as_ref().and_then(|goal| goal.temporary.as_ref()) {
            // The command failed, and says why.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn create(path: PathBuf) -> io::Result<OutputFile> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(directory, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode) {
        Ok(file) => {
            return Ok(OutputFile { file: file.into(), goal: Some(Goal { path, temporary: None }) });
        }
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let temporary = beside(&path)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(&temporary, flags, mode)?;
    Ok(OutputFile { file: file.into(), goal: Some(Goal { path, temporary: Some(temporary) }) })
}

/// A name in the same directory that nobody has.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut random = [0_u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{:016x}", u64::from_ne_bytes(random)));
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_whole_and_replaces_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        for text in ["one", "two"] {
            let before = fs::read_to_string(&path).ok();
            let output = OutputFile::open(path.to_str(), "save").unwrap();
            output.file().write_all(text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).ok(), before);
            output.finish().unwrap();
            assert_eq!(
                (fs::read_to_string(&path).unwrap().as_str(), names(directory.path())),
                (text, vec!["a".into()])
            );
        }
        // A failure leaves the old file.
        let output = OutputFile::open(path.to_str(), "save").unwrap();
        output.file().write_all(b"half").unwrap();
        drop(output);
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), names(directory.path())),
            ("two", vec!["a".into()])
        );
    }

    #[test]
    fn a_link_leads_to_the_file_and_a_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("a", &link).unwrap();
        let output = OutputFile::open(link.to_str(), "save").unwrap();
        output.file().write_all(b"new").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(OutputFile::open(directory.path().to_str(), "save").is_err());
        assert!(OutputFile::open(directory.path().join("no/a").to_str(), "save").is_err());
    }
}
