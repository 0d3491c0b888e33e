//! The outside and the engines, each in a room with an uplink.

use std::cell::Cell;
use std::process::{Child, Command, Stdio};

use crate::bench::peers::{Home, IMAGE, Peer, hold};
use crate::bench::workshop::compile_with;
use crate::bench::{Workshop, statistics::median};
use crate::room::Room;
use crate::shell::output;

use super::report::Values;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stanza,
    Podman,
    Docker,
}

/// One that runs, with an uplink.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) peer: Peer,
    pub(super) uplink: Uplink,
    /// What stands in the table's head.
    pub(super) title: String,
}

/// A room's way out.
#[derive(Clone, Debug)]
pub(super) struct Uplink {
    /// The room's address.
    pub(super) inner: String,
    /// The outside's.
    pub(super) outer: String,
}

/// Where everything happens. What the outside holds ends after all rooms.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) workshop: Workshop,
    /// Both ends of the traffic, as a file of the host's.
    pub(super) wire: String,
    holder: Child,
    /// The words that lead outside.
    pub(super) outside: Vec<String>,
    rooms: Cell<usize>,
}

impl Kind {
    /// As `--peers` takes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Stanza => "stanza",
            Kind::Podman => "podman",
            Kind::Docker => "docker",
        }
    }
}

impl Scene {
    pub(super) fn open(workshop: Workshop) -> Result<Scene, String> {
        let wire = workshop.rootfs.join("bin/wire");
        compile_with(&["-Wno-unused-result"], "benches/wire/wire.c", &wire)?;
        workshop.pack()?;
        let (holder, outside) = hold("")?;
        let wire = wire.display().to_string();
        Ok(Scene { workshop, wire, holder, outside, rooms: Cell::new(0) })
    }

    /// A new room with an uplink.
    pub(super) fn room(&self) -> Result<(Room, Uplink), String> {
        let number = self.rooms.get() + 1;
        self.rooms.set(number);
        let room = Room::open(&format!("stanza-bench-{}-{number}", std::process::id()))?;
        let (inner, outer) = (format!("10.213.{number}.2"), format!("10.213.{number}.1"));
        let (device, first) = (format!("out{number}"), room.first().to_string());
        let outside = format!(
            "ip link add {device} type veth peer name up0 netns {first} && \
             ip addr add {outer}/24 dev {device} && ip link set {device} up"
        );
        ask(&self.outside, &["sh", "-c", &outside])?;
        let inside = format!(
            "ip addr add {inner}/24 dev up0 && ip link set up0 up && ip route add default via {outer}"
        );
        ask(&room.enter(), &["sh", "-c", &inside])?;
        Ok((room, Uplink { inner, outer }))
    }

    /// One more engine of a kind, with nothing in it but the image.
    pub(super) fn engine(&self, kind: Kind) -> Result<Engine, String> {
        let (room, uplink) = self.room()?;
        let (home, name) = (Home::Room(room), format!("{}-{}", kind.name(), self.rooms.get()));
        let peer = match kind {
            Kind::Stanza => Peer::stanza_in(&self.workshop, &name, home),
            Kind::Podman => Peer::podman_in(&self.workshop, &name, home),
            Kind::Docker => Peer::docker_in(&self.workshop, &name, home),
        }?;
        let title = match kind {
            Kind::Podman => {
                let backend = peer.ask(&["info", "--format", "{{.Host.NetworkBackend}}"])?;
                format!("{}, {}", peer.name, backend.trim())
            }
            _ => peer.name.clone(),
        };
        Ok(Engine { peer, uplink, title })
    }

    /// All that work here; what does not is named.
    pub(super) fn engines(&self, kinds: &[Kind]) -> Vec<Engine> {
        let made = kinds.iter().map(|kind| {
            self.engine(*kind).inspect_err(|error| println!("skipped: {}: {error}", kind.name()))
        });
        made.filter_map(Result::ok).collect()
    }

    /// `wire serve` outside, until it is dropped.
    pub(super) fn serve_outside(&self, port: &str) -> Result<Server, String> {
        let all = [&["setpriv", "--pdeathsig", "KILL"].map(str::to_owned)[..], &self.outside].concat();
        let process = Command::new(&all[0])
            .args(&all[1..])
            .args([&self.wire, "serve", port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run `setpriv`: {error}"))?;
        Ok(Server(process))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A process that is ended with it.
#[derive(Debug)]
pub(super) struct Server(pub(super) Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The output of a command where `enter` leads.
pub(super) fn ask(enter: &[String], words: &[&str]) -> Result<String, String> {
    output(&enter.iter().map(String::as_str).chain(words.iter().copied()).collect::<Vec<_>>())
}

/// The numbers of an output, one a line.
pub(super) fn numbers(text: &str) -> Vec<f64> {
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

impl Engine {
    /// Starts a container called `name` in the background.
    pub(super) fn start(&self, name: &str, options: &[&str], command: &[&str]) -> Result<(), String> {
        let arguments = [&["-d", "--name", name], options, &[IMAGE], command].concat();
        let words = self.peer.run(&arguments);
        self.peer.ask(&words.iter().map(String::as_str).collect::<Vec<_>>()).map(|_| ())
    }

    /// The output of a command in a container.
    pub(super) fn exec(&self, container: &str, command: &[&str]) -> Result<String, String> {
        self.peer.ask(&[&["exec", container], command].concat())
    }

    /// Ends containers, whether they are there or not.
    pub(super) fn remove(&self, containers: &[&str]) {
        let _ = self.peer.ask(&[&["rm", "-f"], containers].concat());
    }

    /// The address of a container.
    pub(super) fn address(&self, container: &str) -> Result<String, String> {
        let text = self.exec(container, &["ip", "-4", "addr", "show", "eth0"])?;
        let address = text.lines().find_map(|line| line.trim().strip_prefix("inet "));
        let address = address.and_then(|rest| rest.split('/').next()).map(str::to_owned);
        address.ok_or_else(|| format!("`{container}` has no address: {}", text.trim()))
    }

    /// The output of a command of the host's in its room.
    pub(super) fn ask_room(&self, words: &[&str]) -> Result<String, String> {
        ask(&self.peer.enter, words)
    }
}

/// The samples of one thing, by contender.
pub(super) type Samples = Vec<(String, Vec<f64>)>;

/// Puts samples to those of `name`.
pub(super) fn add(samples: &mut Samples, name: &str, new: impl IntoIterator<Item = f64>) {
    match samples.iter_mut().find(|(known, _)| known == name) {
        Some((_, values)) => values.extend(new),
        None => samples.push((name.to_owned(), new.into_iter().collect())),
    }
}

/// One number for each contender.
pub(super) fn medians(samples: &Samples) -> Values {
    samples.iter().map(|(name, values)| (name.clone(), median(values))).collect()
}

/// Runs `each` on all contenders, `rounds` times in rotating order; one that fails drops out and is named.
pub(super) fn rotate<T>(
    contenders: &[T],
    name: impl Fn(&T) -> &str,
    rounds: usize,
    mut each: impl FnMut(&T) -> Result<(), String>,
) {
    let mut working: Vec<&T> = contenders.iter().collect();
    for round in 0..rounds {
        let count = working.len();
        let mut failed = Vec::new();
        for turn in 0..count {
            let at = (turn + round) % count;
            if let Err(error) = each(working[at]) {
                println!("skipped: {}: {error}", name(working[at]));
                failed.push(at);
            }
        }
        failed.sort_unstable();
        for at in failed.into_iter().rev() {
            working.remove(at);
        }
    }
}

/// Prepares each contender; those that can be.
pub(super) fn prepared(
    engines: &[Engine],
    mut prepare: impl FnMut(&Engine) -> Result<(), String>,
) -> Vec<&Engine> {
    let mut ready = Vec::new();
    for engine in engines {
        match prepare(engine) {
            Ok(()) => ready.push(engine),
            Err(error) => println!("skipped: {}: {error}", engine.title),
        }
    }
    ready
}
