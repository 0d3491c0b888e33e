//! A container's resolver, asked from inside the container, with servers on the host that tell the truth, or do not.

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
                if poll(&mut [PollFd::new(&resolver, PollFlags::IN)], Some(&wait)).unwrap() > 0 {
                    let start = Instant::now();
                    resolver.turn();
                    let took = usize::try_from(start.elapsed().as_micros()).unwrap();
                    longest.fetch_max(took, Ordering::Relaxed);
                }
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

#[test]
fn a_neighbour_is_told_by_every_name_of_both_families_and_by_udp_and_tcp() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web", "w"], &["10.77.0.2", "fd00::2"]);
    for name in ["web.", "WEB.", "w.", "web.one.", "Web.One."] {
        assert_eq!(told(&scene.ask(name, RecordType::A)), set(["10.77.0.2"]), "{name}");
        assert_eq!(told(&scene.ask(name, RecordType::AAAA)), set(["fd00::2"]), "{name}");
        assert_eq!(told(&scene.ask(name, RecordType::ANY)), set(["10.77.0.2", "fd00::2"]), "{name}");
    }
    let answer = scene.ask("wEb.", RecordType::A);
    assert_eq!(answer.queries[0].name().to_ascii(), "wEb.", "as it was written");
    assert!(answer.metadata.recursion_available && answer.answers[0].ttl <= 1);
    for name in ["2.0.77.10.in-addr.arpa.", &Name::from("fd00::2".parse::<IpAddr>().unwrap()).to_ascii()] {
        assert_eq!(told(&scene.ask(name, RecordType::PTR)), set(["web.one."]), "{name}");
    }
    let queries = [RecordType::A, RecordType::AAAA].map(|kind| query("web.", kind, None));
    let answers: BTreeSet<String> = scene
        .ask_stream(&queries)
        .iter()
        .flat_map(|bytes| told(&Message::from_vec(bytes).unwrap()))
        .collect();
    assert_eq!(answers, set(["10.77.0.2", "fd00::2"]));
}

#[test]
fn what_a_neighbour_has_not_is_an_empty_answer_and_nobody_else_is_asked() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    let asked = serve(&scene.host, FIRST, |query, _| vec![honest(query, 1)]);
    scene.announce("one", 1, &["four"], &["10.77.0.2"]);
    for kind in [RecordType::AAAA, RecordType::MX, RecordType::TXT, RecordType::HTTPS] {
        let answer = scene.ask("four.", kind);
        assert_eq!(
            (answer.metadata.response_code, answer.answers.len()),
            (ResponseCode::NoError, 0),
            "{kind}"
        );
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_container_hears_of_its_own_networks_only_and_of_changes_at_once() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    scene.announce("two", 2, &["web", "db"], &["10.78.0.2"]);
    scene.announce("three", 3, &["secret"], &["10.79.0.2"]);
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.2"]), "the first network counts");
    assert_eq!(told(&scene.ask("web.two.", RecordType::A)), set(["10.78.0.2"]));
    assert_eq!(told(&scene.ask("db.", RecordType::A)), set(["10.78.0.2"]));
    let networks = vec![network(&scene.directory, "one")];
    let plan = ResolverPlan { networks, forward: false, upstream: Upstream::Servers(Vec::new()) };
    scene.changes.send(plan).unwrap();
    let end = Instant::now() + PATIENCE;
    while scene.ask("db.", RecordType::A).metadata.response_code != ResponseCode::NXDomain {
        assert!(Instant::now() < end, "the network is left");
    }
    for name in ["db.", "web.two.", "secret.", "secret.three.", "2.0.79.10.in-addr.arpa."] {
        let answer = scene.ask(name, RecordType::ANY);
        assert_eq!(
            (answer.metadata.response_code, told(&answer)),
            (ResponseCode::NXDomain, set([])),
            "{name}"
        );
    }
    scene.announce("one", 1, &["web"], &["10.77.0.9"]);
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.9"]));
    let id = ContainerId::from_random([1; 32]);
    scene.names("one").withdraw(&id, &["web".to_owned()], &["10.77.0.9".parse().unwrap()]).unwrap();
    assert_eq!(scene.ask("web.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn other_names_are_asked_of_the_hosts_servers_on_its_loopback_also_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {FIRST}\n")).unwrap();
    let Some(scene) = Scene::with(Upstream::Host { file: file.clone() }) else { return };
    let [first, second] = [FIRST, SECOND].map(|at| serve(&scene.host, at, |query, _| vec![honest(query, 1)]));
    assert_eq!(told(&scene.ask("example.com.", RecordType::A)), set(["192.0.2.77"]));
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (1, 0));
    let new = directory.path().join("new");
    std::fs::write(&new, format!("nameserver {SECOND}\n")).unwrap();
    std::fs::rename(&new, &file).unwrap();
    assert_eq!(told(&scene.ask("example.com.", RecordType::A)), set(["192.0.2.77"]));
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (1, 1));
    // By TCP they are asked by TCP.
    let answers = scene.ask_stream(&[query("example.com.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["192.0.2.77"]));
    assert_eq!(second.load(Ordering::Relaxed), 2);
}

#[test]
fn an_answer_comes_as_the_server_wrote_it_but_for_the_id() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    let answer = |query: &[u8]| {
        let mut message = Message::from_vec(&honest(query, 2)).unwrap();
        let name = message.queries[0].name().clone();
        let text = TXT::new(vec!["x".repeat(99)]);
        message.add_additional(Record::from_rdata(name, 4_711, RData::TXT(text)));
        message.metadata.authentic_data = true;
        message.to_vec().unwrap()
    };
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = seen.clone();
    serve(&scene.host, FIRST, move |query, _| {
        kept.lock().unwrap().push(query[..2].to_vec());
        vec![answer(query)]
    });
    let mut differ = 0;
    for _ in 0..8 {
        let query = query("example.com.", RecordType::A, None);
        assert_eq!(scene.exchange(&query, PATIENCE).unwrap(), answer(&query));
        differ += usize::from(seen.lock().unwrap().pop().unwrap() != query[..2]);
    }
    assert!(differ >= 7, "ids are drawn anew");
}

/// Whoever guesses neither id nor question is not heard; who is behind the right ones is.
#[test]
fn answers_with_another_id_or_another_question_are_not_listened_to() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    serve(&scene.host, FIRST, |query, _| {
        let right = honest(query, 1);
        let change = |at: usize| {
            let mut wrong = honest(query, 3);
            wrong[at] ^= 1;
            wrong
        };
        let mut other_type = honest(query, 3);
        other_type[12 + 13 + 1] = 28;
        let not_an_answer = change(2);
        let mut query_again = query.to_vec();
        query_again[2] &= 0x7f;
        vec![
            change(1),
            change(13),
            other_type,
            vec![],
            vec![0; 5],
            query_again,
            not_an_answer[..11].to_vec(),
            right,
        ]
    });
    assert_eq!(scene.ask("example.com.", RecordType::A).answers.len(), 1);
}

#[test]
fn a_server_that_is_dead_slow_or_refuses_costs_its_time_once_and_the_next_one_answers() {
    let Some(scene) = Scene::new(&[FIRST, SECOND]) else { return };
    // Silence: nobody knows whether it comes.
    let first = serve(&scene.host, FIRST, |_, _| Vec::new());
    serve(&scene.host, SECOND, |query, _| vec![honest(query, 1)]);
    let start = Instant::now();
    assert_eq!(told(&scene.ask("a.example.", RecordType::A)), set(["192.0.2.77"]));
    let slow = start.elapsed();
    assert!(slow > Duration::from_millis(1_900) && slow < Duration::from_secs(4), "{slow:?}");
    let start = Instant::now();
    assert_eq!(told(&scene.ask("b.example.", RecordType::A)), set(["192.0.2.77"]));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(first.load(Ordering::Relaxed), 1);
}

#[test]
fn a_closed_port_and_a_refusal_lead_to_the_next_server_at_once() {
    let third = Ipv4Addr::new(127, 0, 0, 55);
    let Some(scene) = Scene::new(&[FIRST, SECOND, third]) else { return };
    // Nobody at the first; the second refuses, without repeating the question.
    serve(&scene.host, SECOND, |query, _| {
        let mut refusal = query[..12].to_vec();
        refusal[2] |= 0x80;
        refusal[3] = 5;
        refusal[4..12].fill(0);
        vec![refusal]
    });
    serve(&scene.host, third, |query, _| vec![honest(query, 1)]);
    let start = Instant::now();
    assert_eq!(told(&scene.ask("a.example.", RecordType::A)), set(["192.0.2.77"]));
    let answers = scene.ask_stream(&[query("b.example.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["192.0.2.77"]));
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
}

#[test]
fn without_any_server_that_can_tell_the_answer_is_servfail() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    let answer = scene.ask("a.example.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(answer.queries[0].name().to_ascii(), "a.example.");
}

#[test]
fn large_answers_are_cut_by_udp_to_what_the_client_takes_and_whole_by_tcp() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    // It sends more than it was asked for, as no server should.
    serve(&scene.host, FIRST, |query, _| vec![honest(query, 2_000)]);
    for number in 0..200_u8 {
        scene.announce("one", number, &["all"], &[&format!("10.77.1.{number}")]);
    }
    for (payload, limit) in [(None, 512), (Some(300), 512), (Some(1_232), 1_232)] {
        for name in ["all.", "big.example."] {
            let answer = scene.exchange(&query(name, RecordType::A, payload), PATIENCE).unwrap();
            assert!(answer.len() <= limit, "{name}: {} of {limit}", answer.len());
            let message = Message::from_vec(&answer).unwrap();
            assert!(message.metadata.truncation, "{name}");
            assert_eq!(message.queries[0].name().to_ascii(), name);
        }
    }
    // As many as fit.
    let count = scene.ask("all.", RecordType::A).answers.len();
    assert!((24..=31).contains(&count), "{count}");
    let queries = ["all.", "big.example."].map(|name| query(name, RecordType::A, None));
    let mut counts: Vec<usize> = scene
        .ask_stream(&queries)
        .iter()
        .map(|bytes| Message::from_vec(bytes).unwrap().answers.len())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [200, 2_000]);
    let whole = scene.exchange(&query("big.example.", RecordType::A, Some(60_000)), PATIENCE).unwrap();
    assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 2_000);
}

#[test]
fn what_is_no_query_is_refused_or_ignored_and_the_next_one_is_answered() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    let good = query("web.", RecordType::A, None);
    let change = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        bad
    };
    // Another operation; no question, two; a name that leads to itself; one that ends nowhere.
    let refused = [
        (change(2, 0x28), ResponseCode::NotImp),
        (change(5, 0), ResponseCode::FormErr),
        (change(5, 2), ResponseCode::FormErr),
        ([&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat(), ResponseCode::FormErr),
        ([&good[..12], &[63, b'a']].concat(), ResponseCode::FormErr),
    ];
    for (bad, code) in refused {
        let answer = Message::from_vec(&scene.exchange(&bad, PATIENCE).unwrap()).unwrap();
        assert_eq!(
            (answer.metadata.id.to_be_bytes().to_vec(), answer.metadata.response_code),
            (good[..2].to_vec(), code)
        );
    }
    for bad in [change(2, 0x81), good[..11].to_vec(), Vec::new()] {
        assert!(scene.exchange(&bad, SILENCE).is_err(), "{bad:?}");
    }
    let mut edns = query("web.", RecordType::A, Some(1_232));
    let version = edns.len() - 5;
    edns[version] = 1;
    let answer = Message::from_vec(&scene.exchange(&edns, PATIENCE).unwrap()).unwrap();
    // `BADVERS`; the number has two meanings.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.2"]));
}

#[test]
fn idle_and_too_many_connections_go_and_the_resolver_goes_on() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    let mut idle = scene
        .container
        .run(|| (0..40).map(|_| TcpStream::connect((ADDRESS, 53)).unwrap()).collect::<Vec<TcpStream>>());
    let answers = scene.ask_stream(&[query("web.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["10.77.0.2"]));
    // The first has made room for the last.
    idle[0].set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(idle[0].read(&mut [0]).unwrap_or(0), 0);
    let last = idle.last_mut().unwrap();
    last.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    let start = Instant::now();
    assert_eq!(last.read(&mut [0]).unwrap(), 0, "closed when idle");
    assert!(start.elapsed() > Duration::from_secs(7), "{:?}", start.elapsed());
    // One that claims more than any query has is closed at once.
    let mut greedy = scene.container.run(|| TcpStream::connect((ADDRESS, 53)).unwrap());
    greedy.write_all(&[0xff, 0xff, 0]).unwrap();
    greedy.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(greedy.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn the_container_may_serve_port_53_itself_on_every_address() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    serve_udp(&scene.container, Ipv4Addr::UNSPECIFIED, 53, "own");
    serve_tcp(&scene.container, Ipv4Addr::UNSPECIFIED, 53, "own");
    assert_eq!(ask_udp(&scene.container, LOCALHOST, 53).unwrap(), "own 127.0.0.1");
    assert_eq!(ask_tcp(&scene.container, LOCALHOST, 53).unwrap(), "own 127.0.0.1");
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.2"]));
    let answers = scene.ask_stream(&[query("web.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["10.77.0.2"]));
}

/// The rules of a container's own firewall see one connection, both ways.
#[test]
fn a_container_that_drops_what_conntrack_does_not_know_is_answered() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    let rules = "table inet own { chain in { type filter hook input priority 0; ct state invalid drop; };
        chain out { type filter hook output priority 0; ct state invalid drop; }; }";
    let done = scene.container.run(|| std::process::Command::new("nft").arg(rules).status());
    let Ok(done) = done else { return skipped("no `nft` (package nftables)") };
    assert!(done.success());
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.2"]));
    let answers = scene.ask_stream(&[query("web.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["10.77.0.2"]));
}

/// Another client than ours; checksums and all.
#[test]
fn dig_is_answered_by_udp_and_tcp() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    for way in ["+notcp", "+tcp"] {
        let words = [way, "+short", "+tries=1", "@127.0.0.11", "web", "A"];
        let output = scene.container.run(|| std::process::Command::new("dig").args(words).output());
        let Ok(output) = output else { return skipped("no `dig` (package bind9-dnsutils)") };
        assert_eq!(String::from_utf8_lossy(&output.stdout), "10.77.0.2\n", "{way}");
    }
}

/// All that a hostile container may send at once; the monitor has other duties between turns.
#[test]
fn a_flood_is_dealt_with_in_short_turns_and_refused_where_it_would_pile_up() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    // Silence: every query to it stays on its way.
    let asked = serve(&scene.host, FIRST, |_, _| Vec::new());
    for number in 0..250_u8 {
        scene.announce("one", number, &["all"], &[&format!("10.77.1.{number}")]);
    }
    let (all, before) = (query("all.", RecordType::A, None), private_memory());
    let refused = scene.container.run(|| {
        let mut greedy: Vec<TcpStream> =
            (0..32).map(|_| TcpStream::connect((ADDRESS, 53)).unwrap()).collect();
        for stream in &mut greedy {
            stream.set_nonblocking(true).unwrap();
            // Answers are asked for and never read; the last query is never whole.
            let _ = stream.write_all(&[framed(&all).repeat(2_000), vec![1]].concat());
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect((ADDRESS, 53)).unwrap();
        for number in 0..10_000_usize {
            let _ = socket.send(&all);
            let _ = socket.send(&all[..number % all.len()]);
        }
        // What was sent waits before it: whoever asks again is answered.
        let start = Instant::now();
        while scene.exchange(&all, Duration::from_secs(1)).is_err() {
            assert!(
                start.elapsed() < PATIENCE * 12,
                "the resolver goes on; slowest turn {:?} us",
                scene.slowest
            );
        }
        report(&format!("answered {:?} after the flood", start.elapsed()));
        // Answers that nobody read filled the first one's buffer.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect((ADDRESS, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut refused = 0;
        for number in 0..300 {
            socket.send(&query(&format!("q{number}.example."), RecordType::A, None)).unwrap();
            if number % 50 == 49 {
                while socket.recv(&mut [0; 512]).is_ok() {
                    refused += 1;
                }
            }
        }
        refused
    });
    let slowest = Duration::from_micros(scene.slowest.load(Ordering::Relaxed) as u64);
    report(&format!(
        "slowest turn {slowest:?}, {refused} refused, {} sent, {} KiB more",
        asked.load(Ordering::Relaxed),
        private_memory().saturating_sub(before)
    ));
    assert!(refused > 0, "no more than 128 are on their way");
    // Unbounded it took 15 s.
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}

/// This process's memory that is no other's, in KiB.
fn private_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}
