//! Networks that chains of CNI plugins make: from a container's record to the plan of its chain, and what is left of it.
//!
//! ```text
//!   `cni:NAME` ── cni-config-dirs ──▶ CniNetwork ── the container's wishes ──▶ CniPlan ──▶ the monitor: ADD … DEL
//!                                                                              │ as it was added
//!   inspect, a dead monitor, `rm`, `system check`  ◀── ROOT/cni/NAME/… ◀───────┘
//! ```
//!
//! Invariants
//! * A container is in one chain alone. Its place there, when something of it was wished for, is its only entry of
//!   `networks`, called `cni:NAME`; no other network can have that name.
//! * What is to be deleted comes from the records of attachments, never from the configuration, which may have been changed or
//!   removed since.
//! * GC is asked of networks only that this engine has used. Attachments of others in the same network are not known here:
//!   who shares one sets `disableGC`, as the specification says.

use std::net::IpAddr;
use std::path::PathBuf;

use stanza_network::cni::{self, CniDns, CniError, CniFiles, CniNetwork, CniPlaces, CniPlan, CniRequest};
use stanza_spec::{ContainerConfig, ContainerId, EndpointRequest};

use super::find::network_id;
use super::{EndpointEntry, NetworkError};
use crate::container::State;
use crate::database::Record;
use crate::settings::SettingsError;
use crate::{Engine, spec};

/// What a chain's name begins with where networks of all kinds are named.
pub(crate) const PREFIX: &str = "cni:";

/// The device inside when no name is wished for.
const INTERFACE: &str = "eth0";

/// An attachment on record that no monitor owns any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The network's name in CNI's sense.
    pub(crate) network: String,
    /// The container that was in it.
    pub(crate) container: ContainerId,
}

/// A chain's name among those of all networks.
pub(crate) fn full_name(chain: &str) -> String {
    format!("{PREFIX}{chain}")
}

/// What a container wants in its chain.
fn endpoint_request(config: &ContainerConfig) -> EndpointRequest {
    config.networks.first().cloned().unwrap_or_default()
}

/// What is asked of plugins by the user's own words; ports are added by who knows them.
fn request(config: &ContainerConfig) -> CniRequest {
    let endpoint = endpoint_request(config);
    let says_dns = !config.dns.is_empty() || !config.dns_search.is_empty() || !config.dns_options.is_empty();
    CniRequest {
        ips: endpoint.ipv4.map(IpAddr::from).into_iter().chain(endpoint.ipv6.map(IpAddr::from)).collect(),
        mac: endpoint.mac,
        aliases: endpoint.aliases,
        dns: says_dns.then(|| CniDns {
            nameservers: config.dns.iter().map(ToString::to_string).collect(),
            search: config.dns_search.clone(),
            options: config.dns_options.clone(),
            ..CniDns::default()
        }),
        ..CniRequest::default()
    }
}

impl Engine {
    /// Where attachments are on record.
    pub(super) fn cni_results(&self) -> PathBuf {
        // The plugins' directories need the configuration file; records do not.
        CniPlaces::of_engine(&[], &self.options.root).results_dir
    }

    fn cni_places(&mut self) -> Result<CniPlaces, SettingsError> {
        let root = self.options.root.clone();
        Ok(CniPlaces::of_engine(&self.settings()?.network.cni_plugin_dirs, &root))
    }

    fn cni_config_dirs(&mut self) -> Result<Vec<PathBuf>, SettingsError> {
        Ok(cni::config_dirs(&self.settings()?.network.cni_config_dirs))
    }

    /// The configuration of a chain.
    pub(super) fn cni_network(&mut self, chain: &str) -> Result<CniNetwork, NetworkError> {
        Ok(cni::find(&self.cni_config_dirs()?, chain)?)
    }

    /// All chains that there are, and what is wrong with the other files; none without root, where none can be joined.
    pub(crate) fn cni_networks(
        &mut self,
    ) -> Result<(Vec<CniNetwork>, Vec<cni::CniConfigError>), SettingsError> {
        if self.options.rootless {
            return Ok(Default::default());
        }
        Ok(cni::list(&self.cni_config_dirs()?))
    }

    /// Refuses a chain that is not there, or that does not do what the container wants.
    pub(crate) fn check_cni(&mut self, chain: &str, config: &ContainerConfig) -> Result<(), NetworkError> {
        let name = full_name(chain);
        if let Some(other) = config.networks.iter().find(|request| request.network != name) {
            return Err(NetworkError::Refused(format!(
                "a container in the CNI network `{name}` is in no other one: `{}` cannot be joined",
                other.network
            )));
        }
        if config.networks.len() > 1 {
            return Err(NetworkError::Refused(format!("network {name} is specified multiple times")));
        }
        let ports = config.ports.iter().map(Into::into).collect();
        self.cni_network(chain)?.require(&CniRequest { ports, ..request(config) })?;
        self.check_macs(&config.networks, None)
    }

    /// The plan of a container's chain.
    pub(super) fn cni_plan(&mut self, chain: &str, record: &Record) -> Result<CniPlan, NetworkError> {
        let config = &record.config;
        let directory = self.options.container_dir(record.id.as_str());
        let file = |name: &str, destination: &str| {
            (!spec::is_covered(&config.mounts, destination)).then(|| directory.join(name))
        };
        let to_host = config.extra_hosts.iter().filter(|extra| extra.address.is_none());
        let files = CniFiles {
            hosts: file("hosts", "/etc/hosts"),
            names: vec![self.hostname(record)],
            gateway_names: to_host.map(|extra| extra.name.clone()).collect(),
            resolv_conf: file("resolv.conf", "/etc/resolv.conf").filter(|_| config.dns.is_empty()),
        };
        Ok(CniPlan {
            network: self.cni_network(chain)?,
            container: record.id.clone(),
            interface: endpoint_request(config).interface.unwrap_or_else(|| INTERFACE.to_owned()),
            args: cni::kubernetes_args(&record.id, &record.facts.labels),
            request: CniRequest { ports: super::ports(record), ..request(config) },
            places: self.cni_places()?,
            files,
        })
    }

    /// The plan that a container's chain was added with, as long as something of it may be left.
    pub(crate) fn recorded_cni(&self, container: &ContainerId) -> Option<CniPlan> {
        cni::recorded(&self.cni_results(), container).pop().map(|(plan, _)| plan)
    }

    /// Deletes what is on record of a container that does not run: its monitor died before it could, or plugins refused. What
    /// fails stays on record, for the next to try.
    pub(crate) fn clear_cni(&self, container: &ContainerId) -> Vec<CniError> {
        let recorded = cni::recorded(&self.cni_results(), container);
        // A monitor that lives deletes what it added.
        if recorded.is_empty() || !self.outlives_monitor(container) {
            return Vec::new();
        }
        recorded.iter().flat_map(|(plan, _)| cni::del(plan)).collect()
    }

    /// Whether a container has an owner. One that cannot be looked at is not called dead.
    fn is_monitored(&self, container: &ContainerId) -> bool {
        stanza_sandbox::is_monitored(&self.options.run_dir(container.as_str())).unwrap_or(true)
    }

    /// The attachments on record that nobody owns.
    pub(crate) fn lost_cni(&self) -> Vec<Lost> {
        let attached = cni::attached(&self.cni_results()).into_iter();
        let attached = attached.map(|(network, container)| Lost { network, container });
        attached.filter(|lost| !self.is_monitored(&lost.container)).collect()
    }

    /// Deletes every attachment on record that nobody owns, then asks the plugins of the networks that were ever used here
    /// to give up what they keep for anybody else.
    pub(crate) fn collect_cni(&mut self) -> Result<Vec<CniError>, SettingsError> {
        let results = self.cni_results();
        if !results.exists() {
            return Ok(Vec::new());
        }
        let places = self.cni_places()?;
        let (mut networks, _) = self.cni_networks()?;
        networks.retain(|network| results.join(&network.name).is_dir());
        // Of those whose configuration is gone the records have it.
        for (name, container) in cni::attached(&results) {
            if networks.iter().all(|known| known.name != name) {
                let plans = cni::recorded(&results, &container).into_iter().map(|(plan, _)| plan.network);
                networks.extend(plans.filter(|network| network.name == name));
            }
        }
        let collect = |network: &CniNetwork| cni::collect(network, &places, || self.live_cni(&network.name));
        Ok(networks.iter().flat_map(collect).collect())
    }

    /// The containers in a network that have an owner, and their devices. No ADD is on its way: each that is in it is on record.
    fn live_cni(&self, network: &str) -> Vec<(ContainerId, String)> {
        let attached = cni::attached(&self.cni_results()).into_iter();
        let ids = attached.filter(|(name, container)| name == network && self.is_monitored(container));
        let plans = ids.flat_map(|(_, container)| cni::recorded(&self.cni_results(), &container));
        plans
            .map(|(plan, _)| plan)
            .filter(|plan| plan.network.name == network)
            .map(|plan| (plan.container, plan.interface))
            .collect()
    }

    /// What is wrong with the chains in use: plugins that are not ready, and running containers whose network is not as it was
    /// made.
    pub(crate) fn broken_cni(&mut self) -> Result<Vec<CniError>, SettingsError> {
        let attached = cni::attached(&self.cni_results());
        if attached.is_empty() {
            return Ok(Vec::new());
        }
        let places = self.cni_places()?;
        let (networks, _) = self.cni_networks()?;
        let used = networks.iter().filter(|network| attached.iter().any(|(name, _)| *name == network.name));
        let mut errors: Vec<CniError> =
            used.filter_map(|network| cni::status(network, &places).err()).collect();
        let live = attached.iter().filter(|(_, container)| self.is_monitored(container));
        let plans = live.flat_map(|(_, container)| cni::recorded(&self.cni_results(), container));
        // Without a result it is being added.
        errors
            .extend(plans.filter_map(|(plan, result)| cni::check(&plan).err().filter(|_| result.is_some())));
        Ok(errors)
    }

    /// A container's place in its chain, with what the chain made while it runs.
    pub(crate) fn cni_endpoint(&self, chain: &str, record: &Record, state: &State) -> EndpointEntry {
        let (ports, running) = match state {
            State::Running(running) => (running.ports.clone(), true),
            State::Created | State::Exited(_) => (super::ports(record), false),
        };
        let wish = endpoint_request(&record.config);
        let network = full_name(chain);
        let recorded = if running { cni::recorded(&self.cni_results(), &record.id) } else { Vec::new() };
        let result = recorded.into_iter().find_map(|(_, result)| result).unwrap_or_default();
        let mut entry = EndpointEntry {
            network_id: network_id(&network, &self.options.root),
            network,
            container: record.id.clone(),
            container_name: record.name.clone(),
            ipv4: None,
            ipv6: None,
            gateway4: None,
            gateway6: None,
            mac: None,
            device: String::new(),
            interface: wish.interface.unwrap_or_else(|| INTERFACE.to_owned()),
            names: Vec::new(),
            aliases: wish.aliases,
            ports,
            default_route: false,
            running,
        };
        for ip in result.inside() {
            match ip.address {
                IpAddr::V4(address) if entry.ipv4.is_none() => {
                    entry.ipv4 = Some((address, ip.prefix));
                    entry.gateway4 = ip.gateway.and_then(|gateway| match gateway {
                        IpAddr::V4(gateway) => Some(gateway),
                        IpAddr::V6(_) => None,
                    });
                }
                IpAddr::V6(address) if entry.ipv6.is_none() => {
                    entry.ipv6 = Some((address, ip.prefix));
                    entry.gateway6 = ip.gateway.and_then(|gateway| match gateway {
                        IpAddr::V6(gateway) => Some(gateway),
                        IpAddr::V4(_) => None,
                    });
                }
                _ => {}
            }
            entry.mac = entry.mac.or_else(|| result.interface_of(ip)?.mac);
        }
        entry.default_route = result.routes.iter().any(|route| route.prefix == 0);
        // The end of a pair of devices that is on the host; a bridge among them is none.
        let on_host = result.interfaces.iter().filter(|device| device.sandbox.is_empty());
        entry.device = on_host
            .map(|device| device.name.clone())
            .find(|name| name.starts_with("veth"))
            .unwrap_or_default();
        entry
    }
}
