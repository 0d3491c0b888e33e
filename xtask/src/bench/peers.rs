//! The contenders: each in name spaces of its own, so that the machine's network, mounts and state stay as they are.
//!
//! A contender's network and mount name spaces are held by a sleeping process; commands enter with `nsenter`. In the mount
//! name space of the peers the v2 tree of a hybrid cgroup layout is unmounted, which crun and podman refuse otherwise, and
//! `/run` is empty, so that no service of the machine is met there. Docker's daemon is started inside with directories and a
//! socket of its own.
//!
//! A contender may live in a [`Room`] in place of that: there its processes and cgroups end with it as well.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Workshop;
use crate::room::Room;
use crate::shell::{find, output};

/// What holds a contender's name spaces.
#[derive(Debug)]
pub(super) enum Home {
    /// Those of network and mounts, and the words that lead into them.
    Spaces(Child, Vec<String>),
    /// Those, process ids and cgroups.
    Room(Room),
}

impl Home {
    /// Network and mount name spaces, prepared by `script`.
    fn spaces(script: &str) -> Result<Home, String> {
        hold(script).map(|(holder, enter)| Home::Spaces(holder, enter))
    }

    /// The words that lead there.
    pub(super) fn enter(&self) -> Vec<String> {
        match self {
            Home::Spaces(_, enter) => enter.clone(),
            Home::Room(room) => room.enter(),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Home::Spaces(holder, _) = self {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// What a contender is, as far as its commands differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Takes Docker's commands.
    Engine,
    /// An OCI runtime: bundles only.
    Runtime,
}

/// A contender that works.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The words that lead into its name spaces.
    pub(super) enter: Vec<String>,
    /// The words of its command line.
    pub(super) cli: Vec<String>,
    /// Directory of its own.
    pub(super) directory: std::path::PathBuf,
    /// What its `run` needs on this machine.
    pub(super) run_options: Vec<String>,
    home: Home,
    daemon: Option<Child>,
}

/// The image's name in every engine.
pub(super) const IMAGE: &str = "localhost/bench:1";

pub(super) fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// Podman's default limits are above what a machine without CAP_SYS_RESOURCE may set, and the machine's own as well: podman
/// has lowered them when its runtime comes to raise them.
pub(super) fn podman_limits() -> Vec<String> {
    words(&["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"])
}

/// A process that holds new network and mount name spaces, prepared by `script`.
pub(super) fn hold(script: &str) -> Result<(Child, Vec<String>), String> {
    let script = format!("ip link set lo up; {script} echo ready; exec sleep 1000000");
    // Whoever ends this task in whatever way ends the holder.
    let mut holder = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "-n", "-m", "--propagation", "private", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run `setpriv`: {error}"))?;
    let mut line = String::new();
    if let Some(stdout) = holder.stdout.take() {
        let _ = BufReader::new(stdout).read_line(&mut line);
    }
    if line.trim() != "ready" {
        return Err("name spaces cannot be made here".to_owned());
    }
    let enter = words(&["nsenter", "-n", "-m", "-t", &holder.id().to_string(), "--"]);
    Ok((holder, enter))
}

pub(super) const PEER_SCRIPT: &str = "mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; \
                           mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /dev/shm; ";

impl Peer {
    /// Runs a command of the contender; its standard output.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let all: Vec<&str> =
            self.enter.iter().chain(&self.cli).map(String::as_str).chain(arguments.iter().copied()).collect();
        output(&all)
    }

    /// The words of `run` with these arguments, and what this machine asks for.
    pub(super) fn run(&self, arguments: &[&str]) -> Vec<String> {
        [words(&["run"]), self.run_options.clone(), words(arguments)].concat()
    }

    /// The whole command line inside the name spaces.
    pub(super) fn command(&self, arguments: &[&str]) -> Vec<String> {
        self.cli.iter().cloned().chain(words(arguments)).collect()
    }

    /// Stanza itself.
    pub(super) fn stanza(workshop: &Workshop, name: &str) -> Result<Peer, String> {
        Peer::stanza_in(workshop, name, Home::spaces("")?)
    }

    /// The same in a home that is there already.
    pub(super) fn stanza_in(workshop: &Workshop, name: &str, home: Home) -> Result<Peer, String> {
        let directory = workshop.make(name)?;
        let at = |name: &str| format!("--{name}={}", directory.join(name).display());
        let cli = vec![workshop.stanza.display().to_string(), at("root"), at("runroot")];
        let mut peer = Peer::called(workshop, name, home, cli, Vec::new())?;
        "stanza".clone_into(&mut peer.name);
        Ok(peer)
    }

    /// An engine that is called by `cli`, with a directory `name` of its own.
    pub(super) fn called(
        workshop: &Workshop,
        name: &str,
        home: Home,
        cli: Vec<String>,
        run_options: Vec<String>,
    ) -> Result<Peer, String> {
        let (enter, directory) = (home.enter(), workshop.make(name)?);
        let peer = Peer {
            name: name.to_owned(),
            kind: Kind::Engine,
            enter,
            cli,
            directory,
            run_options,
            home,
            daemon: None,
        };
        peer.import(workshop)?;
        Ok(peer)
    }

    fn import(&self, workshop: &Workshop) -> Result<(), String> {
        self.ask(&["import", &workshop.archive.display().to_string(), IMAGE])?;
        // The first run unpacks, compiles, caches: it is no start.
        let first = self.run(&["--rm", "--network", "none", IMAGE, "true"]);
        self.ask(&first.iter().map(String::as_str).collect::<Vec<_>>()).map(|_| ())
    }

    fn podman(workshop: &Workshop) -> Result<Peer, String> {
        Peer::podman_in(workshop, "podman", Home::spaces(PEER_SCRIPT)?)
    }

    /// Podman, with a directory `name` of its own.
    pub(super) fn podman_in(workshop: &Workshop, name: &str, home: Home) -> Result<Peer, String> {
        let program = find("podman").ok_or("not installed (package podman)")?;
        let directory = workshop.make(name)?;
        let at = |name: &str| format!("--{name}={}", directory.join(name).display());
        let cli = vec![
            program,
            at("root"),
            at("runroot"),
            at("tmpdir"),
            at("network-config-dir"),
            "--cgroup-manager=cgroupfs".into(),
            "--events-backend=file".into(),
        ];
        let version = output(&["podman", "--version"])?;
        let mut peer = Peer::called(workshop, name, home, cli, podman_limits())?;
        peer.name = format!("podman {}", version.rsplit(' ').next().unwrap_or_default().trim());
        Ok(peer)
    }

    fn docker(workshop: &Workshop) -> Result<Peer, String> {
        Peer::docker_in(workshop, "docker", Home::spaces(PEER_SCRIPT)?)
    }

    /// Docker, its daemon included, with a directory `name` of its own.
    pub(super) fn docker_in(workshop: &Workshop, name: &str, home: Home) -> Result<Peer, String> {
        let daemon = find("dockerd").ok_or("not installed (package docker.io)")?;
        // Debian's client, not another one that comes first in the path.
        let client = if Path::new("/usr/bin/docker").is_file() {
            "/usr/bin/docker".to_owned()
        } else {
            find("docker").ok_or("no client")?
        };
        let enter = home.enter();
        let directory = workshop.make(name)?;
        let at = |name: &str| directory.join(name).display().to_string();
        let socket = format!("unix://{}", at("docker.sock"));
        let log = fs::File::create(directory.join("log")).map_err(|error| error.to_string())?;
        let child = Command::new(&enter[0])
            .args(&enter[1..])
            .args([
                &daemon,
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
                "--host",
                &socket,
            ])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot run `dockerd`: {error}"))?;
        let cli = vec![client, "--host".into(), socket];
        let mut peer = Peer {
            name: "docker".into(),
            kind: Kind::Engine,
            enter,
            cli,
            directory,
            run_options: Vec::new(),
            home,
            daemon: Some(child),
        };
        let end = Instant::now() + Duration::from_secs(60);
        let version = loop {
            match peer.ask(&["version", "--format", "{{.Server.Version}}"]) {
                Ok(version) => break version,
                Err(error) if Instant::now() > end || peer.daemon_ended() => {
                    let log = fs::read_to_string(peer.directory.join("log")).unwrap_or_default();
                    return Err(format!(
                        "does not start: {error}: {}",
                        log.lines().last().unwrap_or_default()
                    ));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        peer.name = format!("docker {}", version.trim());
        peer.import(workshop)?;
        Ok(peer)
    }

    fn daemon_ended(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|daemon| matches!(daemon.try_wait(), Ok(Some(_))))
    }

    fn runtime(workshop: &Workshop, program: &str) -> Result<Peer, String> {
        let path = find(program).ok_or(format!("not installed (package {program})"))?;
        let home = Home::spaces(PEER_SCRIPT)?;
        let enter = home.enter();
        let directory = workshop.make(program)?;
        let cli = vec![path, "--root".into(), directory.join("state").display().to_string()];
        let version = output(&[program, "--version"])?;
        let version =
            version.lines().next().unwrap_or_default().rsplit(' ').next().unwrap_or_default().to_owned();
        let peer = Peer {
            name: format!("{program} {version}, a bundle"),
            kind: Kind::Runtime,
            enter,
            cli,
            directory,
            run_options: Vec::new(),
            home,
            daemon: None,
        };
        peer.bundle(workshop, "true", &["true"])?;
        peer.bundle(workshop, "sleep", &["sleep", "100000"])?;
        peer.ask(&["run", "--bundle", &peer.directory.join("true").display().to_string(), "first"])?;
        Ok(peer)
    }

    /// A bundle called `name` whose process is `command`.
    fn bundle(&self, workshop: &Workshop, name: &str, command: &[&str]) -> Result<(), String> {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let config = directory.join("config.json");
        let status = Command::new(&self.cli[0])
            .arg("spec")
            .current_dir(&directory)
            .status()
            .map_err(|error| format!("cannot run `spec`: {error}"))?;
        let text = fs::read_to_string(&config)
            .map_err(|error| format!("`spec` ({status}) made no configuration: {error}"))?;
        let mut document: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        document["process"]["terminal"] = false.into();
        document["process"]["args"] = command.into();
        document["root"] =
            serde_json::json!({ "path": workshop.rootfs.display().to_string(), "readonly": true });
        if let Some(process) = document["process"].as_object_mut() {
            // More than this machine may allow.
            process.remove("rlimits");
        }
        fs::write(&config, document.to_string()).map_err(|error| error.to_string())
    }

    /// All that work here, stanza first; what does not is named.
    pub(super) fn all(workshop: &Workshop) -> Result<Vec<Peer>, String> {
        let mut peers = vec![Peer::stanza(workshop, "stanza")?];
        for (name, made) in [
            ("podman", Peer::podman(workshop)),
            ("docker", Peer::docker(workshop)),
            ("crun", Peer::runtime(workshop, "crun")),
            ("runc", Peer::runtime(workshop, "runc")),
        ] {
            match made {
                Ok(peer) => peers.push(peer),
                Err(error) => println!("skipped: {name}: {error}"),
            }
        }
        Ok(peers)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if matches!(self.home, Home::Room(_)) {
            // All that runs in a room ends with it.
            if let Some(mut daemon) = self.daemon.take() {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            return;
        }
        if self.name == "stanza" {
            let ids = self.ask(&["ps", "-aq"]).unwrap_or_default();
            for some in ids.lines().collect::<Vec<_>>().chunks(100) {
                let _ = self.ask(&[&["rm", "-f"], some].concat());
            }
        }
        if let Some(daemon) = &mut self.daemon {
            // SIGTERM, so that it stops its containers and its own containerd.
            let _ = output(&["kill", &daemon.id().to_string()]);
            let end = Instant::now() + Duration::from_secs(20);
            while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
