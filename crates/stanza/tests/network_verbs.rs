//! `network create ls inspect rm prune connect disconnect update reload`, with containers that talk, in a network name space
//! that stands for the host.

use serde_json::Value;
use stanza_test::{Network, Stanza, ask_tcp, fixture, reaches, serve_tcp, skip};

fn start(stanza: &Stanza, name: &str, options: &[&str]) {
    stanza.ok(&[&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat());
}

fn inspect(stanza: &Stanza, name: &str) -> Value {
    let text = stanza.ok(&["network", "inspect", name]);
    let document: Value = serde_json::from_str(&text).expect("inspect prints JSON");
    document[0].clone()
}

/// The devices of a container but for loopback.
fn devices(stanza: &Stanza, name: &str) -> Vec<String> {
    let text = stanza.ok(&["exec", name, "ls", "/sys/class/net"]);
    text.split_whitespace().filter(|device| *device != "lo").map(str::to_owned).collect()
}

#[test]
fn a_network_is_what_it_was_asked_to_be() {
    let stanza = fixture!(PrivateNetwork);
    let id = stanza.ok(&[
        "network",
        "create",
        "--subnet=10.201.0.0/24",
        "--subnet=fd00:201::/64",
        "--gateway=10.201.0.254",
        "--ip-range=10.201.0.128/26",
        "--aux-address=printer=10.201.0.129",
        "--label=tier=back",
        "-o",
        "mtu=1400",
        "-o",
        "com.docker.network.bridge.name=br-lan",
        "--internal",
        "--dns=192.0.2.53",
        "--attachable",
        "lan",
    ]);
    assert_eq!(id.len(), 64, "{id}");
    let made = inspect(&stanza, "lan");
    let expected = serde_json::json!([
        {"Subnet": "10.201.0.0/24", "IPRange": "10.201.0.128/26", "Gateway": "10.201.0.254",
            "AuxiliaryAddresses": {"printer": "10.201.0.129"}},
        {"Subnet": "fd00:201::/64", "Gateway": "fd00:201::1"},
    ]);
    assert_eq!(made["IPAM"]["Config"], expected);
    assert_eq!(made["Id"], id);
    assert_eq!((&made["Driver"], &made["Scope"]), (&"bridge".into(), &"local".into()));
    assert_eq!(made["EnableIPv6"], true);
    assert_eq!((&made["Internal"], &made["Labels"]["tier"]), (&true.into(), &"back".into()));
    assert_eq!(made["Options"]["mtu"], "1400");
    assert_eq!(made["NameServers"][0], "192.0.2.53");
    // What the kernel makes of it, with the first container.
    start(&stanza, "c1", &["--network", "lan"]);
    assert_eq!(stanza.address("c1", "lan").to_string(), "10.201.0.128");
    let link = stanza.network().unwrap().run(&["ip", "-o", "address", "show", "br-lan"]).stdout;
    assert!(link.contains("10.201.0.254/24") && link.contains("fd00:201::1/64"), "{link}");
    assert_eq!(stanza.ok(&["exec", "c1", "cat", "/sys/class/net/eth0/mtu"]), "1400");
    start(&stanza, "c2", &["--network", "lan"]);
    // The printer's is passed over.
    assert_eq!(stanza.address("c2", "lan").to_string(), "10.201.0.130");
}

#[test]
fn networks_are_listed_by_name_filtered_and_shown_as_asked() {
    let stanza = fixture!(PrivateNetwork);
    let id = stanza.ok(&["network", "create", "--label", "tier=back", "lan"]);
    stanza.ok(&["network", "create", "wan"]);
    let names = |options: &[&str]| {
        stanza.ok(&[&["network", "ls", "--format", "{{.Name}}"], options].concat()).replace('\n', " ")
    };
    assert_eq!(names(&[]), "bridge host lan none wan");
    assert_eq!(names(&["-f", "type=custom"]), "lan wan");
    assert_eq!(names(&["-f", "label=tier=back"]), "lan");
    assert_eq!(names(&["-f", "driver=null", "-f", "driver=host"]), "host none");
    assert_eq!(names(&["-f", &format!("id={}", &id[..8])]), "lan");
    start(&stanza, "c1", &["--network", "wan"]);
    assert_eq!(names(&["-f", "dangling=true"]), "lan");
    assert_eq!(stanza.ok(&["network", "ls", "-q", "-f", "name=lan"]), id[..12]);
    assert_eq!(stanza.ok(&["network", "ls", "-q", "--no-trunc", "-f", "name=lan"]), id);
    let table = stanza.ok(&["network", "ls", "-f", "name=lan"]);
    let row = format!("{}   lan       bridge    local", &id[..12]);
    assert_eq!(table, format!("NETWORK ID     NAME      DRIVER    SCOPE\n{row}"));
    assert_eq!(stanza.ok(&["network", "ls", "-n", "-f", "name=lan"]), row);
    let json: Value =
        serde_json::from_str(&stanza.ok(&["network", "ls", "--format", "json", "-f", "name=lan"]))
            .expect("a line of JSON");
    assert_eq!((&json["Name"], &json["Labels"]), (&"lan".into(), &"tier=back".into()));
    assert!(stanza.fails(1, &["network", "ls", "-f", "colour=red"]).contains("invalid filter 'colour'"));
}

#[test]
fn containers_reach_each_other_in_one_network_and_not_across_two() {
    let stanza = fixture!(PrivateNetwork);
    let before = stanza.leftovers();
    stanza.ok(&["network", "create", "one"]);
    stanza.ok(&["network", "create", "two"]);
    start(&stanza, "c1", &["--network", "one"]);
    start(&stanza, "c2", &["--network", "one"]);
    start(&stanza, "c3", &["--network", "two"]);
    let (a, b) = (stanza.address("c1", "one"), stanza.address("c2", "one"));
    let server = serve_tcp(&stanza, "c2", 7000);
    assert_eq!(ask_tcp(stanza.pid("c1"), (b, 7000).into()).unwrap(), a.to_string());
    assert!(!reaches(stanza.pid("c3"), (b, 7000).into()));
    drop(server);
    stanza.ok(&["rm", "-f", "c1", "c2", "c3"]);
    assert_eq!(stanza.ok(&["network", "rm", "one", "two"]), "one\ntwo");
    stanza.assert_clean(&before);
}

#[test]
fn containers_on_a_card_of_the_host_reach_each_other_and_are_reached_from_the_wire() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    for (driver, card, subnet, outside, options) in [
        (
            "macvlan",
            "card0",
            "10.213.0.0/24",
            "10.213.0.200/24",
            &["-o", "parent=card0", "-o", "mode=bridge"][..],
        ),
        (
            "ipvlan",
            "card1",
            "10.214.0.0/24",
            "10.214.0.200/24",
            &["--interface-name", "card1", "-o", "ipvlan_mode=l2"],
        ),
    ] {
        let Ok(wire) = Network::private() else { skip!("no second name space") };
        // The host itself has no address there.
        host.connect(card, "192.0.2.1/32", &wire, outside);
        if host.run(&["ip", "link", "add", "probe", "link", card, "type", driver]).code != 0 {
            skip!("this kernel has no {driver}");
        }
        assert_eq!(host.run(&["ip", "link", "delete", "probe"]).code, 0);
        let create = ["network", "create", "-d", driver, "--subnet", subnet];
        stanza.ok(&[&create, options, &[driver]].concat());
        let made = inspect(&stanza, driver);
        assert_eq!((&made["Driver"], &made["Device"]), (&driver.into(), &card.into()));
        let (one, two) = (format!("{driver}-1"), format!("{driver}-2"));
        start(&stanza, &one, &["--network", driver]);
        start(&stanza, &two, &["--network", driver]);
        let server = serve_tcp(&stanza, &one, 7000);
        let to = (stanza.address(&one, driver), 7000).into();
        assert_eq!(
            ask_tcp(stanza.pid(&two), to).unwrap(),
            stanza.address(&two, driver).to_string(),
            "{driver}"
        );
        assert_eq!(ask_tcp(wire.pid(), to).unwrap(), outside[..outside.len() - 3], "{driver}");
        drop(server);
    }
}

#[test]
fn containers_that_are_kept_apart_have_no_peers() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "lan"]);
    start(&stanza, "c1", &["--network", "lan"]);
    start(&stanza, "c2", &["--network", "lan"]);
    let made = inspect(&stanza, "lan");
    assert_eq!(made["PeersApart"], true);
    let counts: Vec<&Value> =
        made["Containers"].as_object().unwrap().values().map(|one| &one["PeerCount"]).collect();
    assert_eq!(counts, [0, 0]);
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "--subnet", "10.202.0.0/24", "lan"]);
    start(&stanza, "c1", &[]);
    start(&stanza, "c2", &["--network", "lan"]);
    assert_eq!(devices(&stanza, "c1"), ["eth0"]);
    stanza.ok(&[
        "network",
        "connect",
        "--ip",
        "10.202.0.77",
        "--mac-address",
        "02:00:00:00:00:77",
        "--alias",
        "db",
        "--driver-opt",
        "com.docker.network.endpoint.ifname=lan0",
        "lan",
        "c1",
    ]);
    assert_eq!(devices(&stanza, "c1"), ["eth0", "lan0"]);
    assert_eq!(stanza.ok(&["exec", "c1", "cat", "/sys/class/net/lan0/address"]), "02:00:00:00:00:77");
    let seen = stanza.inspect("c1")["NetworkSettings"]["Networks"]["lan"].clone();
    assert_eq!((&seen["IPAddress"], &seen["IPPrefixLen"]), (&"10.202.0.77".into(), &24.into()));
    assert_eq!((&seen["MacAddress"], &seen["Aliases"][0]), (&"02:00:00:00:00:77".into(), &"db".into()));
    assert_eq!(seen["IPAMConfig"]["IPv4Address"], "10.202.0.77");
    let server = serve_tcp(&stanza, "c1", 7000);
    let to = "10.202.0.77:7000".parse().unwrap();
    assert_eq!(ask_tcp(stanza.pid("c2"), to).unwrap(), stanza.address("c2", "lan").to_string());
    assert_eq!(stanza.ok(&["ps", "-f", "name=c1", "--format", "{{.Networks}}"]), "bridge,lan");
    let twice = stanza.fails(1, &["network", "connect", "lan", "c1"]);
    assert!(twice.contains("container c1 is already connected to network lan"), "{twice}");
    stanza.ok(&["network", "disconnect", "lan", "c1"]);
    assert_eq!(devices(&stanza, "c1"), ["eth0"]);
    assert!(!reaches(stanza.pid("c2"), to));
    let out = stanza.fails(1, &["network", "disconnect", "lan", "c1"]);
    assert!(out.contains("container c1 is not connected to network lan"), "{out}");
    drop(server);
}

#[test]
fn a_network_in_use_stays_unless_its_containers_may_go() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "lan"]);
    start(&stanza, "c1", &["--network", "lan"]);
    stanza.ok(&["create", "--name", "c2", "--network", "lan", "busybox", "true"]);
    let in_use = "network lan has active endpoints (c1, c2)";
    for force in [&[][..], &["-f"]] {
        let error = stanza.fails(1, &[&["network", "rm"], force, &["lan"]].concat());
        assert!(error.contains(in_use), "{error}");
    }
    assert_eq!(stanza.state("c1"), "running");
    assert!(stanza.fails(1, &["network", "rm", "-t", "0", "lan"]).contains("needs `--force`"));
    assert_eq!(stanza.ok(&["network", "rm", "-f", "-t", "0", "lan"]), "lan");
    assert_eq!(stanza.ok(&["ps", "-aq"]), "");
    assert!(stanza.fails(1, &["network", "rm", "lan"]).contains("network lan not found"));
    let gone = stanza.output(&["network", "rm", "-f", "lan"]);
    assert_eq!(gone.code, 0, "{}", gone.stderr);
    for name in ["bridge", "host", "none"] {
        let error = stanza.fails(1, &["network", "rm", name]);
        assert!(error.contains(&format!("{name} is a pre-defined network and cannot be removed")), "{error}");
    }
}

#[test]
fn prune_removes_what_nobody_is_in() {
    let stanza = fixture!(PrivateNetwork);
    for (name, label) in [("used", "x=1"), ("free", "x=1"), ("kept", "keep=1")] {
        stanza.ok(&["network", "create", "--label", label, name]);
    }
    stanza.ok(&["create", "--network", "used", "busybox", "true"]);
    assert!(stanza.fails(1, &["network", "prune"]).contains("add `--force`"));
    let pruned = stanza.ok(&["network", "prune", "-f", "--filter", "label!=keep"]);
    assert_eq!(pruned, "Deleted Networks:\nfree\n");
    assert_eq!(stanza.ok(&["network", "prune", "-f", "--filter", "until=1h"]), "");
    assert_eq!(stanza.ok(&["network", "prune", "-f"]), "Deleted Networks:\nkept\n");
    assert_eq!(stanza.ok(&["network", "prune", "-f"]), "");
    assert_eq!(stanza.ok(&["network", "ls", "-f", "type=custom", "--format", "{{.Name}}"]), "used");
}

#[test]
fn system_prune_takes_networks_with_the_containers_that_were_in_them() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "lan"]);
    stanza.ok(&["create", "--network", "lan", "busybox", "true"]);
    stanza.ok(&["network", "create", "wan"]);
    start(&stanza, "c1", &["--network", "wan"]);
    let pruned = stanza.ok(&["system", "prune", "-f"]);
    assert!(pruned.contains("Deleted Networks:\nlan\n\n"), "{pruned}");
    assert_eq!(stanza.ok(&["network", "ls", "-f", "type=custom", "--format", "{{.Name}}"]), "wan");
}

#[test]
fn a_network_is_found_by_name_id_and_digits() {
    let stanza = fixture!(PrivateNetwork);
    let id = stanza.ok(&["network", "create", "lan"]);
    for name in ["lan", &id, &id[..6]] {
        assert_eq!(stanza.ok(&["network", "inspect", "-f", "{{.Name}}", name]), "lan");
        assert_eq!(stanza.ok(&["inspect", "-f", "{{.Id}}", name]), id);
        stanza.ok(&["network", "exists", name]);
    }
    assert_eq!(stanza.ok(&["inspect", "--type", "network", "-f", "{{.Name}}", "lan"]), "lan");
    assert_eq!(stanza.fails(1, &["network", "exists", "nope"]), "");
    assert!(stanza.fails(1, &["inspect", "nope"]).contains("no such object: `nope`"));
    assert!(stanza.fails(1, &["inspect", "--type", "image", "lan"]).contains("lan"));
}

#[test]
fn what_is_no_network_is_refused_by_name() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "--subnet", "10.203.0.0/24", "lan"]);
    start(&stanza, "c1", &[]);
    for (code, arguments, part) in [
        (1, &["create", "lan"][..], "network with name lan already exists"),
        (1, &["create", "host"], "operation is not permitted on predefined host network"),
        (1, &["create", "a b"], "a b is not a valid name"),
        (1, &["create", "--subnet", "10.203.0.128/25", "x"], "overlaps `10.203.0.0/24` of the network `lan`"),
        (1, &["create", "-d", "overlay", "x"], "network driver `overlay` is not built in"),
        (1, &["create", "-o", "colour=red", "x"], "network option `colour`: not known"),
        (1, &["create", "--ipv6=false", "--ipv4=false", "x"], "needs one family"),
        (1, &["create", "--subnet", "x", "x"], "option `--subnet`: `x` is not a subnet"),
        (1, &["create", "--gateway", "10.9.0.1", "x"], "no matching subnet for gateway 10.9.0.1"),
        (1, &["create", "--ipam-opt", "a=b", "x"], "option `--ipam-opt`"),
        (125, &["create", "--ingress", "x"], "option `--ingress` is not built yet"),
        (125, &["create"], "needs a word NETWORK"),
        (1, &["connect", "nope", "c1"], "network nope not found"),
        (1, &["connect", "lan", "nope"], "No such container: nope"),
        (1, &["connect", "--ip", "10.9.0.1", "lan", "c1"], "is of no subnet of the network `lan`"),
        (1, &["connect", "--ip", "10.203.0.1", "lan", "c1"], "is reserved for its gateway"),
        (1, &["connect", "--mac-address", "x", "lan", "c1"], "option `--mac-address`"),
        (125, &["connect", "--link", "a:b", "lan", "c1"], "option `--link` is not built yet"),
        (1, &["disconnect", "lan", "c1"], "container c1 is not connected to network lan"),
        (1, &["inspect", "nope"], "network nope not found"),
        (1, &["update", "lan"], "needs something to change"),
        (1, &["update", "--dns-drop", "192.0.2.1", "lan"], "has no name server `192.0.2.1`"),
        (1, &["reload"], "needs a word CONTAINER"),
        (1, &["reload", "nope"], "No such container: nope"),
        (1, &["frobnicate"], "`network frobnicate` is not a stanza command"),
    ] {
        let output = stanza.output(&[&["network"], arguments].concat());
        // A wrong option has a code of its own, as in Docker.
        assert!(output.stderr.contains(part), "{arguments:?}: {}", output.stderr);
        assert_eq!(output.code, code, "{arguments:?}");
    }
    assert_eq!(devices(&stanza, "c1"), ["eth0"]);
    let same = stanza.ok(&["network", "create", "--ignore", "lan"]);
    assert_eq!(inspect(&stanza, "lan")["Id"], same);
}

#[test]
fn name_servers_and_labels_change_later() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "--dns", "192.0.2.1,192.0.2.2", "--label", "a=1", "lan"]);
    stanza.ok(&[
        "network",
        "update",
        "--dns-drop",
        "192.0.2.1",
        "--dns-add",
        "192.0.2.3",
        "--label-add",
        "b=2",
        "--label-rm",
        "a",
        "lan",
    ]);
    let changed = inspect(&stanza, "lan");
    assert_eq!(changed["NameServers"], serde_json::json!(["192.0.2.2", "192.0.2.3"]));
    assert_eq!(changed["Labels"], serde_json::json!({"b": "2"}));
}

#[test]
fn a_bridge_that_somebody_deleted_comes_back_by_reload() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "-o", "com.docker.network.bridge.name=br-lan", "lan"]);
    start(&stanza, "c1", &["--network", "lan", "-p", "8080:80"]);
    start(&stanza, "c2", &["--network", "lan"]);
    let host = stanza.network().unwrap();
    let (to, published) = ((stanza.address("c1", "lan"), 80).into(), "127.0.0.1:8080".parse().unwrap());
    let server = serve_tcp(&stanza, "c1", 80);
    ask_tcp(stanza.pid("c2"), to).unwrap();
    assert_eq!(host.run(&["ip", "link", "delete", "br-lan"]).code, 0);
    assert!(!reaches(stanza.pid("c2"), to));
    let reloaded = stanza.ok(&["network", "reload", "--all"]);
    assert_eq!(reloaded.lines().count(), 2, "{reloaded}");
    ask_tcp(stanza.pid("c2"), to).unwrap();
    ask_tcp(host.pid(), published).unwrap();
    drop(server);
}

#[test]
fn an_ordinary_user_has_networks_of_their_own() {
    let stanza = fixture!(Rootless);
    let names = |stanza: &Stanza| stanza.ok(&["network", "ls", "--format", "{{.Name}}"]).replace('\n', " ");
    assert_eq!(names(&stanza), "bridge host none");
    stanza.ok(&["network", "create", "--ipv6", "lan"]);
    assert_eq!(names(&stanza), "bridge host lan none");
    assert_eq!(inspect(&stanza, "lan")["EnableIPv6"], true);
    stanza.ok(&["create", "--name", "c1", "--network", "none", "busybox", "true"]);
    assert!(stanza.ok(&["network", "graph"]).contains("c1  no network  (not running)"));
    assert_eq!(stanza.ok(&["network", "rm", "lan"]), "lan");
    assert_eq!(names(&stanza), "bridge host none");
}
