//! The contenders: how each is started on empty storage, and its words for each kind of work.

use std::fs;
use std::path::{Path, PathBuf};

use super::room::{Room, Service, source, target};
use crate::bench::Sample;
use crate::bench::image::processes;
use crate::shell::{find, output};

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Stanza,
    Podman,
    Docker,
    Containerd,
    /// Copies blobs and unpacks nothing.
    Skopeo,
    /// `benches/image_floor`: download, both hashes, inflate.
    Verify,
    /// The same, and the files.
    Files,
}

/// All, in the order of the tables.
pub(super) const TOOLS: [Tool; 7] =
    [Tool::Stanza, Tool::Verify, Tool::Files, Tool::Containerd, Tool::Podman, Tool::Docker, Tool::Skopeo];

/// A kind of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Of the image of this name.
    Pull(&'static str),
    /// To the registry on the other port.
    Push,
    /// Into this file.
    Save(PathBuf),
    /// From this file.
    Load(PathBuf),
}

impl Tool {
    /// As `--peers` and the tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Tool::Stanza => "stanza",
            Tool::Podman => "podman",
            Tool::Docker => "docker",
            Tool::Containerd => "containerd",
            Tool::Skopeo => "skopeo",
            Tool::Verify => "floor: verify",
            Tool::Files => "floor: files",
        }
    }

    /// With its version, and what it does less than the others.
    pub(super) fn title(self) -> String {
        let ask = |words: &[&str], at: usize| {
            let text = output(words).unwrap_or_default();
            text.split_whitespace().nth(at).unwrap_or_default().trim_end_matches(',').to_owned()
        };
        match self {
            Tool::Stanza => "**stanza**".to_owned(),
            Tool::Podman => format!("podman {}, overlay", ask(&["podman", "--version"], 2)),
            Tool::Docker => format!("docker {}, overlay2", ask(&["dockerd", "--version"], 2)),
            Tool::Containerd => format!("containerd {}, overlayfs", ask(&["containerd", "--version"], 2)),
            Tool::Skopeo => format!("skopeo {}, blobs only", ask(&["skopeo", "--version"], 2)),
            Tool::Verify => "floor: download, sha256, inflate, sha256".to_owned(),
            Tool::Files => "floor: the same, and files".to_owned(),
        }
    }
}

/// A contender at work.
#[derive(Debug)]
pub(super) struct Session<'a> {
    room: &'a Room,
    pub(super) tool: Tool,
    directory: PathBuf,
    /// The words before each command.
    cli: Vec<String>,
    daemon: Option<Service>,
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn program(name: &str, package: &str) -> Result<String, String> {
    find(name).ok_or(format!("not installed (package {package})"))
}

impl<'a> Session<'a> {
    /// Starts a contender that keeps everything in `directory`.
    pub(super) fn open(room: &'a Room, tool: Tool, directory: &Path) -> Result<Session<'a>, String> {
        let at = |name: &str| directory.join(name).display().to_string();
        let option = |name: &str| format!("--{name}={}", at(name));
        let mut daemon = None;
        let cli = match tool {
            Tool::Stanza => {
                vec![room.workshop.stanza.display().to_string(), option("root"), option("runroot")]
            }
            Tool::Podman => {
                let fixed =
                    ["--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--events-backend=file"];
                let mut cli =
                    vec![program("podman", "podman")?, option("root"), option("runroot"), option("tmpdir")];
                cli.extend(words(&fixed));
                cli
            }
            Tool::Docker => {
                // Debian's client, not another one that comes first in the path.
                let client = Path::new("/usr/bin/docker");
                let client = if client.is_file() {
                    client.display().to_string()
                } else {
                    program("docker", "docker.io")?
                };
                let socket = format!("unix://{}", at("docker.sock"));
                let fixed =
                    ["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=overlay2"];
                let mut run = vec![program("dockerd", "docker.io")?, format!("--host={socket}")];
                run.extend(["data-root", "exec-root", "pidfile"].map(option));
                run.extend(words(&fixed));
                let ready = [client.as_str(), "--host", &socket, "version"];
                daemon = Some(room.serve(&run, room.workshop.directory.join("dockerd.log"), &ready)?);
                vec![client, "--host".into(), socket]
            }
            Tool::Containerd => {
                let (ctr, socket) = (program("ctr", "containerd")?, at("containerd.sock"));
                let config = format!(
                    "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                     [grpc]\n  address = \"{socket}\"\n[ttrpc]\n  address = \"{socket}.ttrpc\"\n",
                    at("root"),
                    at("state"),
                );
                let file = room.workshop.directory.join("containerd.toml");
                fs::write(&file, config).map_err(|error| format!("`{}`: {error}", file.display()))?;
                let run =
                    [program("containerd", "containerd")?, "--config".into(), file.display().to_string()];
                let ready = [ctr.as_str(), "--address", &socket, "version"];
                daemon = Some(room.serve(&run, file.with_extension("log"), &ready)?);
                vec![ctr, "--address".into(), socket]
            }
            Tool::Skopeo => vec![program("skopeo", "skopeo")?, "--insecure-policy".into(), "copy".into()],
            Tool::Verify | Tool::Files => vec![room.floor.display().to_string()],
        };
        Ok(Session { room, tool, directory: directory.to_owned(), cli, daemon })
    }

    /// The command that does this work; `None` when the contender has no word for it.
    fn command(&self, work: &Work) -> Result<Option<Vec<String>>, String> {
        let (target, inside) = (target(), |name: &str| self.directory.join(name).display().to_string());
        let layout = format!("oci:{}:debian", self.room.reference.layout.display());
        let rest = match (work, self.tool) {
            (Work::Pull(name), Tool::Verify | Tool::Files) => {
                let host = source(name);
                let host = host.split('/').next().unwrap_or_default();
                let mut rest = words(&["verify", host, "image"]);
                if self.tool == Tool::Files {
                    rest[0] = "files".to_owned();
                    rest.push(inside("files"));
                }
                let layers = self.room.reference.layers(name)?;
                rest.extend(
                    layers.iter().map(|layer| format!("{},{},{}", layer.kind, layer.digest, layer.diff_id)),
                );
                rest
            }
            (_, Tool::Verify | Tool::Files) => return Ok(None),
            (Work::Pull(name), Tool::Stanza | Tool::Docker) => words(&["pull", &source(name)]),
            (Work::Pull(name), Tool::Podman) => words(&["pull", "--tls-verify=false", &source(name)]),
            (Work::Pull(name), Tool::Containerd) => words(&["images", "pull", "--plain-http", &source(name)]),
            (Work::Pull(name), Tool::Skopeo) => {
                let (from, to) = (format!("docker://{}", source(name)), format!("dir:{}", inside("blobs")));
                words(&["--src-tls-verify=false", &from, &to])
            }
            (Work::Push, Tool::Stanza | Tool::Docker) => words(&["push", &target]),
            (Work::Push, Tool::Podman) => words(&["push", "--tls-verify=false", &target]),
            (Work::Push, Tool::Containerd) => words(&["images", "push", "--plain-http", &target]),
            (Work::Push, Tool::Skopeo) => {
                words(&["--dest-tls-verify=false", &layout, &format!("docker://{target}")])
            }
            (Work::Save(file), Tool::Stanza | Tool::Docker | Tool::Podman) => {
                words(&["save", "--output", &file.display().to_string(), &target])
            }
            (Work::Save(file), Tool::Containerd) => {
                words(&["images", "export", &file.display().to_string(), &target])
            }
            (Work::Save(file), Tool::Skopeo) => {
                words(&[&layout, &format!("oci-archive:{}:localhost/debian:1", file.display())])
            }
            (Work::Load(file), Tool::Docker) if *file == self.room.reference.oci_archive => return Ok(None),
            (Work::Load(file), Tool::Stanza | Tool::Docker | Tool::Podman) => {
                words(&["load", "--input", &file.display().to_string()])
            }
            (Work::Load(file), Tool::Containerd) => words(&["images", "import", &file.display().to_string()]),
            (Work::Load(file), Tool::Skopeo) => {
                let kind =
                    if *file == self.room.reference.oci_archive { "oci-archive" } else { "docker-archive" };
                words(&[&format!("{kind}:{}", file.display()), &format!("oci:{}:x", inside("layout"))])
            }
        };
        Ok(Some([self.cli.clone(), rest].concat()))
    }

    /// Does it, measured; `None` when the contender has no word for it.
    pub(super) fn measure(&self, work: &Work) -> Result<Option<Sample>, String> {
        let Some(words) = self.command(work)? else { return Ok(None) };
        let before = self.daemon.as_ref().map(|daemon| processes::cpu(daemon.pid())).transpose()?;
        let mut sample = self.room.workshop.timer.time(&self.room.enter, &words)?;
        if let (Some(before), Some(daemon)) = (before, &self.daemon) {
            sample.cpu_ms += processes::cpu(daemon.pid())? - before;
        }
        match (work, self.tool) {
            (Work::Pull(name), Tool::Stanza) => self.is_unpacked(name)?,
            (Work::Load(_), Tool::Stanza) => {
                if let Err(error) = self.is_unpacked("debian") {
                    println!("note: load: stanza does less than its peers: {error}");
                }
            }
            _ => {}
        }
        Ok(Some(sample))
    }

    /// Its peers unpack when they pull; a stanza that leaves that for the first `run` is not to be compared with them.
    fn is_unpacked(&self, name: &str) -> Result<(), String> {
        for layer in self.room.reference.layers(name)? {
            let path = self.directory.join("root/layers").join(layer.diff_id.replace(':', "/"));
            self.room
                .ask(&["test", "-d", &path.display().to_string()])
                .map_err(|_| format!("layer {} was not unpacked", layer.diff_id))?;
        }
        Ok(())
    }

    /// Does it while somebody looks at the memory of whoever works.
    pub(super) fn watch(&self, work: &Work) -> Result<Option<processes::Memory>, String> {
        let Some(words) = self.command(work)? else { return Ok(None) };
        let all: Vec<&String> = self.room.enter.iter().chain(&words).collect();
        let mut child = std::process::Command::new(all[0])
            .args(&all[1..])
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run `{}`: {error}", words.join(" ")))?;
        let root = self.daemon.as_ref().map_or(child.id(), Service::pid);
        let mut seen = processes::Memory::default();
        loop {
            seen = seen.most(processes::memory(root));
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                let failed = || format!("`{}` failed: {status}", words.join(" "));
                return if status.success() { Ok(Some(seen)) } else { Err(failed()) };
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Brings the image in and gives it the name that it is pushed and saved by.
    pub(super) fn prepare(&self) -> Result<(), String> {
        let name = source("debian");
        let ask = |rest: &[&str]| {
            let all: Vec<&str> = self.cli.iter().map(String::as_str).chain(rest.iter().copied()).collect();
            self.room.ask(&all)
        };
        let tag = match self.tool {
            Tool::Stanza | Tool::Podman | Tool::Docker => ["tag"].as_slice(),
            Tool::Containerd => ["images", "tag"].as_slice(),
            Tool::Skopeo | Tool::Verify | Tool::Files => return Ok(()),
        };
        let pull = self.command(&Work::Pull("debian"))?.unwrap_or_default();
        self.room.ask(&pull.iter().map(String::as_str).collect::<Vec<_>>())?;
        ask(&[tag, &[&name, &target()]].concat()).map(|_| ())
    }

    /// Whether the contender knows the word at all: stanza may be older than this bench.
    pub(super) fn knows(&self, work: &Work) -> bool {
        let word = match work {
            Work::Pull(_) => "pull",
            Work::Push => "push",
            Work::Save(_) => "save",
            Work::Load(_) => "load",
        };
        self.tool != Tool::Stanza || self.room.ask(&[&self.cli[0], word, "--help"]).is_ok()
    }
}
