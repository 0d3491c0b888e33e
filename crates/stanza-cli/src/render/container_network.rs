//! A container's networks in Docker's words.

use stanza_engine::{Container, EndpointEntry, State};
use stanza_network::endpoint_of;
use stanza_spec::{ContainerConfig, EndpointRequest, NetworkMode};

use super::json::{Json, list_or_null};
use super::ports;

/// A hardware address as text.
pub(crate) fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The kind of network, or the first of its networks, as `HostConfig.NetworkMode` says it.
pub(super) fn mode(container: &Container) -> String {
    match &container.network {
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Bridge => {
            container.endpoints.first().map_or("bridge", |endpoint| endpoint.network.as_str()).to_owned()
        }
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Pasta(_) => "pasta".to_owned(),
        NetworkMode::Slirp4netns(_) => "slirp4netns".to_owned(),
        NetworkMode::Cni(name) => format!("cni:{name}"),
    }
}

/// The names of the networks, as `ps` shows them.
pub(super) fn names(container: &Container) -> String {
    match container.endpoints.as_slice() {
        [] => mode(container),
        list => list.iter().map(|endpoint| endpoint.network.as_str()).collect::<Vec<_>>().join(","),
    }
}

/// The lines of `--add-host`, as they were typed.
pub(super) fn extra_hosts(config: &ContainerConfig) -> Vec<String> {
    let address = |host: &stanza_spec::ExtraHost| {
        host.address.map_or_else(|| "host-gateway".to_owned(), |address| address.to_string())
    };
    config.extra_hosts.iter().map(|host| format!("{}:{}", host.name, address(host))).collect()
}

/// `NetworkSettings`.
pub(super) fn settings(container: &Container) -> Json {
    let running = matches!(container.state, State::Running(_));
    let ports =
        if running { ports::bindings(&container.ports, &container.exposed) } else { Json::object([]) };
    let asked = |endpoint: &EndpointEntry| {
        container.config.networks.iter().find(|request| request.network == endpoint.network)
    };
    let networks = match (container.endpoints.as_slice(), &container.network) {
        // Docker's network of a container that uses another one's is told there.
        ([], NetworkMode::Container(_)) => Vec::new(),
        ([], _) => vec![(mode(container), Json::Object(addresses(None)))],
        (list, _) => list.iter().map(|one| (one.network.clone(), network(one, asked(one)))).collect(),
    };
    let sandbox = match &container.state {
        State::Running(running) => format!("/proc/{}/ns/net", running.pid),
        State::Created | State::Exited(_) => String::new(),
    };
    let mut fields = vec![("SandboxKey".to_owned(), Json::from(sandbox)), ("Ports".to_owned(), ports)];
    fields.extend(addresses(container.endpoints.first()));
    fields.push(("Networks".to_owned(), Json::Object(networks)));
    Json::Object(fields)
}

/// One of `NetworkSettings.Networks`.
fn network(endpoint: &EndpointEntry, asked: Option<&EndpointRequest>) -> Json {
    let mut ipam = Vec::new();
    if let Some(ip) = asked.and_then(|request| request.ipv4) {
        ipam.push(("IPv4Address".to_owned(), Json::from(ip.to_string())));
    }
    if let Some(ip) = asked.and_then(|request| request.ipv6) {
        ipam.push(("IPv6Address".to_owned(), Json::from(ip.to_string())));
    }
    let ipam = if ipam.is_empty() { Json::NULL } else { Json::Object(ipam) };
    let mut fields = vec![
        ("IPAMConfig".to_owned(), ipam),
        ("Links".to_owned(), Json::NULL),
        ("Aliases".to_owned(), list_or_null(&endpoint.aliases)),
        ("DriverOpts".to_owned(), Json::NULL),
        ("GwPriority".to_owned(), asked.map_or(0, |request| request.gateway_priority).into()),
        ("NetworkID".to_owned(), endpoint.network_id.as_str().into()),
    ];
    fields.extend(addresses(Some(endpoint)));
    fields.push(("DNSNames".to_owned(), list_or_null(&endpoint.names)));
    fields.push(("Interface".to_owned(), endpoint.interface.as_str().into()));
    Json::Object(fields)
}

/// A container's addresses in a network; empty without one.
fn addresses(endpoint: Option<&EndpointEntry>) -> Vec<(String, Json)> {
    let text = |text: Option<String>| Json::from(text.unwrap_or_default());
    let ipv4 = endpoint.and_then(|endpoint| endpoint.ipv4);
    let ipv6 = endpoint.and_then(|endpoint| endpoint.ipv6);
    let gateway4 = ipv4.and_then(|_| endpoint?.gateway4);
    let gateway6 = ipv6.and_then(|_| endpoint?.gateway6);
    let id = endpoint
        .filter(|endpoint| endpoint.running)
        .map(|endpoint| endpoint_of(&endpoint.container, &endpoint.network_id));
    let fields = [
        ("EndpointID", text(id)),
        ("Gateway", text(gateway4.map(|gateway| gateway.to_string()))),
        ("IPAddress", text(ipv4.map(|(address, _)| address.to_string()))),
        ("IPPrefixLen", ipv4.map_or(0, |(_, prefix)| prefix).into()),
        ("IPv6Gateway", text(gateway6.map(|gateway| gateway.to_string()))),
        ("GlobalIPv6Address", text(ipv6.map(|(address, _)| address.to_string()))),
        ("GlobalIPv6PrefixLen", ipv6.map_or(0, |(_, prefix)| prefix).into()),
        ("MacAddress", text(endpoint.and_then(|endpoint| endpoint.mac).map(mac))),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).to_vec()
}
