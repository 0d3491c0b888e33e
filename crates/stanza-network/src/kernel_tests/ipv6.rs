//! Both families are one: what holds of IPv4 holds of IPv6.

use super::*;

#[test]
fn a_container_reaches_outside_by_ipv6_with_the_hosts_address() {
    let Some(world) = World::new() else { return };
    let container = world.start(plan6(network6(), 2, &[]));
    serve_tcp(&world.outside, OUTSIDE6, 80, "outside");
    serve_udp(&world.outside, OUTSIDE6, 53, "outside");
    assert_eq!(ask_tcp(&container.space, OUTSIDE6, 80).unwrap(), "outside 2001:db8::1");
    assert_eq!(ask_udp(&container.space, OUTSIDE6, 53).unwrap(), "outside 2001:db8::1");
}

#[test]
fn a_network_that_does_not_masquerade_leaves_with_its_own_addresses() {
    let Some(world) = World::new() else { return };
    let mut network = network6();
    let Driver::Bridge(bridge) = &mut network.driver else { panic!("a bridge") };
    bridge.masquerade = false;
    let container = world.start(plan6(network, 2, &[]));
    serve_tcp(&world.outside, Ipv6Addr::UNSPECIFIED, 80, "outside");
    serve_tcp(&world.outside, OUTSIDE, 81, "outside");
    assert_eq!(ask_tcp(&container.space, OUTSIDE6, 80).unwrap(), "outside fd00:77::2");
    assert_eq!(ask_tcp(&container.space, OUTSIDE, 81).unwrap(), "outside 10.77.0.2");
}

#[test]
fn a_port_published_on_no_address_is_reached_by_both_families() {
    let Some(world) = World::new() else { return };
    let one = world.start(plan6(network6(), 2, &[tcp(None, 8080, 80), udp(None, 5353, 53)]));
    let two = world.start(plan6(network6(), 3, &[]));
    for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        // Each server of its own family only, as `[::]` takes both and shows IPv4 as IPv6.
        let kind = if any.is_ipv4() { "four" } else { "six" };
        if any.is_ipv4() {
            serve_tcp(&one.space, one.address(), 80, kind);
            serve_udp(&one.space, one.address(), 53, kind);
        } else {
            serve_tcp(&one.space, one.address6(), 80, kind);
            serve_udp(&one.space, one.address6(), 53, kind);
        }
    }
    let ways: [(&Space, IpAddr, &str); 9] = [
        (&world.outside, HOST.into(), "four 192.0.2.2"),
        (&world.outside, HOST6.into(), "six 2001:db8::2"),
        (&world.host, HOST6.into(), "six 2001:db8::1"),
        (&world.host, GATEWAY6.into(), "six fd00:77::1"),
        (&one.space, HOST6.into(), "six fd00:77::1"),
        (&one.space, GATEWAY6.into(), "six fd00:77::1"),
        (&two.space, HOST6.into(), "six fd00:77::1"),
        (&two.space, GATEWAY6.into(), "six fd00:77::1"),
        (&two.space, HOST.into(), "four 10.77.0.1"),
    ];
    for (from, to, expected) in ways {
        assert_eq!(ask_tcp(from, to, 8080).unwrap(), expected, "tcp {to}");
        assert_eq!(ask_udp(from, to, 5353).unwrap(), expected, "udp {to}");
    }
    assert_eq!(ask_tcp(&two.space, one.address6(), 80).unwrap(), "six fd00:77::3", "direct");
    // Not by its address, through the host as a router.
    ask_tcp_for(&world.outside, one.address6(), 80, SILENCE).unwrap_err();
}

#[test]
fn a_port_published_on_one_ipv6_address_is_reached_through_that_one_only() {
    let Some(world) = World::new() else { return };
    let container = world.start(plan6(network6(), 2, &[on(HOST6, tcp(None, 8080, 80))]));
    serve_tcp(&container.space, container.address6(), 80, "container");
    assert_eq!(ask_tcp(&world.outside, HOST6, 8080).unwrap(), "container 2001:db8::2");
    for to in [IpAddr::V6(GATEWAY6), Ipv6Addr::LOCALHOST.into(), HOST.into()] {
        let refused = ask_tcp(&world.host, to, 8080).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{to}");
    }
}

/// The answer of `::1` cannot come back from a container: the kernel leads nothing there, a proxy may.
#[test]
fn what_the_kernel_cannot_lead_is_told_with_its_sockets_and_targets() {
    let Some(world) = World::new() else { return };
    let told = |plan: EndpointsPlan| {
        let mut container = world.start(plan);
        let proxied = container.attachment.proxied().unwrap();
        proxied.into_iter().map(|one| (one.address.to_string(), one.target.to_string())).collect::<Vec<_>>()
    };
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
    };
    let localhost6 = on(Ipv6Addr::LOCALHOST, tcp(None, 8083, 80));
    let both = [tcp(None, 8080, 80), tcp(Some(HOST), 8081, 80), on(HOST6, tcp(None, 8082, 80)), localhost6];
    assert_eq!(
        told(plan6(network6(), 2, &both)),
        pairs(&[("[::]:8080", "[fd00:77::2]:80"), ("[::1]:8083", "[fd00:77::2]:80")])
    );
    assert_eq!(
        told(plan(3, &both)),
        pairs(&[
            ("[::]:8080", "10.77.0.3:80"),
            ("[2001:db8::1]:8082", "10.77.0.3:80"),
            ("[::1]:8083", "10.77.0.3:80")
        ])
    );
    let mut six = plan6(network6(), 4, &both);
    six.endpoints[0].ipv4 = None;
    assert_eq!(
        told(six),
        pairs(&[
            ("0.0.0.0:8080", "[fd00:77::4]:80"),
            ("[::]:8080", "[fd00:77::4]:80"),
            ("192.0.2.1:8081", "[fd00:77::4]:80"),
            ("[::1]:8083", "[fd00:77::4]:80")
        ])
    );
}

#[test]
fn a_proxied_port_is_refused_until_somebody_serves_it_and_only_then_heard() {
    let Some(world) = World::new() else { return };
    let mut container = world.container(2, &[tcp(None, 8080, 80)]);
    let refused = ask_tcp(&world.host, Ipv6Addr::LOCALHOST, 8080).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let proxied = container.attachment.proxied().unwrap().remove(0);
    let listener = TcpListener::from(proxied.socket);
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"proxy").unwrap());
    assert_eq!(ask_tcp(&world.host, Ipv6Addr::LOCALHOST, 8080).unwrap(), "proxy");
}

#[test]
fn a_udp_client_of_ipv6_that_keeps_asking_meets_the_new_container() {
    let Some(world) = World::new() else { return };
    let client = world.outside.run(|| UdpSocket::bind((OUTSIDE6, 4444)).unwrap());
    for (last, name) in (2..).zip(["first", "second"]) {
        let container = world.start(plan6(network6(), last, &[udp(None, 5353, 53)]));
        serve_udp(&container.space, container.address6(), 53, name);
        assert_eq!(ask_udp_from(&client, HOST6, 5353, PATIENCE).unwrap(), format!("{name} 2001:db8::2"));
        world.host.run(|| assert!(crate::detach(&container.plan, Some(container.attachment)).is_empty()));
    }
}
