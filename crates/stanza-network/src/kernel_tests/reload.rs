//! When somebody else emptied the rules.

use super::*;
use crate::Driver;

fn rules(world: &World) -> Option<String> {
    program(&world.host, &["nft", "--stateless", "list", "ruleset"], "")
}

/// Lines in order: the kernel lists the elements of a set in any.
fn sorted(rules: &str) -> Vec<String> {
    let words = rules.split([' ', '\t', '\n', ',']).filter(|word| !word.is_empty());
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    words.sort();
    words
}

#[test]
fn after_a_flush_a_reload_makes_everything_as_it_was() {
    let Some(world) = World::new() else { return };
    let mut one = world.start(plan6(network6(), 2, &[tcp(None, 8080, 80), udp(Some(LOCALHOST), 5353, 53)]));
    let inner = Network { internal: true, ..other_network(network6(), 88) };
    let mut two = world.start(plan6(inner, 2, &[]));
    let Some(before) = rules(&world) else { return };
    serve_tcp(&one.space, one.address(), 80, "one");
    // All of it, the rules without the sets, one chain, one set: or nothing.
    for way in [
        "flush ruleset",
        "flush table inet stanza",
        "flush chain bridge stanza prerouting",
        "flush set inet stanza bridges",
        "",
    ] {
        nft(&world.host, way).unwrap();
        if !way.is_empty() {
            assert_ne!(sorted(&rules(&world).unwrap()), sorted(&before), "{way}");
        }
        one.reload(&world);
        two.reload(&world);
        assert_eq!(sorted(&rules(&world).unwrap()), sorted(&before), "{way}");
        assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "one 192.0.2.2", "{way}");
    }
    nft(&world.host, "flush ruleset").unwrap();
    let refused = ask_tcp(&world.outside, HOST, 8080).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn after_a_flush_a_start_makes_the_tables_and_others_still_talk() {
    let Some(world) = World::new() else { return };
    let one = world.container(2, &[tcp(None, 8080, 80)]);
    serve_tcp(&one.space, one.address(), 80, "one");
    if nft(&world.host, "flush ruleset").is_none() {
        return;
    }
    let two = world.container(3, &[tcp(None, 8081, 80)]);
    // It tells that others are to be told.
    let made = [&one, &two, &world.container(4, &[])].map(|container| container.attachment.made_rules());
    assert_eq!(made, [true, true, false]);
    serve_tcp(&two.space, two.address(), 80, "two");
    assert_eq!(ask_tcp(&world.outside, HOST, 8081).unwrap(), "two 192.0.2.2");
    assert_eq!(ask_tcp(&two.space, one.address(), 80).unwrap(), "one 10.77.0.3");
    // Its rules are gone already: taking them away is well.
    world.host.run(|| assert!(crate::detach(&one.plan, Some(one.attachment)).is_empty()));
    assert_eq!(ask_tcp(&world.outside, HOST, 8081).unwrap(), "two 192.0.2.2");
}

#[test]
fn a_bridge_that_somebody_deleted_is_made_again_at_the_next_start() {
    let Some(world) = World::new() else { return };
    let one = world.start(plan6(network6(), 2, &[tcp(None, 8080, 80)]));
    world.host.run(|| {
        let mut conversation = Conversation::open(Family::Route).unwrap();
        let mut batch = conversation.batch();
        route::delete_link(&mut batch, Device::Name("stanza0"));
        conversation.commit_all(batch).unwrap();
    });
    let two = world.start(plan6(network6(), 3, &[tcp(None, 8081, 80)]));
    serve_tcp(&two.space, two.address(), 80, "two");
    serve_tcp(&two.space, two.address6(), 80, "two");
    assert_eq!(ask_tcp(&world.outside, HOST, 8081).unwrap(), "two 192.0.2.2");
    assert_eq!(ask_tcp(&world.outside, HOST6, 8081).unwrap(), "two 2001:db8::2");
    assert_eq!(ask_tcp(&world.host, LOCALHOST, 8081).unwrap(), "two 10.77.0.1");
    world.host.run(|| assert!(crate::detach(&one.plan, Some(one.attachment)).is_empty()));
}

#[test]
fn rules_of_devices_that_are_gone_are_cleared_and_the_livings_stay() {
    let Some(world) = World::new() else { return };
    let one = world.start(plan6(network6(), 2, &[]));
    let Some(before) = rules(&world) else { return };
    let two = world.start(plan6(network6(), 3, &[]));
    world.host.run(|| {
        let mut conversation = Conversation::open(Family::Route).unwrap();
        let mut batch = conversation.batch();
        route::delete_link(&mut batch, Device::Name(&two.plan.endpoints[0].device));
        conversation.commit_all(batch).unwrap();
        let errors = crate::clear_leftovers(&network6(), || crate::Live {
            devices: [one.plan.endpoints[0].device.clone()].into(),
            addresses: [one.address().into(), one.address6().into()].into(),
        });
        assert!(errors.is_empty(), "{errors:?}");
    });
    assert_eq!(sorted(&rules(&world).unwrap()), sorted(&before));
}

#[test]
fn a_container_that_changes_its_networks_keeps_its_ports_and_takes_its_walls_along() {
    let Some(world) = World::new() else { return };
    let mut one = world.start(plan6(network6(), 2, &[tcp(None, 8080, 80)]));
    serve_tcp(&one.space, Ipv4Addr::UNSPECIFIED, 80, "one");
    let Some(before) = rules(&world) else { return };
    let mut new = plan6(other_network(network6(), 88), 2, &[tcp(None, 8080, 80)]);
    new.container = one.plan.container.clone();
    new.endpoints[0].device = crate::device_of(&new.container, &new.endpoints[0].network.id);
    assert!(matches!(new.endpoints[0].network.driver, Driver::Bridge(_)));
    world.host.run(|| {
        crate::change(&mut one.attachment, &one.plan, &new, false, one.space.0.as_fd()).unwrap();
    });
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "one 192.0.2.2");
    let changed = rules(&world).unwrap();
    assert!(!changed.contains(&one.plan.endpoints[0].device), "{changed}");
    assert!(changed.contains(&new.endpoints[0].device), "{changed}");
    world.host.run(|| {
        crate::change(&mut one.attachment, &new, &one.plan, false, one.space.0.as_fd()).unwrap();
        crate::remove_network(&new.endpoints[0].network).unwrap();
    });
    assert_eq!(sorted(&rules(&world).unwrap()), sorted(&before));
}
