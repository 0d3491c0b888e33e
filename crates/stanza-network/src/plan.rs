//! What a container's network is to be: plain data, made without the kernel, applied by
//! [`attach`](crate::attach()).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use stanza_spec::{ContainerId, PortRequest, Protocol};

use crate::cni::CniPlan;
use crate::dns::ResolverPlan;
use crate::{SharedPlan, Subnet, UserModePlan};

/// The bridge of the default network.
pub const DEFAULT_BRIDGE: &str = "stanza0";
/// What the host's end of a container's veth begins with; twelve hexadecimal digits follow.
pub(crate) const DEVICE_PREFIX: &str = "stz";

/// A container's network.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum NetworkPlan {
    /// A namespace of its own with only loopback in it.
    None,
    /// The host's namespace.
    Host,
    /// The namespace of another container's first process; start time in clock ticks since boot.
    Join {
        /// The process, in the host's numbering.
        pid: i32,
        /// Its start time: with `pid` it names the process beyond reuse.
        start_time: u64,
    },
    /// A namespace of its own, joined to networks.
    Endpoints(EndpointsPlan),
    /// A namespace of its own with a way to the outside by a program of the user's.
    UserMode(UserModePlan),
    /// A namespace of its own, joined to what CNI plugins make.
    Cni(Box<CniPlan>),
}

/// A network that containers join.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How containers are joined to each other and to the outside.
    pub driver: Driver,
    /// The containers' addresses; none in a macvlan or ipvlan network whose addresses somebody else gives.
    pub subnets: Vec<NetworkSubnet>,
    /// The largest packet in bytes; `None` is the parent's, or 1500.
    pub mtu: Option<u32>,
    /// Nothing gets in or out: no default route, no masquerading, no answers from outside names.
    pub internal: bool,
}

/// One subnet of a network.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NetworkSubnet {
    /// Its addresses.
    pub subnet: Subnet,
    /// The containers' way out, of a bridge its own address; `None` is no way out.
    pub gateway: Option<IpAddr>,
    /// The part of it that addresses are chosen from; `None` is all of it.
    pub range: Option<Subnet>,
    /// Names and addresses that are not given to containers.
    pub reserved: Vec<(String, IpAddr)>,
}

/// How a network is made.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of this host, with a veth pair for each container.
    Bridge(Bridge),
    /// A device on a network card of the host, with a hardware address of its own.
    Macvlan {
        /// The card, or `CARD.VLAN`; empty is a network of containers only.
        parent: String,
        /// How they reach each other.
        mode: MacvlanMode,
    },
    /// A device on a network card of the host, with the card's hardware address.
    Ipvlan {
        /// The card, or `CARD.VLAN`; empty is a network of containers only.
        parent: String,
        /// What the card looks at.
        mode: IpvlanMode,
    },
}

/// What a bridge does.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Name of the device, at most 15 bytes; made when it does not exist.
    pub device: String,
    /// Packets that leave the host get its address.
    pub masquerade: bool,
    /// Containers of the network may talk to each other.
    pub peers: bool,
    /// The VLAN of the containers' ports.
    pub vlan: Option<u16>,
}

/// The modes of macvlan (`linux/if_link.h`).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// By the card itself.
    #[default]
    Bridge,
    /// Not at all.
    Private,
    /// By the switch that the card is connected to.
    Vepa,
    /// One device that has the card's address.
    Passthru,
}

/// The modes of ipvlan (`linux/if_link.h`).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    /// Frames.
    #[default]
    L2,
    /// Packets: the host routes.
    L3,
    /// Packets, seen by the host's netfilter.
    L3s,
}

/// A container in its networks.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct EndpointsPlan {
    /// The container.
    pub container: ContainerId,
    /// At least one; in the order of their devices.
    pub endpoints: Vec<Endpoint>,
    /// What is reachable from outside.
    pub ports: Vec<PortMap>,
    /// Whether the host's firewall has a say in that.
    pub publish: Publish,
    /// What its resolver tells; `None` in a container that asks the host's servers itself.
    #[serde(default)]
    pub resolver: Option<ResolverPlan>,
    /// The name space that has the bridges in the place of the host's: without root.
    #[serde(default)]
    pub shared: Option<SharedPlan>,
}

/// What becomes of published ports on a host whose firewall drops what is not allowed.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Publish {
    /// They are closed to the outside until the firewall's owner lets them through.
    #[default]
    RespectFirewall,
    /// They are open all the same.
    Open,
}

/// A container's place in one network.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The network.
    pub network: Network,
    /// Name of the device inside, as `eth0`.
    pub interface: String,
    /// Its IPv4 address, of one of the network's subnets.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, of one of the network's subnets.
    pub ipv6: Option<Ipv6Addr>,
    /// Its hardware address; of ipvlan the card's counts.
    pub mac: [u8; 6],
    /// Name of the veth's end on the host, at most 15 bytes.
    pub device: String,
    /// What others of the network find it by; the first is its name.
    pub names: Vec<String>,
    /// The way out leads through this network.
    pub default_route: bool,
}

/// A published port.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PortMap {
    /// The host's address; `None` is every address of both families, 0.0.0.0 and `::` every address of theirs.
    pub host_ip: Option<IpAddr>,
    /// The host's port; `None` in a plan lets the kernel choose, never `None` in an
    /// [`Attachment`](crate::Attachment).
    pub host_port: Option<u16>,
    /// The first and last of the host's ports that will do, when the choice is not the kernel's alone.
    #[serde(default)]
    pub host_range: Option<(u16, u16)>,
    /// The port inside.
    pub container_port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
}

impl From<&PortRequest> for PortMap {
    fn from(request: &PortRequest) -> PortMap {
        PortMap {
            host_ip: request.host_ip,
            host_port: request.host_port,
            host_range: request.host_range,
            container_port: request.container_port,
            protocol: request.protocol,
        }
    }
}

impl Network {
    /// The bridge, when it is one.
    #[must_use]
    pub fn bridge(&self) -> Option<&Bridge> {
        match &self.driver {
            Driver::Bridge(bridge) => Some(bridge),
            Driver::Macvlan { .. } | Driver::Ipvlan { .. } => None,
        }
    }

    /// The subnet that the address is in.
    #[must_use]
    pub fn subnet_of(&self, address: IpAddr) -> Option<&NetworkSubnet> {
        self.subnets.iter().find(|subnet| subnet.subnet.contains(address))
    }
}

impl NetworkSubnet {
    /// Whether an address may never be a container's.
    #[must_use]
    pub fn is_reserved(&self, address: IpAddr) -> bool {
        self.gateway == Some(address) || self.reserved.iter().any(|(_, reserved)| *reserved == address)
    }
}

impl Endpoint {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::from).into_iter().chain(self.ipv6.map(IpAddr::from))
    }

    /// Its addresses with the subnets that they are in.
    pub fn placed(&self) -> impl Iterator<Item = (IpAddr, &NetworkSubnet)> {
        self.addresses().filter_map(|address| Some((address, self.network.subnet_of(address)?)))
    }
}

/// The name of the host's end of a container's veth in a network: `stz` and twelve digits of a hash of both ids.
#[must_use]
pub fn device_of(container: &ContainerId, network: &str) -> String {
    let digits = endpoint_of(container, network);
    format!("{DEVICE_PREFIX}{}", digits.get(..12).unwrap_or(&digits))
}

/// The id of a container's place in a network: 64 hexadecimal digits, a hash of both ids.
#[must_use]
pub fn endpoint_of(container: &ContainerId, network: &str) -> String {
    let hash = Sha256::new().chain_update(container.as_str()).chain_update(network).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hardware address that goes with an address: locally administered, unicast, and unique where the address
/// is, so that a neighbour's cache is still right when an address comes back with another container.
#[must_use]
pub fn mac_of(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0x02, 0x53, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(address.octets()).into();
            [0x02, 0x56, a, b, c, d]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_hardware_addresses_follow_from_ids_and_addresses() {
        let id = ContainerId::from_random([0xab; 32]);
        let device = device_of(&id, "n1");
        assert!(device.len() == 15 && device.starts_with("stz"), "{device}");
        assert_eq!(device, device_of(&id, "n1"));
        assert_ne!(device, device_of(&id, "n2"));
        let endpoint = endpoint_of(&id, "n1");
        assert!(endpoint.len() == 64 && endpoint.starts_with(&device[3..]), "{endpoint}");
        assert_ne!(device, device_of(&ContainerId::from_random([1; 32]), "n1"));
        assert_eq!(mac_of("10.77.0.2".parse().unwrap()), [0x02, 0x53, 10, 77, 0, 2]);
        let six = mac_of("fd00::2".parse().unwrap());
        assert_eq!(six[..2], [0x02, 0x56]);
        assert_ne!(six, mac_of("fd00::3".parse().unwrap()));
    }
}
