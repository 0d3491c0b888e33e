//! A bridge on the host, and the veth pair by which a container is joined to it, or the tap device of a machine.
//!
//! The bridge is made by the first container that needs it, and stays. Any number of processes may make it at once: each
//! step does no harm when it was done already, and the last one is bringing the bridge up, so a bridge that is up
//! is complete, and one that is down (its maker died half way) is completed by whoever comes next.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::attach::AttachError;
use crate::netlink::route::{self, Device, Link, VethPair};
use crate::netlink::{Conversation, Family, NetlinkError, Refusal};
use crate::plan::mac_of;
use crate::{Bridge, Endpoint, Network};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARDING_6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
/// The largest packet on a bridge in bytes, unless told otherwise.
const DEFAULT_MTU: u32 = 1500;

/// Makes the pair of devices of an endpoint, and the bridge when it is not there: the host's end is up, the other in
/// `netns` is down. Returns the bridge's index.
pub(crate) fn create(
    route: &mut Conversation,
    endpoint: &Endpoint,
    bridge: &Bridge,
    netns: BorrowedFd<'_>,
) -> Result<u32, AttachError> {
    let failed =
        |source| AttachError::Veth { veth: endpoint.device.clone(), bridge: bridge.device.clone(), source };
    // Once for a device that a dead container left, once for a bridge that went away.
    let mut second_chances = 2;
    loop {
        let master = ensure(route, &endpoint.network, bridge)?;
        let mut batch = route.batch();
        route::create_veth(
            &mut batch,
            &VethPair {
                name: &endpoint.device,
                master,
                peer_name: &endpoint.interface,
                peer_mac: endpoint.mac,
                peer_netns: netns,
                mtu: endpoint.network.mtu.unwrap_or(DEFAULT_MTU),
            },
        );
        let silence = route::silence_ipv6(&mut batch, Device::Name(&endpoint.device));
        route::bring_port_up(&mut batch, Device::Name(&endpoint.device), !bridge.peers);
        let refusals = route.commit(batch).map_err(failed)?;
        let Some(refusal) = refusals.into_iter().find(|refusal| refusal.index != silence) else {
            if let Some(vlan) = bridge.vlan {
                set_vlan(route, &endpoint.device, vlan).map_err(failed)?;
            }
            return Ok(master);
        };
        match refusal.errno {
            Errno::EXIST if second_chances > 0 => {
                // The name is made from the ids, so this is its own from an earlier life. The kernel takes a name space
                // down some time after its last process, and may be at it right now. It may also be the other end's
                // name that is taken: then the second try fails as well.
                let mut batch = route.batch();
                route::delete_link(&mut batch, Device::Name(&endpoint.device));
                tolerate(route.commit_all(batch), Errno::NODEV).map_err(failed)?;
            }
            Errno::NODEV if second_chances > 0 => {}
            _ => return Err(failed(refusal.into())),
        }
        second_chances -= 1;
    }
}

/// Makes the tap device of an endpoint, and the bridge when it is not there: the device is up. Returns the bridge's index, and
/// the descriptor that the machine sends and receives by, with which the device goes.
pub(crate) fn create_tap(
    route: &mut Conversation,
    endpoint: &Endpoint,
    bridge: &Bridge,
) -> Result<(u32, OwnedFd), AttachError> {
    let failed =
        |source| AttachError::Veth { veth: endpoint.device.clone(), bridge: bridge.device.clone(), source };
    let master = ensure(route, &endpoint.network, bridge)?;
    let create = || stanza_sys::create_tap(&endpoint.device);
    let tap = match create() {
        // The name is made from the ids, so this is its own from an earlier life.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::BUSY | Errno::INVAL)) => {
            let mut batch = route.batch();
            route::delete_link(&mut batch, Device::Name(&endpoint.device));
            tolerate(route.commit_all(batch), Errno::NODEV).map_err(failed)?;
            create()
        }
        result => result,
    };
    let tap = tap.map_err(|source| AttachError::Tap { tap: endpoint.device.clone(), source })?;
    let mut batch = route.batch();
    let silence = route::silence_ipv6(&mut batch, Device::Name(&endpoint.device));
    let mtu = endpoint.network.mtu.unwrap_or(DEFAULT_MTU);
    route::join_bridge(&mut batch, &endpoint.device, master, mtu);
    route::bring_port_up(&mut batch, Device::Name(&endpoint.device), !bridge.peers);
    let refusals = route.commit(batch).map_err(failed)?;
    if let Some(refusal) = refusals.into_iter().find(|refusal| refusal.index != silence) {
        return Err(failed(refusal.into()));
    }
    if let Some(vlan) = bridge.vlan {
        set_vlan(route, &endpoint.device, vlan).map_err(failed)?;
    }
    Ok((master, tap))
}

/// Whether an endpoint's device is up and in its bridge, which is made when it is not there.
pub(crate) fn is_joined(endpoint: &Endpoint, bridge: &Bridge) -> Result<bool, AttachError> {
    let failed =
        |source| AttachError::Veth { veth: endpoint.device.clone(), bridge: bridge.device.clone(), source };
    let mut route = Conversation::open(Family::Route).map_err(failed)?;
    let master = ensure(&mut route, &endpoint.network, bridge)?;
    let found = route::link(&mut route, &endpoint.device).map_err(failed)?;
    Ok(found.is_some_and(|link| link.up && link.master == master))
}

fn set_vlan(route: &mut Conversation, device: &str, vlan: u16) -> Result<(), NetlinkError> {
    let Some(port) = route::link(route, device)? else { return Ok(()) };
    let mut batch = route.batch();
    route::set_port_vlan(&mut batch, port.index, vlan, false);
    route.commit_all(batch)
}

/// Makes sure that the bridge is there and complete and that the host forwards; returns the bridge's index.
pub(crate) fn ensure(
    route: &mut Conversation,
    network: &Network,
    bridge: &Bridge,
) -> Result<u32, AttachError> {
    let failed = |source| AttachError::Bridge { bridge: bridge.device.clone(), source };
    let index = match look(route, bridge)? {
        Some(link) if link.up => link.index,
        Some(link) => complete(route, network, bridge, link.index)?,
        None => {
            let mut batch = route.batch();
            let mtu = network.mtu.unwrap_or(DEFAULT_MTU);
            route::create_bridge(&mut batch, &bridge.device, bridge_mac(network), mtu, bridge.vlan.is_some());
            tolerate(route.commit_all(batch), Errno::EXIST).map_err(failed)?;
            let link = look(route, bridge)?.ok_or_else(|| {
                failed(NetlinkError::Refused {
                    request: "create the bridge",
                    text: None,
                    source: Errno::NODEV.into(),
                })
            })?;
            complete(route, network, bridge, link.index)?
        }
    };
    if network.subnets.iter().any(|subnet| !subnet.subnet.is_ipv6()) {
        set(FORWARDING, "1")?;
    }
    if has_ipv6(network) {
        forward_ipv6()?;
    }
    Ok(index)
}

/// The hardware address of a bridge: it goes with its first address, or with its network.
fn bridge_mac(network: &Network) -> [u8; 6] {
    let gateway = network.subnets.iter().find_map(|subnet| subnet.gateway);
    let nothing = || {
        let digits = network.id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        IpAddr::V4(Ipv4Addr::from_bits(digits.unwrap_or_default()))
    };
    mac_of(gateway.unwrap_or_else(nothing))
}

/// Whether the bridge of a network is there and was made for it: a bridge that somebody made by hand, and that the network was
/// told to use, does not have the hardware address that goes with the network.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn is_own_bridge(network: &Network) -> Result<bool, NetlinkError> {
    let Some(bridge) = network.bridge() else { return Ok(false) };
    let found = route::link(&mut Conversation::open(Family::Route)?, &bridge.device)?;
    Ok(found.is_some_and(|link| link.kind == "bridge" && link.mac == Some(bridge_mac(network))))
}

fn has_ipv6(network: &Network) -> bool {
    network.subnets.iter().any(|subnet| subnet.subnet.is_ipv6())
}

fn look(route: &mut Conversation, bridge: &Bridge) -> Result<Option<Link>, AttachError> {
    let found = route::link(route, &bridge.device)
        .map_err(|source| AttachError::Bridge { bridge: bridge.device.clone(), source })?;
    match found {
        Some(link) if link.kind != "bridge" => Err(AttachError::NotABridge { device: bridge.device.clone() }),
        found => Ok(found),
    }
}

fn complete(
    route: &mut Conversation,
    network: &Network,
    bridge: &Bridge,
    index: u32,
) -> Result<u32, AttachError> {
    // The host's 127.0.0.1 is led to containers; see the module `rules` for what keeps it closed the other way.
    set(&format!("/proc/sys/net/ipv4/conf/{}/route_localnet", bridge.device), "1")?;
    // It must not believe a container's router advertisements, and a bridge of IPv4 containers needs no IPv6.
    let ipv6 = |name| format!("/proc/sys/net/ipv6/conf/{}/{name}", bridge.device);
    set_ipv6(&ipv6("accept_ra"), "0")?;
    set_ipv6(&ipv6("disable_ipv6"), if has_ipv6(network) { "0" } else { "1" })?;
    let mut batch = route.batch();
    let mut addresses = Vec::new();
    for subnet in &network.subnets {
        let Some(gateway) = subnet.gateway else { continue };
        addresses.push(route::add_address(&mut batch, index, gateway, subnet.subnet));
    }
    if let Some(vlan) = bridge.vlan {
        route::set_port_vlan(&mut batch, index, vlan, true);
    }
    route::bring_up(&mut batch, Device::Index(index));
    let failed = |source| AttachError::Bridge { bridge: bridge.device.clone(), source };
    let refusals = route.commit(batch).map_err(failed)?;
    let is_real = |refusal: &Refusal| !addresses.contains(&refusal.index) || refusal.errno != Errno::EXIST;
    refusals.into_iter().find(is_real).map_or(Ok(index), |refusal| Err(failed(refusal.into())))
}

/// Treats a refusal with `errno` as success.
pub(crate) fn tolerate(result: Result<(), NetlinkError>, errno: Errno) -> Result<(), NetlinkError> {
    result.or_else(|error| if error.errno() == Some(errno) { Ok(()) } else { Err(error) })
}

/// Makes the host forward IPv6. A forwarding host believes no router any more, and would lose its own way out with the
/// next advertisement's end: devices that believed one go on doing so (`accept_ra` 2, ip-sysctl.rst).
fn forward_ipv6() -> Result<(), AttachError> {
    let is_set = |path: &str| fs::read(path).is_ok_and(|value| value.trim_ascii() == b"1");
    if is_set(FORWARDING_6) {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let path = entry.path().join("accept_ra").to_string_lossy().into_owned();
        if entry.file_name() != "all" && is_set(&path) {
            set_ipv6(&path, "2")?;
        }
    }
    set_ipv6(FORWARDING_6, "1")
}

/// As [`set`]; a kernel without IPv6 has no such setting.
fn set_ipv6(path: &str, value: &str) -> Result<(), AttachError> {
    match set(path, value) {
        Err(AttachError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Writes a kernel setting of the calling thread's network namespace unless it has that value.
fn set(path: &str, value: &str) -> Result<(), AttachError> {
    let current = fs::read(path);
    if current.is_ok_and(|current| current.trim_ascii() == value.as_bytes()) {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| AttachError::Sysctl {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}
