//! The host's side of a container's network, from nothing to reachable.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind, Protocol};

use crate::netlink::route::{self, Device};
use crate::netlink::{Conversation, Family, NetlinkError, conntrack};
use crate::ports::Held;
use crate::rules::Targets;
use crate::shared::{self, Membership, SharedError};
use crate::{
    Driver, Endpoint, EndpointsPlan, InsideError, PortMap, Publish, bridge, card, firewall, inside, ports,
    rules,
};

/// Why a container could not be joined to its network. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody holds the port.
    #[error("cannot publish {} port `{address}`: it is taken", name(*.protocol))]
    PortTaken {
        /// Address and port of the host.
        address: SocketAddr,
        /// TCP, UDP or SCTP.
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
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Somebody holds every port of the range.
    #[error("cannot publish one of the {} ports {first} to {last}: all are taken", name(*.protocol))]
    RangeTaken {
        /// The first of the host's ports.
        first: u16,
        /// The last of them.
        last: u16,
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// The kernel's answer.
        #[source]
        source: io::Error,
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
    /// A machine's own device cannot be made.
    #[error("cannot make the tap device `{tap}`")]
    Tap {
        /// The device.
        tap: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A machine cannot be in a network of this kind.
    #[error("a virtual machine cannot be in the network `{network}`, which is not a bridge")]
    NoTap {
        /// The network.
        network: String,
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
    /// The user's shared name space cannot be used.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The rules cannot be changed.
    #[error("cannot set up the nft tables `{}` and `{}`", rules::HOST, rules::GUARD)]
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
        Protocol::Sctp => "SCTP",
    }
}

/// Whether a refusal is one that a table of ours, whole and of this version, does not give.
fn is_foreign(source: &NetlinkError) -> bool {
    matches!(source.errno(), Some(Errno::NOENT | Errno::EXIST | Errno::INVAL))
}

/// What makes `ss` list a protocol's holders of ports.
fn listing(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "-ltnp",
        Protocol::Udp => "-lunp",
        Protocol::Sctp => "-lSnp",
    }
}

impl Classify for AttachError {
    fn kind(&self) -> ErrorKind {
        match self {
            AttachError::PortTaken { .. } | AttachError::RangeTaken { .. } => ErrorKind::Conflict,
            AttachError::AddressNotLocal { .. } | AttachError::Plan { .. } => ErrorKind::InvalidArgument,
            AttachError::NotABridge { .. } => ErrorKind::AlreadyExists,
            AttachError::NoTap { .. } => ErrorKind::Unsupported,
            AttachError::Port { source, .. }
            | AttachError::Sysctl { source, .. }
            | AttachError::Tap { source, .. } => ErrorKind::of_io(source),
            AttachError::Bridge { source, .. }
            | AttachError::Veth { source, .. }
            | AttachError::Rules { source } => source.kind(),
            AttachError::Inside { source, .. } => source.kind(),
            AttachError::NoCard { .. } => ErrorKind::NotFound,
            AttachError::Leave { source } => source.kind(),
            AttachError::Shared(source) => source.kind(),
            AttachError::Card { source, .. } => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            AttachError::PortTaken { address, protocol, .. } => {
                let (option, port) = (listing(*protocol), address.port());
                Some(format!(
                    "see who holds it with `stanza ps` and `ss {option} 'sport = :{port}'`, or publish another port"
                ))
            }
            AttachError::RangeTaken { protocol, .. } => {
                let option = listing(*protocol);
                Some(format!("see who holds them with `stanza ps` and `ss {option}`, or publish other ports"))
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
            AttachError::NotABridge { device } => Some(format!("rename or delete the device `{device}`")),
            AttachError::Sysctl { .. } => Some("it needs root, and `/proc/sys` mounted writable".to_owned()),
            AttachError::Tap { .. } => Some("it needs `/dev/net/tun`: `modprobe tun`".to_owned()),
            AttachError::NoTap { .. } => Some("use a network with the driver `bridge`".to_owned()),
            AttachError::NoCard { .. } => Some(
                "`ip link` lists the network cards; `CARD.VLAN` is made when the card is there".to_owned(),
            ),
            // `br_if.c`, `find_portno`: a port's number has ten bits, and is not zero.
            AttachError::Veth { source, bridge, .. } if source.errno() == Some(Errno::XFULL) => {
                Some(format!(
                    "the bridge `{bridge}` has the 1023 containers that a bridge of the kernel can have: make another network"
                ))
            }
            AttachError::Bridge { source, .. }
            | AttachError::Veth { source, .. }
            | AttachError::Card { source, .. } => source.hint(),
            AttachError::Rules { source } if is_foreign(source) => Some(format!(
                "a table is not as stanza makes it: `nft delete table {}`, `nft delete table {}`, `stanza network reload`",
                rules::HOST,
                rules::GUARD
            )),
            AttachError::Rules { source } => source.hint(),
            AttachError::Inside { source, .. } => source.hint(),
            AttachError::Shared(source) => source.hint(),
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
    sockets: Vec<Held>,
    targets: Targets,
    made_rules: bool,
    /// Kept for the ports' end. Closing such a socket waits for everything that any transaction of the name space
    /// has deleted to be freed (`nft_rcv_nl_event`), some 10 ms: nothing to do while a container starts or ends.
    netfilter: Conversation,
    /// Its rules are gone.
    withdrawn: bool,
    shared: Option<Membership>,
}

/// A published port that the kernel cannot lead to the container: somebody has to carry the data.
#[derive(Debug)]
pub struct Proxied {
    /// Bound, does not block; of TCP it listens. Nobody else has the port before every copy of it is closed.
    pub socket: OwnedFd,
    /// What it is bound to.
    pub address: SocketAddr,
    /// Where in the container what comes to it belongs; the host reaches it.
    pub target: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Attachment {
    /// The published ports with the host ports that were really taken, in the plan's order.
    ///
    /// None when the container is in no network that a port can lead to: of a bridge, and not internal.
    #[must_use]
    pub fn ports(&self) -> &[PortMap] {
        &self.ports
    }

    /// The host had no tables of ours, or not all of them: what they knew of other containers is gone, until these are told to
    /// [`change`](crate::change()) with all anew.
    #[must_use]
    pub fn made_rules(&self) -> bool {
        self.made_rules
    }

    /// The published ports that a proxy has to serve: those of `::1`, and those of one family when the container has only
    /// an address of the other; all, where the bridges are in a name space of the user's ([`Attachment::bridges`]). Until this is
    /// called, their clients are refused; then they wait.
    ///
    /// The sockets are copies. After a change of the networks it is asked for again, and the earlier answer is void: clients of
    /// ports that nobody is to serve any more are refused.
    ///
    /// # Errors
    ///
    /// When a socket cannot listen or be copied: `EMFILE`.
    pub fn proxied(&mut self) -> io::Result<Vec<Proxied>> {
        let mut found = Vec::new();
        for held in &mut self.sockets {
            let target = match self.shared {
                Some(_) => held.target(self.targets),
                None => held.proxied(self.targets),
            };
            let proxied = held.address.zip(target);
            held.set_listening(proxied.is_some())?;
            let Some((address, target)) = proxied else { continue };
            let socket = held.socket.try_clone()?;
            found.push(Proxied { socket, address, target, protocol: held.protocol });
        }
        Ok(found)
    }

    /// The network name space that has the bridges, and from which the targets of [`Attachment::proxied`] are reached; `None`
    /// is the host's own.
    #[must_use]
    pub fn bridges(&self) -> Option<BorrowedFd<'_>> {
        self.shared.as_ref().map(Membership::netns)
    }

    /// The container comes to have other addresses; with the first that ports can lead to they are taken.
    pub(crate) fn retarget(&mut self, plan: &EndpointsPlan) -> Result<(), AttachError> {
        let targets = Targets::of(plan);
        if self.ports.is_empty() {
            (self.ports, self.sockets) = take_ports(plan, targets)?;
        }
        self.targets = targets;
        Ok(())
    }

    /// Does what is done in the name space of the bridges.
    pub(crate) fn at_bridges<T: Send>(
        &mut self,
        action: impl FnOnce(&mut Conversation) -> T + Send,
    ) -> Result<T, SharedError> {
        let netfilter = &mut self.netfilter;
        match &self.shared {
            Some(shared) => shared.run(|| action(netfilter)),
            None => Ok(action(netfilter)),
        }
    }

    /// The ports that the rules lead to the container: none where a proxy does.
    pub(crate) fn led_by_rules(&self) -> &[PortMap] {
        if self.shared.is_some() { &[] } else { &self.ports }
    }

    /// Takes the rules for the container away, then sets the ports free; twice does no harm.
    ///
    /// The sockets are closed last: while they are open nobody else can have taken the ports.
    pub(crate) fn withdraw(&mut self, plan: &EndpointsPlan) -> Result<(), NetlinkError> {
        // A transaction that finds nothing is aborted, for which the kernel waits until nobody reads the rules (RCU): 10 ms.
        if self.withdrawn {
            return Ok(());
        }
        let mut ports = std::mem::take(&mut self.ports);
        if self.shared.is_some() {
            ports.clear();
        }
        let result = rules::withdraw(&mut self.netfilter, plan, &ports)
            .and_then(|()| forget_flows(&mut self.netfilter, &ports));
        self.sockets.clear();
        self.withdrawn = result.is_ok();
        result
    }
}

/// Joins the network name space `netns` to the plan's networks and publishes the ports.
///
/// Makes bridges and the nft tables when they are missing. After this the container has its addresses and its default
/// routes, can send from no others, and its first packet gets through. With bridge and tables in place one
/// endpoint is five exchanges with the kernel, whatever the number of ports and containers.
///
/// Works on the calling thread's network name space as the host; the thread is in `netns` for a moment.
///
/// # Errors
///
/// Nothing of this container is left on the host then.
pub fn attach(plan: &EndpointsPlan, netns: BorrowedFd<'_>) -> Result<Attachment, AttachError> {
    attach_side(plan, &mut Side::Container(netns))
}

/// Joins a virtual machine to the plan's networks and publishes the ports: as [`attach`], but for the other side, which is the
/// machine's own business. Gives the descriptors of the machine's network cards too, in the order of the endpoints: frames go
/// in and out by them, with virtio's header. With them the devices go.
///
/// # Errors
///
/// Nothing of this machine is left on the host then.
pub fn attach_machine(plan: &EndpointsPlan) -> Result<(Attachment, Vec<OwnedFd>), AttachError> {
    let mut taps = Vec::with_capacity(plan.endpoints.len());
    let attachment = attach_side(plan, &mut Side::Machine(&mut taps))?;
    Ok((attachment, taps))
}

/// What is joined to the networks.
enum Side<'a> {
    /// Whatever is in this network name space.
    Container(BorrowedFd<'a>),
    /// A machine: its cards come here.
    Machine(&'a mut Vec<OwnedFd>),
}

fn attach_side(plan: &EndpointsPlan, side: &mut Side<'_>) -> Result<Attachment, AttachError> {
    plan.endpoints.iter().try_for_each(check)?;
    let targets = Targets::of(plan);
    let (taken, sockets) = take_ports(plan, targets)?;
    let member = plan.shared.as_ref().map(Membership::join).transpose()?;
    let (netfilter, made_rules) = match &member {
        None => attach_here(plan, &taken, side)?,
        // Its ports are a proxy's.
        Some(member) => member.run(|| attach_here(&shared::inner(plan), &[], side))??,
    };
    Ok(Attachment { ports: taken, sockets, targets, made_rules, netfilter, withdrawn: false, shared: member })
}

/// The part that is done in the name space of the bridges, which the calling thread is in.
fn attach_here(
    plan: &EndpointsPlan,
    taken: &[PortMap],
    side: &mut Side<'_>,
) -> Result<(Conversation, bool), AttachError> {
    let mut route = open_route(&plan.endpoints)?;
    let (netfilter, made_rules) = join(&mut route, &plan.endpoints, side)
        .and_then(|()| publish(plan, taken))
        .inspect_err(|_| part(&mut route, &plan.endpoints))?;
    Ok((netfilter, made_rules))
}

/// Takes the plan's ports. As with Docker, in a network that nothing enters there is nothing to publish.
fn take_ports(plan: &EndpointsPlan, targets: Targets) -> Result<(Vec<PortMap>, Vec<Held>), AttachError> {
    let wanted = if targets.is_empty() { &[][..] } else { &plan.ports };
    let mut taken = Vec::with_capacity(wanted.len());
    let mut sockets = Vec::with_capacity(wanted.len());
    for port in wanted.iter().filter(|port| plan.shared.is_none() || shared::can_publish(port.protocol)) {
        let reserved = ports::reserve(port)?;
        sockets.extend(reserved.sockets);
        taken.push(PortMap { host_port: Some(reserved.number), ..port.clone() });
    }
    Ok((taken, sockets))
}

/// Joins a container that runs to one more network, without a default route; its ports are published as before.
///
/// Nothing of this endpoint is left on the host when it fails.
pub(crate) fn attach_endpoint(endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<(), AttachError> {
    check(endpoint)?;
    let endpoints = std::slice::from_ref(endpoint);
    let mut route = open_route(endpoints)?;
    join(&mut route, endpoints, &mut Side::Container(netns)).inspect_err(|_| part(&mut route, endpoints))
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
fn join(route: &mut Conversation, endpoints: &[Endpoint], side: &mut Side<'_>) -> Result<(), AttachError> {
    let mut bridges = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        match (&endpoint.network.driver, &mut *side) {
            (Driver::Bridge(bridge), Side::Container(netns)) => {
                bridges.push((endpoint, &bridge.device, bridge::create(route, endpoint, bridge, *netns)?));
            }
            (Driver::Bridge(bridge), Side::Machine(taps)) => {
                let (index, tap) = bridge::create_tap(route, endpoint, bridge)?;
                taps.push(tap);
                bridges.push((endpoint, &bridge.device, index));
            }
            (Driver::Macvlan { .. } | Driver::Ipvlan { .. }, Side::Container(netns)) => {
                card::create(route, endpoint, *netns)?;
            }
            (Driver::Macvlan { .. } | Driver::Ipvlan { .. }, Side::Machine(_)) => {
                return Err(AttachError::NoTap { network: endpoint.network.name.clone() });
            }
        }
    }
    if let Side::Container(netns) = side {
        inside::configure(endpoints, *netns).map_err(|source| {
            let devices: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.device.as_str()).collect();
            AttachError::Inside { veth: devices.join(", "), source }
        })?;
    }
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

/// The conversation about rules, and whether they had to be made.
fn publish(plan: &EndpointsPlan, taken: &[PortMap]) -> Result<(Conversation, bool), AttachError> {
    let failed = |source| AttachError::Rules { source };
    let mut netfilter = Conversation::open(Family::Netfilter).map_err(failed)?;
    let made_first = respect_firewall(&mut netfilter, plan, taken).map_err(failed)?;
    let made = rules::publish(&mut netfilter, plan, taken).map_err(failed)?;
    forget_flows(&mut netfilter, taken).map_err(failed)?;
    Ok((netfilter, made_first || made))
}

/// Tells the rules what the host's firewall does, when it has a say and there is something to say it of; whether rules had to
/// be made for that.
pub(crate) fn respect_firewall(
    netfilter: &mut Conversation,
    plan: &EndpointsPlan,
    taken: &[PortMap],
) -> Result<bool, NetlinkError> {
    if taken.is_empty() || plan.publish == Publish::Open {
        return Ok(false);
    }
    let families = firewall::look(netfilter)?.families();
    rules::set_guarded(netfilter, &families)
}

/// Lets the next packet to each published UDP port be decided anew.
pub(crate) fn forget_flows(netfilter: &mut Conversation, ports: &[PortMap]) -> Result<(), NetlinkError> {
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    let numbers: BTreeSet<u16> = udp.filter_map(|port| port.host_port).collect();
    conntrack::forget_udp(netfilter, &numbers)
}
