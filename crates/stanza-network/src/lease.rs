//! Choosing an address for a new container.

use std::net::Ipv4Addr;

use crate::Subnet;

/// The first free address of `subnet` after `after`, round the subnet once; `None` when all are taken.
///
/// The network's own address, the broadcast address and `gateway` are never given. `after` is the address given
/// last: starting behind it delays the re-use of an address, so that nobody's old connections meet a stranger.
/// `taken` is asked for each candidate.
#[must_use]
pub fn choose(
    subnet: Subnet,
    gateway: Ipv4Addr,
    taken: &dyn Fn(Ipv4Addr) -> bool,
    after: Option<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let first = subnet.first_host()?.to_bits();
    let last = subnet.broadcast().to_bits().checked_sub(1)?;
    let start =
        after.map(Ipv4Addr::to_bits).filter(|bits| (first..last).contains(bits)).map_or(first, |b| b + 1);
    (start..=last)
        .chain(first..start)
        .map(Ipv4Addr::from_bits)
        .find(|candidate| *candidate != gateway && !taken(*candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn addresses_go_round_the_subnet() {
        let subnet: Subnet = "10.0.0.0/29".parse().unwrap();
        let none = |_| false;
        let cases = [
            (None, 2),
            (Some(ip(2)), 3),
            (Some(ip(5)), 6),
            (Some(ip(6)), 2),
            // Neither the broadcast address nor one of another subnet confuses it.
            (Some(ip(7)), 2),
            (Some(Ipv4Addr::new(192, 168, 0, 1)), 2),
        ];
        for (after, expected) in cases {
            assert_eq!(choose(subnet, ip(1), &none, after), Some(ip(expected)), "{after:?}");
        }
    }

    #[test]
    fn taken_addresses_and_the_gateway_are_passed_over() {
        let subnet: Subnet = "10.0.0.0/29".parse().unwrap();
        assert_eq!(choose(subnet, ip(3), &|a| a == ip(2) || a == ip(4), Some(ip(1))), Some(ip(5)));
        assert_eq!(choose(subnet, ip(1), &|a| a != ip(2), Some(ip(4))), Some(ip(2)));
        assert_eq!(choose(subnet, ip(1), &|_| true, None), None);
        assert_eq!(choose("10.0.0.0/31".parse().unwrap(), ip(1), &|_| false, None), None);
    }
}
