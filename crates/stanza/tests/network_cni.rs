//! `--network cni:NAME` with real plugins (package `containernetworking-plugins`), and with scripts where a plugin is to
//! misbehave, in a network name space that stands for the host.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};
use stanza_test::{
    Network, Output, Running, Stanza, ask_tcp, fixture, have, serve_tcp, skip, skipped, wait_for, wait_until,
};

const REAL: &str = "/usr/lib/cni";

/// A stanza whose configuration names directories for chains and plugins.
struct Room {
    stanza: Stanza,
}

impl Room {
    fn new(stanza: Stanza) -> Option<Room> {
        if !Path::new(REAL).join("bridge").exists() || !have("iptables") {
            skipped("no CNI plugins (packages containernetworking-plugins, iptables)");
            return None;
        }
        let room = Room { stanza };
        for name in ["chains", "plugins"] {
            fs::create_dir(room.path(name)).expect("the directory is made");
        }
        let (chains, plugins) = (room.path("chains"), room.path("plugins"));
        let text =
            format!("[network]\ncni-config-dirs = [{chains:?}]\ncni-plugin-dirs = [{plugins:?}, {REAL:?}]\n");
        room.stanza.file("config.toml", text);
        Some(room)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.stanza.directory().join(name)
    }

    /// A chain in a file of its own.
    fn chain(&self, name: &str, plugins: &[Value]) {
        let text = json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins});
        fs::write(self.path(&format!("chains/{name}.conflist")), text.to_string())
            .expect("the file is written");
    }

    /// A bridge with addresses of a range, whose leases are in the fixture's directory.
    fn bridge(&self) -> Value {
        json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
            "capabilities": {"ips": true, "mac": true},
            "ipam": {"type": "host-local", "dataDir": self.path("leases"),
                "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}})
    }

    /// A plugin that runs `body`, and then is the real plugin `tuning`, which changes nothing.
    fn script(&self, name: &str, body: &str) {
        let (new, path) = (self.path("new"), self.path("plugins").join(name));
        fs::write(&new, format!("#!/bin/sh\n{body}\nexec {REAL}/tuning\n")).expect("the file is written");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("the mode is set");
        // A file that is open for writing cannot be executed.
        fs::rename(new, path).expect("the file is named");
    }

    fn spawn(&self, args: &[&str]) -> Running {
        let mut command = self.stanza.command(args);
        command.env_remove("NETCONFPATH").env("STANZA_CONFIG", self.path("config.toml"));
        Running::start(command)
    }

    fn output(&self, args: &[&str]) -> Output {
        self.spawn(args).finish()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.code, 0, "{args:?}\n{}\n{}", output.stdout, output.stderr);
        output.stdout.trim_end().to_owned()
    }

    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.code, code, "{args:?}\n{}\n{}", output.stdout, output.stderr);
        output.stderr
    }

    fn start(&self, name: &str, options: &[&str]) {
        let first = ["run", "-d", "--name", name, "--network", "cni:lan"];
        self.ok(&[&first, options, &["busybox", "sleep", "1000"]].concat());
    }

    fn names_in(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Addresses given out, attachments on record, devices of containers on the host, and rules of iptables that publish ports.
    fn held(&self) -> [usize; 4] {
        let host = self.stanza.network().expect("it was wished for");
        let leases = self.names_in("leases/lan");
        let records = self.names_in("root/cni/lan");
        let links = fs::read_to_string(format!("/proc/{}/net/dev", host.pid())).expect("it is readable");
        let rules = host.run(&["iptables-save"]).stdout;
        [
            leases.iter().filter(|name| name.starts_with("10.88.")).count(),
            records.iter().filter(|name| name.ends_with(".json")).count(),
            links.lines().filter(|line| line.trim_start().starts_with("veth")).count(),
            rules.lines().filter(|line| line.contains("--to-destination 10.88.0.")).count(),
        ]
    }

    /// Waits until nothing is held any more; the kernel takes devices away in its own time.
    fn assert_nothing_held(&self) {
        wait_until("nothing is left", || self.held() == [0; 4]);
    }
}

/// `kill -9`, and the wait until the process is dead: before that nothing is left by it.
fn kill(stanza: &Stanza, pid: u32) {
    stanza.kill_9(pid);
    wait_until("it is dead", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
    });
}

macro_rules! room {
    () => {
        match Room::new(fixture!(PrivateNetwork)) {
            Some(room) => room,
            None => return,
        }
    };
}

fn portmap() -> Value {
    json!({"type": "portmap", "capabilities": {"portMappings": true}})
}

#[test]
fn a_chain_carries_traffic_both_ways_and_leaves_nothing_after_stop_restart_and_rm() {
    let room = room!();
    let Ok(outside) = Network::private() else { skip!("no second name space") };
    let host = room.stanza.network().unwrap();
    host.connect("wire", "192.0.2.1/24", &outside, "192.0.2.2/24");
    room.chain("lan", &[room.bridge(), portmap()]);
    // The first to be in it makes what stays: the bridge, chains of iptables, a directory.
    let first =
        room.ok(&["run", "--rm", "--network", "cni:lan", "busybox", "ip", "-o", "addr", "show", "eth0"]);
    assert!(first.contains("inet 10.88.0.2/24"), "{first}");
    room.assert_nothing_held();
    let before = room.stanza.leftovers();
    room.start("c1", &["-p", "8080:80", "--hostname", "box", "--add-host", "gate:host-gateway"]);
    let listener = outside.enter(|| TcpListener::bind("192.0.2.2:7000").unwrap());
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = write!(stream, "{}", peer.ip());
        }
    });
    let talk = || {
        let address = room.stanza.address("c1", "cni:lan");
        let server = serve_tcp(&room.stanza, "c1", 80);
        ask_tcp(host.pid(), (address, 80).into()).unwrap();
        ask_tcp(host.pid(), "127.0.0.1:8080".parse().unwrap()).unwrap();
        assert_eq!(ask_tcp(outside.pid(), "192.0.2.1:8080".parse().unwrap()).unwrap(), "192.0.2.2");
        let pid = room.stanza.pid("c1");
        assert_eq!(ask_tcp(pid, "192.0.2.2:7000".parse().unwrap()).unwrap(), "192.0.2.1");
        drop(server);
        address
    };
    let address = talk();
    let hosts = room.ok(&["exec", "c1", "cat", "/etc/hosts"]);
    assert!(hosts.ends_with(&format!("{address}\tbox\n10.88.0.1\tgate")), "{hosts}");
    let settings = &room.stanza.inspect("c1")["NetworkSettings"];
    assert_eq!(settings["Networks"]["cni:lan"]["Gateway"], "10.88.0.1");
    assert_eq!(settings["Networks"]["cni:lan"]["IPPrefixLen"], 24);
    assert_eq!(settings["Ports"]["80/tcp"][0]["HostPort"], "8080");
    let mac = room.ok(&["exec", "c1", "cat", "/sys/class/net/eth0/address"]);
    assert_eq!(settings["Networks"]["cni:lan"]["MacAddress"], mac);
    assert_eq!(
        room.ok(&["ps", "--format", "{{.Networks}} {{.Ports}}"]),
        "cni:lan 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    );
    let shown = room.ok(&[
        "network",
        "inspect",
        "-f",
        "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
        "cni:lan",
    ]);
    assert_eq!(shown, format!("c1 {address}/24"));
    room.ok(&["restart", "-t", "0", "c1"]);
    talk();
    room.ok(&["stop", "-t", "0", "c1"]);
    room.assert_nothing_held();
    assert!(!host.run(&["iptables-save"]).stdout.contains(&address.to_string()));
    assert_eq!(room.stanza.inspect("c1")["NetworkSettings"]["Networks"]["cni:lan"]["IPAddress"], "");
    room.ok(&["start", "c1"]);
    talk();
    room.ok(&["rm", "-f", "c1"]);
    room.assert_nothing_held();
    room.stanza.assert_clean(&before);
}

#[test]
fn what_a_killed_monitor_left_is_deleted_also_when_the_configuration_is_gone() {
    let room = room!();
    room.chain("lan", &[room.bridge(), portmap()]);
    for look in [["ps", "-a"].as_slice(), &["rm", "-f", "c1"], &["start", "c1"]] {
        room.start("c1", &["-p", "8080:80"]);
        kill(&room.stanza, room.stanza.monitor("c1"));
        fs::remove_file(room.path("chains/lan.conflist")).unwrap();
        let code = room.output(look).code;
        assert_eq!(code == 0, look[0] != "start", "{look:?}");
        room.assert_nothing_held();
        room.output(&["rm", "-f", "c1"]);
        room.chain("lan", &[room.bridge(), portmap()]);
    }
}

/// Waits until the plugin `slow` runs; the process id of its monitor.
fn monitor_in_add(room: &Room) -> u32 {
    let text = wait_for("the plugin runs", || {
        fs::read_to_string(room.path("monitor")).ok().filter(|text| text.ends_with('\n'))
    });
    fs::remove_file(room.path("monitor")).expect("it is there");
    text.trim().parse().expect("a process id")
}

#[test]
fn nothing_is_left_of_a_monitor_that_is_killed_while_plugins_add() {
    let room = room!();
    let (marker, slow) = (room.path("monitor"), room.path("be-slow"));
    let body = format!(
        "if [ $CNI_COMMAND = ADD ] && [ -e {} ]; then echo $PPID > {}; exec sleep 1000; fi",
        slow.display(),
        marker.display()
    );
    room.script("slow", &body);
    room.chain("lan", &[room.bridge(), portmap(), json!({"type": "slow"})]);
    // Its door is still there: the start fails, and all is as before.
    fs::write(&slow, "").unwrap();
    room.ok(&["create", "--name", "c1", "--network", "cni:lan", "-p", "8080:80", "busybox", "sleep", "1000"]);
    let mut door = room.spawn(&["start", "c1"]);
    let monitor = monitor_in_add(&room);
    assert_eq!(room.held()[..3], [1, 1, 1]);
    room.stanza.kill_9(monitor);
    assert_ne!(door.finish().code, 0);
    room.assert_nothing_held();
    assert_eq!(room.stanza.state("c1"), "created");
    // Door and monitor: whoever removes the container finds what is left.
    for last in [["rm", "c1"].as_slice(), &["rm", "-f", "c1"], &["ps", "-a"]] {
        room.output(&["create", "--name", "c1", "--network", "cni:lan", "busybox", "sleep", "1000"]);
        let door = room.spawn(&["start", "c1"]);
        let monitor = monitor_in_add(&room);
        kill(&room.stanza, door.pid());
        kill(&room.stanza, monitor);
        assert_eq!(room.held()[..2], [1, 1]);
        room.ok(last);
        room.assert_nothing_held();
    }
    // What was cut short is no hindrance.
    fs::remove_file(&slow).unwrap();
    room.ok(&["start", "c1"]);
    let server = serve_tcp(&room.stanza, "c1", 80);
    let address = room.stanza.address("c1", "cni:lan");
    ask_tcp(room.stanza.network().unwrap().pid(), (address, 80).into()).unwrap();
    drop(server);
    room.ok(&["rm", "-f", "c1"]);
    room.assert_nothing_held();
}

#[test]
fn what_a_plugin_refuses_to_delete_is_found_by_check_and_cleared_by_repair() {
    let room = room!();
    let refuse = room.path("refuse");
    let body = format!("if [ $CNI_COMMAND = DEL ] && [ -e {} ]; then exit 1; fi", refuse.display());
    room.script("stubborn", &body);
    room.chain("lan", &[room.bridge(), json!({"type": "stubborn"})]);
    room.start("c1", &[]);
    let id = room.ok(&["inspect", "-f", "{{.Id}}", "c1"]);
    fs::write(&refuse, "").unwrap();
    room.ok(&["rm", "-f", "c1"]);
    assert_eq!(room.held()[1], 1);
    let line = format!("container {}, which does not run, is in the CNI network `lan`", &id[..12]);
    assert!(room.output(&["system", "check"]).stdout.contains(&line));
    fs::remove_file(&refuse).unwrap();
    assert!(room.output(&["system", "check", "--repair"]).stdout.contains(&line));
    room.assert_nothing_held();
    assert!(!room.output(&["system", "check"]).stdout.contains(&line));
}

#[test]
fn prune_and_repair_leave_running_containers_alone() {
    let room = room!();
    room.chain("lan", &[room.bridge()]);
    room.start("c1", &[]);
    for verb in [["network", "prune", "-f"].as_slice(), &["system", "check", "--repair"]] {
        room.output(verb);
        assert_eq!(room.held()[..3], [1, 1, 1], "{verb:?}");
    }
    // A record that nobody owns goes with `prune` as well.
    kill(&room.stanza, room.stanza.monitor("c1"));
    room.ok(&["network", "prune", "-f"]);
    room.assert_nothing_held();
    room.ok(&["rm", "-f", "c1"]);
}

#[test]
fn plugins_are_told_who_lives_in_networks_that_were_used_and_asked_whether_they_are_ready() {
    let room = room!();
    let (log, tired) = (room.path("log"), room.path("tired"));
    let body = format!(
        "case $CNI_COMMAND in\n\
         ADD) cat > {0}.add; echo '{{\"cniVersion\": \"1.1.0\", \"ips\": []}}';;\n\
         STATUS) [ ! -e {1} ] || {{ echo '{{\"code\": 50, \"msg\": \"too tired\"}}'; exit 1; }};;\n\
         GC) cat >> {0}; echo >> {0};;\nesac\nexit 0",
        log.display(),
        tired.display()
    );
    room.script("odd", &body);
    for name in ["lan", "unused"] {
        let text = json!({"cniVersion": "1.1.0", "name": name, "plugins": [{"type": "odd"}]});
        fs::write(room.path(&format!("chains/{name}.conflist")), text.to_string()).unwrap();
    }
    room.start("c1", &[]);
    let id = room.ok(&["inspect", "-f", "{{.Id}}", "c1"]);
    let told = || -> Vec<Value> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    room.output(&["system", "check"]);
    assert!(told().is_empty());
    for verb in [["system", "check", "--repair"].as_slice(), &["network", "prune", "-f"]] {
        room.output(verb);
        let told = told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["name"], "lan");
        assert_eq!(told[0]["cni.dev/valid-attachments"], json!([{"containerID": id, "ifname": "eth0"}]));
    }
    assert!(!room.output(&["system", "check"]).stdout.contains("too tired"));
    fs::write(&tired, "").unwrap();
    assert!(room.output(&["system", "check"]).stdout.contains("too tired"));
    room.ok(&["rm", "-f", "c1"]);
    room.ok(&["network", "prune", "-f"]);
    assert_eq!(told()[0]["cni.dev/valid-attachments"], json!([]));
}

#[test]
fn addresses_and_name_servers_are_those_asked_for_else_those_of_the_plugins() {
    let room = room!();
    let mut bridge = room.bridge();
    bridge["dns"] = json!({"nameservers": ["10.88.0.53"], "search": ["lan.example"]});
    room.chain("lan", &[bridge]);
    room.start("c1", &["--ip", "10.88.0.77", "--mac-address", "02:00:00:00:00:77"]);
    assert_eq!(room.stanza.address("c1", "cni:lan").to_string(), "10.88.0.77");
    let network = &room.stanza.inspect("c1")["NetworkSettings"]["Networks"]["cni:lan"];
    assert_eq!(network["MacAddress"], "02:00:00:00:00:77");
    assert_eq!(network["IPAMConfig"]["IPv4Address"], "10.88.0.77");
    let file = ["exec", "c1", "cat", "/etc/resolv.conf"];
    assert_eq!(room.ok(&file), "nameserver 10.88.0.53\nsearch lan.example");
    room.ok(&["rm", "-f", "c1"]);
    room.start("c1", &["--dns-search", "a.example"]);
    assert_eq!(room.ok(&file), "nameserver 10.88.0.53\nsearch a.example");
    room.ok(&["rm", "-f", "c1"]);
    room.start("c1", &["--dns", "192.0.2.53", "--dns-search", "b.example"]);
    let text = room.ok(&file);
    let ids = [
        "run",
        "--rm",
        "--userns",
        "private",
        "--network",
        "cni:lan",
        "busybox",
        "tail",
        "-n1",
        "/etc/hosts",
    ];
    let hosts = room.ok(&ids);
    assert!(hosts.starts_with("10.88.0."), "{hosts}");
    assert!(text.starts_with("nameserver 192.0.2.53\n") && text.contains("search b.example"), "{text}");
    assert!(!text.contains("10.88.0.53"), "{text}");
    room.ok(&["rm", "-f", "c1"]);
    room.assert_nothing_held();
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    let room = room!();
    room.chain("lan", &[json!({"type": "bridge", "bridge": "cni0", "ipam": {}})]);
    room.chain("wan", &[json!({"type": "ptp"})]);
    let refused = |options: &[&str]| {
        let error = room.fails(125, &[&["run", "--rm"], options, &["busybox", "true"]].concat());
        error.trim_end().to_owned()
    };
    let error = refused(&["--network", "cni:lna"]);
    let chains = room.path("chains");
    let text = format!("no CNI network `lna` in `{}`", chains.display());
    assert!(error.contains(&text) && error.ends_with("hint: there are: lan, wan"), "{error}");
    fs::write(
        chains.join("bad.conflist"),
        "{\"cniVersion\": \"1.0.0\",\n \"name\": \"bad\",\n \"plugins\": [}\n",
    )
    .unwrap();
    let error = refused(&["--network", "cni:bad"]);
    let file = format!("`{}` is wrong: ", chains.join("bad.conflist").display());
    assert!(error.contains(&file) && error.contains("at line 3 column"), "{error}");
    let error = refused(&["--network", "cni:lan", "-p", "8080:80"]);
    assert!(error.contains("`lan` publishes no ports") && error.contains("portmap"), "{error}");
    for (options, capability) in [
        (["--ip", "10.1.1.1"], "ips"),
        (["--mac-address", "02:00:00:00:00:01"], "mac"),
        (["--network-alias", "db"], "aliases"),
    ] {
        let error = refused(&[&["--network", "cni:lan"], options.as_slice()].concat());
        assert!(error.contains(&format!("none of its plugins declares `{capability}`")), "{error}");
    }
    for (one, other) in [("cni:lan", "cni:wan"), ("cni:lan", "bridge"), ("bridge", "cni:lan")] {
        let error = refused(&["--network", one, "--network", other]);
        assert!(error.contains("`cni:lan` is in no other one") && error.contains(other), "{error}");
    }
    assert!(refused(&["--network", "cni:lan:ip=10.1.1.1"]).contains("takes no options"));
    // A plugin that is not there is told with where it was looked for.
    room.chain("odd", &[json!({"type": "no-such-plugin"})]);
    let error = refused(&["--network", "cni:odd"]);
    assert!(error.contains("`no-such-plugin`") && error.contains(REAL), "{error}");
    assert_eq!(room.ok(&["ps", "-aq"]), "");
    assert!(room.names_in("root/cni").is_empty());
}

#[test]
fn chains_are_listed_and_shown_but_not_changed() {
    let room = room!();
    room.chain("lan", &[room.bridge(), portmap()]);
    let row =
        room.ok(&["network", "ls", "-f", "driver=cni", "--format", "{{.Name}} {{.Driver}} {{.Containers}}"]);
    assert_eq!(row, "cni:lan cni 0");
    let id = room.ok(&["network", "ls", "-q", "-f", "driver=cni"]);
    let shown: Value = serde_json::from_str(&room.ok(&["network", "inspect", &id])).unwrap();
    assert_eq!(shown[0]["Name"], "cni:lan");
    assert_eq!(shown[0]["Cni"]["plugins"], json!([room.bridge(), portmap()]));
    assert_eq!(shown[0]["Cni"]["File"], room.path("chains/lan.conflist").display().to_string());
    room.ok(&["network", "create", "own"]);
    room.ok(&["create", "--name", "c1", "--network", "cni:lan", "busybox", "true"]);
    for verb in
        [["rm", "cni:lan"].as_slice(), &["connect", "cni:lan", "c1"], &["disconnect", "cni:lan", "c1"]]
    {
        let error = room.fails(1, &[&["network"], verb].concat());
        assert!(error.contains("CNI network cni:lan") && error.contains("lan.conflist"), "{error}");
    }
    assert!(room.fails(1, &["network", "connect", "own", "c1"]).contains("c1"));
    assert!(room.ok(&["network", "prune", "-f"]).contains("own"));
    assert!(room.fails(1, &["network", "inspect", "cni:none"]).contains("there are: lan"));
}

#[test]
fn plugins_need_root() {
    let stanza = fixture!(Rootless);
    let error = stanza.fails(125, &["run", "--rm", "--network", "cni:lan", "busybox", "true"]);
    assert!(error.contains("`--network cni:lan` without root"), "{error}");
}
