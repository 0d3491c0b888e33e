//! Choosing an address for a new container.

use std::net::IpAddr;

use crate::Subnet;

/// An address of `range` that a host of `subnet` may have and that is not `taken`; `None` when there is none.
///
/// The subnet's first address and, in IPv4, its last are never given. `highest` is the highest address given in the
/// range: the one behind it is tried first, so that the work does not grow with the number of containers; then all from the
/// lowest on. `taken` is asked for each candidate, also for the gateway's and others that are not to be given.
#[must_use]
pub fn choose(
    subnet: Subnet,
    range: Subnet,
    taken: &dyn Fn(IpAddr) -> bool,
    highest: Option<IpAddr>,
) -> Option<IpAddr> {
    let first = range.offset(range.network().max(subnet.first_host()?))?;
    let last = range.offset(range.last().min(subnet.last_host()?))?;
    let behind = highest.and_then(|address| range.offset(address)).map(|offset| offset + 1);
    let is_free = |candidate: &IpAddr| !taken(*candidate);
    behind
        .filter(|offset| (first..=last).contains(offset))
        .and_then(|offset| range.nth(offset))
        .filter(is_free)
        .or_else(|| (first..=last).filter_map(|offset| range.nth(offset)).find(is_free))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_address_behind_the_highest_comes_first_and_then_the_lowest_that_is_free() {
        let subnet: Subnet = "10.0.0.0/29".parse().unwrap();
        let free = |taken: &[&str], highest: Option<&str>| {
            choose(subnet, subnet, &|a| taken.iter().any(|t| ip(t) == a), highest.map(ip))
                .map(|a| a.to_string())
        };
        let shown = |text: &str| Some(text.to_owned());
        assert_eq!(free(&["10.0.0.1"], None), shown("10.0.0.2"));
        assert_eq!(free(&["10.0.0.1", "10.0.0.4"], Some("10.0.0.4")), shown("10.0.0.5"));
        // Behind the last comes no broadcast address.
        assert_eq!(free(&["10.0.0.1", "10.0.0.6"], Some("10.0.0.6")), shown("10.0.0.2"));
        assert_eq!(free(&["10.0.0.1", "10.0.0.2", "10.0.0.5"], Some("10.0.0.4")), shown("10.0.0.3"));
        let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
        assert_eq!(free(&all, Some("10.0.0.6")), None);
        // One of another subnet confuses nobody.
        assert_eq!(free(&[], Some("192.168.0.1")), shown("10.0.0.1"));
    }

    #[test]
    fn addresses_are_of_the_range() {
        let choose = |subnet: &str, range: &str| {
            super::choose(subnet.parse().unwrap(), range.parse().unwrap(), &|_| false, None)
                .map(|a| a.to_string())
        };
        assert_eq!(choose("10.0.0.0/16", "10.0.5.0/24").as_deref(), Some("10.0.5.0"));
        assert_eq!(choose("10.0.0.0/16", "10.0.255.255/32"), None);
        assert_eq!(choose("fd00::/64", "fd00::/64").as_deref(), Some("fd00::1"));
        assert_eq!(choose("fd00::/64", "fd00::ff00/120").as_deref(), Some("fd00::ff00"));
        assert_eq!(choose("10.0.0.0/31", "10.0.0.0/31"), None);
    }
}
