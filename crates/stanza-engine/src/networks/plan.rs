//! From a container's record to its [`NetworkPlan`]: which networks, which addresses, which names, which ports.

use std::net::IpAddr;

use stanza_network::dns::{ResolverNetwork, ResolverPlan, Upstream};
use stanza_network::names::Living;
use stanza_network::{
    Driver, Endpoint, EndpointsPlan, IpvlanMode, Network, NetworkPlan, PortMap, Publish, device_of, mac_of,
    subnets_of_device,
};
use stanza_sandbox::Status;
use stanza_spec::{ContainerConfig, ContainerId, EndpointRequest, NetworkMode, Protocol};

use super::files::HOST_RESOLVERS;
use super::{AddressError, DEFAULT, NetworkError};
use crate::Engine;
use crate::container::State;
use crate::database::{NetworkRecord, Phase, Record, Wish};

/// Podman's of a network that names none.
const METRIC: u32 = 100;

/// The longest name of a host in DNS's sense, of which one part is a container's name or id.
const LABEL: usize = 63;

/// Compose's label for the service that a container is of.
const SERVICE: &str = "com.docker.compose.service";

/// A network that a container is to be in, and how.
pub(crate) type Place = (EndpointRequest, NetworkRecord);

/// The networks that a configuration names, in the order of their devices.
pub(super) fn requests(config: &ContainerConfig) -> Vec<EndpointRequest> {
    if config.networks.is_empty() {
        vec![EndpointRequest { network: DEFAULT.to_owned(), ..EndpointRequest::default() }]
    } else {
        config.networks.clone()
    }
}

impl Engine {
    /// The networks that a container joins.
    pub(crate) fn places(&mut self, config: &ContainerConfig) -> Result<Vec<Place>, NetworkError> {
        if self.network_mode(config) != NetworkMode::Bridge {
            return Ok(Vec::new());
        }
        let found = requests(config).into_iter().map(|request| {
            let record = match request.network.as_str() {
                DEFAULT => self.default_network()?,
                name => {
                    let found = self.database()?.network_named(name)?;
                    found.ok_or_else(|| NetworkError::NotFound(name.to_owned()))?
                }
            };
            Ok((request, record))
        });
        found.collect()
    }

    /// What a container asks the table of leases for.
    pub(crate) fn wishes(&mut self, config: &ContainerConfig) -> Result<Vec<Wish>, NetworkError> {
        let places = self.places(config)?;
        places.iter().map(|place| self.wish(place)).collect()
    }

    /// What is asked for in one network; addresses that no container may have there are refused.
    pub(crate) fn wish(&mut self, (request, record): &Place) -> Result<Wish, NetworkError> {
        let mut network = record.network.clone();
        // On a card of the host the host is a neighbour, whose addresses nobody else may have.
        if let Driver::Macvlan { parent, .. } | Driver::Ipvlan { parent, .. } = &network.driver
            && !parent.is_empty()
        {
            for own in subnets_of_device(parent)?.into_iter().filter_map(|own| own.gateway) {
                let place = network.subnets.iter_mut().find(|place| place.subnet.contains(own));
                place.into_iter().for_each(|place| place.reserved.push(("the host".to_owned(), own)));
            }
        }
        for address in [request.ipv4.map(IpAddr::from), request.ipv6.map(IpAddr::from)].into_iter().flatten()
        {
            check_address(&network, address)?;
        }
        Ok(Wish { network, ipv4: request.ipv4, ipv6: request.ipv6 })
    }

    /// Refuses hardware addresses that no device may have, or that another container of the network was given by name. `own` is
    /// the container that asks.
    pub(crate) fn check_macs(
        &mut self,
        requests: &[EndpointRequest],
        own: Option<&ContainerId>,
    ) -> Result<(), NetworkError> {
        let asked: Vec<_> =
            requests.iter().filter_map(|request| Some((&request.network, request.mac?))).collect();
        if asked.is_empty() {
            return Ok(());
        }
        if let Some((_, mac)) = asked.iter().find(|(_, mac)| mac[0] & 1 == 1 || *mac == [0; 6]) {
            return Err(AddressError::Mac(mac_text(*mac)).into());
        }
        for row in self.database()?.rows()? {
            // One that cannot be read has no say.
            let Ok(record) = self.database()?.decode(&row) else { continue };
            if own == Some(&record.id) {
                continue;
            }
            let theirs = record.config.networks.iter();
            let mut theirs = theirs.filter_map(|request| Some((&request.network, request.mac?)));
            if let Some((network, mac)) = theirs.find(|endpoint| asked.contains(endpoint)) {
                let (mac, network) = (mac_text(mac), network.clone());
                return Err(AddressError::MacTaken { mac, network, container: record.name }.into());
            }
        }
        Ok(())
    }

    /// The network of a container on record, as far as it has addresses for it.
    pub(crate) fn network_plan(&mut self, record: &Record) -> Result<NetworkPlan, NetworkError> {
        match self.network_mode(&record.config) {
            NetworkMode::None => Ok(NetworkPlan::None),
            NetworkMode::Host => Ok(NetworkPlan::Host),
            NetworkMode::Container(other) => self.join_plan(&other),
            NetworkMode::Bridge => {
                let places = self.places(&record.config)?;
                let endpoints = endpoints(record, &places);
                let is_placed = |endpoint: &Endpoint| {
                    endpoint.network.subnets.is_empty() || endpoint.addresses().next().is_some()
                };
                let endpoints: Vec<Endpoint> = endpoints.into_iter().filter(is_placed).collect();
                let ports = ports(record);
                // Nobody's business where nothing is published: no file is read for it.
                let publish =
                    if ports.is_empty() { Publish::default() } else { self.settings()?.network.publish };
                Ok(if endpoints.is_empty() {
                    NetworkPlan::None
                } else {
                    let resolver = self.resolver_plan(&record.config, &places)?;
                    let container = record.id.clone();
                    let shared = self.shared_plan();
                    let plan = EndpointsPlan { container, endpoints, ports, publish, resolver, shared };
                    NetworkPlan::Endpoints(plan)
                })
            }
            // A helper's plan is the start's: nothing of it is left to be undone.
            NetworkMode::Pasta(_) | NetworkMode::Slirp4netns(_) => Ok(NetworkPlan::None),
            NetworkMode::Cni(chain) => Ok(NetworkPlan::Cni(Box::new(self.cni_plan(&chain, record)?))),
        }
    }

    /// The container's resolver, where one of its networks has names.
    fn resolver_plan(
        &mut self,
        config: &ContainerConfig,
        places: &[Place],
    ) -> Result<Option<ResolverPlan>, NetworkError> {
        let named = places.iter().filter(|(_, record)| has_names(record));
        let networks: Vec<ResolverNetwork> = named
            .map(|(_, record)| ResolverNetwork {
                id: record.network.id.clone(),
                name: record.network.name.clone(),
                directory: self.options.network_dir(&record.network.id),
                living: Some(Living {
                    directory: self.options.run_dirs(),
                    lock: stanza_sandbox::MONITOR_LOCK.to_owned(),
                }),
            })
            .collect();
        if networks.is_empty() {
            return Ok(None);
        }
        let path = self.options.network_dirs();
        std::fs::create_dir_all(&path).map_err(|source| NetworkError::Names { path, source })?;
        let servers = self.resolver(config)?.servers;
        let upstream = if servers.is_empty() {
            Upstream::Host { file: HOST_RESOLVERS.into() }
        } else {
            Upstream::Servers(servers)
        };
        let forward = places.iter().any(|(_, record)| !record.network.internal);
        Ok(Some(ResolverPlan { networks, forward, upstream }))
    }

    /// The name space of another container, which must run.
    fn join_plan(&mut self, other: &str) -> Result<NetworkPlan, NetworkError> {
        let record = self.other(other)?;
        match self.look(&record)? {
            Status::Running(running) if record.phase == Phase::Started => {
                Ok(NetworkPlan::Join { pid: running.pid, start_time: running.start_time })
            }
            _ => Err(NetworkError::Refused(format!(
                "cannot join network of a non running container: {}",
                record.name
            ))),
        }
    }

    /// The record of the container whose network is joined.
    pub(crate) fn other(&mut self, id: &str) -> Result<Record, NetworkError> {
        let gone = || crate::FindError::NotFound(id.to_owned());
        let id: ContainerId = id.parse().map_err(|_| gone())?;
        Ok(self.record(&id)?)
    }

    /// Frees the addresses of containers that do not run any more, whose owner died before it could; says whether it found any.
    ///
    /// Called when an address was not to be had: at other times one of a dead container does no harm.
    pub(crate) fn reclaim_addresses(&mut self) -> bool {
        let Ok(before) = self.database().and_then(|database| database.leases()) else { return false };
        let mut settled = false;
        if let Ok(database) = self.database() {
            // Failures leave the pool as it is, which the caller reports.
            let _ = database.free_orphans();
        }
        for held in &before {
            let Ok(id) = held.container.parse() else { continue };
            let Ok(Some(record)) = self.database().and_then(|database| database.container(&id)) else {
                continue;
            };
            if record.phase == Phase::Started {
                // An address that was asked for by name stays, but is another one's for the asking.
                settled |= !matches!(self.settle(&record), Ok(Some(State::Running(_) | State::Created)));
            } else if let Ok(Some(_lock)) = self.try_lock(&held.container)
                && let Ok(database) = self.database()
            {
                let _ = database.free_addresses(&held.container);
            }
        }
        let after = self.database().and_then(|database| database.leases());
        settled || after.is_ok_and(|after| after.len() < before.len())
    }
}

/// Refuses an address that no container may have in the network.
fn check_address(network: &Network, address: IpAddr) -> Result<(), AddressError> {
    let outside = || AddressError::Outside { address, network: network.name.clone() };
    let place = network.subnet_of(address).ok_or_else(outside)?;
    let reserved = |what: &str| {
        Err(AddressError::Reserved { address, network: network.name.clone(), what: what.to_owned() })
    };
    if place.gateway == Some(address) {
        return reserved("its gateway");
    }
    if let Some((name, _)) = place.reserved.iter().find(|(_, reserved)| *reserved == address) {
        return reserved(&format!("`{name}`"));
    }
    if !place.subnet.has_host(address) {
        return reserved("the network itself");
    }
    Ok(())
}

/// A hardware address as it is written.
fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The container's endpoints, with the addresses that it holds.
pub(crate) fn endpoints(record: &Record, places: &[Place]) -> Vec<Endpoint> {
    let mut interfaces: Vec<String> =
        places.iter().filter_map(|(request, _)| request.interface.clone()).collect();
    let mut endpoints: Vec<Endpoint> = places
        .iter()
        .map(|place| {
            let interface = place.0.interface.clone().unwrap_or_else(|| {
                let prefix = place.1.interface.as_deref().unwrap_or("eth");
                let free =
                    (0..).map(|number| format!("{prefix}{number}")).find(|name| !interfaces.contains(name));
                free.inspect(|name| interfaces.push(name.clone())).unwrap_or_default()
            });
            endpoint(record, place, interface)
        })
        .collect();
    let leads_out = |(index, endpoint): &(usize, &Endpoint)| {
        let is_layer_3 =
            matches!(endpoint.network.driver, Driver::Ipvlan { mode: IpvlanMode::L3 | IpvlanMode::L3s, .. });
        !endpoint.network.internal
            && !places[*index].1.no_default_route
            && (is_layer_3 || endpoint.placed().any(|(_, place)| place.gateway.is_some()))
    };
    let candidates = endpoints.iter().enumerate().filter(leads_out);
    let rank = |index: usize| {
        let (request, record) = &places[index];
        (request.gateway_priority, std::cmp::Reverse(record.metric.unwrap_or(METRIC)))
    };
    // The last of the greatest is taken, so the order is turned round.
    let out = candidates.rev().max_by_key(|(index, _)| rank(*index)).map(|(index, _)| index);
    if let Some(endpoint) = out.and_then(|index| endpoints.get_mut(index)) {
        endpoint.default_route = true;
    }
    endpoints
}

fn endpoint(record: &Record, (request, network): &Place, interface: String) -> Endpoint {
    let id = &network.network.id;
    let addresses = record.leases.iter().filter(|lease| lease.network == *id).map(|lease| lease.address);
    let (mut ipv4, mut ipv6) = (None, None);
    for address in addresses {
        match address {
            IpAddr::V4(address) => ipv4 = Some(address),
            IpAddr::V6(address) => ipv6 = Some(address),
        }
    }
    let device = device_of(&record.id, id);
    let mac = request.mac.unwrap_or_else(|| match (ipv4, ipv6) {
        (Some(address), _) => mac_of(address.into()),
        (None, Some(address)) => mac_of(address.into()),
        (None, None) => mac_of_device(&device),
    });
    Endpoint {
        names: names(record, request, network),
        network: network.network.clone(),
        interface,
        ipv4,
        ipv6,
        mac,
        device,
        default_route: false,
    }
}

/// The hardware address where no address is known: from the device's name, which is a hash; locally administered, unicast.
fn mac_of_device(device: &str) -> [u8; 6] {
    let digits = device.trim_start_matches(|c: char| !c.is_ascii_digit() && !('a'..='f').contains(&c));
    let byte =
        |at: usize| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()).unwrap_or(0);
    [0x02, 0x44, byte(2), byte(4), byte(6), byte(8)]
}

/// Whether containers of a network find each other by name: not in the default network, as with Docker, and not where names are
/// switched off.
fn has_names(network: &NetworkRecord) -> bool {
    network.network.name != DEFAULT && !network.disable_dns
}

/// What others find the container by, its own name first.
fn names(record: &Record, request: &EndpointRequest, network: &NetworkRecord) -> Vec<String> {
    if !has_names(network) {
        return Vec::new();
    }
    let mut names = vec![record.name.clone(), record.id.short().to_owned()];
    names.extend(request.aliases.iter().cloned());
    names.extend(record.facts.labels.get(SERVICE).cloned());
    let mut seen = Vec::new();
    names.retain(|name| {
        let fits =
            !name.is_empty() && name.split('.').all(|label| label.len() <= LABEL) && !seen.contains(name);
        if fits {
            seen.push(name.clone());
        }
        fits
    });
    names
}

/// The ports to publish: those asked for, and with `-P` all others that the image or the user names.
pub(crate) fn ports(record: &Record) -> Vec<PortMap> {
    let mut ports: Vec<PortMap> = record.config.ports.iter().map(PortMap::from).collect();
    if record.config.publish_all {
        for (port, protocol) in record.facts.exposed.iter().filter_map(|text| exposed(text)) {
            if !ports.iter().any(|known| (known.container_port, known.protocol) == (port, protocol)) {
                ports.push(PortMap {
                    host_ip: None,
                    host_port: None,
                    host_range: None,
                    container_port: port,
                    protocol,
                });
            }
        }
    }
    ports
}

/// `80/tcp` taken apart.
fn exposed(text: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol =
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|known| known.word() == protocol)?;
    Some((port.parse().ok()?, protocol))
}
