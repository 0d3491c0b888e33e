//! Servers in a container's network, and what asks them from another one.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::{Stanza, in_network_of};

/// A server in a container's network: answers each connection with its peer's address. Its socket keeps the name space, so it
/// ends when dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TCP server on all of a container's addresses, of both families.
///
/// # Panics
/// When the container does not run, or has the port in use.
#[must_use]
pub fn serve_tcp(stanza: &Stanza, name: &str, port: u16) -> Server {
    let listener = in_network_of(stanza.pid(name), || {
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
    });
    let listener = listener.expect("the port is free");
    listener.set_nonblocking(true).expect("a plain socket");
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((mut stream, peer)) => drop(write!(stream, "{}", peer.ip().to_canonical())),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    });
    Server { stop, thread: Some(thread) }
}

/// What a TCP server at `to` says to a client in the network of the process `from`.
///
/// # Errors
/// When it is not reached within 3 seconds, or says nothing.
pub fn ask_tcp(from: u32, to: SocketAddr) -> std::io::Result<String> {
    in_network_of(from, || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

/// Whether a TCP server at `to` is reached at once from the network of the process `from`.
#[must_use]
pub fn reaches(from: u32, to: SocketAddr) -> bool {
    in_network_of(from, || TcpStream::connect_timeout(&to, Duration::from_millis(700)).is_ok())
}

/// What a UDP server at `to` answers a client in the network of the process `from`; datagrams that are lost are sent again.
///
/// # Errors
/// When there is no answer within 3 seconds.
pub fn ask_udp(from: u32, to: SocketAddr) -> std::io::Result<String> {
    in_network_of(from, || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.connect(to)?;
        let mut buffer = [0; 100];
        for _ in 0..6 {
            socket.send(b"ping")?;
            if let Ok(count) = socket.recv(&mut buffer) {
                return Ok(String::from_utf8_lossy(&buffer[..count]).into_owned());
            }
        }
        Err(std::io::ErrorKind::TimedOut.into())
    })
}

impl Stanza {
    /// The IPv4 address of a container in a network.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn address(&self, name: &str, network: &str) -> IpAddr {
        let container = self.inspect(name);
        let text =
            container["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().unwrap_or_default();
        text.parse().unwrap_or_else(|_| panic!("`{text}` is no address of `{name}` in `{network}`"))
    }
}
