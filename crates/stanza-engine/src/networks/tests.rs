//! Verbs on networks without containers: an engine in a temporary directory, that makes no device.

use std::collections::BTreeSet;
use std::path::Path;

use stanza_network::{Driver, IpvlanMode, MacvlanMode};
use stanza_spec::{Classify, ErrorKind};

use super::*;
use crate::filters::Filters;
use crate::{Engine, Options};

fn engine(directory: &Path) -> Engine {
    let options = Options {
        root: directory.join("root"),
        runroot: directory.join("run"),
        rootless: true,
        config: Some(directory.join("stanza.toml")),
        storage_driver: None,
    };
    Engine::open(options).unwrap()
}

/// An engine whose networks are parts of ranges that no machine routes: those for documentation and measurements (RFC 5737, RFC 3849,
/// RFC 2544).
fn documented() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let text = "[network]\ndefault-subnet = \"203.0.113.0/24\"\n\
        default-address-pools = [{ base = \"198.51.100.0/24\", size = 26 }, { base = \"2001:db8::/32\", size = 64 }]\n";
    std::fs::write(dir.path().join("stanza.toml"), text).unwrap();
    let engine = engine(dir.path());
    (dir, engine)
}

fn named(name: &str) -> NetworkRequest {
    NetworkRequest { name: name.to_owned(), ..NetworkRequest::default() }
}

fn in_subnets(name: &str, subnets: &[&str]) -> NetworkRequest {
    let subnet = |text: &&str| SubnetRequest {
        subnet: text.parse().unwrap(),
        gateway: None,
        range: None,
        aux: Vec::new(),
    };
    NetworkRequest { subnets: subnets.iter().map(subnet).collect(), ..named(name) }
}

fn subnets(entry: &NetworkEntry) -> Vec<String> {
    entry.network.subnets.iter().map(|place| place.subnet.to_string()).collect()
}

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_network_gets_the_next_free_parts_of_the_configured_pools() {
    let (_dir, mut engine) = documented();
    let first = engine.create_network(&named("first")).unwrap();
    assert_eq!(subnets(&first), ["198.51.100.0/26"]);
    assert_eq!(first.network.subnets[0].gateway, Some([198, 51, 100, 1].into()));
    let bridge = first.network.bridge().unwrap();
    assert_eq!(bridge.device, format!("stanza-{}", &first.network.id[..8]));
    let both = NetworkRequest { ipv6: Some(true), ..named("both") };
    assert_eq!(subnets(&engine.create_network(&both).unwrap()), ["198.51.100.64/26", "2001:db8::/64"]);
    let six = NetworkRequest { ipv4: Some(false), ..both.clone() };
    let six = NetworkRequest { name: "six".into(), ..six };
    assert_eq!(subnets(&engine.create_network(&six).unwrap()), ["2001:db8:0:1::/64"]);
    engine.create_network(&in_subnets("own", &["198.51.100.128/25"])).unwrap();
    let error = engine.create_network(&named("late")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.to_string().contains("network `late`"), "{error}");
    // A part that came free is given again.
    engine.remove_network("first", false).unwrap();
    assert_eq!(subnets(&engine.create_network(&named("late")).unwrap()), ["198.51.100.0/26"]);
}

#[test]
fn ipv6_without_a_pool_is_a_part_of_the_engines_own_unique_local_prefix() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("stanza.toml"), "").unwrap();
    let mut engine = engine(dir.path());
    let mut of = |name: &str| {
        let six = NetworkRequest { ipv4: Some(false), ipv6: Some(true), ..named(name) };
        engine.create_network(&six).unwrap().network.subnets[0].subnet
    };
    let (one, two) = (of("one"), of("two"));
    assert_eq!((one.prefix(), two.prefix()), (64, 64));
    let octets = |subnet: stanza_network::Subnet| match subnet.network() {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => panic!("{address}"),
    };
    assert_eq!(octets(one)[0], 0xfd);
    // The same site, one part behind the other.
    assert_eq!(octets(one)[..6], octets(two)[..6]);
    assert_eq!((octets(one)[6..8].to_vec(), octets(two)[6..8].to_vec()), (vec![0, 0], vec![0, 1]));
}

#[test]
fn what_is_asked_for_is_what_is_on_record() {
    let (_dir, mut engine) = documented();
    let mut request = in_subnets("lan", &["198.18.2.0/25", "198.18.2.128/25", "2001:db8:7::/64"]);
    request.subnets[0].gateway = Some([198, 18, 2, 126].into());
    request.subnets[0].range = "198.18.2.64/28".parse().ok();
    request.subnets[0].aux = vec![("printer".into(), [198, 18, 2, 66].into())];
    request.labels = options(&[("a", "b")]);
    request.options =
        options(&[("mtu", "1400"), ("com.docker.network.bridge.enable_icc", "false"), ("vlan", "7")]);
    request.dns = vec![[198, 18, 2, 53].into()];
    (request.internal, request.disable_dns, request.interface_name) = (true, true, Some("br-lan".into()));
    let made = engine.create_network(&request).unwrap();
    assert_eq!(engine.network(&made.network.id[..10]).unwrap(), made);
    assert_eq!((&made.labels, &made.options, &made.dns), (&request.labels, &request.options, &request.dns));
    assert!(made.network.internal && made.disable_dns && made.has_ipv6() && !made.is_predefined());
    assert_eq!(made.network.mtu, Some(1400));
    let bridge = made.network.bridge().unwrap();
    assert_eq!((bridge.device.as_str(), bridge.peers, bridge.vlan), ("br-lan", false, Some(7)));
    let first = &made.network.subnets[0];
    assert_eq!((first.gateway, first.range), (request.subnets[0].gateway, request.subnets[0].range));
    assert_eq!(first.reserved, request.subnets[0].aux);
    let card = |name: &str, driver: &str, subnet: &str, pairs: &[(&str, &str)]| NetworkRequest {
        driver: driver.into(),
        options: options(pairs),
        ..in_subnets(name, &[subnet])
    };
    let mac =
        card("mac", "macvlan", "10.251.0.0/24", &[("parent", "eth9"), ("vlan", "20"), ("mode", "vepa")]);
    let parent = "eth9.20".to_owned();
    let made = engine.create_network(&mac).unwrap();
    assert_eq!(made.network.driver, Driver::Macvlan { parent, mode: MacvlanMode::Vepa });
    let ip = card("ip", "ipvlan", "10.252.0.0/24", &[("parent", "eth9"), ("ipvlan_mode", "l3")]);
    let made = engine.create_network(&ip).unwrap();
    assert_eq!(made.network.driver, Driver::Ipvlan { parent: "eth9".into(), mode: IpvlanMode::L3 });
    // Routed by the host: there is no neighbour that leads out.
    assert_eq!(made.network.subnets[0].gateway, None);
}

#[test]
fn requests_that_are_no_network_are_refused_in_words() {
    let (_dir, mut engine) = documented();
    engine.create_network(&in_subnets("lan", &["198.18.2.0/24"])).unwrap();
    let mut refused = |request: NetworkRequest| {
        let error = engine.create_network(&request).unwrap_err();
        (error.kind(), error.to_string())
    };
    let told = |kind, text: &str| (kind, text.to_owned());
    assert_eq!(
        refused(named("a/b")),
        told(
            ErrorKind::InvalidArgument,
            "a/b is not a valid name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    );
    for name in ["bridge", "host", "none", "default"] {
        let text = format!("operation is not permitted on predefined {name} network");
        assert_eq!(refused(named(name)), (ErrorKind::PermissionDenied, text));
    }
    assert_eq!(refused(named("lan")), told(ErrorKind::AlreadyExists, "network with name lan already exists"));
    assert_eq!(
        refused(NetworkRequest { driver: "overlay".into(), ..named("x") }),
        told(ErrorKind::Unsupported, "network driver `overlay` is not built in")
    );
    assert_eq!(
        refused(in_subnets("x", &["198.18.2.128/25"])),
        told(ErrorKind::Conflict, "subnet `198.18.2.128/25` overlaps `198.18.2.0/24` of the network `lan`")
    );
    assert_eq!(
        refused(in_subnets("x", &["10.251.0.0/24", "10.251.0.0/25"])),
        told(
            ErrorKind::InvalidArgument,
            "subnet `10.251.0.0/25`: overlaps `10.251.0.0/24` of the same network"
        )
    );
    let vlan = NetworkRequest { driver: "macvlan".into(), options: options(&[("vlan", "7")]), ..named("x") };
    assert_eq!(
        refused(vlan),
        told(ErrorKind::InvalidArgument, "network option `vlan`: it is of a card: name it with `parent`")
    );
    let again = NetworkRequest { ignore_existing: true, ..named("lan") };
    assert_eq!(subnets(&engine.create_network(&again).unwrap()), ["198.18.2.0/24"]);
}

#[test]
fn networks_are_listed_updated_pruned_and_removed() {
    let (_dir, mut engine) = documented();
    let labelled = NetworkRequest { labels: options(&[("keep", "yes")]), ..named("kept") };
    engine.create_network(&labelled).unwrap();
    for name in ["one", "two"] {
        engine.create_network(&named(name)).unwrap();
    }
    let names = |engine: &mut Engine, words: &[&str]| -> Vec<String> {
        let entries = engine.networks(&Filters::parse(words).unwrap()).unwrap();
        entries.into_iter().map(|entry| entry.network.name).collect()
    };
    assert_eq!(names(&mut engine, &[]), ["bridge", "host", "kept", "none", "one", "two"]);
    assert_eq!(names(&mut engine, &["type=custom", "label=keep"]), ["kept"]);
    assert_eq!(names(&mut engine, &["driver=null"]), ["none"]);
    assert_eq!(names(&mut engine, &["dangling=true", "name=o"]), ["one", "two"]);
    let update = NetworkUpdate {
        dns_add: vec![[198, 18, 2, 53].into()],
        labels_add: options(&[("a", "b")]),
        labels_drop: vec!["keep".into()],
        ..NetworkUpdate::default()
    };
    let updated = engine.update_network("kept", &update).unwrap();
    assert_eq!((updated.dns, updated.labels), (update.dns_add.clone(), options(&[("a", "b")])));
    let drop = NetworkUpdate { dns_drop: vec![[198, 18, 2, 54].into()], ..NetworkUpdate::default() };
    let error = engine.update_network("kept", &drop).unwrap_err();
    assert_eq!(error.to_string(), "network kept has no name server `198.18.2.54`");
    engine.remove_network("one", false).unwrap();
    let error = engine.remove_network("one", false).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "network one not found"));
    let error = engine.remove_network("bridge", true).unwrap_err();
    assert_eq!(error.to_string(), "bridge is a pre-defined network and cannot be removed");
    let filters = Filters::parse(&["label!=a"]).unwrap();
    assert_eq!(engine.prune_networks(&filters).unwrap(), ["two"]);
    assert_eq!(names(&mut engine, &["type=custom"]), ["kept"]);
}

#[test]
fn processes_that_make_networks_at_once_get_subnets_of_their_own() {
    let (dir, mut first) = documented();
    first.networks(&Filters::default()).unwrap();
    let made: BTreeSet<String> = std::thread::scope(|scope| {
        let make = |number: usize| {
            let path = dir.path();
            scope.spawn(move || {
                let mut engine = engine(path);
                subnets(&engine.create_network(&named(&format!("n{number}"))).unwrap()).remove(0)
            })
        };
        let threads: Vec<_> = (0..4).map(make).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let expected = [0, 64, 128, 192].map(|last| format!("198.51.100.{last}/26"));
    assert_eq!(made, BTreeSet::from(expected));
}
