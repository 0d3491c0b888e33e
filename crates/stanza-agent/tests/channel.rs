//! What comes of a channel that is cut, and of a guest or a host that says something else.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{Fixture, container, exec, start_agent};
use stanza_agent::wire::WINDOW;
use stanza_agent::{Event, Guest, GuestConfig, GuestError, ProtocolError, Stream};
use stanza_spec::{Classify, ErrorKind};

const HELLO: &str = r#"{"Hello":{"protocol":1,"agent":"a","kernel":"k"}}"#;

fn frame(kind: u8, number: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 0, 0];
    frame.extend_from_slice(&number.to_le_bytes());
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

fn message(text: &str) -> Vec<u8> {
    frame(b'm', 0, text.as_bytes())
}

/// A host, and the end of the channel at which a guest lies.
fn pair() -> (Guest, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Guest::new(ours).unwrap(), theirs)
}

/// What a host with the tasks 1 and 2 makes of these bytes.
fn told(bytes: &[u8]) -> Result<Vec<Event>, GuestError> {
    let (mut host, mut liar) = pair();
    host.configure(GuestConfig::default()).unwrap();
    for task in [1, 2] {
        let mut plan = exec(&["cat"]);
        plan.open_stdin = true;
        host.exec(task, plan).unwrap();
    }
    liar.write_all(bytes).unwrap();
    host.receive()
}

fn refused(bytes: &[u8]) -> ProtocolError {
    match told(bytes) {
        Err(GuestError::Protocol(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_version_is_told_as_that() {
    let error = refused(&message(r#"{"Hello":{"protocol":2,"what":["ever"]}}"#));
    assert_eq!(error, ProtocolError::Version { found: 2 });
    assert_eq!(error.to_string(), "the other side speaks version 2 of the protocol, this one 1");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn what_was_not_asked_for_is_refused() {
    let started = r#"{"Started":{"task":1,"pid":5}}"#;
    for words in [
        &["\"Configured\""][..],
        &[HELLO, HELLO],
        &[HELLO, r#"{"Started":{"task":7,"pid":5}}"#],
        &[HELLO, started, started],
        &[HELLO, started, r#"{"Failed":{"task":1,"refusal":{"message":"m","kind":"k","hint":null}}}"#],
        &[HELLO, r#"{"Exited":{"task":1,"status":{"code":0},"oom_killed":false}}"#],
        &[HELLO, started, r#"{"Exited":{"task":1,"status":{"code":0},"oom_killed":false}}"#],
        &[HELLO, r#"{"Updated":null}"#],
        &[HELLO, "\"Configured\"", "\"Configured\""],
    ] {
        let bytes: Vec<u8> = words.iter().flat_map(|word| message(word)).collect();
        assert!(matches!(refused(&bytes), ProtocolError::Unasked(..)), "{words:?}");
    }
}

#[test]
fn bytes_go_only_to_streams_that_are_open_and_within_their_window() {
    let begin = [message(HELLO), message(r#"{"Started":{"task":1,"pid":5}}"#)].concat();
    let number = |task: u32, stream: u32| 4 * task + stream;
    for (of, bad) in [
        ("a task that has not started", frame(b'd', number(2, 1), b"x")),
        ("no task", frame(b'd', number(9, 1), b"x")),
        ("an input", frame(b'd', number(1, 0), b"x")),
        ("no stream", frame(b'd', number(1, 3), b"x")),
        ("an end twice", [frame(b'e', number(1, 1), b""), frame(b'e', number(1, 1), b"")].concat()),
        ("bytes after the end", [frame(b'e', number(1, 2), b""), frame(b'd', number(1, 2), b"x")].concat()),
    ] {
        let error = refused(&[&begin[..], &bad].concat());
        assert!(matches!(error, ProtocolError::Stream(_)), "{of}: {error:?}");
    }
    let piece = frame(b'd', number(1, 1), &vec![0; 1 << 15]);
    let (mut host, mut liar) = pair();
    host.exec(1, exec(&["true"])).unwrap();
    liar.write_all(&begin).unwrap();
    let mut room = usize::try_from(WINDOW).unwrap();
    while room > 0 {
        liar.write_all(&piece).unwrap();
        let events = host.receive().unwrap();
        room -= events
            .iter()
            .map(|event| if let Event::Output { bytes, .. } = event { bytes.len() } else { 0 })
            .sum::<usize>();
    }
    liar.write_all(&frame(b'd', number(1, 1), b"x")).unwrap();
    assert!(matches!(host.receive(), Err(GuestError::Protocol(ProtocolError::Window))));
    let credit = refused(&[begin, frame(b'c', number(1, 0), &1u32.to_le_bytes())].concat());
    assert_eq!(credit, ProtocolError::Credit(1));
}

#[test]
fn queries_are_bounded_and_answered_once() {
    let (mut host, mut liar) = pair();
    liar.write_all(&message(HELLO)).unwrap();
    for query in 0..64 {
        liar.write_all(&frame(b'q', query, &[0; 12])).unwrap();
    }
    assert_eq!(host.receive().unwrap().len(), 65);
    host.answer(3, b"answer");
    let waiting = host.wants_write();
    host.answer(3, b"again");
    host.answer(1000, b"never asked");
    assert!(waiting);
    liar.write_all(&frame(b'q', 64, &[0; 12])).unwrap();
    assert_eq!(host.receive().unwrap().len(), 1);
    liar.write_all(&frame(b'q', 65, &[0; 12])).unwrap();
    assert!(matches!(host.receive(), Err(GuestError::Protocol(ProtocolError::TooMany(_, 64)))));
}

#[test]
fn a_guest_that_is_cut_off_within_a_message_is_gone() {
    let (mut host, mut liar) = pair();
    liar.write_all(&message(HELLO)[..30]).unwrap();
    assert_eq!(host.receive().unwrap(), []);
    drop(liar);
    assert!(matches!(host.receive(), Err(GuestError::Gone)));
}

#[test]
fn a_guest_that_does_not_read_stops_requests_and_nothing_else() {
    let (mut host, _silent) = pair();
    let plan = exec(&[&"x".repeat(8 << 20)]);
    let mut stopped = None;
    for task in 0..20 {
        if let Err(error) = host.exec(task, plan.clone()) {
            stopped = Some((task, error));
            break;
        }
        host.flush().unwrap();
    }
    assert!(matches!(stopped, Some((3..10, GuestError::Stopped))), "{stopped:?}");
}

#[test]
fn an_agent_whose_host_is_gone_ends_with_everything() {
    for cut in [0, 5, 60] {
        let mut fixture = Fixture::with_container();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        // The host's end is replaced, and so closed: in the middle of a request when there is something to cut.
        let request = message(&format!(r#"{{"Exec":{{"task":2,"plan":"{}"}}}}"#, "x".repeat(100)));
        let mut channel = std::fs::File::from(rustix::io::dup(&fixture.guest).unwrap());
        channel.write_all(&request[..cut]).unwrap();
        drop(channel);
        fixture.guest = Guest::new(ours).unwrap();
        let start = Instant::now();
        while fixture.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(30), "the agent stays");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_host_that_talks_nonsense_ends_the_agent() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut child = start_agent(theirs);
    ours.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    ours.read_to_end(&mut rest).unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_second_host_greets_an_agent_that_is_not_configured() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut child = start_agent(theirs);
    for _ in 0..2 {
        ours.write_all(&message(r#"{"Hello":{"protocol":1}}"#)).unwrap();
        let mut header = [0; 12];
        ours.read_exact(&mut header).unwrap();
        let mut body = vec![0; usize::from(header[8])];
        ours.read_exact(&mut body).unwrap();
        assert!(body.starts_with(br#"{"Hello":{"protocol":1,"agent":"#));
    }
    drop(ours);
    child.wait().unwrap();
}

#[test]
fn a_container_is_not_created_before_the_guest_is_configured() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = start_agent(theirs);
    let mut fixture = Fixture::of(Guest::new(ours).unwrap(), child);
    fixture.guest.create(1, container(&["true"])).unwrap();
    let failed = fixture.wait("failed", |event| matches!(event, Event::Failed { .. }));
    let Event::Failed { refusal, .. } = failed else { unreachable!("it was looked for") };
    assert_eq!(refusal.kind(), ErrorKind::Conflict);
    fixture.guest.consumed(1, Stream::Output, 5);
}
