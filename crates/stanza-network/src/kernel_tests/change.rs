//! Networks that a container joins and leaves while it runs, devices on a card, and what is made again.

use super::*;
use crate::{MacvlanMode, change};

/// A second bridge with the subnet 10.78.0.0/16.
fn second() -> Network {
    let bridge = Bridge { device: "second0".to_owned(), ..network().bridge().unwrap().clone() };
    Network {
        id: "6".repeat(64),
        name: "second".to_owned(),
        driver: Driver::Bridge(bridge),
        subnets: vec![subnet("10.78.0.0/16", "10.78.0.1")],
        ..network()
    }
}

/// The plan of a container that is in this network too, or only, by a device of that name.
fn joined(plan: &EndpointsPlan, network: Network, address: [u8; 4], interface: &str) -> Endpoint {
    let address = Ipv4Addr::from(address);
    Endpoint {
        device: device_of(&plan.container, &network.id),
        network,
        interface: interface.to_owned(),
        ipv4: Some(address),
        mac: mac_of(address.into()),
        default_route: false,
        ..plan.endpoints[0].clone()
    }
}

impl Container {
    fn change(&mut self, world: &World, plan: EndpointsPlan, anew: bool) {
        world.host.run(|| {
            change(&mut self.attachment, &self.plan, &plan, anew, self.space.0.as_fd()).unwrap();
        });
        self.plan = plan;
    }

    /// Makes everything of it anew.
    pub(super) fn reload(&mut self, world: &World) {
        self.change(world, self.plan.clone(), true);
    }
}

#[test]
fn a_container_joins_a_network_and_leaves_one_while_it_runs() {
    let Some(world) = World::new() else { return };
    let other = Space::new().unwrap();
    let other_plan = plan_in(second(), Ipv4Addr::new(10, 78, 0, 9), &[]);
    let _other = world.host.run(|| attach(&other_plan, other.0.as_fd())).unwrap();
    let mut container = world.container(2, &[tcp(None, 8080, 80)]);
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "container");
    serve_tcp(&world.outside, OUTSIDE, 80, "outside");
    let beyond = Ipv4Addr::new(10, 78, 0, 2);
    ask_tcp_for(&other, container.address(), 80, SILENCE).unwrap_err();

    let mut both = container.plan.clone();
    both.endpoints.push(joined(&both, second(), beyond.octets(), "eth1"));
    container.change(&world, both.clone(), false);
    assert_eq!(ask_tcp(&other, beyond, 80).unwrap(), "container 10.78.0.9");
    assert_eq!(ask_tcp(&container.space, OUTSIDE, 80).unwrap(), "outside 192.0.2.1");
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "container 192.0.2.2");

    // The first network goes: the other one is the way out, and the port leads to the address in it.
    let mut one = both.clone();
    one.endpoints.remove(0);
    one.endpoints[0].default_route = true;
    container.change(&world, one, false);
    assert_eq!(ask_tcp(&container.space, OUTSIDE, 80).unwrap(), "outside 192.0.2.1");
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "container 192.0.2.2");
    let devices = world.inventory().0;
    assert!(!devices.contains(&both.endpoints[0].device), "{devices:?}");
    assert_eq!(world.inventory().1.len(), 1);
}

#[test]
fn what_somebody_took_away_is_made_again() {
    let Some(world) = World::new() else { return };
    let mut container = world.container(2, &[tcp(None, 8080, 80)]);
    serve_tcp(&container.space, Ipv4Addr::UNSPECIFIED, 80, "container");
    world.host.run(|| {
        let mut route = Conversation::open(Family::Route).unwrap();
        let mut batch = route.batch();
        route::delete_link(&mut batch, Device::Name(DEFAULT_BRIDGE));
        route.commit_all(batch).unwrap();
    });
    ask_tcp_for(&world.outside, HOST, 8080, SILENCE).unwrap_err();
    let plan = container.plan.clone();
    container.change(&world, plan, true);
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "container 192.0.2.2");
}

#[test]
fn containers_on_a_card_reach_each_other_and_what_the_card_reaches() {
    let Some(world) = World::new() else { return };
    let network = Network {
        id: "7".repeat(64),
        name: "card".to_owned(),
        driver: Driver::Macvlan { parent: "wan0".to_owned(), mode: MacvlanMode::Bridge },
        subnets: vec![subnet("192.0.2.0/24", "192.0.2.1")],
        ..network()
    };
    let place = |last: u8| {
        let space = Space::new().unwrap();
        let plan = plan_in(network.clone(), Ipv4Addr::new(192, 0, 2, last), &[]);
        let attachment = world.host.run(|| attach(&plan, space.0.as_fd())).unwrap();
        Container { space, plan, attachment }
    };
    let (one, two) = (place(10), place(11));
    serve_tcp(&two.space, two.address(), 80, "two");
    serve_tcp(&world.outside, OUTSIDE, 80, "outside");
    assert_eq!(ask_tcp(&one.space, two.address(), 80).unwrap(), "two 192.0.2.10");
    assert_eq!(ask_tcp(&one.space, OUTSIDE, 80).unwrap(), "outside 192.0.2.10");
    let missing = Driver::Macvlan { parent: "none0".to_owned(), mode: MacvlanMode::Bridge };
    let plan = plan_in(Network { driver: missing, ..network.clone() }, Ipv4Addr::new(192, 0, 2, 12), &[]);
    let error = world.host.run(|| attach(&plan, one.space.0.as_fd())).unwrap_err();
    assert_eq!(error.to_string(), "the host has no network card `none0`");
}
