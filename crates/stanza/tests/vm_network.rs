//! Containers in virtual machines in networks: addresses, names, ports, several networks, both ways.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use stanza_test::{Stanza, fixture};

/// Starts a container behind this wall that serves its own name on port 80.
fn serve(stanza: &Stanza, wall: &str, name: &str, options: &[&str]) {
    let isolation = format!("--isolation={wall}");
    let script = format!("mkdir /www && echo {name} > /www/index.html && exec httpd -f -p 80 -h /www");
    let run = [&["run", "-d", "--name", name, &isolation][..], options, &["busybox", "sh", "-c", &script]];
    stanza.ok(&run.concat());
}

/// What a container gets from `http://<host>/`: asked until somebody answers.
fn fetch(stanza: &Stanza, from: &str, host: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let output = stanza.output(&["exec", from, "wget", "-q", "-O", "-", &format!("http://{host}/")]);
        if output.code == 0 || Instant::now() > deadline {
            return output.stdout.trim().to_owned() + output.stderr.trim();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn both_walls_are_in_one_network_with_names_addresses_and_ports() {
    let stanza = fixture!(Machines, PrivateNetwork);
    let before = stanza.leftovers();
    stanza.ok(&["network", "create", "--subnet", "10.99.0.0/24", "lan"]);
    serve(&stanza, "vm", "inside", &["--network", "lan", "--ip", "10.99.0.40", "-p", "8080:80"]);
    serve(&stanza, "container", "beside", &["--network", "lan"]);
    assert_eq!(stanza.inspect("inside")["NetworkSettings"]["Networks"]["lan"]["IPAddress"], "10.99.0.40");
    for (from, host, answer) in [
        ("inside", "beside", "beside"),
        ("beside", "inside", "inside"),
        ("beside", "10.99.0.40", "inside"),
        // Its own name, and itself by its own loopback.
        ("inside", "127.0.0.1", "inside"),
    ] {
        assert_eq!(fetch(&stanza, from, host), answer, "{from} asks {host}");
    }
    assert_eq!(fetch_on_host(&stanza, "127.0.0.1:8080"), "inside\n");
    // A name that nobody has is told to be nobody's, not passed over.
    let output = stanza.output(&["exec", "inside", "nslookup", "nobody.invalid"]);
    assert_ne!(output.code, 0, "{}", output.stdout);
    // The neighbour's end is seen.
    stanza.ok(&["rm", "-f", "beside"]);
    assert_ne!(stanza.output(&["exec", "inside", "wget", "-q", "-O", "-", "http://beside/"]).code, 0);
    stanza.ok(&["rm", "-f", "inside"]);
    stanza.ok(&["network", "rm", "lan"]);
    stanza.assert_clean(&before);
}

/// What somebody on the host gets, as soon as somebody answers.
fn fetch_on_host(stanza: &Stanza, address: &str) -> String {
    let host = stanza.network().unwrap();
    let url = format!("http://{address}/");
    let ask = || host.run(&["busybox", "wget", "-q", "-O", "-", &url]);
    (0..100)
        .find_map(|_| {
            let output = ask();
            if output.code != 0 {
                std::thread::sleep(Duration::from_millis(100));
            }
            (output.code == 0).then_some(output.stdout)
        })
        .unwrap_or_default()
}

#[test]
fn a_machine_has_a_card_in_each_of_its_networks_and_none_without() {
    let stanza = fixture!(Machines, PrivateNetwork);
    let before = stanza.leftovers();
    stanza.ok(&["network", "create", "--subnet", "10.98.0.0/24", "one"]);
    stanza.ok(&["network", "create", "--ipv6", "--subnet", "10.97.0.0/24", "--subnet", "fd97::/64", "two"]);
    let script = "ip -o addr show scope global | awk '{print $2, $4}'";
    let shown =
        stanza.ok(&["run", "--rm", "--network", "one", "--network", "two", "busybox", "sh", "-c", script]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines, ["eth0 10.98.0.2/24", "eth1 10.97.0.2/24", "eth1 fd97::2/64"]);
    let alone = stanza.ok(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", "ls /sys/class/net"]);
    assert_eq!(alone, "lo");
    stanza.ok(&["network", "rm", "one", "two"]);
    stanza.assert_clean(&before);
}
