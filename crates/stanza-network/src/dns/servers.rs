//! The servers that other names are asked of.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::net::netdevice::name_to_index;

use super::Upstream;

/// As many as the C library takes of a file, doubled for servers that a user named.
const MAX_SERVERS: usize = 6;
const PORT: u16 = 53;

/// What tells one state of a file from another: device, inode, size, time in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// The list, read anew when its file has changed.
#[derive(Debug)]
pub(super) struct Servers {
    upstream: Upstream,
    stamp: Option<Stamp>,
    list: Vec<SocketAddr>,
}

impl Servers {
    pub(super) fn new(upstream: Upstream) -> Servers {
        let list = match &upstream {
            Upstream::Servers(servers) => {
                servers.iter().map(|server| SocketAddr::new(*server, PORT)).take(MAX_SERVERS).collect()
            }
            Upstream::Host { .. } => Vec::new(),
        };
        Servers { upstream, stamp: None, list }
    }

    /// Whether they are those that `upstream` names.
    pub(super) fn are_of(&self, upstream: &Upstream) -> bool {
        self.upstream == *upstream
    }

    /// The servers as they are now; the boolean says that they are others than at the last look.
    pub(super) fn current(&mut self) -> (&[SocketAddr], bool) {
        let Upstream::Host { file } = &self.upstream else { return (&self.list, false) };
        let stamp = fs::metadata(file).ok().map(|file| stamp_of(&file));
        // A file that is just being replaced is there again soon: what was read is kept meanwhile.
        let changed = stamp.is_some() && stamp != self.stamp;
        if changed || self.list.is_empty() {
            self.stamp = stamp;
            self.list = read(file);
        }
        (&self.list, changed)
    }
}

fn stamp_of(file: &fs::Metadata) -> Stamp {
    (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec())
}

/// The name servers of a `resolv.conf`; without any it is this machine, as for the C library.
fn read(file: &Path) -> Vec<SocketAddr> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| parse(words.next()?))?
        })
        .take(MAX_SERVERS)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    }
    servers
}

/// An address, or `fe80::1%eth0`.
fn parse(text: &str) -> Option<SocketAddr> {
    let Some((address, device)) = text.split_once('%') else {
        return text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT));
    };
    let index = match device.parse() {
        Ok(index) => index,
        Err(_) => name_to_index(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?, device).ok()?,
    };
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_servers_are_read_again_when_the_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        let mut servers = Servers::new(Upstream::Host { file: file.clone() });
        let list =
            |servers: &mut Servers| servers.current().0.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(list(&mut servers), ["127.0.0.1:53"], "as the C library without a file");
        fs::write(&file, "# x\nnameserver 127.0.0.53\nnameserver fd00::1\nsearch lan\nnameserver nonsense\n")
            .unwrap();
        assert_eq!(list(&mut servers), ["127.0.0.53:53", "[fd00::1]:53"]);
        assert!(!servers.current().1);
        let new = directory.path().join("new");
        fs::write(&new, "nameserver fe80::1%1\n").unwrap();
        fs::rename(&new, &file).unwrap();
        assert_eq!(list(&mut servers), ["[fe80::1%1]:53"]);
        fs::remove_file(&file).unwrap();
        assert_eq!(list(&mut servers), ["[fe80::1%1]:53"], "it is being replaced");
    }

    #[test]
    fn servers_that_the_user_named_are_asked_in_their_order() {
        let named = ["9.9.9.9", "2620:fe::fe"].map(|text| text.parse().unwrap()).to_vec();
        let mut servers = Servers::new(Upstream::Servers(named));
        assert_eq!(servers.current().0.len(), 2);
        assert_eq!(servers.current().0[1].to_string(), "[2620:fe::fe]:53");
    }
}
