//! Exchanges with servers on loopback that do one thing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Serves every connection in a thread of its own; gives the URL.
fn serve(handler: impl Fn(BufReader<TcpStream>) -> io::Result<()> + Send + Sync + 'static) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handler = Arc::clone(&handler);
            // A client that goes away is what some tests are about.
            std::thread::spawn(move || handler(BufReader::new(stream)));
        }
    });
    url
}

/// The head of a request, in lower case; `None` at the end of the connection.
fn head(reader: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head.to_ascii_lowercase()))
}

fn length_of(head: &str) -> Option<u64> {
    head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()
}

fn answer(reader: &mut BufReader<TcpStream>, status: u16, body: &[u8]) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
    reader.get_mut().write_all(&[head.as_bytes(), body].concat())
}

/// Answers with the method, the length that was announced and the sum of the bytes that came.
fn count(mut reader: BufReader<TcpStream>) -> io::Result<()> {
    while let Some(head) = head(&mut reader)? {
        let mut sum = 0_u64;
        let mut bytes = Vec::new();
        (&mut reader).take(length_of(&head).unwrap_or(0)).read_to_end(&mut bytes)?;
        bytes.iter().for_each(|byte| sum += u64::from(*byte));
        let method = head.split(' ').next().unwrap_or_default();
        let text = format!("{method} {:?} {sum}", length_of(&head));
        answer(&mut reader, 200, text.as_bytes())?;
    }
    Ok(())
}

fn request(method: Method, url: &Url) -> Request<'_> {
    Request { method, url, headers: &[], verify: true, outward_only: false }
}

fn text(response: Response) -> String {
    let mut text = String::new();
    let mut body = response.body;
    body.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn bodies_are_announced_and_arrive() {
    let url = serve(count);
    let http = Http::default();
    let send = |method, body| text(http.send(&request(method, &url), body).unwrap());
    assert_eq!(send(Method::Get, Body::Empty), "get None 0");
    assert_eq!(send(Method::Delete, Body::Empty), "delete None 0");
    assert_eq!(send(Method::Post, Body::Empty), "post Some(0) 0");
    assert_eq!(send(Method::Put, Body::Bytes(&[1, 2, 3])), "put Some(3) 6");
    let length = 10_000_001;
    let mut ones = io::repeat(1);
    assert_eq!(send(Method::Patch, Body::Reader(&mut ones, length)), "patch Some(10000001) 10000001");
    assert_eq!(send(Method::Put, Body::Reader(&mut io::empty(), 0)), "put Some(0) 0");
}

#[test]
fn a_body_that_ends_early_is_an_error_of_ours() {
    let url = serve(count);
    let http = Http::default();
    let mut short = io::repeat(1).take(1_000_000);
    let error = http.send(&request(Method::Put, &url), Body::Reader(&mut short, 1_000_001)).err().unwrap();
    assert_eq!((error.failure, error.source.kind()), (Failure::Fatal, io::ErrorKind::UnexpectedEof));
    assert_eq!(text(http.send(&request(Method::Get, &url), Body::Empty).unwrap()), "get None 0");
}

#[test]
fn an_answer_may_come_before_the_body_is_sent() {
    let url = serve(|mut reader| {
        head(&mut reader)?;
        answer(&mut reader, 413, &vec![b'x'; 300_000])?;
        // Reads nothing, and stays.
        std::thread::park();
        Ok(())
    });
    let http = Http::default();
    let response = http.send(&request(Method::Put, &url), Body::Reader(&mut io::repeat(1), 1 << 40)).unwrap();
    assert_eq!(response.status, 413);
    assert_eq!(text(response).len(), 300_000);
}

#[test]
fn many_threads_share_one_transport() {
    let url = serve(count);
    let http = Http::default();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (http, url) = (&http, &url);
            scope.spawn(move || {
                for round in 0..20 {
                    let length = thread * 100_000 + round;
                    let mut ones = io::repeat(1);
                    let answer =
                        http.send(&request(Method::Put, url), Body::Reader(&mut ones, length)).unwrap();
                    assert_eq!(text(answer), format!("put Some({length}) {length}"));
                }
            });
        }
    });
}

#[test]
fn connections_are_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let url = serve(move |reader| {
        counter.fetch_add(1, Ordering::Relaxed);
        count(reader)
    });
    let http = Http::default();
    for _ in 0..5 {
        text(http.send(&request(Method::Get, &url), Body::Empty).unwrap());
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[test]
fn a_slow_reader_makes_the_server_wait() {
    const SIZE: usize = 512 * 1024 * 1024;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let url = serve(move |mut reader| {
        head(&mut reader)?;
        let stream = reader.get_mut();
        stream.write_all(format!("HTTP/1.1 200 X\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())?;
        let chunk = vec![7; 64 * 1024];
        for _ in 0..SIZE / chunk.len() {
            stream.write_all(&chunk)?;
            counter.fetch_add(chunk.len(), Ordering::Relaxed);
        }
        Ok(())
    });
    let http = Http::default();
    let mut body = http.send(&request(Method::Get, &url), Body::Empty).unwrap().body;
    let mut got = body.frame().unwrap().unwrap().len();
    let (mut before, mut same) = (0, 0);
    while same < 10 {
        std::thread::sleep(Duration::from_millis(20));
        let now = sent.load(Ordering::Relaxed);
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
    // Most of it is in the kernel's buffers.
    assert!(before < 64 * 1024 * 1024, "{before} bytes were taken from the server and not asked for");
    while let Some(frame) = body.frame().unwrap() {
        assert!(frame.iter().all(|byte| *byte == 7));
        got += frame.len();
    }
    assert_eq!(got, SIZE);
    assert_eq!(body.frame().unwrap(), None);
}

#[test]
fn frames_lines_and_bytes_are_one_stream() {
    let url = serve(|mut reader| {
        head(&mut reader)?;
        answer(&mut reader, 200, b"one\ntwo\nthree")
    });
    let http = Http::default();
    let mut body = http.send(&request(Method::Get, &url), Body::Empty).unwrap().body;
    let mut line = String::new();
    body.read_line(&mut line).unwrap();
    let mut byte = [0];
    body.read_exact(&mut byte).unwrap();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().unwrap() {
        rest.extend_from_slice(&frame);
    }
    assert_eq!((line.as_str(), byte, rest.as_slice()), ("one\n", *b"t", &b"wo\nthree"[..]));
    assert_eq!(body.read(&mut byte).unwrap(), 0);
}

#[test]
fn a_body_outlives_its_transport_without_waiting_for_ever() {
    let url = serve(|mut reader| {
        head(&mut reader)?;
        reader.get_mut().write_all(b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nfive!")?;
        std::thread::park();
        Ok(())
    });
    let http = Http::default();
    let mut body = http.send(&request(Method::Get, &url), Body::Empty).unwrap().body;
    let mut five = [0; 5];
    body.read_exact(&mut five).unwrap();
    drop(http);
    assert_eq!(body.read(&mut five).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

#[test]
fn failures_are_told_apart() {
    let http = Http::new(Duration::from_millis(200));
    let fails = |url: &str, outward_only| {
        let url = Url::parse(url).unwrap();
        http.send(&Request { outward_only, ..request(Method::Get, &url) }, Body::Empty).err().unwrap().failure
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(fails(&format!("http://{closed}/"), false), Failure::Refused);
    assert_eq!(fails("http://name.invalid/", false), Failure::Unresolved);
    assert_eq!(fails("http://localhost:1/", true), Failure::Fatal);
    assert_eq!(fails("http://[::1]:1/", true), Failure::Fatal);
    let plain = serve(|mut reader| {
        head(&mut reader)?;
        Ok(())
    });
    assert_eq!(fails(&plain.to_string(), false), Failure::Passing, "closed without an answer");
    assert_eq!(fails(&plain.to_string().replace("http:", "https:"), false), Failure::Passing);
    let speaks_http = serve(|mut reader| answer(&mut reader, 400, b"no TLS here"));
    assert_eq!(fails(&speaks_http.to_string().replace("http:", "https:"), false), Failure::Fatal);
}

#[test]
fn a_host_has_its_directory_with_or_without_the_usual_port() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.io", "b.io:443", "c.io:5000"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    let directories = CertificateDirectories::at(directory.path());
    let found = |url: &str| {
        let path = directories.find(&Url::parse(url).unwrap())?;
        Some(path.file_name()?.to_str()?.to_owned())
    };
    assert_eq!(found("https://a.io/v2/").as_deref(), Some("a.io"));
    assert_eq!(found("https://a.io:443/").as_deref(), Some("a.io"));
    assert_eq!(found("https://a.io:5000/"), None);
    assert_eq!(found("https://b.io/").as_deref(), Some("b.io:443"));
    assert_eq!(found("https://c.io:5000/").as_deref(), Some("c.io:5000"));
    assert_eq!(found("https://c.io/"), None);
}

#[test]
fn an_answer_counts_though_the_server_closes_on_the_rest_of_the_body() {
    let url = serve(|mut reader| {
        head(&mut reader)?;
        // What was not read makes the kernel reset the connection when it closes.
        answer(&mut reader, 413, b"too much")
    });
    let http = Http::default();
    for _ in 0..200 {
        let response =
            http.send(&request(Method::Put, &url), Body::Reader(&mut io::repeat(1), 1 << 40)).unwrap();
        assert_eq!((response.status, text(response).as_str()), (413, "too much"));
    }
}

#[test]
fn a_server_that_hangs_up_within_a_body_is_a_passing_failure() {
    let url = serve(|mut reader| head(&mut reader).map(drop));
    let http = Http::default();
    for _ in 0..20 {
        let sent = http.send(&request(Method::Put, &url), Body::Reader(&mut io::repeat(1), 1 << 40));
        assert_eq!(sent.err().unwrap().failure, Failure::Passing);
    }
}
