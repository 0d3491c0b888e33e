//! The default bridge and published ports, in a network name space that stands for the host.

use std::io::Write as _;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::thread;

use stanza_test::{Network, Stanza, ask_tcp, ask_udp, fixture, in_network_of, serve_tcp, skip, wait_until};

fn start(stanza: &Stanza, name: &str, options: &[&str]) {
    stanza.ok(&[&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat());
}

#[test]
fn containers_on_the_bridge_reach_each_other_and_the_host() {
    let stanza = fixture!(PrivateNetwork);
    let before = stanza.leftovers();
    start(&stanza, "c1", &[]);
    start(&stanza, "c2", &[]);
    let (a, b) = (stanza.address("c1", "bridge"), stanza.address("c2", "bridge"));
    assert_ne!(a, b);
    let server = serve_tcp(&stanza, "c2", 7000);
    assert_eq!(ask_tcp(stanza.pid("c1"), (b, 7000).into()).unwrap(), a.to_string());
    ask_tcp(stanza.network().unwrap().pid(), (b, 7000).into()).unwrap();
    let routes = stanza.ok(&["exec", "c1", "ip", "route"]);
    assert!(routes.starts_with("default via "), "{routes}");
    assert!(stanza.ok(&["exec", "c1", "cat", "/etc/hosts"]).contains(&a.to_string()));
    drop(server);
    stanza.ok(&["rm", "-f", "c1", "c2"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_tcp_port_is_published_on_every_address_and_on_loopback() {
    let stanza = fixture!(PrivateNetwork);
    let before = stanza.leftovers();
    let Ok(outside) = Network::private() else { skip!("no second name space") };
    let host = stanza.network().unwrap();
    host.connect("wire", "192.0.2.1/24", &outside, "192.0.2.2/24");
    let wired = stanza.leftovers();
    start(&stanza, "c1", &["-p", "8080:80"]);
    let server = serve_tcp(&stanza, "c1", 80);
    ask_tcp(host.pid(), "127.0.0.1:8080".parse().unwrap()).unwrap();
    ask_tcp(host.pid(), "192.0.2.1:8080".parse().unwrap()).unwrap();
    assert_eq!(ask_tcp(outside.pid(), "192.0.2.1:8080".parse().unwrap()).unwrap(), "192.0.2.2");
    assert_eq!(stanza.ok(&["ps", "--format", "{{.Ports}}"]), "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp");
    drop(server);
    stanza.ok(&["rm", "-f", "c1"]);
    stanza.assert_clean(&wired);
    assert!(ask_tcp(host.pid(), "127.0.0.1:8080".parse().unwrap()).is_err());
    drop(before);
}

#[test]
fn a_udp_port_is_published() {
    let stanza = fixture!(PrivateNetwork);
    let Ok(outside) = Network::private() else { skip!("no second name space") };
    let host = stanza.network().unwrap();
    host.connect("wire", "192.0.2.1/24", &outside, "192.0.2.2/24");
    start(&stanza, "c1", &["-p", "5353:53/udp"]);
    let socket = in_network_of(stanza.pid("c1"), || UdpSocket::bind("0.0.0.0:53").unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(b"pong", peer);
        }
    });
    assert_eq!(ask_udp(host.pid(), "127.0.0.1:5353".parse().unwrap()).unwrap(), "pong");
    assert_eq!(ask_udp(outside.pid(), "192.0.2.1:5353".parse().unwrap()).unwrap(), "pong");
}

#[test]
fn a_port_of_one_address_is_only_there() {
    let stanza = fixture!(PrivateNetwork);
    let Ok(outside) = Network::private() else { skip!("no second name space") };
    let host = stanza.network().unwrap();
    host.connect("wire", "192.0.2.1/24", &outside, "192.0.2.2/24");
    start(&stanza, "c1", &["-p", "127.0.0.1:8080:80"]);
    let _server = serve_tcp(&stanza, "c1", 80);
    ask_tcp(host.pid(), "127.0.0.1:8080".parse().unwrap()).unwrap();
    assert!(ask_tcp(outside.pid(), "192.0.2.1:8080".parse().unwrap()).is_err());
}

#[test]
fn a_free_port_is_chosen_when_none_is_given() {
    let stanza = fixture!(PrivateNetwork);
    start(&stanza, "c1", &["-p", "80"]);
    let _server = serve_tcp(&stanza, "c1", 80);
    let first = stanza.ok(&["port", "c1", "80"]);
    let first = first.lines().next().unwrap_or_default();
    let port: u16 = first.strip_prefix("0.0.0.0:").unwrap_or_else(|| panic!("{first}")).parse().unwrap();
    ask_tcp(stanza.network().unwrap().pid(), ([127, 0, 0, 1], port).into()).unwrap();
}

#[test]
fn what_leaves_the_bridge_has_the_hosts_address() {
    let stanza = fixture!(PrivateNetwork);
    let Ok(outside) = Network::private() else { skip!("no second name space") };
    stanza.network().unwrap().connect("wire", "192.0.2.1/24", &outside, "192.0.2.2/24");
    start(&stanza, "c1", &[]);
    let listener = outside.enter(|| TcpListener::bind("192.0.2.2:7000").unwrap());
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = write!(stream, "{}", peer.ip());
        }
    });
    assert_eq!(ask_tcp(stanza.pid("c1"), "192.0.2.2:7000".parse().unwrap()).unwrap(), "192.0.2.1");
}

#[test]
fn addresses_and_ports_come_free_again_after_a_monitors_death() {
    let stanza = fixture!(PrivateNetwork);
    let before = stanza.leftovers();
    start(&stanza, "c1", &["-p", "8080:80"]);
    stanza.kill_9(stanza.monitor("c1"));
    stanza.wait_state("c1", "exited");
    start(&stanza, "c2", &["-p", "8080:80"]);
    let server = serve_tcp(&stanza, "c2", 80);
    ask_tcp(stanza.network().unwrap().pid(), "127.0.0.1:8080".parse().unwrap()).unwrap();
    drop(server);
    stanza.ok(&["rm", "-f", "c1", "c2"]);
    stanza.assert_clean(&before);
}

#[test]
fn many_containers_have_addresses_of_their_own() {
    let stanza = fixture!(PrivateNetwork);
    let before = stanza.leftovers();
    let mut all: Vec<_> = (0..20).map(|_| stanza.spawn(&["run", "-d", "busybox", "sleep", "1000"])).collect();
    let ids: Vec<String> = all.iter_mut().map(|running| running.finish().stdout.trim().to_owned()).collect();
    let mut addresses: Vec<IpAddr> = ids.iter().map(|id| stanza.address(id, "bridge")).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
    let mut args = vec!["rm", "-f"];
    args.extend(ids.iter().map(String::as_str));
    stanza.ok(&args);
    stanza.assert_clean(&before);
}

#[test]
fn a_failed_start_gives_its_port_and_address_back() {
    let stanza = fixture!(PrivateNetwork);
    let before = stanza.leftovers();
    for _ in 0..3 {
        stanza.fails(127, &["run", "--rm", "-p", "8080:80", "busybox", "no-such-command"]);
    }
    stanza.assert_clean(&before);
    start(&stanza, "c1", &["-p", "8080:80"]);
    wait_until("it runs", || stanza.state("c1") == "running");
}

#[test]
fn the_hosts_network_is_as_it_is() {
    let stanza = fixture!(PrivateNetwork);
    let inside = stanza.ok(&["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"]);
    let own = std::fs::read_link(format!("/proc/{}/ns/net", stanza.network().unwrap().pid())).unwrap();
    assert_eq!(inside, own.to_str().unwrap());
}

#[test]
fn names_are_resolved_as_on_the_host() {
    let stanza = fixture!(PrivateNetwork);
    let text = stanza.ok(&["run", "--rm", "busybox", "cat", "/etc/resolv.conf"]);
    assert!(!text.contains("127.0.0."), "a loopback name server cannot be reached from a container: {text}");
    let text = stanza.ok(&["run", "--rm", "--network", "none", "busybox", "cat", "/etc/hosts"]);
    assert!(text.contains("127.0.0.1") && text.contains("localhost"), "{text}");
}

#[test]
fn the_link_goes_though_something_keeps_the_name_space() {
    let stanza = fixture!(PrivateNetwork);
    let before = stanza.leftovers();
    start(&stanza, "c1", &[]);
    let _server = serve_tcp(&stanza, "c1", 80);
    stanza.ok(&["rm", "-f", "c1"]);
    stanza.assert_clean(&before);
}
