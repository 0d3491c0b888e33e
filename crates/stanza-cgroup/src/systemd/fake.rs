//! A systemd of the tests' own: answers the manager's methods, on a socket of its own or behind a real `dbus-daemon`.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::bus::{Address, Bus, Endpoint};
use super::wire::{Call, Kind, Message, Writer, message_length};

/// How it answers, and what it was asked.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Results of jobs, in order; `done` after the last.
    pub(super) results: Vec<&'static str>,
    /// How often a unit of that name is there already.
    pub(super) exists: usize,
    /// Whether the unit runs.
    pub(super) runs: bool,
    /// What was asked: `<method> <unit>`.
    pub(super) asked: Vec<String>,
}

pub(super) struct Fake {
    pub(super) endpoint: Endpoint,
    pub(super) script: Arc<Mutex<Script>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Listens in `directory` itself, and serves `connections` clients.
    pub(super) fn listen(directory: &Path, direct: bool, script: Script, connections: usize) -> Fake {
        let path = directory.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let script = Arc::new(Mutex::new(script));
        let shared = Arc::clone(&script);
        let thread = std::thread::spawn(move || {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().unwrap();
                let mut greeting = vec![0; b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".len()];
                stream.read_exact(&mut greeting).unwrap();
                assert_eq!(greeting, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
                // systemd's own socket goes on with signals at once.
                let first = if direct {
                    Answer { serial: 0, to: String::new() }.job_removed("/job/6", "done")
                } else {
                    vec![]
                };
                stream.write_all(&[b"DATA\r\nOK 0123\r\n", first.as_slice()].concat()).unwrap();
                serve(&mut stream, &shared);
            }
        });
        Fake { endpoint: Endpoint { address: Address::Path(path), direct }, script, thread: Some(thread) }
    }

    /// Takes systemd's name on the bus at `path`, and serves until the bus goes.
    pub(super) fn on_bus(path: PathBuf, script: Script) -> Fake {
        let endpoint = Endpoint { address: Address::Path(path), direct: false };
        let Address::Path(path) = &endpoint.address else { unreachable!("made above") };
        let mut bus = Bus::greet(UnixStream::connect(path).unwrap(), false).unwrap();
        let mut body = Writer::default();
        body.text("org.freedesktop.systemd1");
        body.u32(0);
        let daemon = "org.freedesktop.DBus";
        bus.call(&Call {
            destination: Some(daemon),
            path: "/org/freedesktop/DBus",
            interface: daemon,
            member: "RequestName",
            signature: "su",
            body: body.bytes,
        })
        .unwrap();
        let script = Arc::new(Mutex::new(script));
        let shared = Arc::clone(&script);
        let thread = std::thread::spawn(move || serve(&mut bus.stream, &shared));
        Fake { endpoint, script, thread: Some(thread) }
    }

    /// What was asked, once the other end has gone.
    pub(super) fn asked(mut self) -> Vec<String> {
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.script.lock().unwrap().asked)
    }
}

fn serve(stream: &mut UnixStream, script: &Mutex<Script>) {
    loop {
        let mut start = [0; 16];
        if stream.read_exact(&mut start).is_err() {
            return;
        }
        let mut bytes = start.to_vec();
        bytes.resize(message_length(&start).unwrap(), 0);
        stream.read_exact(&mut bytes[16..]).unwrap();
        let message = Message::decode(&bytes).unwrap();
        if message.kind == Kind::Call {
            let serial = u32::from_le_bytes(start[8..12].try_into().unwrap());
            let answer = Answer { serial, to: message.sender.clone() };
            let reply = reply(&message, &answer, &mut script.lock().unwrap());
            stream.write_all(&reply).unwrap();
        }
    }
}

struct Answer {
    serial: u32,
    to: String,
}

fn reply(message: &Message, answer: &Answer, script: &mut Script) -> Vec<u8> {
    let text = |text: &str| {
        let mut body = Writer::default();
        body.text(text);
        body.bytes
    };
    if message.member == "Hello" || message.member == "AddMatch" {
        return answer.message(2, &[], "s", text(":1.9"));
    }
    if message.member == "Get" {
        let mut body = Writer { bytes: vec![1, b's', 0] };
        body.text("v243.1");
        return answer.message(2, &[], "v", body.bytes);
    }
    let unit = message.body().text().unwrap_or_default();
    script.asked.push(format!("{} {unit}", message.member).trim_end().to_owned());
    let refused = |name: &str| {
        let name = format!("org.freedesktop.systemd1.{name}");
        answer.message(3, &[(4, "s", &name)], "s", text("words"))
    };
    match message.member.as_str() {
        "StartTransientUnit" if script.exists > 0 => {
            script.exists -= 1;
            refused("UnitExists")
        }
        "GetUnit" if !script.runs => refused("NoSuchUnit"),
        "StartTransientUnit" | "StopUnit" => {
            let result = if script.results.is_empty() { "done" } else { script.results.remove(0) };
            // Another job's end, and this one's, before the answer that tells its name.
            let other = answer.job_removed("/job/8", "failed");
            [other, answer.job_removed("/job/7", result), answer.message(2, &[], "o", text("/job/7"))]
                .concat()
        }
        "GetUnit" => answer.message(2, &[], "o", text("/unit")),
        _ => answer.message(2, &[], "", Vec::new()),
    }
}

impl Answer {
    fn message(&self, kind: u8, fields: &[(u8, &str, &str)], signature: &str, body: Vec<u8>) -> Vec<u8> {
        let mut message = Writer { bytes: vec![b'l', kind, 1, 1] };
        message.u32(u32::try_from(body.len()).unwrap());
        message.u32(1);
        message.array(8, |all| {
            if kind != 4 {
                all.bytes.extend([5, 1, b'u', 0]);
                all.u32(self.serial);
            }
            let to = (!self.to.is_empty() && kind != 4).then_some((6, "s", self.to.as_str()));
            let signature = (!signature.is_empty()).then_some((8, "g", signature));
            for (code, kind, text) in fields.iter().copied().chain(to).chain(signature) {
                all.field(code, kind, text);
            }
        });
        message.align(8);
        message.bytes.extend(body);
        message.bytes
    }

    fn job_removed(&self, job: &str, result: &str) -> Vec<u8> {
        let mut body = Writer::default();
        body.u32(7);
        [job, "unit", result].into_iter().for_each(|text| body.text(text));
        let fields = [
            (1, "o", "/org/freedesktop/systemd1"),
            (2, "s", "org.freedesktop.systemd1.Manager"),
            (3, "s", "JobRemoved"),
        ];
        self.message(4, &fields, "uoss", body.bytes)
    }
}
