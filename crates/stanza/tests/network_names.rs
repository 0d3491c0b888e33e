//! What containers find by name, asked by the C library's resolver (`getent`, from this machine) in containers of the
//! real executable, in a network name space that stands for the host.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use stanza_test::{NameServer, Stanza, ask_tcp, fixture, serve_tcp, skip, wait_until};

/// This machine's C library and what uses it, in place of nothing: busybox needs none.
const LIBRARY: [&str; 6] = ["-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro"];

/// Changes are to be seen within this time.
const SECOND: Duration = Duration::from_secs(1);

fn start(stanza: &Stanza, name: &str, options: &[&str]) {
    let words = [&["run", "-d", "--name", name], &LIBRARY[..], options, &["busybox", "sleep", "1000"]];
    stanza.ok(&words.concat());
}

/// Whether this machine's `getent` can be lent to a container.
fn has_getent() -> bool {
    ["/usr/bin/getent", "/usr/lib64/ld-linux-x86-64.so.2"]
        .iter()
        .all(|path| std::path::Path::new(path).exists())
}

/// What the C library says of a name or an address; empty when it knows nothing.
fn ask(stanza: &Stanza, container: &str, base: &str, name: &str) -> String {
    let output = stanza.output(&["exec", container, "/usr/bin/getent", base, name]);
    assert!(output.code == 0 || (output.code == 2 && output.stdout.is_empty()), "{name}: {output:?}");
    output.stdout
}

/// The addresses of a name, each once and in order.
fn addresses(stanza: &Stanza, container: &str, family: &str, name: &str) -> Vec<String> {
    let text = ask(stanza, container, &format!("ahosts{family}"), name);
    let mut found: Vec<String> =
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

/// The name that an address leads to.
fn name_of(stanza: &Stanza, container: &str, address: &str) -> String {
    ask(stanza, container, "hosts", address).split_whitespace().nth(1).unwrap_or_default().to_owned()
}

/// Asks until the answer is this one, and how long that took.
fn comes_to_be(stanza: &Stanza, container: &str, name: &str, expected: &[&str]) {
    let begin = Instant::now();
    wait_until(&format!("`{name}` is {expected:?} for `{container}`"), || {
        addresses(stanza, container, "v4", name) == expected
    });
    assert!(begin.elapsed() < SECOND, "`{name}` took {:?}", begin.elapsed());
}

/// Lets the host's resolver configuration be this text.
fn configure(stanza: &Stanza, text: &str) {
    let file = stanza.file("resolv.conf", text);
    let done = stanza.network().expect("a network").run(&["mount", "--bind", &file, "/etc/resolv.conf"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

#[test]
fn a_container_is_found_by_all_its_names_in_both_families_and_by_its_addresses_in_its_networks_only() {
    let stanza = fixture!(PrivateNetwork);
    if !has_getent() {
        skip!("no `getent` of glibc");
    }
    configure(&stanza, "nameserver 127.0.0.53\n");
    let server = NameServer::start(stanza.network().unwrap(), LOOPBACK, &[]);
    stanza.ok(&["network", "create", "--subnet=10.250.0.0/24", "--subnet=fd00:250::/64", "lan"]);
    stanza.ok(&["network", "create", "--subnet=10.251.0.0/24", "wan"]);
    let options = [
        "--network",
        "name=lan,alias=db,ip=10.250.0.7,ip6=fd00:250::7",
        "--network",
        "name=wan,ip=10.251.0.7",
        "--label",
        "com.docker.compose.service=shop",
    ];
    start(&stanza, "web", &options);
    start(&stanza, "near", &["--network", "lan"]);
    start(&stanza, "far", &["--network", "wan"]);
    let short = stanza.ok(&["ps", "-q", "-f", "name=web"]);
    for name in ["web", "WEB", "web.lan", "db", &short, "shop"] {
        assert_eq!(addresses(&stanza, "near", "v4", name), ["10.250.0.7"], "{name}");
        assert_eq!(addresses(&stanza, "near", "v6", name), ["fd00:250::7"], "{name}");
    }
    for (address, name) in [("10.250.0.7", "web.lan"), ("fd00:250::7", "web.lan"), ("10.251.0.7", "")] {
        assert_eq!(name_of(&stanza, "near", address), name, "{address}");
    }
    // Of names of its neighbours nobody else hears, but of others'.
    let asked: Vec<String> = server.take_asked().into_iter().map(|(_, name)| name).collect();
    assert!(!asked.is_empty() && asked.iter().all(|name| name == "7.0.251.10.in-addr.arpa"), "{asked:?}");
    for (name, expected) in
        [("web", &["10.251.0.7"][..]), ("shop", &["10.251.0.7"]), ("db", &[]), ("near", &[])]
    {
        assert_eq!(addresses(&stanza, "far", "v4", name), expected, "{name}");
    }
    assert_eq!(name_of(&stanza, "far", "10.250.0.7"), "");
    assert_eq!(addresses(&stanza, "web", "v4", "near"), [stanza.address("near", "lan").to_string()]);
    assert_eq!(addresses(&stanza, "web", "v4", "far"), [stanza.address("far", "wan").to_string()]);
    // What is found by a name is reached by it.
    let served = serve_tcp(&stanza, "web", 80);
    let said = stanza.ok(&["exec", "near", "nc", "web", "80"]);
    let near = &stanza.inspect("near")["NetworkSettings"]["Networks"]["lan"];
    assert!(
        [&near["IPAddress"], &near["GlobalIPv6Address"]].contains(&&said.as_str().into()),
        "{said}: {near}"
    );
    drop(served);
}

#[test]
fn changes_of_names_are_seen_within_a_second() {
    let stanza = fixture!(PrivateNetwork);
    if !has_getent() {
        skip!("no `getent` of glibc");
    }
    configure(&stanza, "nameserver 127.0.0.53\n");
    let _server = NameServer::start(stanza.network().unwrap(), LOOPBACK, &[]);
    stanza.ok(&["network", "create", "--subnet=10.252.0.0/24", "lan"]);
    stanza.ok(&["network", "create", "wan"]);
    start(&stanza, "near", &["--network", "lan"]);
    start(&stanza, "c1", &["--network", "wan"]);
    comes_to_be(&stanza, "near", "c1", &[]);
    stanza.ok(&["network", "connect", "--ip", "10.252.0.70", "--alias", "db", "lan", "c1"]);
    comes_to_be(&stanza, "near", "c1", &["10.252.0.70"]);
    comes_to_be(&stanza, "near", "db", &["10.252.0.70"]);
    comes_to_be(&stanza, "c1", "near", &[&stanza.address("near", "lan").to_string()]);
    stanza.ok(&["rename", "c1", "c2"]);
    comes_to_be(&stanza, "near", "c1", &[]);
    comes_to_be(&stanza, "near", "c2", &["10.252.0.70"]);
    stanza.ok(&["network", "disconnect", "lan", "c2"]);
    comes_to_be(&stanza, "near", "c2", &[]);
    comes_to_be(&stanza, "near", "db", &[]);
    comes_to_be(&stanza, "c2", "near", &[]);
    stanza.ok(&["network", "connect", "--ip", "10.252.0.71", "--alias", "db", "lan", "c2"]);
    start(&stanza, "c3", &["--network", "name=lan,ip=10.252.0.72,alias=db"]);
    comes_to_be(&stanza, "near", "db", &["10.252.0.71", "10.252.0.72"]);
    // A container that nobody ended in order.
    stanza.kill_9(stanza.monitor("c2"));
    comes_to_be(&stanza, "near", "db", &["10.252.0.72"]);
    comes_to_be(&stanza, "near", "c2", &[]);
    stanza.ok(&["start", "c2"]);
    comes_to_be(&stanza, "near", "db", &["10.252.0.71", "10.252.0.72"]);
    stanza.ok(&["stop", "-t", "0", "c2"]);
    comes_to_be(&stanza, "near", "db", &["10.252.0.72"]);
    stanza.ok(&["rm", "-f", "c3"]);
    comes_to_be(&stanza, "near", "db", &[]);
}

#[test]
fn other_names_come_from_the_hosts_resolver_on_its_loopback_however_large_and_by_search_domains() {
    let stanza = fixture!(PrivateNetwork);
    if !has_getent() {
        skip!("no `getent` of glibc");
    }
    configure(&stanza, "nameserver 127.0.0.53\nsearch corp.test\n");
    let many: Vec<Ipv4Addr> = (0..400_u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            Ipv4Addr::new(198, 18, high, low)
        })
        .collect();
    let known = [("big.example", many), ("printer.corp.test", vec![Ipv4Addr::new(198, 51, 100, 9)])];
    let server = NameServer::start(stanza.network().unwrap(), LOOPBACK, &known);
    stanza.ok(&["network", "create", "lan"]);
    start(&stanza, "c1", &["--network", "lan"]);
    let resolver = stanza.ok(&["exec", "c1", "cat", "/etc/resolv.conf"]);
    assert!(resolver.starts_with("nameserver 127.0.0.11\nsearch corp.test\n"), "{resolver}");
    assert_eq!(addresses(&stanza, "c1", "v4", "big.example").len(), 400);
    let asked = server.take_asked();
    assert!(asked.contains(&("udp", "big.example".into())) && asked.contains(&("tcp", "big.example".into())));
    assert_eq!(addresses(&stanza, "c1", "v4", "printer"), ["198.51.100.9"]);
    assert_eq!(addresses(&stanza, "c1", "v4", "printer.corp.test"), ["198.51.100.9"]);
    assert_eq!(addresses(&stanza, "c1", "v4", "nobody.example"), [""; 0]);
    // The next question is asked of another server when the host has another one.
    drop(server);
    let known = [("big.example", vec![Ipv4Addr::new(198, 51, 100, 1)])];
    let second = NameServer::start(stanza.network().unwrap(), IpAddr::from([127, 0, 0, 54]), &known);
    configure(&stanza, "nameserver 127.0.0.54\n");
    comes_to_be(&stanza, "c1", "big.example", &["198.51.100.1"]);
    assert!(!second.take_asked().is_empty());
}

#[test]
fn servers_domains_and_options_of_the_users_are_what_the_c_library_goes_by() {
    let stanza = fixture!(PrivateNetwork);
    if !has_getent() {
        skip!("no `getent` of glibc");
    }
    configure(&stanza, "nameserver 127.0.0.53\nsearch corp.test\n");
    let host = stanza.network().unwrap();
    assert_eq!(host.run(&["ip", "address", "add", "192.0.2.53/32", "dev", "lo"]).code, 0);
    let of_host = NameServer::start(host, LOOPBACK, &[]);
    let known = [("a.b.example.test", vec![Ipv4Addr::new(198, 51, 100, 2)])];
    let own = NameServer::start(host, [192, 0, 2, 53].into(), &known);
    stanza.ok(&["network", "create", "lan"]);
    let options = ["--dns=192.0.2.53", "--dns-search=example.test", "--dns-option=ndots:2"];
    for (name, network) in [("named", "lan"), ("plain", "bridge")] {
        start(&stanza, name, &[&["--network", network], &options[..]].concat());
        assert_eq!(addresses(&stanza, name, "v4", "a.b"), ["198.51.100.2"], "{name}");
        // With two dots wanted the domain comes first, and what it gives is enough.
        assert_eq!(own.take_asked(), [("udp", "a.b.example.test".to_owned())], "{name}");
    }
    assert_eq!(addresses(&stanza, "named", "v4", "plain"), [""; 0]);
    assert_eq!(of_host.take_asked(), []);
}

#[test]
fn the_host_and_other_hosts_are_found_by_the_names_that_the_user_gives_them() {
    let stanza = fixture!(PrivateNetwork);
    if !has_getent() {
        skip!("no `getent` of glibc");
    }
    stanza.ok(&["network", "create", "--subnet=10.253.0.0/24", "lan"]);
    start(
        &stanza,
        "c1",
        &[
            "--network",
            "lan",
            "--add-host=gate:host-gateway",
            "--add-host=printer:192.0.2.9",
            "--add-host=six:2001:db8::9",
        ],
    );
    assert_eq!(addresses(&stanza, "c1", "v4", "gate"), ["10.253.0.1"]);
    assert_eq!(addresses(&stanza, "c1", "v4", "printer"), ["192.0.2.9"]);
    // A container without an address of IPv6 has no use for others, says the C library (`AI_ADDRCONFIG`): so the old call.
    assert!(ask(&stanza, "c1", "hosts", "six").starts_with("2001:db8::9 "));
    assert_eq!(name_of(&stanza, "c1", "192.0.2.9"), "printer");
    let listener = stanza.network().unwrap().enter(|| TcpListener::bind("10.253.0.1:7000")).unwrap();
    let answering = std::thread::spawn(move || listener.accept().map(|(_, peer)| peer.ip().to_string()));
    // It is closed without a word.
    assert_eq!(ask_tcp(stanza.pid("c1"), "10.253.0.1:7000".parse().unwrap()).unwrap(), "");
    assert_eq!(answering.join().unwrap().unwrap(), stanza.address("c1", "lan").to_string());
}

#[test]
fn in_an_internal_network_neighbours_are_found_and_nobody_else_is_asked() {
    let stanza = fixture!(PrivateNetwork);
    if !has_getent() {
        skip!("no `getent` of glibc");
    }
    configure(&stanza, "nameserver 127.0.0.53\n");
    let known = [("outside.example", vec![Ipv4Addr::new(198, 51, 100, 3)])];
    let server = NameServer::start(stanza.network().unwrap(), LOOPBACK, &known);
    stanza.ok(&["network", "create", "--internal", "--subnet=10.254.0.0/24", "inner"]);
    stanza.ok(&["network", "create", "lan"]);
    start(&stanza, "web", &["--network", "name=inner,ip=10.254.0.9"]);
    start(&stanza, "c1", &["--network", "inner"]);
    assert_eq!(addresses(&stanza, "c1", "v4", "web"), ["10.254.0.9"]);
    assert_eq!(name_of(&stanza, "c1", "10.254.0.9"), "web.inner");
    let begin = Instant::now();
    assert_eq!(addresses(&stanza, "c1", "v4", "outside.example"), [""; 0]);
    assert!(begin.elapsed() < SECOND, "it is refused, and not waited for: {:?}", begin.elapsed());
    assert_eq!(server.take_asked(), []);
    // One that is also elsewhere asks there.
    stanza.ok(&["network", "connect", "lan", "c1"]);
    assert_eq!(addresses(&stanza, "c1", "v4", "outside.example"), ["198.51.100.3"]);
    assert_eq!(addresses(&stanza, "c1", "v4", "web"), ["10.254.0.9"]);
}
