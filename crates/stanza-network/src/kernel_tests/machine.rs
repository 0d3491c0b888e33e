//! A virtual machine in a network: its cable ends in a descriptor, through which frames go as from a container's card.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::attach_machine;

/// What comes before each frame: `struct virtio_net_hdr`, of which nothing is used.
const HEADER: usize = 10;

/// An ARP request (or answer to itself) of `mac` with `sender` for `target`.
fn arp(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// Whether the gateway answers this request within the time.
fn is_answered(tap: &OwnedFd, request: &[u8], sender: Ipv4Addr, within: Duration) -> bool {
    rustix::io::write(tap, request).unwrap();
    let deadline = std::time::Instant::now() + within;
    let mut frame = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec::try_from(left).unwrap();
        if poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&left)).unwrap() == 0 {
            return false;
        }
        let count = rustix::io::read(tap, &mut frame).unwrap();
        let frame = &frame[HEADER..count];
        let is_answer = frame.get(12..14) == Some(&[0x08, 0x06]) && frame.get(21) == Some(&2);
        if is_answer && frame[28..32] == GATEWAY.octets() && frame[38..42] == sender.octets() {
            return true;
        }
    }
}

#[test]
fn a_machine_sends_frames_of_its_own_address_only_and_its_card_goes_with_it() {
    let Some(world) = World::new() else { return };
    let plan = plan(7, &[tcp(None, 8080, 80)]);
    let endpoint = &plan.endpoints[0];
    let (attachment, taps) = world.host.run(|| attach_machine(&plan).unwrap());
    assert_eq!((taps.len(), attachment.ports()[0].host_port), (1, Some(8080)));
    let tap = &taps[0];
    let (own, other) = (endpoint.ipv4.unwrap(), Ipv4Addr::new(10, 77, 0, 9));
    assert!(is_answered(tap, &arp(endpoint.mac, own, GATEWAY), own, PATIENCE));
    assert!(!is_answered(tap, &arp(endpoint.mac, other, GATEWAY), other, SILENCE));
    let mac = mac_of(other.into());
    assert!(!is_answered(tap, &arp(mac, other, GATEWAY), other, SILENCE));

    let exists = || {
        let mut route = Conversation::open(Family::Route).unwrap();
        route::link(&mut route, &endpoint.device).unwrap().is_some()
    };
    assert!(world.host.run(exists));
    drop((taps, attachment));
    assert!(!world.host.run(exists));
    // Again at once, and again while a dead machine's card is there.
    let (_, held) = world.host.run(|| attach_machine(&plan).unwrap());
    let (_, taps) = world.host.run(|| attach_machine(&plan).unwrap());
    drop(held);
    assert!(is_answered(&taps[0], &arp(endpoint.mac, own, GATEWAY), own, PATIENCE));
}

#[test]
fn a_machine_is_in_no_network_of_a_card() {
    let Some(world) = World::new() else { return };
    let mut plan = plan(7, &[]);
    plan.endpoints[0].network.driver =
        Driver::Macvlan { parent: String::new(), mode: crate::MacvlanMode::Bridge };
    let error = world.host.run(|| attach_machine(&plan).map(drop).unwrap_err());
    assert_eq!(
        error.to_string(),
        "a virtual machine cannot be in the network `bridge`, which is not a bridge"
    );
}
