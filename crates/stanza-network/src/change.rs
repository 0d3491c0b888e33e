//! Changing the networks of a container that runs: `network connect`, `disconnect` and `reload`.

use std::os::fd::BorrowedFd;

use crate::attach::{attach_endpoint, forget_flows, lead_out_by, respect_firewall};
use crate::detach::detach_endpoint;
use crate::netlink::Conversation;
use crate::{AttachError, Attachment, Endpoint, EndpointsPlan, bridge, rules};

/// Takes the container in `netns` from the networks of `old` to those of `new`; the published ports stay the same, and lead
/// to its address in the first network that has one.
///
/// With `anew` also what both plans have is made again where somebody took it away, and the tables in any case: after
/// `nft flush ruleset`, say. The host's firewall is looked at. A device that is in its place stays, with what goes through it.
///
/// # Errors
///
/// At the first thing that the kernel refuses. Asked again, the rest is done.
pub fn change(
    attachment: &mut Attachment,
    old: &EndpointsPlan,
    new: &EndpointsPlan,
    anew: bool,
    netns: BorrowedFd<'_>,
) -> Result<(), AttachError> {
    attachment.at_bridges(|netfilter| change_devices(netfilter, old, new, anew, netns))??;
    let had_ports = !attachment.ports().is_empty();
    attachment.retarget(new)?;
    let ports = attachment.led_by_rules().to_vec();
    let changed = attachment.at_bridges(|netfilter| {
        if anew || !had_ports {
            respect_firewall(netfilter, new, &ports)?;
        }
        rules::change(netfilter, old, new, &ports, anew).and_then(|()| forget_flows(netfilter, &ports))
    })?;
    changed.map_err(|source| AttachError::Rules { source })
}

/// The devices of both plans and what they may send, in the name space of the bridges.
fn change_devices(
    netfilter: &mut Conversation,
    old: &EndpointsPlan,
    new: &EndpointsPlan,
    anew: bool,
    netns: BorrowedFd<'_>,
) -> Result<(), AttachError> {
    let lost = if anew { lost_devices(new)? } else { Vec::new() };
    let is_in = |endpoint: &Endpoint, plan: &EndpointsPlan| {
        !lost.contains(&endpoint.device) && plan.endpoints.iter().any(|other| is_same_place(endpoint, other))
    };
    let rules_failed = |source| AttachError::Rules { source };
    // Known before it can send anything.
    for endpoint in new.endpoints.iter().filter(|endpoint| !is_in(endpoint, old)) {
        rules::announce(netfilter, endpoint).map_err(rules_failed)?;
    }
    for endpoint in old.endpoints.iter().filter(|endpoint| !is_in(endpoint, new)) {
        detach_endpoint(endpoint).map_err(|error| AttachError::Leave { source: Box::new(error) })?;
    }
    for endpoint in new.endpoints.iter().filter(|endpoint| !is_in(endpoint, old)) {
        let silent = Endpoint { default_route: false, ..endpoint.clone() };
        attach_endpoint(&silent, netns)?;
    }
    let way = |plan: &EndpointsPlan| -> Option<Endpoint> {
        plan.endpoints.iter().find(|endpoint| endpoint.default_route).cloned()
    };
    if let Some(out) = way(new)
        && (anew || way(old).is_none_or(|before| !is_same_place(&before, &out)))
    {
        let others: Vec<&str> = new
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.interface != out.interface)
            .map(|endpoint| endpoint.interface.as_str())
            .collect();
        lead_out_by(&out, &others, netns)?;
    }
    Ok(())
}

/// The devices of a plan that are to be made again: all on cards, and those of bridges that are not up in their bridge. Bridges
/// that are gone are made on the way.
fn lost_devices(plan: &EndpointsPlan) -> Result<Vec<String>, AttachError> {
    let mut lost = Vec::new();
    for endpoint in &plan.endpoints {
        let is_joined = match endpoint.network.bridge() {
            Some(bridge) => bridge::is_joined(endpoint, bridge)?,
            None => false,
        };
        lost.extend((!is_joined).then(|| endpoint.device.clone()));
    }
    Ok(lost)
}

/// Whether two endpoints are one device with the same addresses.
fn is_same_place(one: &Endpoint, other: &Endpoint) -> bool {
    one.device == other.device
        && one.interface == other.interface
        && (one.ipv4, one.ipv6, one.mac) == (other.ipv4, other.ipv6, other.mac)
}
