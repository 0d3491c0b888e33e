//! A conversation with systemd's manager: over the message bus, or over systemd's own socket where there is no bus.
//!
//! Blocking, one call at a time, one connection per verb. Signals that come between are kept for [`Bus::wait_for_job`].

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::SystemdError;
use super::wire::{Call, Kind, Message, Writer, message_length};

/// How long an answer, or a job of systemd, may take. runc waits as long.
const PATIENCE: Duration = Duration::from_secs(30);

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const SYSTEMD: &str = "org.freedesktop.systemd1";

/// What a bus says when nobody has a name, and when nobody can be started to take it.
const NOBODY: [&str; 3] = [
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Spawn.ChildExited",
];

/// Which systemd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BusKind {
    /// The machine's.
    #[default]
    System,
    /// This user's.
    User,
}

/// Where a bus may be, in the order in which to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The socket: a path, or a name without a file.
    pub address: Address,
    /// systemd itself is at the other end, without a bus between.
    pub direct: bool,
}

/// The address of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A file.
    Path(PathBuf),
    /// Linux's abstract name.
    Abstract(String),
}

/// Where this kind of bus may be, by the variables that the environment has.
#[must_use]
pub fn endpoints(kind: BusKind, variable: &dyn Fn(&str) -> Option<String>) -> Vec<Endpoint> {
    let path = |path: PathBuf, direct| Endpoint { address: Address::Path(path), direct };
    match kind {
        BusKind::System => {
            let told = variable("DBUS_SYSTEM_BUS_ADDRESS");
            let mut found: Vec<_> = told.iter().flat_map(|text| addresses(text)).collect();
            if found.is_empty() {
                found.push(path("/run/dbus/system_bus_socket".into(), false));
            }
            found.push(path("/run/systemd/private".into(), true));
            found
        }
        BusKind::User => {
            let told = variable("DBUS_SESSION_BUS_ADDRESS");
            let mut found: Vec<_> = told.iter().flat_map(|text| addresses(text)).collect();
            if let Some(runtime) = variable("XDG_RUNTIME_DIR").map(PathBuf::from) {
                found.push(path(runtime.join("bus"), false));
                found.push(path(runtime.join("systemd/private"), true));
            }
            found
        }
    }
}

/// The unix sockets in a D-Bus address: `unix:path=/a,guid=1;unix:abstract=b`.
fn addresses(text: &str) -> impl Iterator<Item = Endpoint> {
    text.split(';').filter_map(|address| {
        let keys = address.strip_prefix("unix:")?;
        let address = keys.split(',').find_map(|pair| match pair.split_once('=')? {
            ("path", path) => Some(Address::Path(unescaped(path).into())),
            ("abstract", name) => Some(Address::Abstract(unescaped(name))),
            _ => None,
        })?;
        Some(Endpoint { address, direct: false })
    })
}

/// `%2d` is a byte in hexadecimal.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => bytes.extend(format!("%{part}").as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An open conversation.
#[derive(Debug)]
pub(crate) struct Bus {
    pub(super) stream: UnixStream,
    /// What was read already.
    pending: VecDeque<u8>,
    direct: bool,
    /// systemd's own name on the bus; empty without a bus. Anybody may send signals in its words.
    systemd: String,
    serial: u32,
    signals: VecDeque<Message>,
}

impl Bus {
    /// Has the conversation with the first endpoint that answers and has a systemd: a bus may be there without one, and then
    /// systemd's own socket is tried.
    pub(crate) fn talk<T>(
        endpoints: &[Endpoint],
        conversation: impl Fn(&mut Bus) -> Result<T, SystemdError>,
    ) -> Result<T, SystemdError> {
        let mut tried = Vec::new();
        for endpoint in endpoints {
            let name = || match &endpoint.address {
                Address::Path(path) => path.display().to_string(),
                Address::Abstract(name) => format!("@{name}"),
            };
            let mut bus = match connect(&endpoint.address) {
                Ok(stream) => Bus::greet(stream, endpoint.direct)?,
                Err(error) => {
                    tried.push(format!("{}: {error}", name()));
                    continue;
                }
            };
            match conversation(&mut bus) {
                Err(SystemdError::Refused { name: error, .. }) if NOBODY.contains(&error.as_str()) => {
                    tried.push(format!("{}: systemd is not on it", name()));
                }
                other => return other,
            }
        }
        Err(SystemdError::NoBus(if tried.is_empty() {
            "no address is known".into()
        } else {
            tried.join("; ")
        }))
    }

    pub(super) fn greet(mut stream: UnixStream, direct: bool) -> Result<Bus, SystemdError> {
        stream.set_read_timeout(Some(PATIENCE)).map_err(SystemdError::Talk)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(SystemdError::Talk)?;
        // Who this is the other end sees by the socket's credentials, so that no uid is said: it may have another there. All at
        // once, as the specification allows; the answers are read together.
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n").map_err(SystemdError::Talk)?;
        let mut answer = Vec::new();
        let lines = |answer: &[u8]| answer.iter().filter(|byte| **byte == b'\n').count();
        // `DATA` and `OK <id>`, or `REJECTED` and whatever.
        while lines(&answer) < 2 && !(answer.starts_with(b"REJECTED") && lines(&answer) > 0) {
            let mut part = [0; 256];
            let read = stream.read(&mut part).map_err(SystemdError::Talk)?;
            if read == 0 || answer.len() > 1024 {
                break;
            }
            answer.extend(&part[..read]);
        }
        let end = answer.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1);
        let end = end.map_or(answer.len(), |(at, _)| at + 1);
        // systemd's own socket tells what happens from then on, asked or not.
        let pending = VecDeque::from(answer.split_off(end));
        let text = String::from_utf8_lossy(&answer);
        if !text.lines().any(|line| line.starts_with("OK")) {
            return Err(SystemdError::Rejected(text.trim().to_owned()));
        }
        let mut bus =
            Bus { stream, pending, direct, systemd: String::new(), serial: 0, signals: VecDeque::new() };
        if !direct {
            let daemon = "org.freedesktop.DBus";
            bus.call(&Call {
                destination: Some(daemon),
                path: "/org/freedesktop/DBus",
                interface: daemon,
                member: "Hello",
                signature: "",
                body: Vec::new(),
            })?;
        }
        Ok(bus)
    }

    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<Message, SystemdError> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&call.encode(serial)).map_err(SystemdError::Talk)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                Kind::Return if message.reply_to == Some(serial) => return Ok(message),
                Kind::Error if message.reply_to == Some(serial) => {
                    let (name, text) = (message.error.clone(), message.text());
                    return Err(SystemdError::Refused { method: call.member.to_owned(), name, text });
                }
                Kind::Signal => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Result<Message, SystemdError> {
        let mut start = [0; 16];
        self.fill(&mut start)?;
        let mut bytes = start.to_vec();
        bytes.resize(message_length(&start)?, 0);
        self.fill(&mut bytes[16..])?;
        Ok(Message::decode(&bytes)?)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SystemdError> {
        let known = self.pending.len().min(bytes.len());
        bytes.iter_mut().zip(self.pending.drain(..known)).for_each(|(to, byte)| *to = byte);
        self.stream.read_exact(&mut bytes[known..]).map_err(SystemdError::Talk)
    }

    /// Calls a method of the manager.
    pub(crate) fn manager(
        &mut self,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> Result<Message, SystemdError> {
        let destination = (!self.direct).then_some(SYSTEMD);
        self.call(&Call {
            destination,
            path: MANAGER_PATH,
            interface: MANAGER,
            member,
            signature,
            body: body.bytes,
        })
    }

    /// Has the ends of jobs told from now on.
    pub(crate) fn subscribe(&mut self) -> Result<(), SystemdError> {
        if !self.direct {
            let mut body = Writer::default();
            body.text(&format!(
                "type='signal',interface='{MANAGER}',member='JobRemoved',path='{MANAGER_PATH}'"
            ));
            let daemon = "org.freedesktop.DBus";
            self.call(&Call {
                destination: Some(daemon),
                path: "/org/freedesktop/DBus",
                interface: daemon,
                member: "AddMatch",
                signature: "s",
                body: body.bytes,
            })?;
        }
        self.systemd = self.manager("Subscribe", "", Writer::default())?.sender;
        Ok(())
    }

    /// Waits for the end of a job and tells its result: `done`, `failed`, `canceled`, `timeout`...
    pub(crate) fn wait_for_job(&mut self, job: &str) -> Result<String, SystemdError> {
        let end = Instant::now() + PATIENCE;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None if Instant::now() >= end => {
                    return Err(SystemdError::Talk(io::ErrorKind::TimedOut.into()));
                }
                None => self.receive()?,
            };
            let ours = message.kind == Kind::Signal
                && message.sender == self.systemd
                && message.interface == MANAGER
                && message.member == "JobRemoved"
                && message.signature == "uoss";
            if !ours {
                continue;
            }
            let mut body = message.body();
            let (_, ended, _, result) = (body.u32()?, body.text()?, body.text()?, body.text()?);
            if ended == job {
                return Ok(result);
            }
        }
    }

    /// systemd's version: 252 of `252.39-1~deb12u1`, 0 when it cannot be read.
    pub(crate) fn version(&mut self) -> Result<u32, SystemdError> {
        let mut body = Writer::default();
        body.text(MANAGER);
        body.text("Version");
        let message = self.call(&Call {
            destination: (!self.direct).then_some(SYSTEMD),
            path: MANAGER_PATH,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
            body: body.bytes,
        })?;
        let mut body = message.body();
        let text = if body.signature()? == "s" { body.text()? } else { String::new() };
        let text = text.trim_start_matches('v');
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        Ok(text[..digits].parse().unwrap_or(0))
    }
}

fn connect(address: &Address) -> io::Result<UnixStream> {
    match address {
        Address::Path(path) => UnixStream::connect(path),
        Address::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
    }
}

/// Whether systemd is what runs this machine (`man 3 sd_booted`).
pub(crate) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buses_are_looked_for_where_the_environment_says_first() {
        let system = endpoints(BusKind::System, &|_| None);
        let paths = |found: &[Endpoint]| {
            let path = |endpoint: &Endpoint| match &endpoint.address {
                Address::Path(path) => {
                    format!("{}{}", path.display(), if endpoint.direct { "!" } else { "" })
                }
                Address::Abstract(name) => format!("@{name}"),
            };
            found.iter().map(path).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(paths(&system), "/run/dbus/system_bus_socket /run/systemd/private!");
        let user = endpoints(BusKind::User, &|name| match name {
            "DBUS_SESSION_BUS_ADDRESS" => {
                Some("tcp:host=x;unix:abstract=/tmp/dbus%2d1,guid=0;unix:path=/p%20q".into())
            }
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            _ => None,
        });
        assert_eq!(paths(&user), "@/tmp/dbus-1 /p q /run/user/7/bus /run/user/7/systemd/private!");
        let error = Bus::talk(&endpoints(BusKind::User, &|_| None), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "no bus of systemd can be reached: no address is known");
    }
}
