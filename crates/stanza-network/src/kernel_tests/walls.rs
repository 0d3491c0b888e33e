//! Who does not reach whom.

use super::*;

fn ways_of(container: &Container) -> [IpAddr; 2] {
    [container.address().into(), container.address6().into()]
}

fn serve(container: &Container, port: u16, name: &'static str) {
    for address in ways_of(container) {
        serve_tcp(&container.space, address, port, name);
    }
}

#[test]
fn networks_are_apart_but_for_published_ports_of_the_host() {
    let Some(world) = World::new() else { return };
    let one = world.start(plan6(network6(), 2, &[tcp(None, 8080, 80)]));
    let two = world.start(plan6(other_network(network6(), 88), 2, &[tcp(None, 8888, 80)]));
    serve(&one, 80, "one");
    serve(&two, 80, "two");
    for (from, to) in [(&one, &two), (&two, &one)] {
        for address in ways_of(to) {
            ask_tcp_for(&from.space, address, 80, SILENCE).unwrap_err();
            // Not even by the number that the host has it on.
            ask_tcp_for(&from.space, address, 8080, SILENCE).unwrap_err();
        }
    }
    // From the gateway's address of the server's own network, in both.
    assert_eq!(ask_tcp(&one.space, HOST, 8888).unwrap(), "two 10.88.0.1");
    assert_eq!(ask_tcp(&one.space, HOST6, 8888).unwrap(), "two fd00:88::1");
    assert_eq!(ask_tcp(&two.space, HOST, 8080).unwrap(), "one 10.77.0.1");
    assert_eq!(ask_tcp(&two.space, HOST6, 8080).unwrap(), "one fd00:77::1");
}

#[test]
fn containers_of_a_network_without_peers_reach_the_outside_and_published_ports_only() {
    let Some(world) = World::new() else { return };
    let mut network = network6();
    let Driver::Bridge(bridge) = &mut network.driver else { panic!("a bridge") };
    bridge.peers = false;
    let one = world.start(plan6(network.clone(), 2, &[tcp(None, 8080, 80)]));
    let two = world.start(plan6(network, 3, &[]));
    serve(&one, 80, "one");
    for filter in [false, true] {
        world.filter_bridged(filter);
        for address in ways_of(&one) {
            ask_tcp_for(&two.space, address, 80, SILENCE).unwrap_err();
        }
    }
    // Where bridged packets are shown to IPv4's hooks, the bridge itself leads the published port back to its own ports.
    world.filter_bridged(false);
    // Nor by the host, when its hardware address is written for the neighbour's.
    let gateway = "02:53:0a:4d:00:01";
    two.space.run(|| {
        let status = Command::new("ip")
            .args(["neigh", "replace", "10.77.0.2", "lladdr", gateway, "dev", "eth0"])
            .status();
        if status.is_ok() {
            ask_tcp_for_here(one.address().into(), 80).unwrap_err();
        }
    });
    serve_tcp(&world.outside, OUTSIDE, 80, "outside");
    assert_eq!(ask_tcp(&two.space, OUTSIDE, 80).unwrap(), "outside 192.0.2.1");
    assert_eq!(ask_tcp(&two.space, HOST, 8080).unwrap(), "one 10.77.0.1");
}

fn ask_tcp_for_here(address: IpAddr, port: u16) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::new(address, port), SILENCE)
}

#[test]
fn nothing_leaves_or_enters_an_internal_network_and_its_containers_talk() {
    let Some(world) = World::new() else { return };
    let inner = Network { internal: true, ..other_network(network6(), 88) };
    let one = world.start(plan6(inner.clone(), 2, &[tcp(None, 8888, 80)]));
    let two = world.start(plan6(inner, 3, &[]));
    let open = world.start(plan6(network6(), 2, &[tcp(None, 8080, 80)]));
    for (container, name) in [(&one, "one"), (&open, "open")] {
        serve(container, 80, name);
    }
    serve_tcp(&world.outside, OUTSIDE, 80, "outside");
    serve_tcp(&world.host, HOST, 9090, "host");
    serve_tcp(&world.host, Ipv4Addr::new(10, 88, 0, 1), 9090, "host");
    assert_eq!(one.attachment.ports(), [], "there is nothing to publish");
    assert_eq!(ask_tcp(&two.space, one.address(), 80).unwrap(), "one 10.88.0.3");
    assert_eq!(ask_tcp(&two.space, one.address6(), 80).unwrap(), "one fd00:88::3");
    // A container that is root makes itself a way out: the host lets nothing through.
    two.space.run(|| {
        let mut conversation = Conversation::open(Family::Route).unwrap();
        let index = route::link(&mut conversation, "eth0").unwrap().unwrap().index;
        let mut batch = conversation.batch();
        for gateway in ["10.88.0.1", "fd00:88::1"] {
            route::add_default_route(&mut batch, index, DefaultRoute::Gateway(gateway.parse().unwrap()));
        }
        conversation.commit_all(batch).unwrap();
    });
    let outside = IpAddr::from(OUTSIDE);
    for to in [outside, ways_of(&open)[0], ways_of(&open)[1]] {
        ask_tcp_for(&two.space, to, 80, SILENCE).unwrap_err();
    }
    for to in [IpAddr::from(HOST), HOST6.into()] {
        ask_tcp_for(&two.space, to, 8080, SILENCE).unwrap_err();
    }
    for to in ways_of(&one) {
        ask_tcp_for(&world.outside, to, 80, SILENCE).unwrap_err();
        ask_tcp_for(&open.space, to, 80, SILENCE).unwrap_err();
    }
    // The host and its containers reach each other, as with Docker.
    assert_eq!(ask_tcp(&world.host, one.address(), 80).unwrap(), "one 10.88.0.1");
    assert_eq!(ask_tcp(&two.space, Ipv4Addr::new(10, 88, 0, 1), 9090).unwrap(), "host 10.88.0.3");
}

#[test]
fn a_removed_networks_subnet_can_be_part_of_another_one() {
    let Some(world) = World::new() else { return };
    let old = other_network(network6(), 88);
    let first = world.start(plan6(old.clone(), 2, &[]));
    world.host.run(|| {
        assert!(crate::detach(&first.plan, Some(first.attachment)).is_empty());
        crate::remove_network(&old).unwrap();
    });
    let mut new = other_network(network6(), 88);
    new.subnets[0] = subnet("10.88.0.0/24", "10.88.0.1");
    let second = world.start(plan6(new, 3, &[]));
    serve_tcp(&world.outside, OUTSIDE, 80, "outside");
    assert_eq!(ask_tcp(&second.space, OUTSIDE, 80).unwrap(), "outside 192.0.2.1");
}

#[test]
fn a_subnet_that_a_crash_left_in_the_rules_gives_way() {
    let Some(world) = World::new() else { return };
    let first = world.start(plan6(other_network(network6(), 88), 2, &[]));
    world.host.run(|| {
        let mut conversation = Conversation::open(Family::Route).unwrap();
        let mut batch = conversation.batch();
        route::delete_link(&mut batch, Device::Name("st88"));
        conversation.commit_all(batch).unwrap();
    });
    let mut new = other_network(network6(), 89);
    new.subnets[0] = subnet("10.88.0.0/24", "10.88.0.1");
    let second = world.start(plan6(new, 3, &[]));
    serve_tcp(&world.outside, OUTSIDE, 80, "outside");
    assert_eq!(ask_tcp(&second.space, OUTSIDE, 80).unwrap(), "outside 192.0.2.1");
    drop(first);
}
