//! Real sockets on this machine's loopback: the proxy on a thread, a client on one side, a server on the other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy for one port; it ends when this is dropped.
struct Served {
    address: SocketAddr,
    owner: Option<UnixStream>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Served {
    fn new(socket: OwnedFd, address: SocketAddr, forward: Forward, limits: Limits) -> Served {
        let (owner, theirs) = UnixStream::pair().unwrap();
        let thread =
            thread::spawn(move || Proxy::new(vec![(socket, forward)], limits, theirs.as_fd())?.run());
        Served { address, owner: Some(owner), thread: Some(thread) }
    }

    fn tcp(target: SocketAddr, connections: usize) -> Served {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let forward = Forward { protocol: Protocol::Tcp, target };
        Served::new(listener.into(), address, forward, Limits { connections, flows: 1 })
    }

    fn udp(target: SocketAddr, flows: usize) -> Served {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let forward = Forward { protocol: Protocol::Udp, target };
        Served::new(socket.into(), address, forward, Limits { connections: 1, flows })
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.owner = None;
        let ended = self.thread.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Bytes that differ everywhere.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state >> 16).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn large_transfers_in_both_directions_at_once_arrive_byte_for_byte() {
    let (server, target) = listener();
    let proxy = Served::tcp(target, 8);
    let (up, down) = (pattern(24 << 20, 1), pattern(16 << 20, 2));
    thread::scope(|scope| {
        let (up, down) = (&up, &down);
        scope.spawn(move || {
            let (stream, _) = server.accept().unwrap();
            let mut writer = stream.try_clone().unwrap();
            thread::scope(|scope| {
                scope.spawn(move || {
                    writer.write_all(down).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut received = Vec::new();
                (&stream).read_to_end(&mut received).unwrap();
                assert!(received == *up, "{} bytes came up", received.len());
            });
        });
        let stream = proxy.connect();
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(up).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).unwrap();
        assert!(received == *down, "{} bytes came down", received.len());
    });
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let (server, target) = listener();
    let proxy = Served::tcp(target, 8);
    let answering = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut question = String::new();
        stream.read_to_string(&mut question).unwrap();
        // Only now, after the client's end, is anything said.
        stream.write_all(format!("{question} heard").as_bytes()).unwrap();
    });
    let mut stream = proxy.connect();
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "question heard");
    answering.join().unwrap();
}

#[test]
fn a_sender_waits_for_a_receiver_that_does_not_read() {
    let (server, target) = listener();
    let proxy = Served::tcp(target, 8);
    let stream = proxy.connect();
    let (mut receiver, _) = server.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let block = pattern(1 << 20, 3);
    let mut sent = 0;
    let mut quiet = 0;
    // What the kernel's buffers and one pipe hold goes; then nothing more does.
    while quiet < 20 {
        match (&stream).write(&block[sent % block.len()..]) {
            Ok(count) => {
                sent += count;
                quiet = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                quiet += 1;
                thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(sent < 64 << 20, "the proxy takes what nobody reads");
    }
    drop(stream);
    let mut received = Vec::new();
    receiver.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent);
    assert!(received.iter().zip(block.iter().cycle()).all(|(one, other)| one == other));
}

#[test]
fn a_port_that_nobody_listens_on_resets_its_client() {
    let (server, target) = listener();
    drop(server);
    let proxy = Served::tcp(target, 8);
    let mut stream = proxy.connect();
    let read = stream.read(&mut [0; 1]);
    assert!(matches!(&read, Err(error) if error.kind() == io::ErrorKind::ConnectionReset), "{read:?}");
}

#[test]
fn a_broken_connection_is_broken_on_the_other_side() {
    let (server, target) = listener();
    let proxy = Served::tcp(target, 8);
    let stream = proxy.connect();
    let (mut receiver, _) = server.accept().unwrap();
    sockopt_reset(&stream);
    drop(stream);
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let read = receiver.read(&mut [0; 1]);
    assert!(matches!(&read, Err(error) if error.kind() == io::ErrorKind::ConnectionReset), "{read:?}");
}

fn sockopt_reset(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn more_connections_than_there_is_room_for_wait_their_turn() {
    let (server, target) = listener();
    let proxy = Served::tcp(target, 2);
    let streams: Vec<TcpStream> = (0..5).map(|_| proxy.connect()).collect();
    for (number, mut stream) in streams.into_iter().enumerate() {
        let (mut accepted, _) = server.accept().unwrap();
        accepted.write_all(&[u8::try_from(number).unwrap()]).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(usize::from(byte[0]), number);
    }
}

#[test]
fn many_short_connections_all_get_their_own_answer() {
    let (server, target) = listener();
    let proxy = Served::tcp(target, 64);
    thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
            });
        }
    });
    for round in 0..300_u64 {
        let question = pattern(1 + usize::try_from(round * 37 % 3000).unwrap(), round);
        let mut stream = proxy.connect();
        stream.write_all(&question).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer == question, "round {round}");
    }
}

#[test]
fn datagrams_of_every_client_get_their_own_answers() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = server.local_addr().unwrap();
    let proxy = Served::udp(target, 16);
    let (sender, sources) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        while let Ok((count, source)) = server.recv_from(&mut buffer) {
            sender.send(source).unwrap();
            server.send_to(&buffer[..count], source).unwrap();
        }
    });
    let clients: Vec<UdpSocket> =
        (0..8).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    for round in 0..3_u64 {
        for (number, client) in (0..).zip(&clients) {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let datagram = pattern(if round == 2 { 60_000 } else { 100 }, round * 100 + number);
            client.send_to(&datagram, proxy.address).unwrap();
            let mut buffer = vec![0; 70_000];
            let (count, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(from, proxy.address);
            assert!(buffer[..count] == datagram);
        }
    }
    let mut all: Vec<SocketAddr> = sources.try_iter().collect();
    assert_eq!(all.len(), 24);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8, "a client keeps its flow");
}

#[test]
fn a_full_table_gives_up_the_flow_that_was_quiet_longest() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let proxy = Served::udp(server.local_addr().unwrap(), 2);
    let clients: Vec<UdpSocket> =
        (0..3).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let mut sources = Vec::new();
    for client in [0, 1, 0, 2, 0, 1] {
        clients[client].send_to(b"x", proxy.address).unwrap();
        sources.push(server.recv_from(&mut [0; 8]).unwrap().1);
    }
    assert_eq!(sources[0], sources[2]);
    assert_eq!(sources[0], sources[4], "used in between, it stays");
    assert_ne!(sources[1], sources[5], "the quiet one was given up");
}
