//! Which subnet a bridge gets.

use stanza_spec::{Classify, ErrorKind};

use crate::netlink::{Conversation, Family, NetlinkError, route};
use crate::{NetworkSubnet, Subnet};

/// Subnets to try, in order: away from what Docker (172.17 to 172.31, 192.168), Podman (10.88 on), Kubernetes
/// (10.42, 10.43, 10.96, 10.244), libvirt (192.168.122) and clouds (10.0, 172.31) take.
const CANDIDATES: [(u8, u8, u8); 8] = [
    (10, 77, 16),
    (10, 78, 16),
    (10, 79, 16),
    (10, 177, 16),
    (10, 217, 16),
    (10, 237, 16),
    (172, 29, 16),
    (172, 16, 16),
];

/// Why no network could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// The host's addresses and routes cannot be read.
    #[error("cannot read the host's addresses and routes for the bridge `{bridge}`")]
    Read {
        /// The bridge.
        bridge: String,
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
    /// Every candidate overlaps a route of the host.
    #[error("no subnet is free for the bridge `{bridge}`: the host has routes into all of them")]
    NoneFree {
        /// The bridge.
        bridge: String,
    },
}

impl Classify for ChooseError {
    fn kind(&self) -> ErrorKind {
        match self {
            ChooseError::Read { source, .. } => source.kind(),
            ChooseError::NoneFree { .. } => ErrorKind::Exhausted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ChooseError::Read { source, .. } => source.hint(),
            ChooseError::NoneFree { bridge } => Some(format!(
                "make it with a subnet of your own: `ip link add {bridge} type bridge` and `ip address add`"
            )),
        }
    }
}

/// The first candidate that overlaps none of `routes`; `None` when all do.
#[must_use]
pub fn default_subnet(routes: &[Subnet]) -> Option<Subnet> {
    CANDIDATES
        .iter()
        .filter_map(|(a, b, prefix)| Subnet::new(std::net::Ipv4Addr::new(*a, *b, 0, 0), *prefix))
        .find(|candidate| !routes.iter().any(|route| route.overlaps(candidate)))
}

/// The subnet of a bridge: its own address when it is there and has one, else a subnet that is free on this host.
///
/// Nothing is made. The choice is to be kept: asked again before the bridge is there, the answer may differ.
///
/// # Errors
///
/// When the kernel does not tell, or when every candidate is in use.
pub fn choose_subnet(bridge: &str) -> Result<NetworkSubnet, ChooseError> {
    let failed = |source| ChooseError::Read { bridge: bridge.to_owned(), source };
    let with_gateway = |subnet, gateway| NetworkSubnet { subnet, gateway, range: None, reserved: Vec::new() };
    let mut conversation = Conversation::open(Family::Route).map_err(failed)?;
    if let Some(link) = route::link(&mut conversation, bridge).map_err(failed)? {
        let addresses = route::addresses(&mut conversation, link.index).map_err(failed)?;
        let usable = |(_, subnet): &(_, Subnet)| !subnet.is_ipv6() && subnet.prefix() <= 30;
        if let Some((gateway, subnet)) = addresses.into_iter().find(usable) {
            return Ok(with_gateway(subnet, Some(gateway)));
        }
    }
    let routes = route::route_destinations(&mut conversation).map_err(failed)?;
    default_subnet(&routes)
        .map(|subnet| with_gateway(subnet, subnet.first_host()))
        .ok_or_else(|| ChooseError::NoneFree { bridge: bridge.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_subnet_that_no_route_touches_is_chosen() {
        let cases: [(&[&str], Option<&str>); 5] = [
            (&[], Some("10.77.0.0/16")),
            (&["192.168.1.0/24", "172.17.0.0/16"], Some("10.77.0.0/16")),
            (&["10.77.3.4/32"], Some("10.78.0.0/16")),
            (&["10.0.0.0/8"], Some("172.29.0.0/16")),
            (&["10.0.0.0/8", "172.16.0.0/12"], None),
        ];
        for (routes, expected) in cases {
            let chosen = default_subnet(&subnets(routes)).map(|subnet| subnet.to_string());
            assert_eq!(chosen.as_deref(), expected, "{routes:?}");
        }
    }
}
