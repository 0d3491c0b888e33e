//! What dead processes left, found by looking: directories, records, addresses, network devices, control groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use stanza_network::names::Names;
use stanza_network::{Live, Network, clear_leftovers, device_of, within_shared};
use stanza_snapshot::remove_tree;
use stanza_spec::ContainerId;

use super::check::{Finding, FindingStatus};
use crate::database::{DatabaseError, Phase};
use crate::{Engine, size};

pub(super) fn leftover(what: String, repaired: bool) -> Finding {
    let advice = if repaired { "cleared" } else { "run `stanza system check --repair`" };
    let status = if repaired { FindingStatus::Repaired } else { FindingStatus::Leftover };
    Finding { area: "leftovers", status, what, advice: Some(advice.to_owned()) }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// How long a control group may be without processes while its container is being started.
const STARTING: Duration = Duration::from_secs(10);

/// Whether a directory of control groups was made, or changed, just now.
fn is_young(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|time| time.elapsed().map_or(true, |age| age < STARTING))
}

impl Engine {
    /// Looks for leftovers, and clears them with `repair`.
    pub(super) fn leftovers(&mut self, repair: bool) -> Result<Vec<Finding>, DatabaseError> {
        let mut findings = Vec::new();
        let rows = match self.database().and_then(|database| database.verify().and_then(|()| database.rows()))
        {
            Ok(rows) => rows,
            Err(error @ DatabaseError::Corrupt { .. }) => return Ok(vec![damaged(&error)]),
            Err(error) => return Err(error),
        };
        let mut known = BTreeSet::new();
        for row in &rows {
            known.insert(row.id.clone());
            match self.database().and_then(|database| database.decode(row)) {
                Ok(record) => self.leftovers_of_record(&record, repair, &mut findings),
                Err(error) => {
                    let cleared = repair && self.remove_damaged(&row.id);
                    findings.push(if cleared { leftover(error.to_string(), true) } else { damaged(&error) });
                }
            }
        }
        self.stray_directories(&known, repair, &mut findings);
        self.stray_resources(&known, repair, &mut findings);
        self.stray_cgroups(&known, repair, &mut findings);
        for mount in self.stale_mounts() {
            let done = repair && self.forget_mount(&mount.id);
            let what = format!(
                "the image {} is not mounted at `{}` any more",
                mount.id.short(),
                mount.path.display()
            );
            findings.push(leftover(what, done));
        }
        Ok(findings)
    }

    /// Control groups of containers that are not known here. One with processes is another engine's, and so may be one
    /// that was just made: both are left alone.
    fn stray_cgroups(&self, known: &BTreeSet<String>, repair: bool, findings: &mut Vec<Finding>) {
        let Ok(layout) = stanza_cgroup::detect() else { return };
        for name in stanza_cgroup::leftovers(&layout, "stanza") {
            if known.contains(&name) {
                continue;
            }
            let path = format!("stanza/{name}");
            let resources = stanza_spec::oci::runtime::LinuxResources::default();
            let Ok((plan, _)) = stanza_cgroup::plan(&layout, &path, &resources, self.options.rootless) else {
                continue;
            };
            if plan.groups.iter().any(|group| is_young(&group.root.join(&group.path))) {
                continue;
            }
            let cgroup = stanza_cgroup::open(&plan);
            if cgroup.pids().is_ok_and(|pids| pids.is_empty()) {
                let done = repair && cgroup.remove().is_empty();
                findings.push(leftover(format!("the control group `{path}` has no processes"), done));
            }
        }
    }

    fn leftovers_of_record(
        &mut self,
        record: &crate::database::Record,
        repair: bool,
        findings: &mut Vec<Finding>,
    ) {
        let id = record.id.as_str();
        if !self.options.container_dir(id).exists() {
            let done = repair && self.erase(record, true).is_ok();
            findings.push(leftover(format!("container `{}` has no directory", record.name), done));
            return;
        }
        let looked = self.look(record);
        let dead = record.phase == Phase::Started && matches!(looked, Ok(stanza_sandbox::Status::Lost(_)));
        if dead {
            let done = repair && self.settle(record).is_ok();
            findings.push(leftover(format!("container `{}` lost its monitor", record.name), done));
        }
        if let Err(error) = looked {
            findings.push(Finding {
                area: "containers",
                status: FindingStatus::Warning,
                what: format!("the state of container `{}` cannot be read: {error}", record.name),
                advice: Some(format!("remove it with `stanza rm -f {}`", record.name)),
            });
        }
    }

    fn remove_damaged(&mut self, id: &str) -> bool {
        match id.parse::<ContainerId>() {
            Ok(id) => self.remove(&id, true, false).is_ok(),
            Err(_) => self.database().is_ok_and(|database| database.delete(id).is_ok()),
        }
    }

    fn stray_directories(&mut self, known: &BTreeSet<String>, repair: bool, findings: &mut Vec<Finding>) {
        for directory in [self.options.containers_dir(), self.options.run_dirs()] {
            for name in names_in(&directory) {
                let path = directory.join(&name);
                if known.contains(&name) || !self.is_stray(&directory, &name) {
                    continue;
                }
                let done = repair && remove_tree(&path).is_ok();
                findings.push(leftover(format!("`{}` belongs to no container", path.display()), done));
            }
        }
        for name in self.stray_volumes().unwrap_or_default() {
            // The data of a volume is the user's: named here, removed by nobody but them.
            findings.push(Finding {
                area: "volumes",
                status: FindingStatus::Warning,
                what: format!("the directory of volume `{name}` has no record"),
                advice: Some(format!("use it by name, as `-v {name}:/data`, or remove it")),
            });
        }
    }

    /// Whether nobody is at work on a directory without record.
    fn is_stray(&mut self, directory: &Path, name: &str) -> bool {
        if directory == self.options.containers_dir() {
            let Ok(Some(_lock)) = self.try_lock(name) else { return false };
            // Only now: a container that was being made may have got its record since the list was read.
            let Ok(id) = name.parse::<ContainerId>() else { return true };
            return matches!(self.database().and_then(|database| database.container(&id)), Ok(None));
        }
        let status = stanza_sandbox::status(&directory.join(name), &self.options.container_dir(name));
        !matches!(status, Ok(stanza_sandbox::Status::Running(_)))
    }

    /// Clears what commands that were killed left half-made: container directories without a record, and layers.
    /// `rm` begins with it, so that it clears also what has no name yet.
    pub fn clear_interrupted(&mut self) {
        self.clear_stray_directories();
        if let Ok(store) = self.layer_store() {
            let _ = store.clear_leftovers();
        }
    }

    /// Removes directories of containers that have no record; gives the bytes reclaimed.
    pub(super) fn clear_stray_directories(&mut self) -> u64 {
        let Ok(rows) = self.database().and_then(|database| database.rows()) else { return 0 };
        let known: BTreeSet<String> = rows.into_iter().map(|row| row.id).collect();
        let directory = self.options.containers_dir();
        let mut reclaimed = 0;
        for name in names_in(&directory) {
            let path = directory.join(&name);
            if !known.contains(&name) && self.is_stray(&directory, &name) {
                let bytes = size::of_tree(&path);
                if remove_tree(&path).is_ok() {
                    reclaimed += bytes;
                }
            }
        }
        reclaimed
    }

    fn stray_resources(&mut self, known: &BTreeSet<String>, repair: bool, findings: &mut Vec<Finding>) {
        let orphans = self
            .database()
            .and_then(|database| database.leases())
            .map_or(0, |leases| leases.iter().filter(|held| !known.contains(&held.container)).count());
        if orphans > 0 {
            let done = repair && self.database().is_ok_and(|database| database.free_orphans().is_ok());
            findings.push(leftover(format!("{orphans} addresses belong to no container"), done));
        }
        let ingest = names_in(&self.options.root.join("layers/ingest")).len();
        if ingest > 0 {
            let done = repair && self.layer_store().is_ok_and(|store| store.clear_leftovers().is_ok());
            findings.push(leftover(
                format!("{ingest} files or directories of layers that were being unpacked"),
                done,
            ));
        }
        let partial = self.image_store().ok().and_then(|store| store.disk_usage().ok());
        if let Some(usage) = partial.filter(|usage| usage.partial > 0 || usage.unreferenced > 0) {
            let bytes = stanza_spec::units::human_size(usage.partial + usage.unreferenced);
            let done = repair && self.image_store().is_ok_and(|store| store.prune(&|_| false).is_ok());
            findings
                .push(leftover(format!("{bytes} of blobs that belong to no image, or are not whole"), done));
        }
        self.stray_networks(repair, findings);
        self.check_chains(repair, findings);
        if repair {
            self.clear_networks();
        }
    }

    /// Networks whose removal was cut short, and directories of networks that are not on record.
    fn stray_networks(&mut self, repair: bool, findings: &mut Vec<Finding>) {
        let removed = self.database().and_then(|database| database.removed_networks()).unwrap_or_default();
        let cleared = if repair { self.clear_removed_networks() } else { Vec::new() };
        for network in removed {
            let done = cleared.contains(&network.name);
            findings.push(leftover(format!("the network `{}` was being removed", network.name), done));
        }
        let Ok(known) = self.database().and_then(|database| database.networks()) else { return };
        let directory = self.options.network_dirs();
        for id in names_in(&directory) {
            if known.iter().any(|record| record.network.id == id) {
                continue;
            }
            let path = directory.join(&id);
            let done = repair && remove_tree(&path).is_ok();
            findings.push(leftover(format!("`{}` belongs to no network", path.display()), done));
        }
    }

    /// Removes network devices and published ports of containers that are gone.
    fn clear_networks(&mut self) {
        let networks = self.database().and_then(|database| database.networks()).unwrap_or_default();
        for record in networks {
            // What cannot be cleared needs rights that the findings about the machine tell of.
            if self.options.rootless {
                let directory = self.options.shared_network_dir();
                let _ = within_shared(&directory, || {
                    clear_leftovers(&record.network, || self.live_in(&record.network))
                });
            } else {
                let _ = clear_leftovers(&record.network, || self.live_in(&record.network));
            }
            if let Ok(Some(names)) = Names::open(&self.options.network_dir(&record.network.id)) {
                names.clear(|container| self.has_lease(container, &record.network));
            }
        }
    }

    /// Whether a container has a place in a network. When the table cannot be read, it is not called dead.
    fn has_lease(&mut self, container: &str, network: &Network) -> bool {
        let leases = self.database().and_then(|database| database.leases());
        leases.map_or(true, |leases| {
            leases.iter().any(|held| held.container == container && held.lease.network == network.id)
        })
    }

    /// What containers have in a network, by its leases.
    fn live_in(&mut self, network: &Network) -> Live {
        let leases = self.database().and_then(|database| database.leases()).unwrap_or_default();
        let own: Vec<_> = leases.into_iter().filter(|held| held.lease.network == network.id).collect();
        let ids = own.iter().filter_map(|held| held.container.parse::<ContainerId>().ok());
        Live {
            devices: ids.map(|id| device_of(&id, &network.id)).collect(),
            addresses: own.iter().map(|held| held.lease.address).collect(),
        }
    }
}

fn damaged(error: &DatabaseError) -> Finding {
    use stanza_spec::Classify;
    Finding {
        area: "database",
        status: FindingStatus::Missing,
        what: error.to_string(),
        advice: error.hint(),
    }
}
