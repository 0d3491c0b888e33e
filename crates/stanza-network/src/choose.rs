//! Which subnet a network gets: one that collides with no route of the host and with no other network.

use std::net::Ipv4Addr;

use stanza_spec::{Classify, ErrorKind};

use crate::netlink::{Conversation, Family, NetlinkError, route};
use crate::{NetworkSubnet, Subnet};

/// A range of addresses that networks get parts of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// All of it.
    pub base: Subnet,
    /// The prefix of each part.
    pub size: u8,
}

/// Ranges to try, in order: away from what Docker (172.17 to 172.31, 192.168), Podman (10.88 on), Kubernetes
/// (10.42, 10.43, 10.96, 10.244), libvirt (192.168.122) and clouds (10.0, 172.31) take.
const CANDIDATES: [(u8, u8); 8] =
    [(10, 77), (10, 78), (10, 79), (10, 177), (10, 217), (10, 237), (172, 29), (172, 16)];
const CANDIDATE: u8 = 16;

/// The prefix of a part for a network of the user's: room for a thousand containers, in each candidate for 64 networks.
const PART: u8 = 22;

/// Why no network could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// The host's addresses and routes cannot be read.
    #[error("cannot read the host's addresses and routes")]
    Read {
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
    /// Every candidate overlaps a route of the host or another network.
    #[error(
        "no subnet is free for the network `{network}`: all are taken by routes of the host and other networks"
    )]
    NoneFree {
        /// The network.
        network: String,
    },
}

impl Classify for ChooseError {
    fn kind(&self) -> ErrorKind {
        match self {
            ChooseError::Read { source } => source.kind(),
            ChooseError::NoneFree { .. } => ErrorKind::Exhausted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ChooseError::Read { source } => source.hint(),
            ChooseError::NoneFree { .. } => Some(
                "give it one: `--subnet` of `network create`, or `default-subnet` and `default-address-pools` of `[network]` in the configuration file"
                    .to_owned(),
            ),
        }
    }
}

/// The ranges that networks of the user's get parts of when the configuration names none.
#[must_use]
pub fn default_pools() -> Vec<Pool> {
    candidates().map(|base| Pool { base, size: PART }).collect()
}

fn candidates() -> impl Iterator<Item = Subnet> {
    CANDIDATES.iter().filter_map(|(a, b)| Subnet::new(Ipv4Addr::new(*a, *b, 0, 0), CANDIDATE))
}

/// The first part of the first pool that overlaps none of `taken`; `None` when all do.
#[must_use]
pub fn free_part(pools: &[Pool], taken: &[Subnet]) -> Option<Subnet> {
    let is_free = |part: &Subnet| !taken.iter().any(|other| other.overlaps(part));
    pools.iter().find_map(|pool| {
        // A pool that lies in something taken whole has no free part: it is not searched.
        let is_lost =
            taken.iter().any(|other| other.prefix() <= pool.base.prefix() && other.overlaps(&pool.base));
        if is_lost { None } else { pool.base.parts(pool.size).find(is_free) }
    })
}

/// What the host's routes lead to, default routes left out.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn host_routes() -> Result<Vec<Subnet>, ChooseError> {
    let failed = |source| ChooseError::Read { source };
    let mut conversation = Conversation::open(Family::Route).map_err(failed)?;
    route::route_destinations(&mut conversation).map_err(failed)
}

/// The subnets of the addresses that a device of the host has; none when there is no such device.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn subnets_of_device(device: &str) -> Result<Vec<NetworkSubnet>, ChooseError> {
    let failed = |source| ChooseError::Read { source };
    let mut conversation = Conversation::open(Family::Route).map_err(failed)?;
    let Some(link) = route::link(&mut conversation, device).map_err(failed)? else { return Ok(Vec::new()) };
    let addresses = route::addresses(&mut conversation, link.index).map_err(failed)?;
    Ok(addresses.into_iter().map(|(address, subnet)| with_gateway(subnet, Some(address))).collect())
}

/// The subnet of the default network: that of its bridge when it is there and has one, else a whole candidate, or a part of
/// one of `pools` where there are any, that is free on this host and beside the subnets `taken`.
///
/// Nothing is made. The choice is to be kept: asked again before the bridge is there, the answer may differ.
///
/// # Errors
///
/// When the kernel does not tell, or when every candidate is in use.
pub fn choose_subnet(bridge: &str, pools: &[Pool], taken: &[Subnet]) -> Result<NetworkSubnet, ChooseError> {
    let usable = |place: &NetworkSubnet| !place.subnet.is_ipv6() && place.subnet.prefix() <= 30;
    if let Some(place) = subnets_of_device(bridge)?.into_iter().find(usable) {
        return Ok(place);
    }
    let whole: Vec<Pool> = candidates().map(|base| Pool { base, size: CANDIDATE }).collect();
    let taken: Vec<Subnet> = host_routes()?.into_iter().chain(taken.iter().copied()).collect();
    free_part(if pools.is_empty() { &whole } else { pools }, &taken)
        .map(|subnet| with_gateway(subnet, subnet.first_host()))
        .ok_or_else(|| ChooseError::NoneFree { network: "bridge".to_owned() })
}

fn with_gateway(subnet: Subnet, gateway: Option<std::net::IpAddr>) -> NetworkSubnet {
    NetworkSubnet { subnet, gateway, range: None, reserved: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_part_that_nothing_touches_is_chosen() {
        let cases: [(&[&str], Option<&str>); 6] = [
            (&[], Some("10.77.0.0/22")),
            (&["192.168.1.0/24", "172.17.0.0/16"], Some("10.77.0.0/22")),
            (&["10.77.3.4/32"], Some("10.77.4.0/22")),
            (&["10.77.0.0/16", "10.78.0.0/17"], Some("10.78.128.0/22")),
            (&["10.0.0.0/8"], Some("172.29.0.0/22")),
            (&["10.0.0.0/8", "172.16.0.0/12"], None),
        ];
        for (taken, expected) in cases {
            let chosen = free_part(&default_pools(), &subnets(taken)).map(|subnet| subnet.to_string());
            assert_eq!(chosen.as_deref(), expected, "{taken:?}");
        }
        let pool = Pool { base: "fd00:1::/48".parse().unwrap(), size: 64 };
        let chosen = free_part(&[pool], &subnets(&["fd00:1::/64", "fd00:1:0:2::/64"]));
        assert_eq!(chosen.map(|subnet| subnet.to_string()).as_deref(), Some("fd00:1:0:1::/64"));
    }
}
