//! What a container's network is to be: plain data, made without the kernel, applied by
//! [`attach`](crate::attach()).

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use stanza_spec::{ContainerId, PortRequest, Protocol};

use crate::Subnet;

/// The bridge of the default network.
pub const DEFAULT_BRIDGE: &str = "stanza0";
/// The largest packet on a bridge in bytes, unless told otherwise.
pub const DEFAULT_MTU: u32 = 1500;
/// What the host's end of a container's veth begins with; twelve digits of the container's id follow.
pub(crate) const VETH_PREFIX: &str = "stz";

/// A container's network.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum NetworkPlan {
    /// A name space of its own with only loopback in it.
    None,
    /// The host's name space.
    Host,
    /// A name space of its own, joined to a bridge.
    Bridge(BridgePlan),
}

/// A network: a bridge of the host, its subnet and the host's address in it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Name of the bridge device, at most 15 bytes.
    pub bridge: String,
    /// The containers' addresses.
    pub subnet: Subnet,
    /// The bridge's own address, the containers' way out.
    pub gateway: Ipv4Addr,
    /// The largest packet in bytes.
    pub mtu: u32,
}

/// One container's place in a network.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct BridgePlan {
    /// Name of the bridge device, at most 15 bytes; made when it does not exist.
    pub bridge: String,
    /// The bridge's address, the container's default route.
    pub gateway: Ipv4Addr,
    /// Bits of the subnet's prefix, at most 30.
    pub prefix: u8,
    /// The container's address, in the gateway's subnet.
    pub address: Ipv4Addr,
    /// The hardware address of the container's `eth0`.
    pub mac: [u8; 6],
    /// Name of the veth's host end, at most 15 bytes.
    pub veth: String,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// What is reachable from outside.
    pub ports: Vec<PortMap>,
}

/// A published port.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PortMap {
    /// The host's address; `None` and 0.0.0.0 are every IPv4 address.
    pub host_ip: Option<IpAddr>,
    /// The host's port; `None` in a plan lets the kernel choose, never `None` in an
    /// [`Attachment`](crate::Attachment).
    pub host_port: Option<u16>,
    /// The port inside.
    pub container_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl From<&PortRequest> for PortMap {
    fn from(request: &PortRequest) -> PortMap {
        PortMap {
            host_ip: request.host_ip,
            host_port: request.host_port,
            container_port: request.container_port,
            protocol: request.protocol,
        }
    }
}

impl BridgePlan {
    /// The plan for the container `id` at `address`; device name and hardware address follow from those two.
    #[must_use]
    pub fn new(id: &ContainerId, network: &Network, address: Ipv4Addr, ports: Vec<PortMap>) -> BridgePlan {
        BridgePlan {
            bridge: network.bridge.clone(),
            gateway: network.gateway,
            prefix: network.subnet.prefix(),
            address,
            mac: mac_of(address),
            veth: veth_of(id),
            mtu: network.mtu,
            ports,
        }
    }

    /// The subnet that gateway and container are in; `None` when the prefix is above 32.
    #[must_use]
    pub fn subnet(&self) -> Option<Subnet> {
        Subnet::new(self.gateway, self.prefix)
    }
}

/// The name of the host's end of a container's veth: `stz` and the short id, 15 bytes.
#[must_use]
pub fn veth_of(id: &ContainerId) -> String {
    format!("{VETH_PREFIX}{}", id.short())
}

/// The hardware address that goes with an address: locally administered, unicast, and unique where the address
/// is, so that a neighbour's cache is still right when an address comes back with another container.
#[must_use]
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x53, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_name_and_hardware_address_follow_from_id_and_address() {
        let id = ContainerId::from_random([0xab; 32]);
        let network = Network {
            bridge: DEFAULT_BRIDGE.to_owned(),
            subnet: "10.77.0.0/16".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 77, 0, 1),
            mtu: DEFAULT_MTU,
        };
        let plan = BridgePlan::new(&id, &network, Ipv4Addr::new(10, 77, 0, 2), Vec::new());
        assert_eq!(plan.veth, "stzabababababab");
        assert_eq!(plan.veth.len(), 15);
        assert_eq!(plan.mac, [0x02, 0x53, 10, 77, 0, 2]);
        assert_eq!(plan.subnet(), Some(network.subnet));
    }
}
