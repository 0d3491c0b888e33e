//! Where the contenders work: a network of its own with registries on loopback, and storage that is new each time.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::reference::Reference;
use crate::bench::Workshop;
use crate::bench::peers::{PEER_SCRIPT, hold};
use crate::shell::output;

/// The registry that has the images.
pub(super) const SOURCE: u16 = 5000;
/// The registry that is pushed to.
pub(super) const TARGET: u16 = 5001;

/// The name spaces, the images, and what measures.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) workshop: Workshop,
    pub(super) reference: Reference,
    /// The program of `benches/image_floor`.
    pub(super) floor: PathBuf,
    holder: Child,
    /// The words that lead into the name spaces.
    pub(super) enter: Vec<String>,
}

/// A program of this room that serves others.
#[derive(Debug)]
pub(super) struct Service {
    child: Child,
    log: PathBuf,
}

/// A memory file system, empty when it is made.
#[derive(Debug)]
pub(super) struct Storage<'a> {
    room: &'a Room,
    pub(super) path: PathBuf,
}

impl Room {
    pub(super) fn open(workshop: Workshop, floor: PathBuf) -> Result<Room, String> {
        let reference = Reference::open()?;
        let (holder, enter) = hold(PEER_SCRIPT)?;
        let room = Room { workshop, reference, floor, holder, enter };
        // Filled through a registry, once.
        if !room.reference.storage.join("docker").is_dir() {
            let registry = room.registry(SOURCE, &room.reference.storage)?;
            for name in ["gzip", "zstd", "debian"] {
                println!("==> into the registry: {name}");
                let from = format!("oci:{}:{name}", room.reference.layout.display());
                let to = format!("docker://{}", source(name));
                let copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests"];
                room.ask(&[&copy[..], &["--dest-tls-verify=false", &from, &to]].concat())?;
            }
            drop(registry);
        }
        Ok(room)
    }

    /// Runs words inside, unmeasured; their standard output.
    pub(super) fn ask(&self, words: &[&str]) -> Result<String, String> {
        output(&self.enter.iter().map(String::as_str).chain(words.iter().copied()).collect::<Vec<_>>())
    }

    /// Starts a program inside, and waits until `ready` succeeds.
    pub(super) fn serve(&self, words: &[String], log: PathBuf, ready: &[&str]) -> Result<Service, String> {
        let file = fs::File::create(&log).map_err(|error| format!("`{}`: {error}", log.display()))?;
        let errors = file.try_clone().map_err(|error| error.to_string())?;
        // Whoever ends this task in whatever way ends the service.
        let prefix = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned);
        let all: Vec<&String> = self.enter.iter().chain(&prefix).chain(words).collect();
        let child = Command::new(all[0])
            .args(&all[1..])
            .current_dir("/")
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("cannot run `{}`: {error}", words.join(" ")))?;
        let mut service = Service { child, log };
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = self.ask(ready) {
            let ended = matches!(service.child.try_wait(), Ok(Some(_)));
            if ended || Instant::now() > end {
                let log = fs::read_to_string(&service.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default().to_owned();
                return Err(format!("`{}` does not serve: {error}: {last}", words[0]));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(service)
    }

    /// A registry on this port with this storage.
    pub(super) fn registry(&self, port: u16, storage: &Path) -> Result<Service, String> {
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{}:{port}\"}}\n",
            storage.display(),
            Ipv4Addr::LOCALHOST,
        );
        let file = self.workshop.directory.join(format!("registry-{port}.yml"));
        fs::write(&file, config).map_err(|error| format!("`{}`: {error}", file.display()))?;
        let words = ["docker-registry", "serve", &file.display().to_string()].map(str::to_owned);
        let probe = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
        self.serve(&words, file.with_extension("log"), &["bash", "-c", &probe])
    }

    /// A new file system for whatever a contender keeps.
    pub(super) fn storage(&self, name: &str) -> Result<Storage<'_>, String> {
        let path = self.workshop.make(name)?;
        self.ask(&["mount", "-t", "tmpfs", "-o", "mode=755,size=8g", "tmpfs", &path.display().to_string()])?;
        let storage = Storage { room: self, path };
        let inside = format!("/proc/{}/root{}", self.holder.id(), storage.path.display());
        match fs::read_dir(&inside).map(Iterator::count) {
            Ok(0) => Ok(storage),
            other => Err(format!("the storage of `{name}` is not empty: {other:?}")),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Drop for Storage<'_> {
    fn drop(&mut self) {
        // What is mounted inside goes too.
        let _ = self.room.ask(&["umount", "--lazy", &self.path.display().to_string()]);
    }
}

impl Service {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // SIGTERM, so that a daemon ends what it has started.
        let _ = output(&["kill", &self.child.id().to_string()]);
        let end = Instant::now() + Duration::from_secs(20);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An image in the registry that has them.
pub(super) fn source(name: &str) -> String {
    format!("127.0.0.1:{SOURCE}/image:{name}")
}

/// The image's name in the registry that is pushed to.
pub(super) fn target() -> String {
    format!("127.0.0.1:{TARGET}/debian:1")
}
