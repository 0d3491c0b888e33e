//! The host's side of a container's network, from nothing to reachable.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind, Protocol};

use crate::netlink::route::{self, Device};
use crate::netlink::{Conversation, Family, NetlinkError, conntrack};
use crate::{Driver, Endpoint, EndpointsPlan, InsideError, PortMap, bridge, card, inside, ports, rules};

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
    #[error("address `{address}` is of no subnet of the network `{network}`, or of its host")]
    Plan {
        /// The container's address.
        address: IpAddr,
        /// The network.
        network: String,
    },
    /// The network's card is not there.
    #[error("the host has no network card `{card}`")]
    NoCard {
        /// The card.
        card: String,
    },
    /// The container's device on a card cannot be made.
    #[error("cannot make a {kind} device on the network card `{card}`")]
    Card {
        /// The card.
        card: String,
        /// `macvlan`, `ipvlan`, or `card` when it is the card itself.
        kind: &'static str,
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
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
    /// A network cannot be left.
    #[error("cannot take the container out of the network")]
    Leave {
        /// What failed.
        #[source]
        source: Box<crate::DetachError>,
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
            AttachError::NoCard { .. } => ErrorKind::NotFound,
            AttachError::Leave { source } => source.kind(),
            AttachError::Card { source, .. } => source.kind(),
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
            AttachError::NoCard { .. } => Some(
                "`ip link` lists the network cards; `CARD.VLAN` is made when the card is there".to_owned(),
            ),
            AttachError::Bridge { source, .. }
            | AttachError::Veth { source, .. }
            | AttachError::Card { source, .. } => source.hint(),
            AttachError::Rules { source } if source.errno() == Some(Errno::NOENT) => {
                Some(format!("the table is not as stanza makes it: `nft delete table ip {}`", rules::TABLE))
            }
            AttachError::Rules { source } => source.hint(),
            AttachError::Inside { source, .. } => source.hint(),
            AttachError::Port { .. } | AttachError::Plan { .. } | AttachError::Leave { .. } => None,
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
    pub(crate) fn withdraw(&mut self, plan: &EndpointsPlan) -> Result<(), NetlinkError> {
        let ports = std::mem::take(&mut self.ports);
        let result = rules::withdraw(&mut self.netfilter, plan, &ports)
            .and_then(|()| forget_flows(&mut self.netfilter, &ports));
        self.sockets.clear();
        result
    }
}

/// Joins the network name space `netns` to the plan's networks and publishes the ports.
///
/// Makes bridges and the nft table when they are missing. After this the container has its addresses and its default
/// routes, and its first packet gets through. With bridge and table in place one endpoint is five
/// exchanges with the kernel, whatever the number of ports and containers.
///
/// Works on the calling thread's network name space as the host; the thread is in `netns` for a moment.
///
/// # Errors
///
/// Nothing of this container is left on the host then.
pub fn attach(plan: &EndpointsPlan, netns: BorrowedFd<'_>) -> Result<Attachment, AttachError> {
    plan.endpoints.iter().try_for_each(check)?;
    let mut taken = Vec::with_capacity(plan.ports.len());
    let mut sockets = Vec::with_capacity(plan.ports.len());
    for port in &plan.ports {
        let (socket, number) = ports::reserve(port)?;
        sockets.push(socket);
        taken.push(PortMap { host_port: Some(number), ..port.clone() });
    }
    let mut route = open_route(&plan.endpoints)?;
    let netfilter = join(&mut route, &plan.endpoints, netns)
        .and_then(|()| publish(plan, &taken))
        .inspect_err(|_| part(&mut route, &plan.endpoints))?;
    Ok(Attachment { ports: taken, sockets, netfilter })
}

/// Joins a container that runs to one more network, without a default route; its ports are published as before.
///
/// Nothing of this endpoint is left on the host when it fails.
pub(crate) fn attach_endpoint(endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<(), AttachError> {
    check(endpoint)?;
    let endpoints = std::slice::from_ref(endpoint);
    let mut route = open_route(endpoints)?;
    join(&mut route, endpoints, netns).inspect_err(|_| part(&mut route, endpoints))
}

/// Makes one endpoint of a container that runs its way out, in the place of the devices `others`.
pub(crate) fn lead_out_by(
    endpoint: &Endpoint,
    others: &[&str],
    netns: BorrowedFd<'_>,
) -> Result<(), AttachError> {
    inside::lead_out_by(endpoint, others, netns)
        .map_err(|source| AttachError::Inside { veth: endpoint.device.clone(), source })
}

/// A conversation about links; that there is none is told of the first bridge.
fn open_route(endpoints: &[Endpoint]) -> Result<Conversation, AttachError> {
    Conversation::open(Family::Route).map_err(|source| {
        let bridge = endpoints.iter().find_map(|endpoint| endpoint.network.bridge());
        AttachError::Bridge { bridge: bridge.map(|bridge| bridge.device.clone()).unwrap_or_default(), source }
    })
}

/// Makes the endpoints' devices, and brings them up from both sides.
fn join(route: &mut Conversation, endpoints: &[Endpoint], netns: BorrowedFd<'_>) -> Result<(), AttachError> {
    let mut bridges = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        match &endpoint.network.driver {
            Driver::Bridge(bridge) => {
                bridges.push((endpoint, &bridge.device, bridge::create(route, endpoint, bridge, netns)?));
            }
            Driver::Macvlan { .. } | Driver::Ipvlan { .. } => card::create(route, endpoint, netns)?,
        }
    }
    inside::configure(endpoints, netns).map_err(|source| {
        let devices: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.device.as_str()).collect();
        AttachError::Inside { veth: devices.join(", "), source }
    })?;
    for (endpoint, bridge, index) in bridges {
        // The first port of a bridge is also what gives the bridge itself its carrier.
        route::settle(route, &[Device::Name(&endpoint.device), Device::Index(index)]).map_err(|source| {
            AttachError::Veth { veth: endpoint.device.clone(), bridge: bridge.clone(), source }
        })?;
    }
    Ok(())
}

/// Goes back: what `join` made on the host. A device on a card is in the container, and goes with its namespace.
fn part(route: &mut Conversation, endpoints: &[Endpoint]) {
    let mut batch = route.batch();
    for endpoint in endpoints {
        route::delete_link(&mut batch, Device::Name(&endpoint.device));
    }
    // The reason for going back is told; that going back failed too would hide it.
    let _ = route.commit(batch);
}

/// Refuses addresses that no host of the network may have.
fn check(endpoint: &Endpoint) -> Result<(), AttachError> {
    let fits = |address: &IpAddr| {
        endpoint
            .network
            .subnet_of(*address)
            .is_some_and(|subnet| subnet.subnet.has_host(*address) && subnet.gateway != Some(*address))
    };
    match endpoint.addresses().find(|address| !fits(address)) {
        Some(address) => Err(AttachError::Plan { address, network: endpoint.network.name.clone() }),
        None => Ok(()),
    }
}

fn publish(plan: &EndpointsPlan, taken: &[PortMap]) -> Result<Conversation, AttachError> {
    let failed = |source| AttachError::Rules { source };
    let mut netfilter = Conversation::open(Family::Netfilter).map_err(failed)?;
    rules::publish(&mut netfilter, plan, taken).map_err(failed)?;
    forget_flows(&mut netfilter, taken).map_err(failed)?;
    Ok(netfilter)
}

/// Lets the next packet to each published UDP port be decided anew.
fn forget_flows(netfilter: &mut Conversation, ports: &[PortMap]) -> Result<(), NetlinkError> {
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    udp.filter_map(|port| port.host_port).try_for_each(|port| conntrack::forget_udp(netfilter, port))
}
