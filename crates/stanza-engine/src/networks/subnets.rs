//! The subnets of a new network: those asked for, checked, and chosen ones for families that have none.

use stanza_network::{NetworkSubnet, Pool, Subnet, default_pools, free_part, host_routes, subnets_of_device};

use super::{NetworkError, NetworkRequest, NetworkRequestError, SubnetRequest};
use crate::{Engine, names};

/// Docker's length of an IPv6 subnet, and the only one that addresses configure themselves in (RFC 4862).
const IPV6_PART: u8 = 64;
/// A site's prefix (RFC 4193).
const SITE: u8 = 48;

impl Engine {
    /// The subnets of a network whose bridge, if it has one, is `bridge`.
    pub(super) fn plan_subnets(
        &mut self,
        request: &NetworkRequest,
        bridge: Option<&str>,
        gateways: bool,
    ) -> Result<Vec<NetworkSubnet>, NetworkError> {
        let asked = request.subnets.iter().map(|asked| place(asked, gateways));
        let mut places: Vec<NetworkSubnet> = asked.collect::<Result<_, _>>()?;
        families(request, &places)?;
        for (index, place) in places.iter().enumerate() {
            if let Some(other) = places[..index].iter().find(|other| other.subnet.overlaps(&place.subnet)) {
                let reason = format!("overlaps `{}` of the same network", other.subnet);
                return Err(NetworkRequestError::Subnet { subnet: place.subnet, reason }.into());
            }
        }
        let has = |places: &[NetworkSubnet], ipv6| places.iter().any(|place| place.subnet.is_ipv6() == ipv6);
        let wants_ipv4 = request.ipv4.unwrap_or(true) && !has(&places, false);
        let wants_ipv6 = request.ipv6.unwrap_or(false) && !has(&places, true);
        let nobody = request.ipam_driver.as_deref() == Some("none");
        if nobody && places.is_empty() {
            return Ok(places);
        }
        let routes = host_routes()?;
        if let Some(bridge) = bridge {
            // A route to what the bridge has already is the network's own.
            let own: Vec<Subnet> = subnets_of_device(bridge)?.iter().map(|place| place.subnet).collect();
            let foreign = routes.iter().filter(|route| !own.contains(route));
            for route in foreign {
                if let Some(place) = places.iter().find(|place| place.subnet.overlaps(route)) {
                    return Err(NetworkRequestError::Route { subnet: place.subnet, route: *route }.into());
                }
            }
        }
        if wants_ipv4 || wants_ipv6 {
            self.choose_subnets(request, (wants_ipv4, wants_ipv6), routes, gateways, &mut places)?;
        }
        Ok(places)
    }

    fn choose_subnets(
        &mut self,
        request: &NetworkRequest,
        (ipv4, ipv6): (bool, bool),
        routes: Vec<Subnet>,
        gateways: bool,
        places: &mut Vec<NetworkSubnet>,
    ) -> Result<(), NetworkError> {
        let mut taken = routes;
        // The default network is to find its own place free when it is first needed.
        self.default_network()?;
        let others = self.database()?.networks()?;
        taken.extend(others.iter().flat_map(|other| &other.network.subnets).map(|place| place.subnet));
        taken.extend(places.iter().map(|place| place.subnet));
        let mut pools = self.settings()?.network.default_address_pools.clone();
        if pools.iter().all(|pool| pool.base.is_ipv6()) {
            pools.extend(default_pools());
        }
        if ipv6 && pools.iter().all(|pool| !pool.base.is_ipv6()) {
            pools.push(self.unique_local_pool()?);
        }
        for (wanted, is_ipv6) in [(ipv4, false), (ipv6, true)] {
            let of_family: Vec<Pool> =
                pools.iter().copied().filter(|pool| pool.base.is_ipv6() == is_ipv6).collect();
            if wanted {
                let subnet = free_part(&of_family, &taken)
                    .ok_or_else(|| stanza_network::ChooseError::NoneFree { network: request.name.clone() })?;
                let chosen = SubnetRequest { subnet, gateway: None, range: None, aux: Vec::new() };
                places.push(place(&chosen, gateways)?);
            }
        }
        Ok(())
    }

    /// The engine's own /48 of unique local addresses (RFC 4193): drawn once, and kept in the database.
    fn unique_local_pool(&mut self) -> Result<Pool, NetworkError> {
        let mut bytes = [0_u8; 16];
        names::random(&mut bytes[1..6]).map_err(NetworkRequestError::Random)?;
        bytes[0] = 0xfd;
        let site = Subnet::new(bytes, SITE).expect("an IPv6 address has more bits");
        Ok(Pool { base: self.database()?.unique_local(site)?, size: IPV6_PART })
    }
}

/// The request contradicts itself in what families it has.
fn families(request: &NetworkRequest, places: &[NetworkSubnet]) -> Result<(), NetworkRequestError> {
    for (asked, ipv6, name) in [(request.ipv4, false, "IPv4"), (request.ipv6, true, "IPv6")] {
        if asked == Some(false)
            && let Some(place) = places.iter().find(|place| place.subnet.is_ipv6() == ipv6)
        {
            let reason = format!("the network is to have no {name}");
            return Err(NetworkRequestError::Subnet { subnet: place.subnet, reason });
        }
    }
    if request.ipv4 == Some(false) && request.ipv6 != Some(true) && places.is_empty() {
        return Err(NetworkRequestError::Option {
            name: "ipv4".to_owned(),
            reason: "a network needs one family of addresses".to_owned(),
        });
    }
    Ok(())
}

/// A subnet that was asked for, checked.
fn place(asked: &SubnetRequest, gateways: bool) -> Result<NetworkSubnet, NetworkRequestError> {
    let subnet = asked.subnet;
    let wrong = |reason: String| NetworkRequestError::Subnet { subnet, reason };
    let first = subnet.first_host().ok_or_else(|| {
        let longest = if subnet.is_ipv6() { 126 } else { 30 };
        wrong(format!("no room for a container: the prefix is at most {longest}"))
    })?;
    if let Some(gateway) = asked.gateway
        && !subnet.has_host(gateway)
    {
        return Err(wrong(format!("the gateway `{gateway}` is no host's address in it")));
    }
    if let Some(range) = asked.range
        && (!subnet.contains(range.network()) || range.prefix() < subnet.prefix())
    {
        return Err(wrong(format!("the range `{range}` is not in it")));
    }
    let gateway = asked.gateway.or(gateways.then_some(first));
    let mut seen = Vec::new();
    for (name, address) in &asked.aux {
        if !subnet.contains(*address) {
            return Err(wrong(format!("the address `{address}` ({name}) is not in it")));
        }
        if gateway == Some(*address) || seen.contains(address) {
            return Err(wrong(format!("the address `{address}` ({name}) is reserved twice")));
        }
        seen.push(*address);
    }
    Ok(NetworkSubnet { subnet, gateway, range: asked.range, reserved: asked.aux.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(subnet: &str) -> SubnetRequest {
        SubnetRequest { subnet: subnet.parse().unwrap(), gateway: None, range: None, aux: Vec::new() }
    }

    #[test]
    fn a_subnet_is_completed() {
        let chosen = place(&asked("10.1.0.0/24"), true).unwrap();
        assert_eq!(chosen.gateway, Some([10, 1, 0, 1].into()));
        assert_eq!(place(&asked("10.1.0.0/24"), false).unwrap().gateway, None);
        let last = SubnetRequest { gateway: Some([10, 1, 0, 254].into()), ..asked("10.1.0.0/24") };
        assert_eq!(place(&last, true).unwrap().gateway, Some([10, 1, 0, 254].into()));
    }

    #[test]
    fn what_does_not_fit_a_subnet_is_named() {
        let ten = || asked("10.1.0.0/24");
        let aux = |address: [u8; 4]| vec![("printer".to_owned(), address.into())];
        for (request, word) in [
            (asked("10.1.0.0/31"), "at most 30"),
            (asked("fd00::/127"), "at most 126"),
            (SubnetRequest { gateway: Some([10, 2, 0, 1].into()), ..ten() }, "the gateway `10.2.0.1`"),
            (SubnetRequest { gateway: Some([10, 1, 0, 255].into()), ..ten() }, "the gateway `10.1.0.255`"),
            (SubnetRequest { range: "10.2.0.0/25".parse().ok(), ..ten() }, "the range `10.2.0.0/25`"),
            (SubnetRequest { range: "10.0.0.0/8".parse().ok(), ..ten() }, "the range `10.0.0.0/8`"),
            (SubnetRequest { aux: aux([10, 2, 0, 9]), ..ten() }, "`10.2.0.9` (printer) is not in it"),
            (SubnetRequest { aux: aux([10, 1, 0, 1]), ..ten() }, "reserved twice"),
        ] {
            let error = place(&request, true).unwrap_err().to_string();
            assert!(error.starts_with(&format!("subnet `{}`: ", request.subnet)), "{error}");
            assert!(error.contains(word), "{error}");
        }
    }
}
