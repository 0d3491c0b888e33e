//! A container that is root sends what is not its own: raw frames, made by hand.
//!
//! `python3` sends and hears them: a socket of frames needs an address that no safe interface has.

use super::*;

/// Sends the frame of its first line (hexadecimal) on eth0; with `hear` on its second it prints what came meanwhile.
const SEND: &str = "
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(('eth0', 0))
s.send(bytes.fromhex(sys.argv[1]))
";

/// Prints every frame with the mark in it until the last mark comes.
const HEAR: &str = "
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(('eth0', 0))
s.settimeout(10)
print('ready', flush=True)
while True:
    frame = s.recv(4096)
    at = frame.find(b'mark-')
    if at >= 0:
        name = frame[at + 5:].split(b'!')[0].decode()
        print(name, flush=True)
        if name == 'end':
            break
";

const BROADCAST: [u8; 6] = [255; 6];

/// One end of a conversation: a container's own addresses, or what it claims.
#[derive(Clone, Copy)]
struct Claim {
    mac: [u8; 6],
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

fn own(container: &Container) -> Claim {
    let mac = container.plan.endpoints[0].mac;
    Claim { mac, ipv4: container.address(), ipv6: container.address6() }
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let value = !u16::try_from(folded).unwrap();
    value.to_be_bytes()
}

/// UDP without a checksum.
fn udp_segment(from: u16, to: u16, mark: &str) -> Vec<u8> {
    let length = u16::try_from(8 + mark.len()).unwrap().to_be_bytes();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length, &[0, 0], mark.as_bytes()].concat()
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, 17, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, payload.to_vec()].concat()
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], next, 255];
    [&head[..], &from.octets(), &to.octets(), payload].concat()
}

/// An ICMPv6 message; the checksum is nobody's business on a bridge.
fn icmp6(from: Ipv6Addr, kind: u8, target: Ipv6Addr, mark: &str) -> Vec<u8> {
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let body = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), mark.as_bytes()].concat();
    ipv6(from, all, 58, &body)
}

fn arp(mac: [u8; 6], ip: Ipv4Addr, mark: &str) -> Vec<u8> {
    let target = Ipv4Addr::new(10, 77, 0, 9).octets();
    [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac, &ip.octets(), &[0; 6], &target, mark.as_bytes()].concat()
}

/// Sends the frames from one container and tells which of them, by name, came to the other.
fn heard(from: &Container, by: &Container, frames: &[(&str, Vec<u8>)]) -> Option<Vec<String>> {
    let mut listener = by
        .space
        .run(|| {
            Command::new("python3").args(["-c", HEAR]).stdout(Stdio::piped()).spawn().map_err(|error| {
                assert_eq!(error.kind(), io::ErrorKind::NotFound);
                skipped("there is no `python3` here");
            })
        })
        .ok()?;
    let mut output = io::BufReader::new(listener.stdout.take().unwrap());
    let mut line = String::new();
    io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let me = own(from);
    let end =
        ethernet(BROADCAST, me.mac, 0x0800, &ipv4(me.ipv4, by.address(), &udp_segment(9, 9, "mark-end!")));
    for frame in frames.iter().map(|(_, frame)| frame).chain([&end]) {
        let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        program(&from.space, &["python3", "-c", SEND, &digits], "")?;
    }
    let mut came = String::new();
    output.read_to_string(&mut came).unwrap();
    assert!(listener.wait().unwrap().success());
    let mut names: Vec<String> = came.lines().map(str::to_owned).collect();
    assert_eq!(names.pop().as_deref(), Some("end"));
    Some(names)
}

fn mark(name: &str) -> String {
    format!("mark-{name}!")
}

/// Every kind of frame that a container may send, or may not when it claims `claim` to be itself.
fn claims(claim: Claim, me: Claim, to: Ipv4Addr, to6: Ipv6Addr) -> Vec<(&'static str, Vec<u8>)> {
    let udp = |name: &str| udp_segment(53, 5353, &mark(name));
    let ether = |kind, payload: Vec<u8>| ethernet(BROADCAST, me.mac, kind, &payload);
    vec![
        ("mac", ethernet(BROADCAST, claim.mac, 0x0800, &ipv4(me.ipv4, to, &udp("mac")))),
        ("other", ethernet(BROADCAST, claim.mac, 0x88b5, mark("other").as_bytes())),
        ("ipv4", ether(0x0800, ipv4(claim.ipv4, to, &udp("ipv4")))),
        ("ipv6", ether(0x86dd, ipv6(claim.ipv6, to6, 17, &udp("ipv6")))),
        ("arp", ether(0x0806, arp(me.mac, claim.ipv4, &mark("arp")))),
        ("arp-mac", ether(0x0806, arp(claim.mac, me.ipv4, &mark("arp-mac")))),
        ("advert", ether(0x86dd, icmp6(me.ipv6, 136, claim.ipv6, &mark("advert")))),
    ]
}

#[test]
fn a_container_sends_from_its_own_addresses_only() {
    let Some(world) = World::new() else { return };
    let [bad, good, third] = [2, 3, 4].map(|last| world.start(plan6(network6(), last, &[])));
    let me = own(&bad);
    let frames = claims(me, me, good.address(), good.address6());
    let names: Vec<&str> = frames.iter().map(|(name, _)| *name).collect();
    let Some(came) = heard(&bad, &good, &frames) else { return };
    assert_eq!(came, names, "its own come through");

    let gateway = Claim { mac: mac_of(GATEWAY.into()), ipv4: GATEWAY, ipv6: GATEWAY6 };
    for claim in [own(&third), gateway] {
        let frames = claims(claim, me, good.address(), good.address6());
        assert_eq!(heard(&bad, &good, &frames).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_container_is_no_router_and_no_dhcp_server_and_still_multicasts() {
    let Some(world) = World::new() else { return };
    let bad = world.start(plan6(network6(), 2, &[]));
    let good = world.start(plan6(network6(), 3, &[]));
    let me = own(&bad);
    let ether = |to, kind, payload: Vec<u8>| ethernet(to, me.mac, kind, &payload);
    let all = BROADCAST;
    let advert = icmp6(me.ipv6, 134, me.ipv6, &mark("router"));
    // The same behind a header of options that says nothing.
    let hidden = {
        let inner = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &advert[40..]].concat();
        ipv6(me.ipv6, good.address6(), 0, &inner)
    };
    // The same in two tags, which a receiver takes off one by one.
    let tagged = |name: &str| {
        let inner = ipv4(GATEWAY, good.address(), &udp_segment(53, 5353, &mark(name)));
        [&[0, 0, 0x08, 0x00][..], &inner].concat()
    };
    let twice = [&[0, 0, 0x81, 0x00][..], &tagged("twice")].concat();
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let to_group = [1, 0, 0x5e, 1, 2, 3];
    let frames = [
        ("router", ether(all, 0x86dd, advert.clone())),
        ("hidden", ether(all, 0x86dd, hidden)),
        ("redirect", ether(all, 0x86dd, icmp6(me.ipv6, 137, me.ipv6, &mark("redirect")))),
        ("dhcp", ether(all, 0x0800, ipv4(me.ipv4, good.address(), &udp_segment(67, 68, &mark("dhcp"))))),
        (
            "dhcp6",
            ether(all, 0x86dd, ipv6(me.ipv6, good.address6(), 17, &udp_segment(547, 546, &mark("dhcp6")))),
        ),
        ("tagged", ether(all, 0x8100, tagged("tagged"))),
        ("twice", ether(all, 0x8100, twice)),
        ("multicast", ether(to_group, 0x0800, ipv4(me.ipv4, group, &udp_segment(9, 9, &mark("multicast"))))),
        (
            "broadcast",
            ether(all, 0x0800, ipv4(me.ipv4, Ipv4Addr::BROADCAST, &udp_segment(9, 9, &mark("broadcast")))),
        ),
        ("probe", ether(all, 0x0806, arp(me.mac, Ipv4Addr::UNSPECIFIED, &mark("probe")))),
    ];
    let Some(came) = heard(&bad, &good, &frames) else { return };
    assert_eq!(came, ["multicast", "broadcast", "probe"]);
}

/// The neighbour's entry in the cache is what an attack is about.
#[test]
fn a_neighbour_goes_on_to_reach_whom_it_means_while_another_claims_the_address() {
    let Some(world) = World::new() else { return };
    let [bad, good, victim] = [2, 3, 4].map(|last| world.start(plan6(network6(), last, &[])));
    serve_tcp(&victim.space, victim.address(), 80, "victim");
    serve_tcp(&bad.space, Ipv4Addr::UNSPECIFIED, 80, "bad");
    assert_eq!(ask_tcp(&good.space, victim.address(), 80).unwrap(), "victim 10.77.0.3");
    let claim = ethernet(BROADCAST, own(&bad).mac, 0x0806, &arp(own(&bad).mac, victim.address(), ""));
    let digits: String = claim.iter().map(|byte| format!("{byte:02x}")).collect();
    for _ in 0..3 {
        if program(&bad.space, &["python3", "-c", SEND, &digits], "").is_none() {
            return;
        }
    }
    // And by the means of the system: the address on its own device, announced.
    bad.space.run(|| {
        let mut conversation = Conversation::open(Family::Route).unwrap();
        give_address(&mut conversation, "eth0", victim.address(), "10.77.0.0/16".parse().unwrap());
    });
    assert_eq!(ask_tcp(&good.space, victim.address(), 80).unwrap(), "victim 10.77.0.3");
}
