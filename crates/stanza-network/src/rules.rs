//! The nft table `ip stanza`: which packets are rewritten, which are let through.
//!
//! The table is made once, whole; after that a container with published ports adds elements to its maps, so the
//! work per packet and per container does not grow with their number. As `nft list table ip stanza` shows it:
//!
//! ```text
//! set bridges { type ifname }                      our bridges
//! set within  { type ifname . ifname }             each bridge with itself
//! set subnets { type ipv4_addr; flags interval }   their subnets
//! map ports           { type inet_proto . inet_service : ipv4_addr . inet_service }
//! map addressed_ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!
//! chain raw (filter, prerouting, -300)     iif != lo ip daddr 127.0.0.0/8 drop
//! chain prerouting (nat, prerouting, -100) dnat to ip daddr . meta l4proto . th dport map @addressed_ports
//!                                          fib daddr type local dnat to meta l4proto . th dport map @ports
//! chain output (nat, output, -100)         the same two
//! chain postrouting (nat, postrouting, 100)
//!                                          ip saddr @subnets oifname != @bridges masquerade
//!                                          ip saddr 127.0.0.0/8 oifname @bridges masquerade
//!                                          ip saddr @subnets oifname @bridges ct status dnat masquerade
//! chain forward (filter, forward, 0)       oifname @bridges ct state established,related accept
//!                                          oifname @bridges ct status dnat accept
//!                                          iifname . oifname @within accept
//!                                          oifname @bridges drop
//! ```
//!
//! * `raw`: the bridges have `route_localnet`, so that 127.0.0.1:PORT of the host reaches a container. Without
//!   this rule a container could reach the host's loopback services, and a neighbour on the wire a port that is
//!   published on 127.0.0.1 only.
//! * `forward`: from outside a container is reached by its published ports, not by its address, even by a
//!   neighbour who routes to the subnet through this host.
//! * What other tables of the host drop stays dropped: an accept here ends this table only. A host whose firewall
//!   drops forwarded packets (Docker's iptables policy does) must let the bridge through itself.
//!
//! Only this table is ever touched, and `nft` is never run.

use std::net::{IpAddr, Ipv4Addr};

use rustix::io::Errno;
use stanza_spec::Protocol;

use crate::netlink::nftables::{
    self, Chain, Element, Expression, FIRST, FIRST_PLUS_4, FIRST_PLUS_8, Refusals, SECOND, Set, Transaction,
    datatype,
};
use crate::netlink::{Conversation, NetlinkError};
use crate::{Endpoint, EndpointsPlan, PortMap, Subnet};

/// The table's name.
pub(crate) const TABLE: &str = "stanza";
const PORTS: &str = "ports";
const ADDRESSED_PORTS: &str = "addressed_ports";
const BRIDGES: &str = "bridges";
const WITHIN: &str = "within";
const SUBNETS: &str = "subnets";

const PROTOCOL_PORT: u32 = datatype::join(datatype::PROTOCOL, datatype::PORT);
const ADDRESS_PORT: (u32, u32) = (datatype::join(datatype::IPV4_ADDRESS, datatype::PORT), 8);

const SETS: [Set; 5] = [
    Set { name: BRIDGES, key: (datatype::INTERFACE, 16), data: None, interval: false, native: true },
    Set {
        name: WITHIN,
        key: (datatype::join(datatype::INTERFACE, datatype::INTERFACE), 32),
        data: None,
        interval: false,
        native: true,
    },
    Set { name: SUBNETS, key: (datatype::IPV4_ADDRESS, 4), data: None, interval: true, native: false },
    Set { name: PORTS, key: (PROTOCOL_PORT, 8), data: Some(ADDRESS_PORT), interval: false, native: false },
    Set {
        name: ADDRESSED_PORTS,
        key: (datatype::join(datatype::join(datatype::IPV4_ADDRESS, datatype::PROTOCOL), datatype::PORT), 12),
        data: Some(ADDRESS_PORT),
        interval: false,
        native: false,
    },
];

const RAW: Chain = Chain { name: "raw", kind: "filter", hook: 0, priority: -300 };
const PREROUTING: Chain = Chain { name: "prerouting", kind: "nat", hook: 0, priority: -100 };
const OUTPUT: Chain = Chain { name: "output", kind: "nat", hook: 3, priority: -100 };
const POSTROUTING: Chain = Chain { name: "postrouting", kind: "nat", hook: 4, priority: 100 };
const FORWARD: Chain = Chain { name: "forward", kind: "filter", hook: 2, priority: 0 };

const SOURCE: Expression = Expression::Payload { base: 1, offset: 12, length: 4, to: FIRST };
const DESTINATION: Expression = Expression::Payload { base: 1, offset: 16, length: 4, to: FIRST };
const IN_INDEX: Expression = Expression::Meta { key: 4, to: FIRST };
const IN_NAME: Expression = Expression::Meta { key: 6, to: FIRST };
const OUT_NAME: Expression = Expression::Meta { key: 7, to: FIRST };
const ON_BRIDGE: Expression = Expression::Lookup { set: BRIDGES, inverted: false };
const OFF_BRIDGE: Expression = Expression::Lookup { set: BRIDGES, inverted: true };
const IN_SUBNET: Expression = Expression::Lookup { set: SUBNETS, inverted: false };
const CONNECTION_STATE: Expression = Expression::Connection { key: 0, to: FIRST };
const CONNECTION_STATUS: Expression = Expression::Connection { key: 2, to: FIRST };
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`, in the machine's byte order.
const ESTABLISHED: Expression = Expression::Mask { mask: 6_u32.to_ne_bytes() };
/// `IPS_DST_NAT`.
const REDIRECTED: Expression = Expression::Mask { mask: 0x20_u32.to_ne_bytes() };
const NOT_ZERO: Expression = Expression::Compare { equal: false, value: &[0; 4] };
const LOOPBACK_NET: Expression = Expression::Compare { equal: true, value: &[127] };
/// One byte of an address: enough to know 127.0.0.0/8.
const SOURCE_BYTE: Expression = Expression::Payload { base: 1, offset: 12, length: 1, to: FIRST };
const DESTINATION_BYTE: Expression = Expression::Payload { base: 1, offset: 16, length: 1, to: FIRST };
const NOT_LOOPBACK_DEVICE: Expression = Expression::Compare { equal: false, value: &1_u32.to_ne_bytes() };
/// `RTN_LOCAL`.
const LOCAL: Expression = Expression::Compare { equal: true, value: &2_u32.to_ne_bytes() };
const ACCEPT: Expression = Expression::Verdict(1);
const DROP: Expression = Expression::Verdict(0);

/// The destination port of TCP and UDP alike.
const fn port_to(register: u32) -> Expression {
    Expression::Payload { base: 2, offset: 2, length: 2, to: register }
}

const fn protocol_to(register: u32) -> Expression {
    Expression::Meta { key: 16, to: register }
}

fn create(transaction: &mut Transaction) {
    transaction.create_table();
    for (set, id) in SETS.iter().zip(1..) {
        transaction.create_set(set, id);
    }
    for chain in [RAW, PREROUTING, OUTPUT, POSTROUTING, FORWARD] {
        transaction.create_chain(&chain);
    }
    transaction.append_rule(RAW.name, &[IN_INDEX, NOT_LOOPBACK_DEVICE, DESTINATION_BYTE, LOOPBACK_NET, DROP]);
    for chain in [PREROUTING.name, OUTPUT.name] {
        let addressed = Expression::Map { set: ADDRESSED_PORTS };
        transaction.append_rule(
            chain,
            &[
                DESTINATION,
                protocol_to(FIRST_PLUS_4),
                port_to(FIRST_PLUS_8),
                addressed,
                Expression::DestinationNat,
            ],
        );
        transaction.append_rule(
            chain,
            &[
                Expression::DestinationType { to: FIRST },
                LOCAL,
                protocol_to(FIRST),
                port_to(FIRST_PLUS_4),
                Expression::Map { set: PORTS },
                Expression::DestinationNat,
            ],
        );
    }
    let masquerade = Expression::Masquerade;
    transaction.append_rule(POSTROUTING.name, &[SOURCE, IN_SUBNET, OUT_NAME, OFF_BRIDGE, masquerade]);
    transaction.append_rule(POSTROUTING.name, &[SOURCE_BYTE, LOOPBACK_NET, OUT_NAME, ON_BRIDGE, masquerade]);
    transaction.append_rule(
        POSTROUTING.name,
        &[SOURCE, IN_SUBNET, OUT_NAME, ON_BRIDGE, CONNECTION_STATUS, REDIRECTED, NOT_ZERO, masquerade],
    );
    let forward = FORWARD.name;
    transaction.append_rule(forward, &[OUT_NAME, ON_BRIDGE, CONNECTION_STATE, ESTABLISHED, NOT_ZERO, ACCEPT]);
    transaction.append_rule(forward, &[OUT_NAME, ON_BRIDGE, CONNECTION_STATUS, REDIRECTED, NOT_ZERO, ACCEPT]);
    let within = Expression::Lookup { set: WITHIN, inverted: false };
    transaction.append_rule(forward, &[IN_NAME, Expression::Meta { key: 7, to: SECOND }, within, ACCEPT]);
    transaction.append_rule(forward, &[OUT_NAME, ON_BRIDGE, DROP]);
}

/// The elements that make a bridge known to the rules.
fn bridge_elements(bridge: &str, subnet: Subnet) -> Vec<Element> {
    let mut name = bridge.as_bytes().to_vec();
    name.resize(16, 0);
    let twice = [&name[..], &name[..]].concat();
    let (IpAddr::V4(first), IpAddr::V4(last)) = (subnet.network(), subnet.last()) else { return Vec::new() };
    let after = Ipv4Addr::from_bits(last.to_bits().wrapping_add(1));
    vec![
        Element { set: BRIDGES, key: name, data: Vec::new(), end: None },
        Element { set: WITHIN, key: twice, data: Vec::new(), end: None },
        Element {
            set: SUBNETS,
            key: first.octets().to_vec(),
            data: Vec::new(),
            end: Some(after.octets().to_vec()),
        },
    ]
}

/// The element that leads a taken host port to the container.
fn port_element(port: &PortMap, host_port: u16, address: Ipv4Addr) -> Element {
    let protocol = match port.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let [high, low] = host_port.to_be_bytes();
    let rest = [protocol, 0, 0, 0, high, low, 0, 0];
    let (set, key) = match port.host_ip {
        Some(IpAddr::V4(ip)) if !ip.is_unspecified() => (ADDRESSED_PORTS, [&ip.octets()[..], &rest].concat()),
        _ => (PORTS, rest.to_vec()),
    };
    let [high, low] = port.container_port.to_be_bytes();
    Element { set, key, data: [&address.octets()[..], &[high, low, 0, 0]].concat(), end: None }
}

fn port_elements(ports: &[PortMap], address: Ipv4Addr) -> Vec<Element> {
    ports.iter().filter_map(|port| Some(port_element(port, port.host_port?, address))).collect()
}

/// What the rules know of an endpoint's network.
fn network_elements(endpoint: &Endpoint) -> Vec<Element> {
    let Some(bridge) = endpoint.network.bridge() else { return Vec::new() };
    endpoint
        .network
        .subnets
        .iter()
        .flat_map(|subnet| bridge_elements(&bridge.device, subnet.subnet))
        .collect()
}

/// The container's address that published ports lead to.
fn target(plan: &EndpointsPlan) -> Option<Ipv4Addr> {
    plan.endpoints
        .iter()
        .filter(|endpoint| endpoint.network.bridge().is_some())
        .find_map(|endpoint| endpoint.ipv4)
}

/// Makes the table if it is not there, the bridges known to it, and leads the ports to the container.
///
/// The caller holds the ports: an element that leads one of them elsewhere was left by a dead owner, and is
/// replaced.
pub(crate) fn publish(
    conversation: &mut Conversation,
    plan: &EndpointsPlan,
    ports: &[PortMap],
) -> Result<(), NetlinkError> {
    let networks: Vec<Element> = plan.endpoints.iter().flat_map(network_elements).collect();
    let elements = target(plan).map(|address| port_elements(ports, address)).unwrap_or_default();
    add(conversation, &networks, &elements)
}

fn add(
    conversation: &mut Conversation,
    networks: &[Element],
    elements: &[Element],
) -> Result<(), NetlinkError> {
    /// Nothing, the table missing, a racing creator, a stale element: each costs a turn.
    const TURNS: usize = 5;
    if networks.is_empty() && elements.is_empty() {
        return Ok(());
    }
    let mut stale = vec![false; elements.len()];
    let mut create_table = false;
    let mut turns = TURNS;
    loop {
        let mut transaction = Transaction::new(conversation, TABLE);
        if create_table {
            create(&mut transaction);
        }
        for element in networks {
            transaction.add(element);
        }
        let mut first_of = Vec::with_capacity(elements.len());
        for (element, stale) in elements.iter().zip(&stale) {
            let delete = stale.then(|| transaction.delete(element));
            first_of.push((delete, transaction.add(element)));
        }
        let refusals = transaction.commit(conversation)?;
        if refusals.is_empty() {
            return Ok(());
        }
        turns -= 1;
        let mut created = create_table;
        for refusal in refusals {
            let position =
                first_of.iter().position(|(d, a)| *d == Some(refusal.index) || *a == refusal.index);
            let deleting = position.is_some_and(|at| first_of[at].0 == Some(refusal.index));
            match (refusal.errno, position) {
                _ if turns == 0 => return Err(refusal.into()),
                (Errno::EXIST | Errno::BUSY, Some(at)) => stale[at] = true,
                (Errno::NOENT, Some(at)) if deleting && !created => stale[at] = false,
                (Errno::EXIST, None) if create_table => created = false,
                (Errno::NOENT, _) if !create_table => created = true,
                // Whatever is refused because the table is not there, or is there twice, is asked again.
                (Errno::NOENT, _) => {}
                // The rules were changed by somebody while the kernel looked at ours.
                (Errno::AGAIN | Errno::RESTART | Errno::INTR, _) => {}
                _ => return Err(refusal.into()),
            }
        }
        create_table = created;
    }
}

/// Takes the ports away again; elements that are gone already are well.
///
/// The caller still holds the ports, so that no element of a new owner is taken away.
pub(crate) fn withdraw(
    conversation: &mut Conversation,
    plan: &EndpointsPlan,
    ports: &[PortMap],
) -> Result<(), NetlinkError> {
    let mut elements = target(plan).map(|address| port_elements(ports, address)).unwrap_or_default();
    while !elements.is_empty() {
        let mut transaction = Transaction::new(conversation, TABLE);
        let first = elements.first().map_or(0, |element| transaction.delete(element));
        elements.iter().skip(1).for_each(|element| {
            transaction.delete(element);
        });
        let refusals = transaction.commit(conversation)?;
        if refusals.is_empty() {
            return Ok(());
        }
        let before = elements.len();
        remove_missing(&mut elements, refusals, first)?;
        if elements.len() == before {
            break;
        }
    }
    Ok(())
}

/// Drops the elements that the kernel does not know; any other refusal is an error.
fn remove_missing(elements: &mut Vec<Element>, refusals: Refusals, first: usize) -> Result<(), NetlinkError> {
    for refusal in refusals.into_iter().rev() {
        match (refusal.errno, refusal.index.checked_sub(first)) {
            (Errno::NOENT, Some(at)) if at < elements.len() => drop(elements.remove(at)),
            _ => return Err(refusal.into()),
        }
    }
    Ok(())
}

/// A published port that was found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) element: Element,
    /// The container's address.
    pub(crate) address: IpAddr,
    /// The host's port, when it is a UDP one.
    pub(crate) udp_port: Option<u16>,
}

/// Every published port that leads to an address that `is_stale`; nothing when there is no table.
pub(crate) fn published(
    conversation: &mut Conversation,
    is_stale: &dyn Fn(IpAddr) -> bool,
) -> Result<Vec<Published>, NetlinkError> {
    let mut found = Vec::new();
    for set in [PORTS, ADDRESSED_PORTS] {
        let elements = match nftables::elements(conversation, TABLE, set) {
            Err(error) if error.errno() == Some(Errno::NOENT) => Vec::new(),
            result => result?,
        };
        found.extend(elements.into_iter().filter_map(|(key, data)| {
            let address = IpAddr::from(data.first_chunk::<4>().copied()?);
            let [protocol, _, _, _, high, low, _, _] = *key.last_chunk::<8>()?;
            let udp_port = (protocol == 17).then_some(u16::from_be_bytes([high, low]));
            let element = Element { set, key, data, end: None };
            is_stale(address).then_some(Published { element, address, udp_port })
        }));
    }
    Ok(found)
}

/// Takes away every published port that leads to an address that `is_stale`, whoever published it, and returns
/// them.
///
/// The transaction names the state of the rules that was looked at: had anything changed in between, as another
/// container taking the port, nothing is done, and it is looked at again.
pub(crate) fn withdraw_stale(
    conversation: &mut Conversation,
    is_stale: &dyn Fn(IpAddr) -> bool,
) -> Result<Vec<Published>, NetlinkError> {
    /// Far more changes than come between two system calls.
    const TURNS: usize = 16;
    let mut last = None;
    for _ in 0..TURNS {
        let generation = nftables::generation(conversation)?;
        let stale = published(conversation, is_stale)?;
        if stale.is_empty() {
            return Ok(stale);
        }
        let mut transaction = Transaction::at_generation(conversation, TABLE, generation);
        for published in &stale {
            transaction.delete(&published.element);
        }
        match transaction.commit(conversation)?.into_iter().next() {
            None => return Ok(stale),
            Some(refusal) => last = Some(refusal),
        }
    }
    last.map_or(Ok(Vec::new()), |refusal| Err(refusal.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(host_ip: Option<&str>) -> PortMap {
        PortMap {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: Some(8080),
            container_port: 80,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn a_port_on_every_address_and_on_one_have_different_maps() {
        let address = Ipv4Addr::new(10, 77, 0, 2);
        let data = vec![10, 77, 0, 2, 0, 80, 0, 0];
        let rest = [6, 0, 0, 0, 0x1f, 0x90, 0, 0];
        for any in [None, Some("0.0.0.0")] {
            let expected = Element { set: PORTS, key: rest.to_vec(), data: data.clone(), end: None };
            assert_eq!(port_element(&map(any), 8080, address), expected);
        }
        let key = [&[127, 0, 0, 1][..], &rest].concat();
        let expected = Element { set: ADDRESSED_PORTS, key, data, end: None };
        assert_eq!(port_element(&map(Some("127.0.0.1")), 8080, address), expected);
    }

    #[test]
    fn a_subnet_is_the_range_up_to_the_first_address_after_it() {
        let elements = bridge_elements("stanza0", "10.77.0.0/16".parse().unwrap());
        let [bridge, within, subnet] = elements.try_into().unwrap();
        assert_eq!(&bridge.key, b"stanza0\0\0\0\0\0\0\0\0\0");
        assert_eq!(within.key.len(), 32);
        assert_eq!((subnet.key, subnet.end), (vec![10, 77, 0, 0], Some(vec![10, 78, 0, 0])));
    }
}
