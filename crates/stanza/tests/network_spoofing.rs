//! A container that is root and lies to its neighbours: what they believe, with the walls of stanza and, to prove that the lies
//! are good ones, without.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with, sockopt};
use stanza_test::{Stanza, in_network_of, skip, tool};

/// The network's gateways, which are its host.
const GATEWAY: &str = "10.234.0.1";
const GATEWAY6: &str = "fd00:94::1";

/// One who lies, one who hears it, and one who is lied about.
struct Scene {
    stanza: Stanza,
    bad: u32,
    good: u32,
}

/// Runs `ip` in a process's network.
fn ip(pid: u32, words: &str) -> String {
    let pid = pid.to_string();
    let all: Vec<&str> = ["nsenter", "-n", "-t", &pid, "ip"].into_iter().chain(words.split(' ')).collect();
    let done = tool(&all);
    assert_eq!(done.code, 0, "ip {words}: {}", done.stderr);
    done.stdout
}

fn endpoint(stanza: &Stanza, name: &str, field: &str) -> String {
    let found = stanza.inspect(name);
    let text = found["NetworkSettings"]["Networks"]["lan"][field].as_str();
    text.filter(|text| !text.is_empty()).expect("it is in the network").to_owned()
}

fn address6(stanza: &Stanza, name: &str) -> IpAddr {
    endpoint(stanza, name, "GlobalIPv6Address").parse().expect("an address")
}

fn mac(stanza: &Stanza, name: &str) -> String {
    endpoint(stanza, name, "MacAddress")
}

fn say(from: u32, source: SocketAddr, to: SocketAddr, text: &str) {
    let socket = in_network_of(from, || UdpSocket::bind(source)).expect("an address of its own");
    socket.send_to(text.as_bytes(), to).expect("it is sent");
}

impl Scene {
    fn new() -> Result<Scene, String> {
        let stanza = Stanza::new(env!("CARGO_BIN_EXE_stanza"), &[stanza_test::Wish::PrivateNetwork])?;
        let words = ["--ipv6", "--subnet=10.234.0.0/24", "--subnet=fd00:94::/64", "lan"];
        stanza.ok(&[&["network", "create"], &words[..]].concat());
        for name in ["bad", "good", "victim"] {
            stanza.ok(&["run", "-d", "--name", name, "--network", "lan", "busybox", "sleep", "1000"]);
        }
        let (bad, good) = (stanza.pid("bad"), stanza.pid("good"));
        // As careless as a neighbour can be.
        in_network_of(good, || {
            fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "2").expect("a setting");
            fs::write("/proc/sys/net/ipv4/neigh/eth0/locktime", "0").expect("a setting");
        });
        // Nobody needs to ask where the other one is.
        for address in [stanza.address("good", "lan"), address6(&stanza, "good")] {
            ip(
                bad,
                &format!("neigh replace {address} lladdr {} dev eth0 nud permanent", mac(&stanza, "good")),
            );
        }
        Ok(Scene { stanza, bad, good })
    }

    /// Whether what `lie` sends to a port of the neighbour's arrives; what is honest does.
    fn hears(&self, lie: impl FnOnce(SocketAddr), target: IpAddr) -> bool {
        let ear = in_network_of(self.good, || UdpSocket::bind((target, 0))).expect("a free port");
        let port = ear.local_addr().expect("an address");
        lie(port);
        let own =
            if target.is_ipv4() { self.stanza.address("bad", "lan") } else { address6(&self.stanza, "bad") };
        say(self.bad, (own, 0).into(), port, "honest");
        let (mut heard, mut buffer) = (Vec::new(), [0; 20]);
        ear.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        while let Ok(count) = ear.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
            // Another processor may have had the lie.
            ear.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        }
        assert!(heard.iter().any(|text| text == "honest"), "{heard:?}");
        heard.iter().any(|text| text == "lie")
    }

    /// From another one's address, or in a role that is not its own.
    fn hears_from(&self, claimed: &str, port: u16) -> bool {
        let source: IpAddr = claimed.parse().expect("an address");
        let (length, target) = match source {
            IpAddr::V4(_) => (32, self.stanza.address("good", "lan")),
            IpAddr::V6(_) => (128, address6(&self.stanza, "good")),
        };
        let nodad = if source.is_ipv6() { " nodad" } else { "" };
        let is_own = source == self.stanza.address("bad", "lan") || source == address6(&self.stanza, "bad");
        if !is_own {
            ip(self.bad, &format!("address replace {claimed}/{length} dev eth0{nodad}"));
        }
        let heard = self.hears(|to| say(self.bad, (source, port).into(), to, "lie"), target);
        if !is_own {
            ip(self.bad, &format!("address del {claimed}/{length} dev eth0"));
        }
        heard
    }

    /// With the victim's hardware address.
    fn hears_from_mac(&self) -> bool {
        let own: SocketAddr = (self.stanza.address("bad", "lan"), 0).into();
        let (mine, claimed) = (mac(&self.stanza, "bad"), mac(&self.stanza, "victim"));
        let lie = |to| {
            ip(self.bad, &format!("link set eth0 address {claimed}"));
            say(self.bad, own, to, "lie");
            ip(self.bad, &format!("link set eth0 address {mine}"));
        };
        self.hears(lie, self.stanza.address("good", "lan"))
    }

    /// Where the neighbour looks for the victim, after it was told that this is here.
    fn is_led_astray(&self) -> bool {
        let victim = self.stanza.address("victim", "lan").to_string();
        self.stanza.ok(&["exec", "good", "ping", "-c", "1", "-W", "3", &victim]);
        ip(self.bad, &format!("address add {victim}/32 dev eth0"));
        // It says that nobody answered.
        self.stanza.output(&["exec", "bad", "arping", "-A", "-c", "2", "-w", "3", "-I", "eth0", &victim]);
        let told = ip(self.good, &format!("neigh show {victim}"));
        ip(self.bad, &format!("address del {victim}/32 dev eth0"));
        ip(self.good, "neigh flush dev eth0");
        told.contains(&mac(&self.stanza, "bad"))
    }

    /// Whether the neighbour takes a router's advertisement.
    fn is_routed(&self) -> bool {
        // RFC 4861, 4.2: a hop limit of 64, for 1,800 seconds.
        let advert = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        let send = |_| {
            in_network_of(self.bad, || {
                let flags = SocketFlags::CLOEXEC;
                let kind = (AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6));
                let socket = socket_with(kind.0, kind.1, flags, kind.2).expect("a raw socket");
                sockopt::set_ipv6_multicast_hops(&socket, 255).expect("a setting");
                let index = fs::read_to_string("/proc/thread-self/net/if_inet6").expect("it is there");
                let line = index.lines().find(|line| line.ends_with("eth0")).expect("a device");
                let index = line.split_whitespace().nth(1).expect("its number");
                let scope = u32::from_str_radix(index, 16).expect("a number");
                let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                sendto(&socket, &advert, SendFlags::empty(), &SocketAddrV6::new(all, 0, 0, scope))
                    .expect("it is sent");
            });
        };
        self.hears(send, address6(&self.stanza, "good"));
        let is_routed = !ip(self.good, "-6 route show proto ra").is_empty();
        ip(self.good, "-6 route flush proto ra");
        is_routed
    }

    /// The lies that are believed.
    fn believed(&self) -> BTreeSet<&'static str> {
        let (own, own6) =
            (self.stanza.address("bad", "lan").to_string(), address6(&self.stanza, "bad").to_string());
        let (victim, victim6) =
            (self.stanza.address("victim", "lan").to_string(), address6(&self.stanza, "victim").to_string());
        [
            ("hardware address", self.hears_from_mac()),
            ("IPv4 address", self.hears_from(&victim, 0)),
            ("IPv6 address", self.hears_from(&victim6, 0)),
            ("ARP", self.is_led_astray()),
            ("router", self.is_routed()),
            ("DNS server", self.hears_from(GATEWAY, 53)),
            ("DNS server, IPv6", self.hears_from(GATEWAY6, 53)),
            ("DHCP server", self.hears_from(&own, 67)),
            ("DHCP server, IPv6", self.hears_from(&own6, 547)),
        ]
        .into_iter()
        .filter_map(|(name, is_believed)| is_believed.then_some(name))
        .collect()
    }
}

#[test]
fn no_lie_of_a_container_is_believed_by_its_neighbours() {
    let scene = match Scene::new() {
        Ok(scene) => scene,
        Err(reason) => skip!("{reason}"),
    };
    assert_eq!(scene.believed(), BTreeSet::new());
    let host = scene.stanza.network().expect("it was wished for");
    let gone = host.run(&["nft", "delete", "table", "bridge", "stanza"]);
    assert_eq!(gone.code, 0, "{}", gone.stderr);
    let all = [
        "hardware address",
        "IPv4 address",
        "IPv6 address",
        "ARP",
        "router",
        "DNS server",
        "DNS server, IPv6",
        "DHCP server",
        "DHCP server, IPv6",
    ];
    assert_eq!(scene.believed(), all.into());
    scene.stanza.ok(&["network", "reload", "--all"]);
    assert_eq!(scene.believed(), BTreeSet::new());
}
