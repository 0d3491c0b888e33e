//! What is shown of networks: `network inspect`, `network graph`, and the counters of `stats`.

use serde_json::Value;
use stanza_test::{Stanza, ask_tcp, fixture, serve_tcp, wait_until};

fn start(stanza: &Stanza, name: &str, options: &[&str]) {
    stanza.ok(&[&["run", "-d", "--name", name], options, &["busybox", "sleep", "1000"]].concat());
}

#[test]
fn inspect_tells_who_is_in_a_network_with_what() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "--subnet", "10.208.0.0/24", "--subnet", "fd00:208::/64", "lan"]);
    start(&stanza, "c1", &["--network", "lan:alias=db", "-p", "127.0.0.1:8000-8001:80-81"]);
    start(&stanza, "c2", &["--network", "lan"]);
    stanza.ok(&["create", "--name", "c3", "--network", "lan", "busybox", "true"]);
    let document: Value = serde_json::from_str(&stanza.ok(&["network", "inspect", "lan"])).unwrap();
    let id = stanza.ok(&["inspect", "-f", "{{.Id}}", "c1"]);
    let one = &document[0]["Containers"][&id];
    let inside = stanza.inspect("c1")["NetworkSettings"]["Networks"]["lan"].clone();
    assert_eq!((&one["Name"], &one["EndpointID"]), (&"c1".into(), &inside["EndpointID"]));
    assert_eq!(
        (&one["IPv4Address"], &one["IPv6Address"]),
        (&"10.208.0.2/24".into(), &"fd00:208::2/64".into())
    );
    let mac = stanza.ok(&["exec", "c1", "cat", "/sys/class/net/eth0/address"]);
    assert_eq!((&one["MacAddress"], &one["Interface"]), (&mac.into(), &"eth0".into()));
    assert_eq!(one["Ports"], serde_json::json!(["127.0.0.1:8000-8001->80-81/tcp"]));
    assert_eq!((&one["Peers"], &one["PeerCount"]), (&serde_json::json!(["c2"]), &1.into()));
    assert_eq!(one["Names"], serde_json::json!(["c1", id[..12], "db"]));
    assert_eq!(document[0]["Containers"].as_object().unwrap().len(), 2);
    assert_eq!(document[0]["NotRunning"], serde_json::json!(["c3"]));
    // The other end is where it says.
    let device = one["Device"].as_str().unwrap();
    assert_eq!(stanza.network().unwrap().run(&["ip", "link", "show", "dev", device]).code, 0);
    let names = "{{range .Containers}}{{.Name}}={{.IPv4Address}} {{end}}";
    let mut shown: Vec<String> = stanza
        .ok(&["network", "inspect", "-f", names, "lan"])
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    shown.sort();
    assert_eq!(shown, ["c1=10.208.0.2/24", "c2=10.208.0.3/24"]);
}

#[test]
fn the_graph_has_every_network_container_and_port() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "--subnet", "10.209.0.0/24", "lan"]);
    stanza.ok(&["network", "create", "--subnet", "10.210.0.0/24", "--internal", "back"]);
    start(&stanza, "web", &["--network", "lan", "--network", "back", "-p", "8080:80"]);
    start(&stanza, "side", &["--network", "container:web"]);
    stanza.ok(&["create", "--name", "db", "--network", "back", "busybox", "true"]);
    let text = stanza.ok(&["network", "graph"]);
    for line in [
        "│  └─ web  10.209.0.2  eth0  8080->80/tcp",
        "│  ├─ db  (not running)",
        "│  └─ web  10.210.0.2  eth1",
        "   └─ side  the network of web",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    let dot = stanza.ok(&["network", "graph", "--format", "dot"]);
    assert!(dot.starts_with("graph networks {") && dot.ends_with('}'), "{dot}");
    assert_eq!(dot.matches("10.209.0.2").count(), 1, "{dot}");
    let svg = stanza.ok(&["network", "graph", "--format", "svg"]);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"), "{svg}");
    for part in [">web<", ">db<", ">side<", ">lan<", ">back<", "8080-&gt;80/tcp", "eth1 10.210.0.2"] {
        assert_eq!(svg.matches(part).count(), 1, "{part}\n{svg}");
    }
    assert!(stanza.fails(1, &["network", "graph", "--format", "png"]).contains("`png`"));
}

/// Thousands of bytes.
fn kilo(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes).expect("little traffic")) / 1000.0
}

#[test]
fn stats_count_traffic_time_memory_and_processes() {
    let stanza = fixture!(PrivateNetwork);
    start(&stanza, "c1", &[]);
    stanza.ok(&["run", "-d", "--name", "busy", "-m", "64m", "busybox", "sh", "-c", "while :; do :; done"]);
    let _server = serve_tcp(&stanza, "c1", 7000);
    let field = |name: &str, field: &str| {
        stanza.ok(&["stats", "--no-stream", "--format", &format!("{{{{.{field}}}}}"), name])
    };
    let device = "/sys/class/net/eth0/statistics/rx_bytes";
    let received = || -> u64 { stanza.ok(&["exec", "c1", "cat", device]).parse().unwrap() };
    let before = received();
    for _ in 0..50 {
        ask_tcp(stanza.network().unwrap().pid(), (stanza.address("c1", "bridge"), 7000).into()).unwrap();
    }
    assert!(received() > before + 5000);
    // Some 7 kB by now; three digits are shown of what the kernel counts.
    wait_until("both counts agree", || {
        let (kernel, shown) = (received(), field("c1", "NetIO"));
        let shown = shown.split_once("kB / ").and_then(|(number, _)| number.parse::<f64>().ok());
        received() == kernel
            && shown.is_some_and(|shown| format!("{:.1}", shown) == format!("{:.1}", kilo(kernel)))
    });
    let busy: f64 = field("busy", "CPUPerc").trim_end_matches('%').parse().unwrap();
    assert!(busy > 10.0, "{busy}");
    assert!(field("busy", "MemUsage").ends_with(" / 64MiB"));
    assert_eq!(field("busy", "PIDs"), "1");
    let table = stanza.ok(&["stats", "--no-stream"]);
    assert!(table.starts_with("CONTAINER ID   NAME"), "{table}");
    assert_eq!(table.lines().count(), 3);
    assert!(stanza.fails(1, &["stats", "--no-stream", "nope"]).contains("No such container: nope"));
}

#[test]
fn a_listed_id_names_its_network() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&["network", "create", "lan"]);
    let ids = stanza.ok(&["network", "ls", "-q"]);
    let ids: Vec<&str> = ids.lines().collect();
    let names = stanza.ok(&[&["network", "inspect", "--format", "{{.Name}}"], &ids[..]].concat());
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["bridge", "host", "lan", "none"]);
}

#[test]
fn a_thousand_ports_are_published_at_once_on_a_host_without_rules_of_ours() {
    let stanza = fixture!(PrivateNetwork);
    start(&stanza, "c1", &["-p", "20000-20999:7000-7999"]);
    let shown = stanza.ok(&["ps", "--format", "{{.Ports}}"]);
    assert_eq!(shown, "0.0.0.0:20000-20999->7000-7999/tcp, [::]:20000-20999->7000-7999/tcp");
    let known = || stanza.leftovers().port_maps.iter().filter(|element| element.contains("ports4")).count();
    assert_eq!(known(), 1000);
    stanza.ok(&["rm", "-f", "c1"]);
    assert_eq!(known(), 0);
}
