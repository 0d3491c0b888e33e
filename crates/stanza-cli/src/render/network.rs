//! A network in Docker's words.

use std::collections::BTreeMap;

use stanza_engine::{EndpointEntry, NetworkEntry};
use stanza_network::cni::CniNetwork;
use stanza_network::{Driver, NetworkSubnet, endpoint_of};

use super::container_network::mac;
use super::json::{Json, list_or_null};
use super::ports;
use crate::format::listing::Row;
use crate::format::time;

/// Titles of the columns of `network ls`.
pub(crate) const TITLES: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Subnets", "SUBNETS"),
    ("Containers", "CONTAINERS"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

/// Go's zero time: the default networks were never made.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// More neighbours than these are only counted: listed for each of a thousand containers they would be a million.
const PEERS: usize = 100;

/// The row of a network in `network ls`.
pub(crate) fn row(entry: &NetworkEntry, truncate: bool) -> Row {
    let network = &entry.network;
    let id = network.id.get(..12).filter(|_| truncate).unwrap_or(&network.id);
    let labels: Vec<String> = entry.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let subnets: Vec<String> = network.subnets.iter().map(|place| place.subnet.to_string()).collect();
    let row = Row { labels: entry.labels.clone(), ..Row::default() };
    row.with("ID", id)
        .with("Name", network.name.as_str())
        .with("Driver", entry.driver)
        .with("Scope", "local")
        .with("IPv4", has_ipv4(entry).to_string())
        .with("IPv6", entry.has_ipv6().to_string())
        .with("Internal", network.internal.to_string())
        .with("Subnets", subnets.join(","))
        .with("Containers", entry.endpoints.len().to_string())
        .with("Labels", labels.join(","))
        .with("CreatedAt", time::listed(&entry.created_at))
}

fn has_ipv4(entry: &NetworkEntry) -> bool {
    entry.network.subnets.iter().any(|place| !place.subnet.is_ipv6())
}

/// What `network inspect` shows: Docker's fields, then stanza's own.
pub(crate) fn inspect(entry: &NetworkEntry) -> Json {
    let network = &entry.network;
    let created = if entry.created_at.is_empty() { NEVER } else { &entry.created_at };
    let (running, resting): (Vec<_>, Vec<_>) = entry.endpoints.iter().partition(|one| one.running);
    let (device, isolated) = match &network.driver {
        _ if matches!(entry.driver, "host" | "null" | "cni") => ("", false),
        Driver::Bridge(bridge) => (bridge.device.as_str(), !bridge.peers),
        Driver::Macvlan { parent, .. } | Driver::Ipvlan { parent, .. } => (parent.as_str(), false),
    };
    let peers: &[&EndpointEntry] = if isolated { &[] } else { &running };
    let containers =
        running.iter().map(|one| (one.container.as_str().to_owned(), endpoint(one, peers))).collect();
    let resting: Vec<String> = resting.iter().map(|one| one.container_name.clone()).collect();
    let servers: Vec<String> = entry.dns.iter().map(ToString::to_string).collect();
    Json::object([
        ("Name", network.name.as_str().into()),
        ("Id", network.id.as_str().into()),
        ("Created", created.into()),
        ("Scope", "local".into()),
        ("Driver", entry.driver.into()),
        ("EnableIPv4", has_ipv4(entry).into()),
        ("EnableIPv6", entry.has_ipv6().into()),
        (
            "IPAM",
            Json::object([
                ("Driver", "default".into()),
                ("Options", Json::object([])),
                ("Config", Json::List(network.subnets.iter().map(subnet).collect())),
            ]),
        ),
        ("Internal", network.internal.into()),
        ("Attachable", false.into()),
        ("Ingress", false.into()),
        ("ConfigFrom", Json::object([("Network", "".into())])),
        ("ConfigOnly", false.into()),
        ("Containers", Json::Object(containers)),
        ("Options", texts(&entry.options)),
        ("Labels", texts(&entry.labels)),
        ("Device", device.into()),
        ("Mtu", network.mtu.map_or(Json::NULL, Json::from)),
        ("PeersApart", isolated.into()),
        ("NameServers", list_or_null(&servers)),
        ("NamesDisabled", entry.disable_dns.into()),
        ("NotRunning", list_or_null(&resting)),
        ("Cni", entry.cni.as_ref().map_or(Json::NULL, chain)),
    ])
}

/// The configuration of a chain of CNI plugins, as it is read, and the file that it is in.
fn chain(network: &CniNetwork) -> Json {
    Json::object([
        ("File", network.file.to_string_lossy().into_owned().into()),
        ("cniVersion", network.version.as_str().into()),
        ("disableCheck", network.disable_check.into()),
        ("disableGC", network.disable_gc.into()),
        ("plugins", Json::List(network.plugins.iter().cloned().map(Json::from).collect())),
    ])
}

fn texts(map: &BTreeMap<String, String>) -> Json {
    Json::Object(map.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect())
}

/// One of `IPAM.Config`.
fn subnet(place: &NetworkSubnet) -> Json {
    let mut fields = vec![("Subnet".to_owned(), Json::from(place.subnet.to_string()))];
    if let Some(range) = place.range {
        fields.push(("IPRange".to_owned(), range.to_string().into()));
    }
    if let Some(gateway) = place.gateway {
        fields.push(("Gateway".to_owned(), gateway.to_string().into()));
    }
    if !place.reserved.is_empty() {
        let reserved =
            place.reserved.iter().map(|(name, address)| (name.clone(), address.to_string().into())).collect();
        fields.push(("AuxiliaryAddresses".to_owned(), Json::Object(reserved)));
    }
    Json::Object(fields)
}

/// One of `Containers`; `all` are those that it reaches, and perhaps itself.
fn endpoint(one: &EndpointEntry, all: &[&EndpointEntry]) -> Json {
    let address = |text: Option<String>| Json::from(text.unwrap_or_default());
    let peers: Vec<&EndpointEntry> =
        all.iter().copied().filter(|other| other.container != one.container).collect();
    let names = |peers: &[&EndpointEntry]| {
        list_or_null(&peers.iter().map(|peer| peer.container_name.clone()).collect::<Vec<_>>())
    };
    Json::object([
        ("Name", one.container_name.as_str().into()),
        ("EndpointID", endpoint_of(&one.container, &one.network_id).into()),
        ("MacAddress", address(one.mac.map(mac))),
        ("IPv4Address", address(one.ipv4.map(|(address, prefix)| format!("{address}/{prefix}")))),
        ("IPv6Address", address(one.ipv6.map(|(address, prefix)| format!("{address}/{prefix}")))),
        ("Interface", one.interface.as_str().into()),
        ("Device", one.device.as_str().into()),
        ("Names", list_or_null(&one.names)),
        ("Ports", list_or_null(&ports::short(&one.ports))),
        ("Peers", if peers.len() > PEERS { Json::NULL } else { names(&peers) }),
        ("PeerCount", peers.len().into()),
    ])
}
