//! Networks of the user's, in a network name space that stands for the host: what the engine says, what the kernel shows.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use stanza_engine::{Engine, NetworkEntry, NetworkError, NetworkRequest, Options, Silent, SubnetRequest};
use stanza_spec::{ContainerConfig, EndpointRequest, ExtraHost, NetworkMode, PullPolicy};
use stanza_test::{Network, Stanza, fixture, in_network_of, skip, wait_until};

/// Does `work` as a command of that engine would, on the fixture's host.
fn engine<T: Send>(stanza: &Stanza, work: impl FnOnce(&mut Engine) -> T + Send) -> T {
    let options = Options {
        root: stanza.root().to_owned(),
        runroot: stanza.runroot().to_owned(),
        rootless: false,
        config: None,
        storage_driver: None,
    };
    let network = stanza.network().expect("the fixture has a network");
    network.enter(|| work(&mut Engine::open(options).expect("the paths are absolute")))
}

fn subnet(text: &str) -> SubnetRequest {
    SubnetRequest { subnet: text.parse().expect("a subnet"), gateway: None, range: None, aux: Vec::new() }
}

fn network(stanza: &Stanza, name: &str, subnets: &[&str]) -> NetworkEntry {
    let subnets = subnets.iter().map(|text| subnet(text)).collect();
    let request = NetworkRequest { name: name.to_owned(), subnets, ..NetworkRequest::default() };
    engine(stanza, |engine| engine.create_network(&request)).expect("the network is made")
}

fn endpoint(network: &str) -> EndpointRequest {
    EndpointRequest { network: network.to_owned(), ..EndpointRequest::default() }
}

fn sleeper(name: &str, networks: Vec<EndpointRequest>) -> ContainerConfig {
    ContainerConfig {
        name: Some(name.to_owned()),
        image: "busybox".to_owned(),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        pull: PullPolicy::Never,
        networks,
        ..ContainerConfig::default()
    }
}

fn try_create(stanza: &Stanza, config: ContainerConfig) -> Result<(), String> {
    let created = engine(stanza, |engine| engine.create(config, &mut Silent).map(|_| ()));
    created.map_err(|error| error.to_string())
}

fn start(stanza: &Stanza, name: &str, networks: Vec<EndpointRequest>) {
    try_create(stanza, sleeper(name, networks)).expect("the container is made");
    stanza.ok(&["start", name]);
}

fn connect(stanza: &Stanza, network: &str, name: &str, request: EndpointRequest) -> Result<(), NetworkError> {
    engine(stanza, |engine| {
        let id = engine.find(name).expect("the container is there");
        engine.connect_network(network, &id, request)
    })
}

fn disconnect(stanza: &Stanza, network: &str, name: &str) -> Result<(), NetworkError> {
    engine(stanza, |engine| {
        let id = engine.find(name).expect("the container is there");
        engine.disconnect_network(network, &id, false)
    })
}

/// The devices inside but for loopback, by name.
fn devices(stanza: &Stanza, name: &str) -> Vec<String> {
    let text = stanza.ok(&["exec", name, "ls", "/sys/class/net"]);
    text.split_whitespace().filter(|device| *device != "lo").map(str::to_owned).collect()
}

/// The container's way out; empty without one.
fn default_route(stanza: &Stanza, name: &str) -> String {
    let text = stanza.ok(&["exec", name, "ip", "route"]);
    text.lines().find(|line| line.starts_with("default")).unwrap_or_default().trim().to_owned()
}

/// The devices of the fixture's host.
fn on_host(stanza: &Stanza) -> String {
    stanza.network().expect("the fixture has a network").run(&["ip", "-o", "link"]).stdout
}

/// Whether a container reaches a port that is opened for this in another one.
fn reaches(stanza: &Stanza, from: &str, to: &str, address: &str) -> bool {
    let address: SocketAddr = address.parse().expect("a socket address");
    let listener = in_network_of(stanza.pid(to), || TcpListener::bind(address));
    let Ok(_listener) = listener else { return false };
    in_network_of(stanza.pid(from), || {
        TcpStream::connect_timeout(&address, Duration::from_millis(1500)).is_ok()
    })
}

#[test]
fn containers_of_a_network_reach_each_other_in_both_families() {
    let stanza = fixture!(PrivateNetwork);
    let made = network(&stanza, "lan", &["10.210.0.0/24", "fd00:210::/64"]);
    let before = stanza.leftovers();
    for name in ["c1", "c2"] {
        start(&stanza, name, vec![endpoint("lan")]);
    }
    assert!(reaches(&stanza, "c1", "c2", "10.210.0.3:7000"));
    assert!(reaches(&stanza, "c2", "c1", "[fd00:210::2]:7000"));
    let entry = engine(&stanza, |engine| engine.network("lan")).unwrap();
    let seen: Vec<_> = entry
        .endpoints
        .iter()
        .map(|one| (one.container_name.as_str(), one.ipv4.unwrap().0.to_string(), one.ipv6.unwrap().1))
        .collect();
    assert_eq!(seen, [("c1", "10.210.0.2".to_owned(), 64), ("c2", "10.210.0.3".to_owned(), 64)]);
    assert_eq!(entry.endpoints[0].names[0], "c1");
    assert!(entry.endpoints.iter().all(|one| on_host(&stanza).contains(&one.device)));
    stanza.ok(&["rm", "-f", "c1", "c2"]);
    // The bridge stays until the network goes.
    engine(&stanza, |engine| engine.remove_network("lan", false)).unwrap();
    assert!(!on_host(&stanza).contains(&made.network.bridge().unwrap().device));
    stanza.assert_clean(&before);
}

#[test]
fn a_running_container_joins_and_leaves_networks() {
    let stanza = fixture!(PrivateNetwork);
    network(&stanza, "one", &["10.211.0.0/24"]);
    network(&stanza, "two", &["10.212.0.0/24"]);
    start(&stanza, "c1", vec![endpoint("one")]);
    start(&stanza, "c2", vec![endpoint("two")]);
    let way = default_route(&stanza, "c1");
    assert!(way.contains("via 10.211.0.1 dev eth0"), "{way}");
    let named = EndpointRequest { ipv4: Some([10, 212, 0, 77].into()), ..EndpointRequest::default() };
    connect(&stanza, "two", "c1", named.clone()).unwrap();
    assert_eq!(devices(&stanza, "c1"), ["eth0", "eth1"]);
    assert!(reaches(&stanza, "c2", "c1", "10.212.0.77:7000"));
    assert_eq!(default_route(&stanza, "c1"), way);
    let hosts = stanza.ok(&["exec", "c1", "cat", "/etc/hosts"]);
    assert!(hosts.contains("10.211.0.2\t") && hosts.contains("10.212.0.77\t"), "{hosts}");
    let error = connect(&stanza, "two", "c1", named.clone()).unwrap_err().to_string();
    assert_eq!(error, "container c1 is already connected to network two");
    disconnect(&stanza, "one", "c1").unwrap();
    // The other one keeps its name, and leads out now.
    assert_eq!(devices(&stanza, "c1"), ["eth1"]);
    assert!(
        default_route(&stanza, "c1").contains("via 10.212.0.1 dev eth1"),
        "{}",
        default_route(&stanza, "c1")
    );
    disconnect(&stanza, "two", "c1").unwrap();
    assert_eq!(devices(&stanza, "c1"), Vec::<String>::new());
    let error = disconnect(&stanza, "two", "c1").unwrap_err().to_string();
    assert_eq!(error, "container c1 is not connected to network two");
    connect(&stanza, "two", "c1", named).unwrap();
    assert!(reaches(&stanza, "c2", "c1", "10.212.0.77:7000"));
    // What was changed while it ran holds at its next start.
    stanza.ok(&["restart", "-t", "0", "c1"]);
    assert!(reaches(&stanza, "c2", "c1", "10.212.0.77:7000"));
    stanza.ok(&["rm", "-f", "c1", "c2"]);
}

#[test]
fn a_container_without_network_joins_one_while_it_runs() {
    let stanza = fixture!(PrivateNetwork);
    network(&stanza, "lan", &["10.213.0.0/24"]);
    stanza.ok(&["run", "-d", "--name", "c1", "--network", "none", "busybox", "sleep", "1000"]);
    start(&stanza, "c2", vec![endpoint("lan")]);
    connect(&stanza, "lan", "c1", EndpointRequest::default()).unwrap();
    assert!(reaches(&stanza, "c2", "c1", "10.213.0.3:7000"));
    let counters = engine(&stanza, |engine| {
        let id = engine.find("c1").unwrap();
        engine.network_counters(&id).unwrap()
    });
    assert_eq!(counters.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
    assert!(counters[0].rx_packets > 0 && counters[0].tx_bytes > 0, "{counters:?}");
    stanza.ok(&["rm", "-f", "c1", "c2"]);
}

#[test]
fn addresses_that_are_asked_for_are_given_or_refused_in_words() {
    let stanza = fixture!(PrivateNetwork);
    network(&stanza, "lan", &["10.214.0.0/24"]);
    let asked = |last: u8, mac: Option<[u8; 6]>| {
        vec![EndpointRequest { ipv4: Some([10, 214, 0, last].into()), mac, ..endpoint("lan") }]
    };
    let mac = [2, 0, 0, 0xab, 0, 1];
    start(&stanza, "c1", asked(40, Some(mac)));
    let link = stanza.ok(&["exec", "c1", "ip", "address", "show", "dev", "eth0"]);
    assert!(link.contains("02:00:00:ab:00:01") && link.contains("inet 10.214.0.40/24"), "{link}");
    let refused = |networks| try_create(&stanza, sleeper("c2", networks)).unwrap_err();
    assert_eq!(
        refused(asked(1, None)),
        "address `10.214.0.1` of the network `lan` is reserved for its gateway"
    );
    assert_eq!(
        refused(asked(255, None)),
        "address `10.214.0.255` of the network `lan` is reserved for the network itself"
    );
    assert_eq!(
        refused(asked(40, None)),
        "address `10.214.0.40` of the network `lan` is taken by the container `c1`"
    );
    assert_eq!(
        refused(asked(41, Some(mac))),
        "hardware address `02:00:00:ab:00:01` of the network `lan` is taken by the container `c1`"
    );
    assert_eq!(
        refused(asked(41, Some([1, 0, 0, 0, 0, 1]))),
        "`01:00:00:00:00:01` is no hardware address of a device: it must be unicast and not all zero"
    );
    let outside = EndpointRequest { ipv4: Some([10, 9, 0, 2].into()), ..endpoint("lan") };
    assert_eq!(refused(vec![outside]), "address `10.9.0.2` is of no subnet of the network `lan`");
    assert_eq!(refused(vec![endpoint("nope")]), "network nope not found");
    assert_eq!(refused(vec![endpoint("lan"), endpoint("lan")]), "network lan is specified multiple times");
    stanza.ok(&["rm", "-f", "c1"]);
}

#[test]
fn the_network_with_the_highest_priority_leads_out() {
    let stanza = fixture!(PrivateNetwork);
    for (name, subnet) in [("one", "10.215.0.0/24"), ("two", "10.216.0.0/24"), ("three", "10.217.0.0/24")] {
        network(&stanza, name, &[subnet]);
    }
    let two = EndpointRequest { gateway_priority: 5, ..endpoint("two") };
    start(&stanza, "c1", vec![endpoint("one"), two, endpoint("three")]);
    assert_eq!(default_route(&stanza, "c1"), "default via 10.216.0.1 dev eth1");
    stanza.ok(&["rm", "-f", "c1"]);
}

#[test]
fn a_container_shares_the_network_of_another_one_that_runs() {
    let stanza = fixture!(PrivateNetwork);
    network(&stanza, "lan", &["10.218.0.0/24"]);
    start(&stanza, "c1", vec![endpoint("lan")]);
    let shared = |name: &str| ContainerConfig {
        network: Some(NetworkMode::Container("c1".into())),
        ..sleeper(name, Vec::new())
    };
    try_create(&stanza, shared("c2")).unwrap();
    stanza.ok(&["start", "c2"]);
    let namespace = |name: &str| fs::read_link(format!("/proc/{}/ns/net", stanza.pid(name))).unwrap();
    assert_eq!(namespace("c1"), namespace("c2"));
    assert_eq!(
        stanza.ok(&["exec", "c2", "cat", "/etc/hosts"]),
        stanza.ok(&["exec", "c1", "cat", "/etc/hosts"])
    );
    let error = connect(&stanza, "lan", "c2", EndpointRequest::default()).unwrap_err().to_string();
    assert!(error.starts_with("container sharing network namespace with another container"), "{error}");
    stanza.ok(&["rm", "-f", "c2"]);
    stanza.ok(&["stop", "-t", "0", "c1"]);
    try_create(&stanza, shared("c2")).unwrap();
    let error = stanza.output(&["start", "c2"]);
    assert_ne!(error.code, 0);
    assert!(error.stderr.contains("cannot join network of a non running container: c1"), "{}", error.stderr);
    let published = ContainerConfig { publish_all: true, ..shared("c3") };
    let error = try_create(&stanza, published).unwrap_err();
    assert!(error.contains("port publishing and the container type network mode"), "{error}");
    stanza.ok(&["rm", "-f", "c1", "c2"]);
}

#[test]
fn a_network_in_use_is_removed_by_force_only_and_a_bridge_of_the_users_stays() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    let made = host.run(&["ip", "link", "add", "mine", "type", "bridge"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let request = NetworkRequest {
        name: "own".into(),
        subnets: vec![subnet("10.219.0.0/24")],
        interface_name: Some("mine".into()),
        ..NetworkRequest::default()
    };
    engine(&stanza, |engine| engine.create_network(&request)).unwrap();
    network(&stanza, "lan", &["10.220.0.0/24"]);
    start(&stanza, "c1", vec![endpoint("own"), endpoint("lan")]);
    try_create(&stanza, sleeper("c2", vec![endpoint("lan")])).unwrap();
    let remove = |name: &str, force| engine(&stanza, |engine| engine.remove_network(name, force));
    assert_eq!(
        remove("lan", false).unwrap_err().to_string(),
        "error while removing network: network lan has active endpoints (c1, c2)"
    );
    let pruned = engine(&stanza, |engine| engine.prune_networks(&stanza_engine::Filters::default()));
    assert_eq!(pruned.unwrap(), Vec::<String>::new());
    remove("lan", true).unwrap();
    assert_eq!(devices(&stanza, "c1"), ["eth0"]);
    remove("own", true).unwrap();
    assert_eq!(devices(&stanza, "c1"), Vec::<String>::new());
    let links = on_host(&stanza);
    assert!(links.contains(" mine:") && !links.contains("stanza-") && !links.contains("stz"), "{links}");
    // The one that had no other network starts without.
    stanza.ok(&["start", "c2"]);
    assert_eq!(devices(&stanza, "c2"), Vec::<String>::new());
    stanza.ok(&["rm", "-f", "c1", "c2"]);
}

#[test]
fn a_killed_monitor_leaves_no_lease_device_or_name() {
    let stanza = fixture!(PrivateNetwork);
    let made = network(&stanza, "lan", &["10.221.0.0/30"]);
    let before = stanza.leftovers();
    start(&stanza, "c1", vec![endpoint("lan")]);
    stanza.kill_9(stanza.monitor("c1"));
    // The only address of the network is free for the next one, who clears what is left.
    wait_until("the address is free", || {
        stanza.output(&["rm", "-f", "c2"]);
        try_create(&stanza, sleeper("c2", vec![endpoint("lan")])).is_ok()
            && stanza.output(&["start", "c2"]).code == 0
    });
    assert!(stanza.ok(&["exec", "c2", "ip", "address"]).contains("inet 10.221.0.2/30"));
    stanza.ok(&["rm", "-f", "c1", "c2"]);
    // A directory of names that nobody knows any more.
    let stray = stanza.runroot().join("networks").join("5".repeat(64));
    fs::create_dir_all(stray.join("names/web")).unwrap();
    stanza.output(&["system", "check", "--repair"]);
    assert!(!stray.exists());
    let names = stanza.runroot().join("networks").join(&made.network.id).join("names");
    assert_eq!(fs::read_dir(names).map(Iterator::count).unwrap_or_default(), 0);
    engine(&stanza, |engine| engine.remove_network("lan", false)).unwrap();
    assert!(!on_host(&stanza).contains(&made.network.bridge().unwrap().device));
    stanza.assert_clean(&before);
}

#[test]
fn reload_makes_a_bridge_again_that_somebody_removed() {
    let stanza = fixture!(PrivateNetwork);
    let made = network(&stanza, "lan", &["10.222.0.0/24"]);
    for name in ["c1", "c2"] {
        start(&stanza, name, vec![endpoint("lan")]);
    }
    let device = &made.network.bridge().unwrap().device;
    assert_eq!(stanza.network().unwrap().run(&["ip", "link", "delete", device]).code, 0);
    assert!(!reaches(&stanza, "c1", "c2", "10.222.0.3:7000"));
    let (done, errors) = engine(&stanza, |engine| engine.reload_networks(&[], true)).unwrap();
    assert!(done.len() == 2 && errors.is_empty(), "{done:?} {errors:?}");
    assert!(reaches(&stanza, "c1", "c2", "10.222.0.3:7000"));
    stanza.ok(&["rm", "-f", "c1", "c2"]);
}

#[test]
fn hosts_and_resolver_are_what_the_user_says() {
    let stanza = fixture!(PrivateNetwork);
    let request = NetworkRequest {
        name: "lan".into(),
        subnets: vec![subnet("10.223.0.0/24")],
        dns: vec![[198, 18, 0, 53].into()],
        ..NetworkRequest::default()
    };
    engine(&stanza, |engine| engine.create_network(&request)).unwrap();
    let config = ContainerConfig {
        dns_search: vec!["corp.example".into()],
        dns_options: vec!["ndots:2".into()],
        extra_hosts: vec![
            ExtraHost { name: "db".into(), address: Some([198, 18, 0, 9].into()) },
            ExtraHost { name: "gate".into(), address: None },
        ],
        ..sleeper("c1", vec![endpoint("lan")])
    };
    try_create(&stanza, config.clone()).unwrap();
    stanza.ok(&["start", "c1"]);
    let hosts = stanza.ok(&["exec", "c1", "cat", "/etc/hosts"]);
    assert!(hosts.ends_with("198.18.0.9\tdb\n10.223.0.1\tgate"), "{hosts}");
    let resolver = stanza.ok(&["exec", "c1", "cat", "/etc/resolv.conf"]);
    assert_eq!(resolver, "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:2");
    // Without a resolver of its own it asks the servers itself.
    let own = ContainerConfig {
        name: Some("c2".into()),
        dns: vec![[198, 18, 0, 54].into()],
        networks: Vec::new(),
        ..config
    };
    try_create(&stanza, own).unwrap();
    stanza.ok(&["start", "c2"]);
    let resolver = stanza.ok(&["exec", "c2", "cat", "/etc/resolv.conf"]);
    assert!(resolver.starts_with("nameserver 198.18.0.54\nsearch corp.example\n"), "{resolver}");
    stanza.ok(&["rm", "-f", "c1", "c2"]);
}

#[test]
fn a_card_network_gives_no_address_of_the_host_and_reaches_its_neighbours() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    let Ok(outside) = Network::private() else { skip!("no second name space") };
    host.connect("card0", "10.224.0.2/24", &outside, "10.224.0.99/24");
    if host.run(&["ip", "link", "add", "probe", "link", "card0", "type", "macvlan"]).code != 0 {
        skip!("the kernel has no macvlan");
    }
    assert_eq!(host.run(&["ip", "link", "delete", "probe"]).code, 0);
    let request = NetworkRequest {
        name: "card".into(),
        driver: "macvlan".into(),
        subnets: vec![subnet("10.224.0.0/24")],
        options: [("parent".to_owned(), "card0".to_owned())].into(),
        ..NetworkRequest::default()
    };
    engine(&stanza, |engine| engine.create_network(&request)).unwrap();
    let host_address = EndpointRequest { ipv4: Some([10, 224, 0, 2].into()), ..endpoint("card") };
    assert_eq!(
        try_create(&stanza, sleeper("c1", vec![host_address])).unwrap_err(),
        "address `10.224.0.2` of the network `card` is reserved for `the host`"
    );
    for name in ["c1", "c2"] {
        start(&stanza, name, vec![endpoint("card")]);
    }
    assert!(stanza.ok(&["exec", "c1", "ip", "address"]).contains("inet 10.224.0.3/24"));
    assert!(reaches(&stanza, "c1", "c2", "10.224.0.4:7000"));
    stanza.ok(&["rm", "-f", "c1", "c2"]);
    engine(&stanza, |engine| engine.remove_network("card", false)).unwrap();
    assert!(on_host(&stanza).contains("card0"));
}
