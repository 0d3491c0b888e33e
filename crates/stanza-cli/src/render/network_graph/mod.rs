//! `network graph`: networks, containers and ports as text, for Graphviz, and as a picture.

mod dot;
mod svg;
mod text;

use stanza_engine::{EndpointEntry, GraphContainer, NetworkEntry, NetworkGraph};
use stanza_network::Driver;
use stanza_spec::NetworkMode;

use super::ports;

pub(crate) use dot::dot;
pub(crate) use svg::svg;
pub(crate) use text::text;

/// The networks whose containers share something with each other; `host` and `none` are none.
fn real(graph: &NetworkGraph) -> impl Iterator<Item = &NetworkEntry> {
    graph.networks.iter().filter(|entry| !matches!(entry.driver, "host" | "null"))
}

/// A container's places in these networks.
fn places<'a>(graph: &'a NetworkGraph, container: &GraphContainer) -> Vec<(usize, &'a EndpointEntry)> {
    let own = |(index, entry): (usize, &'a NetworkEntry)| {
        let mut found = entry.endpoints.iter().filter(|one| one.container == container.id);
        found.next().map(|endpoint| (index, endpoint))
    };
    let mut places: Vec<_> = real(graph).enumerate().filter_map(own).collect();
    places.sort_by(|(_, one), (_, other)| one.interface.cmp(&other.interface));
    places
}

/// `10.7.0.0/24, fd00:7::/64`.
fn subnets(entry: &NetworkEntry) -> String {
    entry.network.subnets.iter().map(|place| place.subnet.to_string()).collect::<Vec<_>>().join(", ")
}

/// What is to be known of a network besides its subnets.
fn traits(entry: &NetworkEntry) -> Vec<String> {
    let mut traits = Vec::new();
    match &entry.network.driver {
        Driver::Bridge(bridge) => {
            traits.push(format!("bridge {}", bridge.device));
            if !bridge.peers {
                traits.push("peers apart".to_owned());
            }
        }
        Driver::Macvlan { parent, .. } | Driver::Ipvlan { parent, .. } if parent.is_empty() => {
            traits.push(entry.driver.to_owned());
        }
        Driver::Macvlan { parent, .. } | Driver::Ipvlan { parent, .. } => {
            traits.push(format!("{} on {parent}", entry.driver));
        }
    }
    if entry.network.internal {
        traits.push("internal".to_owned());
    }
    traits
}

/// `10.7.0.2, fd00:7::2`.
fn addresses(endpoint: &EndpointEntry) -> String {
    let ipv4 = endpoint.ipv4.map(|(address, _)| address.to_string());
    let ipv6 = endpoint.ipv6.map(|(address, _)| address.to_string());
    ipv4.into_iter().chain(ipv6).collect::<Vec<_>>().join(", ")
}

/// `8080->80/tcp`, each; none while it does not run.
fn published(container: &GraphContainer) -> Vec<String> {
    if container.running { ports::short(&container.ports) } else { Vec::new() }
}

/// What a container without networks of its own has.
fn kind(graph: &NetworkGraph, container: &GraphContainer) -> Option<String> {
    match &container.mode {
        NetworkMode::Bridge => None,
        NetworkMode::None => Some("no network".to_owned()),
        NetworkMode::Host => Some("the host's network".to_owned()),
        NetworkMode::Container(id) => {
            let owner =
                graph.containers.iter().find(|other| Some(&other.id) == container.shares_with.as_ref());
            Some(format!("the network of {}", owner.map_or(id.as_str(), |owner| owner.name.as_str())))
        }
        NetworkMode::Pasta(_) => Some("pasta".to_owned()),
        NetworkMode::Slirp4netns(_) => Some("slirp4netns".to_owned()),
        NetworkMode::Cni(name) => Some(format!("CNI {name}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stanza_network::{Bridge, Network, NetworkSubnet, PortMap};
    use stanza_spec::{ContainerId, Protocol};

    use super::*;

    fn id(byte: u8) -> ContainerId {
        ContainerId::from_random([byte; 32])
    }

    fn endpoint(network: &str, byte: u8, name: &str, interface: &str, running: bool) -> EndpointEntry {
        EndpointEntry {
            network: network.to_owned(),
            network_id: "5".repeat(64),
            container: id(byte),
            container_name: name.to_owned(),
            ipv4: running.then_some(([10, 7, 0, byte].into(), 24)),
            ipv6: None,
            gateway4: None,
            gateway6: None,
            mac: None,
            device: String::new(),
            interface: interface.to_owned(),
            names: Vec::new(),
            aliases: Vec::new(),
            ports: Vec::new(),
            default_route: false,
            running,
        }
    }

    fn network(name: &str, subnet: &str, endpoints: Vec<EndpointEntry>) -> NetworkEntry {
        let subnet = subnet.parse().unwrap();
        NetworkEntry {
            cni: None,
            network: Network {
                id: "5".repeat(64),
                name: name.to_owned(),
                driver: Driver::Bridge(Bridge {
                    device: format!("br-{name}"),
                    masquerade: true,
                    peers: true,
                    vlan: None,
                }),
                subnets: vec![NetworkSubnet { subnet, gateway: None, range: None, reserved: Vec::new() }],
                mtu: None,
                internal: name == "back",
            },
            driver: "bridge",
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            created_at: String::new(),
            dns: Vec::new(),
            disable_dns: false,
            endpoints,
        }
    }

    fn container(byte: u8, name: &str, mode: NetworkMode, running: bool) -> GraphContainer {
        GraphContainer {
            id: id(byte),
            name: name.to_owned(),
            running,
            mode,
            shares_with: None,
            ports: Vec::new(),
        }
    }

    /// `web` in two networks with a published port, `db` in one and not running, `side` in `web`'s.
    pub(super) fn sample() -> NetworkGraph {
        let front = network("front", "10.7.0.0/24", vec![endpoint("front", 2, "web", "eth0", true)]);
        let back = vec![endpoint("back", 3, "db", "eth0", false), endpoint("back", 2, "web", "eth1", true)];
        let mut web = container(2, "web", NetworkMode::Bridge, true);
        web.ports.push(PortMap {
            host_ip: Some([127, 0, 0, 1].into()),
            host_port: Some(8080),
            host_range: None,
            container_port: 80,
            protocol: Protocol::Tcp,
        });
        let mut side = container(4, "side", NetworkMode::Container(id(2).to_string()), true);
        side.shares_with = Some(id(2));
        let db = container(3, "db", NetworkMode::Bridge, false);
        NetworkGraph {
            host: "tower".to_owned(),
            networks: vec![network("back", "10.8.0.0/24", back), front],
            containers: vec![db, side, web],
        }
    }

    #[test]
    fn places_are_in_the_order_of_the_devices() {
        let graph = sample();
        let web: Vec<_> = places(&graph, &graph.containers[2])
            .iter()
            .map(|(at, one)| (*at, one.interface.clone()))
            .collect();
        assert_eq!(web, [(1, "eth0".to_owned()), (0, "eth1".to_owned())]);
        assert_eq!(published(&graph.containers[2]), ["127.0.0.1:8080->80/tcp"]);
        assert_eq!(kind(&graph, &graph.containers[1]).as_deref(), Some("the network of web"));
    }
}
