//! The three requests that a guest's network takes (rtnetlink(7)). `stanza-network` can say much more, for a program three times
//! as large.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const REQUEST_ACK: u16 = 0x1 | 0x4;
const CREATE_REPLACE: u16 = 0x400 | 0x100;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// The host has given the address to nobody else.
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const IFF_UP: u32 = 1;
/// The index of `lo` in every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// A conversation with the kernel, which answers each request at once.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
}

/// One request.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Message {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(REQUEST_ACK | flags).to_ne_bytes());
        // Sequence and port: there is one request at a time.
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(header);
        Message(bytes)
    }

    /// Headers are multiples of 4 bytes, and values are padded to that.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        // The values here are names, numbers and addresses.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn address(self, kind: u16, address: IpAddr) -> Message {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

impl Netlink {
    pub(super) fn open() -> io::Result<Netlink> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(Netlink { socket: socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)? })
    }

    /// Names a link that is down, and sets its largest packet.
    pub(super) fn name(&self, index: u32, name: &str, mtu: Option<u32>) -> io::Result<()> {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let mut message = Message::new(RTM_NEWLINK, 0, &link_header(index, 0)).attribute(IFLA_IFNAME, &text);
        if let Some(mtu) = mtu {
            message = message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.ask(message)
    }

    pub(super) fn bring_up(&self, index: u32) -> io::Result<()> {
        self.ask(Message::new(RTM_NEWLINK, 0, &link_header(index, IFF_UP)))
    }

    pub(super) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut header = [family(address), prefix, IFA_F_NODAD, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let mut message = Message::new(RTM_NEWADDR, CREATE_REPLACE, &header)
            .address(IFA_LOCAL, address)
            .address(IFA_ADDRESS, address);
        if let IpAddr::V4(address) = address
            && prefix < 31
        {
            let broadcast = u32::from(address) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            message = message.attribute(IFA_BROADCAST, &broadcast.to_be_bytes());
        }
        self.ask(message)
    }

    pub(super) fn add_route(&self, index: u32, to: (IpAddr, u8), gateway: Option<IpAddr>) -> io::Result<()> {
        const MAIN: u8 = 254;
        const BOOT: u8 = 3;
        const UNIVERSE: u8 = 0;
        const LINK: u8 = 253;
        const UNICAST: u8 = 1;
        let scope = if gateway.is_none() && to.0.is_ipv4() { LINK } else { UNIVERSE };
        let header = [family(to.0), to.1, 0, 0, MAIN, BOOT, scope, UNICAST, 0, 0, 0, 0];
        let mut message = Message::new(RTM_NEWROUTE, CREATE_REPLACE, &header)
            .address(RTA_DST, to.0)
            .attribute(RTA_OIF, &index.to_ne_bytes());
        if let Some(gateway) = gateway {
            message = message.address(RTA_GATEWAY, gateway);
        }
        self.ask(message)
    }

    fn ask(&self, message: Message) -> io::Result<()> {
        send(&self.socket, &message.finish(), SendFlags::empty())?;
        // `nlmsghdr`, then `nlmsgerr`, whose first word is the negative error number; the request follows.
        let mut answer = [0; 4096];
        let (count, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        let code = answer.get(16..20).filter(|_| count >= 20).and_then(|code| code.try_into().ok());
        match i32::from_ne_bytes(code.ok_or(io::ErrorKind::InvalidData)?) {
            0 => Ok(()),
            code => Err(Errno::from_raw_os_error(code.saturating_neg()).into()),
        }
    }
}
