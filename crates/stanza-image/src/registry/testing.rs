//! A registry on loopback that answers as it is told, for tests.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use stanza_spec::Reference;

use crate::hash::sha256;

/// One scripted answer. A body shorter than `length` is cut off there.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// `Content-Length`; `None` sends none and ends by closing.
    pub(crate) length: Option<usize>,
    /// Repeats the body without end.
    pub(crate) endless: bool,
    /// Says nothing after the body, and keeps the connection.
    pub(crate) stalled: bool,
    /// Hangs up without an answer when so much of the request's body has come.
    pub(crate) hangs_up_after: Option<usize>,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            length: Some(0),
            endless: false,
            stalled: false,
            hangs_up_after: None,
        }
    }

    pub(crate) fn ok(body: &[u8]) -> Answer {
        Answer { length: Some(body.len()), body: body.to_vec(), ..Answer::status(200) }
    }

    /// No answer: the connection ends when `count` bytes of the request's body are read.
    pub(crate) fn hang_up_after(count: usize) -> Answer {
        Answer { hangs_up_after: Some(count), ..Answer::status(0) }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Promises the whole body, and sends `count` bytes of it.
    pub(crate) fn cut(mut self, count: usize) -> Answer {
        self.body.truncate(count);
        self
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct Script {
    /// Answers by path, or by method and path, used up from the front; the last one stays.
    answers: HashMap<String, Vec<Answer>>,
    asked: Vec<Asked>,
}

/// The registry; its threads end with the process.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) port: u16,
    script: Arc<Mutex<Script>>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server { port: listener.local_addr().unwrap().port(), script: Arc::default() };
        let script = Arc::clone(&server.script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&script);
                // A client that goes away is what some tests are about.
                std::thread::spawn(move || drop(serve(&stream, &script)));
            }
        });
        server
    }

    /// Answers to requests for `path` (without its query), or for `METHOD path`, which goes first.
    pub(crate) fn answer(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().answers.insert(path.to_owned(), answers.into_iter().collect());
    }

    pub(crate) fn blob(&self, bytes: &[u8]) -> String {
        let path = format!("/v2/app/blobs/{}", sha256(bytes));
        self.answer(&path, [Answer::ok(bytes)]);
        path
    }

    /// The requests for `path`, or for `METHOD path`.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let script = self.script.lock().unwrap();
        let fits = |asked: &&Asked| {
            let own = asked.path.split('?').next().unwrap_or("");
            own == path || path.split_once(' ') == Some((&asked.method, own))
        };
        script.asked.iter().filter(fits).cloned().collect()
    }

    /// `METHOD path?query` of every request, in the order in which they came.
    pub(crate) fn all_asked(&self) -> Vec<String> {
        let script = self.script.lock().unwrap();
        script.asked.iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }

    /// What it would answer next, by path.
    pub(crate) fn bodies(&self) -> Vec<(String, Vec<u8>)> {
        let script = self.script.lock().unwrap();
        script.answers.iter().map(|(path, answers)| (path.clone(), answers[0].body.clone())).collect()
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        format!("127.0.0.1:{}/app{rest}", self.port).parse().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn serve(stream: &TcpStream, script: &Mutex<Script>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = HashMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            match line.trim().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
                None => break,
            };
        }
        let length: u64 = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        let is_head = method == "HEAD";
        let (answer, at) = {
            let mut script = script.lock().unwrap();
            let plain = path.split('?').next().unwrap_or("").to_owned();
            let special = format!("{method} {plain}");
            script.asked.push(Asked { method, path, headers, body: Vec::new() });
            let at = script.asked.len() - 1;
            let key = if script.answers.contains_key(&special) { special } else { plain };
            let answer = match script.answers.get_mut(&key) {
                Some(answers) if answers.len() > 1 => answers.remove(0),
                Some(answers) => answers[0].clone(),
                None => Answer::status(404),
            };
            (answer, at)
        };
        let wanted = answer.hangs_up_after.map_or(length, |count| u64::try_from(count).unwrap());
        let mut body = Vec::new();
        reader.by_ref().take(wanted).read_to_end(&mut body)?;
        script.lock().unwrap().asked[at].body = body;
        if answer.hangs_up_after.is_some() {
            return stream.shutdown(std::net::Shutdown::Both);
        }
        let mut stream = stream;
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(length) = answer.length.filter(|_| answer.status != 204) {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if is_head {
            continue;
        }
        stream.write_all(&answer.body)?;
        if answer.stalled {
            // Until the client gives up.
            std::io::copy(&mut reader, &mut std::io::sink())?;
        }
        if answer.endless {
            loop {
                stream.write_all(&answer.body)?;
            }
        }
        if answer.length != Some(answer.body.len()) {
            return stream.shutdown(std::net::Shutdown::Both);
        }
    }
}
