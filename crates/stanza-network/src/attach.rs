//! The host's side of a container's network, from nothing to reachable.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind, Protocol};

use crate::netlink::route::{self, Device, VethPair};
use crate::netlink::{Conversation, Family, NetlinkError, conntrack};
use crate::{BridgePlan, InsideError, PortMap, Subnet, bridge, inside, ports, rules};

/// Why a container could not be joined to its network. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody holds the port.
    #[error("cannot publish {} port `{address}`: it is taken", name(*.protocol))]
    PortTaken {
        /// Address and port of the host.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The address to publish on is not the host's.
    #[error("cannot publish a port on `{address}`: it is no address of this host")]
    AddressNotLocal {
        /// The address asked for.
        address: IpAddr,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The port cannot be bound for another reason.
    #[error("cannot publish {} port `{address}`", name(*.protocol))]
    Port {
        /// Address and port of the host.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Ports are published on IPv4 addresses only.
    #[error("cannot publish a port on `{address}`: IPv6 is not supported")]
    Ipv6Port {
        /// The address asked for.
        address: Ipv6Addr,
    },
    /// The plan contradicts itself.
    #[error(
        "address `{address}` and gateway `{gateway}` are not two hosts of one subnet with prefix `{prefix}`"
    )]
    Plan {
        /// The container's address.
        address: IpAddr,
        /// The bridge's address.
        gateway: IpAddr,
        /// Bits of the prefix.
        prefix: u8,
    },
    /// The bridge's name belongs to another kind of device.
    #[error("network device `{device}` is no bridge")]
    NotABridge {
        /// The device.
        device: String,
    },
    /// The bridge cannot be made.
    #[error("cannot set up the bridge `{bridge}`")]
    Bridge {
        /// The bridge.
        bridge: String,
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
    /// A kernel setting cannot be made.
    #[error("cannot write `{value}` to `{path}`")]
    Sysctl {
        /// The setting.
        path: String,
        /// The value.
        value: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The container's own device cannot be made.
    #[error("cannot join the container to the bridge `{bridge}` by `{veth}`")]
    Veth {
        /// The host's end.
        veth: String,
        /// The bridge.
        bridge: String,
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
    /// The container's end cannot be configured.
    #[error("cannot configure the container's end of the network device `{veth}`")]
    Inside {
        /// The host's end.
        veth: String,
        /// What failed.
        #[source]
        source: InsideError,
    },
    /// The rules cannot be changed.
    #[error("cannot set up address translation in the nft table `ip {}`", rules::TABLE)]
    Rules {
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

impl Classify for AttachError {
    fn kind(&self) -> ErrorKind {
        match self {
            AttachError::PortTaken { .. } => ErrorKind::Conflict,
            AttachError::AddressNotLocal { .. } | AttachError::Plan { .. } => ErrorKind::InvalidArgument,
            AttachError::Ipv6Port { .. } => ErrorKind::Unsupported,
            AttachError::NotABridge { .. } => ErrorKind::AlreadyExists,
            AttachError::Port { source, .. } | AttachError::Sysctl { source, .. } => ErrorKind::of_io(source),
            AttachError::Bridge { source, .. }
            | AttachError::Veth { source, .. }
            | AttachError::Rules { source } => source.kind(),
            AttachError::Inside { source, .. } => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            AttachError::PortTaken { address, protocol, .. } => {
                let option = match protocol {
                    Protocol::Tcp => "-ltnp",
                    Protocol::Udp => "-lunp",
                };
                let port = address.port();
                Some(format!(
                    "see who holds it with `stanza ps` and `ss {option} 'sport = :{port}'`, or publish another port"
                ))
            }
            AttachError::Port { address, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!(
                    "port {} is for root, or lower `net.ipv4.ip_unprivileged_port_start`",
                    address.port()
                ))
            }
            AttachError::AddressNotLocal { .. } => {
                Some("`ip address` lists the addresses of this host".to_owned())
            }
            AttachError::Ipv6Port { .. } => {
                Some("publish on an IPv4 address, or leave the address out".to_owned())
            }
            AttachError::NotABridge { device } => Some(format!("rename or delete the device `{device}`")),
            AttachError::Sysctl { .. } => Some("it needs root, and `/proc/sys` mounted writable".to_owned()),
            AttachError::Bridge { source, .. } | AttachError::Veth { source, .. } => source.hint(),
            AttachError::Rules { source } if source.errno() == Some(Errno::NOENT) => {
                Some(format!("the table is not as stanza makes it: `nft delete table ip {}`", rules::TABLE))
            }
            AttachError::Rules { source } => source.hint(),
            AttachError::Inside { source, .. } => source.hint(),
            AttachError::Port { .. } | AttachError::Plan { .. } => None,
        }
    }
}

/// A container's hold on the host: the sockets that keep its published ports.
///
/// Dropping it gives the ports free but takes nothing else down; that is [`detach`](crate::detach())'s.
#[derive(Debug)]
pub struct Attachment {
    ports: Vec<PortMap>,
    /// Never read: they only have to stay open.
    sockets: Vec<OwnedFd>,
    /// Kept for the ports' end. Closing such a socket waits for everything that any transaction of the name space
    /// has deleted to be freed (`nft_rcv_nl_event`), some 10 ms: nothing to do while a container starts or ends.
    netfilter: Conversation,
}

impl Attachment {
    /// The published ports with the host ports that were really taken, in the plan's order.
    #[must_use]
    pub fn ports(&self) -> &[PortMap] {
        &self.ports
    }

    /// Takes the rules for the ports away, then sets the ports free; twice does no harm.
    ///
    /// The sockets are closed last: while they are open nobody else can have taken the ports.
    pub(crate) fn withdraw(&mut self, address: Ipv4Addr) -> Result<(), NetlinkError> {
        let ports = std::mem::take(&mut self.ports);
        let result = rules::withdraw(&mut self.netfilter, &ports, address)
            .and_then(|()| forget_flows(&mut self.netfilter, &ports));
        self.sockets.clear();
        result
    }
}

/// Joins the network name space `netns` to the plan's bridge and publishes the ports.
///
/// Makes the bridge and the nft table when they are missing. The container's end is called `eth0`; after this it has
/// its address and its default route, and its first packet gets through. With bridge and table in place this is five
/// exchanges with the kernel, whatever the number of ports and containers.
///
/// Works on the calling thread's network name space as the host; the thread is in `netns` for a moment.
///
/// # Errors
///
/// Nothing of this container is left on the host then.
pub fn attach(plan: &BridgePlan, netns: BorrowedFd<'_>) -> Result<Attachment, AttachError> {
    let subnet = subnet_of(plan)?;
    let mut taken = Vec::with_capacity(plan.ports.len());
    let mut sockets = Vec::with_capacity(plan.ports.len());
    for port in &plan.ports {
        let (socket, number) = ports::reserve(port)?;
        sockets.push(socket);
        taken.push(PortMap { host_port: Some(number), ..port.clone() });
    }
    let mut route = Conversation::open(Family::Route)
        .map_err(|source| AttachError::Bridge { bridge: plan.bridge.clone(), source })?;
    let bridge = create_veth(&mut route, plan, subnet, netns)?;
    let netfilter = connect(&mut route, plan, subnet, netns, bridge)
        .and_then(|()| publish(plan, subnet, &taken))
        .inspect_err(|_| {
            let mut batch = route.batch();
            route::delete_link(&mut batch, Device::Name(&plan.veth));
            // The reason for going back is told; that going back failed too would hide it.
            let _ = route.commit(batch);
        })?;
    Ok(Attachment { ports: taken, sockets, netfilter })
}

/// Brings the container's end up, and then frames through the bridge.
fn connect(
    route: &mut Conversation,
    plan: &BridgePlan,
    subnet: Subnet,
    netns: BorrowedFd<'_>,
    bridge: u32,
) -> Result<(), AttachError> {
    inside::configure(plan, subnet, netns)
        .map_err(|source| AttachError::Inside { veth: plan.veth.clone(), source })?;
    // The first port of a bridge is also what gives the bridge itself its carrier.
    route::settle(route, &[Device::Name(&plan.veth), Device::Index(bridge)])
        .map_err(|source| AttachError::Veth { veth: plan.veth.clone(), bridge: plan.bridge.clone(), source })
}

fn subnet_of(plan: &BridgePlan) -> Result<Subnet, AttachError> {
    plan.subnet()
        .filter(|subnet| {
            let is_host = |ip| subnet.contains(ip) && ip != subnet.network() && ip != subnet.broadcast();
            subnet.prefix() <= 30
                && is_host(plan.address)
                && is_host(plan.gateway)
                && plan.address != plan.gateway
        })
        .ok_or(AttachError::Plan {
            address: plan.address.into(),
            gateway: plan.gateway.into(),
            prefix: plan.prefix,
        })
}

/// Creates the pair with the host's end up; returns the bridge's index.
fn create_veth(
    route: &mut Conversation,
    plan: &BridgePlan,
    subnet: Subnet,
    netns: BorrowedFd<'_>,
) -> Result<u32, AttachError> {
    let failed = |source| AttachError::Veth { veth: plan.veth.clone(), bridge: plan.bridge.clone(), source };
    // Once for a device that a dead container left, once for a bridge that went away.
    let mut second_chances = 2;
    loop {
        let master = bridge::ensure(route, plan, subnet)?;
        let mut batch = route.batch();
        route::create_veth(
            &mut batch,
            &VethPair {
                name: &plan.veth,
                master,
                peer_name: inside::DEVICE,
                peer_mac: plan.mac,
                peer_netns: netns,
                mtu: plan.mtu,
            },
        );
        let silence = route::silence_ipv6(&mut batch, Device::Name(&plan.veth));
        route::bring_port_up(&mut batch, Device::Name(&plan.veth));
        let refusals = route.commit(batch).map_err(failed)?;
        let Some(refusal) = refusals.into_iter().find(|refusal| refusal.index != silence) else {
            return Ok(master);
        };
        match refusal.errno {
            Errno::EXIST if second_chances > 0 => {
                // The name is made from the container's id, so this is its own from an earlier life. The kernel
                // takes a name space down some time after its last process, and may be at it right now.
                let mut batch = route.batch();
                route::delete_link(&mut batch, Device::Name(&plan.veth));
                bridge::tolerate(route.commit_all(batch), Errno::NODEV).map_err(failed)?;
            }
            Errno::NODEV if second_chances > 0 => {}
            _ => return Err(failed(refusal.into())),
        }
        second_chances -= 1;
    }
}

fn publish(plan: &BridgePlan, subnet: Subnet, taken: &[PortMap]) -> Result<Conversation, AttachError> {
    let failed = |source| AttachError::Rules { source };
    let mut netfilter = Conversation::open(Family::Netfilter).map_err(failed)?;
    rules::publish(&mut netfilter, &plan.bridge, subnet, taken, plan.address).map_err(failed)?;
    forget_flows(&mut netfilter, taken).map_err(failed)?;
    Ok(netfilter)
}

/// Lets the next packet to each published UDP port be decided anew.
fn forget_flows(netfilter: &mut Conversation, ports: &[PortMap]) -> Result<(), NetlinkError> {
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    udp.filter_map(|port| port.host_port).try_for_each(|port| conntrack::forget_udp(netfilter, port))
}
