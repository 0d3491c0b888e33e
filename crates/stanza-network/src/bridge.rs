//! The bridge of a network, on the host's side.
//!
//! It is made by the first container that needs it, and stays. Any number of processes may make it at once: each
//! step does no harm when it was done already, and the last one is bringing the bridge up, so a bridge that is up
//! is complete, and one that is down (its maker died half way) is completed by whoever comes next.

use std::fs;
use std::io;

use rustix::io::Errno;

use crate::attach::AttachError;
use crate::netlink::route::{self, Device, Link};
use crate::netlink::{Conversation, NetlinkError};
use crate::plan::mac_of;
use crate::{BridgePlan, Subnet};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Makes sure that the bridge is there and complete and that the host forwards; returns the bridge's index.
pub(crate) fn ensure(
    conversation: &mut Conversation,
    plan: &BridgePlan,
    subnet: Subnet,
) -> Result<u32, AttachError> {
    let failed = |source| AttachError::Bridge { bridge: plan.bridge.clone(), source };
    let found = look(conversation, plan)?;
    let index = match found {
        Some(link) if link.up => link.index,
        Some(link) => complete(conversation, plan, subnet, link.index)?,
        None => {
            let mut batch = conversation.batch();
            route::create_bridge(&mut batch, &plan.bridge, mac_of(plan.gateway), plan.mtu);
            tolerate(conversation.commit_all(batch), Errno::EXIST).map_err(failed)?;
            let link = look(conversation, plan)?.ok_or_else(|| AttachError::Bridge {
                bridge: plan.bridge.clone(),
                source: NetlinkError::Refused {
                    request: "create the bridge",
                    text: None,
                    source: Errno::NODEV.into(),
                },
            })?;
            complete(conversation, plan, subnet, link.index)?
        }
    };
    set(FORWARDING, "1")?;
    Ok(index)
}

fn look(conversation: &mut Conversation, plan: &BridgePlan) -> Result<Option<Link>, AttachError> {
    let found = route::link(conversation, &plan.bridge)
        .map_err(|source| AttachError::Bridge { bridge: plan.bridge.clone(), source })?;
    match found {
        Some(link) if link.kind != "bridge" => Err(AttachError::NotABridge { device: plan.bridge.clone() }),
        found => Ok(found),
    }
}

fn complete(
    conversation: &mut Conversation,
    plan: &BridgePlan,
    subnet: Subnet,
    index: u32,
) -> Result<u32, AttachError> {
    // The host's 127.0.0.1 is led to containers; see the module `rules` for what keeps it closed the other way.
    set(&format!("/proc/sys/net/ipv4/conf/{}/route_localnet", plan.bridge), "1")?;
    // A bridge of IPv4 containers needs no IPv6, and must not believe a container's router advertisements.
    match set(&format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", plan.bridge), "1") {
        Err(AttachError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        result => result?,
    }
    let mut batch = conversation.batch();
    let address = route::add_address(&mut batch, index, plan.gateway, subnet);
    route::bring_up(&mut batch, Device::Index(index));
    let failed = |source| AttachError::Bridge { bridge: plan.bridge.clone(), source };
    let refusals = conversation.commit(batch).map_err(failed)?;
    let is_real =
        |refusal: &crate::netlink::Refusal| refusal.index != address || refusal.errno != Errno::EXIST;
    refusals.into_iter().find(is_real).map_or(Ok(index), |refusal| Err(failed(refusal.into())))
}

/// Treats a refusal with `errno` as success.
pub(crate) fn tolerate(result: Result<(), NetlinkError>, errno: Errno) -> Result<(), NetlinkError> {
    result.or_else(|error| if error.errno() == Some(errno) { Ok(()) } else { Err(error) })
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
