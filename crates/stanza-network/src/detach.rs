//! Taking a container's network down, and what dead owners left.

use std::collections::HashSet;
use std::net::IpAddr;

use rustix::io::Errno;
use stanza_spec::{Classify, ErrorKind};

use crate::netlink::route::{self, Device};
use crate::netlink::{Conversation, Family, NetlinkError, conntrack};
use crate::plan::DEVICE_PREFIX;
use crate::shared::{self, within_shared};
use crate::{Attachment, Endpoint, EndpointsPlan, Network, bridge, card, rules};

/// What could not be taken down.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The host's end of the veth.
    #[error("cannot remove the network device `{veth}`")]
    Veth {
        /// The device.
        veth: String,
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
    /// The device of a network.
    #[error("cannot remove the device of the network `{network}`")]
    Network {
        /// The network.
        network: String,
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
    /// The published ports.
    #[error("cannot withdraw a container from the nft tables `{}` and `{}`", rules::HOST, rules::GUARD)]
    Ports {
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
    /// The leftovers could not even be looked for.
    #[error("cannot look for left-over devices on the bridge `{bridge}`")]
    Look {
        /// The bridge.
        bridge: String,
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
}

impl Classify for DetachError {
    fn kind(&self) -> ErrorKind {
        match self {
            DetachError::Veth { source, .. }
            | DetachError::Network { source, .. }
            | DetachError::Ports { source }
            | DetachError::Look { source, .. } => source.kind(),
        }
    }
}

/// Takes down what [`attach`](crate::attach()) made for one container; bridges and the table stay.
///
/// With the attachment its ports are withdrawn, then set free. Without it (its owner crashed) every published port
/// that leads to one of the plan's addresses is. Doing it twice does no harm. All steps are tried; the result is what failed.
///
/// The kernel makes whoever deletes a veth wait for it, some 40 ms in all. An owner who sees the container's name space die
/// may be content with [`withdraw_ports`].
pub fn detach(plan: &EndpointsPlan, attachment: Option<Attachment>) -> Vec<DetachError> {
    let Some(shared) = &plan.shared else { return detach_here(plan, attachment) };
    let inner = shared::inner(plan);
    let outcome = match attachment {
        Some(mut attachment) => {
            let withdrawn = withdraw_ports(plan, &mut attachment);
            let parted = attachment.at_bridges(|_| part(plan));
            parted.map(|errors| Some(withdrawn.err().into_iter().chain(errors).collect()))
        }
        None => within_shared(&shared.directory, || detach_here(&inner, None)),
    };
    // Who may not enter it leaves what is there to the name space's own end, or to whoever uses the same names again.
    outcome.ok().flatten().unwrap_or_default()
}

fn detach_here(plan: &EndpointsPlan, attachment: Option<Attachment>) -> Vec<DetachError> {
    let is_ours =
        |address| plan.endpoints.iter().any(|endpoint| endpoint.addresses().any(|own| own == address));
    let withdrawn = match attachment {
        Some(mut attachment) => withdraw_ports(plan, &mut attachment),
        None => withdraw_stale(&is_ours, &|device| plan.endpoints.iter().any(|own| own.device == device))
            .map_err(|source| DetachError::Ports { source }),
    };
    let mut errors: Vec<DetachError> = withdrawn.err().into_iter().collect();
    errors.extend(part(plan));
    errors
}

/// Removes the devices.
fn part(plan: &EndpointsPlan) -> Vec<DetachError> {
    plan.endpoints.iter().filter_map(|endpoint| detach_endpoint(endpoint).err()).collect()
}

/// Takes a container that runs, or is gone, out of one network; published ports are not its business. A device that is gone
/// already is well; one on a card is in the container, and goes with its namespace.
pub(crate) fn detach_endpoint(endpoint: &Endpoint) -> Result<(), DetachError> {
    if endpoint.network.bridge().is_none() {
        return Ok(());
    }
    delete_veth(&endpoint.device)
        .map_err(|source| DetachError::Veth { veth: endpoint.device.clone(), source })
}

/// Takes the bridge of a network down, or the card that was made for it; containers lose their way.
///
/// # Errors
///
/// When the kernel refuses. A device that is gone already is well.
pub fn remove_network(network: &Network) -> Result<(), DetachError> {
    let Some(bridge) = network.bridge() else {
        let mut conversation = Conversation::open(Family::Route)
            .map_err(|source| DetachError::Network { network: network.name.clone(), source })?;
        return card::remove(&mut conversation, network)
            .map_err(|source| DetachError::Network { network: network.name.clone(), source });
    };
    delete_veth(&bridge.device)
        .map_err(|source| DetachError::Network { network: network.name.clone(), source })?;
    forget_network(network)
}

/// Takes a network out of the rules; its bridge stays.
///
/// # Errors
///
/// When the kernel refuses. A network that no rule knows is well.
pub fn forget_network(network: &Network) -> Result<(), DetachError> {
    Conversation::open(Family::Netfilter)
        .and_then(|mut netfilter| rules::forget(&mut netfilter, network))
        .map_err(|source| DetachError::Network { network: network.name.clone(), source })
}

/// The quick part of [`detach`]: withdraws the published ports and sets them free.
///
/// The veth is left to the kernel, which removes it, without anybody waiting, when the container's network name
/// space has no process and no descriptor left; [`attach`](crate::attach()) and [`clear_leftovers`] cope with one that
/// is still there. Dropping the attachment after this is the part that takes time; the owner's own exit does it.
///
/// # Errors
///
/// The ports are free then, but rules that lead them to the container may be left; [`clear_leftovers`] finds them.
pub fn withdraw_ports(plan: &EndpointsPlan, attachment: &mut Attachment) -> Result<(), DetachError> {
    attachment.withdraw(plan).map_err(|source| DetachError::Ports { source })
}

/// The devices of a plan on the host's bridges, by index: names come back with the container's next life, indices do not.
#[must_use]
pub fn devices_of(plan: &EndpointsPlan) -> Vec<u32> {
    let Ok(mut conversation) = Conversation::open(Family::Route) else { return Vec::new() };
    let bridged = plan.endpoints.iter().filter(|endpoint| endpoint.network.bridge().is_some());
    bridged
        .filter_map(|endpoint| route::link(&mut conversation, &endpoint.device).ok().flatten())
        .map(|link| link.index)
        .collect()
}

/// Removes devices that [`devices_of`] found; those that are gone are well.
///
/// # Errors
///
/// The first refusal of the kernel; all are tried.
pub fn remove_devices(devices: &[u32]) -> Result<(), NetlinkError> {
    let mut conversation = Conversation::open(Family::Route)?;
    let mut batch = conversation.batch();
    for index in devices {
        route::delete_link(&mut batch, Device::Index(*index));
    }
    let refusals = conversation.commit(batch)?;
    let real = refusals.into_iter().find(|refusal| refusal.errno != Errno::NODEV);
    real.map_or(Ok(()), |refusal| Err(refusal.into()))
}

/// Takes away what leads to addresses of the dead, and what lets devices of the dead send.
fn withdraw_stale(
    is_stale: &dyn Fn(IpAddr) -> bool,
    is_stale_device: &dyn Fn(&str) -> bool,
) -> Result<(), NetlinkError> {
    let mut netfilter = Conversation::open(Family::Netfilter)?;
    rules::withdraw_devices(&mut netfilter, is_stale_device)?;
    let gone = rules::withdraw_stale(&mut netfilter, is_stale)?;
    let udp = gone.into_iter().filter_map(|published| published.udp_port).collect();
    conntrack::forget_udp(&mut netfilter, &udp)
}

fn delete_veth(veth: &str) -> Result<(), NetlinkError> {
    let mut conversation = Conversation::open(Family::Route)?;
    let mut batch = conversation.batch();
    route::delete_link(&mut batch, Device::Name(veth));
    bridge::tolerate(conversation.commit_all(batch), Errno::NODEV)
}

/// The containers of one network that are not to be touched.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// The names of their devices on the host, [`Endpoint::device`].
    pub devices: HashSet<String>,
    /// Their addresses.
    pub addresses: HashSet<IpAddr>,
}

/// Removes what dead owners left in a network: veth devices on its bridge and published ports into its subnet that
/// belong to no container that `live` names.
///
/// `live` is called after the leftovers were looked for. So as long as a container is recorded before it is
/// attached, one that is being started is never taken for a dead one.
pub fn clear_leftovers(network: &Network, live: impl FnOnce() -> Live) -> Vec<DetachError> {
    let mut errors = Vec::new();
    let Some(bridge) = network.bridge() else { return errors };
    let veths = veths_on(&bridge.device).unwrap_or_else(|source| {
        errors.push(DetachError::Look { bridge: bridge.device.clone(), source });
        Vec::new()
    });
    let seen = published_addresses(network).unwrap_or_else(|source| {
        errors.push(DetachError::Ports { source });
        HashSet::new()
    });
    // What the rules still let send, and has no device any more. A device is made before the rules know it.
    let without_device = known_devices().and_then(without_device).unwrap_or_else(|source| {
        errors.push(DetachError::Ports { source });
        HashSet::new()
    });
    if veths.is_empty() && seen.is_empty() && without_device.is_empty() {
        return errors;
    }
    let live = live();
    let dead: HashSet<IpAddr> = seen.difference(&live.addresses).copied().collect();
    let is_gone = |device: &str| without_device.contains(device) && !live.devices.contains(device);
    if (!dead.is_empty() || !without_device.is_empty())
        && let Err(source) = withdraw_stale(&|address| dead.contains(&address), &is_gone)
    {
        errors.push(DetachError::Ports { source });
    }
    for veth in veths.into_iter().filter(|veth| !live.devices.contains(veth)) {
        if let Err(source) = delete_veth(&veth) {
            errors.push(DetachError::Veth { veth, source });
        }
    }
    errors
}

fn veths_on(bridge: &str) -> Result<Vec<String>, NetlinkError> {
    let mut conversation = Conversation::open(Family::Route)?;
    let Some(bridge) = route::link(&mut conversation, bridge)? else { return Ok(Vec::new()) };
    let ours = |link: &route::Link| {
        link.master == bridge.index && link.kind == "veth" && link.name.starts_with(DEVICE_PREFIX)
    };
    Ok(route::links(&mut conversation)?.into_iter().filter(ours).map(|link| link.name).collect())
}

fn known_devices() -> Result<HashSet<String>, NetlinkError> {
    rules::devices(&mut Conversation::open(Family::Netfilter)?)
}

fn without_device(mut known: HashSet<String>) -> Result<HashSet<String>, NetlinkError> {
    if !known.is_empty() {
        for link in route::links(&mut Conversation::open(Family::Route)?)? {
            known.remove(&link.name);
        }
    }
    Ok(known)
}

fn published_addresses(network: &Network) -> Result<HashSet<IpAddr>, NetlinkError> {
    let mut netfilter = Conversation::open(Family::Netfilter)?;
    let found = rules::published(&mut netfilter, &|address| network.subnet_of(address).is_some())?;
    Ok(found.into_iter().map(|published| published.address).collect())
}
