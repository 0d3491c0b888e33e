//! Behaviour of the tables of networks and leases, and of a file of the old form.

use std::net::IpAddr;

use super::leases::Lease;
use super::tests::{open, record, subnet, wish_in};
use super::*;

/// What the first version of the schema held: one network, whose leases were numbers.
fn old_file(path: &Path, network: &str, leases: &[(u32, &str)]) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(MIGRATIONS[0]).unwrap();
    connection.execute("INSERT INTO networks(name, network) VALUES('bridge', ?)", [network]).unwrap();
    for (address, container) in leases {
        connection
            .execute(
                "INSERT INTO leases(address, container) VALUES(?, ?)",
                rusqlite::params![address, container],
            )
            .unwrap();
    }
    connection.pragma_update(None, "user_version", 1).unwrap();
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn wish(network: &stanza_network::Network, named: Option<&str>) -> Wish {
    let ipv4 = named.map(|text| text.parse().unwrap());
    Wish { network: network.clone(), ipv4, ipv6: None }
}

fn started(name: &str) -> Record {
    Record { phase: Phase::Started, ..record(name) }
}

fn store(database: &mut Database, record: &Record, networks: &[Wish]) -> Result<Vec<Lease>, InsertError> {
    database.insert(&Insert { record, invent: None, networks, volumes: &[] }).map(|(_, leases)| leases)
}

#[test]
fn a_file_of_the_old_form_keeps_its_network_and_leases() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let network = subnet(24);
    let addresses = [0x0a09_0002, 0x0a09_0080];
    old_file(
        &path,
        &serde_json::to_string(&network).unwrap(),
        &[(addresses[0], "first"), (addresses[1], "second")],
    );
    for _ in 0..2 {
        let database = open(&path);
        let kept = database.network_named("bridge").unwrap().unwrap();
        assert_eq!(kept, NetworkRecord::new(network.clone()));
        let held: Vec<_> = database
            .leases()
            .unwrap()
            .into_iter()
            .map(|held| (held.lease.network, held.lease.address, held.container))
            .collect();
        let expected = [("10.9.0.2", "first"), ("10.9.0.128", "second")]
            .map(|(text, container)| (network.id.clone(), address(text), container.to_owned()));
        assert_eq!(held, expected);
    }
    // What is new goes behind what was there.
    let mut database = open(&path);
    let leases = store(&mut database, &started("new"), &[wish(&network, None)]).unwrap();
    assert_eq!(leases, [Lease { network: network.id, address: address("10.9.0.129") }]);
}

#[test]
fn a_network_of_the_old_form_that_had_no_id_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let old = r#"{"bridge":"stanza0","subnet":"10.77.0.0/16","gateway":"10.77.0.1","mtu":1500}"#;
    old_file(&path, old, &[(0x0a4d_0002, "first")]);
    let database = open(&path);
    let id = database.network_id("bridge").unwrap().unwrap();
    assert_eq!(id.len(), 64);
    let held = database.leases().unwrap();
    assert_eq!((held.len(), held[0].lease.network.as_str()), (1, id.as_str()));
    // Its description is chosen anew by whoever needs it.
    assert_eq!(database.network_named("bridge").unwrap(), None);
}

#[test]
fn a_refused_container_leaves_neither_record_nor_lease() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("s.db"));
    let first = wish_in(&mut database, 24).network;
    let gone = stanza_network::Network { id: "6".repeat(64), name: "gone".into(), ..subnet(24) };
    let late = started("late");
    match store(&mut database, &late, &[wish(&first, None), wish(&gone, None)]) {
        Err(InsertError::Address(Refusal::Gone { network })) => assert_eq!(network, "gone"),
        other => panic!("{other:?}"),
    }
    assert_eq!((database.container(&late.id).unwrap(), database.leases().unwrap()), (None, Vec::new()));
    // The same for one that is there, and starts.
    let there = record("there");
    store(&mut database, &there, &[]).unwrap();
    let outcome = database.start_with_leases(there.id.as_str(), &[wish(&first, None), wish(&gone, None)]);
    assert!(matches!(outcome, Ok(Err(Refusal::Gone { .. }))), "{outcome:?}");
    assert_eq!(database.container(&there.id).unwrap().unwrap().phase, Phase::Created);
    assert_eq!(database.leases().unwrap(), Vec::new());
}

#[test]
fn an_address_that_was_asked_for_is_nobody_elses_while_its_owner_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("s.db"));
    let network = wish_in(&mut database, 29).network;
    let (owner, other) = (started("owner"), started("other"));
    let two = [wish(&network, Some("10.9.0.2"))];
    store(&mut database, &owner, &two).unwrap();
    let taken = |outcome: Result<Vec<Lease>, InsertError>| match outcome {
        Err(InsertError::Address(Refusal::Taken { address, container, .. })) => (address, container),
        other => panic!("{other:?}"),
    };
    let expected = (address("10.9.0.2"), owner.id.to_string());
    assert_eq!(taken(store(&mut database, &other, &two)), expected);
    // It ended: nobody gets the address by chance, but by asking for it.
    database.set_exited(&[(owner.id.as_str(), "{}")]).unwrap();
    let chance = store(&mut database, &started("chance"), &[wish(&network, None)]).unwrap();
    assert_eq!(chance[0].address, address("10.9.0.3"));
    assert_eq!(store(&mut database, &other, &two).unwrap()[0].address, address("10.9.0.2"));
    let outcome = database.start_with_leases(owner.id.as_str(), &two).unwrap();
    assert!(matches!(&outcome, Err(Refusal::Taken { container, .. }) if container == other.id.as_str()));
    database.delete(other.id.as_str()).unwrap();
    let leases = database.start_with_leases(owner.id.as_str(), &two).unwrap().unwrap();
    assert_eq!(leases, [Lease { network: network.id, address: address("10.9.0.2") }]);
}

#[test]
fn a_container_gets_an_address_of_each_family_and_of_its_range() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("s.db"));
    let mut network = subnet(24);
    network.subnets[0].range = "10.9.0.128/30".parse().ok();
    network.subnets[0].reserved = vec![("printer".into(), address("10.9.0.129"))];
    network.subnets.push(stanza_network::NetworkSubnet {
        subnet: "fd00:9::/64".parse().unwrap(),
        gateway: Some(address("fd00:9::1")),
        range: None,
        reserved: Vec::new(),
    });
    database.store_network(&NetworkRecord::new(network.clone())).unwrap().unwrap();
    let mut given = Vec::new();
    for name in ["one", "two", "three"] {
        let leases = store(&mut database, &started(name), &[wish(&network, None)]).unwrap();
        given.push(leases.iter().map(|lease| lease.address.to_string()).collect::<Vec<_>>());
    }
    assert_eq!(
        given,
        [["10.9.0.128", "fd00:9::2"], ["10.9.0.130", "fd00:9::3"], ["10.9.0.131", "fd00:9::4"]]
    );
    let full = store(&mut database, &started("four"), &[wish(&network, None)]);
    assert!(matches!(full, Err(InsertError::Address(Refusal::NoneLeft { .. }))), "{full:?}");
}

#[test]
fn a_network_that_a_container_names_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("s.db"));
    let network = wish_in(&mut database, 24).network;
    let user = record("user");
    store(&mut database, &user, &[]).unwrap();
    let is_user = |config: &stanza_spec::ContainerConfig| config.tty;
    assert_eq!(database.delete_network(&network, &is_user).unwrap(), Err(vec!["user".to_owned()]));
    assert!(database.network_named("bridge").unwrap().is_some());
    database.delete(user.id.as_str()).unwrap();
    assert_eq!(database.delete_network(&network, &is_user).unwrap(), Ok(()));
    assert_eq!(database.network_named("bridge").unwrap(), None);
    // Its device is to go, whoever does it.
    assert_eq!(database.removed_networks().unwrap(), std::slice::from_ref(&network));
    database.forget_removed(&network.id).unwrap();
    assert_eq!(database.removed_networks().unwrap(), []);
    let outcome = database.update_network(&network.id, |_| Ok::<(), ()>(())).unwrap();
    assert_eq!(outcome, Ok(None));
}

#[test]
fn networks_that_cannot_stand_side_by_side_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("s.db"));
    wish_in(&mut database, 24);
    let other = |name: &str, device: &str, subnet: &str| {
        let mut network = tests::subnet(24);
        (network.id, network.name) = ("7".repeat(64), name.to_owned());
        network.driver = stanza_network::Driver::Bridge(stanza_network::Bridge {
            device: device.to_owned(),
            masquerade: true,
            peers: true,
            vlan: None,
        });
        network.subnets[0].subnet = subnet.parse().unwrap();
        NetworkRecord::new(network)
    };
    let mut refused = |record: &NetworkRecord| database.store_network(record).unwrap();
    assert_eq!(refused(&other("bridge", "c", "10.8.0.0/24")), Err(StoreRefusal::NameTaken));
    let (device, network) = ("b".to_owned(), "bridge".to_owned());
    assert_eq!(
        refused(&other("x", "b", "10.8.0.0/24")),
        Err(StoreRefusal::BridgeTaken { device, network: network.clone() })
    );
    let overlap = StoreRefusal::Overlap {
        subnet: "10.9.0.0/16".parse().unwrap(),
        network,
        other: "10.9.0.0/24".parse().unwrap(),
    };
    assert_eq!(refused(&other("x", "c", "10.9.0.0/16")), Err(overlap));
    assert_eq!(refused(&other("x", "c", "10.8.0.0/24")), Ok(()));
}
