//! A container's resolver, asked from inside the container, with servers on the host that tell the truth, or do not.

mod hostile;
mod neighbours;
mod servers;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::dns::{ADDRESS, Resolver, ResolverNetwork, ResolverPlan, Upstream};
use crate::names::Names;

/// Servers of the host.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 54);
/// What an honest server tells of any name.
const TOLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// A host whose container has a resolver, served as a monitor would.
struct Scene {
    host: Space,
    container: Space,
    directory: tempfile::TempDir,
    changes: Sender<ResolverPlan>,
    /// The longest turn, in microseconds.
    slowest: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

impl Scene {
    fn new(servers: &[Ipv4Addr]) -> Option<Scene> {
        Scene::with(Upstream::Servers(servers.iter().map(|server| (*server).into()).collect()))
    }

    /// A container in the networks `one` and `two`.
    fn with(upstream: Upstream) -> Option<Scene> {
        let Some(host) = Space::new() else {
            skipped("network name spaces may not be made here");
            return None;
        };
        let container = Space::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (changes, receiver) = channel::<ResolverPlan>();
        let (ready, is_ready) = channel();
        let networks = ["one", "two"].map(|name| network(&directory, name)).to_vec();
        let plan = ResolverPlan { networks, forward: true, upstream };
        let (here, inside) = (host.0.try_clone().unwrap(), container.0.try_clone().unwrap());
        let end = ended.clone();
        let slowest = Arc::new(AtomicUsize::new(0));
        let longest = slowest.clone();
        let server = std::thread::spawn(move || {
            move_into_link_name_space(here.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let start = Instant::now();
            let mut resolver = Resolver::open(&plan, inside.as_fd()).unwrap();
            ready.send(start.elapsed()).unwrap();
            let wait = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            while !end.load(Ordering::Relaxed) {
                while let Ok(plan) = receiver.try_recv() {
                    resolver.set_plan(&plan);
                }
                let questions = PollFd::from_borrowed_fd(resolver.questions(), PollFlags::IN);
                let mut sources = [questions, PollFd::new(&resolver, PollFlags::IN)];
                poll(&mut sources, Some(&wait)).unwrap();
                let [asked, other] = sources.map(|source| !source.revents().is_empty());
                let start = Instant::now();
                if asked {
                    resolver.answer();
                }
                if other {
                    resolver.turn();
                }
                let took = usize::try_from(start.elapsed().as_micros()).unwrap();
                longest.fetch_max(took, Ordering::Relaxed);
            }
        });
        report(&format!("a resolver is there after {:?}", is_ready.recv().unwrap()));
        Some(Scene { host, container, directory, changes, slowest, ended, server: Some(server) })
    }

    fn names(&self, network: &str) -> Names {
        Names::create(&self.directory.path().join(network)).unwrap()
    }

    /// Announces a container of that number.
    fn announce(&self, network: &str, number: u8, names: &[&str], addresses: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let id = ContainerId::from_random([number; 32]);
        self.names(network).announce(&id, &names, &addresses).unwrap();
    }

    /// Asks by UDP.
    fn ask(&self, name: &str, kind: RecordType) -> Message {
        let query = query(name, kind, None);
        Message::from_vec(&self.exchange(&query, PATIENCE * 3).unwrap()).unwrap()
    }

    fn exchange(&self, query: &[u8], wait: Duration) -> io::Result<Vec<u8>> {
        self.container.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((ADDRESS, 53))?;
            socket.set_read_timeout(Some(wait))?;
            socket.send(query)?;
            let mut buffer = vec![0; 65_535];
            let count = socket.recv(&mut buffer)?;
            buffer.truncate(count);
            Ok(buffer)
        })
    }

    /// Asks by TCP, all queries on one connection; the answers in the order in which they come.
    fn ask_stream(&self, queries: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.container.run(|| {
            let mut stream = TcpStream::connect((ADDRESS, 53)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let all: Vec<u8> = queries.iter().flat_map(|query| framed(query)).collect();
            // Cut anywhere, as packets may be.
            for part in all.chunks(11) {
                stream.write_all(part).unwrap();
            }
            queries.iter().map(|_| read_framed(&mut stream).unwrap()).collect()
        })
    }
}

fn network(directory: &tempfile::TempDir, name: &str) -> ResolverNetwork {
    let directory: PathBuf = directory.path().join(name);
    ResolverNetwork { id: name.to_owned(), name: name.to_owned(), directory, living: None }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    static NEXT: AtomicUsize = AtomicUsize::new(7);
    let id = u16::try_from(NEXT.fetch_add(1, Ordering::Relaxed) % 65_536).unwrap();
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// The addresses and names of an answer, as text.
fn told(message: &Message) -> BTreeSet<String> {
    let text = |record: &Record| match &record.data {
        RData::A(address) => address.0.to_string(),
        RData::AAAA(address) => address.0.to_string(),
        RData::PTR(name) => name.0.to_ascii(),
        other => format!("{other:?}"),
    };
    message.answers.iter().map(text).collect()
}

fn set<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.map(str::to_owned).into()
}

/// An honest answer: `count` addresses.
fn honest(query: &[u8], count: usize) -> Vec<u8> {
    let asked = Message::from_vec(query).unwrap();
    let mut answer = Message::response(asked.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(asked.queries[0].clone());
    let name = asked.queries[0].name();
    answer.add_answers((0..count).map(|_| Record::from_rdata(name.clone(), 60, RData::A(A(TOLD)))));
    answer.to_vec().unwrap()
}

/// A server on the host; `behave` gives what is sent for a query, one after the other. Counts its queries.
fn serve(
    host: &Space,
    address: Ipv4Addr,
    behave: impl Fn(&[u8], bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let (behave, count) = (Arc::new(behave), Arc::new(AtomicUsize::new(0)));
    host.run(|| {
        let (socket, listener) =
            (UdpSocket::bind((address, 53)).unwrap(), TcpListener::bind((address, 53)).unwrap());
        let (datagrams, counted) = (behave.clone(), count.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                counted.fetch_add(1, Ordering::Relaxed);
                for message in datagrams(&buffer[..length], false) {
                    let _ = socket.send_to(&message, from);
                }
            }
        });
        let counted = count.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Ok(query) = read_framed(&mut stream) else { continue };
                counted.fetch_add(1, Ordering::Relaxed);
                for message in behave(&query, true) {
                    let _ = stream.write_all(&framed(&message));
                }
            }
        });
    });
    count
}

#[expect(clippy::print_stderr, reason = "a measurement is for the person who runs the test")]
fn report(line: &str) {
    eprintln!("{line}");
}
