//! The options that `checkpoint` and `restore` have in common, and their numbers in criu's `criu_opts`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use stanza_spec::oci::runtime::Spec;

use super::Message;
use crate::arguments::{Flag, Parsed, option, switch};
use crate::failure::{Doing, Failure};

/// Fields of `criu_opts` that only one verb sets.
pub(crate) mod field {
    pub(crate) const PID: u32 = 2;
    pub(crate) const LEAVE_RUNNING: u32 = 3;
    pub(crate) const EVASIVE_DEVICES: u32 = 6;
    pub(crate) const PAGE_SERVER: u32 = 11;
    pub(crate) const TRACK_MEMORY: u32 = 15;
    pub(crate) const EXTERNAL_MOUNT: u32 = 23;
    pub(crate) const CGROUP_ROOT: u32 = 25;
    pub(crate) const SIBLING: u32 = 26;
    pub(crate) const INHERITED: u32 = 27;
    pub(crate) const EXTERNAL: u32 = 37;
    pub(crate) const FREEZER: u32 = 44;
    pub(crate) const STATUS: u32 = 49;
    pub(crate) const LSM_PROFILE: u32 = 53;
    pub(crate) const LSM_MOUNT_CONTEXT: u32 = 63;
}

/// The options that `checkpoint` and `restore` share.
pub(crate) const FLAGS: [Flag; 14] = [
    option(&["image-path"], "DIR", "the images (default: `checkpoint` in the working directory)"),
    option(&["work-path"], "DIR", "where criu works and logs (default: the images' directory)"),
    option(&["parent-path"], "DIR", "an earlier image, relative to the new one"),
    switch(&["tcp-established"], "keep open TCP connections"),
    switch(&["tcp-close"], "close open TCP connections"),
    switch(&["tcp-skip-in-flight"], "pass over TCP connections that are being made"),
    switch(&["link-remap"], "keep open files whose names are gone by new ones"),
    switch(&["ext-unix-sk"], "allow Unix sockets whose other end is outside"),
    switch(&["shell-job"], "allow a terminal that is the caller's"),
    switch(&["lazy-pages"], "move memory when it is used"),
    switch(&["file-locks"], "keep file locks"),
    option(&["manage-cgroups-mode"], "MODE", "`soft` (default), `full`, `strict` or `ignore`"),
    option(&["empty-ns"], "NAME", "leave what is in this namespace aside; `network` is the only one"),
    switch(&["auto-dedup"], "drop memory pages that a later image has, too"),
];

/// Each switch's field.
const SWITCHES: [(&str, u32); 9] = [
    ("ext-unix-sk", 4),
    ("tcp-established", 5),
    ("shell-job", 7),
    ("file-locks", 8),
    ("auto-dedup", 16),
    ("link-remap", 18),
    ("tcp-skip-in-flight", 46),
    ("lazy-pages", 48),
    ("tcp-close", 52),
];

/// Where a run reads, writes and logs.
#[derive(Debug)]
pub(crate) struct Places {
    /// Absolute.
    pub(crate) images: PathBuf,
    /// Absolute.
    pub(crate) work: PathBuf,
}

impl Places {
    /// By the words of the command line; nothing is made.
    pub(crate) fn of(parsed: &Parsed) -> Result<Places, Failure> {
        let path = |name, default: &Path| {
            let given = parsed.value(name).filter(|path| !path.is_empty()).map_or(default, Path::new);
            std::path::absolute(given).doing("find", given)
        };
        let images = path("image-path", Path::new("checkpoint"))?;
        let work = path("work-path", &images)?;
        Ok(Places { images, work })
    }
}

/// Which directories criu uses.
pub(crate) struct Directories<'a> {
    pub(crate) image: &'a File,
    pub(crate) work: &'a File,
    /// The root file system, absolute.
    pub(crate) root: &'a Path,
    /// The log's name in `work`.
    pub(crate) log: &'a str,
}

/// A number of criu's that is a descriptor.
pub(crate) fn number_of(descriptor: impl AsFd) -> u64 {
    descriptor.as_fd().as_raw_fd().unsigned_abs().into()
}

/// Reads the words of a command line; `hears` whether criu is to tell how far it is.
pub(crate) fn common(
    parsed: &Parsed,
    spec: &Spec,
    directories: &Directories<'_>,
    hears: bool,
) -> Result<Message, Failure> {
    let mut options = Message::default();
    options.number(1, number_of(directories.image));
    options.number(17, number_of(directories.work));
    // All but what is for criu's own developers.
    options.number(9, 4);
    options.text(10, directories.log);
    options.bytes(13, directories.root.as_os_str().as_encoded_bytes());
    options.switch(12, hears);
    if let Some(parent) = parsed.value("parent-path").filter(|path| !path.is_empty()) {
        if parent.starts_with('/') {
            return Err(Failure::Usage("--parent-path must be relative".to_owned()));
        }
        options.text(14, parent);
    }
    for (name, field) in SWITCHES {
        options.switch(field, parsed.is_on(name));
    }
    // What a mount hears of from the host's it hears of again.
    options.switch(30, true);
    // The controlling end of a terminal is outside: criu makes another one.
    options.switch(50, true);
    options.switch(24, true);
    options.number(34, cgroups_mode(parsed.value("manage-cgroups-mode").unwrap_or("soft"))?);
    if let Some(namespaces) = empty_namespaces(parsed.values("empty-ns"))? {
        options.number(38, namespaces);
    }
    if let Some(path) = configuration(spec) {
        options.text(51, &path);
    }
    Ok(options)
}

fn cgroups_mode(word: &str) -> Result<u64, Failure> {
    Ok(match word {
        "ignore" => 0,
        "soft" | "" => 3,
        "full" => 4,
        "strict" => 5,
        _ => return Err(Failure::Usage("Invalid manage-cgroups-mode value".to_owned())),
    })
}

fn empty_namespaces<'a>(words: impl Iterator<Item = &'a str>) -> Result<Option<u64>, Failure> {
    const NETWORK: u64 = 0x4000_0000;
    let mut namespaces = None;
    for word in words {
        match word {
            "network" => namespaces = Some(NETWORK),
            other => {
                return Err(Failure::Usage(format!(
                    "namespace {other:?} cannot be left empty: expected network"
                )));
            }
        }
    }
    Ok(namespaces)
}

/// criu's own configuration, as callers of runc set it: the annotation, where an empty one means none, else runc's file.
fn configuration(spec: &Spec) -> Option<String> {
    match spec.annotations().as_ref().and_then(|annotations| annotations.get("org.criu.config")) {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.clone()),
        None => Some("/etc/criu/runc.conf".to_owned()).filter(|path| Path::new(path).exists()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_crius_numbers() {
        assert_eq!(cgroups_mode("soft").unwrap(), 3);
        assert_eq!(cgroups_mode("ignore").unwrap(), 0);
        assert!(cgroups_mode("some").is_err());
        assert_eq!(empty_namespaces(["network"].into_iter()).unwrap(), Some(1 << 30));
        assert!(empty_namespaces(["pid"].into_iter()).is_err());
    }
}
