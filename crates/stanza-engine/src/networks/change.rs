//! What `connect`, `disconnect` and `reload` share: the record first, then the container that runs.

use std::fs;

use stanza_network::{EndpointsPlan, NetworkPlan, files};
use stanza_sandbox::NetworkChange;
use stanza_spec::{ContainerConfig, ContainerId, NetworkMode};

use super::error::ChangeError;
use super::{NetworkError, plan};
use crate::Engine;
use crate::container::State;
use crate::database::{Record, Wish};
use crate::engine::Lock;

/// A container whose lock is held, and whether it runs.
pub(super) struct Locked {
    pub(super) record: Record,
    pub(super) running: bool,
    _lock: Option<Lock>,
}

/// A change of a container's networks.
pub(super) struct Change<'a> {
    /// What it is to be.
    pub(super) config: ContainerConfig,
    /// The id of the network that it leaves.
    pub(super) left: Option<&'a str>,
    /// What it wants in the network that it joins.
    pub(super) joined: Vec<Wish>,
}

impl Engine {
    /// Waits until nobody else is at work on the container, and looks at it.
    pub(super) fn lock_container(&mut self, id: &ContainerId) -> Result<Locked, NetworkError> {
        self.fresh = None;
        // Without its directory there is nobody to wait for.
        let lock = self.lock(id.as_str()).ok().flatten();
        let record = self.record(id)?;
        let running = match &lock {
            Some(lock) => matches!(self.settle_locked(&record, lock)?, Some(State::Running(_))),
            None => false,
        };
        // What was just settled has given its addresses back.
        let record = if running { record } else { self.record(id)? };
        Ok(Locked { record, running, _lock: lock })
    }

    /// Notes the change, then tells the container's monitor. When that fails the record is as before.
    pub(super) fn change_networks(
        &mut self,
        locked: &Locked,
        change: Change<'_>,
    ) -> Result<(), NetworkError> {
        let (id, running) = (locked.record.id.as_str(), locked.running);
        let (config, left, joined) = (&change.config, change.left, &change.joined);
        let mut outcome = self.database()?.change_networks(id, config, left, joined, running)?;
        if outcome.is_err() && self.reclaim_addresses() {
            outcome = self.database()?.change_networks(id, config, left, joined, running)?;
        }
        let leases = outcome.map_err(|refusal| self.explain(refusal))?;
        if !running {
            return Ok(());
        }
        let new = Record { config: change.config, leases, ..locked.record.clone() };
        let told = self.tell_monitor(&new, false);
        if told.is_err() {
            let mut wishes = self.wishes(&locked.record.config)?;
            // The addresses that it had, and not others.
            for wish in &mut wishes {
                let of_network = locked.record.leases.iter().filter(|lease| lease.network == wish.network.id);
                for lease in of_network {
                    match lease.address {
                        std::net::IpAddr::V4(address) => wish.ipv4 = Some(address),
                        std::net::IpAddr::V6(address) => wish.ipv6 = Some(address),
                    }
                }
            }
            let back = change.joined.first().map(|wish| wish.network.id.clone());
            let config = &locked.record.config;
            // The failure itself is what the caller must hear.
            let _ = self.database()?.change_networks(id, config, back.as_deref(), &wishes, false);
        }
        told
    }

    /// Tells the monitor of a running container which networks it is to be in; with `anew` what it has already is made again.
    pub(super) fn tell_monitor(&mut self, record: &Record, anew: bool) -> Result<(), NetworkError> {
        let plan = match self.network_plan(record)? {
            NetworkPlan::Endpoints(plan) => plan,
            _ => EndpointsPlan {
                container: record.id.clone(),
                endpoints: Vec::new(),
                ports: plan::ports(record),
                publish: self.settings()?.network.publish,
                resolver: None,
                shared: self.shared_plan(),
            },
        };
        let failed = |source: ChangeError| NetworkError::Change {
            container: record.name.clone(),
            source: Box::new(source),
        };
        let run_dir = self.options.run_dir(record.id.as_str());
        let mut monitor = stanza_sandbox::connect(&run_dir).map_err(|error| failed(error.into()))?;
        let change = NetworkChange { plan, anew };
        monitor.change_networks(&change).map_err(|error| failed(error.into()))?;
        let network = NetworkPlan::Endpoints(change.plan);
        let resolvers = self.resolv_conf(record, &network)?;
        self.refresh_files(record, &network, &resolvers).map_err(failed)
    }

    /// Writes the container's `hosts` again, and its `resolv.conf` when it gets or loses a resolver of its own; in place: they are
    /// mounted where they are.
    fn refresh_files(
        &self,
        record: &Record,
        network: &NetworkPlan,
        resolvers: &str,
    ) -> Result<(), ChangeError> {
        let directory = self.options.container_dir(record.id.as_str());
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            if !path.exists() {
                return Ok(());
            }
            fs::write(&path, text).map_err(|source| ChangeError::File { what: "write", path, source })
        };
        write("hosts", &self.hosts(record, network))?;
        let before = fs::read_to_string(directory.join("resolv.conf")).unwrap_or_default();
        if files::has_resolver(&before) == files::has_resolver(resolvers) {
            return Ok(());
        }
        write("resolv.conf", resolvers)
    }

    /// A configuration with its networks spelt out, each with the name of its device while the container runs: the others keep
    /// theirs when one of them goes.
    pub(super) fn spelt_out(&mut self, locked: &Locked) -> Result<ContainerConfig, NetworkError> {
        let mut config = locked.record.config.clone();
        if self.network_mode(&config) != NetworkMode::Bridge {
            config.networks = Vec::new();
            return Ok(config);
        }
        let places = self.places(&config)?;
        let endpoints = plan::endpoints(&locked.record, &places);
        config.networks = places
            .into_iter()
            .zip(endpoints)
            .map(|((request, _), endpoint)| {
                let interface =
                    if locked.running { Some(endpoint.interface) } else { request.interface.clone() };
                stanza_spec::EndpointRequest { interface, ..request }
            })
            .collect();
        config.network = Some(NetworkMode::Bridge);
        Ok(config)
    }

    /// A refusal of the table of leases in words.
    pub(crate) fn explain(&mut self, refusal: crate::database::Refusal) -> NetworkError {
        NetworkError::of_refusal(refusal, |container| {
            let id = container.parse().ok()?;
            self.database().ok()?.container(&id).ok().flatten().map(|record| record.name)
        })
    }
}
