//! Published ports that the kernel cannot lead to the container (`::1`, an address family that it lacks): what clients meet, and
//! the process that serves them, from its first client to its end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use stanza_test::{
    Network, Server, Stanza, ask_tcp, ask_udp, fixture, in_network_of, reaches, serve_tcp, skip, wait_for,
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(stanza: &Stanza, name: &str, options: &[&str]) {
    stanza.ok(&[&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat());
}

/// A container with published ports, and a server on its port 80.
fn serve(stanza: &Stanza, options: &[&str]) -> Server {
    start(stanza, "c1", options);
    serve_tcp(stanza, "c1", 80)
}

/// What a client on the host is told.
fn ask(stanza: &Stanza, to: &str) -> std::io::Result<String> {
    ask_tcp(stanza.network().expect("it was wished for").pid(), address(to))
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The address that a container sees of clients who come through a proxy: its network's gateway.
fn gateway(stanza: &Stanza, network: &str) -> String {
    stanza.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network])
}

/// The proxies of a monitor.
fn proxies(monitor: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).expect("it lives");
    let children = children.split_whitespace().map(|pid| pid.parse().expect("a number"));
    children.filter(|pid| name_of(*pid) == "stanza-proxy").collect()
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn the_proxy(stanza: &Stanza) -> u32 {
    let found = proxies(stanza.monitor("c1"));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

/// Nobody has asked for a proxy.
fn assert_unserved(stanza: &Stanza) {
    let found = proxies(stanza.monitor("c1"));
    assert!(found.is_empty(), "{found:?}");
}

/// A second host on a wire with the first, which has 192.0.2.1 and 2001:db8::1.
fn outside(stanza: &Stanza) -> Result<Network, String> {
    let (host, outside) = (stanza.network().expect("it was wished for"), Network::private()?);
    host.connect("wire", "192.0.2.1/24", &outside, "192.0.2.2/24");
    for (side, address) in [(host, "2001:db8::1/64"), (&outside, "2001:db8::2/64")] {
        let added = side.run(&["ip", "address", "add", address, "dev", "wire", "nodad"]);
        assert_eq!(added.code, 0, "{}", added.stderr);
    }
    Ok(outside)
}

#[test]
fn a_port_of_a_container_without_ipv6_is_reached_by_ipv6_and_served_from_the_first_client_on() {
    let stanza = fixture!(PrivateNetwork);
    let outside = match outside(&stanza) {
        Ok(outside) => outside,
        Err(reason) => skip!("{reason}"),
    };
    let before = stanza.leftovers();
    let server = serve(&stanza, &["-p", "8080:80"]);
    assert_eq!(ask_tcp(outside.pid(), address("192.0.2.1:8080")).unwrap(), "192.0.2.2");
    ask(&stanza, "127.0.0.1:8080").unwrap();
    assert_unserved(&stanza);
    let gateway = gateway(&stanza, "bridge");
    assert_eq!(ask(&stanza, "[::1]:8080").unwrap(), gateway);
    let proxy = the_proxy(&stanza);
    assert_eq!(ask(&stanza, "[2001:db8::1]:8080").unwrap(), gateway);
    assert_eq!(ask_tcp(outside.pid(), address("[2001:db8::1]:8080")).unwrap(), gateway);
    assert_eq!(the_proxy(&stanza), proxy);
    drop(server);
    stanza.ok(&["rm", "-f", "c1"]);
    assert_ne!(name_of(proxy), "stanza-proxy");
    stanza.network().unwrap().enter(|| TcpListener::bind("[::]:8080").map(drop)).unwrap();
    stanza.assert_clean(&before);
}

#[test]
fn a_port_of_a_container_without_ipv4_is_reached_by_ipv4() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "--ipv4=false", "--ipv6", "six"]);
    let _server = serve(&stanza, &["--network", "six", "-p", "8080:80", "-p", "127.0.0.1:8081:80"]);
    let gateway = gateway(&stanza, "six");
    for to in ["127.0.0.1:8080", "127.0.0.1:8081", "[::1]:8080"] {
        assert_eq!(ask(&stanza, to).unwrap_or_else(|error| panic!("{to}: {error}")), gateway);
    }
}

#[test]
fn a_port_of_the_loopback_of_ipv6_is_there_alone_and_nothing_of_it_outside() {
    let stanza = fixture!(PrivateNetwork);
    let outside = match outside(&stanza) {
        Ok(outside) => outside,
        Err(reason) => skip!("{reason}"),
    };
    stanza.ok(&["network", "create", "--ipv6", "both"]);
    for network in ["bridge", "both"] {
        let server =
            serve(&stanza, &["--network", network, "-p", "[::1]:8080:80", "-p", "[::1]:5353:53/udp"]);
        ask(&stanza, "[::1]:8080").unwrap_or_else(|error| panic!("{network}: {error}"));
        for to in ["127.0.0.1:8080", "192.0.2.1:8080", "[2001:db8::1]:8080"] {
            let refused = ask(&stanza, to).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{network}: {to}");
        }
        for to in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            let refused = ask_tcp(outside.pid(), address(to)).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{network}: {to}");
        }
        drop(server);
        stanza.ok(&["rm", "-f", "c1"]);
    }
}

#[test]
fn datagrams_of_both_families_are_answered() {
    let stanza = fixture!(PrivateNetwork);
    start(&stanza, "c1", &["-p", "5353:53/udp"]);
    let socket = in_network_of(stanza.pid("c1"), || UdpSocket::bind("0.0.0.0:53").unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
    let host = stanza.network().unwrap().pid();
    ask_udp(host, address("127.0.0.1:5353")).unwrap();
    assert_unserved(&stanza);
    assert_eq!(ask_udp(host, address("[::1]:5353")).unwrap(), gateway(&stanza, "bridge"));
    the_proxy(&stanza);
}

/// Bytes that differ everywhere.
fn pattern(length: usize) -> Vec<u8> {
    let mut state: u64 = 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 16).to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

#[test]
fn a_large_transfer_in_both_directions_at_once_arrives_byte_for_byte() {
    let stanza = fixture!(PrivateNetwork);
    start(&stanza, "c1", &["-p", "8080:80"]);
    let listener = in_network_of(stanza.pid("c1"), || TcpListener::bind("0.0.0.0:80").unwrap());
    thread::spawn(move || {
        let (mut back, _) = listener.accept().unwrap();
        let mut forth = back.try_clone().unwrap();
        std::io::copy(&mut forth, &mut back).unwrap();
        back.shutdown(Shutdown::Write).unwrap();
    });
    let mut stream = stanza.network().unwrap().enter(|| TcpStream::connect("[::1]:8080").unwrap());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let sent = pattern(32 << 20);
    let received = thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        let sent = &sent;
        scope.spawn(move || {
            writer.write_all(sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::with_capacity(sent.len());
        stream.read_to_end(&mut received).unwrap();
        received
    });
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
}

#[test]
fn the_proxy_dies_with_its_monitor_and_the_port_is_free() {
    let stanza = fixture!(PrivateNetwork);
    let before = stanza.leftovers();
    let server = serve(&stanza, &["-p", "8080:80"]);
    ask(&stanza, "[::1]:8080").unwrap();
    let proxy = the_proxy(&stanza);
    let idle = in_network_of(stanza.network().unwrap().pid(), || TcpStream::connect("[::1]:8080").unwrap());
    stanza.kill_9(stanza.monitor("c1"));
    wait_until("the proxy has ended", || name_of(proxy) != "stanza-proxy");
    drop(idle);
    wait_until("the port is free", || {
        stanza.network().unwrap().enter(|| TcpListener::bind("[::]:8080").is_ok())
    });
    drop(server);
    stanza.wait_state("c1", "exited");
    let server = serve_again(&stanza);
    ask(&stanza, "[::1]:8080").unwrap();
    drop(server);
    stanza.ok(&["rm", "-f", "c1"]);
    stanza.assert_clean(&before);
}

fn serve_again(stanza: &Stanza) -> Server {
    stanza.ok(&["start", "c1"]);
    serve_tcp(stanza, "c1", 80)
}

#[test]
fn a_proxy_that_died_is_replaced_for_the_next_client_but_not_more_than_once_a_second() {
    let stanza = fixture!(PrivateNetwork);
    let _server = serve(&stanza, &["-p", "8080:80"]);
    let mut known = Vec::new();
    let begin = std::time::Instant::now();
    for _ in 0..3 {
        ask(&stanza, "[::1]:8080").unwrap();
        let proxy = the_proxy(&stanza);
        assert!(!known.contains(&proxy), "{proxy} was killed");
        stanza.kill_9(proxy);
        known.push(proxy);
    }
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    wait_until("it is gone", || proxies(stanza.monitor("c1")).is_empty());
    // The container is as before.
    ask(&stanza, "127.0.0.1:8080").unwrap();
    stanza.ok(&["stop", "-t", "0", "c1"]);
    assert_eq!(stanza.ok(&["inspect", "-f", "{{.State.Error}}", "c1"]), "");
}

#[test]
fn the_proxy_has_no_rights_no_environment_and_no_file() {
    let stanza = fixture!(PrivateNetwork);
    let _server = serve(&stanza, &["-p", "8080:80"]);
    ask(&stanza, "[::1]:8080").unwrap();
    let proxy = the_proxy(&stanza);
    let status = fs::read_to_string(format!("/proc/{proxy}/status")).unwrap();
    for line in ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| format!("{name}:\t0000000000000000")) {
        assert!(status.lines().any(|known| known == line), "{line}: {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    assert_eq!(fs::read(format!("/proc/{proxy}/environ")).unwrap(), b"");
    assert_eq!(fs::read(format!("/proc/{proxy}/cmdline")).unwrap(), b"stanza-proxy\0");
    // The owner's socket twice, /dev/null twice, the port of IPv6, and an epoll, whatever the monitor has; others are of
    // the connection that has just ended.
    let kinds = wait_for("the connection has ended", || {
        let open = fs::read_dir(format!("/proc/{proxy}/fd")).unwrap().flatten();
        let mut kinds: Vec<String> = open
            .filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned()))
            .collect();
        kinds.retain(|kind| !kind.starts_with("pipe:"));
        kinds.iter_mut().for_each(|kind| kind.truncate(kind.find('[').unwrap_or(kind.len())));
        kinds.sort();
        (kinds.len() <= 6).then_some(kinds)
    });
    assert_eq!(kinds, ["/dev/null", "/dev/null", "anon_inode:", "socket:", "socket:", "socket:"]);
}

#[test]
fn ports_follow_the_container_into_other_networks_and_are_refused_outside_of_any() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "one"]);
    stanza.ok(&["network", "create", "two"]);
    let _server = serve(&stanza, &["--network", "one", "-p", "8080:80"]);
    assert_eq!(ask(&stanza, "[::1]:8080").unwrap(), gateway(&stanza, "one"));
    let first = the_proxy(&stanza);
    stanza.ok(&["network", "connect", "two", "c1"]);
    stanza.ok(&["network", "reload", "c1"]);
    assert_eq!(the_proxy(&stanza), first, "nothing has changed for its clients");
    stanza.ok(&["network", "disconnect", "one", "c1"]);
    assert_unserved(&stanza);
    assert_eq!(ask(&stanza, "[::1]:8080").unwrap(), gateway(&stanza, "two"));
    assert_ne!(the_proxy(&stanza), first);
    stanza.ok(&["network", "disconnect", "two", "c1"]);
    let refused = ask(&stanza, "[::1]:8080").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_unserved(&stanza);
    stanza.ok(&["network", "connect", "one", "c1"]);
    assert_eq!(ask(&stanza, "[::1]:8080").unwrap(), gateway(&stanza, "one"));
}

#[test]
fn hundreds_of_ports_have_one_proxy_and_it_leads_each_to_its_own() {
    let stanza = fixture!(PrivateNetwork);
    start(&stanza, "c1", &["-p", "9000-9199:100-299"]);
    for (outside, inside) in [(9000, 100), (9064, 164), (9199, 299)] {
        let _server = serve_tcp(&stanza, "c1", inside);
        ask(&stanza, &format!("[::1]:{outside}")).unwrap_or_else(|error| panic!("{outside}: {error}"));
    }
    the_proxy(&stanza);
}

#[test]
fn a_container_of_an_internal_network_reaches_no_port_that_a_proxy_serves() {
    let stanza = fixture!(PrivateNetwork);
    let before = stanza.leftovers();
    for (network, subnet, option) in
        [("inner", "fd00:91::/64", "--internal"), ("outer", "fd00:92::/64", "--label=a=b")]
    {
        stanza.ok(&["network", "create", "--ipv6", "--subnet", subnet, option, network]);
        start(&stanza, network, &["--network", network]);
    }
    // Two on every address, one on that of the internal network's own bridge.
    let options = ["-p", "8080:80", "-p", "5353:53/udp", "-p", "[fd00:91::1]:8081:80"];
    let _server = serve(&stanza, &options);
    let datagrams = in_network_of(stanza.pid("c1"), || UdpSocket::bind("0.0.0.0:53").unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, peer)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(b"told", peer);
        }
    });
    let (inner, outer) = (stanza.pid("inner"), stanza.pid("outer"));
    let known =
        || stanza.leftovers().port_maps.iter().filter(|element| element.contains("proxied_of6")).count();
    assert_eq!(known(), 3);
    ask_tcp(outer, address("[fd00:92::1]:8080")).unwrap();
    ask_udp(outer, address("[fd00:92::1]:5353")).unwrap();
    ask(&stanza, "[fd00:91::1]:8081").unwrap();
    for port in [8080, 8081] {
        assert!(!reaches(inner, address(&format!("[fd00:91::1]:{port}"))), "{port}");
    }
    ask_udp(inner, address("[fd00:91::1]:5353")).unwrap_err();
    // What else the host serves is not a container's: on the same port of another address, on another port.
    let host = stanza.network().unwrap();
    let _others = host.enter(|| {
        let bridge = "$(ip -o address show to fd00:91::1 | cut -d ' ' -f 2 | head -1)";
        let script = format!("ip address add fd00:91::5/64 dev {bridge} nodad");
        let other = host.run(&["sh", "-c", &script]);
        assert_eq!(other.code, 0, "{}", other.stderr);
        ["[fd00:91::5]:8081", "[::]:9090"].map(|at| TcpListener::bind(at).unwrap())
    });
    for to in ["[fd00:91::5]:8081", "[fd00:91::1]:9090"] {
        assert!(reaches(inner, address(to)), "{to}");
    }
    stanza.kill_9(stanza.monitor("c1"));
    stanza.wait_state("c1", "exited");
    stanza.ok(&["rm", "-f", "c1", "inner", "outer"]);
    stanza.ok(&["network", "rm", "inner", "outer"]);
    stanza.assert_clean(&before);
}

/// To the host's firewall the proxy is a program like any other: it is what decides, with both values of `publish`.
#[test]
fn the_hosts_firewall_decides_over_a_port_that_a_proxy_serves_whatever_publish_says() {
    let stanza = fixture!(PrivateNetwork);
    let outside = match outside(&stanza) {
        Ok(outside) => outside,
        Err(reason) => skip!("{reason}"),
    };
    let host = stanza.network().unwrap();
    let firewall = "table inet own { set allowed { type inet_service; };
        chain in { type filter hook input priority 0; policy drop; iif lo accept; ct state established accept;
        meta l4proto icmpv6 accept; tcp dport @allowed accept; }; }";
    let nft = |words: &[&str]| {
        let done = host.run(&[&["nft"], words].concat());
        assert_eq!(done.code, 0, "{}", done.stderr);
    };
    nft(&[firewall]);
    let (by_kernel, by_proxy) = (address("192.0.2.1:8080"), address("[2001:db8::1]:8080"));
    for (publish, is_open) in [("respect-firewall", false), ("open", true)] {
        let config = stanza.file("config.toml", format!("[network]\npublish = \"{publish}\"\n").as_bytes());
        let words = ["run", "-d", "--name", publish, "-p", "8080:80", "busybox", "sleep", "1000"];
        let done = stanza.command(&words).env("STANZA_CONFIG", &config).output().unwrap();
        assert!(done.status.success());
        let _server = serve_tcp(&stanza, publish, 80);
        assert_eq!(reaches(outside.pid(), by_kernel), is_open, "{publish}");
        assert!(!reaches(outside.pid(), by_proxy), "{publish}");
        nft(&["add", "element", "inet", "own", "allowed", "{ 8080 }"]);
        ask_tcp(outside.pid(), by_proxy).unwrap();
        nft(&["flush", "set", "inet", "own", "allowed"]);
        stanza.ok(&["rm", "-f", publish]);
    }
}
