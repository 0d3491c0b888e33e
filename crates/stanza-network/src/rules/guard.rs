//! The table `bridge stanza`: what a container may send, whatever its capabilities.
//!
//! ```text
//! set members  { type ifname }                            the containers' ports: others of a bridge are not looked at
//! set macs     { type ifname . ether_addr }               each port's hardware address
//! set sources4 { type ifname . ether_addr . ipv4_addr }   with its address, and 0.0.0.0
//! set sources6 { type ifname . ether_addr . ipv6_addr }   with its address, fe80::…, and ::
//!
//! chain prerouting (filter, prerouting, -300)
//!   iifname != @members accept
//!   ip    iifname . ether saddr . ip saddr != @sources4 drop
//!         udp sport 67 drop                               answers of a DHCP server
//!         accept
//!   ip6   iifname . ether saddr . ip6 saddr != @sources6 drop
//!         udp sport 547 drop                              answers of a DHCPv6 server
//!         icmpv6 type nd-router-advert, nd-redirect drop
//!         icmpv6 type nd-neighbor-advert iifname . ether saddr . target != @sources6 drop
//!         accept
//!   arp   iifname . ether saddr . arp saddr ip != @sources4 drop
//!         iifname . arp saddr ether . arp saddr ip != @sources4 drop
//!         accept
//!   8021q, 8021ad drop                                    a frame within a tagged frame
//!   iifname . ether saddr != @macs drop
//! ```
//!
//! * 0.0.0.0 and `::` are what a host sends from while it asks whether an address is free; nobody learns from them.
//! * The kernel takes one tag off before this, and looks at what is in it as at any frame. What has a second tag is
//!   dropped: a receiver would take that off too, and believe what was not looked at.
//! * Fragments after the first have no header to look at. The kernel believes no neighbour discovery in fragments
//!   (RFC 6980), and addresses are looked at in every fragment.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::name_key;
use super::table::{ACCEPT, DROP, IN_NAME, protocol_to};
use crate::Endpoint;
use crate::netlink::nftables::{
    Chain, Element, Expression, FIRST, Set, Table, TableFamily, Transaction, datatype, word,
};

/// The table of frames.
pub(crate) const GUARD: Table = Table { family: TableFamily::Bridge, name: "stanza" };

const PORT_AND_MAC: u32 = datatype::join(datatype::INTERFACE, datatype::HARDWARE_ADDRESS);
const PLAIN: Set = Set { table: GUARD, name: "", key: (0, 0), data: None, interval: false, native: false };

pub(crate) static MEMBERS: Set =
    Set { name: "members", key: (datatype::INTERFACE, 16), native: true, ..PLAIN };
pub(crate) static MACS: Set = Set { name: "macs", key: (PORT_AND_MAC, 24), ..PLAIN };
pub(crate) static SOURCES4: Set =
    Set { name: "sources4", key: (datatype::join(PORT_AND_MAC, datatype::IPV4_ADDRESS), 28), ..PLAIN };
pub(crate) static SOURCES6: Set =
    Set { name: "sources6", key: (datatype::join(PORT_AND_MAC, datatype::IPV6_ADDRESS), 40), ..PLAIN };
pub(super) static SETS: [&Set; 4] = [&MEMBERS, &MACS, &SOURCES4, &SOURCES6];

const PREROUTING: Chain = Chain { table: GUARD, name: "prerouting", kind: "filter", hook: 0, priority: -300 };

const PROTOCOL: Expression = Expression::Meta { key: 1, to: FIRST };
const SENDER: Expression = Expression::Payload { base: 0, offset: 6, length: 6, to: MAC_WORD };
/// A key's words after the interface's name, and after the hardware address.
const MAC_WORD: u32 = word(4);
const ADDRESS_WORD: u32 = word(6);
const ICMP_TYPE: Expression = Expression::Payload { base: 2, offset: 0, length: 1, to: FIRST };
const SOURCE_PORT: Expression = Expression::Payload { base: 2, offset: 0, length: 2, to: FIRST };

const fn is(value: &'static [u8]) -> Expression {
    Expression::Compare { equal: true, value }
}

/// `length` bytes at `offset` of the header `base`, where an address belongs in a key.
const fn address(base: u32, offset: u32, length: u32) -> Expression {
    Expression::Payload { base, offset, length, to: ADDRESS_WORD }
}

const fn unknown(set: &'static Set) -> Expression {
    Expression::Lookup { set, inverted: true }
}

/// Makes the table whole, whatever of it is there; elements stay.
pub(super) fn ensure(transaction: &mut Transaction) {
    const IPV4: [Expression; 2] = [PROTOCOL, is(&[0x08, 0x00])];
    const IPV6: [Expression; 2] = [PROTOCOL, is(&[0x86, 0xdd])];
    const ARP: [Expression; 2] = [PROTOCOL, is(&[0x08, 0x06])];
    const UDP: [Expression; 2] = [protocol_to(FIRST), is(&[17])];
    const ICMP6: [Expression; 2] = [protocol_to(FIRST), is(&[58])];
    /// Where ARP says its sender's hardware address.
    const ARP_SENDER: Expression = Expression::Payload { base: 1, offset: 8, length: 6, to: MAC_WORD };
    transaction.ensure_table(GUARD);
    for (set, id) in SETS.into_iter().zip(101..) {
        transaction.ensure_set(set, id);
    }
    transaction.ensure_chain(&PREROUTING);
    transaction.flush_chain(GUARD, PREROUTING.name);
    let mut append = |parts: &[&[Expression]]| {
        transaction.append_rule(GUARD, PREROUTING.name, &parts.concat());
    };
    append(&[&[IN_NAME, unknown(&MEMBERS), ACCEPT]]);
    append(&[&IPV4, &[IN_NAME, SENDER, address(1, 12, 4), unknown(&SOURCES4), DROP]]);
    append(&[&IPV4, &UDP, &[SOURCE_PORT, is(&[0, 67]), DROP]]);
    append(&[&IPV4, &[ACCEPT]]);
    append(&[&IPV6, &[IN_NAME, SENDER, address(1, 8, 16), unknown(&SOURCES6), DROP]]);
    append(&[&IPV6, &UDP, &[SOURCE_PORT, is(&[2, 0x23]), DROP]]);
    for kind in [&[134], &[137]] {
        append(&[&IPV6, &ICMP6, &[ICMP_TYPE, is(kind), DROP]]);
    }
    let target = [IN_NAME, SENDER, address(2, 8, 16), unknown(&SOURCES6), DROP];
    append(&[&IPV6, &ICMP6, &[ICMP_TYPE, is(&[136])], &target]);
    append(&[&IPV6, &[ACCEPT]]);
    for sender in [SENDER, ARP_SENDER] {
        append(&[&ARP, &[IN_NAME, sender, address(1, 14, 4), unknown(&SOURCES4), DROP]]);
    }
    append(&[&ARP, &[ACCEPT]]);
    for tag in [&[0x81, 0x00], &[0x88, 0xa8]] {
        append(&[&[PROTOCOL, is(tag), DROP]]);
    }
    append(&[&[IN_NAME, SENDER, unknown(&MACS), DROP]]);
}

/// What one container's port may send.
pub(super) fn elements(endpoint: &Endpoint) -> Vec<Element> {
    let name = name_key(&endpoint.device);
    let sender = [&name[..], &endpoint.mac, &[0; 2]].concat();
    let element = |set, key| Element { set, key, data: Vec::new(), end: None };
    let mut elements = vec![element(&MEMBERS, name), element(&MACS, sender.clone())];
    let mut source = |set, address: &[u8]| elements.push(element(set, [&sender, address].concat()));
    if let Some(address) = endpoint.ipv4 {
        source(&SOURCES4, &address.octets());
        source(&SOURCES4, &Ipv4Addr::UNSPECIFIED.octets());
    }
    if let Some(address) = endpoint.ipv6 {
        source(&SOURCES6, &address.octets());
        source(&SOURCES6, &link_local(endpoint.mac).octets());
        source(&SOURCES6, &Ipv6Addr::UNSPECIFIED.octets());
    }
    elements
}

/// The address that the kernel makes of a hardware address (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_local_address_is_the_hardware_address_with_fffe_within() {
        let address = link_local([0x02, 0x53, 10, 77, 0, 2]);
        assert_eq!(address, "fe80::53:aff:fe4d:2".parse::<Ipv6Addr>().unwrap());
    }
}
