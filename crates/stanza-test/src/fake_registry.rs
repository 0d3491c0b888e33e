//! A registry on loopback that answers as a test tells it: for what a good registry never does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// How an answer is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Head and body, then the end.
    #[default]
    Whole,
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// After so many bytes of the body nothing more comes, and the connection stays.
    Stall(usize),
    /// Head and body byte by byte, with this pause after each.
    Trickle(Duration),
    /// The body again and again until nobody takes it; the length is told only when it is set.
    Endless,
    /// In chunks, without a length.
    Chunked,
    /// The body is all that is sent: it has its own head, or none.
    Raw,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers, but for the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The length that is claimed; the body's own when `None`.
    pub length: Option<usize>,
    /// How it is given.
    pub manner: Manner,
}

impl Answer {
    /// A status with an error document.
    #[must_use]
    pub fn status(status: u16) -> Answer {
        let body = br#"{"errors":[{"code":"UNKNOWN","message":"told to fail"}]}"#.to_vec();
        Answer {
            status,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body,
            length: None,
            manner: Manner::Whole,
        }
    }

    /// A good answer.
    #[must_use]
    pub fn ok(media_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status: 200,
            headers: vec![("Content-Type".into(), media_type.into())],
            body: body.into(),
            length: None,
            manner: Manner::Whole,
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Given in another manner.
    #[must_use]
    pub fn manner(mut self, manner: Manner) -> Answer {
        self.manner = manner;
        self
    }

    /// A redirect.
    #[must_use]
    pub fn redirect(location: &str) -> Answer {
        Answer::status(307).header("Location", location)
    }

    /// The rest of a good answer that `request` asks for by `Range: bytes=N-`; all of it when it does not.
    ///
    /// # Panics
    /// When the range is of another kind, or past the end.
    #[must_use]
    pub fn ranged(mut self, request: &Request) -> Answer {
        let Some(range) = request.headers.get("range") else { return self };
        let start = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        let start: usize = start.and_then(|start| start.parse().ok()).expect("bytes=N-");
        let all = self.body.len();
        self.body.drain(..start);
        self.status = 206;
        self.header("Content-Range", &format!("bytes {start}-{}/{all}", all - 1))
    }
}

/// The registry; its thread ends with the test process.
#[derive(Debug)]
pub struct FakeRegistry {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

fn serve(stream: TcpStream, handler: &dyn Fn(&Request) -> Answer, seen: &Mutex<Vec<Request>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    // A client that tries TLS first is told at once that there is none.
    if reader.fill_buf().ok()?.first() == Some(&0x16) {
        return None;
    }
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = Request { method, path, headers };
    let answer = handler(&request);
    let head_only = request.method == "HEAD";
    seen.lock().expect("no test panics with the lock").push(request);
    give(stream, &answer, head_only)
}

/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(600);

fn give(mut stream: TcpStream, answer: &Answer, head_only: bool) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} Told\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match (answer.manner, answer.length) {
        (Manner::Chunked, _) => head.push_str("Transfer-Encoding: chunked\r\n"),
        (Manner::Endless, None) => {}
        (_, length) => head.push_str(&format!("Content-Length: {}\r\n", length.unwrap_or(answer.body.len()))),
    }
    head.push_str("\r\n");
    let (head, body) = (head.as_bytes(), &answer.body[..]);
    if head_only && answer.manner != Manner::Raw {
        return stream.write_all(head).ok();
    }
    let part = |count: usize| [head, &body[..count.min(body.len())]].concat();
    match answer.manner {
        Manner::Whole => stream.write_all(&part(body.len())).ok(),
        Manner::Raw => stream.write_all(body).ok(),
        Manner::Cut(count) => stream.write_all(&part(count)).ok(),
        Manner::Stall(count) => {
            stream.write_all(&part(count)).ok()?;
            stream.set_read_timeout(Some(FOR_EVER)).ok()?;
            // Until the other side has had enough.
            stream.read(&mut [0]).ok().map(|_| ())
        }
        Manner::Trickle(pause) => part(body.len()).iter().try_for_each(|byte| {
            thread::sleep(pause);
            stream.write_all(&[*byte]).ok()
        }),
        Manner::Endless => {
            stream.write_all(head).ok()?;
            while stream.write_all(body).is_ok() {}
            Some(())
        }
        Manner::Chunked => {
            stream.write_all(head).ok()?;
            for chunk in body.chunks(10_000) {
                stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).ok()?;
                stream.write_all(&[chunk, b"\r\n"].concat()).ok()?;
            }
            stream.write_all(b"0\r\n\r\n").ok()
        }
    }
}

impl FakeRegistry {
    /// Starts one that answers each request by `handler`.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> FakeRegistry {
        FakeRegistry::start_at((Ipv4Addr::LOCALHOST, 0), handler)
    }

    /// The same on another address and port (0: any), in the network name space of the caller.
    ///
    /// # Panics
    /// When the address is not there, or the port is taken.
    #[must_use]
    pub fn start_at(
        address: (impl Into<IpAddr>, u16),
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> FakeRegistry {
        let listener = TcpListener::bind((address.0.into(), address.1)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, record) = (Arc::new(handler), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, record) = (Arc::clone(&handler), Arc::clone(&record));
                thread::spawn(move || serve(stream, &*handler, &record));
            }
        });
        FakeRegistry { address, seen }
    }

    /// `127.0.0.1:PORT/REPOSITORY`, or the address that it was started at.
    #[must_use]
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// `http://127.0.0.1:PORT/path`; the path begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked so far.
    ///
    /// # Panics
    /// Never, unless a handler panicked.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().expect("no handler panicked").clone()
    }
}

impl FakeRegistry {
    /// Starts one that has `layout` under every name, but lets `alter` change each answer.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn of(
        layout: &crate::Layout,
        alter: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    ) -> FakeRegistry {
        let good = good_answers(layout);
        FakeRegistry::start(move |request| alter(request, good(request)))
    }
}

/// What a good registry that has `layout` under every name answers.
pub fn good_answers(layout: &crate::Layout) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    let blobs: BTreeMap<String, Vec<u8>> = layout.blobs().into_iter().collect();
    let manifest = layout.manifest.clone();
    move |request| {
        if request.path.contains("/manifests/") {
            Answer::ok("application/vnd.oci.image.manifest.v1+json", manifest.clone())
                .header("Docker-Content-Digest", &format!("sha256:{}", crate::hex_sha256(&manifest)))
        } else if let Some((_, hex)) = request.path.split_once("/blobs/sha256:") {
            match blobs.get(hex) {
                Some(bytes) => Answer::ok("application/octet-stream", bytes.clone()),
                None => Answer::status(404),
            }
        } else {
            Answer::ok("application/json", "{}")
        }
    }
}
