//! Chains of real plugins (package `containernetworking-plugins`), and of scripts where a plugin is to misbehave.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use stanza_spec::Classify as _;
use stanza_test::{have, wait_until};

use super::*;
use crate::cni::{
    self, CniError, CniFiles, CniNetwork, CniPlaces, CniPlan, CniRequest, CniVersion, add, check, collect,
    del, leave, status,
};

const REAL: &str = "/usr/lib/cni";

/// A world with directories for configurations, scripts and records.
struct Stage {
    world: World,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Option<Stage> {
        if !Path::new(REAL).join("bridge").exists() || !have("iptables") {
            skipped("no CNI plugins (packages containernetworking-plugins, iptables)");
            return None;
        }
        Some(Stage { world: World::new()?, dir: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A plugin of our own: it writes its verb and input into `log`.
    fn script(&self, name: &str, body: &str) {
        fs::create_dir_all(self.path("bin")).unwrap();
        let log = self.path("log");
        let text = format!(
            "#!/bin/sh\ninput=$(cat)\necho \"$CNI_COMMAND {name} netns=$CNI_NETNS args=$CNI_ARGS $input\" >> {}\n{body}\n",
            log.display()
        );
        // Written under another name: a file that is open for writing cannot be executed.
        let (new, path) = (self.path("new"), self.path("bin").join(name));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn log(&self) -> Vec<String> {
        fs::read_to_string(self.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The verbs and plugins of the log, which is empty after this.
    fn calls(&self) -> Vec<String> {
        let calls =
            self.log().into_iter().map(|line| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" "));
        let calls = calls.collect();
        let _ = fs::remove_file(self.path("log"));
        calls
    }

    fn plan(&self, version: &str, plugins: &str) -> CniPlan {
        let config = self.path("net.d");
        fs::create_dir_all(&config).unwrap();
        let text = format!(r#"{{"cniVersion": "{version}", "name": "n", "plugins": [{plugins}]}}"#);
        fs::write(config.join("n.conflist"), text).unwrap();
        CniPlan {
            network: cni::find(&[config], "n").unwrap(),
            container: ContainerId::from_random([9; 32]),
            interface: "eth0".to_owned(),
            args: Vec::new(),
            request: CniRequest::default(),
            places: CniPlaces {
                plugin_dirs: vec![self.path("bin"), PathBuf::from(REAL)],
                results_dir: self.path("results"),
                time_limit: Duration::from_secs(20),
            },
            files: CniFiles::default(),
        }
    }

    fn bridge(&self) -> String {
        let leases = self.path("leases");
        format!(
            r#"{{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": {{"type": "host-local",
                "dataDir": "{}", "ranges": [[{{"subnet": "10.88.0.0/24"}}]],
                "routes": [{{"dst": "0.0.0.0/0"}}]}}}}"#,
            leases.display()
        )
    }

    fn leases(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("leases/n")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with("10.")).collect()
    }

    fn veths(&self) -> Vec<String> {
        self.world.inventory().0.into_iter().filter(|name| name.starts_with("veth")).collect()
    }

    fn records(&self) -> usize {
        let entries = fs::read_dir(self.path("results/n")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json")).count()
    }

    fn iptables(&self) -> String {
        self.world.host.run(|| {
            let output = Command::new("iptables-save").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        })
    }
}

fn holder_of(space: &Space) -> File {
    space.0.try_clone().unwrap()
}

/// What a client in `from` hears from a server on port 80 in `space`: the address it is seen by.
fn talk(space: &Space, from: &Space, to: (Ipv4Addr, u16)) -> IpAddr {
    let listener = space.run(|| TcpListener::bind(("0.0.0.0", 80)).unwrap());
    std::thread::scope(|scope| {
        let server = scope.spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
            peer.ip()
        });
        let heard = from.run(|| {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from(to), PATIENCE).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(heard, "hello");
        server.join().unwrap()
    })
}

#[test]
fn a_chain_of_real_plugins_gives_addresses_and_ports_and_leaves_nothing() {
    let Some(stage) = Stage::new() else { return };
    let tuning = stage.path("tuning");
    let chain = format!(
        r#"{}, {{"type": "portmap", "capabilities": {{"portMappings": true}}}},
           {{"type": "tuning", "capabilities": {{"mac": true}}, "dataDir": "{}"}}, {{"type": "firewall"}},
           {{"type": "bandwidth", "ingressRate": 80000000000, "ingressBurst": 800000000}}"#,
        stage.bridge(),
        tuning.display()
    );
    let mut plan = stage.plan("1.0.0", &chain);
    plan.request.mac = Some([2, 1, 1, 1, 1, 1]);
    plan.request.ports = vec![PortMap {
        host_range: None,
        host_ip: Some(HOST.into()),
        host_port: None,
        container_port: 80,
        protocol: Protocol::Tcp,
    }];
    let hosts = stage.path("hosts");
    fs::write(&hosts, "127.0.1.1\tbox\n").unwrap();
    plan.files = CniFiles {
        hosts: Some(hosts.clone()),
        names: vec!["box".to_owned()],
        gateway_names: vec!["host".to_owned()],
        resolv_conf: None,
    };
    let space = Space::new().unwrap();
    let before = stage.iptables();
    let attachment = stage.world.host.run(|| add(&plan, holder_of(&space))).unwrap();
    let address = Ipv4Addr::new(10, 88, 0, 2);
    let shown: Vec<_> = attachment.result().inside().map(|ip| (ip.address, ip.prefix, ip.gateway)).collect();
    assert_eq!(shown, [(address.into(), 24, Some(Ipv4Addr::new(10, 88, 0, 1).into()))]);
    let ip = attachment.result().inside().next().unwrap();
    assert_eq!(attachment.result().interface_of(ip).unwrap().mac, Some([2, 1, 1, 1, 1, 1]));
    assert_eq!(fs::read_to_string(hosts).unwrap(), "10.88.0.2\tbox\n10.88.0.1\thost\n");
    // Both ways, and by the published port with the client's own address.
    let port = attachment.ports()[0].host_port.unwrap();
    assert_eq!(talk(&space, &stage.world.outside, (HOST, port)), IpAddr::from(OUTSIDE));
    assert_eq!(talk(&stage.world.outside, &space, (OUTSIDE, 80)), IpAddr::from(address));
    assert_eq!((stage.leases().len(), stage.veths().len(), stage.records()), (1, 1, 1));
    let recorded = cni::recorded(&plan.places.results_dir, &plan.container);
    assert_eq!(recorded[0].1.as_ref(), Some(attachment.result()));
    let errors = stage.world.host.run(|| leave(attachment));
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!((stage.leases(), stage.veths(), stage.records()), (vec![], vec![], 0));
    let after = stage.iptables();
    assert!(!after.contains("10.88.0.2") && !after.contains(&port.to_string()), "{before}\n{after}");
    assert!(stage.world.host.run(|| del(&plan)).is_empty());
    assert!(matches!(stage.world.host.run(|| check(&plan)), Err(CniError::NotAttached { .. })));
}

#[test]
fn check_finds_an_address_that_somebody_took_away() {
    let Some(stage) = Stage::new() else { return };
    // Without `portmap`: the one of version 1.1 looks for IPv6 rules that it makes for no container with IPv4 alone.
    let chain = format!(r#"{}, {{"type": "firewall"}}"#, stage.bridge());
    let plan = stage.plan("1.0.0", &chain);
    let space = Space::new().unwrap();
    let attachment = stage.world.host.run(|| add(&plan, holder_of(&space))).unwrap();
    stage.world.host.run(|| check(&plan)).unwrap();
    let flush = ["address", "flush", "dev", "eth0"];
    space.run(|| assert!(Command::new("ip").args(flush).status().unwrap().success()));
    let error = stage.world.host.run(|| check(&plan)).unwrap_err();
    assert!(error.to_string().starts_with("CHECK of the CNI plugin `bridge`"), "{error}");
    let errors = stage.world.host.run(|| leave(attachment));
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn every_version_from_0_3_0_to_1_0_0_is_spoken_with_real_plugins_and_1_1_0_is_told_to_be_too_new() {
    let Some(stage) = Stage::new() else { return };
    for version in CniVersion::ALL {
        let plan = stage.plan(version.as_str(), &stage.bridge());
        let space = Space::new().unwrap();
        match stage.world.host.run(|| add(&plan, holder_of(&space))) {
            Ok(attachment) => {
                assert_eq!(attachment.result().inside().count(), 1, "{version:?}");
                let errors = stage.world.host.run(|| leave(attachment));
                assert!(errors.is_empty(), "{version:?}: {errors:?}");
            }
            // Debian's plugins before version 1.7.
            Err(error @ CniError::Failed { code: 1, .. }) if version == CniVersion::V1_1_0 => {
                assert!(error.hint().unwrap().contains("1.0.0: set `cniVersion`"), "{:?}", error.hint());
            }
            Err(error) => panic!("{version:?}: {error}"),
        }
        assert_eq!((stage.leases(), stage.veths()), (vec![], vec![]), "{version:?}");
    }
}

/// Answers ADD with an address, GC and STATUS with nothing.
const FINE: &str = r#"[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/16"}]}'
exit 0"#;

#[test]
fn a_chain_is_added_in_order_and_deleted_in_reverse_with_the_result_that_was_kept() {
    let Some(stage) = Stage::new() else { return };
    stage.script("one", FINE);
    stage.script("two", FINE);
    let mut plan =
        stage.plan("1.1.0", r#"{"type": "one", "capabilities": {"aliases": true}}, {"type": "two"}"#);
    plan.args = vec![("K8S_POD_NAME".to_owned(), "db-0".to_owned())];
    plan.request.aliases = vec!["db".to_owned()];
    let space = Space::new().unwrap();
    let attachment = stage.world.host.run(|| add(&plan, holder_of(&space))).unwrap();
    let log = stage.log();
    assert!(
        log[0].contains("args=K8S_POD_NAME=db-0") && log[0].contains(r#""runtimeConfig":{"aliases":["db"]}"#)
    );
    assert!(
        !log[0].contains("prevResult") && log[1].contains("10.1.0.2/16") && !log[1].contains("runtimeConfig")
    );
    assert!(log[0].contains(&format!("netns=/proc/{}/fd/", std::process::id())), "{log:?}");
    stage.calls();
    stage.world.host.run(|| check(&plan)).unwrap();
    stage.world.host.run(|| status(&plan.network, &plan.places)).unwrap();
    assert_eq!(stage.calls(), ["CHECK one", "CHECK two", "STATUS one", "STATUS two"]);
    // The configuration may have changed since: what was added counts.
    let errors = stage.world.host.run(|| leave(attachment));
    assert!(errors.is_empty(), "{errors:?}");
    assert!(stage.log().iter().all(|line| line.contains("prevResult") && line.contains("10.1.0.2/16")));
    assert_eq!(stage.calls(), ["DEL two", "DEL one"]);
}

#[test]
fn a_failure_is_told_in_the_plugins_words_and_the_whole_chain_is_deleted() {
    let Some(stage) = Stage::new() else { return };
    stage.script("one", FINE);
    let refuse = r#"[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion": "1.1.0", "code": 107, "msg": "no room", "details": "rack 3\u001b[2J"}'; exit 1"#;
    stage.script("two", refuse);
    let plan = stage.plan("1.1.0", r#"{"type": "one"}, {"type": "two"}"#);
    let space = Space::new().unwrap();
    let error = stage.world.host.run(|| add(&plan, holder_of(&space))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ADD of the CNI plugin `two` for the network `n` failed: no room: rack 3 [2J (code 107)"
    );
    assert_eq!(stage.calls(), ["ADD one", "ADD two", "DEL two", "DEL one"]);
    assert_eq!(stage.records(), 0);
}

#[test]
fn a_plugin_that_hangs_is_killed_with_what_it_started() {
    let Some(stage) = Stage::new() else { return };
    let pid = stage.path("pid");
    stage.script(
        "one",
        &format!("[ $CNI_COMMAND = ADD ] || exit 0\nsleep 1000 & echo $! > {}; wait", pid.display()),
    );
    let mut plan = stage.plan("1.1.0", r#"{"type": "one"}"#);
    plan.places.time_limit = Duration::from_secs(1);
    let space = Space::new().unwrap();
    let start = Instant::now();
    let error = stage.world.host.run(|| add(&plan, holder_of(&space))).unwrap_err();
    assert!(matches!(error, CniError::Late { seconds: 1, .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
    let pid = fs::read_to_string(pid).unwrap();
    wait_until("the plugin's child is dead", || is_dead(pid.trim()));
}

fn is_dead(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}

#[test]
fn gc_deletes_what_nobody_has_any_more_and_tells_plugins_who_is_left() {
    let Some(stage) = Stage::new() else { return };
    stage.script("one", FINE);
    let plan = stage.plan("1.1.0", r#"{"type": "one"}"#);
    let mut other = plan.clone();
    other.container = ContainerId::from_random([8; 32]);
    let (a, b) = (Space::new().unwrap(), Space::new().unwrap());
    let host = &stage.world.host;
    let _attached = host.run(|| (add(&plan, holder_of(&a)).unwrap(), add(&other, holder_of(&b)).unwrap()));
    stage.calls();
    let left = plan.container.clone();
    let errors = host.run(|| collect(&plan.network, &plan.places, || vec![(left, "eth0".to_owned())]));
    assert!(errors.is_empty(), "{errors:?}");
    let valid =
        format!(r#""cni.dev/valid-attachments":[{{"containerID":"{}","ifname":"eth0"}}]"#, plan.container);
    assert!(stage.log()[1].contains(&valid), "{:?}", stage.log());
    assert!(stage.log()[0].contains("netns= "), "{:?}", stage.log());
    assert_eq!(stage.calls(), ["DEL one", "GC one"]);
    assert_eq!(cni::attached(&plan.places.results_dir), [("n".to_owned(), plan.container.clone())]);
}

/// Runs in a process of its own, which the next test kills.
#[test]
#[ignore = "the child of the test below"]
fn adds_and_waits() {
    let Ok(plan) = std::env::var("STANZA_TEST_CNI_PLAN") else { return };
    let plan: CniPlan = serde_json::from_str(&plan).unwrap();
    let here = File::open("/proc/thread-self/ns/net").unwrap();
    let space = Space::new().unwrap();
    move_into_link_name_space(here.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    let _ = add(&plan, holder_of(&space));
}

#[test]
fn kill_9_in_the_middle_of_add_leaves_no_link_and_no_lease_after_del_or_gc() {
    let Some(stage) = Stage::new() else { return };
    let pid = stage.path("pid");
    stage.script(
        "slow",
        &format!("[ $CNI_COMMAND = ADD ] || exit 0\necho $$ > {}; exec sleep 1000", pid.display()),
    );
    let chain = format!(r#"{}, {{"type": "slow"}}"#, stage.bridge());
    let plan = stage.plan("1.0.0", &chain);
    type Clear = fn(&CniPlan) -> Vec<CniError>;
    let gc: Clear = |plan| {
        let network: &CniNetwork = &plan.network;
        collect(network, &plan.places, Vec::new)
    };
    for clear in [del as Clear, gc] {
        let _ = fs::remove_file(&pid);
        let netns = format!("--net=/proc/{}/fd/{}", std::process::id(), stage.world.host.0.as_raw_fd());
        let mut child = Command::new("nsenter")
            .arg(netns)
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "kernel_tests::cni::adds_and_waits"])
            .env("STANZA_TEST_CNI_PLAN", serde_json::to_string(&plan).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the second plugin runs", || {
            fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))
        });
        assert_eq!((stage.leases().len(), stage.records()), (1, 1));
        child.kill().unwrap();
        child.wait().unwrap();
        let plugin = fs::read_to_string(&pid).unwrap();
        wait_until("the plugin is dead", || is_dead(plugin.trim()));
        let errors = stage.world.host.run(|| clear(&plan));
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!((stage.leases(), stage.records()), (vec![], 0));
        wait_until("the link is gone with its name space", || stage.veths().is_empty());
    }
}
