//! Several containers of an ordinary user on one bridge, in network name spaces that stand for the host and for what is outside
//! of it.

mod outside;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use outside::{GATEWAY, HOST, ask_tcp, ask_udp, at, is_gone, outside, serve_tcp, serve_udp};
use stanza_test::{Network, Random, Stanza, fixture, number, skip, tool, wait_until};

/// A container that runs, in the network `lan`.
fn start(stanza: &Stanza, name: &str, options: &[&str]) -> u32 {
    let words = ["run", "-d", "--name", name, "--network", "lan"];
    stanza.ok(&[&words[..], options, &["busybox", "sleep", "1000"]].concat());
    stanza.pid(name)
}

fn address(stanza: &Stanza, name: &str) -> String {
    let found = stanza.inspect(name);
    let text = found["NetworkSettings"]["Networks"]["lan"]["IPAddress"].as_str();
    text.filter(|text| !text.is_empty()).expect("an address").to_owned()
}

/// Processes of the fixture's binary, or of what it started, whose name in the kernel is `name`.
fn processes(stanza: &Stanza, name: &str) -> Vec<u32> {
    let network = stanza.network().expect("it was wished for").pid();
    let home = fs::read_link(format!("/proc/{network}/ns/net")).expect("it lives");
    let all = fs::read_dir("/proc").expect("it is mounted").flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|pid| {
            let is_named = fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|text| text.trim_end().starts_with(name));
            let is_here = fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link == home);
            is_named && is_here && !is_gone(*pid)
        })
        .collect()
}

/// What pasta is called once it has chosen the executable for this processor: `passt.avx2`, or pasta.
const PASTA: &str = "pas";

/// The processes that keep the shared name space and lead out of it.
fn keepers(stanza: &Stanza) -> Vec<u32> {
    ["stanza-network", PASTA].iter().flat_map(|name| processes(stanza, name)).collect()
}

/// The process that serves a container's ports, if there is one.
fn find_proxy(stanza: &Stanza, name: &str) -> Option<u32> {
    let monitor = stanza.monitor(name);
    let path = format!("/proc/{monitor}/task/{monitor}/children");
    let children = fs::read_to_string(path).expect("it lives");
    let mut pids = children.split_whitespace().map(|pid| pid.parse::<u32>().expect("a number"));
    let comm = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.find(|pid| comm(*pid).trim_end() == "stanza-proxy")
}

/// The process that serves a container's ports, 8080 among them, from its first client on: it is in the shared name space.
fn proxy(stanza: &Stanza, name: &str) -> u32 {
    // Answered or not.
    let _ = ask_tcp(stanza.network().expect("it was wished for").pid(), at("127.0.0.1", 8080));
    find_proxy(stanza, name).expect("it serves ports")
}

/// How many bridges the shared name space has.
fn bridges(stanza: &Stanza, name: &str) -> usize {
    let proxy = proxy(stanza, name).to_string();
    let listed = tool(&["nsenter", "-t", &proxy, "-n", "ip", "-o", "link", "show", "type", "bridge"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    listed.stdout.lines().count()
}

fn shared_directory(stanza: &Stanza) -> PathBuf {
    stanza.runroot().join("rootless-netns")
}

/// Waits until nothing of the shared name space is left.
fn assert_nothing_is_left(stanza: &Stanza) {
    wait_until("nobody keeps the name space", || keepers(stanza).is_empty());
    wait_until("its files are gone", || {
        let left = fs::read_dir(shared_directory(stanza)).into_iter().flatten().flatten();
        left.filter(|entry| entry.file_name() != "lock").count() == 0
    });
}

fn world() -> Result<(Stanza, Network), String> {
    let wishes = [stanza_test::Wish::Rootless, stanza_test::Wish::PrivateNetwork];
    let stanza = Stanza::new(env!("CARGO_BIN_EXE_stanza"), &wishes)?;
    let outside = outside(&stanza)?;
    stanza.ok(&["network", "create", "lan"]);
    Ok((stanza, outside))
}

macro_rules! world {
    () => {
        match world() {
            Ok(world) => world,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn containers_of_a_user_reach_each_other_by_name_and_address_both_ways() {
    let (stanza, _outside) = world!();
    let before = stanza.leftovers();
    let one = start(&stanza, "one", &[]);
    let two = start(&stanza, "two", &["--network-alias", "second"]);
    for (from, to) in [("one", "two"), ("two", "one"), ("one", "second")] {
        stanza.ok(&["exec", from, "ping", "-c", "1", "-W", "3", to]);
    }
    let (first, second) = (address(&stanza, "one"), address(&stanza, "two"));
    serve_tcp(one, "0.0.0.0", 80, "one");
    serve_tcp(two, "0.0.0.0", 80, "two");
    serve_udp(two, "0.0.0.0", 53, "two");
    assert_eq!(ask_tcp(one, at(&second, 80)).expect("an answer"), format!("two {first}"));
    assert_eq!(ask_tcp(two, at(&first, 80)).expect("an answer"), format!("one {second}"));
    assert_eq!(ask_udp(one, at(&second, 53)).expect("an answer"), format!("two {first}"));
    assert_eq!(keepers(&stanza).len(), 2, "one holder, one way out");
    stanza.ok(&["rm", "-f", "one"]);
    assert!(stanza.output(&["exec", "two", "nslookup", "one"]).code != 0, "its name is withdrawn");
    assert_eq!(keepers(&stanza).len(), 2, "somebody is left");
    stanza.ok(&["rm", "-f", "two"]);
    assert_nothing_is_left(&stanza);
    stanza.ok(&["network", "rm", "lan"]);
    stanza.assert_clean(&before);
}

#[test]
fn traffic_to_the_outside_goes_through_the_one_way_out() {
    let (stanza, outside) = world!();
    serve_tcp(outside.pid(), GATEWAY, 7000, "outside");
    serve_udp(outside.pid(), GATEWAY, 7000, "outside");
    for name in ["one", "two"] {
        let pid = start(&stanza, name, &[]);
        assert_eq!(ask_tcp(pid, at(GATEWAY, 7000)).expect("an answer"), format!("outside {HOST}"));
        assert_eq!(ask_udp(pid, at(GATEWAY, 7000)).expect("an answer"), format!("outside {HOST}"));
    }
    serve_tcp(stanza.network().expect("it was wished for").pid(), "127.0.0.1", 7001, "loopback");
    let pid = stanza.pid("one");
    for gateway in ["10.0.2.2", GATEWAY] {
        assert!(ask_tcp(pid, at(gateway, 7001)).is_err(), "the host's loopback is out of reach");
    }
    stanza.ok(&["network", "create", "--internal", "inner"]);
    stanza.ok(&["run", "-d", "--name", "three", "--network", "inner", "busybox", "sleep", "1000"]);
    assert!(ask_tcp(stanza.pid("three"), at(GATEWAY, 7000)).is_err(), "an internal network leads nowhere");
}

#[test]
fn published_ports_are_reached_from_the_host_from_outside_and_from_a_neighbour() {
    let (stanza, outside) = world!();
    let host = stanza.network().expect("it was wished for");
    let before = stanza.leftovers();
    let ports = ["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "8053:53/udp"];
    let one = start(&stanza, "one", &ports);
    let two = start(&stanza, "two", &[]);
    serve_tcp(one, "0.0.0.0", 80, "inside");
    serve_udp(one, "0.0.0.0", 53, "inside");
    // Clients come from the bridge's address.
    let gateway = address(&stanza, "one").rsplit_once('.').map(|(net, _)| format!("{net}.1")).expect("one");
    let inside = format!("inside {gateway}");
    assert_eq!(ask_tcp(host.pid(), at("127.0.0.1", 8080)).expect("an answer"), inside);
    assert_eq!(ask_tcp(host.pid(), at("::1", 8080)).expect("an answer"), inside);
    assert_eq!(ask_tcp(host.pid(), at("127.0.0.1", 8081)).expect("an answer"), inside);
    assert_eq!(ask_udp(host.pid(), at("127.0.0.1", 8053)).expect("an answer"), inside);
    assert_eq!(ask_tcp(outside.pid(), at(HOST, 8080)).expect("an answer"), inside);
    assert_eq!(ask_udp(outside.pid(), at(HOST, 8053)).expect("an answer"), inside);
    assert!(ask_tcp(outside.pid(), at(HOST, 8081)).is_err(), "a port of loopback only is not outside");
    assert_eq!(ask_tcp(two, at(HOST, 8080)).expect("an answer"), inside);
    assert!(stanza.ok(&["port", "one"]).contains("80/tcp -> 0.0.0.0:8080"));
    let text = stanza.fails(125, &["run", "--rm", "--network", "lan", "-p", "8080:80", "busybox", "true"]);
    assert!(text.contains("8080") && text.contains("taken"), "{text}");
    stanza.ok(&["rm", "-f", "one", "two"]);
    assert!(host.enter(|| TcpListener::bind("0.0.0.0:8080")).is_ok(), "the port is free again");
    assert_nothing_is_left(&stanza);
    stanza.ok(&["network", "rm", "lan"]);
    stanza.assert_clean(&before);
}

#[test]
fn networks_of_a_user_are_walled_off_and_changed_while_containers_run() {
    let (stanza, _outside) = world!();
    stanza.ok(&["network", "create", "other"]);
    let one = start(&stanza, "one", &["-p", "8080:80"]);
    stanza.ok(&["run", "-d", "--name", "two", "--network", "other", "busybox", "sleep", "1000"]);
    serve_tcp(one, "0.0.0.0", 80, "one");
    let (two, first) = (stanza.pid("two"), address(&stanza, "one"));
    assert!(ask_tcp(two, at(&first, 80)).is_err(), "another network is out of reach");
    stanza.ok(&["network", "connect", "lan", "two"]);
    let second = address(&stanza, "two");
    assert_eq!(ask_tcp(two, at(&first, 80)).expect("an answer"), format!("one {second}"));
    stanza.ok(&["exec", "two", "ping", "-c", "1", "-W", "3", "one"]);
    stanza.ok(&["network", "disconnect", "lan", "two"]);
    assert!(ask_tcp(two, at(&first, 80)).is_err(), "it has left");
    stanza.ok(&["rm", "-f", "two"]);
    assert_eq!(bridges(&stanza, "one"), 2);
    stanza.ok(&["network", "rm", "other"]);
    assert_eq!(bridges(&stanza, "one"), 1, "its bridge is gone");
    let host = stanza.network().expect("it was wished for").pid();
    assert!(ask_tcp(host, at("127.0.0.1", 8080)).is_ok(), "the port is served still");
    assert!(!stanza.ok(&["network", "ls", "--format", "{{.Name}}"]).contains("other"));
}

#[test]
fn a_container_that_was_started_without_network_can_be_connected() {
    let (stanza, _outside) = world!();
    stanza.ok(&["run", "-d", "--name", "alone", "--network", "none", "busybox", "sleep", "1000"]);
    let one = start(&stanza, "one", &[]);
    stanza.ok(&["network", "connect", "lan", "alone"]);
    serve_tcp(one, "0.0.0.0", 80, "one");
    let answer = ask_tcp(stanza.pid("alone"), at(&address(&stanza, "one"), 80)).expect("an answer");
    assert_eq!(answer, format!("one {}", address(&stanza, "alone")));
}

#[test]
fn rules_that_somebody_flushed_are_made_again_by_a_reload() {
    let (stanza, outside) = world!();
    serve_tcp(outside.pid(), GATEWAY, 7000, "outside");
    let one = start(&stanza, "one", &["-p", "8080:80"]);
    let nft = |words: &[&str]| {
        let proxy = proxy(&stanza, "one").to_string();
        let output = tool(&[&["nsenter", "-t", &proxy, "-n", "nft"], words].concat());
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stdout
    };
    let tables = nft(&["list", "tables"]);
    assert_eq!(tables, "table inet stanza\ntable bridge stanza\n");
    nft(&["flush", "ruleset"]);
    assert_eq!(nft(&["list", "tables"]), "");
    stanza.ok(&["network", "reload", "one"]);
    assert_eq!(nft(&["list", "tables"]), tables);
    assert_eq!(ask_tcp(one, at(GATEWAY, 7000)).expect("an answer"), format!("outside {HOST}"));
    serve_tcp(one, "0.0.0.0", 80, "inside");
    let answer = ask_tcp(outside.pid(), at(HOST, 8080)).expect("an answer");
    assert!(answer.starts_with("inside "), "{answer}");
}

#[test]
fn networks_of_a_user_have_ipv6() {
    let (stanza, _outside) = world!();
    stanza.ok(&["network", "create", "--ipv6", "six"]);
    for name in ["one", "two"] {
        let ports: &[&str] = if name == "one" { &["-p", "8080:80"] } else { &[] };
        let words = ["run", "-d", "--name", name, "--network", "six"];
        stanza.ok(&[&words[..], ports, &["busybox", "sleep", "1000"]].concat());
    }
    let address = |name: &str| {
        let found = stanza.inspect(name);
        let text = found["NetworkSettings"]["Networks"]["six"]["GlobalIPv6Address"].as_str();
        text.expect("an address").to_owned()
    };
    serve_tcp(stanza.pid("one"), "::", 80, "six");
    let answer = ask_tcp(stanza.pid("two"), at(&address("one"), 80)).expect("an answer");
    assert_eq!(answer, format!("six {}", address("two")));
    let host = stanza.network().expect("it was wished for").pid();
    let answer = ask_tcp(host, at("::1", 8080)).expect("an answer");
    assert!(answer.starts_with("six "), "{answer}");
}

#[test]
fn ports_that_were_used_are_free_for_the_container_that_is_started_again_at_once() {
    let (stanza, outside) = world!();
    let one = start(&stanza, "one", &["-p", "8080-8089:80-89"]);
    serve_tcp(one, "0.0.0.0", 89, "first");
    assert!(ask_tcp(outside.pid(), at(HOST, 8089)).is_ok());
    stanza.ok(&["restart", "-t", "0", "one"]);
    serve_tcp(stanza.pid("one"), "0.0.0.0", 89, "second");
    let answer = ask_tcp(outside.pid(), at(HOST, 8089)).expect("an answer");
    assert!(answer.starts_with("second "), "{answer}");
}

#[test]
fn ports_are_served_from_the_first_client_on_by_a_process_that_has_nothing_and_is_replaced() {
    let (stanza, outside) = world!();
    let one = start(&stanza, "one", &["-p", "8080:80"]);
    serve_tcp(one, "0.0.0.0", 80, "inside");
    assert_eq!(find_proxy(&stanza, "one"), None);
    let before = proxy(&stanza, "one");
    let read = |file: &str| fs::read(format!("/proc/{before}/{file}")).expect("it lives");
    assert_eq!((&*read("cmdline"), &*read("environ")), (&b"stanza-proxy\0"[..], &b""[..]));
    let status = String::from_utf8(read("status")).expect("text");
    for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.lines().any(|known| known == line), "{line}: {status}");
    }
    stanza.kill_9(before);
    // Whoever comes meanwhile waits.
    let answer = ask_tcp(outside.pid(), at(HOST, 8080)).expect("an answer");
    assert!(answer.starts_with("inside "), "{answer}");
    assert_ne!(proxy(&stanza, "one"), before);
}

#[test]
fn monitors_that_are_killed_leave_nothing_and_the_others_go_on() {
    let (stanza, outside) = world!();
    let before = stanza.leftovers();
    let one = start(&stanza, "one", &["-p", "8080:80"]);
    start(&stanza, "two", &[]);
    // The starter of the holder is killed first: the other one keeps the name space.
    stanza.kill_9(stanza.monitor("one"));
    wait_until("its container is gone", || is_gone(one));
    stanza.wait_state("one", "exited");
    serve_tcp(outside.pid(), GATEWAY, 7000, "outside");
    let out = ask_tcp(stanza.pid("two"), at(GATEWAY, 7000)).expect("the way out is there");
    assert_eq!(out, format!("outside {HOST}"));
    assert!(stanza.output(&["exec", "two", "nslookup", "one"]).code != 0, "the dead have no name");
    stanza.ok(&["start", "one"]);
    serve_tcp(stanza.pid("one"), "0.0.0.0", 80, "again");
    let answer = ask_tcp(outside.pid(), at(HOST, 8080)).expect("an answer");
    assert!(answer.starts_with("again "), "{answer}");
    stanza.ok(&["exec", "two", "ping", "-c", "1", "-W", "3", "one"]);
    for name in ["one", "two"] {
        stanza.kill_9(stanza.monitor(name));
    }
    assert_nothing_is_left(&stanza);
    wait_until("no proxy is left", || processes(&stanza, "stanza-proxy").is_empty());
    stanza.ok(&["rm", "-f", "one", "two"]);
    stanza.ok(&["network", "rm", "lan"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_door_that_is_killed_at_any_moment_of_a_start_leaves_nothing() {
    let (stanza, _outside) = world!();
    let before = stanza.leftovers();
    for moment in 0..16 {
        let name = format!("c{moment}");
        let words =
            ["run", "-d", "--name", &name, "--network", "lan", "-p", "8080:80", "busybox", "sleep", "1000"];
        let mut door = stanza.command(&words).stdout(Stdio::null()).spawn().expect("it starts");
        // From before it is in the user's namespace until after the container runs.
        std::thread::sleep(Duration::from_millis(moment * 8));
        door.kill().expect("it is a child");
        door.wait().expect("it ends");
        // A monitor that was sent its plan goes on without the door.
        wait_until("nobody is at work on it", || {
            stanza.output(&["rm", "-f", &name]).code == 0 || {
                let listed = stanza.ok(&["ps", "-a", "--format", "{{.Names}}"]);
                !listed.lines().any(|line| line == name)
            }
        });
    }
    assert_nothing_is_left(&stanza);
    start(&stanza, "last", &["-p", "8080:80"]);
    stanza.ok(&["rm", "-f", "last"]);
    assert_nothing_is_left(&stanza);
    stanza.ok(&["network", "rm", "lan"]);
    stanza.ok(&["system", "check", "--repair"]);
    stanza.assert_clean(&before);
}

/// Kills at any moment: of the command, the monitor, both, or what keeps the name space along with them. `STANZA_KILLS` sets how many.
#[test]
fn whatever_is_killed_at_any_moment_of_a_life_on_bridges_nothing_is_left_and_it_can_be_had_again() {
    let (stanza, outside) = world!();
    stanza.ok(&["network", "create", "wan"]);
    let run = ["run", "-d", "--name", "one", "--network", "lan", "-p", "8080:80", "busybox", "sleep", "1000"];
    let verbs: [(&[&str], bool); 4] = [
        (&run, false),
        (&["network", "connect", "wan", "one"], true),
        (&["network", "disconnect", "lan", "one"], true),
        (&["rm", "-f", "one"], true),
    ];
    // The networks' directories of names stay for as long as the networks.
    start(&stanza, "one", &["--network", "wan"]);
    stanza.ok(&["rm", "-f", "one"]);
    assert_nothing_is_left(&stanza);
    wait_until("its monitor has ended", || processes(&stanza, "stanza-monitor").is_empty());
    let before = stanza.leftovers();
    let mut random = Random::new();
    for kill in 0..number("STANZA_KILLS", 16) {
        let (verb, needs_container) = verbs[usize::try_from(random.below(4)).expect("an index")];
        if needs_container {
            start(&stanza, "one", &["-p", "8080:80"]);
            // Half of them have a proxy.
            if random.below(2) == 0 {
                proxy(&stanza, "one");
            }
        }
        let (victims, moment) = (random.below(4), random.below(120_000));
        let told = format!("seed {}, kill {kill}, {victims} in {verb:?} after {moment} µs", random.seed());
        let mut command = stanza.command(verb);
        let mut door = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_micros(moment));
        if victims != 1 {
            let _ = door.kill();
        }
        if victims != 0 {
            processes(&stanza, "stanza-monitor").into_iter().for_each(|pid| stanza.kill_9(pid));
        }
        if victims == 3 {
            keepers(&stanza).into_iter().for_each(|pid| stanza.kill_9(pid));
        }
        door.wait().expect("it ends");
        // A monitor that was sent its plan goes on without the door.
        wait_until(&told, || {
            stanza.output(&["rm", "-f", "one"]);
            stanza.ok(&["ps", "-aq"]).is_empty() && processes(&stanza, "stanza-monitor").is_empty()
        });
        wait_until(&told, || keepers(&stanza).is_empty() && processes(&stanza, "stanza-proxy").is_empty());
        stanza.ok(&["system", "check", "--repair"]);
        let again = start(&stanza, "one", &["-p", "8080:80"]);
        serve_tcp(again, "0.0.0.0", 80, "again");
        let answer = ask_tcp(outside.pid(), at(HOST, 8080)).unwrap_or_else(|error| panic!("{told}: {error}"));
        assert!(answer.starts_with("again "), "{told}: {answer}");
        stanza.ok(&["rm", "-f", "one"]);
        // What a holder that was killed left in its directory, the next one has replaced.
        assert_nothing_is_left(&stanza);
        wait_until(&told, || processes(&stanza, "stanza-monitor").is_empty());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stanza.assert_clean(&before)));
        assert!(result.is_ok(), "{told}");
    }
}

#[test]
fn a_container_that_is_removed_at_its_end_lets_go_of_the_name_space() {
    let (stanza, _outside) = world!();
    let before = stanza.leftovers();
    let text = stanza.ok(&["run", "--rm", "--network", "lan", "busybox", "cat", "/etc/resolv.conf"]);
    assert!(text.contains("nameserver 127.0.0.11"), "{text}");
    stanza.ok(&["run", "-d", "--rm", "--network", "lan", "busybox", "true"]);
    assert_nothing_is_left(&stanza);
    wait_until("it is removed", || stanza.ok(&["ps", "-aq"]).is_empty());
    stanza.ok(&["network", "rm", "lan"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_holder_or_a_way_out_that_is_killed_is_replaced_for_the_next_container() {
    let (stanza, outside) = world!();
    serve_tcp(outside.pid(), GATEWAY, 7000, "outside");
    let one = start(&stanza, "one", &[]);
    let [way] = processes(&stanza, PASTA)[..] else { panic!("one way out") };
    stanza.kill_9(way);
    wait_until("it is gone", || is_gone(way));
    start(&stanza, "two", &[]);
    assert_eq!(ask_tcp(one, at(GATEWAY, 7000)).expect("a new way out"), format!("outside {HOST}"));
    let [holder] = processes(&stanza, "stanza-network")[..] else { panic!("one holder") };
    stanza.kill_9(holder);
    wait_until("its way out is gone", || processes(&stanza, PASTA).is_empty());
    let three = start(&stanza, "three", &[]);
    assert_eq!(ask_tcp(three, at(GATEWAY, 7000)).expect("an answer"), format!("outside {HOST}"));
    stanza.ok(&["exec", "one", "ping", "-c", "1", "-W", "3", "two"]);
    stanza.ok(&["rm", "-f", "one", "two", "three"]);
    assert_nothing_is_left(&stanza);
}

#[test]
fn a_holder_whose_directory_somebody_removed_ends_with_its_last_member() {
    let (stanza, _outside) = world!();
    start(&stanza, "one", &[]);
    wait_until("holder and way out run", || keepers(&stanza).len() == 2);
    fs::remove_dir_all(shared_directory(&stanza)).expect("it was there");
    // pasta may end at once: it looks for the name space that it was given there.
    assert_eq!(processes(&stanza, "stanza-network").len(), 1);
    stanza.ok(&["rm", "-f", "one"]);
    assert_nothing_is_left(&stanza);
}

#[test]
fn containers_that_start_at_once_find_one_name_space() {
    let (stanza, _outside) = world!();
    let names = ["one", "two", "three", "four"];
    let started: Vec<_> = names
        .iter()
        .map(|name| {
            let words = ["run", "-d", "--name", name, "--network", "lan", "busybox", "sleep", "1000"];
            let mut command = stanza.command(&words);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
        })
        .collect();
    for child in started {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(keepers(&stanza).len(), 2, "one holder, one way out");
    for (index, name) in names.iter().enumerate() {
        let other = names[(index + 1) % names.len()];
        stanza.ok(&["exec", name, "ping", "-c", "1", "-W", "3", other]);
    }
}

#[test]
fn what_bridges_of_a_user_cannot_do_is_named() {
    let (stanza, _outside) = world!();
    let text = stanza.fails(125, &["run", "--rm", "--network", "lan", "-p", "80:80/sctp", "busybox", "true"]);
    assert!(text.contains("publishing SCTP ports without root"), "{text}");
    let nothing = stanza.file("nothing", "");
    for program in ["pasta", "slirp4netns"] {
        let script = format!("mount --bind {nothing} $(readlink -f $(command -v {program}))");
        let hidden = stanza.network().expect("it was wished for").run(&["sh", "-c", &script]);
        assert_eq!(hidden.code, 0, "{}", hidden.stderr);
    }
    let text = stanza.fails(125, &["run", "--rm", "--network", "lan", "busybox", "true"]);
    assert!(text.contains("cannot find pasta or slirp4netns"), "{text}");
}

#[test]
fn where_no_route_leads_out_neighbours_are_reached_all_the_same() {
    let (stanza, _outside) = world!();
    let done = stanza.network().expect("it was wished for").run(&["ip", "route", "del", "default"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    start(&stanza, "one", &[]);
    start(&stanza, "two", &[]);
    stanza.ok(&["exec", "one", "ping", "-c", "1", "-W", "3", "two"]);
}

#[test]
fn the_default_network_of_a_user_has_a_bridge_when_it_is_asked_for() {
    let stanza = fixture!(Rootless, PrivateNetwork);
    let outside = match outside(&stanza) {
        Ok(outside) => outside,
        Err(reason) => skip!("{reason}"),
    };
    serve_tcp(outside.pid(), GATEWAY, 7000, "outside");
    stanza.ok(&["run", "-d", "--name", "one", "--network", "bridge", "busybox", "sleep", "1000"]);
    let answer = ask_tcp(stanza.pid("one"), at(GATEWAY, 7000)).expect("an answer");
    assert_eq!(answer, format!("outside {HOST}"));
}
