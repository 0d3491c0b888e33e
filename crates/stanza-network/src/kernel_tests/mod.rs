//! What the real kernel does with it: traffic, teardown, races, speed.
//!
//! ```text
//!   outside 192.0.2.2   ---- 192.0.2.1   host 10.77.0.1  ---- 10.77.0.2…  containers
//!           2001:db8::2      2001:db8::1      fd00:77::1      fd00:77::2…
//! ```
//!
//! Every test makes these network name spaces for itself, on threads of its own (a network name space belongs to a
//! thread), so the machine's network is never seen, let alone touched. Without the right to make one the tests say
//! so and pass.

mod change;
mod cni;
mod dns;
mod firewall;
mod firewalld;
mod ipv6;
mod lifecycle;
mod machine;
mod ports;
mod reload;
mod spoofing;
mod traffic;
mod walls;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stanza_spec::{ContainerId, Protocol};

use crate::netlink::route::DefaultRoute;
use crate::netlink::route::{self, Device, LOOPBACK, VethPair};
use crate::netlink::{Conversation, Family, nftables};
use crate::{
    Attachment, Bridge, DEFAULT_BRIDGE, Driver, Endpoint, EndpointsPlan, Network, NetworkSubnet, PortMap,
    Publish, attach, device_of, mac_of,
};

/// The host's address towards the outside.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The outside client's address.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// How long a client waits for what must come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client waits for what must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// A network name space that this test made.
struct Space(File);

impl Space {
    /// A new one with loopback up; `None` without the right to make one.
    fn new() -> Option<Space> {
        std::thread::spawn(|| match stanza_sys::unshare(stanza_sys::CloneFlags::NETWORK) {
            Ok(()) => {
                stanza_sys::bring_up_loopback().unwrap();
                Some(Space(File::open("/proc/thread-self/ns/net").unwrap()))
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => panic!("no network name space: {error}"),
        })
        .join()
        .unwrap()
    }

    /// Runs `task` on a thread in this name space.
    fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                    task()
                })
                .join()
                .unwrap()
        })
    }
}

/// A host with a neighbour.
struct World {
    host: Space,
    outside: Space,
}

/// A container of the world.
struct Container {
    space: Space,
    plan: EndpointsPlan,
    attachment: Attachment,
}

impl World {
    fn new() -> Option<World> {
        let Some(host) = Space::new() else {
            skipped("network name spaces may not be made here");
            return None;
        };
        let outside = Space::new().unwrap();
        let subnet = "192.0.2.0/24".parse().unwrap();
        let subnet6 = "2001:db8::/64".parse().unwrap();
        // Who forwards for others asks for its neighbours from the link's own address.
        let link6 = "fe80::/64".parse().unwrap();
        host.run(|| {
            let mut conversation = Conversation::open(Family::Route).unwrap();
            let mut batch = conversation.batch();
            let pair = VethPair {
                name: "wan0",
                master: 0,
                peer_name: "eth0",
                peer_mac: [2, 0, 0, 0, 0, 2],
                peer_netns: outside.0.as_fd(),
                mtu: 1500,
            };
            route::create_veth(&mut batch, &pair);
            conversation.commit_all(batch).unwrap();
            give_address(&mut conversation, "wan0", HOST, subnet);
            give_address(&mut conversation, "wan0", HOST6, subnet6);
            give_address(&mut conversation, "wan0", link6_host(1), link6);
        });
        outside.run(|| {
            let mut conversation = Conversation::open(Family::Route).unwrap();
            give_address(&mut conversation, "eth0", OUTSIDE, subnet);
            give_address(&mut conversation, "eth0", OUTSIDE6, subnet6);
            give_address(&mut conversation, "eth0", link6_host(2), link6);
            // The neighbour tries the host as a way to everything: what it must not reach, it could.
            let mut batch = conversation.batch();
            let index = route::link(&mut conversation, "eth0").unwrap().unwrap().index;
            route::add_default_route(&mut batch, index, DefaultRoute::Gateway(HOST.into()));
            route::add_default_route(&mut batch, index, DefaultRoute::Gateway(HOST6.into()));
            conversation.commit_all(batch).unwrap();
        });
        Some(World { host, outside })
    }

    /// A container with the address 10.77.0.`last`.
    fn container(&self, last: u8, ports: &[PortMap]) -> Container {
        self.start(plan(last, ports))
    }

    /// A container of that plan.
    fn start(&self, plan: EndpointsPlan) -> Container {
        let space = Space::new().unwrap();
        let attachment = self.host.run(|| attach(&plan, space.0.as_fd())).unwrap();
        Container { space, plan, attachment }
    }

    /// Whether bridged packets pass IPv4's hooks as well; `None` on a kernel without `br_netfilter`.
    fn filter_bridged(&self, yes: bool) -> Option<()> {
        let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        self.host.run(|| std::fs::write(path, if yes { "1" } else { "0" })).ok()
    }

    /// What the host has: devices and published ports.
    fn inventory(&self) -> (Vec<String>, Vec<Vec<u8>>) {
        self.host.run(|| {
            let mut conversation = Conversation::open(Family::Route).unwrap();
            let mut links: Vec<_> =
                route::links(&mut conversation).unwrap().into_iter().map(|link| link.name).collect();
            links.sort();
            let mut netfilter = Conversation::open(Family::Netfilter).unwrap();
            let found = crate::rules::published(&mut netfilter, &|_| true).unwrap();
            let led = found.into_iter().filter(|published| published.element.set.name.contains("ports"));
            (links, led.map(|published| published.element.key).collect())
        })
    }
}

fn link6_host(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)
}

fn give_address(
    conversation: &mut Conversation,
    device: &str,
    address: impl Into<IpAddr>,
    subnet: crate::Subnet,
) {
    let index = route::link(conversation, device).unwrap().unwrap().index;
    let mut batch = conversation.batch();
    route::silence_ipv6(&mut batch, Device::Index(index));
    route::add_address(&mut batch, index, address.into(), subnet);
    route::bring_up(&mut batch, Device::Index(index));
    conversation.commit_all(batch).unwrap();
}

/// Lets this name space send packets for 127.0.0.1 out, and take the answers, as an attacker would.
fn without_loopback(space: &Space) {
    space.run(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        let mut conversation = Conversation::open(Family::Route).unwrap();
        let mut batch = conversation.batch();
        route::delete_address(&mut batch, LOOPBACK, LOCALHOST.into(), 8);
        conversation.commit_all(batch).unwrap();
    });
}

fn network() -> Network {
    Network {
        id: "5".repeat(64),
        name: "bridge".to_owned(),
        driver: Driver::Bridge(Bridge {
            device: DEFAULT_BRIDGE.to_owned(),
            masquerade: true,
            peers: true,
            vlan: None,
        }),
        subnets: vec![subnet("10.77.0.0/16", "10.77.0.1")],
        mtu: None,
        internal: false,
    }
}

/// The network with subnets of both families.
fn network6() -> Network {
    let mut network = network();
    network.subnets.push(subnet("fd00:77::/64", "fd00:77::1"));
    network
}

/// Another one, made like `like`: 10.`number`.0.0/16 and fd00:`number`::/64 (in decimal digits).
fn other_network(like: Network, number: u8) -> Network {
    let Driver::Bridge(bridge) = like.driver else { panic!("a bridge") };
    Network {
        id: format!("{number:064}"),
        name: format!("net{number}"),
        driver: Driver::Bridge(Bridge { device: format!("st{number}"), ..bridge }),
        subnets: vec![
            subnet(&format!("10.{number}.0.0/16"), &format!("10.{number}.0.1")),
            subnet(&format!("fd00:{number}::/64"), &format!("fd00:{number}::1")),
        ],
        ..like
    }
}

fn subnet(subnet: &str, gateway: &str) -> NetworkSubnet {
    NetworkSubnet {
        subnet: subnet.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        range: None,
        reserved: Vec::new(),
    }
}

fn plan(last: u8, ports: &[PortMap]) -> EndpointsPlan {
    plan_in(network(), Ipv4Addr::new(10, 77, 0, last), ports)
}

/// A container with that address as its only one; its id follows from the address.
fn plan_in(network: Network, address: Ipv4Addr, ports: &[PortMap]) -> EndpointsPlan {
    let container = ContainerId::from_random([address.octets()[3]; 32]);
    let endpoint = Endpoint {
        device: device_of(&container, &network.id),
        network,
        interface: "eth0".to_owned(),
        ipv4: Some(address),
        ipv6: None,
        mac: mac_of(address.into()),
        names: Vec::new(),
        default_route: true,
    };
    EndpointsPlan {
        container,
        endpoints: vec![endpoint],
        ports: ports.to_vec(),
        publish: Publish::Open,
        resolver: None,
        shared: None,
    }
}

/// A container in a network with both families: the `last` host of each subnet.
fn plan6(network: Network, last: u8, ports: &[PortMap]) -> EndpointsPlan {
    let nth = |at: usize| network.subnets[at].subnet.nth(last.into()).unwrap();
    let (IpAddr::V4(ipv4), IpAddr::V6(ipv6)) = (nth(0), nth(1)) else { panic!("IPv4 and IPv6") };
    let mut plan = plan_in(network, ipv4, ports);
    plan.endpoints[0].ipv6 = Some(ipv6);
    plan
}

impl Container {
    /// Its IPv6 address.
    fn address6(&self) -> Ipv6Addr {
        self.plan.endpoints[0].ipv6.unwrap()
    }

    /// Its IPv4 address.
    fn address(&self) -> Ipv4Addr {
        self.plan.endpoints[0].ipv4.unwrap()
    }
}

/// A port on an address of either family.
fn on(host_ip: impl Into<IpAddr>, port: PortMap) -> PortMap {
    PortMap { host_ip: Some(host_ip.into()), ..port }
}

fn tcp(host_ip: Option<Ipv4Addr>, host_port: u16, container_port: u16) -> PortMap {
    PortMap {
        host_ip: host_ip.map(IpAddr::V4),
        host_port: Some(host_port),
        host_range: None,
        container_port,
        protocol: Protocol::Tcp,
    }
}

fn udp(host_ip: Option<Ipv4Addr>, host_port: u16, container_port: u16) -> PortMap {
    PortMap { protocol: Protocol::Udp, ..tcp(host_ip, host_port, container_port) }
}

/// A server that answers every TCP client with its own name and the client's address; ends with the test.
fn serve_tcp(space: &Space, address: impl Into<IpAddr>, port: u16, name: &'static str) {
    let address = address.into();
    space.run(|| {
        let listener = TcpListener::bind((address, port)).unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(mut client) = client else { return };
                let peer = client.peer_addr().unwrap().ip();
                let _ = client.write_all(format!("{name} {peer}").as_bytes());
            }
        });
    });
}

/// The same for UDP.
fn serve_udp(space: &Space, address: impl Into<IpAddr>, port: u16, name: &'static str) {
    let address = address.into();
    space.run(|| {
        let socket = UdpSocket::bind((address, port)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
    });
}

/// What the TCP server at that address says.
fn ask_tcp(space: &Space, address: impl Into<IpAddr>, port: u16) -> io::Result<String> {
    ask_tcp_for(space, address, port, PATIENCE)
}

fn ask_tcp_for(space: &Space, address: impl Into<IpAddr>, port: u16, wait: Duration) -> io::Result<String> {
    let address = SocketAddr::new(address.into(), port);
    space.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, wait)?;
        stream.set_read_timeout(Some(wait))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// What the UDP server at that address says.
fn ask_udp(space: &Space, address: impl Into<IpAddr>, port: u16) -> io::Result<String> {
    ask_udp_for(space, address, port, PATIENCE)
}

fn ask_udp_for(space: &Space, address: impl Into<IpAddr>, port: u16, wait: Duration) -> io::Result<String> {
    let address = address.into();
    let any =
        if address.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
    space.run(|| ask_udp_from(&UdpSocket::bind((any, 0))?, address, port, wait))
}

fn ask_udp_from(
    socket: &UdpSocket,
    address: impl Into<IpAddr>,
    port: u16,
    wait: Duration,
) -> io::Result<String> {
    let address = address.into();
    socket.set_read_timeout(Some(wait))?;
    socket.send_to(b"?", (address, port))?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, SocketAddr::new(address, port));
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[expect(clippy::print_stderr, reason = "a test that could not run says why")]
fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Runs a program in a name space, with this as its input, and returns what it printed; `None` when there is no such program.
fn program(space: &Space, words: &[&str], input: &str) -> Option<String> {
    let output = space.run(|| {
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| assert_eq!(error.kind(), io::ErrorKind::NotFound, "{words:?}: {error}"))
            .ok()?;
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Some(child.wait_with_output().unwrap())
    });
    let Some(output) = output else {
        skipped(&format!("there is no `{}` here", words[0]));
        return None;
    };
    assert!(output.status.success(), "{words:?} {input}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Changes the rules as an administrator would.
fn nft(space: &Space, rules: &str) -> Option<String> {
    // `nft` wants a line's end, or more, after each block.
    program(space, &["nft", "-f", "-"], &rules.replace('}', "}\n"))
}
