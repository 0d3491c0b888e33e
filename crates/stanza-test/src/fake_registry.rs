//! A registry on loopback that answers as a test tells it: for what a good registry never does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

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
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// The registry; its thread ends with the test process.
#[derive(Debug)]
pub struct FakeRegistry {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

fn serve(stream: TcpStream, handler: &dyn Fn(&Request) -> Answer, seen: &Mutex<Vec<Request>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
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
    let mut reply = format!("HTTP/1.1 {} Told\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        reply.push_str(&format!("{name}: {value}\r\n"));
    }
    reply.push_str(&format!("Content-Length: {}\r\n\r\n", answer.length.unwrap_or(answer.body.len())));
    let mut stream = stream;
    stream.write_all(reply.as_bytes()).ok()?;
    if !head_only {
        stream.write_all(&answer.body).ok()?;
    }
    stream.flush().ok()
}

impl FakeRegistry {
    /// Starts one that answers each request by `handler`.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> FakeRegistry {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, record) = (Arc::new(handler), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, record) = (Arc::clone(&handler), Arc::clone(&record));
                thread::spawn(move || serve(stream, &*handler, &record));
            }
        });
        FakeRegistry { port, seen }
    }

    /// `127.0.0.1:PORT/REPOSITORY`.
    #[must_use]
    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
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
        let blobs: BTreeMap<String, Vec<u8>> = layout.blobs().into_iter().collect();
        let manifest = layout.manifest.clone();
        FakeRegistry::start(move |request| {
            let good = if request.path.contains("/manifests/") {
                Answer::ok("application/vnd.oci.image.manifest.v1+json", manifest.clone())
                    .header("Docker-Content-Digest", &format!("sha256:{}", crate::hex_sha256(&manifest)))
            } else if let Some((_, hex)) = request.path.split_once("/blobs/sha256:") {
                match blobs.get(hex) {
                    Some(bytes) => Answer::ok("application/octet-stream", bytes.clone()),
                    None => Answer::status(404),
                }
            } else {
                Answer::ok("application/json", "{}")
            };
            alter(request, good)
        })
    }
}
