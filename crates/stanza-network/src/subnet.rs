//! Subnets of either family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of addresses with a common prefix; no bit of the address is set beyond the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subnet {
    network: IpAddr,
    prefix: u8,
}

/// A string that is not a subnet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a subnet: expected an address and a prefix length, as `10.77.0.0/16` or `fd00:7::/64`")]
pub struct SubnetError(String);

impl Subnet {
    /// The subnet that `address` is in; `None` when `prefix` is longer than the address.
    #[must_use]
    pub fn new(address: impl Into<IpAddr>, prefix: u8) -> Option<Subnet> {
        let address = address.into();
        (prefix <= width(address))
            .then(|| Subnet { network: from_bits(address, bits(address) & mask(address, prefix)), prefix })
    }

    /// The first address, which names the subnet.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// The number of common bits, 0 to 32 or 128.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// It is of IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// The last address: of an IPv4 subnet the broadcast address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        let all = mask(self.network, width(self.network));
        from_bits(self.network, bits(self.network) | (all & !mask(self.network, self.prefix)))
    }

    /// The address `offset` places behind the first; `None` beyond the last.
    #[must_use]
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let bits = bits(self.network).checked_add(offset)?;
        (bits <= self::bits(self.last())).then(|| from_bits(self.network, bits))
    }

    /// How many places behind the subnet's first address this one is; `None` for one of another subnet.
    #[must_use]
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| bits(address) - bits(self.network))
    }

    /// The first address that a host may have: by custom the gateway's. `None` where there is room for fewer than two.
    #[must_use]
    pub fn first_host(&self) -> Option<IpAddr> {
        (self.prefix <= width(self.network) - 2).then(|| self.nth(1)).flatten()
    }

    /// The last address that a host may have; `None` where there is room for fewer than two.
    #[must_use]
    pub fn last_host(&self) -> Option<IpAddr> {
        let last = bits(self.last());
        // IPv6 has no broadcast address.
        let reserved = u128::from(!self.is_ipv6());
        self.first_host().map(|_| from_bits(self.network, last - reserved))
    }

    /// Whether the address is in the subnet.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6()
            && bits(address) & mask(self.network, self.prefix) == bits(self.network)
    }

    /// Whether a host may have the address: it is in the subnet and neither its first nor, in IPv4, its last.
    #[must_use]
    pub fn has_host(&self, address: IpAddr) -> bool {
        let host = |first, last| (bits(first)..=bits(last)).contains(&bits(address));
        self.contains(address)
            && self.first_host().zip(self.last_host()).is_some_and(|(first, last)| host(first, last))
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The subnets of length `prefix` that this one is made of, in order.
    pub fn parts(self, prefix: u8) -> impl Iterator<Item = Subnet> {
        let step = 1_u128.checked_shl(u32::from(width(self.network).saturating_sub(prefix))).unwrap_or(0);
        let fits = prefix >= self.prefix && prefix <= width(self.network);
        let mut next = fits.then_some(self.network);
        std::iter::from_fn(move || {
            let network = next?;
            next = bits(network)
                .checked_add(step)
                .filter(|bits| step > 0 && *bits <= self::bits(self.last()))
                .map(|bits| from_bits(network, bits));
            Subnet::new(network, prefix)
        })
    }
}

/// The length of an address of this family in bits.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

/// The address as a number.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of the family of `like` with that number.
#[expect(clippy::cast_possible_truncation, reason = "numbers of IPv4 addresses have 32 bits")]
fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

/// The bits of the prefix set, all others not.
fn mask(like: IpAddr, prefix: u8) -> u128 {
    let width = width(like);
    let host_bits = u32::from(width - prefix.min(width));
    let all = u128::MAX >> (128 - u32::from(width));
    all & u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Subnet, SubnetError> {
        text.split_once('/')
            .and_then(|(address, prefix)| Subnet::new(address.parse::<IpAddr>().ok()?, prefix.parse().ok()?))
            .ok_or_else(|| SubnetError(text.to_owned()))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_know_their_edges() {
        for (text, shown, last, first_host, last_host) in [
            ("10.77.3.9/16", "10.77.0.0/16", "10.77.255.255", Some("10.77.0.1"), Some("10.77.255.254")),
            ("10.0.0.0/30", "10.0.0.0/30", "10.0.0.3", Some("10.0.0.1"), Some("10.0.0.2")),
            ("10.0.0.0/31", "10.0.0.0/31", "10.0.0.1", None, None),
            ("1.2.3.4/32", "1.2.3.4/32", "1.2.3.4", None, None),
            ("1.2.3.4/0", "0.0.0.0/0", "255.255.255.255", Some("0.0.0.1"), Some("255.255.255.254")),
            (
                "fd00::9/64",
                "fd00::/64",
                "fd00::ffff:ffff:ffff:ffff",
                Some("fd00::1"),
                Some("fd00::ffff:ffff:ffff:ffff"),
            ),
            ("fd00::/126", "fd00::/126", "fd00::3", Some("fd00::1"), Some("fd00::3")),
            ("::1/128", "::1/128", "::1", None, None),
        ] {
            let it = subnet(text);
            assert_eq!((it.to_string().as_str(), it.last()), (shown, ip(last)), "{text}");
            assert_eq!((it.first_host(), it.last_host()), (first_host.map(ip), last_host.map(ip)), "{text}");
        }
    }

    #[test]
    fn subnets_know_who_is_in_them() {
        let net = subnet("10.77.0.0/16");
        assert!(
            net.contains(ip("10.77.255.255")) && !net.contains(ip("10.78.0.0")) && !net.contains(ip("::"))
        );
        assert!(net.has_host(ip("10.77.0.1")) && !net.has_host(ip("10.77.0.0")) && !net.has_host(net.last()));
        assert_eq!((net.offset(ip("10.77.1.0")), net.nth(256)), (Some(256), Some(ip("10.77.1.0"))));
        assert_eq!((net.offset(ip("10.78.0.0")), net.nth(65536)), (None, None));
        let (everything, one, six) = (subnet("1.2.3.4/0"), subnet("1.2.3.4/32"), subnet("::/0"));
        assert!(everything.overlaps(&one) && one.overlaps(&everything) && !one.overlaps(&net));
        assert!(!six.overlaps(&everything) && six.overlaps(&subnet("fd00::/8")));
    }

    #[test]
    fn a_subnet_comes_apart_into_smaller_ones() {
        let parts =
            |text: &str, prefix| subnet(text).parts(prefix).map(|p| p.to_string()).collect::<Vec<_>>();
        assert_eq!(parts("10.0.0.0/23", 24), ["10.0.0.0/24", "10.0.1.0/24"]);
        assert_eq!(parts("255.255.255.0/24", 25), ["255.255.255.0/25", "255.255.255.128/25"]);
        assert_eq!(parts("10.0.0.0/24", 24), ["10.0.0.0/24"]);
        assert_eq!(parts("10.0.0.0/24", 23), Vec::<String>::new());
        assert_eq!(parts("0.0.0.0/0", 0), ["0.0.0.0/0"]);
        assert_eq!(subnet("fd00::/48").parts(64).nth(65535).unwrap().to_string(), "fd00:0:0:ffff::/64");
    }

    #[test]
    fn what_is_no_subnet_is_refused_by_name() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "::/129", "a/8"] {
            assert_eq!(bad.parse::<Subnet>(), Err(SubnetError(bad.to_owned())), "{bad}");
        }
    }
}
