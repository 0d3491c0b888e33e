//! What networks, endpoints and ports are in the tables' sets: data, made without the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stanza_spec::Protocol;

use super::table::{BRIDGES, INTERNAL, IPV4, IPV6, Ip, WITHIN};
use super::{guard, name_key};
use crate::netlink::nftables::{Element, Set};
use crate::subnet::after;
use crate::{Endpoint, EndpointsPlan, Network, PortMap, Publish, Subnet};

/// Where published ports of each family lead to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

impl Targets {
    /// The container's first addresses in networks that lead outside and are made by this host.
    pub(crate) fn of(plan: &EndpointsPlan) -> Targets {
        let mut open = plan
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.network.bridge().is_some() && !endpoint.network.internal);
        Targets {
            ipv4: open.clone().find_map(|endpoint| endpoint.ipv4),
            ipv6: open.find_map(|endpoint| endpoint.ipv6),
        }
    }

    /// No port can lead anywhere.
    pub(crate) fn is_empty(self) -> bool {
        self == Targets::default()
    }

    /// The address of the family of `like`.
    pub(crate) fn like(self, like: IpAddr) -> Option<IpAddr> {
        if like.is_ipv4() { self.ipv4.map(IpAddr::V4) } else { self.ipv6.map(IpAddr::V6) }
    }

    /// The address that is not of the family of `like`.
    pub(crate) fn unlike(self, like: IpAddr) -> Option<IpAddr> {
        if like.is_ipv4() { self.ipv6.map(IpAddr::V6) } else { self.ipv4.map(IpAddr::V4) }
    }
}

fn ip_of(address: IpAddr) -> &'static Ip {
    if address.is_ipv4() { &IPV4 } else { &IPV6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn member(set: &'static Set, key: Vec<u8>) -> Element {
    Element { set, key, data: Vec::new(), end: None }
}

fn range(set: &'static Set, subnet: Subnet) -> Element {
    let end = after(subnet.last()).map(octets);
    Element { end, ..member(set, octets(subnet.network())) }
}

/// The elements that make a network known to the rules; they stay when its containers go.
pub(super) fn network(network: &Network) -> Vec<Element> {
    let Some(bridge) = network.bridge() else { return Vec::new() };
    let name = name_key(&bridge.device);
    let mut elements = vec![member(&BRIDGES, name.clone())];
    if bridge.peers {
        elements.push(member(&WITHIN, [&name[..], &name].concat()));
    }
    if network.internal {
        elements.push(member(&INTERNAL, name));
    }
    for subnet in network.subnets.iter().map(|subnet| subnet.subnet) {
        let ip = ip_of(subnet.network());
        elements.push(range(ip.subnets, subnet));
        if bridge.masquerade {
            elements.push(range(ip.masqueraded, subnet));
        }
    }
    elements
}

/// What a container may send from, and the networks that it is in.
pub(super) fn endpoint(endpoint: &Endpoint) -> Vec<Element> {
    if endpoint.network.bridge().is_some() { guard::elements(endpoint) } else { Vec::new() }
}

/// What is the container's alone: what it may send from, and where its taken ports lead.
pub(super) fn container(plan: &EndpointsPlan, taken: &[PortMap]) -> Vec<Element> {
    let mut elements: Vec<Element> = plan.endpoints.iter().flat_map(endpoint).collect();
    let targets = Targets::of(plan);
    for port in taken {
        elements.extend(ports(port, targets));
        elements.extend(proxied(port, targets));
    }
    if plan.publish == Publish::Open && !taken.is_empty() {
        elements.extend(targets.ipv4.map(|address| member(IPV4.open, address.octets().to_vec())));
        elements.extend(targets.ipv6.map(|address| member(IPV6.open, address.octets().to_vec())));
    }
    // Elements of one set go in one request.
    elements.sort_by_key(|element| element.set.name);
    elements
}

/// The addresses of the host that a port is published on, of both families.
pub(crate) fn addresses(port: &PortMap) -> impl Iterator<Item = IpAddr> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let all = port.host_ip.is_none();
    any.into_iter().filter(move |_| all).chain(port.host_ip)
}

/// The elements that lead a taken host port to the container, one for each family in which the kernel can.
fn ports(port: &PortMap, targets: Targets) -> impl Iterator<Item = Element> {
    addresses(port)
        .filter(|address| *address != IpAddr::V6(Ipv6Addr::LOCALHOST))
        .filter_map(move |address| Some(port_element(port, address, targets.like(address)?, port.host_port?)))
}

fn port_element(port: &PortMap, address: IpAddr, target: IpAddr, host_port: u16) -> Element {
    let ip = ip_of(address);
    let (set, key) = place(port, address, host_port, (ip.ports, ip.addressed_ports));
    let [high, low] = port.container_port.to_be_bytes();
    Element { set, key, data: [&octets(target)[..], &[high, low, 0, 0]].concat(), end: None }
}

/// The elements that tell of a taken host port that a process of the host serves it, and whose it is: on the addresses of a family
/// in which the container has none. Nobody reaches those of loopback but the host.
fn proxied(port: &PortMap, targets: Targets) -> impl Iterator<Item = Element> {
    addresses(port)
        .filter(|address| port.protocol != Protocol::Sctp && !address.is_loopback())
        .filter(move |address| targets.like(*address).is_none())
        .filter_map(move |address| {
            let (target, ip, number) = (targets.unlike(address)?, ip_of(address), port.host_port?);
            let (known, key) = place(port, address, number, (ip.proxied, ip.addressed_proxied));
            let (set, _) = place(port, address, number, (ip.proxied_of, ip.addressed_proxied_of));
            let owner = Element { set, key: key.clone(), data: octets(target), end: None };
            Some([member(known, key), owner])
        })
        .flatten()
}

/// What goes with an element that tells whose a port is.
pub(super) fn served(owner: &Element) -> Option<Element> {
    let set = [&IPV4, &IPV6].into_iter().find_map(|ip| match owner.set.name {
        name if name == ip.proxied_of.name => Some(ip.proxied),
        name if name == ip.addressed_proxied_of.name => Some(ip.addressed_proxied),
        _ => None,
    })?;
    Some(member(set, owner.key.clone()))
}

/// The set that a port belongs to, of one for every address and one for single ones, and its key there.
fn place(
    port: &PortMap,
    address: IpAddr,
    host_port: u16,
    (every, single): (&'static Set, &'static Set),
) -> (&'static Set, Vec<u8>) {
    let protocol = match port.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    let [high, low] = host_port.to_be_bytes();
    let rest = [protocol, 0, 0, 0, high, low, 0, 0];
    if address.is_unspecified() {
        (every, rest.to_vec())
    } else {
        (single, [&octets(address)[..], &rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::nftables::Element;

    fn map(host_ip: Option<&str>) -> PortMap {
        PortMap {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: Some(8080),
            host_range: None,
            container_port: 80,
            protocol: Protocol::Tcp,
        }
    }

    const TARGETS: Targets = Targets {
        ipv4: Some(Ipv4Addr::new(10, 77, 0, 2)),
        ipv6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
    };

    #[test]
    fn a_port_on_every_address_and_on_one_have_different_maps() {
        let rest = vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0];
        let four =
            Element { set: IPV4.ports, key: rest.clone(), data: vec![10, 77, 0, 2, 0, 80, 0, 0], end: None };
        let six_data = [&octets("fd00::2".parse().unwrap())[..], &[0, 80, 0, 0]].concat();
        let six = Element { set: IPV6.ports, key: rest.clone(), data: six_data.clone(), end: None };
        let of = |host_ip| ports(&map(host_ip), TARGETS).collect::<Vec<_>>();
        assert_eq!(of(None), [four.clone(), six.clone()]);
        assert_eq!(of(Some("0.0.0.0")), std::slice::from_ref(&four));
        assert_eq!(of(Some("::")), [six]);
        let key = [&[127, 0, 0, 1][..], &rest].concat();
        let addressed = Element { set: IPV4.addressed_ports, key, ..four };
        assert_eq!(of(Some("127.0.0.1")), [addressed]);
        assert_eq!(of(Some("2001:db8::1"))[0].data, six_data);
        assert_eq!(of(Some("::1")), [], "a proxy's");
    }

    #[test]
    fn a_port_leads_only_where_the_container_has_an_address() {
        let four = Targets { ipv6: None, ..TARGETS };
        assert_eq!(ports(&map(None), four).map(|element| element.set.name).collect::<Vec<_>>(), ["ports4"]);
        assert_eq!(ports(&map(None), Targets::default()).count(), 0);
    }

    #[test]
    fn a_port_is_a_proxys_on_the_addresses_of_a_family_that_the_container_lacks() {
        let of = |host_ip, targets| {
            let port = map(host_ip);
            let elements = proxied(&port, targets);
            let owners: Vec<Element> = elements.filter(|element| element.set.data.is_some()).collect();
            assert!(owners.iter().all(|owner| proxied(&port, targets).any(|one| Some(one) == served(owner))));
            owners.into_iter().map(|owner| (owner.set.name, owner.data)).collect::<Vec<_>>()
        };
        let four = Targets { ipv6: None, ..TARGETS };
        let six = Targets { ipv4: None, ..TARGETS };
        let (to_four, to_six) = (vec![10, 77, 0, 2], octets("fd00::2".parse().unwrap()));
        assert_eq!(of(None, four), [("proxied_of6", to_four.clone())]);
        assert_eq!(of(None, six), [("proxied_of4", to_six.clone())]);
        assert_eq!(of(Some("2001:db8::1"), four), [("addressed_proxied_of6", to_four)]);
        assert_eq!(of(Some("192.0.2.1"), six), [("addressed_proxied_of4", to_six)]);
        for host_ip in [None, Some("::1"), Some("192.0.2.1")] {
            assert_eq!(of(host_ip, TARGETS), [], "the kernel's, or loopback's");
        }
        assert_eq!(of(Some("127.0.0.1"), six), []);
    }

    #[test]
    fn a_subnet_is_the_range_up_to_the_first_address_after_it() {
        let four = range(IPV4.subnets, "10.77.0.0/16".parse().unwrap());
        assert_eq!((four.key, four.end), (vec![10, 77, 0, 0], Some(vec![10, 78, 0, 0])));
        let last = range(IPV4.subnets, "255.255.0.0/16".parse().unwrap());
        assert_eq!((last.key, last.end), (vec![255, 255, 0, 0], None));
        let six = range(IPV6.subnets, "fd00::/64".parse().unwrap());
        assert_eq!(six.end, Some(octets("fd00:0:0:1::".parse().unwrap())));
    }
}
