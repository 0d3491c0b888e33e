//! Published ports on a host with a firewall of its own.

use super::*;
use crate::Firewall;

/// Lets nothing in but answers, what comes from the host itself, and what IPv6 needs to find neighbours.
const DROPPING: &str = "table inet filter { chain input { type filter hook input priority 0; policy drop; \
    ct state established,related accept; iif lo accept; \
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; } }";

fn respecting(plan: EndpointsPlan) -> EndpointsPlan {
    EndpointsPlan { publish: Publish::RespectFirewall, ..plan }
}

/// A container that respects the firewall, with a server behind port 8080 of the host in both families.
fn serving(world: &World, last: u8, port: u16) -> Container {
    let container = world.start(respecting(plan6(network6(), last, &[tcp(None, port, 80)])));
    serve_tcp(&container.space, container.address(), 80, "four");
    serve_tcp(&container.space, container.address6(), 80, "six");
    container
}

fn look(world: &World) -> Firewall {
    world.host.run(|| Firewall::look().unwrap())
}

#[test]
fn a_firewall_that_drops_closes_published_ports_to_the_outside_and_nobody_else() {
    let Some(world) = World::new() else { return };
    if nft(&world.host, DROPPING).is_none() {
        return;
    }
    let expected = Firewall { drops_ipv4: true, drops_ipv6: true, ..Firewall::default() };
    assert_eq!(look(&world), expected);
    let container = serving(&world, 2, 8080);
    let peer = world.start(plan6(network6(), 3, &[]));
    for to in [IpAddr::from(HOST), HOST6.into()] {
        ask_tcp_for(&world.outside, to, 8080, SILENCE).unwrap_err();
    }
    assert_eq!(ask_tcp(&world.host, LOCALHOST, 8080).unwrap(), "four 10.77.0.1");
    assert_eq!(ask_tcp(&world.host, HOST, 8080).unwrap(), "four 192.0.2.1");
    assert_eq!(ask_tcp(&peer.space, HOST, 8080).unwrap(), "four 10.77.0.1");
    assert_eq!(ask_tcp(&peer.space, HOST6, 8080).unwrap(), "six fd00:77::1");
    drop(container);
}

#[test]
fn the_chain_user_lets_in_and_keeps_out() {
    let Some(world) = World::new() else { return };
    if nft(&world.host, DROPPING).is_none() {
        return;
    }
    let mut first = serving(&world, 2, 8080);
    let mut second = serving(&world, 3, 8081);
    nft(&world.host, "add rule inet stanza user meta l4proto tcp ct original proto-dst 8080 accept").unwrap();
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "four 192.0.2.2");
    assert_eq!(ask_tcp(&world.outside, HOST6, 8080).unwrap(), "six 2001:db8::2");
    ask_tcp_for(&world.outside, HOST, 8081, SILENCE).unwrap_err();
    // Neither a start nor a reload empties it.
    let _third = serving(&world, 4, 8082);
    for container in [&mut first, &mut second] {
        container.reload(&world);
    }
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "four 192.0.2.2");

    nft(&world.host, "flush chain inet stanza user; add rule inet stanza user ip saddr 192.0.2.2 drop")
        .unwrap();
    ask_tcp_for(&world.outside, HOST, 8080, SILENCE).unwrap_err();
}

#[test]
fn an_open_container_is_reached_whatever_the_firewall_drops() {
    let Some(world) = World::new() else { return };
    if nft(&world.host, DROPPING).is_none() {
        return;
    }
    let closed = serving(&world, 2, 8080);
    let open = world.start(plan6(network6(), 3, &[tcp(None, 8081, 80)]));
    serve_tcp(&open.space, open.address(), 80, "open");
    serve_tcp(&open.space, open.address6(), 80, "open6");
    assert_eq!(ask_tcp(&world.outside, HOST, 8081).unwrap(), "open 192.0.2.2");
    assert_eq!(ask_tcp(&world.outside, HOST6, 8081).unwrap(), "open6 2001:db8::2");
    ask_tcp_for(&world.outside, HOST, 8080, SILENCE).unwrap_err();
    // Its address keeps no freedom when it goes.
    world.host.run(|| assert!(crate::detach(&open.plan, Some(open.attachment)).is_empty()));
    let next = serving(&world, 3, 8081);
    ask_tcp_for(&world.outside, HOST, 8081, SILENCE).unwrap_err();
    drop((closed, next));
}

#[test]
fn a_firewall_that_comes_or_goes_is_seen_at_the_next_publish_and_at_reload() {
    let Some(world) = World::new() else { return };
    let mut container = serving(&world, 2, 8080);
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "four 192.0.2.2");
    // As firewalld ends: by a rule, not by the policy; of IPv4 only.
    let rejecting = "table ip other { chain in { type filter hook input priority 10; \
        ct state established accept; counter reject; } }";
    if nft(&world.host, rejecting).is_none() {
        return;
    }
    assert_eq!(look(&world), Firewall { drops_ipv4: true, ..Firewall::default() });
    let _second = serving(&world, 3, 8081);
    for port in [8080, 8081] {
        ask_tcp_for(&world.outside, HOST, port, SILENCE).unwrap_err();
        assert_eq!(ask_tcp(&world.outside, HOST6, port).unwrap(), "six 2001:db8::2");
    }
    nft(&world.host, "delete table ip other").unwrap();
    container.reload(&world);
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "four 192.0.2.2");
}

#[test]
fn a_rule_that_drops_only_something_is_no_closed_firewall() {
    let Some(world) = World::new() else { return };
    let rules = "table inet filter { chain input { type filter hook input priority 0; tcp dport 23 drop; } \
        chain other { drop; } }";
    if nft(&world.host, rules).is_none() {
        return;
    }
    assert_eq!(look(&world), Firewall::default());
    let container = serving(&world, 2, 8080);
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "four 192.0.2.2");
    drop(container);
}

#[test]
fn a_firewall_of_iptables_is_seen_and_its_forwarding_told_by_name() {
    let Some(world) = World::new() else { return };
    for rule in ["-P INPUT DROP", "-P FORWARD DROP"] {
        let words: Vec<&str> = ["iptables-nft"].into_iter().chain(rule.split(' ')).collect();
        if program(&world.host, &words, "").is_none() {
            return;
        }
    }
    let expected = Firewall {
        drops_ipv4: true,
        forward_drops: vec!["ip filter FORWARD".to_owned()],
        ..Firewall::default()
    };
    assert_eq!(look(&world), expected);
    let container = serving(&world, 2, 8080);
    ask_tcp_for(&world.outside, HOST, 8080, SILENCE).unwrap_err();
    assert_eq!(ask_tcp(&world.outside, HOST6, 8080).unwrap(), "six 2001:db8::2");
    nft(&world.host, "add rule inet stanza user meta l4proto tcp ct original proto-dst 8080 accept").unwrap();
    // What its own chain drops is the host's to allow.
    ask_tcp_for(&world.outside, HOST, 8080, SILENCE).unwrap_err();
    for way in ["-i", "-o"] {
        let words = ["iptables-nft", "-A", "FORWARD", way, "stanza0", "-j", "ACCEPT"];
        program(&world.host, &words, "").unwrap();
    }
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "four 192.0.2.2");
    drop(container);
}
