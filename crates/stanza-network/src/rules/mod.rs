//! The nft tables `inet stanza` and `bridge stanza`: which packets are rewritten, which are let through.
//!
//! The tables are made once, whole; after that a container adds elements to their sets and maps, so the work per
//! packet and per container does not grow with their number. All that one container adds, in however many networks
//! and with however many ports, is one transaction. As `nft list table inet stanza` shows it, 4 standing for 4 and 6:
//!
//! ```text
//! set bridges      { type ifname }                      our bridges
//! set internal     { type ifname }                      those that nothing leaves or enters
//! set within       { type ifname . ifname }             each bridge with itself, if its containers may talk
//! set subnets4     { type ipv4_addr; flags interval }   their subnets
//! set masqueraded4 { type ipv4_addr; flags interval }   the subnets that leave with the host's address
//! set guarded      { type nf_proto }                    families in which the host's firewall drops
//! set open4        { type ipv4_addr }                   containers that are published all the same
//! map ports4           { type inet_proto . inet_service : ipv4_addr . inet_service }
//! map addressed_ports4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//! set proxied4           { type inet_proto . inet_service }                  ports that a process of the host leads to
//! set addressed_proxied4 { type ipv4_addr . inet_proto . inet_service }      containers without IPv4
//! map proxied_of4, addressed_proxied_of4 { type … : ipv6_addr }              to which: what tells the dead's from the living's
//!
//! chain raw (filter, prerouting, -300)     iif != lo ip daddr 127.0.0.0/8 drop
//! chain prerouting (nat, prerouting, -100) dnat to ip daddr . meta l4proto . th dport map @addressed_ports4
//!                                          fib daddr type local dnat to meta l4proto . th dport map @ports4
//! chain output (nat, output, -100)         the same two; of IPv6 but for ::1
//! chain postrouting (nat, postrouting, 100)
//!                                          ip saddr @masqueraded4 oifname != @bridges masquerade
//!                                          ip saddr 127.0.0.0/8 oifname @bridges masquerade
//!                                          ip saddr @subnets4 oifname @bridges ct status dnat masquerade
//! chain forward (filter, forward, 0)       jump user
//!                                          iifname . oifname @within accept
//!                                          iifname @internal drop
//!                                          oifname @internal drop
//!                                          oifname @bridges ct state established,related accept
//!                                          meta nfproto @guarded iifname != @bridges oifname @bridges
//!                                              ct status dnat ip daddr != @open4 drop
//!                                          oifname @bridges ct status dnat accept
//!                                          oifname @bridges drop
//! chain input (filter, input, 0)           iifname @internal ip daddr . meta l4proto . th dport @addressed_proxied4 drop
//!                                          iifname @internal meta l4proto . th dport @proxied4 drop
//! chain user                               the user's own: made empty, never changed
//! ```
//!
//! * `raw`: the bridges have `route_localnet`, so that 127.0.0.1:PORT of the host reaches a container. Without
//!   this rule a container could reach the host's loopback services, and a neighbour on the wire a port that is
//!   published on 127.0.0.1 only. IPv6 knows no such thing: what comes from a wire for `::1` is dropped by the kernel
//!   (`ipv6_rcv`), and what the host sends to `::1` finds no way back from a container, so a proxy serves it.
//! * `forward`: from outside a container is reached by its published ports, not by its address, even by a
//!   neighbour who routes to the subnet through this host; and from one network another one by published ports of the
//!   host, not by addresses. A host's own processes reach every container.
//! * `user`: sees every forwarded packet first; accept and drop are final in this table. The host's port is
//!   `meta l4proto tcp ct original proto-dst`. It can be made before us, by `table inet stanza { chain user { … } }` in the host's own rules.
//! * `internal`: their containers reach each other, and the host by the bridge's address, as Docker's do; but no published port of
//!   other containers, also not by the process of the host that serves it (`input`).
//! * `guarded`: a firewall that drops what comes in means ports too that are published, which by address translation
//!   pass it by. See [`crate::firewall`].
//! * What other tables of the host drop stays dropped: an accept here ends this table only. A host whose firewall
//!   drops forwarded packets (Docker's iptables policy does) must let the bridge through itself.
//! * Between containers of one network that are not to talk to each other stand the bridge (its ports are isolated) and
//!   `within` (the way by the host). Where bridged packets are shown to IPv4's hooks (`bridge-nf-call-iptables`) such
//!   containers do not reach each other's published ports either: the bridge leads them from port to port.
//!
//! The other table is drawn in [`guard`]. Only these two are ever touched, but for `ip stanza` of earlier versions, which
//! goes when they are made; and `nft` is never run.

mod elements;
mod guard;
mod table;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

pub(crate) use elements::{Targets, addresses};
pub(crate) use guard::GUARD;
pub(crate) use table::HOST;
use table::{GUARDED, IPV4, IPV6};

use crate::netlink::nftables::{self, Element, Set, Transaction};
use crate::netlink::{Conversation, NetlinkError, Refusal};
use crate::{Endpoint, EndpointsPlan, Network, PortMap};

/// An interface's name as a key: 16 bytes.
fn name_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

/// Everything that the rules know of a container: the networks', and its own.
fn all_of(plan: &EndpointsPlan, taken: &[PortMap]) -> Vec<Element> {
    let mut all: Vec<Element> =
        plan.endpoints.iter().flat_map(|endpoint| elements::network(&endpoint.network)).collect();
    all.extend(elements::container(plan, taken));
    all
}

/// Makes the tables if they are not there, the networks known to them, keeps the container to its addresses, and leads the
/// ports to it.
///
/// The caller holds the ports: an element that leads one of them elsewhere was left by a dead owner, and is
/// replaced.
///
/// Whether tables were missing is the answer: then what they knew of other containers is, too.
pub(crate) fn publish(
    conversation: &mut Conversation,
    plan: &EndpointsPlan,
    taken: &[PortMap],
) -> Result<bool, NetlinkError> {
    replace(conversation, &[], &all_of(plan, taken), false)
}

/// Makes a network known and keeps a container to its addresses there, before it is joined to it.
pub(crate) fn announce(conversation: &mut Conversation, endpoint: &Endpoint) -> Result<(), NetlinkError> {
    let mut all = elements::network(&endpoint.network);
    all.extend(elements::endpoint(endpoint));
    replace(conversation, &[], &all, false).map(|_| ())
}

/// From one plan to another, with the same ports: no moment in between has neither. With `anew` the tables are made whole in the
/// same transaction, whatever somebody took out of them.
pub(crate) fn change(
    conversation: &mut Conversation,
    old: &EndpointsPlan,
    new: &EndpointsPlan,
    taken: &[PortMap],
    anew: bool,
) -> Result<(), NetlinkError> {
    let all = all_of(new, taken);
    let kept: HashSet<(&str, &[u8])> =
        all.iter().map(|element| (element.set.name, &element.key[..])).collect();
    let mut gone = elements::container(old, taken);
    // A key that leads elsewhere is replaced like a dead owner's.
    gone.retain(|element| !kept.contains(&(element.set.name, &element.key[..])));
    drop(kept);
    replace(conversation, &gone, &all, anew).map(|_| ())
}

/// Deletes some elements and adds others, in one transaction. Those to delete need not be there; one that is in the way of
/// one to add goes. The tables are made when they are missing, or with `create`; whether they were made is the answer.
fn replace(
    conversation: &mut Conversation,
    gone: &[Element],
    wanted: &[Element],
    mut create: bool,
) -> Result<bool, NetlinkError> {
    /// Nothing, the tables missing, a racing creator, a stale element, one that is gone: each costs a turn.
    const TURNS: usize = 6;
    let mut gone = gone.to_vec();
    for turn in 1.. {
        if gone.is_empty() && wanted.is_empty() && !create {
            break;
        }
        let mut transaction = Transaction::new(conversation);
        if create {
            table::ensure(&mut transaction);
            guard::ensure(&mut transaction);
        }
        transaction.delete(&gone);
        transaction.add(wanted);
        let Some(refusal) = first_that_counts(transaction.commit(conversation)?) else { break };
        match refusal.errno {
            _ if turn == TURNS => return Err(refusal.into()),
            Errno::NOENT if !create && gone.is_empty() => create = true,
            // Some of it is missing, or all.
            Errno::NOENT => {
                gone = present(conversation, &gone)?;
                create = true;
            }
            Errno::EXIST | Errno::BUSY => {
                let stale = in_the_way(conversation, wanted)?;
                if stale.is_empty() && !create {
                    return Err(refusal.into());
                }
                gone = present(conversation, &gone)?;
                gone.extend(stale);
            }
            // The rules were changed by somebody while the kernel looked at ours.
            Errno::AGAIN | Errno::RESTART | Errno::INTR => {}
            _ => return Err(refusal.into()),
        }
    }
    Ok(create)
}

/// What is refused because the tables are missing says nothing of the rest.
fn first_that_counts(refusals: Vec<Refusal>) -> Option<Refusal> {
    let missing = refusals.iter().position(|refusal| refusal.errno == Errno::NOENT).unwrap_or(0);
    refusals.into_iter().nth(missing)
}

/// The elements of a set that is perhaps not there.
fn listed(conversation: &mut Conversation, set: &'static Set) -> Result<Vec<Element>, NetlinkError> {
    match nftables::elements(conversation, set) {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(Vec::new()),
        result => result,
    }
}

/// Those of the elements that are there just so.
fn present(conversation: &mut Conversation, elements: &[Element]) -> Result<Vec<Element>, NetlinkError> {
    let mut found = Vec::new();
    for run in elements.chunk_by(|one, next| one.set == next.set) {
        let there = listed(conversation, run[0].set)?;
        found.extend(run.iter().filter(|element| there.contains(element)).cloned());
    }
    Ok(found)
}

/// The elements that have the key of one of `wanted` and lead elsewhere, and ranges that overlap one.
fn in_the_way(conversation: &mut Conversation, wanted: &[Element]) -> Result<Vec<Element>, NetlinkError> {
    let mut found = Vec::new();
    for run in wanted.chunk_by(|one, next| one.set == next.set) {
        let clash = |there: &Element| run.iter().any(|element| element != there && clashes(element, there));
        found.extend(listed(conversation, run[0].set)?.into_iter().filter(clash));
    }
    Ok(found)
}

fn clashes(one: &Element, other: &Element) -> bool {
    if !one.set.interval {
        return one.key == other.key;
    }
    let starts_before_end = |a: &Element, b: &Element| b.end.as_ref().is_none_or(|end| a.key < *end);
    starts_before_end(one, other) && starts_before_end(other, one)
}

/// Takes away what is the container's; elements that are gone already are well.
///
/// The caller still holds the ports, so that no element of a new owner is taken away.
pub(crate) fn withdraw(
    conversation: &mut Conversation,
    plan: &EndpointsPlan,
    taken: &[PortMap],
) -> Result<(), NetlinkError> {
    remove(conversation, elements::container(plan, taken))
}

/// Makes a network that is removed unknown.
pub(crate) fn forget(conversation: &mut Conversation, network: &Network) -> Result<(), NetlinkError> {
    remove(conversation, elements::network(network))
}

fn remove(conversation: &mut Conversation, mut gone: Vec<Element>) -> Result<(), NetlinkError> {
    /// Far more changes than come between two system calls.
    const TURNS: usize = 16;
    for turn in 1.. {
        if gone.is_empty() {
            break;
        }
        let mut transaction = Transaction::new(conversation);
        transaction.delete(&gone);
        match transaction.commit(conversation)?.into_iter().next() {
            None => break,
            Some(refusal) if turn == TURNS => return Err(refusal.into()),
            Some(refusal) if refusal.errno == Errno::NOENT => gone = present(conversation, &gone)?,
            Some(refusal) if matches!(refusal.errno, Errno::AGAIN | Errno::RESTART | Errno::INTR) => {}
            Some(refusal) => return Err(refusal.into()),
        }
    }
    Ok(())
}

fn guarded_element(family: u8) -> Element {
    Element { set: &GUARDED, key: vec![family], data: Vec::new(), end: None }
}

/// Tells the rules in which families (`NFPROTO_*`) the host's firewall drops what comes in; most often they know. As with
/// [`publish`], whether tables were missing is the answer.
pub(crate) fn set_guarded(conversation: &mut Conversation, families: &[u8]) -> Result<bool, NetlinkError> {
    let known = listed(conversation, &GUARDED)?;
    let wanted: Vec<Element> = families.iter().map(|family| guarded_element(*family)).collect();
    let gone: Vec<Element> = known.iter().filter(|element| !wanted.contains(element)).cloned().collect();
    if gone.is_empty() && wanted.iter().all(|element| known.contains(element)) {
        return Ok(false);
    }
    replace(conversation, &gone, &wanted, false)
}

/// The sets of published ports: those that the kernel leads have the container's port beside its address.
const PUBLISHED: [(&nftables::Set, usize); 8] = [
    (IPV4.ports, 4),
    (IPV4.addressed_ports, 4),
    (IPV6.ports, 4),
    (IPV6.addressed_ports, 4),
    (IPV4.proxied_of, 0),
    (IPV4.addressed_proxied_of, 0),
    (IPV6.proxied_of, 0),
    (IPV6.addressed_proxied_of, 0),
];

/// A published port that was found in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) element: Element,
    /// The container's address.
    pub(crate) address: IpAddr,
    /// The host's port, when it is a UDP one.
    pub(crate) udp_port: Option<u16>,
}

/// Every published port that leads to an address that `is_stale`; nothing when there is no table.
pub(crate) fn published(
    conversation: &mut Conversation,
    is_stale: &dyn Fn(IpAddr) -> bool,
) -> Result<Vec<Published>, NetlinkError> {
    let mut found = Vec::new();
    for (set, port) in PUBLISHED {
        found.extend(listed(conversation, set)?.into_iter().filter_map(|element| {
            let address = address_of(element.data.get(..element.data.len().checked_sub(port)?)?)?;
            let [protocol, _, _, _, high, low, _, _] = *element.key.last_chunk::<8>()?;
            let udp_port = (protocol == 17).then_some(u16::from_be_bytes([high, low]));
            is_stale(address).then_some(Published { element, address, udp_port })
        }));
    }
    Ok(found)
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let four = || Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)));
    four().or_else(|| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))))
}

/// Takes away every published port that leads to an address that `is_stale`, whoever published it, and returns
/// them; with them goes what else is known of the address.
///
/// The transaction names the state of the rules that was looked at: had anything changed in between, as another
/// container taking the port, nothing is done, and it is looked at again.
pub(crate) fn withdraw_stale(
    conversation: &mut Conversation,
    is_stale: &dyn Fn(IpAddr) -> bool,
) -> Result<Vec<Published>, NetlinkError> {
    let mut gone = Vec::new();
    remove_seen(conversation, |conversation| {
        gone = published(conversation, is_stale)?;
        let mut elements: Vec<Element> = gone.iter().map(|published| published.element.clone()).collect();
        let served: Vec<Element> =
            gone.iter().filter_map(|published| elements::served(&published.element)).collect();
        elements.extend(present(conversation, &served)?);
        for set in [IPV4.open, IPV6.open] {
            let stale = |element: &Element| address_of(&element.key).is_some_and(is_stale);
            elements.extend(listed(conversation, set)?.into_iter().filter(stale));
        }
        Ok(elements)
    })?;
    Ok(gone)
}

/// The containers' devices that may send something.
pub(crate) fn devices(conversation: &mut Conversation) -> Result<HashSet<String>, NetlinkError> {
    let known = listed(conversation, &guard::MEMBERS)?;
    Ok(known.iter().filter_map(|element| device_of(element).map(str::to_owned)).collect())
}

/// The device that an element of the table of frames is about.
fn device_of(element: &Element) -> Option<&str> {
    crate::netlink::text(element.key.get(..16)?)
}

/// Takes away what is known of containers' ports whose device `is_stale`.
pub(crate) fn withdraw_devices(
    conversation: &mut Conversation,
    is_stale: &dyn Fn(&str) -> bool,
) -> Result<(), NetlinkError> {
    remove_seen(conversation, |conversation| {
        let mut elements = Vec::new();
        for set in guard::SETS {
            let stale = |element: &Element| device_of(element).is_some_and(is_stale);
            elements.extend(listed(conversation, set)?.into_iter().filter(stale));
        }
        Ok(elements)
    })
}

/// Deletes the elements that `look` finds, unless the rules have changed since: then it looks again.
fn remove_seen(
    conversation: &mut Conversation,
    mut look: impl FnMut(&mut Conversation) -> Result<Vec<Element>, NetlinkError>,
) -> Result<(), NetlinkError> {
    /// Far more changes than come between two system calls.
    const TURNS: usize = 16;
    let mut last = None;
    for _ in 0..TURNS {
        let generation = nftables::generation(conversation)?;
        let stale = look(conversation)?;
        if stale.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::at_generation(conversation, generation);
        transaction.delete(&stale);
        match transaction.commit(conversation)?.into_iter().next() {
            None => return Ok(()),
            Some(refusal) => last = Some(refusal),
        }
    }
    last.map_or(Ok(()), |refusal| Err(refusal.into()))
}
