//! What `run` and `create` say about networks, names and ports, as the container and its neighbours see it.

use std::net::TcpListener;

use stanza_test::{Stanza, ask_tcp, fixture, in_network_of, serve_tcp};

fn start(stanza: &Stanza, name: &str, options: &[&str]) {
    stanza.ok(&[&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat());
}

#[test]
fn both_forms_of_a_network_give_addresses_names_and_devices() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "--subnet", "10.204.0.0/24", "--subnet", "fd00:204::/64", "lan"]);
    stanza.ok(&["network", "create", "--subnet", "10.205.0.0/24", "wan"]);
    start(
        &stanza,
        "podman",
        &[
            "--network",
            "lan:ip=10.204.0.7,ip6=fd00:204::7,mac=02:00:00:00:00:07,alias=db,interface_name=lan0",
        ],
    );
    start(
        &stanza,
        "docker",
        &["--network", "name=lan,ip=10.204.0.8,ip6=fd00:204::8,mac-address=02:00:00:00:00:08,alias=cache"],
    );
    let options = [
        "--network",
        "lan",
        "--network",
        "wan",
        "--ip",
        "10.204.0.9",
        "--ip6",
        "fd00:204::9",
        "--network-alias",
        "web",
    ];
    start(&stanza, "short", &options);
    for (name, device, last, alias) in
        [("podman", "lan0", 7, "db"), ("docker", "eth0", 8, "cache"), ("short", "eth0", 9, "web")]
    {
        let shown = stanza.ok(&["exec", name, "ip", "-o", "address", "show", "dev", device]);
        for address in [format!("10.204.0.{last}/24"), format!("fd00:204::{last}/64")] {
            assert!(shown.contains(&address), "{name}: {address}: {shown}");
        }
        let place = stanza.inspect(name)["NetworkSettings"]["Networks"]["lan"].clone();
        assert_eq!(place["Aliases"], serde_json::json!([alias]));
        assert_eq!(place["GlobalIPv6Address"], format!("fd00:204::{last}"));
        assert_eq!(place["EndpointID"].as_str().unwrap().len(), 64);
        if name != "short" {
            let mac = stanza.ok(&["exec", name, "cat", &format!("/sys/class/net/{device}/address")]);
            assert_eq!(mac, format!("02:00:00:00:00:0{last}"));
        }
    }
    assert_eq!(
        stanza.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.wan.IPAddress}}", "short"]),
        "10.205.0.2"
    );
    assert_eq!(stanza.ok(&["inspect", "-f", "{{.HostConfig.NetworkMode}}", "short"]), "lan");
    let taken = stanza.fails(125, &["run", "--network", "lan", "--ip", "10.204.0.7", "busybox", "true"]);
    assert!(taken.contains("is taken by the container `podman`"), "{taken}");
}

#[test]
fn the_way_out_is_chosen_by_priority_then_metric() {
    let stanza = fixture!(PrivateNetwork);
    for (name, subnet, option) in [
        ("plain", "10.206.0.0/24", "metric=100"),
        ("near", "10.207.0.0/24", "metric=10"),
        ("never", "10.208.0.0/24", "no_default_route=true"),
    ] {
        stanza.ok(&["network", "create", "--subnet", subnet, "-o", option, name]);
    }
    for (networks, via) in [
        (&["plain", "name=near"][..], "via 10.207.0.1"),
        (&["near", "name=plain,gw-priority=5"], "via 10.206.0.1"),
        (&["never", "name=plain,gw-priority=-5"], "via 10.206.0.1"),
        (&["never"], ""),
    ] {
        let options: Vec<&str> = networks.iter().flat_map(|name| ["--network", name]).collect();
        let routes = stanza.ok(&[&["run", "--rm"], &options[..], &["busybox", "ip", "route"]].concat());
        let ways: Vec<&str> = routes.lines().filter_map(|line| line.strip_prefix("default ")).collect();
        let right =
            if via.is_empty() { ways.is_empty() } else { matches!(ways[..], [way] if way.starts_with(via)) };
        assert!(right, "{networks:?}: {routes}");
    }
}

#[test]
fn servers_domains_options_and_hosts_stand_in_the_containers_files() {
    let stanza = fixture!(PrivateNetwork);
    let options = [
        "--rm",
        "--dns=192.0.2.53",
        "--dns-search=example.test",
        "--dns-option=ndots:2",
        "--add-host=printer:192.0.2.9",
        "--add-host=six=[2001:db8::9]",
        "--add-host=gate:host-gateway",
    ];
    let show = |file: &str| stanza.ok(&[&["run"], &options[..], &["busybox", "cat", file]].concat());
    let resolver = show("/etc/resolv.conf");
    for line in ["nameserver 192.0.2.53", "search example.test", "options ndots:2"] {
        assert!(resolver.lines().any(|known| known == line), "{line}: {resolver}");
    }
    let gateway = stanza.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"]);
    let hosts = show("/etc/hosts");
    for line in ["192.0.2.9\tprinter", "2001:db8::9\tsix", &format!("{gateway}\tgate")] {
        assert!(hosts.lines().any(|known| known == line), "{line}: {hosts}");
    }
}

#[test]
fn a_range_of_ports_is_published_and_shown_as_one() {
    let stanza = fixture!(PrivateNetwork);
    start(&stanza, "c1", &["-p", "127.0.0.1:8000-8002:90-92", "-p", "127.0.0.1:9000:80/udp"]);
    let host = stanza.network().unwrap().pid();
    for (outside, inside) in [(8000, 90), (8002, 92)] {
        let _server = serve_tcp(&stanza, "c1", inside);
        ask_tcp(host, ([127, 0, 0, 1], outside).into()).unwrap();
    }
    let column = stanza.ok(&["ps", "--format", "{{.Ports}}"]);
    assert_eq!(column, "127.0.0.1:9000->80/udp, 127.0.0.1:8000-8002->90-92/tcp");
    let all = "80/udp -> 127.0.0.1:9000\n90/tcp -> 127.0.0.1:8000\n91/tcp -> 127.0.0.1:8001\n92/tcp -> 127.0.0.1:8002";
    assert_eq!(stanza.ok(&["port", "c1"]), all);
    assert_eq!(stanza.ok(&["port", "c1", "91"]), "127.0.0.1:8001");
    assert_eq!(stanza.ok(&["container", "port", "c1", "80/udp"]), "127.0.0.1:9000");
    assert!(stanza.fails(1, &["port", "c1", "80"]).contains("no public port '80/tcp' published for c1"));
    let bindings = stanza.inspect("c1")["NetworkSettings"]["Ports"]["91/tcp"].clone();
    assert_eq!(bindings, serde_json::json!([{"HostIp": "127.0.0.1", "HostPort": "8001"}]));
    stanza.ok(&["stop", "-t", "0", "c1"]);
    assert_eq!(stanza.ok(&["port", "c1"]), "");
}

#[test]
fn a_port_of_no_address_is_published_in_both_families_as_shown() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    for address in ["192.0.2.1/32", "2001:db8::1/128"] {
        assert_eq!(host.run(&["ip", "address", "add", address, "dev", "lo"]).code, 0, "{address}");
    }
    stanza.ok(&["network", "create", "--ipv6", "lan"]);
    start(&stanza, "c1", &["--network", "lan", "-p", "8080:80"]);
    assert_eq!(stanza.ok(&["ps", "--format", "{{.Ports}}"]), "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
    assert_eq!(stanza.ok(&["port", "c1", "80"]), "0.0.0.0:8080\n[::]:8080");
    let _server = serve_tcp(&stanza, "c1", 80);
    for to in ["127.0.0.1:8080", "192.0.2.1:8080", "[2001:db8::1]:8080", "[::1]:8080"] {
        let asked = ask_tcp(host.pid(), to.parse().unwrap());
        asked.unwrap_or_else(|error| panic!("{to}: {error}"));
    }
}

#[test]
fn a_range_for_one_port_gives_the_first_that_is_free() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    let taken = host.enter(|| TcpListener::bind("127.0.0.1:8000").unwrap());
    start(&stanza, "c1", &["-p", "127.0.0.1:8000-8002:80"]);
    start(&stanza, "c2", &["-p", "127.0.0.1:8000-8002:80"]);
    for (name, port) in [("c1", 8001), ("c2", 8002)] {
        assert_eq!(stanza.ok(&["port", name]), format!("80/tcp -> 127.0.0.1:{port}"));
        let _server = serve_tcp(&stanza, name, 80);
        ask_tcp(host.pid(), ([127, 0, 0, 1], port).into()).unwrap();
    }
    let full = stanza.fails(125, &["run", "--rm", "-p", "127.0.0.1:8000-8002:80", "busybox", "true"]);
    assert!(full.contains("8000"), "{full}");
    drop(taken);
}

#[test]
fn all_exposed_ports_are_published_on_free_ones() {
    let stanza = fixture!(PrivateNetwork);
    start(&stanza, "c1", &["-P", "--expose", "80-81", "--expose", "53/udp"]);
    let host = stanza.network().unwrap().pid();
    let lines = stanza.ok(&["port", "c1"]);
    for inside in ["53/udp", "80/tcp", "81/tcp"] {
        assert!(lines.contains(&format!("{inside} -> 0.0.0.0:")), "{lines}");
    }
    let _server = serve_tcp(&stanza, "c1", 81);
    let sides = stanza.ok(&["port", "c1", "81"]);
    let port: u16 = sides.lines().next().unwrap().strip_prefix("0.0.0.0:").unwrap().parse().unwrap();
    ask_tcp(host, ([127, 0, 0, 1], port).into()).unwrap();
    assert_eq!(stanza.ok(&["inspect", "-f", "{{.HostConfig.PublishAllPorts}}", "c1"]), "true");
    // Without `-P` they are only named.
    start(&stanza, "c2", &["--expose", "80-81"]);
    assert_eq!(stanza.ok(&["ps", "-f", "name=c2", "--format", "{{.Ports}}"]), "80-81/tcp");
    assert_eq!(stanza.ok(&["port", "c2"]), "");
}

#[test]
fn a_container_in_anothers_network_is_on_its_loopback() {
    let stanza = fixture!(PrivateNetwork);
    start(&stanza, "web", &[]);
    start(&stanza, "side", &["--network", "container:web"]);
    let listener = in_network_of(stanza.pid("web"), || TcpListener::bind("127.0.0.1:7000").unwrap());
    let seen = in_network_of(stanza.pid("side"), || std::net::TcpStream::connect("127.0.0.1:7000").is_ok());
    assert!(seen);
    drop(listener);
    let web = stanza.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    assert_eq!(
        stanza.ok(&["inspect", "-f", "{{.HostConfig.NetworkMode}}", "side"]),
        format!("container:{web}")
    );
    let error = stanza.fails(125, &["run", "-p", "80:80", "--network", "container:web", "busybox", "true"]);
    assert!(error.contains("port publishing and the container type network mode"), "{error}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "lan"]);
    for (options, part) in [
        (&["--network", "nope"][..], "network nope not found"),
        (&["--network", "none", "--network", "lan"], "cannot attach both user-defined and non-user-defined"),
        (&["--network", "lan", "--network", "lan"], "network lan is specified multiple times"),
        (
            &["--network", "host", "--ip", "10.1.2.3"],
            "option `--ip`: the container joins no network of its own",
        ),
        (&["--network", "lan:ip=10.1.2.3"], "is of no subnet of the network `lan`"),
        (
            &["--network-alias", "x"],
            "network-scoped alias is supported only for containers in user defined networks",
        ),
        (&["--network", "lan:colour=red"], "a network has no key `colour`"),
        (&["--mac-address", "01:00:00:00:00:01"], "is the address of a group"),
        (&["--dns", "x"], "option `--dns`: `x` is not an IP address"),
        (&["--add-host", "x"], "option `--add-host`: `x` is not `NAME:ADDRESS`"),
        (&["-p", "8000:80-81"], "the two ranges differ in length"),
        (&["--network", "container:nope"], "No such container: nope"),
    ] {
        let error = stanza.fails(125, &[&["run", "--rm"], options, &["busybox", "true"]].concat());
        assert!(error.contains(part), "{options:?}: {error}");
    }
    assert_eq!(stanza.ok(&["ps", "-aq"]), "");
}
