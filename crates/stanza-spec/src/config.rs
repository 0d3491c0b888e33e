//! What a user asks for: [`ContainerConfig`], the one model behind every door.
//!
//! The doors (command line, APIs) translate into it, the engine stores it as JSON and plans from it. Empty and absent
//! mean "as the image says", and where the image says nothing, the engine's default. Every field is set by the user
//! (through a door) unless its comment says otherwise.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A container, as asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// The image reference as typed; `host` is this machine's own root file system.
    pub image: String,
    /// Which wall: a container or a virtual machine.
    pub isolation: Isolation,
    /// The name; `None` lets the engine invent one.
    pub name: Option<String>,
    /// The host name inside; `None` is the first 12 digits of the id.
    pub hostname: Option<String>,
    /// Replaces the image's entry point; `Some` of nothing clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command when not empty.
    pub command: Vec<String>,
    /// `NAME=VALUE`, added to the image's environment; a bare `NAME` removes the image's value.
    pub env: Vec<String>,
    /// The working directory; made when it does not exist.
    pub workdir: Option<String>,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
    /// A terminal (`-t`).
    pub tty: bool,
    /// Keep standard input open (`-i`).
    pub open_stdin: bool,
    /// Remove the container when it exits (`--rm`).
    pub auto_remove: bool,
    /// Labels, added to the image's.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the container to stop, by number; `None` is the image's, or 15.
    pub stop_signal: Option<i32>,
    /// Seconds between that signal and SIGKILL; `None` is 10, negative waits for ever.
    pub stop_timeout: Option<i64>,
    /// Volumes, bind mounts and tmpfs.
    pub mounts: Vec<MountRequest>,
    /// The root file system is read-only.
    pub read_only: bool,
    /// Which network; `None` is the engine's default.
    pub network: Option<NetworkMode>,
    /// Published ports.
    pub ports: Vec<PortRequest>,
    /// Limits.
    pub resources: Resources,
    /// Resource limits of the process, by name.
    pub ulimits: Vec<Ulimit>,
    /// Capabilities, seccomp and other locks.
    pub security: Security,
    /// The process id namespace.
    pub pid: NamespaceMode,
    /// The System V IPC namespace.
    pub ipc: NamespaceMode,
    /// The host name namespace.
    pub uts: NamespaceMode,
    /// The user namespace.
    pub userns: UsernsMode,
    /// The size of `/dev/shm` in bytes; `None` is 64 MiB.
    pub shm_size: Option<u64>,
    /// Where output is kept.
    pub log: LogConfig,
    /// `os/architecture[/variant]`; `None` is this machine's.
    pub platform: Option<String>,
    /// When to ask the registry.
    pub pull: PullPolicy,
}

/// Which wall stands around the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces and control groups of this kernel.
    #[default]
    Container,
    /// A virtual machine with a kernel of its own.
    Vm,
}

/// A mount asked for by `-v`, `--mount` or `--tmpfs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// What is mounted.
    pub kind: MountKind,
    /// Absolute path in the container.
    pub destination: String,
    /// No writes through this mount.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        source: String,
        /// Make the source as a directory when it is missing (`-v` does, `--mount` does not).
        create_source: bool,
        /// `rprivate` (the default), `private`, `rshared`, `shared`, `rslave` or `slave`.
        propagation: Option<String>,
        /// Only the source itself, not what is mounted below it.
        non_recursive: bool,
    },
    /// A named volume, made when it does not exist; `None` is an anonymous one, removed with the container.
    Volume {
        /// The volume's name.
        name: Option<String>,
        /// Do not fill an empty volume with what the image has there.
        no_copy: bool,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; `None` is the kernel's default, half the memory.
        size: Option<u64>,
        /// Permission bits; `None` is 1777 octal.
        mode: Option<u32>,
        /// Further mount options, as `noexec`.
        options: Vec<String>,
    },
}

/// Which network a container joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A namespace with nothing but loopback.
    None,
    /// The host's own network.
    Host,
    /// The default bridge.
    Bridge,
    /// A network stack in a process of the user's, which `pasta` is (package `passt`), with its own options.
    Pasta(Vec<String>),
    /// The same by `slirp4netns`.
    Slirp4netns(Vec<String>),
}

/// A transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One published port (`-p`), ranges already taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// The host's address to listen on; `None` is every address.
    pub host_ip: Option<IpAddr>,
    /// The host's port; `None` lets the kernel choose one.
    pub host_port: Option<u16>,
    /// The port inside.
    pub container_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Limits of a container. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory in bytes, at least 6 MiB.
    pub memory: Option<u64>,
    /// Memory and swap together in bytes; -1 is unlimited swap; `None` is twice `memory`.
    pub memory_swap: Option<i64>,
    /// Processors in units of 10⁻⁹.
    pub nano_cpus: Option<u64>,
    /// Processors to run on, as `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Number of processes and threads; -1 is unlimited.
    pub pids: Option<i64>,
}

/// One resource limit of the process (`--ulimit`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Lower-case name without `RLIMIT_`, as `nofile`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// Capabilities and other locks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Capabilities to add, normal form `CAP_NAME`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to drop, normal form `CAP_NAME`, or `ALL`.
    pub cap_drop: Vec<String>,
    /// Everything allowed that root on the host may do; devices of the host are seen.
    pub privileged: bool,
    /// Programs gain no privileges by set-user-id or file capabilities.
    pub no_new_privileges: bool,
    /// Which system calls may be made.
    pub seccomp: SeccompChoice,
    /// The AppArmor profile; `unconfined` is none; `None` is the default profile that the machine has loaded, if it has
    /// one, and none when privileged.
    pub apparmor: Option<String>,
}

/// Which system call filter is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    /// stanza's own profile; none when privileged.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in Docker's JSON format: its text, read by the door.
    Profile(String),
}

/// Whether a namespace is the container's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// Which user namespace a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsernsMode {
    /// The engine's: the machine's own as root, the user's range of ids without root.
    #[default]
    Host,
    /// A new one, with ids that belong to nobody else.
    Private,
    /// A new one, in which the calling user keeps uid and gid.
    KeepId,
}

/// Where a container's output is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// How.
    pub driver: LogDriver,
    /// Largest size of one file in bytes; `None` is 20 MiB. Old files beyond `max_files` are removed.
    pub max_size: Option<u64>,
    /// Number of files; `None` is 5. At least 1.
    pub max_files: Option<u32>,
}

/// How output is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// One JSON object a line, as Docker writes it.
    #[default]
    JsonFile,
    /// Nothing is kept.
    None,
}

/// When `run` and `create` ask the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// When the image is not in the store.
    #[default]
    Missing,
    /// Every time.
    Always,
    /// Never.
    Never,
}
