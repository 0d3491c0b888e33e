//! `list` and `inspect`: containers as they are now.
//!
//! The database is read once; the monitor's files are looked at only for containers whose record says "started". So 500
//! stopped containers cost no system call each.

use std::collections::BTreeSet;

use stanza_snapshot::{LayerStore, StorageDriver};
use stanza_spec::{Classify, ContainerId, Digest, ErrorKind, LogDriver, MountKind, NetworkMode};

use crate::container::{Container, MountPoint, State};
use crate::database::{DatabaseError, Phase, Record};
use crate::filters::{FilterError, Filters};
use crate::find::FindError;
use crate::networks::{self, Known};
use crate::reconcile::SettleError;
use crate::{Engine, size, spec};

/// Which containers to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Those that do not run, too.
    pub all: bool,
    /// Only the one created last, running or not.
    pub latest: bool,
    /// Only so many, created last, running or not.
    pub last: Option<usize>,
    /// `ancestor before exited id label name network publish expose since status volume`.
    pub filters: Filters,
    /// Measure their sizes, which reads all their files.
    pub size: bool,
}

/// Why containers could not be listed or inspected.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A container's state.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for ListError {
    fn kind(&self) -> ErrorKind {
        match self {
            ListError::Filter(error) => error.kind(),
            ListError::Find(error) => error.kind(),
            ListError::Status(error) => error.kind(),
            ListError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ListError::Filter(error) => error.hint(),
            ListError::Find(error) => error.hint(),
            ListError::Status(error) => error.hint(),
            ListError::Database(error) => error.hint(),
        }
    }
}

impl From<SettleError> for ListError {
    fn from(error: SettleError) -> ListError {
        match error {
            SettleError::Status(error) => error.into(),
            SettleError::Database(error) => error.into(),
        }
    }
}

const KEYS: [&str; 13] = [
    "ancestor", "before", "exited", "expose", "id", "label", "label!", "name", "network", "publish", "since",
    "status", "volume",
];
const STATES: [&str; 7] = ["created", "dead", "exited", "paused", "removing", "restarting", "running"];

impl Engine {
    /// The containers that the query asks for, the newest first.
    ///
    /// # Errors
    /// When a filter is wrong, a record or state file damaged, or the database not to be read.
    pub fn list(&mut self, query: &ListQuery) -> Result<Vec<Container>, ListError> {
        let filters = &query.filters;
        filters.check(&KEYS)?;
        for status in filters.values("status") {
            if !STATES.contains(&status.as_str()) {
                return Err(FilterError::Value { key: "status".into(), value: status.clone() }.into());
            }
        }
        let limit = if query.latest { Some(1) } else { query.last };
        let all = query.all || limit.is_some() || filters.has("status") || filters.has("exited");
        let mut rows = self.database()?.rows()?;
        self.between(&mut rows, filters)?;
        let known = self.known_networks()?;
        let mut containers = Vec::new();
        for row in rows.iter().rev() {
            if !all && row.phase != Phase::Started {
                continue;
            }
            let record = self.database()?.decode(row)?;
            let Some(state) = self.state(&record)? else { continue };
            if !all && !matches!(state, State::Running(_)) {
                continue;
            }
            let container = self.describe(record, state, &known);
            if matches(&container, filters)? {
                containers.push(container);
                if limit == Some(containers.len()) {
                    break;
                }
            }
        }
        if query.size {
            for container in &mut containers {
                container.size = Some(self.sizes(container));
            }
        }
        Ok(containers)
    }

    /// One container.
    ///
    /// # Errors
    /// When there is no such container, or its state cannot be read.
    pub fn inspect(&mut self, id: &ContainerId) -> Result<Container, ListError> {
        let record = self.record(id)?;
        let Some(state) = self.state(&record)? else {
            return Err(FindError::NotFound(id.to_string()).into());
        };
        // Addresses may have been freed by what was just settled.
        let running = matches!(state, State::Running(_));
        let leases = if running { record.leases.clone() } else { Vec::new() };
        let known = self.known_networks()?;
        Ok(self.describe(Record { leases, ..record }, state, &known))
    }

    /// As [`Engine::inspect`], with the sizes, which reads all of the container's files.
    ///
    /// # Errors
    /// As [`Engine::inspect`].
    pub fn inspect_size(&mut self, id: &ContainerId) -> Result<Container, ListError> {
        let mut container = self.inspect(id)?;
        container.size = Some(self.sizes(&container));
        Ok(container)
    }

    /// Leaves the rows that lie between the containers that `before` and `since` name, in order of creation.
    fn between(&self, rows: &mut Vec<crate::database::Row>, filters: &Filters) -> Result<(), FilterError> {
        let position = |rows: &[crate::database::Row], name: &String| {
            let bare = name.strip_prefix('/').unwrap_or(name);
            rows.iter()
                .position(|row| row.name == bare || (!bare.is_empty() && row.id.starts_with(bare)))
                .ok_or_else(|| FilterError::NotFound { what: "container", name: name.clone() })
        };
        if let Some(name) = filters.values("before").last() {
            let at = position(rows, name)?;
            let since = filters.values("since").last().map(|name| position(rows, name)).transpose()?;
            rows.truncate(at);
            if let Some(since) = since {
                rows.drain(..=since.min(rows.len().saturating_sub(1)));
            }
        } else if let Some(name) = filters.values("since").last() {
            let at = position(rows, name)?;
            rows.drain(..=at);
        }
        Ok(())
    }

    /// Bytes of the writable layer and of all layers together.
    fn sizes(&mut self, container: &Container) -> (u64, u64) {
        let state_dir = self.options.container_dir(container.id.as_str());
        // A copied root file system is all the container's own.
        let written: u64 = ["upper", "rootfs"].iter().map(|name| size::of_tree(&state_dir.join(name))).sum();
        // A machine's is a file of its own: what it has written, and what its file system needs.
        let written = written + size::on_disk(&crate::vm::upper_disk(&state_dir));
        let layers: Vec<_> = self.record(&container.id).map(|record| record.facts.layers).unwrap_or_default();
        let read_only: u64 = match self.layer_store() {
            Ok(store) => layers.iter().map(|layer| shown_size(store, layer)).sum(),
            Err(_) => 0,
        };
        (written, written + read_only)
    }

    fn describe(&self, record: Record, state: State, known: &Known) -> Container {
        let hostname = self.hostname(&record);
        let state_dir = self.options.container_dir(record.id.as_str());
        let ports = match &state {
            State::Running(running) => running.ports.clone(),
            State::Created | State::Exited(_) => networks::ports(&record),
        };
        let mounts = self.mount_points(&record);
        let network = self.network_mode(&record.config);
        Container {
            endpoints: match &network {
                NetworkMode::Cni(chain) => vec![self.cni_endpoint(chain, &record, &state)],
                _ => known.entries(&record, &network, &state),
            },
            network,
            log_path: (record.config.log.driver == LogDriver::JsonFile)
                .then(|| state_dir.join("log/container.log")),
            // An overlay is one whatever its layers are.
            storage_driver: if record.facts.copied { StorageDriver::Copy } else { StorageDriver::Overlay },
            id: record.id,
            name: record.name,
            image: record.facts.image,
            image_name: record.config.image.clone(),
            config: record.config,
            created_at: record.created_at,
            command: record.facts.argv,
            env: record.facts.env,
            workdir: record.facts.workdir,
            user: record.facts.user,
            hostname,
            stop_signal: record.facts.stop_signal,
            exposed: record.facts.exposed,
            state,
            ports,
            mounts,
            labels: record.facts.labels,
            size: None,
        }
    }

    fn mount_points(&self, record: &Record) -> Vec<MountPoint> {
        let mut points: Vec<MountPoint> = record
            .facts
            .volumes
            .iter()
            .map(|volume| MountPoint {
                kind: "volume",
                name: Some(volume.name.clone()),
                source: spec::volume_dir(&self.options.volumes_dir(), &volume.name),
                destination: volume.destination.clone(),
                writable: !volume.read_only,
                propagation: String::new(),
            })
            .collect();
        points.extend(record.config.mounts.iter().filter_map(|mount| {
            let (kind, source, propagation) = match &mount.kind {
                MountKind::Volume { .. } => return None,
                MountKind::Tmpfs { .. } => ("tmpfs", String::new(), String::new()),
                MountKind::Bind { source, propagation, .. } => {
                    ("bind", source.clone(), propagation.clone().unwrap_or_else(|| "rprivate".to_owned()))
                }
            };
            Some(MountPoint {
                kind,
                name: None,
                source: source.into(),
                destination: mount.destination.clone(),
                writable: !mount.read_only,
                propagation,
            })
        }));
        points.sort_by(|a, b| a.destination.cmp(&b.destination));
        points
    }
}

/// Whether a container fulfils the filters that need no other container.
fn matches(container: &Container, filters: &Filters) -> Result<bool, FilterError> {
    for value in filters.values("exited") {
        if value.parse::<i32>().is_err() {
            return Err(FilterError::Value { key: "exited".into(), value: value.clone() });
        }
    }
    let mode = match container.network {
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Pasta(_) => "pasta",
        NetworkMode::Slirp4netns(_) => "slirp4netns",
        NetworkMode::Bridge | NetworkMode::Container(_) | NetworkMode::Cni(_) => "",
    };
    let is_in = |value: &str| {
        let by_id = |id: &str| value.len() >= 4 && id.starts_with(value);
        let own =
            |endpoint: &networks::EndpointEntry| endpoint.network == value || by_id(&endpoint.network_id);
        value == mode || container.endpoints.iter().any(own)
    };
    let ports: BTreeSet<String> = container
        .ports
        .iter()
        .flat_map(|port| {
            [format!("{}/{}", port.container_port, port.protocol.word()), port.container_port.to_string()]
        })
        .collect();
    Ok(filters.any("id", |value| container.id.as_str().starts_with(value))
        && filters.any("name", |value| name_matches(&container.name, value))
        && filters.any("status", |value| container.state.word() == value)
        && filters.any(
            "exited",
            |value| matches!(&container.state, State::Exited(exit) if value.parse() == Ok(exit.code)),
        )
        && filters.any("ancestor", |value| is_ancestor(container, value))
        && filters.any("network", is_in)
        && filters.any("publish", |value| ports.contains(value))
        && filters.any("expose", |value| {
            container.exposed.iter().any(|port| port == value || port.split('/').next() == Some(value))
                || ports.contains(value)
        })
        && filters.any("volume", |value| {
            container
                .mounts
                .iter()
                .any(|mount| mount.name.as_deref() == Some(value) || mount.destination == value)
        })
        && filters.labels(&container.labels))
}

/// Docker takes a regular expression here. The common ones are understood: a part of the name, with `^` and `$` for
/// its ends and an optional leading slash.
fn name_matches(name: &str, pattern: &str) -> bool {
    let (anchored, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (ended, rest) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
    let (anchored, rest) = rest.strip_prefix('/').map_or((anchored, rest), |rest| (true, rest));
    match (anchored, ended) {
        (true, true) => name == rest,
        (true, false) => name.starts_with(rest),
        (false, true) => name.ends_with(rest),
        (false, false) => name.contains(rest),
    }
}

/// Bytes of a layer's files. Those of an erofs image are known without looking.
fn shown_size(store: &LayerStore, layer: &Digest) -> u64 {
    let record = store.record(layer).ok();
    match record.filter(|record| record.erofs.is_some()) {
        Some(record) => record.size,
        None => size::of_tree(&store.path(layer)),
    }
}

fn is_ancestor(container: &Container, value: &str) -> bool {
    let by_id = container.image.as_ref().is_some_and(|id| {
        let hex = value.strip_prefix("sha256:").unwrap_or(value);
        hex.len() >= 4 && id.hex().starts_with(hex)
    });
    let normal = |text: &str| text.parse::<stanza_spec::Reference>().map(|reference| reference.to_string());
    by_id
        || container.image_name == value
        || matches!((normal(&container.image_name), normal(value)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_the_common_expressions_do() {
        for (pattern, expected) in
            [("web", true), ("^web$", false), ("^/web-1$", true), ("^web", true), ("1$", true), ("db", false)]
        {
            assert_eq!(name_matches("web-1", pattern), expected, "{pattern}");
        }
    }
}
