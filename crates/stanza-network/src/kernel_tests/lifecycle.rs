//! Set-up, teardown, crashes, races and their speed.

use std::collections::HashSet;
use std::time::Instant;

use stanza_spec::{Classify, ErrorKind};

use super::*;
use crate::{AttachError, Live, choose_subnet, clear_leftovers, detach, withdraw_ports};

#[test]
fn teardown_leaves_what_was_there_before() {
    let Some(world) = World::new() else { return };
    let first = world.container(2, &[tcp(None, 80, 80)]);
    let before = world.inventory();
    let ports =
        [tcp(None, 8080, 80), tcp(Some(HOST), 8081, 80), udp(None, 8080, 80), udp(Some(LOCALHOST), 1, 1)];
    let container = world.container(3, &ports);
    assert_eq!(world.inventory().0.len(), before.0.len() + 1);
    assert_eq!(world.inventory().1.len(), before.1.len() + 4);
    world.host.run(|| {
        assert!(detach(&container.plan, Some(container.attachment)).is_empty());
        assert!(detach(&container.plan, None).is_empty(), "twice does no harm");
    });
    assert_eq!(world.inventory(), before);
    drop(first);
}

#[test]
fn a_ports_number_is_the_kernels_choice_when_none_is_given() {
    let Some(world) = World::new() else { return };
    let any = PortMap { host_port: None, ..tcp(None, 0, 80) };
    let container = world.container(2, &[any.clone(), any]);
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "container");
    let numbers: HashSet<u16> =
        container.attachment.ports().iter().filter_map(|port| port.host_port).collect();
    assert_eq!(numbers.len(), 2);
    for port in numbers {
        assert_eq!(ask_tcp(&world.outside, HOST, port).unwrap(), "container 192.0.2.2");
    }
}

#[test]
fn a_taken_port_is_refused_by_name_and_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let holder = world.container(2, &[tcp(None, 8080, 80), udp(Some(LOCALHOST), 53, 53)]);
    let listener = world.host.run(|| TcpListener::bind((LOCALHOST, 9090)).unwrap());
    let before = world.inventory();
    let space = Space::new().unwrap();
    let refused = |port: PortMap| {
        let plan = plan(3, &[tcp(None, 7070, 80), port]);
        world.host.run(|| attach(&plan, space.0.as_fd())).unwrap_err()
    };
    let error = refused(tcp(None, 8080, 80));
    assert_eq!(error.to_string(), "cannot publish TCP port `0.0.0.0:8080`: it is taken");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.hint().unwrap().contains("sport = :8080"), "{:?}", error.hint());
    for port in [tcp(Some(HOST), 8080, 80), tcp(None, 9090, 80), udp(None, 53, 53), tcp(None, 7070, 81)] {
        let error = refused(port.clone());
        assert!(matches!(error, AttachError::PortTaken { .. }), "{port:?}: {error}");
    }
    let error = refused(tcp(Some(Ipv4Addr::new(198, 51, 100, 1)), 80, 80));
    assert!(matches!(error, AttachError::AddressNotLocal { .. }), "{error}");
    let error = refused(PortMap { host_ip: Some("::1".parse().unwrap()), ..tcp(None, 80, 80) });
    assert_eq!(error.to_string(), "cannot publish a port on `::1`: IPv6 is not supported");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(world.inventory(), before);
    // And the other way round: nobody else gets a published port, not even with SO_REUSEADDR (as std sets it).
    let error = world.host.run(|| TcpListener::bind((LOCALHOST, 8080)).unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop((holder, listener));
}

#[test]
fn connections_in_time_wait_do_not_take_a_port_and_it_is_still_held_by_one() {
    let Some(world) = World::new() else { return };
    world.host.run(|| {
        let listener = TcpListener::bind((HOST, 8080)).unwrap();
        let mut client = TcpStream::connect((HOST, 8080)).unwrap();
        // The server closes first: its end waits.
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
    let holder = world.container(2, &[tcp(None, 8080, 80)]);
    serve_tcp(&holder.space, Ipv4Addr::UNSPECIFIED, 80, "container");
    let space = Space::new().unwrap();
    let error = world.host.run(|| attach(&plan(3, &[tcp(None, 8080, 80)]), space.0.as_fd())).unwrap_err();
    assert!(matches!(error, AttachError::PortTaken { .. }), "{error}");
    let error = world.host.run(|| TcpListener::bind((HOST, 8080)).unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "container 192.0.2.2");
}

#[test]
fn a_dead_owners_port_is_led_to_the_new_one() {
    let Some(world) = World::new() else { return };
    let dead = world.container(2, &[tcp(None, 8080, 80), tcp(None, 8081, 80)]);
    // A crash: the sockets close, nothing is detached.
    drop(dead);
    let container = world.container(3, &[tcp(None, 8080, 80)]);
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "new");
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "new 192.0.2.2");

    // Detaching the dead one later takes away what is still its own, and that only.
    world.host.run(|| assert!(detach(&plan(2, &[]), None).is_empty()));
    assert_eq!(world.inventory().1.len(), 1);
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "new 192.0.2.2");
}

#[test]
fn a_container_that_starts_again_replaces_its_own_device() {
    let Some(world) = World::new() else { return };
    let first = world.container(2, &[tcp(None, 8080, 80)]);
    let Container { space, attachment, .. } = first;
    drop(attachment);
    let second = world.container(2, &[tcp(None, 8080, 80)]);
    serve_tcp(&second.space, Ipv4Addr::UNSPECIFIED, 80, "second");
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "second 192.0.2.2");
    drop(space);
}

#[test]
fn leftovers_of_the_dead_are_cleared_and_the_living_stay() {
    let Some(world) = World::new() else { return };
    let living = world.container(2, &[tcp(None, 8080, 80)]);
    let expected = world.inventory();
    let dead = world.container(3, &[tcp(None, 8081, 80), udp(Some(LOCALHOST), 53, 53)]);
    let Container { space, attachment, .. } = dead;
    drop(attachment);
    let live = Live {
        devices: HashSet::from([living.plan.endpoints[0].device.clone()]),
        addresses: HashSet::from([living.address().into()]),
    };
    world.host.run(|| {
        assert!(clear_leftovers(&network(), || live.clone()).is_empty());
        assert!(clear_leftovers(&network(), || live.clone()).is_empty(), "twice does no harm");
    });
    assert_eq!(world.inventory(), expected);
    drop(space);
}

#[test]
fn nothing_to_clear_asks_for_nobody_and_a_bare_host_has_nothing() {
    let Some(world) = World::new() else { return };
    world.host.run(|| {
        let errors = clear_leftovers(&network(), || panic!("there is nothing to compare with"));
        assert!(errors.is_empty(), "{errors:?}");
        let errors = detach(&plan(2, &[tcp(None, 80, 80)]), None);
        assert!(errors.is_empty(), "{errors:?}");
    });
}

#[test]
fn the_first_containers_may_all_start_at_once() {
    let Some(world) = World::new() else { return };
    let world = &world;
    let containers: Vec<Container> = std::thread::scope(|scope| {
        let starts: Vec<_> = (2..18)
            .map(|last| scope.spawn(move || world.container(last, &[tcp(None, 8000 + u16::from(last), 80)])))
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    for container in &containers {
        serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "container");
        let port = container.attachment.ports()[0].host_port.unwrap();
        assert_eq!(ask_tcp(&world.outside, HOST, port).unwrap(), "container 192.0.2.2");
    }
    assert_eq!(world.inventory().1.len(), containers.len());
}

#[test]
fn a_bridge_that_its_maker_left_half_way_is_completed() {
    let Some(world) = World::new() else { return };
    world.host.run(|| {
        let mut conversation = Conversation::open(Family::Route).unwrap();
        let mut batch = conversation.batch();
        route::create_bridge(&mut batch, "stanza0", [2, 0x53, 10, 77, 0, 1], 1500, false);
        conversation.commit_all(batch).unwrap();
    });
    let container = world.container(2, &[]);
    serve_tcp(&world.outside, OUTSIDE, 80, "outside");
    assert_eq!(ask_tcp(&container.space, OUTSIDE, 80).unwrap(), "outside 192.0.2.1");
}

#[test]
fn a_device_that_is_no_bridge_is_refused_by_name() {
    let Some(world) = World::new() else { return };
    let space = Space::new().unwrap();
    let bridge = Bridge { device: "wan0".to_owned(), ..network().bridge().unwrap().clone() };
    let network = Network { driver: Driver::Bridge(bridge), ..network() };
    let plan = plan_in(network, Ipv4Addr::new(10, 77, 0, 2), &[]);
    let error = world.host.run(|| attach(&plan, space.0.as_fd())).unwrap_err();
    assert_eq!(error.to_string(), "network device `wan0` is no bridge");
}

#[test]
fn a_table_of_that_name_that_is_not_ours_is_refused_with_a_hint() {
    let Some(world) = World::new() else { return };
    let space = Space::new().unwrap();
    let before = world.inventory();
    let error = world.host.run(|| {
        let mut netfilter = Conversation::open(Family::Netfilter).unwrap();
        let mut transaction = nftables::Transaction::new(&netfilter, "stanza");
        transaction.create_table();
        assert!(transaction.commit(&mut netfilter).unwrap().is_empty());
        attach(&plan(2, &[]), space.0.as_fd()).unwrap_err()
    });
    assert!(matches!(error, AttachError::Rules { .. }), "{error}");
    assert!(error.hint().unwrap().contains("nft delete table ip stanza"));
    let mut expected = before;
    expected.0.insert(1, "stanza0".to_owned());
    assert_eq!(world.inventory(), expected);
}

#[test]
fn the_chosen_subnet_keeps_off_the_hosts_routes_and_stays_with_the_bridge() {
    let Some(world) = World::new() else { return };
    let choose = || world.host.run(|| choose_subnet(DEFAULT_BRIDGE)).unwrap();
    assert_eq!(choose(), network().subnets[0]);
    world.host.run(|| {
        let mut conversation = Conversation::open(Family::Route).unwrap();
        give_address(&mut conversation, "wan0", Ipv4Addr::new(10, 77, 9, 9), "10.77.9.0/24".parse().unwrap());
    });
    let moved = choose();
    assert_eq!(moved.subnet.to_string(), "10.78.0.0/16");
    let space = Space::new().unwrap();
    let plan =
        plan_in(Network { subnets: vec![moved.clone()], ..network() }, Ipv4Addr::new(10, 78, 0, 2), &[]);
    world.host.run(|| attach(&plan, space.0.as_fd())).unwrap();
    // Its own route now overlaps every answer but its own.
    assert_eq!(choose(), moved);
}

/// A frame that a bridge port drops because it is not forwarding yet costs the container a second: the time until
/// it asks for the gateway's hardware address again.
#[test]
fn a_containers_first_packet_gets_through() {
    let Some(world) = World::new() else { return };
    serve_tcp(&world.outside, OUTSIDE, 80, "outside");
    let mut slowest = Duration::ZERO;
    for last in 2..52 {
        let space = Space::new().unwrap();
        let plan = plan(last, &[]);
        let attachment = world.host.run(|| attach(&plan, space.0.as_fd())).unwrap();
        let elapsed = space.run(|| {
            let start = Instant::now();
            TcpStream::connect((OUTSIDE, 80)).unwrap();
            start.elapsed()
        });
        slowest = slowest.max(elapsed);
        drop(attachment);
    }
    report(&format!("slowest of 50 first connections: {slowest:?}"));
    assert!(slowest < Duration::from_millis(900), "{slowest:?}");
}

/// Prints the medians; the figures are for people, the bound is only there to catch a disaster.
#[test]
fn two_hundred_containers_come_and_go() {
    let Some(world) = World::new() else { return };
    let keeper = world.container(2, &[]);
    let before = world.inventory();
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..200_u16 {
        let space = Space::new().unwrap();
        let last = u8::try_from(3 + round % 250).unwrap();
        let plan = plan(last, &[tcp(None, 8080, 80)]);
        let timed = |slot: &mut Vec<Duration>, start: Instant| slot.push(start.elapsed());
        let attachment = world.host.run(|| {
            let start = Instant::now();
            let attachment = attach(&plan, space.0.as_fd()).unwrap();
            timed(&mut times[0], start);
            attachment
        });
        world.host.run(|| {
            let mut attachment = attachment;
            let start = Instant::now();
            withdraw_ports(&plan, &mut attachment).unwrap();
            timed(&mut times[1], start);
            let start = Instant::now();
            assert!(detach(&plan, Some(attachment)).is_empty());
            timed(&mut times[2], start);
        });
    }
    assert_eq!(world.inventory(), before);
    let medians = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    let [attach, withdraw, detach] = medians;
    report(&format!(
        "median of 200: attach {attach:?}, withdraw_ports {withdraw:?}, rest of detach {detach:?}"
    ));
    assert!(attach < Duration::from_millis(100));
    drop(keeper);
}

#[expect(clippy::print_stderr, reason = "a measurement is for the person who runs the test")]
fn report(line: &str) {
    eprintln!("{line}");
}
