//! A runtime under test: its executable, and what it says of itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use std::os::unix::process::ExitStatusExt as _;

use crate::case::Outcome;

/// A runtime.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    /// As the table calls it.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// `runc`, `crun`, `youki` or `stanza-oci`: the first word of its version.
    pub(crate) kind: String,
    pub(crate) version: String,
}

impl Runtime {
    /// Asks the executable for its version.
    pub(crate) fn new(name: &str, path: &Path) -> Outcome<Runtime> {
        let output = Command::new(path)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run `{}`: {error}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace();
        let kind = words.next().unwrap_or_default().to_owned();
        let version = words.find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()));
        Ok(Runtime {
            name: name.to_owned(),
            path: path.to_path_buf(),
            kind,
            version: version.unwrap_or_default().to_owned(),
        })
    }

    pub(crate) fn is_runc(&self) -> bool {
        self.kind == "runc"
    }

    pub(crate) fn is_crun(&self) -> bool {
        self.kind == "crun"
    }

    pub(crate) fn is_stanza(&self) -> bool {
        self.kind.starts_with("stanza")
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Its exit code; 128 + the signal that ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The output of a command that must have succeeded, without the white space at its ends.
    pub(crate) fn ok(self) -> Outcome<String> {
        if self.code == 0 { Ok(self.stdout.trim().to_owned()) } else { Err(format!("it failed: {self:?}")) }
    }

    /// The output of a command that must have failed, both streams.
    pub(crate) fn refused(self) -> Outcome<String> {
        if self.code == 0 {
            Err(format!("it succeeded: {self:?}"))
        } else {
            Ok(format!("{}{}", self.stdout, self.stderr))
        }
    }
}

pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// An account without rights.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The first of its 65,536 subordinate user and group ids.
    pub(crate) subuid: u32,
    pub(crate) subgid: u32,
}

/// The ordinary user that rootless cases run as.
pub(crate) fn ordinary() -> Outcome<Account> {
    const NAME: &str = "stanza-test";
    let fields = |path: &str| -> Outcome<Vec<String>> {
        let text = fs::read_to_string(path).map_err(|error| format!("cannot read `{path}`: {error}"))?;
        let line = text.lines().find(|line| line.split(':').next() == Some(NAME));
        let line = line.ok_or_else(|| format!("no `{NAME}` in `{path}` (`cargo xtask test` makes it)"))?;
        Ok(line.split(':').map(str::to_owned).collect())
    };
    let number = |fields: &[String], at: usize| -> Outcome<u32> {
        fields.get(at).and_then(|text| text.parse().ok()).ok_or_else(|| format!("no number in {fields:?}"))
    };
    if !Path::new("/usr/bin/newuidmap").exists() {
        return Err("no `newuidmap` (package uidmap)".to_owned());
    }
    let passwd = fields("/etc/passwd")?;
    Ok(Account {
        uid: number(&passwd, 2)?,
        gid: number(&passwd, 3)?,
        subuid: number(&fields("/etc/subuid")?, 1)?,
        subgid: number(&fields("/etc/subgid")?, 1)?,
    })
}
