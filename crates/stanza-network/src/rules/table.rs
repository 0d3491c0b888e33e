//! The table `inet stanza` as sets, chains and rules; drawn in [`super`].

use crate::netlink::nftables::{
    Chain, Expression, FIRST, Set, Table, TableFamily, Transaction, datatype, word,
};

/// The table of packets.
pub(crate) const HOST: Table = Table { family: TableFamily::Inet, name: "stanza" };
/// What stanza 0.1 had in its place.
const EARLIER: Table = Table { family: TableFamily::Ipv4, name: "stanza" };
/// The chain that is the user's: made empty, never changed.
const USER: &str = "user";

const INTERFACE: (u32, u32) = (datatype::INTERFACE, 16);
const PROTOCOL_PORT: u32 = datatype::join(datatype::PROTOCOL, datatype::PORT);
const PLAIN: Set = Set { table: HOST, name: "", key: INTERFACE, data: None, interval: false, native: false };

pub(super) static BRIDGES: Set = Set { name: "bridges", native: true, ..PLAIN };
pub(super) static INTERNAL: Set = Set { name: "internal", native: true, ..PLAIN };
pub(super) static WITHIN: Set = Set {
    name: "within",
    key: (datatype::join(datatype::INTERFACE, datatype::INTERFACE), 32),
    native: true,
    ..PLAIN
};
/// The families (`NFPROTO_*`) in which the host's firewall drops what comes in.
pub(super) static GUARDED: Set = Set { name: "guarded", key: (datatype::NETWORK_PROTOCOL, 1), ..PLAIN };

/// What differs between IPv4 and IPv6.
pub(super) struct Ip {
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    pub(super) number: u8,
    /// Where the addresses are in the header.
    source: u32,
    destination: u32,
    /// Bytes of an address.
    length: u32,
    /// Cannot be led away from the host, ever.
    fixed: Option<&'static [u8]>,
    pub(super) subnets: &'static Set,
    pub(super) masqueraded: &'static Set,
    pub(super) open: &'static Set,
    pub(super) ports: &'static Set,
    pub(super) addressed_ports: &'static Set,
    pub(super) proxied: &'static Set,
    pub(super) addressed_proxied: &'static Set,
    /// Whose they are: no rule looks there.
    pub(super) proxied_of: &'static Set,
    pub(super) addressed_proxied_of: &'static Set,
}

const ADDRESS_4: u32 = datatype::IPV4_ADDRESS;
const ADDRESS_6: u32 = datatype::IPV6_ADDRESS;

pub(super) static IPV4: Ip = Ip {
    number: 2,
    source: 12,
    destination: 16,
    length: 4,
    fixed: None,
    subnets: &Set { name: "subnets4", key: (ADDRESS_4, 4), interval: true, ..PLAIN },
    masqueraded: &Set { name: "masqueraded4", key: (ADDRESS_4, 4), interval: true, ..PLAIN },
    open: &Set { name: "open4", key: (ADDRESS_4, 4), ..PLAIN },
    ports: &Set {
        name: "ports4",
        key: (PROTOCOL_PORT, 8),
        data: Some((datatype::join(ADDRESS_4, datatype::PORT), 8)),
        ..PLAIN
    },
    addressed_ports: &Set {
        name: "addressed_ports4",
        key: (datatype::join(datatype::join(ADDRESS_4, datatype::PROTOCOL), datatype::PORT), 12),
        data: Some((datatype::join(ADDRESS_4, datatype::PORT), 8)),
        ..PLAIN
    },
    proxied: &Set { name: "proxied4", key: (PROTOCOL_PORT, 8), ..PLAIN },
    addressed_proxied: &Set {
        name: "addressed_proxied4",
        key: (datatype::join(datatype::join(ADDRESS_4, datatype::PROTOCOL), datatype::PORT), 12),
        ..PLAIN
    },
    proxied_of: &Set { name: "proxied_of4", key: (PROTOCOL_PORT, 8), data: Some((ADDRESS_6, 16)), ..PLAIN },
    addressed_proxied_of: &Set {
        name: "addressed_proxied_of4",
        key: (datatype::join(datatype::join(ADDRESS_4, datatype::PROTOCOL), datatype::PORT), 12),
        data: Some((ADDRESS_6, 16)),
        ..PLAIN
    },
};

pub(super) static IPV6: Ip = Ip {
    number: 10,
    source: 8,
    destination: 24,
    length: 16,
    // The kernel lets no answer back to `::1` through another device: IPv6 has no `route_localnet`.
    fixed: Some(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    subnets: &Set { name: "subnets6", key: (ADDRESS_6, 16), interval: true, ..PLAIN },
    masqueraded: &Set { name: "masqueraded6", key: (ADDRESS_6, 16), interval: true, ..PLAIN },
    open: &Set { name: "open6", key: (ADDRESS_6, 16), ..PLAIN },
    ports: &Set {
        name: "ports6",
        key: (PROTOCOL_PORT, 8),
        data: Some((datatype::join(ADDRESS_6, datatype::PORT), 20)),
        ..PLAIN
    },
    addressed_ports: &Set {
        name: "addressed_ports6",
        key: (datatype::join(datatype::join(ADDRESS_6, datatype::PROTOCOL), datatype::PORT), 24),
        data: Some((datatype::join(ADDRESS_6, datatype::PORT), 20)),
        ..PLAIN
    },
    proxied: &Set { name: "proxied6", key: (PROTOCOL_PORT, 8), ..PLAIN },
    addressed_proxied: &Set {
        name: "addressed_proxied6",
        key: (datatype::join(datatype::join(ADDRESS_6, datatype::PROTOCOL), datatype::PORT), 24),
        ..PLAIN
    },
    proxied_of: &Set { name: "proxied_of6", key: (PROTOCOL_PORT, 8), data: Some((ADDRESS_4, 4)), ..PLAIN },
    addressed_proxied_of: &Set {
        name: "addressed_proxied_of6",
        key: (datatype::join(datatype::join(ADDRESS_6, datatype::PROTOCOL), datatype::PORT), 24),
        data: Some((ADDRESS_4, 4)),
        ..PLAIN
    },
};

pub(super) static SETS: [&Set; 22] = [
    &BRIDGES,
    &INTERNAL,
    &WITHIN,
    &GUARDED,
    IPV4.subnets,
    IPV4.masqueraded,
    IPV4.open,
    IPV4.ports,
    IPV4.addressed_ports,
    IPV4.proxied,
    IPV4.addressed_proxied,
    IPV4.proxied_of,
    IPV4.addressed_proxied_of,
    IPV6.subnets,
    IPV6.masqueraded,
    IPV6.open,
    IPV6.ports,
    IPV6.addressed_ports,
    IPV6.proxied,
    IPV6.addressed_proxied,
    IPV6.proxied_of,
    IPV6.addressed_proxied_of,
];

const fn chain(name: &'static str, kind: &'static str, hook: u32, priority: i32) -> Chain {
    Chain { table: HOST, name, kind, hook, priority }
}

const RAW: Chain = chain("raw", "filter", 0, -300);
const PREROUTING: Chain = chain("prerouting", "nat", 0, -100);
const OUTPUT: Chain = chain("output", "nat", 3, -100);
const POSTROUTING: Chain = chain("postrouting", "nat", 4, 100);
const FORWARD: Chain = chain("forward", "filter", 2, 0);
const INPUT: Chain = chain("input", "filter", 1, 0);

const IN_INDEX: Expression = Expression::Meta { key: 4, to: FIRST };
pub(super) const IN_NAME: Expression = Expression::Meta { key: 6, to: FIRST };
const OUT_NAME: Expression = Expression::Meta { key: 7, to: FIRST };
const FAMILY: Expression = Expression::Meta { key: 15, to: FIRST };
const ON_BRIDGE: Expression = Expression::Lookup { set: &BRIDGES, inverted: false };
const OFF_BRIDGE: Expression = Expression::Lookup { set: &BRIDGES, inverted: true };
const ON_INTERNAL: Expression = Expression::Lookup { set: &INTERNAL, inverted: false };
const IS_GUARDED: Expression = Expression::Lookup { set: &GUARDED, inverted: false };
const CONNECTION_STATE: Expression = Expression::Connection { key: 0, to: FIRST };
const CONNECTION_STATUS: Expression = Expression::Connection { key: 2, to: FIRST };
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`, in the machine's byte order.
const ESTABLISHED: Expression = Expression::Mask { mask: 6_u32.to_ne_bytes() };
/// `IPS_DST_NAT`.
const REDIRECTED: Expression = Expression::Mask { mask: 0x20_u32.to_ne_bytes() };
const NOT_ZERO: Expression = Expression::Compare { equal: false, value: &[0; 4] };
const LOOPBACK_NET: Expression = Expression::Compare { equal: true, value: &[127] };
const NOT_LOOPBACK_DEVICE: Expression = Expression::Compare { equal: false, value: &1_u32.to_ne_bytes() };
/// `RTN_LOCAL`.
const LOCAL: Expression = Expression::Compare { equal: true, value: &2_u32.to_ne_bytes() };
pub(super) const ACCEPT: Expression = Expression::Verdict(1);
pub(super) const DROP: Expression = Expression::Verdict(0);

/// One byte of an IPv4 address: enough to know 127.0.0.0/8.
const fn first_byte(offset: u32) -> Expression {
    Expression::Payload { base: 1, offset, length: 1, to: FIRST }
}

/// The destination port of TCP, UDP and SCTP alike.
const fn port_to(register: u32) -> Expression {
    Expression::Payload { base: 2, offset: 2, length: 2, to: register }
}

pub(super) const fn protocol_to(register: u32) -> Expression {
    Expression::Meta { key: 16, to: register }
}

/// The key of the sets of ports that are published on every address.
const ON_ALL: [Expression; 2] = [protocol_to(FIRST), port_to(word(1))];

impl Ip {
    /// The next packet is of this family.
    fn is_family(&self) -> [Expression; 2] {
        let value: &[u8] = if self.number == IPV4.number { &[2] } else { &[10] };
        [FAMILY, Expression::Compare { equal: true, value }]
    }

    fn source(&self) -> Expression {
        Expression::Payload { base: 1, offset: self.source, length: self.length, to: FIRST }
    }

    fn destination(&self) -> Expression {
        Expression::Payload { base: 1, offset: self.destination, length: self.length, to: FIRST }
    }

    fn is_from(&self, set: &'static Set) -> [Expression; 2] {
        [self.source(), Expression::Lookup { set, inverted: false }]
    }

    /// To the container: address and port are what the map has for the key.
    fn redirect(&self, map: &'static Set) -> [Expression; 2] {
        [
            Expression::Map { set: map },
            Expression::DestinationNat { family: self.number, port: word(self.length / 4) },
        ]
    }

    /// The key of the sets of ports that are published on one address: address, protocol, port.
    fn addressed(&self) -> [Expression; 3] {
        let after = self.length / 4;
        [self.destination(), protocol_to(word(after)), port_to(word(after + 1))]
    }

    fn create_redirections(&self, transaction: &mut Transaction, chain: &Chain) {
        let addressed = self.addressed();
        append(transaction, chain, &[&self.is_family(), &addressed, &self.redirect(self.addressed_ports)]);
        let fixed: &[Expression] = match self.fixed {
            Some(value) => &[self.destination(), Expression::Compare { equal: false, value }],
            None => &[],
        };
        let local = [Expression::DestinationType { to: FIRST }, LOCAL];
        append(transaction, chain, &[&self.is_family(), fixed, &local, &ON_ALL, &self.redirect(self.ports)]);
    }

    /// A container of an internal network reaches no port of another one's, also where a process of the host serves it.
    fn create_seclusion(&self, transaction: &mut Transaction) {
        let from_internal = [IN_NAME, ON_INTERNAL];
        for (key, set) in [(&self.addressed()[..], self.addressed_proxied), (&ON_ALL, self.proxied)] {
            let is_known = [Expression::Lookup { set, inverted: false }, DROP];
            append(transaction, &INPUT, &[&self.is_family(), &from_internal, key, &is_known]);
        }
    }

    fn create_masquerading(&self, transaction: &mut Transaction) {
        let masquerade = &[Expression::Masquerade][..];
        let (family, masqueraded) = (self.is_family(), self.is_from(self.masqueraded));
        append(transaction, &POSTROUTING, &[&family, &masqueraded, &[OUT_NAME, OFF_BRIDGE], masquerade]);
        let redirected = [CONNECTION_STATUS, REDIRECTED, NOT_ZERO];
        let ours = self.is_from(self.subnets);
        append(transaction, &POSTROUTING, &[&family, &ours, &[OUT_NAME, ON_BRIDGE], &redirected, masquerade]);
    }

    /// What was published comes in only where the host's firewall drops nothing, or where it is not asked.
    fn create_respect(&self, transaction: &mut Transaction) {
        let from_outside = [IN_NAME, OFF_BRIDGE, OUT_NAME, ON_BRIDGE];
        let redirected = [CONNECTION_STATUS, REDIRECTED, NOT_ZERO];
        let closed = [self.destination(), Expression::Lookup { set: self.open, inverted: true }, DROP];
        let guarded = [FAMILY, IS_GUARDED];
        append(transaction, &FORWARD, &[&self.is_family(), &guarded, &from_outside, &redirected, &closed]);
    }
}

fn append(transaction: &mut Transaction, chain: &Chain, parts: &[&[Expression]]) {
    transaction.append_rule(chain.table, chain.name, &parts.concat());
}

/// Makes the table whole, whatever of it is there; elements and the user's chain stay.
pub(super) fn ensure(transaction: &mut Transaction) {
    // Made first, so that there is something to delete.
    transaction.ensure_table(EARLIER);
    transaction.delete_table(EARLIER);
    transaction.ensure_table(HOST);
    for (set, id) in SETS.into_iter().zip(1..) {
        transaction.ensure_set(set, id);
    }
    transaction.ensure_plain_chain(HOST, USER);
    for chain in [RAW, PREROUTING, OUTPUT, POSTROUTING, FORWARD, INPUT] {
        transaction.ensure_chain(&chain);
        transaction.flush_chain(HOST, chain.name);
    }
    let foreign = [IN_INDEX, NOT_LOOPBACK_DEVICE];
    append(
        transaction,
        &RAW,
        &[&IPV4.is_family(), &foreign, &[first_byte(IPV4.destination), LOOPBACK_NET, DROP]],
    );
    for ip in [&IPV4, &IPV6] {
        ip.create_redirections(transaction, &PREROUTING);
        ip.create_redirections(transaction, &OUTPUT);
        ip.create_masquerading(transaction);
        ip.create_seclusion(transaction);
    }
    let from_loopback = [first_byte(IPV4.source), LOOPBACK_NET, OUT_NAME, ON_BRIDGE, Expression::Masquerade];
    append(transaction, &POSTROUTING, &[&IPV4.is_family(), &from_loopback]);
    ensure_forward(transaction);
}

fn ensure_forward(transaction: &mut Transaction) {
    let within = Expression::Lookup { set: &WITHIN, inverted: false };
    let out_name_after = Expression::Meta { key: 7, to: word(4) };
    append(transaction, &FORWARD, &[&[Expression::Jump(USER)]]);
    append(transaction, &FORWARD, &[&[IN_NAME, out_name_after, within, ACCEPT]]);
    append(transaction, &FORWARD, &[&[IN_NAME, ON_INTERNAL, DROP]]);
    append(transaction, &FORWARD, &[&[OUT_NAME, ON_INTERNAL, DROP]]);
    let to_container = [OUT_NAME, ON_BRIDGE];
    append(transaction, &FORWARD, &[&to_container, &[CONNECTION_STATE, ESTABLISHED, NOT_ZERO, ACCEPT]]);
    for ip in [&IPV4, &IPV6] {
        ip.create_respect(transaction);
    }
    append(transaction, &FORWARD, &[&to_container, &[CONNECTION_STATUS, REDIRECTED, NOT_ZERO, ACCEPT]]);
    append(transaction, &FORWARD, &[&to_container, &[DROP]]);
}
