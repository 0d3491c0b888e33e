//! `network ls` and `inspect`: networks with who is in them.

use std::collections::HashMap;

use stanza_network::cni::CniNetwork;
use stanza_network::{Driver, Network};
use stanza_spec::NetworkMode;

use super::find::{Found, network_id};
use super::plan::{endpoints, requests};
use super::{DEFAULT, EndpointEntry, NetworkEntry, NetworkError, cni};
use crate::container::State;
use crate::database::{DatabaseError, NetworkRecord, Record};
use crate::filters::{FilterError, Filters};
use crate::{Engine, ListError, ListQuery};

/// The networks on record, by name, read once for many containers.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<String, NetworkRecord>);

impl Known {
    /// The endpoints of a container: of networks that are not on record (the default one that was never needed) only
    /// the name.
    pub(crate) fn entries(&self, record: &Record, mode: &NetworkMode, state: &State) -> Vec<EndpointEntry> {
        if *mode != NetworkMode::Bridge {
            return Vec::new();
        }
        let (ports, running) = match state {
            State::Running(running) => (running.ports.clone(), true),
            State::Created | State::Exited(_) => (super::plan::ports(record), false),
        };
        let requests = requests(&record.config);
        let places: Vec<_> = requests
            .into_iter()
            .map(|request| {
                let known = self.0.get(&request.network).cloned();
                let network = known.unwrap_or_else(|| NetworkRecord::new(nowhere(&request.network)));
                (request, network)
            })
            .collect();
        let entry = |(endpoint, (request, _)): (stanza_network::Endpoint, &super::plan::Place)| {
            let prefix =
                |address| endpoint.network.subnet_of(address).map_or(0, |place| place.subnet.prefix());
            let gateway = |ipv6| {
                let mut placed = endpoint.placed().map(|(_, place)| place);
                placed.find(|place| place.subnet.is_ipv6() == ipv6).and_then(|place| place.gateway)
            };
            let is_placed = endpoint.addresses().next().is_some();
            EndpointEntry {
                network: request.network.clone(),
                network_id: endpoint.network.id.clone(),
                container: record.id.clone(),
                container_name: record.name.clone(),
                ipv4: endpoint.ipv4.map(|address| (address, prefix(address.into()))),
                ipv6: endpoint.ipv6.map(|address| (address, prefix(address.into()))),
                gateway4: gateway(false).and_then(|gateway| match gateway {
                    std::net::IpAddr::V4(gateway) => Some(gateway),
                    std::net::IpAddr::V6(_) => None,
                }),
                gateway6: gateway(true).and_then(|gateway| match gateway {
                    std::net::IpAddr::V6(gateway) => Some(gateway),
                    std::net::IpAddr::V4(_) => None,
                }),
                mac: (is_placed || running).then_some(endpoint.mac),
                device: endpoint.network.bridge().map(|_| endpoint.device.clone()).unwrap_or_default(),
                interface: endpoint.interface,
                names: endpoint.names,
                aliases: request.aliases.clone(),
                ports: ports.clone(),
                default_route: endpoint.default_route,
                running,
            }
        };
        endpoints(record, &places).into_iter().zip(&places).map(entry).collect()
    }
}

/// A network of which only the name is known.
fn nowhere(name: &str) -> Network {
    Network {
        id: String::new(),
        name: name.to_owned(),
        driver: Driver::Macvlan { parent: String::new(), mode: stanza_network::MacvlanMode::Bridge },
        subnets: Vec::new(),
        mtu: None,
        internal: false,
    }
}

const KEYS: [&str; 8] = ["driver", "id", "label", "label!", "name", "scope", "type", "dangling"];

impl Engine {
    /// The networks on record, for [`Known::entries`].
    pub(crate) fn known_networks(&mut self) -> Result<Known, DatabaseError> {
        let networks = self.database()?.networks()?;
        Ok(Known(networks.into_iter().map(|record| (record.network.name.clone(), record)).collect()))
    }

    /// Every network, by name; `bridge`, `host` and `none` are always among them.
    ///
    /// # Errors
    /// When a filter is wrong, a container's state cannot be told, or the database not be read.
    pub fn networks(&mut self, filters: &Filters) -> Result<Vec<NetworkEntry>, ListError> {
        filters.check(&KEYS)?;
        for kind in filters.values("type") {
            if !matches!(kind.as_str(), "custom" | "builtin") {
                return Err(FilterError::Value { key: "type".into(), value: kind.clone() }.into());
            }
        }
        let dangling = filters.boolean("dangling")?;
        // Where none can be chosen (a host whose routes lead everywhere), the others are listed all the same.
        let _ = self.default_network();
        let records = self.database()?.networks()?;
        let mut entries: Vec<NetworkEntry> = records.into_iter().map(NetworkEntry::of).collect();
        entries.extend(["host", "none"].map(|name| self.predefined(name)));
        // A configuration file that is wrong hides no networks of stanza's own; who joins a chain hears of it.
        let (chains, _) = self.cni_networks().unwrap_or_default();
        entries.extend(chains.into_iter().map(|chain| self.cni_entry(chain)));
        entries.sort_by(|one, two| one.network.name.cmp(&two.network.name));
        self.fill(&mut entries)?;
        entries.retain(|entry| {
            let kind = if entry.is_predefined() { "builtin" } else { "custom" };
            let is_dangling = entry.endpoints.is_empty() && !entry.is_predefined();
            filters.any("driver", |value| value == entry.driver)
                && filters.any("id", |value| entry.network.id.starts_with(value))
                && filters.any("name", |value| entry.network.name.contains(value))
                && filters.any("scope", |value| value == "local")
                && filters.any("type", |value| value == kind)
                && dangling.is_none_or(|wanted| wanted == is_dangling)
                && filters.labels(&entry.labels)
        });
        Ok(entries)
    }

    /// One network, by name, id or the beginning of its id.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn network(&mut self, name: &str) -> Result<NetworkEntry, NetworkError> {
        let entry = match self.find_network(name)? {
            Found::Network(record) => NetworkEntry::of(*record),
            Found::Predefined(name) => self.predefined(name),
            Found::Cni(chain) => self.cni_entry(*chain),
        };
        let mut entries = [entry];
        self.fill(&mut entries).map_err(NetworkError::of_list)?;
        let [entry] = entries;
        Ok(entry)
    }

    /// Puts the containers into the networks.
    fn fill(&mut self, entries: &mut [NetworkEntry]) -> Result<(), ListError> {
        let containers = self.list(&ListQuery { all: true, ..ListQuery::default() })?;
        for container in containers {
            let fixed = match container.network {
                NetworkMode::Host => Some("host"),
                NetworkMode::None => Some("none"),
                _ => None,
            };
            for entry in entries.iter_mut() {
                let own =
                    container.endpoints.iter().filter(|endpoint| endpoint.network == entry.network.name);
                entry.endpoints.extend(own.cloned());
                if fixed == Some(entry.network.name.as_str()) {
                    entry.endpoints.push(EndpointEntry {
                        network: entry.network.name.clone(),
                        network_id: entry.network.id.clone(),
                        container: container.id.clone(),
                        container_name: container.name.clone(),
                        ipv4: None,
                        ipv6: None,
                        gateway4: None,
                        gateway6: None,
                        mac: None,
                        device: String::new(),
                        interface: String::new(),
                        names: Vec::new(),
                        aliases: Vec::new(),
                        ports: Vec::new(),
                        default_route: false,
                        running: matches!(container.state, State::Running(_)),
                    });
                }
            }
        }
        for entry in entries {
            entry.endpoints.sort_by(|one, two| one.container_name.cmp(&two.container_name));
        }
        Ok(())
    }

    fn cni_entry(&self, chain: CniNetwork) -> NetworkEntry {
        let name = cni::full_name(&chain.name);
        let network = Network { id: network_id(&name, &self.options.root), ..nowhere(&name) };
        NetworkEntry { driver: "cni", cni: Some(chain), ..NetworkEntry::of(NetworkRecord::new(network)) }
    }

    fn predefined(&self, name: &'static str) -> NetworkEntry {
        let network = Network { id: network_id(name, &self.options.root), ..nowhere(name) };
        let driver = if name == "host" { "host" } else { "null" };
        NetworkEntry { driver, ..NetworkEntry::of(NetworkRecord::new(network)) }
    }
}

impl NetworkError {
    /// A list without filters fails only by what it looks at.
    fn of_list(error: ListError) -> NetworkError {
        match error {
            ListError::Find(error) => error.into(),
            ListError::Status(error) => error.into(),
            ListError::Database(error) => error.into(),
            ListError::Filter(error) => NetworkError::Refused(error.to_string()),
        }
    }
}

impl NetworkEntry {
    /// What is on record, nobody in it.
    pub(super) fn of(record: NetworkRecord) -> NetworkEntry {
        NetworkEntry {
            driver: match record.network.driver {
                Driver::Bridge(_) => "bridge",
                Driver::Macvlan { .. } => "macvlan",
                Driver::Ipvlan { .. } => "ipvlan",
            },
            cni: None,
            network: record.network,
            labels: record.labels,
            options: record.options,
            created_at: record.created_at,
            dns: record.dns,
            disable_dns: record.disable_dns,
            endpoints: Vec::new(),
        }
    }

    /// It is not made by `network create`, and cannot be removed.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        self.network.name == DEFAULT || matches!(self.driver, "host" | "null" | "cni")
    }

    /// It has IPv6 addresses.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.network.subnets.iter().any(|place| place.subnet.is_ipv6())
    }
}
