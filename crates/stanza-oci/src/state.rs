//! The record of one container, and what can be seen of it now.
//!
//! ```text
//!  <root>/<id>/           mode 700; its lock (flock) serialises the verbs that change the container
//!     state.json          written before anything of the container exists, and again when its first process does
//!     config.json         the bundle's, as it was at `create`
//!     start.sock          the first process waits here for `start`; gone once it has been told to go on
//! ```
//!
//! ```text
//!   (creating) ──▶ created ──start──▶ running ◀──pause/resume──▶ paused
//!       │             │                  │                          │
//!       └─────────────┴──────────────────┴── first process ends ────┴──▶ stopped ──delete──▶ (gone)
//! ```
//!
//! Only facts are stored; the status is derived each time from the process, the gate and the freezer.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use stanza_cgroup::systemd::SystemdPlan;
use stanza_cgroup::{Cgroup, CgroupPlan, Rdt};
use stanza_spec::oci::runtime::Spec;

use crate::context::Context;
use crate::failure::{Doing, Failure};

/// What is written about a container. The field names on this level are runc's, whose `state.json` other tools read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The container's id.
    pub(crate) id: String,
    /// The first process; 0 while the container is being made.
    pub(crate) init_process_pid: i32,
    /// Its start in clock ticks since boot: with the pid it names the process beyond reuse.
    pub(crate) init_process_start: u64,
    /// When the container was created, RFC 3339.
    pub(crate) created: String,
    /// Whether it was created without root.
    pub(crate) rootless: bool,
    /// The directory of its cgroup by controller (version 1) or under an empty name (version 2).
    pub(crate) cgroup_paths: BTreeMap<String, PathBuf>,
    /// Where its namespaces can be joined, by runc's names (`NEWNS`, `NEWPID`, …).
    pub(crate) namespace_paths: BTreeMap<String, PathBuf>,
    /// The bundle.
    pub(crate) bundle: PathBuf,
    /// The root file system, absolute.
    pub(crate) rootfs: PathBuf,
    /// `ociVersion` of the configuration.
    pub(crate) oci_version: String,
    /// The configuration's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// The container's cgroups.
    pub(crate) cgroup: CgroupPlan,
    /// The unit, when systemd makes the cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) systemd: Option<SystemdPlan>,
    /// Its groups of Intel's resource control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rdt: Option<Rdt>,
}

/// The runtime's word for how a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Being made, or its maker died.
    Creating,
    /// The first process waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// Frozen.
    Paused,
    /// The first process has ended.
    Stopped,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }

    /// Whether there is a first process.
    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Status::Created | Status::Running | Status::Paused)
    }
}

/// The record of a container.
const RECORD: &str = "state.json";
/// The same with the first process, which is not ready yet.
const RECORD_AHEAD: &str = "state.json.new";

/// The directory of one container, open and locked by whoever changes it.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    /// Held for the lock.
    directory: File,
}

/// A recorded container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) place: Place,
    pub(crate) record: Record,
}

/// runc's rule: letters, digits and `_+-.`, not `.` or `..`; at most 1024 bytes.
fn check_id(id: &str) -> Result<(), Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    match id {
        "" => Err(Failure::Usage("container id cannot be empty".to_owned())),
        "." | ".." => Err(Failure::Id(id.to_owned())),
        _ if id.len() <= 255 && id.bytes().all(allowed) => Ok(()),
        _ => Err(Failure::Id(id.to_owned())),
    }
}

impl Place {
    /// Makes the directory of a new container.
    pub(crate) fn create(context: &Context, id: &str) -> Result<Place, Failure> {
        check_id(id)?;
        let path = context.root.join(id);
        let make = || DirBuilder::new().mode(0o700).create(&path);
        let made = make().or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o711).recursive(true).create(&context.root)?;
                make()
            }
            _ => Err(error),
        });
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Failure::Exists),
            Err(error) => return Err(error).doing("create", &path),
        }
        let place = Place::at(path)?;
        place.lock()?;
        Ok(place)
    }

    /// The directory of a container that is there.
    pub(crate) fn open(context: &Context, id: &str) -> Result<Place, Failure> {
        check_id(id)?;
        Place::at(context.root.join(id))
    }

    fn at(path: PathBuf) -> Result<Place, Failure> {
        match File::open(&path) {
            Ok(directory) => Ok(Place { path, directory }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::NoContainer),
            Err(error) => Err(error).doing("open", &path),
        }
    }

    /// Waits until nobody else changes the container. The lock ends with this value, or with the process.
    pub(crate) fn lock(&self) -> Result<(), Failure> {
        flock(&self.directory, FlockOperation::LockExclusive).doing("lock", &self.path)
    }

    /// The user whose directory it is: `root`, or the name in /etc/passwd, or the number.
    pub(crate) fn owner(&self) -> String {
        let uid = self.directory.metadata().map_or(0, |metadata| metadata.uid());
        if uid == 0 {
            return "root".to_owned();
        }
        stanza_container::rootless::user_name(uid).unwrap_or_else(|| format!("#{uid}"))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Lets others change the container again.
    pub(crate) fn unlock(&self) -> Result<(), Failure> {
        flock(&self.directory, FlockOperation::Unlock).doing("unlock", &self.path)
    }

    /// The pipe at which the first process waits for `start`.
    pub(crate) fn start_gate(&self) -> PathBuf {
        self.file("exec.fifo")
    }

    /// The pipe through which the first process says why it could not execute its program.
    pub(crate) fn result_gate(&self) -> PathBuf {
        self.file("result.fifo")
    }

    /// Writes a file whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let (path, new) = (self.file(name), self.file(&format!("{name}.new")));
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).doing("write", path)
    }

    /// Writes a file that nobody looks for before there is a record.
    pub(crate) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.file(name);
        fs::write(&path, bytes).doing("write", path)
    }

    /// Writes the first record of a container, of which nothing is made yet.
    pub(crate) fn write_first_record(&self, record: &Record) -> Result<(), Failure> {
        self.write_new(RECORD, &serde_json::to_vec(record).map_err(Failure::below)?)
    }

    /// Writes the record of a container whose first process is there, but not what it is to become. Until
    /// [`Place::commit_record`] it counts only for who clears the container.
    pub(crate) fn write_record_ahead(&self, record: &Record) -> Result<(), Failure> {
        self.write_new(RECORD_AHEAD, &serde_json::to_vec(record).map_err(Failure::below)?)
    }

    /// Makes the record that was written ahead the container's.
    pub(crate) fn commit_record(&self) -> Result<(), Failure> {
        let path = self.file(RECORD);
        fs::rename(self.file(RECORD_AHEAD), &path).doing("write", path)
    }

    /// The record; `None` when the container's maker died before he had written one.
    pub(crate) fn read_record(&self) -> Result<Option<Record>, Failure> {
        let path = self.file(RECORD);
        match fs::read(&path) {
            // Cut short it is as none: nothing is made before it is written.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing("read", path),
        }
    }

    /// The latest record, for who holds the lock and clears the container: its maker may have died with a process there.
    pub(crate) fn read_latest_record(&self) -> Result<Option<Record>, Failure> {
        let ahead = fs::read(self.file(RECORD_AHEAD)).ok();
        match ahead.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(record) => Ok(Some(record)),
            None => self.read_record(),
        }
    }

    /// Removes the directory and all in it.
    pub(crate) fn remove(self) -> Result<(), Failure> {
        // The record last: as long as there is one, whoever comes next knows what is to be cleared.
        for name in ["exec.fifo", "result.fifo", "config.json", RECORD_AHEAD, RECORD] {
            let path = self.file(name);
            match rustix::fs::unlink(&path) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error).doing("remove", path),
            }
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            // A file that a killed writer left.
            Err(_) => fs::remove_dir_all(&self.path).doing("remove", self.path.clone()),
        }
    }
}

fn exists(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
}

impl Container {
    /// The container of that id, unlocked.
    pub(crate) fn open(context: &Context, id: &str) -> Result<Container, Failure> {
        let place = Place::open(context, id)?;
        let record = place.read_record()?.ok_or(Failure::NoContainer)?;
        Ok(Container { place, record })
    }

    /// The container of that id, locked against other verbs that change it.
    pub(crate) fn open_locked(context: &Context, id: &str) -> Result<Container, Failure> {
        let place = Place::open(context, id)?;
        place.lock()?;
        let record = place.read_record()?.ok_or(Failure::NoContainer)?;
        Ok(Container { place, record })
    }

    /// All containers below the root, by id; those whose record cannot be read are left out.
    pub(crate) fn all(context: &Context) -> Result<Vec<Container>, Failure> {
        let entries = match fs::read_dir(&context.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).doing("read", &context.root),
        };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names.iter().filter_map(|name| Container::open(context, name).ok()).collect())
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        stanza_cgroup::open(&self.record.cgroup)
    }

    /// The configuration as it was at `create`.
    pub(crate) fn spec(&self) -> Result<Spec, Failure> {
        crate::bundle::read_configuration(&self.place.file("config.json"))
    }

    /// The first process, by a descriptor that no reuse of its pid can mislead; `None` when it has ended.
    pub(crate) fn init(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.record.init_process_pid).filter(|_| self.record.init_process_pid > 0)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after it was opened: if this is the process, the descriptor is.
        let seen = stanza_sys::process_status(pid).ok()?;
        (seen.start_time == self.record.init_process_start && !seen.is_dead()).then_some(pidfd)
    }

    pub(crate) fn status(&self) -> Status {
        if self.record.init_process_pid == 0 {
            return Status::Creating;
        }
        if self.init().is_none() {
            return Status::Stopped;
        }
        if exists(&self.place.start_gate()) {
            return Status::Created;
        }
        if self.cgroup().is_paused() { Status::Paused } else { Status::Running }
    }
}

/// What `state` prints and hooks read (runtime-spec, "State").
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) status: Status,
    pub(crate) pid: i32,
    pub(crate) bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: &'a BTreeMap<String, String>,
}

/// The state as `state` and `list` print it: runc's, with what the specification does not ask for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Details<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    /// 0 when it has ended.
    pub(crate) pid: i32,
    pub(crate) status: Status,
    pub(crate) bundle: &'a Path,
    pub(crate) rootfs: &'a Path,
    /// RFC 3339.
    pub(crate) created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: &'a BTreeMap<String, String>,
    /// The user who made it, by name or number.
    pub(crate) owner: String,
}

impl Container {
    /// What `state` and `list` print.
    pub(crate) fn details(&self) -> Details<'_> {
        let status = self.status();
        let record = &self.record;
        Details {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: if status.is_alive() { record.init_process_pid } else { 0 },
            status,
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner: self.place.owner(),
        }
    }
}

impl Record {
    /// What hooks read on their standard input.
    pub(crate) fn state_text(&self, status: Status) -> Vec<u8> {
        // A record has been JSON before.
        serde_json::to_vec(&self.state(status)).unwrap_or_default()
    }

    pub(crate) fn state(&self, status: Status) -> State<'_> {
        State {
            oci_version: &self.oci_version,
            id: &self.id,
            status,
            pid: if status == Status::Stopped { 0 } else { self.init_process_pid },
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_runcs() {
        for good in ["a", "A-b_c+d.e", "0", &"x".repeat(255)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "é", "a\0", &"x".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
