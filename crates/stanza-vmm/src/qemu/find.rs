//! QEMU on this host.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use stanza_sys::as_helper;

use crate::store::{self, Store, StoreError};

/// QEMU's executable for x86-64.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// Where it is looked for.
const DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/usr/libexec", "/bin"];
/// The names under which Red Hat's and others' packages have it.
const NAMES: [&str; 2] = [PROGRAM, "qemu-kvm"];

/// The oldest version that has what is used (`-machine microvm` with PCI, descriptors for every channel).
const OLDEST: (u32, u32) = (6, 0);

/// A QEMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// The executable.
    pub program: PathBuf,
    /// Its version: major and minor number.
    pub version: (u32, u32),
    /// Its version as it says it, with its packager's; a template belongs to one of these.
    pub identity: String,
}

#[derive(Serialize, Deserialize)]
struct Known {
    fingerprint: String,
    qemu: Qemu,
}

/// Why there is no QEMU.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// It is not installed.
    #[error(
        "QEMU (`{PROGRAM}`) is not installed: install `qemu-system-x86` (Debian, Ubuntu), `qemu-system-x86-core` \
         (Fedora), `qemu-kvm` (RHEL), `qemu-system-x86_64` (Alpine), `qemu-base` (Arch) or `qemu-x86` (openSUSE)"
    )]
    Missing,
    /// It does not run.
    #[error("cannot run `{program} --version`")]
    Run {
        /// The executable.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It answers something else.
    #[error("`{program} --version` answers `{answer}`; expected `QEMU emulator version …`")]
    Answer {
        /// The executable.
        program: PathBuf,
        /// Its first line, cut.
        answer: String,
    },
    /// It is too old.
    #[error("`{program}` is QEMU {}.{}; expected {}.{} or later", .version.0, .version.1, OLDEST.0, OLDEST.1)]
    Old {
        /// The executable.
        program: PathBuf,
        /// Its version.
        version: (u32, u32),
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Qemu {
    /// Finds QEMU. It is asked for its version once: what it said is remembered for as long as its file stays the same.
    ///
    /// # Errors
    /// When there is none, or one that is too old.
    pub fn find(store: &Store) -> Result<Qemu, FindError> {
        let program = installed().ok_or(FindError::Missing)?;
        let failed = |source| FindError::Run { program: program.clone(), source };
        let fingerprint = fingerprint(&program).map_err(failed)?;
        let path = store.path("qemu.json");
        let known = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Known>(&text).ok());
        if let Some(known) =
            known.filter(|known| known.fingerprint == fingerprint && known.qemu.program == program)
        {
            return Ok(known.qemu);
        }
        let known = Known { fingerprint, qemu: Qemu::at(&program)? };
        let text = serde_json::to_vec(&known).map_err(|error| failed(error.into()))?;
        store::write_whole(&store.lock()?, &path, &text)?;
        Ok(known.qemu)
    }

    /// The QEMU at `program`.
    ///
    /// # Errors
    /// As [`Qemu::find`].
    pub fn at(program: &Path) -> Result<Qemu, FindError> {
        let output = as_helper(Command::new(program).arg("--version").stdin(Stdio::null()))
            .output()
            .map_err(|source| FindError::Run { program: program.to_owned(), source })?;
        let answer = String::from_utf8_lossy(&output.stdout);
        let first: String = answer.lines().next().unwrap_or_default().chars().take(200).collect();
        let version = parse(&first)
            .ok_or_else(|| FindError::Answer { program: program.to_owned(), answer: first.clone() })?;
        if version < OLDEST {
            return Err(FindError::Old { program: program.to_owned(), version });
        }
        Ok(Qemu { program: program.to_owned(), version, identity: first })
    }

    /// Whether a template's memory can be opened for reading only (`readonly=on,rom=off`).
    #[must_use]
    pub fn opens_memory_read_only(&self) -> bool {
        self.version >= (8, 2)
    }
}

/// The executable, without running it.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    let paths = DIRECTORIES
        .iter()
        .flat_map(|directory| NAMES.iter().map(move |name| Path::new(directory).join(name)));
    paths.into_iter().find(|path| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// What tells one installed executable from the next, without running it: file, size and times.
fn fingerprint(program: &Path) -> io::Result<String> {
    let found = fs::metadata(program)?;
    Ok(format!("{}:{}:{}:{}.{}", found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

fn parse(line: &str) -> Option<(u32, u32)> {
    let rest = line.strip_prefix("QEMU emulator version ")?;
    let mut numbers = rest.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions() {
        assert_eq!(parse("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)"), Some((7, 2)));
        assert_eq!(parse("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(parse("QEMU emulator"), None);
    }

    #[test]
    fn another_program_is_not_taken_for_it() {
        let error = Qemu::at(Path::new("/bin/true")).unwrap_err().to_string();
        assert!(error.starts_with("`/bin/true --version` answers `"), "{error}");
        let error = Qemu::at(Path::new("/no/qemu")).unwrap_err().to_string();
        assert_eq!(error, "cannot run `/no/qemu --version`");
    }
}
