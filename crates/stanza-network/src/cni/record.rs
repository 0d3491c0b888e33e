//! The records of attachments, as `docs/on-disk.md` has them: what has to be deleted, and with what.
//!
//! ```text
//!   RESULTS/NETWORK/lock                          shared by ADD and DEL, alone by GC
//!                   CONTAINER-INTERFACE.json      the plan, and the result once there is one
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanza_spec::ContainerId;

use super::{CniError, CniPlan, CniResult};

const LOCK: &str = "lock";

/// An attachment as it is kept.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// What it was added with; published ports have their numbers.
    pub(super) plan: CniPlan,
    /// The last plugin's answer; `None` while the chain is being added.
    pub(super) result: Option<Value>,
    /// The path to the name space that plugins were given; right as long as the container runs.
    pub(super) netns: PathBuf,
}

/// Whether others may work on the network at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Shared,
    Alone,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CniError {
    move |source| CniError::Record { what, path: path.to_owned(), source }
}

fn directory(results: &Path, network: &str) -> PathBuf {
    results.join(network)
}

fn path_of(plan: &CniPlan) -> PathBuf {
    let name = format!("{}-{}.json", plan.container, plan.interface);
    directory(&plan.places.results_dir, &plan.network.name).join(name)
}

/// Waits for the right to work on a network; it ends with the file.
pub(super) fn lock(results: &Path, network: &str, share: Share) -> Result<File, CniError> {
    let directory = directory(results, network);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(failed("make the directory", &directory))?;
    let path = directory.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(failed("open", &path))?;
    let operation = match share {
        Share::Shared => FlockOperation::LockShared,
        Share::Alone => FlockOperation::LockExclusive,
    };
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed("lock", &path)(error.into())),
        }
    }
}

/// The record of a plan's attachment; `None` when there is none. One that cannot be understood is as if the chain had not
/// got through: the plan as it is given has to do.
pub(super) fn read(plan: &CniPlan) -> Result<Option<Record>, CniError> {
    let path = path_of(plan);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(failed("read", &path))?,
    };
    let record = serde_json::from_slice(&text).ok().filter(|record: &Record| is_same(&record.plan, plan));
    Ok(Some(record.unwrap_or_else(|| Record { plan: plan.clone(), result: None, netns: PathBuf::new() })))
}

fn is_same(one: &CniPlan, other: &CniPlan) -> bool {
    (&one.network.name, &one.container, &one.interface)
        == (&other.network.name, &other.container, &other.interface)
}

/// Writes a record: it is on disk, whole, when this returns.
pub(super) fn write(record: &Record) -> Result<(), CniError> {
    let path = path_of(&record.plan);
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let text = serde_json::to_vec(record)?;
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        io::Write::write_all(&mut &file, &text)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().map_err(failed("write", &path))
}

/// Removes a record; one that is not there is fine.
pub(super) fn remove(plan: &CniPlan) -> Result<(), CniError> {
    let path = path_of(plan);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", &path)),
    }
}

/// All records of a network.
pub(super) fn of_network(results: &Path, network: &str) -> Vec<Record> {
    let entries = fs::read_dir(directory(results, network)).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut records: Vec<Record> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
        .collect();
    records.sort_by(|a, b| a.plan.container.as_str().cmp(b.plan.container.as_str()));
    records
}

/// The attachments of a container on record, each with its result when ADD got through: what has to be deleted, and where
/// its addresses are told.
///
/// They need no configuration: it may have been changed or removed since.
#[must_use]
pub fn recorded(results: &Path, container: &ContainerId) -> Vec<(CniPlan, Option<CniResult>)> {
    let entries = fs::read_dir(results).into_iter().flatten().flatten();
    let networks = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found = Vec::new();
    for network in networks {
        let prefix = format!("{container}-");
        let files = fs::read_dir(directory(results, &network)).into_iter().flatten().flatten();
        for file in files {
            let name = file.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".json"));
            let Some(text) = ours.then(|| fs::read(file.path()).ok()).flatten() else { continue };
            let Ok(record) = serde_json::from_slice::<Record>(&text) else { continue };
            let result = record.result.as_ref().and_then(|result| CniResult::read(result).ok());
            found.push((record.plan, result));
        }
    }
    found
}

/// The networks with attachments on record, and the containers in them.
#[must_use]
pub fn attached(results: &Path) -> Vec<(String, ContainerId)> {
    let entries = fs::read_dir(results).into_iter().flatten().flatten();
    let networks = entries.filter_map(|entry| entry.file_name().into_string().ok());
    networks
        .flat_map(|network| of_network(results, &network))
        .map(|record| (record.plan.network.name, record.plan.container))
        .collect()
}
