//! A small DNS server for tests: knows names of IPv4 addresses, by UDP (cut where it is too much) and TCP.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::Network;

/// The largest answer by UDP (RFC 1035, 4.2.1).
const MAX_DATAGRAM: usize = 512;

/// What the server is asked: `udp` or `tcp`, and the name in lower case.
type Asked = Arc<Mutex<Vec<(&'static str, String)>>>;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct NameServer {
    stop: Arc<AtomicBool>,
    asked: Asked,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The answer to a query; names that are not `known` do not exist.
fn answer(query: &[u8], known: &[(String, Vec<Ipv4Addr>)]) -> Option<(String, Vec<u8>)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let name = labels.join(".");
    let kind = query.get(at..at + 2)?;
    let question = query.get(12..at + 4)?;
    let found = known.iter().find(|(known, _)| *known == name).map(|(_, addresses)| addresses);
    let addresses = found.filter(|_| kind == [0, 1]).map_or(&[][..], Vec::as_slice);
    let count = u16::try_from(addresses.len()).ok()?.to_be_bytes();
    let code = if found.is_some() { 0 } else { 3 };
    // The id, response and recursion, one question, the answers.
    let mut message = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0];
    message.extend(question);
    for address in addresses {
        // The question's name, A, IN, one minute, four bytes.
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(address.octets());
    }
    Some((name, message))
}

fn serve_stream(mut stream: TcpStream, known: &[(String, Vec<Ipv4Addr>)], asked: &Asked) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        let (name, message) = answer(&query, known)?;
        asked.lock().ok()?.push(("tcp", name));
        let length = u16::try_from(message.len()).ok()?.to_be_bytes();
        stream.write_all(&[&length[..], &message].concat()).ok()?;
    }
}

impl NameServer {
    /// Starts one on port 53 of an address of `network`.
    ///
    /// # Panics
    /// When the port cannot be had.
    #[must_use]
    pub fn start(network: &Network, address: IpAddr, known: &[(&str, Vec<Ipv4Addr>)]) -> NameServer {
        let known: Vec<_> = known.iter().map(|(name, found)| ((*name).to_owned(), found.clone())).collect();
        let known = Arc::new(known);
        let (udp, tcp) = network.enter(|| (UdpSocket::bind((address, 53)), TcpListener::bind((address, 53))));
        let (udp, tcp) = (udp.expect("the port is free"), tcp.expect("the port is free"));
        udp.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        tcp.set_nonblocking(true).expect("a plain socket");
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Asked::default();
        let datagrams = {
            let (stop, asked, known) = (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&known));
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((count, peer)) = udp.recv_from(&mut buffer) else { continue };
                    let Some((name, mut message)) = answer(&buffer[..count], &known) else { continue };
                    if message.len() > MAX_DATAGRAM {
                        // Truncated: no answers in it.
                        message[2] |= 2;
                        message[6..8].fill(0);
                        let question = name.len() + 2 + 4;
                        message.truncate(12 + question);
                    }
                    asked.lock().expect("no panic").push(("udp", name));
                    let _ = udp.send_to(&message, peer);
                }
            })
        };
        let streams = {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match tcp.accept() {
                        Ok((stream, _)) => {
                            let (known, asked) = (Arc::clone(&known), Arc::clone(&asked));
                            thread::spawn(move || serve_stream(stream, &known, &asked));
                        }
                        Err(_) => thread::sleep(Duration::from_millis(1)),
                    }
                }
            })
        };
        NameServer { stop, asked, threads: vec![datagrams, streams] }
    }

    /// What it was asked since the last time: `udp` or `tcp`, and the name.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn take_asked(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}
