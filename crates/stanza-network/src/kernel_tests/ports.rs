//! Which ports of the host are taken, and how many at once.

use std::collections::HashSet;
use std::time::Instant;

use stanza_spec::{Classify, ErrorKind};

use super::*;
use crate::{AttachError, detach};

fn sctp(host_port: u16, container_port: u16) -> PortMap {
    PortMap { protocol: Protocol::Sctp, ..tcp(None, host_port, container_port) }
}

fn number(container: &Container, at: usize) -> u16 {
    container.attachment.ports()[at].host_port.unwrap()
}

#[test]
fn a_port_is_taken_in_both_families_under_one_number() {
    let Some(world) = World::new() else { return };
    let any = PortMap { host_port: None, ..tcp(None, 0, 80) };
    let container = world.container(2, &[any, tcp(None, 8080, 80)]);
    world.host.run(|| {
        for port in [number(&container, 0), 8080] {
            for ip in [IpAddr::from(LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
                let error = TcpListener::bind((ip, port)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{ip} {port}");
            }
        }
    });
    // Only of IPv6 in somebody's hands: no port of ours in either family.
    let _holder = world.host.run(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 9090)).unwrap());
    let space = Space::new().unwrap();
    let attach = |port| world.host.run(|| attach(&plan(3, &[port]), space.0.as_fd()));
    let error = attach(tcp(None, 9090, 80)).unwrap_err();
    assert_eq!(error.to_string(), "cannot publish TCP port `[::]:9090`: it is taken");
    // And an IPv4 address alone is free of it.
    let attachment = attach(tcp(Some(HOST), 9090, 80)).unwrap();
    assert_eq!(attachment.ports()[0].host_port, Some(9090));
}

#[test]
fn the_first_free_port_of_a_range_is_taken_until_there_is_none() {
    let Some(world) = World::new() else { return };
    let range =
        |first, last| PortMap { host_port: None, host_range: Some((first, last)), ..tcp(None, 0, 80) };
    let _holder = world.host.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8001)).unwrap());
    let container = world.container(2, &[range(8000, 8003), range(8000, 8003)]);
    assert_eq!((number(&container, 0), number(&container, 1)), (8000, 8002));
    let space = Space::new().unwrap();
    let error = world.host.run(|| attach(&plan(3, &[range(8000, 8002)]), space.0.as_fd()).unwrap_err());
    assert!(matches!(error, AttachError::RangeTaken { .. }), "{error:?}");
    assert_eq!(error.to_string(), "cannot publish one of the TCP ports 8000 to 8002: all are taken");
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

/// By the rules it is one port as any; whether there are sockets of it is the kernel's.
#[test]
fn an_sctp_port_is_held_by_one_container_and_leads_to_it() {
    let Some(world) = World::new() else { return };
    let any = PortMap { host_port: None, ..sctp(0, 38412) };
    let container = world.start(plan6(network6(), 2, &[sctp(38412, 38412), any]));
    assert_ne!(number(&container, 1), 0);
    let space = Space::new().unwrap();
    let error = world.host.run(|| attach(&plan(3, &[sctp(38412, 1)]), space.0.as_fd()).unwrap_err());
    assert!(matches!(error, AttachError::PortTaken { .. }), "{error:?}");
    if let Some(shown) = program(&world.host, &["nft", "list", "map", "inet", "stanza", "ports4"], "") {
        assert!(shown.contains("sctp . 38412 : 10.77.0.2 . 38412"), "{shown}");
    }
    assert_eq!(world.inventory().1.len(), 4);
    world.host.run(|| assert!(detach(&container.plan, Some(container.attachment)).is_empty()));
    assert_eq!(world.inventory().1.len(), 0);
    // Free again.
    world.host.run(|| attach(&plan(3, &[sctp(38412, 1)]), space.0.as_fd()).unwrap());
}

#[test]
fn a_host_without_ipv6_addresses_still_publishes_and_a_missing_one_is_named() {
    let Some(world) = World::new() else { return };
    world.host.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap());
    let container = world.container(2, &[tcp(None, 8080, 80)]);
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "container");
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "container 192.0.2.2");
    let space = Space::new().unwrap();
    let port = on(Ipv6Addr::LOCALHOST, tcp(None, 8081, 80));
    let error = world.host.run(|| attach(&plan(3, &[port]), space.0.as_fd()).unwrap_err());
    assert_eq!(error.to_string(), "cannot publish a port on `::1`: it is no address of this host");
}

/// Prints what many ports cost; the bounds are only there to catch a disaster.
#[test]
fn a_hundred_ports_are_one_transaction_and_a_thousand_connect_as_fast_as_one() {
    let Some(world) = World::new() else { return };
    let keeper = world.start(plan6(network6(), 2, &[]));
    let generation = || {
        let mut netfilter = Conversation::open(Family::Netfilter).unwrap();
        nftables::generation(&mut netfilter).unwrap()
    };
    let mut medians = Vec::new();
    for count in [0_u16, 1, 100] {
        let ports: Vec<PortMap> = (0..count).map(|at| tcp(None, 20_000 + at, 80)).collect();
        let mut times: Vec<Duration> = (0..20)
            .map(|_| {
                let space = Space::new().unwrap();
                let plan = plan6(network6(), 3, &ports);
                world.host.run(|| {
                    let before = generation();
                    let start = Instant::now();
                    let attachment = attach(&plan, space.0.as_fd()).unwrap();
                    let elapsed = start.elapsed();
                    assert_eq!(generation(), before + 1, "one transaction");
                    assert!(detach(&plan, Some(attachment)).is_empty());
                    elapsed
                })
            })
            .collect();
        times.sort();
        medians.push((count, times[times.len() / 2]));
    }
    report(&format!("median of 20 attachments with that many ports: {medians:?}"));
    assert!(medians[2].1 < Duration::from_millis(200), "{medians:?}");

    let one = world.container(4, &[tcp(None, 8080, 80)]);
    serve_tcp(&one.space, Ipv4Addr::UNSPECIFIED, 80, "one");
    let connect = || {
        let mut times: Vec<Duration> = (0..301)
            .map(|_| {
                world.outside.run(|| {
                    let start = Instant::now();
                    TcpStream::connect((HOST, 8080)).unwrap();
                    start.elapsed()
                })
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let with_one = connect();
    let ports: Vec<PortMap> = (0..1000).map(|at| tcp(None, 20_000 + at, 80)).collect();
    let many = world.container(5, &ports);
    let numbers: HashSet<u16> = many.attachment.ports().iter().filter_map(|port| port.host_port).collect();
    assert_eq!(numbers.len(), 1000);
    let with_many = connect();
    report(&format!("median connection with 1 port {with_one:?}, with 1,001 {with_many:?}"));
    assert!(with_many < with_one * 3, "{with_one:?} {with_many:?}");
    drop(keeper);
}

#[expect(clippy::print_stderr, reason = "a measurement is for the person who runs the test")]
fn report(line: &str) {
    eprintln!("{line}");
}
