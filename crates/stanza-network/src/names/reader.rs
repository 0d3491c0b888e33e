//! One who asks for names again and again: what was read once is kept for as long as nothing has changed.
//!
//! ```text
//!   question ─▶ is the generation the same? ── no ──▶ forget everything
//!                     │ yes                              │
//!                     ▼                                  ▼
//!               known, and who has it lives? ── no ──▶ list the name's directory, look at who lives, keep it
//!                     │ yes                              │
//!                     ▼                                  ▼
//!                   answer ◀─────────────────────────────┘
//! ```
//!
//! What is known costs no system call but one for each container that has the name: whether its lock is still held.
//!
//! What nobody has is not kept: whoever asks for names makes this no larger than the network's names are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::{ADDRESSES, Living, NAMES, Names, NamesError, is_name};

/// Entries that are kept, of all names together; each is some 200 bytes at most.
const MAX_KNOWN: usize = 2048;
/// Containers whose locks are kept open.
const MAX_LOCKS: usize = 64;

/// Looks up names of one network.
#[derive(Debug)]
pub struct NamesReader {
    directory: PathBuf,
    living: Option<Living>,
    names: Option<Names>,
    /// What all the rest is of.
    generation: Option<u64>,
    /// The entries of directories, in the order of the containers' ids.
    known: HashMap<String, Vec<Entry>>,
    /// How many there are in all.
    count: usize,
    /// The locks of containers.
    locks: HashMap<String, Rc<OwnedFd>>,
}

/// An entry of a container that lives.
#[derive(Debug)]
struct Entry {
    text: String,
    life: Life,
}

/// Why a container counts.
#[derive(Debug)]
enum Life {
    /// Everybody does.
    Certain,
    /// It has this lock.
    Locked(Rc<OwnedFd>),
    /// It does now: there is nothing at hand that would tell later.
    Unknown,
}

impl Entry {
    /// Whether it is one of a container that still lives.
    fn counts(&self) -> bool {
        match &self.life {
            Life::Certain => true,
            Life::Locked(lock) => stanza_sys::is_locked(lock).unwrap_or(true),
            Life::Unknown => false,
        }
    }
}

impl NamesReader {
    /// Of the names in `directory`, where there may be none yet, and of the containers that live; `None` is of all.
    #[must_use]
    pub fn new(directory: PathBuf, living: Option<Living>) -> NamesReader {
        NamesReader {
            directory,
            living,
            names: None,
            generation: None,
            known: HashMap::new(),
            count: 0,
            locks: HashMap::new(),
        }
    }

    /// The addresses of all containers of that name, one container's after the other's; the containers are in the order of
    /// their ids, begun anywhere. `None` when there is no such name.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn lookup(&mut self, name: &str) -> Result<Option<Vec<IpAddr>>, NamesError> {
        if !is_name(name) {
            return Ok(None);
        }
        self.with_entries(&format!("{NAMES}/{}", name.to_ascii_lowercase()), |entries| {
            let first = if entries.len() > 1 { usize::from(random()) % entries.len() } else { 0 };
            let (after, from) = entries.split_at(first);
            let texts = from.iter().chain(after).flat_map(|entry| entry.text.split(','));
            (!entries.is_empty()).then(|| texts.filter_map(|address| address.parse().ok()).collect())
        })
    }

    /// The name of the container that has the address; `None` when nobody of the network has it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn reverse(&mut self, address: IpAddr) -> Result<Option<String>, NamesError> {
        self.with_entries(&format!("{ADDRESSES}/{address}"), |entries| {
            entries.iter().find(|entry| is_name(&entry.text)).map(|entry| entry.text.clone())
        })
    }

    /// Gives `tell` the entries of a directory.
    fn with_entries<T>(
        &mut self,
        directory: &str,
        tell: impl FnOnce(&[Entry]) -> T,
    ) -> Result<T, NamesError> {
        self.refresh()?;
        if let Some(entries) = self.known.get(directory) {
            if entries.iter().all(Entry::counts) {
                return Ok(tell(entries));
            }
            // Somebody has died, and may live again with another lock.
            self.forget();
        }
        let mut entries = self.read(directory)?;
        if entries.is_empty() && self.names.as_ref().is_some_and(Names::is_gone) {
            self.names = None;
            self.refresh()?;
            entries = self.read(directory)?;
        }
        let told = tell(&entries);
        self.keep(directory, entries);
        Ok(told)
    }

    /// Forgets everything when something has changed since.
    fn refresh(&mut self) -> Result<(), NamesError> {
        let generation = self.names.as_ref().and_then(Names::generation);
        if generation.is_none() {
            // Somebody may have begun to count.
            self.names = Names::open(&self.directory)?;
            self.forget();
            self.generation = self.names.as_ref().and_then(Names::generation);
        } else if generation != self.generation {
            self.forget();
            self.generation = generation;
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.known.clear();
        self.locks.clear();
        self.count = 0;
    }

    /// Keeps what counts until the next change, as far as that can be told and there is room.
    fn keep(&mut self, directory: &str, entries: Vec<Entry>) {
        let count = self.count + entries.len();
        let certain = entries.iter().all(|entry| !matches!(entry.life, Life::Unknown));
        if certain && !entries.is_empty() && self.generation.is_some() && count <= MAX_KNOWN {
            self.count = count;
            self.known.insert(directory.to_owned(), entries);
        }
    }

    /// The entries of those who live, in the order of their ids.
    fn read(&mut self, directory: &str) -> Result<Vec<Entry>, NamesError> {
        let Some(names) = &self.names else { return Ok(Vec::new()) };
        let mut found = names.entries(directory)?;
        found.sort_unstable();
        let living = found.into_iter().filter_map(|(container, text)| {
            let life = self.life(&container)?;
            Some(Entry { text, life })
        });
        Ok(living.collect())
    }

    /// Why a container counts; `None` when it is dead. One whose lock cannot be looked at is not called dead.
    fn life(&mut self, container: &str) -> Option<Life> {
        let Some(living) = &self.living else { return Some(Life::Certain) };
        if let Some(lock) = self.locks.get(container) {
            return stanza_sys::is_locked(lock).unwrap_or(true).then(|| Life::Locked(lock.clone()));
        }
        let path = living.directory.join(container).join(&living.lock);
        let lock = match openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(lock) => Rc::new(lock),
            Err(Errno::NOENT) => return None,
            Err(_) => return Some(Life::Unknown),
        };
        match stanza_sys::is_locked(&lock) {
            Ok(false) => None,
            Ok(true) if self.locks.len() < MAX_LOCKS => {
                self.locks.insert(container.to_owned(), lock.clone());
                Some(Life::Locked(lock))
            }
            _ => Some(Life::Unknown),
        }
    }
}

/// A random number, or zero from a kernel that has none.
fn random() -> u16 {
    let mut bytes = [0; 2];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(2) => u16::from_ne_bytes(bytes),
        _ => 0,
    }
}
