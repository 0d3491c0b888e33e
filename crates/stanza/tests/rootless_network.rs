//! Networks of an ordinary user's containers, in network name spaces that stand for the host and for what is outside of it.

mod outside;

use std::net::TcpListener;

use outside::{GATEWAY, HOST, ask_tcp, ask_udp, at, is_gone, outside, serve_tcp, serve_udp};
use stanza_test::{Stanza, fixture, skip, wait_until};

fn start(stanza: &Stanza, options: &[&str]) -> u32 {
    stanza.ok(&[&["run", "-d", "--name", "c1"], options, &["busybox", "sleep", "1000"]].concat());
    stanza.pid("c1")
}

/// The program that leads out: the monitor's other child.
fn helper(stanza: &Stanza) -> u32 {
    let (monitor, init) = (stanza.monitor("c1"), stanza.pid("c1"));
    let children =
        std::fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).expect("it lives");
    let mut others =
        children.split_whitespace().map(|pid| pid.parse().expect("a number")).filter(|pid| *pid != init);
    others.next().expect("a helper runs")
}

/// Traffic out and in, over TCP and UDP, and what must not come through.
fn both_ways(options: &[&str], client_inside: &str, published: &str) {
    let stanza = fixture!(Rootless, PrivateNetwork);
    let outside = match outside(&stanza) {
        Ok(outside) => outside,
        Err(reason) => skip!("{reason}"),
    };
    let host = stanza.network().expect("it was wished for");
    let before = stanza.leftovers();
    let ports = ["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "8053:53/udp"];
    let pid = start(&stanza, &[options, &ports].concat());
    let program = helper(&stanza);
    serve_tcp(pid, "0.0.0.0", 80, "inside");
    serve_udp(pid, "0.0.0.0", 53, "inside");
    serve_tcp(outside.pid(), GATEWAY, 7000, "outside");
    serve_udp(outside.pid(), GATEWAY, 7000, "outside");
    // In goes first: a container that has sent nothing yet is reached too.
    assert_eq!(ask_tcp(outside.pid(), at(HOST, 8080)).expect("an answer"), format!("inside {GATEWAY}"));
    assert_eq!(ask_udp(outside.pid(), at(HOST, 8053)).expect("an answer"), format!("inside {GATEWAY}"));
    assert_eq!(
        ask_tcp(host.pid(), at("127.0.0.1", 8081)).expect("an answer"),
        format!("inside {client_inside}")
    );
    assert!(ask_tcp(outside.pid(), at(HOST, 8081)).is_err(), "a port of loopback only is not outside");
    assert_eq!(ask_tcp(pid, at(GATEWAY, 7000)).expect("an answer"), format!("outside {HOST}"));
    assert_eq!(ask_udp(pid, at(GATEWAY, 7000)).expect("an answer"), format!("outside {HOST}"));
    assert_eq!(stanza.ok(&["ps", "--format", "{{.Ports}}"]), published);
    stanza.ok(&["rm", "-f", "c1"]);
    assert!(is_gone(program));
    assert!(ask_tcp(outside.pid(), at(HOST, 8080)).is_err());
    stanza.assert_clean(&before);
}

#[test]
fn without_a_word_about_networks_traffic_goes_both_ways_through_pasta() {
    both_ways(
        &[],
        "127.0.0.1",
        "0.0.0.0:8053->53/udp, [::]:8053->53/udp, 0.0.0.0:8080->80/tcp, 127.0.0.1:8081->80/tcp, [::]:8080->80/tcp",
    );
}

#[test]
fn through_slirp4netns_traffic_goes_both_ways() {
    // It knows IPv4 only.
    both_ways(
        &["--network", "slirp4netns"],
        "10.0.2.2",
        "0.0.0.0:8053->53/udp, 0.0.0.0:8080->80/tcp, 127.0.0.1:8081->80/tcp",
    );
}

/// What a container with this network gets from the host's loopback, at the address that would lead there.
fn from_loopback(network: &str, address: &str) -> Option<std::io::Result<String>> {
    let stanza = match Stanza::new(
        env!("CARGO_BIN_EXE_stanza"),
        &[stanza_test::Wish::Rootless, stanza_test::Wish::PrivateNetwork],
    ) {
        Ok(stanza) => stanza,
        Err(reason) => {
            stanza_test::skipped(&reason);
            return None;
        }
    };
    let Ok(_outside) = outside(&stanza) else {
        stanza_test::skipped("no name spaces or helpers");
        return None;
    };
    serve_tcp(stanza.network().expect("it was wished for").pid(), "127.0.0.1", 7001, "loopback");
    let pid = start(&stanza, &["--network", network]);
    Some(ask_tcp(pid, at(address, 7001)))
}

#[test]
fn the_hosts_loopback_is_out_of_reach_unless_asked_for() {
    for (network, address) in [("pasta", GATEWAY), ("slirp4netns", "10.0.2.2")] {
        let Some(answer) = from_loopback(network, address) else { return };
        assert!(answer.is_err(), "{network}: {answer:?}");
    }
    for (network, address) in
        [("pasta:--map-gw", GATEWAY), ("slirp4netns:allow_host_loopback=true,cidr=10.9.0.0/24", "10.9.0.2")]
    {
        let Some(answer) = from_loopback(network, address) else { return };
        assert_eq!(answer.unwrap(), "loopback 127.0.0.1", "{network}");
    }
}

#[test]
fn a_monitor_that_is_killed_takes_the_helper_and_its_ports_along() {
    for network in ["pasta", "slirp4netns"] {
        let stanza = fixture!(Rootless, PrivateNetwork);
        let _outside = match outside(&stanza) {
            Ok(outside) => outside,
            Err(reason) => skip!("{reason}"),
        };
        let options = ["--network", network, "-p", "8080:80"];
        start(&stanza, &options);
        let program = helper(&stanza);
        assert!(!is_gone(program));
        stanza.kill_9(stanza.monitor("c1"));
        wait_until("the helper is gone", || is_gone(program));
        stanza.wait_state("c1", "exited");
        stanza.ok(&["start", "c1"]);
        serve_tcp(stanza.pid("c1"), "0.0.0.0", 80, "again");
        let answer = ask_tcp(stanza.network().unwrap().pid(), at("127.0.0.1", 8080)).unwrap();
        assert!(answer.starts_with("again "), "{network}: {answer}");
    }
}

#[test]
fn a_resolver_on_the_hosts_loopback_is_replaced_by_the_helpers() {
    let stanza = fixture!(Rootless, PrivateNetwork);
    let _outside = match outside(&stanza) {
        Ok(outside) => outside,
        Err(reason) => skip!("{reason}"),
    };
    let file = stanza.file("resolv.conf", "search lan\nnameserver 127.0.0.53\n");
    let mounted = stanza.network().unwrap().run(&["mount", "--bind", &file, "/etc/resolv.conf"]);
    assert_eq!(mounted.code, 0, "{}", mounted.stderr);
    for (network, expected) in [("pasta", "169.254.1.1"), ("slirp4netns", "10.0.2.3")] {
        let text = stanza.ok(&["run", "--rm", "--network", network, "busybox", "cat", "/etc/resolv.conf"]);
        assert_eq!(text, format!("nameserver {expected}\nsearch lan"));
    }
}

#[test]
fn a_port_that_is_taken_and_an_option_that_is_none_are_named() {
    let stanza = fixture!(Rootless, PrivateNetwork);
    let _outside = match outside(&stanza) {
        Ok(outside) => outside,
        Err(reason) => skip!("{reason}"),
    };
    let _taken = stanza.network().unwrap().enter(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    for network in ["pasta", "slirp4netns"] {
        let text =
            stanza.fails(125, &["run", "--rm", "--network", network, "-p", "8080:80", "busybox", "true"]);
        assert!(text.contains("8080") && text.contains("in use"), "{text}");
    }
    let text = stanza.fails(125, &["run", "--rm", "--network", "slirp4netns:x=1", "busybox", "true"]);
    assert!(text.contains("`x=1` is no option of `slirp4netns`"), "{text}");
}

#[test]
fn a_helper_that_is_not_installed_is_named_with_its_package() {
    let stanza = fixture!(Rootless, PrivateNetwork);
    let _outside = match outside(&stanza) {
        Ok(outside) => outside,
        Err(reason) => skip!("{reason}"),
    };
    let nothing = stanza.file("nothing", "");
    let hide = |program: &str| {
        let script = format!("mount --bind {nothing} $(readlink -f $(command -v {program}))");
        let hidden = stanza.network().unwrap().run(&["sh", "-c", &script]);
        assert_eq!(hidden.code, 0, "{}", hidden.stderr);
    };
    hide("pasta");
    let text = stanza.fails(125, &["run", "--rm", "--network", "pasta", "busybox", "true"]);
    assert!(text.contains("cannot find `pasta`") && text.contains("install the package `passt`"), "{text}");
    // The second choice takes its place where nothing was asked for.
    assert!(stanza.ok(&["run", "--rm", "busybox", "ip", "address"]).contains("10.0.2.100/24"));
    hide("slirp4netns");
    let text = stanza.fails(125, &["run", "--rm", "busybox", "true"]);
    assert!(text.contains("cannot find pasta or slirp4netns") && text.contains("`passt`"), "{text}");
}

#[test]
fn where_no_route_leads_out_a_container_runs_all_the_same() {
    let stanza = fixture!(Rootless, PrivateNetwork);
    let _outside = match outside(&stanza) {
        Ok(outside) => outside,
        Err(reason) => skip!("{reason}"),
    };
    let done = stanza.network().unwrap().run(&["ip", "route", "del", "default"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let pid = start(&stanza, &["-p", "8080:80"]);
    serve_tcp(pid, "0.0.0.0", 80, "inside");
    let answer = ask_tcp(stanza.network().unwrap().pid(), at("127.0.0.1", 8080)).unwrap();
    assert_eq!(answer, "inside 10.0.2.2");
    let text = stanza.fails(125, &["run", "--rm", "--network", "pasta", "busybox", "true"]);
    assert!(text.contains("no route leads out of this machine"), "{text}");
}
