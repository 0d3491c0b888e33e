//! A container as listings and `inspect` see it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use stanza_network::PortMap;
use stanza_sandbox::{ExitRecord, Running};
use stanza_snapshot::StorageDriver;
use stanza_spec::{ContainerConfig, ContainerId, Digest, NetworkMode};

use crate::networks::EndpointEntry;

/// A container: what was asked for, what was decided, and what is true now.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// What was asked for.
    pub config: ContainerConfig,
    /// The image's id; `None` for the reserved image `host`.
    pub image: Option<Digest>,
    /// The image as it was named when the container was created.
    pub image_name: String,
    /// How its root file system is put together.
    pub storage_driver: StorageDriver,
    /// When it was created, RFC 3339.
    pub created_at: String,
    /// Entry point and command together.
    pub command: Vec<String>,
    /// The environment that was decided, without `HOSTNAME`, `HOME` and `TERM`.
    pub env: Vec<String>,
    /// The working directory.
    pub workdir: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// The host name inside.
    pub hostname: String,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// Ports that the image names, as `80/tcp`.
    pub exposed: Vec<String>,
    /// What is true now.
    pub state: State,
    /// Published ports: with the real host ports while it runs, else as asked for.
    pub ports: Vec<PortMap>,
    /// Its kind of network.
    pub network: NetworkMode,
    /// Its places in networks, in the order of its devices; addresses while it holds them.
    pub endpoints: Vec<EndpointEntry>,
    /// Bind mounts, volumes and tmpfs, by destination.
    pub mounts: Vec<MountPoint>,
    /// The image's labels with the user's over them.
    pub labels: BTreeMap<String, String>,
    /// The newest log file; `None` when nothing is kept.
    pub log_path: Option<PathBuf>,
    /// Bytes of the writable layer, and of the whole root file system; `None` unless asked for.
    pub size: Option<(u64, u64)>,
}

/// What is true of a container now.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It was never started.
    Created,
    /// It runs.
    Running(Running),
    /// It ended.
    Exited(ExitRecord),
}

impl State {
    /// Docker's word: `created`, `running` or `exited`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running(_) => "running",
            State::Exited(_) => "exited",
        }
    }
}

/// Something of the user's that is mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Docker's word: `bind`, `volume` or `tmpfs`.
    pub kind: &'static str,
    /// The volume's name.
    pub name: Option<String>,
    /// The path on the host; empty for a tmpfs.
    pub source: PathBuf,
    /// The path in the container.
    pub destination: String,
    /// Writes are possible.
    pub writable: bool,
    /// `rprivate` and its kin; empty where it means nothing.
    pub propagation: String,
}
