//! What goes wrong with networks: kills at any moment, rules and bridges that somebody took away, ways out that change, cut
//! wires, taken ports, many containers, containers that lie. Judged by what the kernel shows, and by traffic.
//! `STANZA_KILLS` sets how many kills, `STANZA_SEED` repeats a run, `STANZA_CONTAINERS` sets how many containers are many.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use stanza_test::{
    Leftovers, Network, Random, Stanza, ask_tcp, fixture, in_network_of, number, reaches, serve_tcp, skip,
    tool, wait_for, wait_until,
};

fn start(stanza: &Stanza, name: &str, options: &[&str]) {
    stanza.ok(&[&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat());
}

/// A private name space that stands for a host, and takes a command to succeed.
fn on(network: &Network, words: &[&str]) -> String {
    let done = network.run(words);
    assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
    done.stdout
}

/// The devices of a container but for loopback.
fn devices(stanza: &Stanza, name: &str) -> usize {
    let text = stanza.ok(&["exec", name, "ls", "/sys/class/net"]);
    text.split_whitespace().filter(|device| *device != "lo").count()
}

/// What there is when the kernel has taken the devices of those down that are gone.
fn settled(stanza: &Stanza) -> Leftovers {
    wait_for("all devices are those of containers that run", || {
        let seen = stanza.leftovers();
        let devices = seen.links.iter().filter(|link| link.starts_with("stz")).count();
        (devices == stanza.ok(&["ps", "-q"]).lines().count()).then_some(seen)
    })
}

/// The processes that one has started: of a command these are monitors, and what they start.
fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

const RUN: &[&str] = &[
    "run",
    "-d",
    "--name",
    "c1",
    "--network",
    "lan",
    "--network",
    "wan",
    "--network-alias",
    "web",
    "-p",
    "8080:80",
    "-p",
    "5353:53/udp",
    "busybox",
    "sleep",
    "1000",
];

/// A container that is in `lan`, and publishes ports.
fn in_lan(stanza: &Stanza) {
    start(stanza, "c1", &["--network", "lan", "-p", "8080:80", "-p", "5353:53/udp"]);
}

#[test]
fn a_kill_at_any_moment_of_a_networks_verb_leaves_nothing() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    stanza.ok(&["network", "create", "--subnet=10.230.0.0/29", "--subnet=fd00:230::/64", "lan"]);
    stanza.ok(&["network", "create", "--subnet=10.231.0.0/29", "wan"]);
    let verbs: [(&[&str], bool); 6] = [
        (RUN, false),
        (&["network", "connect", "--alias", "db", "wan", "c1"], true),
        (&["network", "disconnect", "lan", "c1"], true),
        (&["network", "reload", "c1"], true),
        (&["rename", "c1", "c2"], true),
        (&["rm", "-f", "c1"], true),
    ];
    // How long each takes, and what is there afterwards.
    let mut lengths = Vec::new();
    for (verb, needs_container) in &verbs {
        if *needs_container {
            in_lan(&stanza);
        }
        let begin = Instant::now();
        stanza.ok(verb);
        lengths.push(u64::try_from(begin.elapsed().as_micros()).expect("a short time"));
        stanza.ok(&["rm", "-f", "c1", "c2"]);
    }
    let before = settled(&stanza);
    let mut random = Random::new();
    let seed = random.seed();
    for kill in 0..number("STANZA_KILLS", 20) {
        let at = usize::try_from(random.below(6)).expect("an index");
        let (verb, needs_container) = verbs[at];
        if needs_container {
            in_lan(&stanza);
        }
        let victims = random.below(3);
        let moment = random.below(lengths[at] * 11 / 10);
        let told = format!("seed {seed}, kill {kill}, {victims} in {verb:?} after {moment} µs");
        let monitor = needs_container.then(|| stanza.monitor("c1"));
        let mut command = stanza.command(verb);
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut door = command.spawn().expect("it starts");
        thread::sleep(Duration::from_micros(moment));
        // The command, the monitor, or both.
        let monitors = monitor.map_or_else(|| children(door.id()), |monitor| vec![monitor]);
        if victims != 1 {
            let _ = door.kill();
        }
        if victims != 0 {
            monitors.into_iter().for_each(|pid| stanza.kill_9(pid));
        }
        door.wait().expect("it was started");
        let listed = stanza.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
        if verb[0] == "network" && listed == "c1 running" && victims == 0 {
            // The record is what counts, and a reload ends there.
            stanza.ok(&["network", "reload", "c1"]);
            let networks = stanza.inspect("c1")["NetworkSettings"]["Networks"].clone();
            // As in Docker, being in none is shown as the network `none`.
            let places =
                networks.as_object().expect("networks").keys().filter(|name| *name != "none").count();
            assert_eq!(devices(&stanza, "c1"), places, "{told}");
            if places > 0 {
                let _server = serve_tcp(&stanza, "c1", 80);
                let asked = ask_tcp(host.pid(), "127.0.0.1:8080".parse().unwrap());
                asked.unwrap_or_else(|error| panic!("{told}: {error}"));
            }
        }
        stanza.output(&["rm", "-f", "c1", "c2"]);
        stanza.ok(&["system", "check", "--repair"]);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stanza.assert_clean(&before)));
        assert!(result.is_ok(), "{told}: {listed}");
        // Every address and port is free again: of the subnet five, and of the one container all.
        let again = stanza.output(&[
            "run",
            "--rm",
            "--network",
            "lan",
            "--ip",
            "10.230.0.2",
            "--ip6",
            "fd00:230::2",
            "-p",
            "8080:80",
            "-p",
            "5353:53/udp",
            "--name",
            "c1",
            "busybox",
            "true",
        ]);
        assert_eq!(again.code, 0, "{told}: {}", again.stderr);
    }
    assert_eq!(stanza.ok(&["network", "prune", "-f"]), "Deleted Networks:\nlan\nwan\n");
    assert_no_networks(&stanza, host);
}

/// No bridge, no device, no element of a set, no directory of names.
fn assert_no_networks(stanza: &Stanza, host: &Network) {
    wait_until("only loopback is left", || on(host, &["ip", "-o", "link"]).lines().count() == 1);
    if stanza_test::have("nft") {
        let rules = on(host, &["nft", "list", "ruleset"]);
        assert!(!rules.contains("elements"), "{rules}");
    }
    let names = stanza.runroot().join("networks");
    assert_eq!(std::fs::read_dir(&names).into_iter().flatten().count(), 0, "{names:?}");
}

#[test]
fn a_network_whose_making_or_removal_was_killed_is_there_or_gone_and_its_subnet_is_had_again() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    let create = ["network", "create", "--subnet=10.236.0.0/24", "lan"];
    let remove = ["network", "rm", "lan"];
    let use_it = || stanza.ok(&["run", "--rm", "--network", "lan", "busybox", "true"]);
    let mut lengths = Vec::new();
    for verb in [&create[..], &remove] {
        let begin = Instant::now();
        stanza.ok(verb);
        lengths.push(u64::try_from(begin.elapsed().as_micros()).expect("a short time"));
    }
    let mut random = Random::new();
    let seed = random.seed();
    for kill in 0..number("STANZA_KILLS", 10) {
        let is_removal = kill % 2 == 1;
        let verb = if is_removal { &remove[..] } else { &create };
        if is_removal {
            stanza.ok(&create);
            use_it();
        }
        let moment = random.below(lengths[usize::from(is_removal)] * 11 / 10);
        let told = format!("seed {seed}, kill {kill} of {verb:?} after {moment} µs");
        let door = stanza.spawn(verb);
        thread::sleep(Duration::from_micros(moment));
        stanza.kill_9(door.pid());
        drop(door);
        stanza.ok(&["system", "check", "--repair"]);
        if stanza.output(&["network", "exists", "lan"]).code != 0 {
            assert_no_networks(&stanza, host);
            let again = stanza.output(&create);
            assert_eq!(again.code, 0, "{told}: {}", again.stderr);
        }
        use_it();
        stanza.ok(&remove);
        assert_no_networks(&stanza, host);
    }
}

/// Whether what `from` sends with another address than its own arrives at `to`, who always hears what is honest.
fn spoofs(stanza: &Stanza, from: &str, to: &str, network: &str, claimed: Ipv4Addr) -> bool {
    let (own, target) = (stanza.address(from, network), stanza.address(to, network));
    let pid = stanza.pid(from);
    let claim = format!("{claimed}/32");
    let space = ["nsenter", "-n", "-t", &pid.to_string(), "ip", "address", "replace", &claim, "dev", "eth0"]
        .map(str::to_owned);
    assert_eq!(tool(&space.each_ref().map(String::as_str)).code, 0);
    let ear = in_network_of(stanza.pid(to), || UdpSocket::bind((target, 0))).expect("a free port");
    ear.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let port = ear.local_addr().expect("an address").port();
    let say = |source: IpAddr, text: &str| {
        let mouth = in_network_of(pid, || UdpSocket::bind((source, 0))).expect("an address of its own");
        mouth.send_to(text.as_bytes(), (target, port)).expect("it is sent");
    };
    let mut buffer = [0; 100];
    let mut heard = Vec::new();
    // Who the neighbour is, is known after the first.
    for (source, text) in [(own, "begin"), (claimed.into(), "lie"), (own, "end")] {
        say(source, text);
        while text != "lie" && heard.last().map(String::as_str) != Some(text) {
            let count = ear.recv(&mut buffer).expect("what is honest arrives");
            heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
    }
    heard.iter().any(|text| text == "lie")
}

#[test]
fn after_a_flush_of_all_rules_reload_restores_ports_and_walls_of_everybody_and_so_does_the_next_start() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    let Ok(outside) = Network::private() else { skip!("no second name space") };
    if !stanza_test::have("nft") {
        skip!("no `nft`");
    }
    host.connect("wire", "192.0.2.1/24", &outside, "192.0.2.2/24");
    stanza.ok(&["network", "create", "--subnet=10.232.0.0/24", "lan"]);
    stanza.ok(&["network", "create", "--subnet=10.233.0.0/24", "wan"]);
    start(&stanza, "c1", &["--network", "lan", "-p", "8081:80"]);
    start(&stanza, "c2", &["--network", "lan", "-p", "8082:80"]);
    start(&stanza, "far", &["--network", "wan", "-p", "8083:80"]);
    let _servers = ["c1", "c2", "far"].map(|name| serve_tcp(&stanza, name, 80));
    let asked = |port: u16| ask_tcp(outside.pid(), ([192, 0, 2, 1], port).into());
    let lies = || spoofs(&stanza, "c1", "c2", "lan", [10, 232, 0, 99].into());
    let far = (stanza.address("far", "wan"), 80).into();
    let whole = || {
        for port in [8081, 8082, 8083] {
            assert_eq!(asked(port).unwrap(), "192.0.2.2", "{port}");
        }
        assert!(!lies() && !reaches(stanza.pid("c1"), far));
    };
    whole();
    let device = || stanza.ok(&["exec", "c1", "cat", "/sys/class/net/eth0/iflink"]);
    let before = device();
    on(host, &["nft", "flush", "ruleset"]);
    assert!(lies() && asked(8081).is_err() && reaches(stanza.pid("c1"), far));
    stanza.ok(&["network", "reload", "--all"]);
    whole();
    // What was not taken away is not made anew: the devices inside are the same ones.
    assert_eq!(device(), before);

    on(host, &["nft", "flush", "ruleset"]);
    stanza.ok(&["restart", "-t", "0", "c1"]);
    let _server = serve_tcp(&stanza, "c1", 80);
    whole();
    // A container that has no ports, in another network, does it too.
    on(host, &["nft", "flush", "ruleset"]);
    stanza.ok(&["run", "--rm", "busybox", "true"]);
    whole();
}

#[test]
fn a_firewall_that_drops_is_respected_also_after_a_reload() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    let Ok(outside) = Network::private() else { skip!("no second name space") };
    if !stanza_test::have("nft") {
        skip!("no `nft`");
    }
    host.connect("wire", "192.0.2.1/24", &outside, "192.0.2.2/24");
    start(&stanza, "c1", &["-p", "8080:80"]);
    let _server = serve_tcp(&stanza, "c1", 80);
    let published = ([192, 0, 2, 1], 8080).into();
    ask_tcp(outside.pid(), published).unwrap();
    on(host, &["nft", "flush", "ruleset"]);
    on(
        host,
        &[
            "nft",
            "add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; }",
        ],
    );
    stanza.ok(&["network", "reload", "--all"]);
    assert!(!reaches(outside.pid(), published));
    on(host, &["nft", "delete", "table", "inet", "fw"]);
    stanza.ok(&["network", "reload", "--all"]);
    ask_tcp(outside.pid(), published).unwrap();
}

#[test]
fn a_bridge_that_was_deleted_comes_back_with_the_next_start_and_for_all_by_reload() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    stanza.ok(&["network", "create", "-o", "com.docker.network.bridge.name=br-lan", "lan"]);
    start(&stanza, "c1", &["--network", "lan", "-p", "8081:80"]);
    on(host, &["ip", "link", "delete", "br-lan"]);
    start(&stanza, "c2", &["--network", "lan", "-p", "8082:80"]);
    let _servers = ["c1", "c2"].map(|name| serve_tcp(&stanza, name, 80));
    let asked = |port: u16| ask_tcp(host.pid(), ([127, 0, 0, 1], port).into());
    asked(8082).unwrap();
    let to = (stanza.address("c1", "lan"), 80).into();
    assert!(!reaches(stanza.pid("c2"), to));
    stanza.ok(&["network", "reload", "--all"]);
    ask_tcp(stanza.pid("c2"), to).unwrap();
    asked(8081).unwrap();
    asked(8082).unwrap();
}

#[test]
fn another_way_out_is_taken_as_soon_as_the_host_has_it() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    let (Ok(first), Ok(second)) = (Network::private(), Network::private()) else {
        skip!("no second name space")
    };
    host.connect("up0", "192.0.2.1/24", &first, "192.0.2.2/24");
    host.connect("up1", "198.51.100.1/24", &second, "198.51.100.2/24");
    stanza.ok(&["network", "create", "lan"]);
    for (router, via, name) in [(&first, "192.0.2.2", "c1"), (&second, "198.51.100.2", "c2")] {
        on(router, &["ip", "address", "add", "203.0.113.1/32", "dev", "lo"]);
        start(&stanza, name, &["--network", "lan"]);
        on(host, &["ip", "route", "replace", "default", "via", via]);
        let listener = router.enter(|| TcpListener::bind("203.0.113.1:7000")).unwrap();
        thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = write!(stream, "{}", peer.ip());
            }
        });
    }
    start(&stanza, "web", &["--network", "lan", "-p", "8080:80"]);
    let _server = serve_tcp(&stanza, "web", 80);
    let to = "203.0.113.1:7000".parse().unwrap();
    // By the second now, and by the first again.
    assert_eq!(ask_tcp(stanza.pid("c1"), to).unwrap(), "198.51.100.1");
    assert_eq!(ask_tcp(second.pid(), ([198, 51, 100, 1], 8080).into()).unwrap(), "198.51.100.2");
    on(host, &["ip", "link", "delete", "up1"]);
    on(host, &["ip", "route", "replace", "default", "via", "192.0.2.2"]);
    for name in ["c1", "c2", "web"] {
        assert_eq!(ask_tcp(stanza.pid(name), to).unwrap(), "192.0.2.1", "{name}");
    }
    assert_eq!(ask_tcp(first.pid(), ([192, 0, 2, 1], 8080).into()).unwrap(), "192.0.2.2");
}

#[test]
fn a_cut_between_two_hosts_hurts_neither_and_connections_go_on_when_it_heals() {
    let (near, far) = (fixture!(PrivateNetwork), fixture!(PrivateNetwork));
    let (here, there) = (near.network().unwrap(), far.network().unwrap());
    here.connect("wire", "192.0.2.1/24", there, "192.0.2.2/24");
    start(&near, "client", &[]);
    start(&far, "server", &["-p", "8080:80"]);
    let listener = in_network_of(far.pid("server"), || TcpListener::bind("0.0.0.0:80")).unwrap();
    let to = SocketAddr::from(([192, 0, 2, 2], 8080));
    let mut stream = in_network_of(near.pid("client"), || TcpStream::connect(to)).unwrap();
    let (mut other_end, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "192.0.2.1");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut exchange = |text: &[u8; 4]| {
        stream.write_all(text).unwrap();
        let mut heard = [0; 4];
        other_end.read_exact(&mut heard).unwrap();
        other_end.write_all(&heard).unwrap();
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, text);
    };
    exchange(b"one.");
    on(here, &["ip", "link", "set", "wire", "down"]);
    assert!(!reaches(near.pid("client"), to));
    for stanza in [&near, &far] {
        start(stanza, "other", &["-p", "8081:80"]);
        let begin = Instant::now();
        stanza.ok(&["rm", "-f", "other"]);
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert_eq!(stanza.ok(&["ps", "-q"]).lines().count(), 1);
    }
    on(here, &["ip", "link", "set", "wire", "up"]);
    exchange(b"two.");
    drop(listener);
    let _server = serve_tcp(&far, "server", 80);
    assert_eq!(ask_tcp(near.pid("client"), to).unwrap(), "192.0.2.1");
}

#[test]
fn of_those_that_want_one_port_one_has_it_and_the_others_are_told_and_leave_nothing() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    stanza.ok(&["network", "create", "lan"]);
    stanza.ok(&["run", "--rm", "--network", "lan", "busybox", "true"]);
    let before = settled(&stanza);
    for round in 0..5 {
        let names = [0, 1, 2].map(|number| format!("c{round}-{number}"));
        let mut doors = names.each_ref().map(|name| {
            let options = [
                "run",
                "-d",
                "--name",
                name,
                "--network",
                "lan",
                "-p",
                "8080:80",
                "busybox",
                "sleep",
                "1000",
            ];
            stanza.spawn(&options)
        });
        let outputs = doors.each_mut().map(stanza_test::Running::finish);
        let winners: Vec<&String> = names
            .iter()
            .zip(&outputs)
            .filter_map(|(name, output)| (output.code == 0).then_some(name))
            .collect();
        assert_eq!(winners.len(), 1, "{outputs:?}");
        for output in outputs.iter().filter(|output| output.code != 0) {
            assert_eq!(output.code, 125);
            assert!(
                output.stderr.contains("cannot publish TCP port `0.0.0.0:8080`: it is taken"),
                "{}",
                output.stderr
            );
        }
        let late = ["run", "--rm", "-p", "8080:80", "--network", "lan", "busybox", "true"];
        let named = format!("hint: the container `{}` publishes port 8080", winners[0]);
        let error = stanza.fails(125, &late);
        assert!(error.contains(&named), "{error}");
        let _server = serve_tcp(&stanza, winners[0], 80);
        ask_tcp(host.pid(), "127.0.0.1:8080".parse().unwrap()).unwrap();
        let mut args = vec!["rm", "-f"];
        args.extend(names.iter().map(String::as_str));
        stanza.output(&args);
        stanza.assert_clean(&before);
    }
    // The one who has it is no container.
    let holder = host.enter(|| TcpListener::bind("0.0.0.0:8080")).unwrap();
    let error = stanza.fails(125, &["run", "--rm", "-p", "8080:80", "--network", "lan", "busybox", "true"]);
    assert!(error.contains("cannot publish TCP port `0.0.0.0:8080`: it is taken"), "{error}");
    assert!(error.contains("`ss -ltnp 'sport = :8080'`") && !error.contains("hint:"), "{error}");
    drop(holder);
    stanza.assert_clean(&before);
}

#[test]
fn many_containers_live_on_one_network_and_the_last_start_is_as_quick_as_the_tenth() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    let many = usize::try_from(number("STANZA_CONTAINERS", 40)).expect("a number");
    stanza.ok(&["network", "create", "--subnet=10.240.0.0/16", "lan"]);
    start(&stanza, "first", &["--network", "lan", "-p", "8080:80"]);
    let before = settled(&stanza);
    let mut times = Vec::new();
    for number in 0..many {
        let begin = Instant::now();
        start(&stanza, &format!("c{number}"), &["--network", "lan"]);
        times.push(begin.elapsed());
    }
    let median = |part: &[Duration]| {
        let mut part = part.to_vec();
        part.sort();
        part[part.len() / 2]
    };
    let (early, late) = (median(&times[..many.min(20)]), median(&times[many.saturating_sub(20)..]));
    let last = format!("c{}", many - 1);
    let server = serve_tcp(&stanza, &last, 7000);
    let to = (stanza.address(&last, "lan"), 7000).into();
    let asked = ask_tcp(stanza.pid("first"), to).unwrap();
    assert_eq!(asked, stanza.address("first", "lan").to_string());
    drop(server);
    let _server = serve_tcp(&stanza, "first", 80);
    ask_tcp(host.pid(), "127.0.0.1:8080".parse().unwrap()).unwrap();
    assert_eq!(stanza.ok(&["ps", "-q"]).lines().count(), many + 1);
    let ids = stanza.ok(&["ps", "-q", "--no-trunc", "-f", "name=^c"]);
    let ids: Vec<&str> = ids.lines().collect();
    for part in ids.chunks(50) {
        stanza.ok(&[&["rm", "-f"], part].concat());
    }
    stanza.assert_clean(&before);
    assert!(late < early * 3, "{early:?} became {late:?}");
}

#[test]
fn a_container_finds_no_socket_or_directory_of_the_engine() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "lan"]);
    start(&stanza, "c1", &["--network", "lan"]);
    assert!(stanza.monitor("c1") > 0);
    for directory in [stanza.root(), stanza.runroot(), std::path::Path::new("/run/stanza")] {
        stanza.fails(1, &["exec", "c1", "ls", directory.to_str().unwrap()]);
    }
    // A socket without a file would be found by everybody who shares the network.
    for network in [&["--network", "lan"][..], &["--network", "host"]] {
        let seen = stanza.ok(&[&["run", "--rm"], network, &["busybox", "cat", "/proc/net/unix"]].concat());
        let nameless = |line: &&str| line.split_whitespace().nth(7).is_some_and(|name| name.starts_with('@'));
        assert_eq!(seen.lines().find(nameless), None, "{network:?}");
    }
    // Of the container's own resolver it is only the port that is its own.
    let open = stanza.ok(&["exec", "c1", "netstat", "-lnt"]);
    let open: Vec<&str> = open.lines().filter(|line| line.contains("LISTEN")).collect();
    assert!(open.len() == 1 && open[0].contains("127.0.0.11:"), "{open:?}");
    wait_until("it runs on", || stanza.state("c1") == "running");
}

#[test]
fn a_container_that_is_started_again_at_once_loses_nothing_to_its_earlier_monitor() {
    let stanza = fixture!(PrivateNetwork);
    let host = stanza.network().unwrap();
    start(&stanza, "c1", &["-p", "8080:80"]);
    let before = settled(&stanza);
    for round in 0..15 {
        stanza.ok(&["restart", "-t", "0", "c1"]);
        // The earlier monitor has ended when nothing but this life's is there.
        let now = settled(&stanza);
        assert_eq!(now.port_maps, before.port_maps, "round {round}");
        let _server = serve_tcp(&stanza, "c1", 80);
        let asked = ask_tcp(host.pid(), "127.0.0.1:8080".parse().unwrap());
        asked.unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}
