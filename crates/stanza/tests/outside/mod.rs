//! What the tests of networks without root are played in: a name space that stands for the host, one for what is outside of it,
//! and servers and clients in both.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use stanza_test::{Network, Stanza, have, in_network_of};

pub(crate) const HOST: &str = "192.0.2.1";
pub(crate) const GATEWAY: &str = "192.0.2.2";
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// What is outside: the host's gateway. On the host users may make tap devices, which not every machine lets them.
pub(crate) fn outside(stanza: &Stanza) -> Result<Network, String> {
    for program in ["pasta", "slirp4netns"] {
        if !have(program) {
            return Err(format!("no `{program}` (packages passt, slirp4netns)"));
        }
    }
    let host = stanza.network().ok_or("no network")?;
    let outside = Network::private()?;
    host.connect("wire", &format!("{HOST}/24"), &outside, &format!("{GATEWAY}/24"));
    let tun = stanza.directory().join("tun").display().to_string();
    for words in [
        vec!["ip", "route", "add", "default", "via", GATEWAY],
        vec!["mknod", "-m", "666", &tun, "c", "10", "200"],
        vec!["mount", "--bind", &tun, "/dev/net/tun"],
    ] {
        let done = host.run(&words);
        if done.code != 0 {
            return Err(format!("{words:?}: {}", done.stderr));
        }
    }
    Ok(outside)
}

pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Serves `text` and the client's address to one connection after the other, in the network of a process.
///
/// The client speaks first: pasta of 2023 (Debian 12) does not tell the container that a connection from elsewhere than
/// loopback is there until the client has sent something.
pub(crate) fn serve_tcp(pid: u32, address: &str, port: u16, text: &'static str) {
    let listener = in_network_of(pid, || TcpListener::bind(at(address, port)).expect("the port is free"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
            let _ = stream.read_exact(&mut [0; 5]);
            let _ = write!(stream, "{text} {peer}");
        }
    });
}

pub(crate) fn serve_udp(pid: u32, address: &str, port: u16, text: &'static str) {
    let socket = in_network_of(pid, || UdpSocket::bind(at(address, port)).expect("the port is free"));
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{text} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

pub(crate) fn ask_tcp(pid: u32, to: SocketAddr) -> std::io::Result<String> {
    in_network_of(pid, || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"hello")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

pub(crate) fn ask_udp(pid: u32, to: SocketAddr) -> std::io::Result<String> {
    in_network_of(pid, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"ping", to)?;
        let mut buffer = [0; 100];
        let count = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
    })
}

pub(crate) fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie only waits for its parent to look.
    !Path::new(&format!("/proc/{pid}")).exists() || stat.contains(") Z ")
}
