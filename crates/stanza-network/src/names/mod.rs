//! Who is called what in a network: a directory that every monitor of the network reads and writes, with no owner.
//!
//! ```text
//! <directory of the network>/
//!   generation                           counts the changes of entries; every monitor has it in its memory
//!   names/<name>/<container id>          -> 10.77.0.2,fd00::2     the container's addresses; several may share a name
//!   addresses/<address>/<container id>   -> web                   the container's own name
//! ```
//!
//! An entry is a symbolic link that leads nowhere: its text is made with it, in one step, and read in one step. To look
//! something up is to list one directory of its own, whatever the number of names; a [`NamesReader`] does so once, and
//! again when the generation is another one.
//!
//! Invariants:
//!
//! * Only a container's monitor makes entries with its id. Whoever takes an entry away names that id, so the entry of
//!   another one that has the same name or address stays.
//! * A change is counted when it is made. Whoever dies between is a container's monitor, of whose entries nothing is told any
//!   more, or took away entries of the dead.
//! * What is no name ([`is_name`]) never becomes a path: no separator, no `..`, no hidden file.
//! * Whoever dies at any point leaves entries with its id, or empty directories: [`Names::clear`] removes both. A reader
//!   sees the old text or the new one.
//! * Of who is dead nothing is told, from that moment on, when the reader knows where to look ([`Living`]): nobody is there to
//!   take entries away when a monitor is killed.
//!
//! It does not know what a DNS message is.

mod reader;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, fstat, mkdirat, openat, readlinkat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stanza_spec::{Classify, ContainerId, ErrorKind};
use stanza_sys::SharedCounter;

pub use reader::NamesReader;

const GENERATION: &str = "generation";
const NAMES: &str = "names";
const ADDRESSES: &str = "addresses";

/// The longest name of all, dots included (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
/// The longest part between dots.
const MAX_LABEL: usize = 63;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const COUNTED: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why the names of a network could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The network's directory.
    #[error("cannot open the directory of a network's names `{path}`")]
    Open {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// An entry of it.
    #[error("cannot {step} `{entry}` of a network's names")]
    Entry {
        /// `make`, `read` or `remove`.
        step: &'static str,
        /// The entry, relative to the network's directory.
        entry: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl Classify for NamesError {
    fn kind(&self) -> ErrorKind {
        match self {
            NamesError::Open { source, .. } | NamesError::Entry { source, .. } => ErrorKind::of_io(source),
        }
    }
}

/// Whether a text can be asked for by DNS: labels of 1 to 63 letters, digits, `-` and `_` (RFC 1123, and the underscore
/// that Compose's names have), joined by dots, 253 in all. Only such names are announced.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= MAX_NAME && text.split('.').all(is_label)
}

/// How to see which containers live: each holds the lock of a file of its own ([`stanza_sys::is_locked`]).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// Where each of them has a directory that is called as its id.
    pub directory: PathBuf,
    /// The file in it.
    pub lock: String,
}

/// The names of one network.
#[derive(Debug)]
pub struct Names {
    directory: OwnedFd,
    /// `None` where nobody has counted.
    generation: Option<SharedCounter>,
}

impl Names {
    /// Opens the names in `directory`, and makes it where it is missing; its parent exists.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn create(directory: &Path) -> Result<Names, NamesError> {
        let failed = |source: Errno| NamesError::Open { path: directory.to_owned(), source: source.into() };
        ensure_directory(CWD, directory).map_err(failed)?;
        let opened = openat(CWD, directory, DIRECTORY, Mode::empty()).map_err(failed)?;
        for kind in [NAMES, ADDRESSES] {
            ensure_directory(&opened, kind).map_err(failed)?;
        }
        let file = openat(&opened, GENERATION, COUNTED | OFlags::CREATE, Mode::RUSR | Mode::WUSR);
        let generation = SharedCounter::of(file.map_err(failed)?)
            .map_err(|source| NamesError::Open { path: directory.join(GENERATION), source })?;
        Ok(Names { directory: opened, generation: Some(generation) })
    }

    /// Opens the names in `directory`; `None` when there are none.
    ///
    /// # Errors
    ///
    /// When the kernel refuses for another reason.
    pub fn open(directory: &Path) -> Result<Option<Names>, NamesError> {
        let failed = |path: PathBuf, source: io::Error| Err(NamesError::Open { path, source });
        let opened = match openat(CWD, directory, DIRECTORY, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return failed(directory.to_owned(), error.into()),
        };
        let generation = match openat(&opened, GENERATION, COUNTED, Mode::empty()) {
            Ok(file) => SharedCounter::of(file).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        };
        match generation {
            Ok(generation) => Ok(Some(Names { directory: opened, generation })),
            Err(error) => failed(directory.join(GENERATION), error),
        }
    }

    /// Makes a container found by `names`, in any case of their letters, and by its addresses; `names` begins with its own.
    ///
    /// What is no name ([`is_name`]) is left out. Doing it again, also with other addresses, replaces what was there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; entries may have been made then.
    pub fn announce(
        &self,
        container: &ContainerId,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<(), NamesError> {
        let text = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        let mut names = names.iter().filter(|name| is_name(name)).map(|name| name.to_ascii_lowercase());
        let Some(own) = names.next() else { return Ok(()) };
        // A name is found only after its addresses lead back to it.
        for address in addresses {
            self.make(&format!("{ADDRESSES}/{address}"), container, &own)?;
        }
        std::iter::once(own)
            .chain(names)
            .try_for_each(|name| self.make(&format!("{NAMES}/{name}"), container, &text))
    }

    /// Takes away what [`Names::announce`] made with the same arguments; what is gone already is well.
    ///
    /// # Errors
    ///
    /// The first thing that the kernel refuses; all the rest is tried.
    pub fn withdraw(
        &self,
        container: &ContainerId,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<(), NamesError> {
        let names = names.iter().filter(|name| is_name(name));
        let directories = names
            .map(|name| format!("{NAMES}/{}", name.to_ascii_lowercase()))
            .chain(addresses.iter().map(|address| format!("{ADDRESSES}/{address}")));
        let mut result = Ok(());
        for directory in directories {
            let removed = self.remove(&directory, container.as_str());
            result = result.and(removed);
        }
        result
    }

    /// Takes away the entries of containers that do not live, and returns what could not be.
    ///
    /// `is_live` is asked, by id, after the entry was seen. So as long as a container is recorded before it is announced,
    /// one that is being started is never taken for a dead one.
    pub fn clear(&self, mut is_live: impl FnMut(&str) -> bool) -> Vec<NamesError> {
        let mut errors = Vec::new();
        for kind in [NAMES, ADDRESSES] {
            let listed = self.list(kind).unwrap_or_else(|error| {
                errors.push(error);
                Vec::new()
            });
            for directory in listed.into_iter().map(|name| format!("{kind}/{name}")) {
                match self.list(&directory) {
                    Ok(entries) => {
                        let dead = entries.into_iter().filter(|id| !is_live(id.trim_start_matches('.')));
                        errors.extend(dead.filter_map(|id| self.unlink(&directory, &id).err()));
                        errors.extend(self.remove_empty(&directory).err());
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        errors
    }

    /// Tells all readers that what they know may be old.
    fn count(&self) {
        if let Some(generation) = &self.generation {
            generation.advance();
        }
    }

    /// How many changes there were; `None` where that is not known.
    fn generation(&self) -> Option<u64> {
        self.generation.as_ref().map(SharedCounter::get)
    }

    /// Whether somebody removed the directory: who looks here does not see the one that has its path now.
    fn is_gone(&self) -> bool {
        fstat(&self.directory).is_ok_and(|found| found.st_nlink == 0)
    }

    /// Makes an entry; of two racing processes one may just be removing the directory.
    fn make(&self, directory: &str, container: &ContainerId, text: &str) -> Result<(), NamesError> {
        /// Far more often than a directory can lose its last entry between two system calls.
        const TURNS: usize = 100;
        let entry = format!("{directory}/{container}");
        let failed =
            |source: Errno| NamesError::Entry { step: "make", entry: entry.clone(), source: source.into() };
        let mut result = Err(Errno::NOENT);
        for _ in 0..TURNS {
            ensure_directory(&self.directory, directory).map_err(failed)?;
            result = match symlinkat(text, &self.directory, &entry) {
                Err(Errno::EXIST) => self.replace(directory, &entry, container, text),
                other => other,
            };
            if result != Err(Errno::NOENT) {
                break;
            }
        }
        self.count();
        result.map_err(failed)
    }

    /// Replaces an entry in one step. Nobody else writes entries of this container, so the draft is nobody else's.
    fn replace(
        &self,
        directory: &str,
        entry: &str,
        container: &ContainerId,
        text: &str,
    ) -> rustix::io::Result<()> {
        if readlinkat(&self.directory, entry, Vec::new()).is_ok_and(|old| old.as_bytes() == text.as_bytes()) {
            return Ok(());
        }
        let draft = format!("{directory}/.{container}");
        match symlinkat(text, &self.directory, &draft) {
            // A dead owner left it.
            Err(Errno::EXIST) => {
                unlinkat(&self.directory, &draft, AtFlags::empty())?;
                symlinkat(text, &self.directory, &draft)?;
            }
            result => result?,
        }
        renameat(&self.directory, &draft, &self.directory, entry)
    }

    /// Removes an entry, and its directory when it was the last.
    fn remove(&self, directory: &str, id: &str) -> Result<(), NamesError> {
        self.unlink(directory, id)?;
        self.remove_empty(directory)
    }

    fn unlink(&self, directory: &str, id: &str) -> Result<(), NamesError> {
        let entry = format!("{directory}/{id}");
        let removed = unlinkat(&self.directory, &entry, AtFlags::empty());
        self.count();
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(NamesError::Entry { step: "remove", entry, source: error.into() }),
        }
    }

    fn remove_empty(&self, directory: &str) -> Result<(), NamesError> {
        match unlinkat(&self.directory, directory, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(error) => {
                Err(NamesError::Entry { step: "remove", entry: directory.to_owned(), source: error.into() })
            }
        }
    }

    /// What the entries of a directory say, by container; none when there is no such directory.
    fn entries(&self, directory: &str) -> Result<Vec<(String, String)>, NamesError> {
        let mut found = Vec::new();
        // A draft is not an entry yet.
        for id in self.list(directory)?.into_iter().filter(|id| !id.starts_with('.')) {
            match readlinkat(&self.directory, format!("{directory}/{id}"), Vec::new()) {
                Ok(text) => found.extend(text.into_string().ok().map(|text| (id, text))),
                // Withdrawn since.
                Err(Errno::NOENT) => {}
                Err(error) => {
                    let entry = format!("{directory}/{id}");
                    return Err(NamesError::Entry { step: "read", entry, source: error.into() });
                }
            }
        }
        Ok(found)
    }

    /// The names in a directory, drafts too; none when there is no such directory.
    fn list(&self, directory: &str) -> Result<Vec<String>, NamesError> {
        let failed = |source: Errno| NamesError::Entry {
            step: "read",
            entry: directory.to_owned(),
            source: source.into(),
        };
        let opened = match openat(&self.directory, directory, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            result => result.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in Dir::new(opened).map_err(failed)? {
            match entry {
                Ok(entry) => found.extend(entry.file_name().to_str().ok().map(str::to_owned)),
                // The directory was removed since.
                Err(Errno::NOENT) => break,
                Err(error) => return Err(failed(error)),
            }
        }
        found.retain(|name| name != "." && name != "..");
        Ok(found)
    }
}

fn ensure_directory(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<()> {
    match mkdirat(at, path, Mode::RWXU) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}
