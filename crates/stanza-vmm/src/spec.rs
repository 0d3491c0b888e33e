//! What one virtual machine is, as data. Paths are those that the monitor sees, numbers those of descriptors that it
//! inherits: both are the launcher's to arrange.

use std::os::fd::RawFd;
use std::path::PathBuf;

/// One virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSpec {
    /// The uncompressed kernel ([`crate::Kernel::vmlinux`]).
    pub kernel: PathBuf,
    /// The file with [`crate::Initramfs::archive`].
    pub initramfs: PathBuf,
    /// Who runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Memory in MiB; at least 64.
    pub memory_mib: u32,
    /// What the memory is.
    pub memory: Memory,
    /// Processors; at least 1.
    pub cpus: u32,
    /// In the order in which the guest names them: `/dev/vda` is the first.
    pub disks: Vec<Disk>,
    /// In the order in which the guest names them.
    pub nics: Vec<Nic>,
    /// Directories of the host.
    pub shares: Vec<Share>,
    /// A connected stream socket: the guest's port `stanza.agent`.
    pub agent: RawFd,
    /// A connected stream socket that speaks QMP.
    pub qmp: RawFd,
    /// A descriptor, open for writing, into which the guest's kernel writes its messages; nobody sees them without.
    pub console: Option<RawFd>,
    /// Whether the machine waits for [`crate::Qmp::restore`] in place of booting.
    pub restore: bool,
}

/// Who runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's emulation, which its authors do not call a wall for security.
    Tcg,
}

impl Accelerator {
    /// QEMU's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

/// What the guest's memory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The monitor's own.
    Private,
    /// Anonymous, but such that a server of [`Share`]s can map it too.
    Shared,
    /// A file of exactly the memory's size, mapped shared: a template that is being made.
    File(PathBuf),
    /// A template's memory, mapped privately: the file stays as it is. QEMU before 8.2 still opens it for writing.
    Template(PathBuf),
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The raw image.
    pub path: PathBuf,
    /// Whether writes are refused by the monitor.
    pub read_only: bool,
    /// What the guest finds it by: 1 to 20 letters, digits, `-`, `_` and `.`.
    pub serial: String,
}

/// A network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nic {
    /// An open queue of a tap device.
    pub tap: RawFd,
    /// The address that the guest sees.
    pub mac: [u8; 6],
}

/// A directory of the host, served by a vhost-user file system server. Needs [`Memory::Shared`] or
/// [`Memory::File`], and a machine that boots: QEMU 7.2 loads no state while such a device is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// A socket connected to the server.
    pub socket: RawFd,
    /// What the guest mounts it by: at most 35 bytes, letters, digits, `-`, `_` and `.`.
    pub tag: String,
}
