//! Who reaches whom, and from which address.

use super::*;

#[test]
fn a_container_reaches_outside_with_the_hosts_address() {
    let Some(world) = World::new() else { return };
    let container = world.container(2, &[]);
    serve_tcp(&world.outside, OUTSIDE, 80, "outside");
    serve_udp(&world.outside, OUTSIDE, 53, "outside");
    assert_eq!(ask_tcp(&container.space, OUTSIDE, 80).unwrap(), "outside 192.0.2.1");
    assert_eq!(ask_udp(&container.space, OUTSIDE, 53).unwrap(), "outside 192.0.2.1");
}

#[test]
fn containers_of_a_bridge_reach_each_other_by_their_own_addresses() {
    let Some(world) = World::new() else { return };
    let one = world.container(2, &[]);
    let two = world.container(3, &[]);
    serve_tcp(&two.space, two.address(), 80, "two");
    assert_eq!(ask_tcp(&one.space, two.address(), 80).unwrap(), "two 10.77.0.2");
    // The host itself reaches it too.
    assert_eq!(ask_tcp(&world.host, two.address(), 80).unwrap(), "two 10.77.0.1");
}

#[test]
fn a_published_port_is_reached_from_outside_from_the_host_and_through_its_loopback() {
    let Some(world) = World::new() else { return };
    let container = world.container(2, &[tcp(None, 8080, 80), udp(None, 5353, 53)]);
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "container");
    serve_udp(&container.space, Ipv4Addr::UNSPECIFIED, 53, "container");
    let ways = [
        (&world.outside, HOST, "container 192.0.2.2"),
        (&world.host, HOST, "container 192.0.2.1"),
        (&world.host, LOCALHOST, "container 10.77.0.1"),
        (&world.host, Ipv4Addr::new(127, 9, 9, 9), "container 10.77.0.1"),
        (&world.host, GATEWAY, "container 10.77.0.1"),
    ];
    for (from, to, expected) in ways {
        assert_eq!(ask_tcp(from, to, 8080).unwrap(), expected, "tcp {to}");
        assert_eq!(ask_udp(from, to, 5353).unwrap(), expected, "udp {to}");
    }
    // A TCP port and a UDP port of the same number are two ports.
    let refused = ask_tcp(&world.outside, HOST, 5353).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_container_reaches_itself_and_its_peers_by_the_published_port() {
    let Some(world) = World::new() else { return };
    let one = world.container(2, &[tcp(None, 8080, 80), udp(None, 5353, 53)]);
    let two = world.container(3, &[]);
    serve_tcp(&one.space, Ipv4Addr::UNSPECIFIED, 80, "one");
    serve_udp(&one.space, Ipv4Addr::UNSPECIFIED, 53, "one");
    for filter in [false, true] {
        let filtered = world.filter_bridged(filter);
        for (name, from) in [("one", &one.space), ("two", &two.space)] {
            for to in [HOST, GATEWAY] {
                let expected = Some("one 10.77.0.1".to_owned());
                let way = format!("from {name} to {to}, br_netfilter {:?}", filtered.map(|()| filter));
                assert_eq!(ask_tcp(from, to, 8080).ok(), expected, "tcp {way}");
                assert_eq!(ask_udp(from, to, 5353).ok(), expected, "udp {way}");
            }
        }
        assert_eq!(ask_tcp(&two.space, one.address(), 80).ok().as_deref(), Some("one 10.77.0.3"), "direct");
    }
}

#[test]
fn a_port_published_on_one_address_is_reached_through_that_address_only() {
    let Some(world) = World::new() else { return };
    let container = world.container(2, &[tcp(Some(HOST), 8080, 80), udp(Some(HOST), 5353, 53)]);
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "container");
    serve_udp(&container.space, Ipv4Addr::UNSPECIFIED, 53, "container");
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "container 192.0.2.2");
    assert_eq!(ask_udp(&world.outside, HOST, 5353).unwrap(), "container 192.0.2.2");
    assert_eq!(ask_tcp(&world.host, HOST, 8080).unwrap(), "container 192.0.2.1");
    for to in [LOCALHOST, GATEWAY] {
        let refused = ask_tcp(&world.host, to, 8080).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{to}");
    }
}

#[test]
fn a_port_published_on_loopback_is_never_reached_from_outside() {
    let Some(world) = World::new() else { return };
    let container = world.container(2, &[tcp(Some(LOCALHOST), 8080, 80), udp(Some(LOCALHOST), 5353, 53)]);
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "container");
    serve_udp(&container.space, Ipv4Addr::UNSPECIFIED, 53, "container");
    assert_eq!(ask_tcp(&world.host, LOCALHOST, 8080).unwrap(), "container 10.77.0.1");
    assert_eq!(ask_udp(&world.host, LOCALHOST, 5353).unwrap(), "container 10.77.0.1");

    let refused = ask_tcp(&world.outside, HOST, 8080).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    // By its own address, through the host as a router.
    ask_tcp_for(&world.outside, container.address(), 80, SILENCE).unwrap_err();
    // With 127.0.0.1 as the destination on the wire.
    without_loopback(&world.outside);
    ask_tcp_for(&world.outside, LOCALHOST, 8080, SILENCE).unwrap_err();
    let lost = world
        .outside
        .run(|| ask_udp_from(&UdpSocket::bind((OUTSIDE, 0)).unwrap(), LOCALHOST, 5353, SILENCE).unwrap_err());
    assert_eq!(lost.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn the_hosts_loopback_services_are_out_of_a_containers_reach() {
    let Some(world) = World::new() else { return };
    let container = world.container(2, &[]);
    serve_tcp(&world.host, LOCALHOST, 6379, "host");
    serve_udp(&world.host, LOCALHOST, 6379, "host");
    assert_eq!(ask_tcp(&world.host, LOCALHOST, 6379).unwrap(), "host 127.0.0.1");
    without_loopback(&container.space);
    ask_tcp_for(&container.space, LOCALHOST, 6379, SILENCE).unwrap_err();
    let lost = container.space.run(|| {
        ask_udp_from(&UdpSocket::bind((container.address(), 0)).unwrap(), LOCALHOST, 6379, SILENCE)
            .unwrap_err()
    });
    assert_eq!(lost.kind(), io::ErrorKind::WouldBlock);
    for to in [HOST, GATEWAY] {
        let refused = ask_tcp(&container.space, to, 6379).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{to}");
    }
}

#[test]
fn an_unpublished_port_is_not_reached_by_the_containers_address() {
    let Some(world) = World::new() else { return };
    let container = world.container(2, &[tcp(None, 8080, 80)]);
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "container");
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 81, "hidden");
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "container 192.0.2.2");
    for port in [80, 81] {
        ask_tcp_for(&world.outside, container.address(), port, SILENCE).unwrap_err();
    }
}

/// A resolver that keeps one source port would stay bound to what was there before, for as long as it asks.
#[test]
fn a_udp_client_that_keeps_asking_meets_the_new_container() {
    let Some(world) = World::new() else { return };
    // Some container has been here before: the host tracks connections.
    let first = world.container(2, &[]);
    let client = world.outside.run(|| UdpSocket::bind((OUTSIDE, 4444)).unwrap());
    ask_udp_from(&client, HOST, 5353, SILENCE).unwrap_err();
    world.host.run(|| assert!(crate::detach(&first.plan, Some(first.attachment)).is_empty()));

    let names = ["second", "third"];
    for (last, name) in (3..).zip(names) {
        let container = world.container(last, &[udp(None, 5353, 53)]);
        serve_udp(&container.space, Ipv4Addr::UNSPECIFIED, 53, name);
        assert_eq!(ask_udp_from(&client, HOST, 5353, PATIENCE).unwrap(), format!("{name} 192.0.2.2"));
        world.host.run(|| assert!(crate::detach(&container.plan, Some(container.attachment)).is_empty()));
    }
}
