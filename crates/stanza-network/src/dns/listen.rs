//! The container's side of its resolver: sockets on 127.0.0.11 in its network namespace, and what leads port 53 to them.
//!
//! The sockets have ports that the kernel chose, so the container may serve port 53 itself, on every address. The rules
//! are those of the container's own namespace, and go with it:
//!
//! ```text
//! table ip stanza-dns
//!   chain questions (filter, output, -300)  ip daddr 127.0.0.11 udp dport 53 udp dport set PORT     and tcp
//!   chain answers   (filter, output, -150)  ip saddr 127.0.0.11 udp sport PORT udp sport set 53     and tcp
//! ```
//!
//! Ports are rewritten packet by packet, without connection tracking. Where the container tracks connections for rules of
//! its own, it sees one with PORT both ways: questions are rewritten before it looks (-200), answers after.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;

use rustix::net::sockopt::set_socket_send_buffer_size;

use super::{ADDRESS, ResolverError};
use crate::inside;
use crate::netlink::nftables::{Chain, Expression, FIRST, Table, TableFamily, Transaction};
use crate::netlink::{Conversation, Family};

const TABLE: Table = Table { family: TableFamily::Ipv4, name: "stanza-dns" };
const QUESTIONS: Chain = Chain { table: TABLE, name: "questions", kind: "filter", hook: 3, priority: -300 };
const ANSWERS: Chain = Chain { table: TABLE, name: "answers", kind: "filter", hook: 3, priority: -150 };

const SOURCE: Expression = Expression::Payload { base: 1, offset: 12, length: 4, to: FIRST };
const DESTINATION: Expression = Expression::Payload { base: 1, offset: 16, length: 4, to: FIRST };
const PROTOCOL: Expression = Expression::Meta { key: 16, to: FIRST };
const IS_RESOLVER: Expression = Expression::Compare { equal: true, value: &ADDRESS.octets() };
const PORT: u16 = 53;
/// How many bytes of answers the kernel keeps for a connection, in the place of 4 MiB.
const SEND_BUFFER: usize = 64 << 10;
/// Where source and destination port are in the headers of UDP and TCP.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

/// Number, and place of the checksum in the header.
const UDP: (&[u8], u32) = (&[17], 6);
const TCP: (&[u8], u32) = (&[6], 16);

/// What the container's questions come through.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) datagrams: UdpSocket,
    pub(super) streams: TcpListener,
}

/// Makes sockets and rules in the namespace `netns`, whose loopback is up.
pub(super) fn listen(netns: BorrowedFd<'_>) -> Result<Listeners, ResolverError> {
    let mut made = None;
    inside::within(netns, || {
        made = Some(listen_here());
        Ok(())
    })
    .map_err(|source| ResolverError::Inside { source })?;
    made.unwrap_or_else(|| Err(ResolverError::Bind { source: std::io::ErrorKind::NotFound.into() }))
}

fn listen_here() -> Result<Listeners, ResolverError> {
    let bind = || {
        let datagrams = UdpSocket::bind((ADDRESS, 0))?;
        let streams = TcpListener::bind((ADDRESS, 0))?;
        datagrams.set_nonblocking(true)?;
        streams.set_nonblocking(true)?;
        // Its connections take it over.
        set_socket_send_buffer_size(&streams, SEND_BUFFER)?;
        let ports = (datagrams.local_addr()?.port(), streams.local_addr()?.port());
        Ok((Listeners { datagrams, streams }, ports))
    };
    let (listeners, (udp, tcp)) = bind().map_err(|source| ResolverError::Bind { source })?;
    lead(udp, tcp)?;
    Ok(listeners)
}

/// Leads port 53 to the sockets' ports, and their answers back.
fn lead(udp: u16, tcp: u16) -> Result<(), ResolverError> {
    let failed = |source| ResolverError::Rules { source };
    let mut netfilter = Conversation::open(Family::Netfilter).map_err(failed)?;
    let mut transaction = Transaction::new(&netfilter);
    transaction.ensure_table(TABLE);
    for chain in [QUESTIONS, ANSWERS] {
        transaction.ensure_chain(&chain);
    }
    for ((protocol, checksum), port) in [(UDP, udp), (TCP, tcp)] {
        let protocol = Expression::Compare { equal: true, value: protocol };
        let question = rule(DESTINATION, protocol, DESTINATION_PORT, (PORT, port), checksum);
        transaction.append_rule(TABLE, QUESTIONS.name, &question);
        let answer = rule(SOURCE, protocol, SOURCE_PORT, (port, PORT), checksum);
        transaction.append_rule(TABLE, ANSWERS.name, &answer);
    }
    let refusals = transaction.commit(&mut netfilter).map_err(failed)?;
    match refusals.into_iter().next() {
        Some(refusal) => Err(failed(refusal.into())),
        None => Ok(()),
    }
}

/// The rule that rewrites one port.
fn rule(
    address: Expression,
    protocol: Expression,
    offset: u32,
    (from, to): (u16, u16),
    checksum: u32,
) -> [Expression; 8] {
    [
        address,
        IS_RESOLVER,
        PROTOCOL,
        protocol,
        Expression::Payload { base: 2, offset, length: 2, to: FIRST },
        Expression::ComparePort(from),
        Expression::LoadPort(to),
        Expression::SetPort { offset, checksum },
    ]
}
