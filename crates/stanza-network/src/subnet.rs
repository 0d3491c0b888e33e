//! IPv4 subnets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of IPv4 addresses with a common prefix; no bit of the address is set beyond the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

/// A string that is not an IPv4 subnet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an IPv4 subnet: expected an address and a prefix length, as `10.77.0.0/16`")]
pub struct SubnetError(String);

impl Subnet {
    /// The subnet that `address` is in; `None` when `prefix` is above 32.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Subnet> {
        (prefix <= 32)
            .then(|| Subnet { network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix })
    }

    /// The first address, which names the subnet.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// The number of common bits, 0 to 32.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The last address.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !mask(self.prefix))
    }

    /// The first address that a host may have: by custom the gateway's. `None` in a /31 or /32.
    #[must_use]
    pub fn first_host(&self) -> Option<Ipv4Addr> {
        (self.prefix <= 30).then(|| Ipv4Addr::from_bits(self.network.to_bits() + 1))
    }

    /// Whether the address is in the subnet.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Subnet, SubnetError> {
        text.split_once('/')
            .and_then(|(address, prefix)| Subnet::new(address.parse().ok()?, prefix.parse().ok()?))
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

    #[test]
    fn subnets_know_their_edges() {
        let subnet: Subnet = "10.77.3.9/16".parse().unwrap();
        assert_eq!(subnet.to_string(), "10.77.0.0/16");
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(10, 77, 255, 255));
        assert_eq!(subnet.first_host(), Some(Ipv4Addr::new(10, 77, 0, 1)));
        assert!(
            subnet.contains(Ipv4Addr::new(10, 77, 255, 255)) && !subnet.contains(Ipv4Addr::new(10, 78, 0, 0))
        );
        let everything: Subnet = "1.2.3.4/0".parse().unwrap();
        assert_eq!(
            (everything.to_string().as_str(), everything.broadcast()),
            ("0.0.0.0/0", Ipv4Addr::BROADCAST)
        );
        let one: Subnet = "1.2.3.4/32".parse().unwrap();
        assert_eq!((one.broadcast(), one.first_host()), (one.network(), None));
        assert!(everything.overlaps(&one) && one.overlaps(&everything) && !one.overlaps(&subnet));
    }

    #[test]
    fn what_is_no_subnet_is_refused_by_name() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "::/0", "a/8"] {
            assert_eq!(bad.parse::<Subnet>(), Err(SubnetError(bad.to_owned())), "{bad}");
        }
    }
}
