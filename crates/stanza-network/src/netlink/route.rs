//! Links, addresses and routes: the rtnetlink messages (`man 7 rtnetlink`, `linux/if_link.h`).
//!
//! Functions named after an object append a request to a [`Batch`]; functions that take a [`Conversation`] ask.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::message::{ACK, Batch, Body, CREATE, DUMP, EXCLUSIVE, array, attribute, native_u32, text};
use super::{Conversation, NetlinkError};
use crate::Subnet;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRIDGE_FLAGS: u16 = 0;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// No search for others with the address: it would be of no use for a second.
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_BRIDGE: u8 = 7;
const IFF_UP: u32 = 1;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;

/// The index of `lo` in every network namespace (`LOOPBACK_IFINDEX`).
pub(crate) const LOOPBACK: u32 = 1;

/// Whom a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Device<'a> {
    /// By index.
    Index(u32),
    /// By name.
    Name(&'a str),
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    /// `bridge`, `veth`, …; empty for a physical device.
    pub(crate) kind: String,
    /// Index of the bridge that it is a port of; 0 is none.
    pub(crate) master: u32,
    /// Its hardware address, when it has one of six bytes.
    pub(crate) mac: Option<[u8; 6]>,
}

/// What a new pair of veth devices is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VethPair<'a> {
    /// Name of this end.
    pub(crate) name: &'a str,
    /// Index of the bridge that this end becomes a port of.
    pub(crate) master: u32,
    /// Name of the other end.
    pub(crate) peer_name: &'a str,
    /// Hardware address of the other end.
    pub(crate) peer_mac: [u8; 6],
    /// Where the other end is created.
    pub(crate) peer_netns: BorrowedFd<'a>,
    /// Largest packet of both.
    pub(crate) mtu: u32,
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn device_header(m: &mut Body<'_>, device: Device<'_>, flags: u32, change: u32) {
    match device {
        Device::Index(index) => m.raw(&link_header(index, flags, change)),
        Device::Name(name) => m.raw(&link_header(0, flags, change)).string(IFLA_IFNAME, name),
    };
}

/// Creates a bridge, down, with a hardware address of its own: without one it would take its lowest port's, and
/// change it under the containers when that port goes. `vlans` makes it look at the VLANs of its ports.
pub(crate) fn create_bridge(batch: &mut Batch, name: &str, mac: [u8; 6], mtu: u32, vlans: bool) {
    batch.message("create the bridge", RTM_NEWLINK, CREATE | EXCLUSIVE, |m| {
        m.raw(&link_header(0, 0, 0))
            .string(IFLA_IFNAME, name)
            .bytes(IFLA_ADDRESS, &mac)
            .native(IFLA_MTU, mtu);
        m.nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "bridge");
            if vlans {
                info.nested(IFLA_INFO_DATA, |data| {
                    data.bytes(IFLA_BR_VLAN_FILTERING, &[1]);
                });
            }
        });
    });
}

/// A device on a network card, made inside a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CardDevice<'a> {
    /// Its name there.
    pub(crate) name: &'a str,
    /// Where it is made.
    pub(crate) netns: BorrowedFd<'a>,
    /// The card's index here.
    pub(crate) card: u32,
    /// `macvlan` or `ipvlan`.
    pub(crate) kind: &'static str,
    /// Its mode's number.
    pub(crate) mode: u16,
    /// Its hardware address; `None` leaves the choice to the kernel.
    pub(crate) mac: Option<[u8; 6]>,
    /// Its largest packet; `None` is the card's.
    pub(crate) mtu: Option<u32>,
}

/// Creates a device on a card, down.
pub(crate) fn create_card_device(batch: &mut Batch, device: &CardDevice<'_>) {
    batch.message("create the device on the network card", RTM_NEWLINK, CREATE | EXCLUSIVE, |m| {
        m.raw(&link_header(0, 0, 0)).string(IFLA_IFNAME, device.name).native(IFLA_LINK, device.card);
        m.native(IFLA_NET_NS_FD, device.netns.as_raw_fd().cast_unsigned());
        if let Some(mac) = device.mac {
            m.bytes(IFLA_ADDRESS, &mac);
        }
        if let Some(mtu) = device.mtu {
            m.native(IFLA_MTU, mtu);
        }
        m.nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, device.kind).nested(IFLA_INFO_DATA, |data| {
                // `enum macvlan_mode` has 32 bits, `enum ipvlan_mode` 16.
                if device.kind == "macvlan" {
                    data.native(IFLA_MACVLAN_MODE, device.mode.into());
                } else {
                    data.bytes(IFLA_IPVLAN_MODE, &device.mode.to_ne_bytes());
                }
            });
        });
    });
}

/// Creates the device `name` for one VLAN of a card, up.
pub(crate) fn create_vlan(batch: &mut Batch, name: &str, card: u32, vlan: u16) {
    batch.message("create the VLAN's device", RTM_NEWLINK, CREATE | EXCLUSIVE, |m| {
        m.raw(&link_header(0, IFF_UP, IFF_UP)).string(IFLA_IFNAME, name).native(IFLA_LINK, card);
        m.nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "vlan").nested(IFLA_INFO_DATA, |data| {
                data.bytes(IFLA_VLAN_ID, &vlan.to_ne_bytes());
            });
        });
    });
}

/// Creates a card that leads nowhere, up.
pub(crate) fn create_dummy(batch: &mut Batch, name: &str) {
    batch.message("create the dummy device", RTM_NEWLINK, CREATE | EXCLUSIVE, |m| {
        m.raw(&link_header(0, IFF_UP, IFF_UP)).string(IFLA_IFNAME, name);
        m.nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "dummy");
        });
    });
}

/// Makes one VLAN what untagged frames of a bridge's port belong to; `bridge_itself` means the bridge's own port.
pub(crate) fn set_port_vlan(batch: &mut Batch, index: u32, vlan: u16, bridge_itself: bool) {
    /// `BRIDGE_FLAGS_SELF`, `BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED`.
    const SELF: u16 = 2;
    const UNTAGGED: u16 = 2 | 4;
    batch.message("set the VLAN of the bridge port", RTM_SETLINK, 0, |m| {
        let mut header = link_header(index, 0, 0);
        header[0] = AF_BRIDGE;
        m.raw(&header);
        m.nested(IFLA_AF_SPEC, |spec| {
            if bridge_itself {
                spec.bytes(IFLA_BRIDGE_FLAGS, &SELF.to_ne_bytes());
            }
            let info = [UNTAGGED.to_ne_bytes(), vlan.to_ne_bytes()].concat();
            spec.bytes(IFLA_BRIDGE_VLAN_INFO, &info);
        });
    });
}

/// Creates both ends, down; this one as a port of the bridge, the other in its name space.
///
/// One queue each: the kernel's default is one per possible processor, each with its own sysfs directory, which
/// is most of the time a veth takes on a large machine.
pub(crate) fn create_veth(batch: &mut Batch, pair: &VethPair<'_>) {
    let queues = |m: &mut Body<'_>| {
        m.native(IFLA_MTU, pair.mtu).native(IFLA_NUM_TX_QUEUES, 1).native(IFLA_NUM_RX_QUEUES, 1);
    };
    batch.message("create the veth pair", RTM_NEWLINK, CREATE | EXCLUSIVE, |m| {
        m.raw(&link_header(0, 0, 0)).string(IFLA_IFNAME, pair.name).native(IFLA_MASTER, pair.master);
        queues(m);
        m.nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, 0, 0)).string(IFLA_IFNAME, pair.peer_name);
                    peer.bytes(IFLA_ADDRESS, &pair.peer_mac);
                    peer.bytes(IFLA_NET_NS_FD, &pair.peer_netns.as_raw_fd().to_ne_bytes());
                    queues(peer);
                });
            });
        });
    });
}

/// Makes a device that is there, and down, a port of the bridge.
pub(crate) fn join_bridge(batch: &mut Batch, name: &str, master: u32, mtu: u32) -> usize {
    batch.message("join the network device to the bridge", RTM_NEWLINK, 0, |m| {
        device_header(m, Device::Name(name), 0, 0);
        m.native(IFLA_MASTER, master).native(IFLA_MTU, mtu);
    })
}

/// Gives the device no IPv6 link-local address of its own, so that bringing it up sends nothing. Returns the
/// index of the request: a kernel without IPv6 refuses it, which does no harm.
pub(crate) fn silence_ipv6(batch: &mut Batch, device: Device<'_>) -> usize {
    batch.message("switch off automatic IPv6 addresses", RTM_NEWLINK, 0, |m| {
        device_header(m, device, 0, 0);
        m.nested(IFLA_AF_SPEC, |families| {
            families.nested(AF_INET6.into(), |ipv6| {
                ipv6.bytes(IFLA_INET6_ADDR_GEN_MODE, &[1]);
            });
        });
    })
}

/// Brings the device up.
pub(crate) fn bring_up(batch: &mut Batch, device: Device<'_>) -> usize {
    batch.message("bring the network device up", RTM_NEWLINK, 0, |m| device_header(m, device, IFF_UP, IFF_UP))
}

/// Brings a bridge port up, in hairpin mode: a frame may leave by the port it came from.
///
/// Where the kernel shows bridged packets to IPv4's hooks (`net.bridge.bridge-nf-call-iptables`, the default once
/// `br_netfilter` is there), a container's packet to its own published port is led back to it by the bridge itself
/// (`br_nf_pre_routing_finish`), which without this mode drops it.
///
/// An `isolated` port exchanges nothing with other isolated ones.
pub(crate) fn bring_port_up(batch: &mut Batch, device: Device<'_>, isolated: bool) -> usize {
    batch.message("bring the bridge port up", RTM_NEWLINK, 0, |m| {
        device_header(m, device, IFF_UP, IFF_UP);
        m.nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_SLAVE_KIND, "bridge").nested(IFLA_INFO_SLAVE_DATA, |port| {
                port.bytes(IFLA_BRPORT_MODE, &[1]);
                if isolated {
                    port.bytes(IFLA_BRPORT_ISOLATED, &[1]);
                }
            });
        });
    })
}

/// The bytes of an address.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv6() { AF_INET6 } else { AF_INET }
}

/// The address that the bytes are.
fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    array::<4>(bytes, 0..4)
        .filter(|_| bytes.len() == 4)
        .map(IpAddr::from)
        .or_else(|| array::<16>(bytes, 0..16).map(IpAddr::from))
}

/// Takes an address away, with its routes.
#[cfg(test)]
pub(crate) fn delete_address(batch: &mut Batch, index: u32, address: IpAddr, prefix: u8) {
    batch.message("delete the address", RTM_NEWADDR + 1, 0, |m| {
        m.raw(&[family(address), prefix, 0, 0]).raw(&index.to_ne_bytes());
        m.bytes(IFA_LOCAL, &octets(address));
    });
}

/// Deletes the device, and its other end.
pub(crate) fn delete_link(batch: &mut Batch, device: Device<'_>) -> usize {
    batch.message("delete the network device", RTM_DELLINK, 0, |m| device_header(m, device, 0, 0))
}

/// Adds an address, its subnet's route and, in IPv4, its broadcast address. Refused with `EEXIST` when it is there.
pub(crate) fn add_address(batch: &mut Batch, index: u32, address: IpAddr, subnet: Subnet) -> usize {
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    batch.message("add the address", RTM_NEWADDR, CREATE | EXCLUSIVE, |m| {
        m.raw(&[family(address), subnet.prefix(), flags, 0]).raw(&index.to_ne_bytes());
        m.bytes(IFA_LOCAL, &octets(address)).bytes(IFA_ADDRESS, &octets(address));
        if address.is_ipv4() {
            m.bytes(IFA_BROADCAST, &octets(subnet.last()));
        }
    })
}

/// An address as the kernel described it, of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GlobalAddress {
    /// Family, length of the prefix, flags, scope: the start of `struct ifaddrmsg`.
    head: [u8; 4],
    attributes: Vec<(u16, Vec<u8>)>,
}

/// The addresses of global scope of the device with that index.
pub(crate) fn global_addresses(
    conversation: &mut Conversation,
    index: u32,
) -> Result<Vec<GlobalAddress>, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("list the addresses", RTM_GETADDR, DUMP, |m| {
        m.raw(&[0; ADDRESS_HEADER]);
    });
    let mut found = Vec::new();
    conversation.query(&batch, |_, payload| {
        found.extend(parse_global_address(payload).filter(|(owner, _)| *owner == index).map(|(_, a)| a));
    })?;
    Ok(found)
}

fn parse_global_address(payload: &[u8]) -> Option<(u32, GlobalAddress)> {
    let mut head = array::<4>(payload, 0..4)?;
    if head[3] != 0 {
        return None;
    }
    // Flags are how it is, not what was asked for.
    head[2] = 0;
    let attributes = payload.get(ADDRESS_HEADER..)?;
    let kept = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST]
        .into_iter()
        .filter_map(|kind| Some((kind, attribute(attributes, kind)?.to_owned())))
        .collect();
    Some((native_u32(payload, 4)?, GlobalAddress { head, attributes: kept }))
}

/// Adds an address that another device, or this one elsewhere, had.
pub(crate) fn restore_address(batch: &mut Batch, index: u32, address: &GlobalAddress) -> usize {
    batch.message("add the address", RTM_NEWADDR, CREATE | EXCLUSIVE, |m| {
        m.raw(&address.head).raw(&index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            m.bytes(*kind, value);
        }
    })
}

/// Moves the device into another network namespace, under a new name.
pub(crate) fn move_link(batch: &mut Batch, index: u32, netns: BorrowedFd<'_>, name: &str) -> usize {
    batch.message("move the network device", RTM_NEWLINK, 0, |m| {
        m.raw(&link_header(index, 0, 0)).string(IFLA_IFNAME, name);
        m.native(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
    })
}

/// Adds a default route through the device with that index; without a gateway everything is reached directly.
pub(crate) fn add_default_route(batch: &mut Batch, index: u32, way: DefaultRoute) {
    const MAIN: u8 = 254;
    const BOOT: u8 = 3;
    const UNIVERSE: u8 = 0;
    const LINK: u8 = 253;
    const UNICAST: u8 = 1;
    let (family, scope) = match way {
        DefaultRoute::Gateway(gateway) => (family(gateway), UNIVERSE),
        DefaultRoute::Link { ipv6: false } => (AF_INET, LINK),
        DefaultRoute::Link { ipv6: true } => (AF_INET6, UNIVERSE),
    };
    batch.message("add the default route", RTM_NEWROUTE, CREATE | EXCLUSIVE, |m| {
        m.raw(&[family, 0, 0, 0, MAIN, BOOT, scope, UNICAST, 0, 0, 0, 0]).native(RTA_OIF, index);
        if let DefaultRoute::Gateway(gateway) = way {
            m.bytes(RTA_GATEWAY, &octets(gateway));
        }
    });
}

/// Where everything goes that has no better route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultRoute {
    /// To a neighbour.
    Gateway(IpAddr),
    /// Out of the device.
    Link {
        /// For IPv6, else for IPv4.
        ipv6: bool,
    },
}

/// Takes the default routes of a device away, of both families.
pub(crate) fn delete_default_route(batch: &mut Batch, index: u32, ipv6: bool) -> usize {
    let family = if ipv6 { AF_INET6 } else { AF_INET };
    batch.message("delete the default route", RTM_NEWROUTE + 1, 0, |m| {
        // Any scope (`RT_SCOPE_NOWHERE`), any protocol, any type, of the main table.
        m.raw(&[family, 0, 0, 0, 254, 0, 255, 0, 0, 0, 0, 0]).native(RTA_OIF, index);
    })
}

/// The link of that name; `None` when there is none.
pub(crate) fn link(conversation: &mut Conversation, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("look at the network device", RTM_GETLINK, ACK, |m| {
        m.raw(&link_header(0, 0, 0)).string(IFLA_IFNAME, name);
        m.native(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
    let mut found = None;
    match conversation.query(&batch, |_, payload| found = parse_link(payload)) {
        Err(error) if error.errno() == Some(Errno::NODEV) => Ok(None),
        result => result.map(|()| found),
    }
}

/// Makes the kernel act now on what has become of the devices' carrier, in that order (`linkwatch_sync_dev` in
/// `rtnl_getlink`, Linux 6.8; an older kernel does it soon, by itself).
pub(crate) fn settle(conversation: &mut Conversation, devices: &[Device<'_>]) -> Result<(), NetlinkError> {
    let mut batch = conversation.batch();
    for device in devices {
        batch.message("look at the network device", RTM_GETLINK, 0, |m| {
            device_header(m, *device, 0, 0);
            m.native(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        });
    }
    conversation.commit_all(batch)
}

/// Every link of this network namespace.
pub(crate) fn links(conversation: &mut Conversation) -> Result<Vec<Link>, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("list the network devices", RTM_GETLINK, DUMP, |m| {
        m.raw(&link_header(0, 0, 0)).native(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
    let mut found = Vec::new();
    conversation.query(&batch, |_, payload| found.extend(parse_link(payload)))?;
    Ok(found)
}

/// The addresses of the device with that index, with their subnets; of IPv6 those of global scope.
pub(crate) fn addresses(
    conversation: &mut Conversation,
    index: u32,
) -> Result<Vec<(IpAddr, Subnet)>, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("list the addresses", RTM_GETADDR, DUMP, |m| {
        m.raw(&[0; ADDRESS_HEADER]);
    });
    let mut found = Vec::new();
    conversation.query(&batch, |_, payload| {
        found.extend(parse_address(payload).filter(|(owner, ..)| *owner == index).map(|(_, a, s)| (a, s)));
    })?;
    Ok(found)
}

/// The destinations of all routes of this network namespace but the default routes, of both families.
pub(crate) fn route_destinations(conversation: &mut Conversation) -> Result<Vec<Subnet>, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("list the routes", RTM_GETROUTE, DUMP, |m| {
        m.raw(&[0; ROUTE_HEADER]);
    });
    let mut found = Vec::new();
    conversation.query(&batch, |_, payload| found.extend(parse_destination(payload)))?;
    Ok(found)
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(LINK_HEADER..)?;
    let kind = attribute(attributes, IFLA_LINKINFO)
        .and_then(|info| attribute(info, IFLA_INFO_KIND))
        .and_then(text)
        .unwrap_or_default();
    Some(Link {
        index: native_u32(payload, 4)?,
        name: text(attribute(attributes, IFLA_IFNAME)?)?.to_owned(),
        up: native_u32(payload, 8)? & IFF_UP != 0,
        kind: kind.to_owned(),
        master: attribute(attributes, IFLA_MASTER).and_then(|value| native_u32(value, 0)).unwrap_or(0),
        mac: attribute(attributes, IFLA_ADDRESS).and_then(|value| value.try_into().ok()),
    })
}

fn parse_address(payload: &[u8]) -> Option<(u32, IpAddr, Subnet)> {
    let attributes = payload.get(ADDRESS_HEADER..)?;
    if *payload.get(3)? != 0 {
        return None;
    }
    let value = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    let address = address_of(value)?;
    Some((native_u32(payload, 4)?, address, Subnet::new(address, *payload.get(1)?)?))
}

fn parse_destination(payload: &[u8]) -> Option<Subnet> {
    let prefix = *payload.get(1)?;
    let destination = address_of(attribute(payload.get(ROUTE_HEADER..)?, RTA_DST)?)?;
    let everyones = matches!(destination, IpAddr::V6(ip) if ip.is_multicast() || ip.is_unicast_link_local());
    Subnet::new(destination, prefix).filter(|_| prefix > 0 && !everyones)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// The messages as `ip -d` would need them, read back attribute by attribute.
    #[test]
    fn a_veth_pair_is_one_message_with_the_peer_inside() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut batch = Batch::new(1);
        let pair = VethPair {
            name: "stz0123",
            master: 5,
            peer_name: "eth0",
            peer_mac: [2, 0x53, 10, 1, 0, 2],
            peer_netns: file.as_fd(),
            mtu: 1400,
        };
        create_veth(&mut batch, &pair);
        let reply = super::super::message::replies(batch.bytes()).next().unwrap();
        assert_eq!((reply.kind, reply.payload.len() + 16), (RTM_NEWLINK, batch.bytes().len()));
        let outer = &reply.payload[LINK_HEADER..];
        let number = |bytes: &[u8], kind| native_u32(attribute(bytes, kind).unwrap(), 0).unwrap();
        assert_eq!(text(attribute(outer, IFLA_IFNAME).unwrap()), Some("stz0123"));
        assert_eq!(number(outer, IFLA_MASTER), 5);
        let info = attribute(outer, IFLA_LINKINFO).unwrap();
        assert_eq!(text(attribute(info, IFLA_INFO_KIND).unwrap()), Some("veth"));
        let data = attribute(info, IFLA_INFO_DATA).unwrap();
        let peer = &attribute(data, VETH_INFO_PEER).unwrap()[LINK_HEADER..];
        assert_eq!(text(attribute(peer, IFLA_IFNAME).unwrap()), Some("eth0"));
        assert_eq!(attribute(peer, IFLA_ADDRESS), Some(&[2, 0x53, 10, 1, 0, 2][..]));
        assert_eq!(number(peer, IFLA_NET_NS_FD), u32::try_from(file.as_raw_fd()).unwrap());
        for end in [outer, peer] {
            assert_eq!(
                [IFLA_MTU, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES].map(|k| number(end, k)),
                [1400, 1, 1]
            );
        }
    }

    #[test]
    fn an_address_message_has_prefix_index_and_broadcast() {
        let mut batch = Batch::new(1);
        let subnet: Subnet = "10.1.0.0/16".parse().unwrap();
        let address: IpAddr = "10.1.0.2".parse().unwrap();
        add_address(&mut batch, 9, address, subnet);
        let reply = super::super::message::replies(batch.bytes()).next().unwrap();
        assert_eq!(parse_address(reply.payload), Some((9, address, subnet)));
        let broadcast = attribute(&reply.payload[ADDRESS_HEADER..], IFA_BROADCAST);
        assert_eq!(broadcast, Some(&[10, 1, 255, 255][..]));
    }
}
