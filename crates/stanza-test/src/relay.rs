//! A relay on loopback before another server: it counts what is asked, and can break off once.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Longest line of a request, in bytes.
const LINE: usize = 8192;

#[derive(Debug)]
struct Shared {
    target: u16,
    /// The lines of requests: `PUT /v2/a/manifests/1`.
    seen: Mutex<Vec<String>>,
    /// Breaks the connection that brings its client's bytes to this count; zero does not.
    cut: AtomicUsize,
}

/// The relay; its threads end with the test process.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

impl Relay {
    /// Starts one before the server of `name`, that is `127.0.0.1:PORT/REPOSITORY`.
    ///
    /// # Panics
    /// When no port is free, or `name` is none of this machine.
    #[must_use]
    pub fn start(name: &str) -> Relay {
        let target = name.split(['/', ':']).nth(1).and_then(|port| port.parse().ok()).expect("a port");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared { target, seen: Mutex::default(), cut: AtomicUsize::new(0) });
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&own);
                thread::spawn(move || relay(&client, &shared));
            }
        });
        Relay { port, shared }
    }

    /// `127.0.0.1:PORT/REPOSITORY`.
    #[must_use]
    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }

    /// Breaks the first connection that brings `bytes`; the others go on.
    pub fn cut_once_after(&self, bytes: usize) {
        self.shared.cut.store(bytes, Ordering::SeqCst);
    }

    /// `METHOD path?query` of what was asked since the last call.
    ///
    /// # Panics
    /// Never, unless a thread of the relay panicked.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.seen.lock().expect("no thread of the relay panics"))
    }
}

/// The request in a line; the end of the body before may stand in front of it.
fn request(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line.strip_suffix(b" HTTP/1.1\r")?).into_owned();
    let methods = ["HEAD /", "GET /", "POST /", "PUT /", "PATCH /", "DELETE /"];
    let start = methods.iter().filter_map(|method| text.rfind(method)).max()?;
    Some(text[start..].to_owned())
}

fn relay(client: &TcpStream, shared: &Shared) -> Option<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.target)).ok()?;
    let (mut answers, mut back) = (server.try_clone().ok()?, client.try_clone().ok()?);
    let returning = thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (client, &server);
    let mut buffer = [0; 16 * 1024];
    let (mut count, mut line) = (0, Vec::new());
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        for byte in &buffer[..read] {
            if *byte == b'\n' {
                if let Some(request) = request(&line) {
                    shared.seen.lock().expect("no thread of the relay panics").push(request);
                }
                line.clear();
            } else {
                // A body need not have lines; the next request stands at its end.
                if line.len() == 2 * LINE {
                    line.drain(..LINE);
                }
                line.push(*byte);
            }
        }
        count += read;
        let cut = shared.cut.load(Ordering::SeqCst);
        if cut > 0 && count >= cut && shared.cut.swap(0, Ordering::SeqCst) > 0 {
            let _ = server.shutdown(Shutdown::Both);
            let _ = client.shutdown(Shutdown::Both);
            break;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
    returning.join().ok()
}
