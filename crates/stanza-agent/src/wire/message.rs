//! The messages, as JSON.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stanza_cgroup::Stats;
use stanza_container::CopyUp;
use stanza_spec::oci::runtime::{LinuxResources, Process, Spec};
use stanza_spec::{Classify, ErrorKind, chain};

use super::TaskId;

/// From the host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first of all; the answer is [`Notice::Hello`]. Only a guest that is not configured answers twice.
    Hello { protocol: u32 },
    /// What this guest is, once.
    Configure(Box<GuestConfig>),
    /// Run the container.
    Create { task: TaskId, plan: Box<ContainerPlan> },
    /// Run one more process in the container.
    Exec { task: TaskId, plan: Box<ExecPlan> },
    /// Connect to something inside.
    Dial { task: TaskId, address: GuestAddress },
    /// The terminal of a process has another size.
    Resize { task: TaskId, rows: u16, columns: u16 },
    /// A signal for a process; or for every process of the container's cgroup.
    Signal { task: TaskId, signal: i32, all: bool },
    /// New limits of the container.
    Update { resources: Box<LinuxResources> },
    /// What has the container used.
    Stats,
    /// Kill everything and power off.
    Shutdown,
}

/// From the guest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Notice {
    /// It is ready to be configured.
    Hello { protocol: u32, agent: String, kernel: String },
    /// [`Request::Configure`] is done.
    Configured,
    /// Or not.
    NotConfigured(Refusal),
    /// The program runs, or the connection stands.
    Started { task: TaskId, pid: i32 },
    /// Or not: the task is no more.
    Failed { task: TaskId, refusal: Refusal },
    /// All output was sent before; the task is no more.
    Exited { task: TaskId, status: ExitStatus, oom_killed: bool },
    /// [`Request::Update`] is done.
    Updated(Option<Refusal>),
    /// The answer to [`Request::Stats`].
    Stats(Result<Box<GuestStats>, Refusal>),
}

/// Why something was not done in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What failed, with all causes.
    pub message: String,
    /// The [`ErrorKind`]'s name.
    kind: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Refusal {
    /// A refusal that says all that `error` knows.
    pub(crate) fn of(error: &impl Classify) -> Refusal {
        Refusal { message: chain(error), kind: error.kind().name().to_owned(), hint: error.hint() }
    }

    /// A refusal in these words.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), kind: kind.name().to_owned(), hint: None }
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::of_name(&self.kind)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The exit code that a door reports: 128 + n for signal n.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128_i32.saturating_add(signal),
        }
    }
}

/// Bytes, as hexadecimal digits in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
        let text: String = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        });
        pairs.collect::<Option<_>>().map(Hex).ok_or_else(|| serde::de::Error::custom("not hexadecimal"))
    }
}

/// Everything that makes one guest differ from another of the same template. What is empty or absent is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Random bytes of the host, at least 32: a guest that was restored from a template knows what its siblings know.
    pub entropy: Hex,
    /// Look for devices that came after the guest had booted.
    pub rescan: bool,
    /// The time of day, as seconds since 1970 and nanoseconds.
    pub clock: Option<(i64, u32)>,
    /// The host name.
    pub hostname: Option<String>,
    /// `/etc/machine-id` of the guest: 32 hexadecimal digits.
    pub machine_id: Option<String>,
    /// The container's root file system.
    pub root: Root,
    /// Directories of the host.
    pub shares: Vec<Share>,
    /// Further disks.
    pub disks: Vec<DiskMount>,
    /// Network interfaces; `lo` is always up.
    pub interfaces: Vec<Interface>,
    /// Kernel settings, by path below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
    /// Hand DNS queries for 127.0.0.11 to the host.
    pub dns_relay: bool,
}

/// How the container's `/` is put together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// There is none yet.
    #[default]
    None,
    /// A directory of the guest: a share's, for instance.
    Directory(PathBuf),
    /// A disk that is only read, and another place for what is written.
    Overlay {
        /// The image.
        lower: Disk,
        /// What is written.
        upper: Upper,
    },
}

/// A disk with a file system, found by its serial number (virtio-blk's `serial`, at most 20 bytes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The serial number.
    pub serial: String,
    /// What is on it.
    pub file_system: FileSystem,
}

/// A file system on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// Read-only images.
    Erofs,
    /// Read-only images.
    Squashfs,
    /// Either.
    Ext4,
}

impl FileSystem {
    /// The kernel's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Erofs => "erofs",
            FileSystem::Squashfs => "squashfs",
            FileSystem::Ext4 => "ext4",
        }
    }
}

/// Where a container's writes go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upper {
    /// The guest's memory, at most so many bytes; half of it without a number.
    Memory(Option<u64>),
    /// A disk that the host has made a file system on.
    Disk(Disk),
}

/// A disk to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMount {
    /// The disk.
    pub disk: Disk,
    /// Where in the guest; mounts of the container bind from there.
    pub target: PathBuf,
    /// Nothing is written.
    pub read_only: bool,
}

/// A virtiofs share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its tag, at most 36 bytes.
    pub tag: String,
    /// Where in the guest; mounts of the container bind from there.
    pub target: PathBuf,
    /// Nothing is written. The host has to see to that too.
    pub read_only: bool,
}

/// A network interface, found by its hardware address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `02:42:0a:4d:00:02`.
    pub mac: String,
    /// The name it gets, at most 15 bytes.
    pub name: String,
    /// The largest packet; `None` leaves it.
    pub mtu: Option<u32>,
    /// Addresses with the length of their prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routes through it.
    pub routes: Vec<Route>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to, with the length of the prefix: `0.0.0.0/0` is the default route.
    pub to: (IpAddr, u8),
    /// By whom; `None` is on the link.
    pub gateway: Option<IpAddr>,
}

/// A file that is written before the container starts; its mounts bind from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestFile {
    /// Absolute path in the guest, with its directories.
    pub path: PathBuf,
    /// What is in it.
    pub content: Hex,
    /// Permission bits.
    pub mode: u32,
}

/// The container of a guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// The OCI configuration, without what only the host has: `linux.seccomp` comes compiled, `linux.cgroupsPath` is the guest's
    /// own, a network namespace is not made, sources of bind mounts are paths of the guest.
    pub spec: Spec,
    /// The system call filter as [`stanza_container::seccomp::Filter::to_bytes`] gives it; `None` is no filter.
    pub filter: Option<Hex>,
    /// Empty volumes that the image's content is copied into before they are mounted; paths of the guest.
    pub copy_up: Vec<CopyUp>,
    /// Files such as `resolv.conf`.
    pub files: Vec<GuestFile>,
    /// A terminal.
    pub tty: bool,
    /// Rows and columns of it.
    pub console_size: Option<(u16, u16)>,
    /// Standard input is what the host sends; else there is none.
    pub open_stdin: bool,
}

/// One more process in the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecPlan {
    /// What to run; `user.username` is resolved inside when set.
    pub process: Process,
    /// As for the container.
    pub filter: Option<Hex>,
    /// A terminal.
    pub tty: bool,
    /// Rows and columns of it.
    pub console_size: Option<(u16, u16)>,
    /// Standard input is what the host sends; else there is none.
    pub open_stdin: bool,
}

/// Something inside the guest to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A UDP port. Each piece of at most [`super::MAX_DATA`] bytes that is written is a datagram; empty ones do not travel.
    Udp(SocketAddr),
    /// A socket's path, as the container has it.
    Unix(PathBuf),
}

/// What the guest and its container have used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStats {
    /// The container's cgroup.
    pub container: Stats,
    /// Bytes of memory that the guest's kernel has.
    pub memory_total: u64,
    /// Bytes of it that could be given to somebody.
    pub memory_available: u64,
}
