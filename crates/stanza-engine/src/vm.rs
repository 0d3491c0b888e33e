//! What a container in a virtual machine may be, and the machine that it gets.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};
use stanza_sandbox::MachinePlan;
use stanza_snapshot::{DiskError, DiskStore};
use stanza_spec::{
    Classify, ContainerConfig, Digest, ErrorKind, Isolation, MountKind, NamespaceMode, NetworkMode, Rootfs,
    UsernsMode,
};

use crate::Engine;
use crate::create::{CreateError, HOST_IMAGE};
use crate::database::Record;

/// Memory of a machine whose container has no limit, in MiB.
const MEMORY_MIB: u32 = 512;
/// What a guest's kernel and its agent take of the memory of a machine, at most, in MiB: a container with a limit gets so much
/// more.
const GUEST_MIB: u32 = 128;
/// What the program that runs a machine takes besides, at most, in bytes.
const OVERHEAD: i64 = 256 << 20;
/// The first of the users and groups that machines run as; nothing is anybody's of them.
const FIRST_USER: u32 = 0x6000_0000;

/// What is asked of a container's files, which are on a disk that only its own kernel reads.
#[derive(Debug, thiserror::Error)]
#[error("`{verb}` of a container in a virtual machine is not built yet: `{name}`")]
pub struct OwnDisk {
    verb: &'static str,
    name: String,
}

impl OwnDisk {
    /// Whether files can be had from outside: then this machine sees what the container does.
    pub(crate) fn check(verb: &'static str, record: &Record) -> Result<(), OwnDisk> {
        match record.config.isolation {
            Isolation::Container => Ok(()),
            Isolation::Vm => Err(OwnDisk { verb, name: record.name.clone() }),
        }
    }
}

impl Classify for OwnDisk {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unsupported
    }

    fn hint(&self) -> Option<String> {
        Some(format!(
            "while it runs, `stanza exec {} tar -c PATH` writes its files to standard output",
            self.name
        ))
    }
}

/// What cannot be behind another kernel, by the name of its option.
pub(crate) fn refuse(config: &ContainerConfig, rootless: bool) -> Result<(), CreateError> {
    let refused = |what: &str, reason: &'static str| {
        Err(CreateError::Unsupported { what: format!("{what} with `--isolation vm`"), reason })
    };
    if config.isolation != Isolation::Vm {
        return Ok(());
    }
    if rootless {
        return refused("running without root", "");
    }
    if config.image == HOST_IMAGE {
        return refused(
            "the image `host`",
            "a machine gets the layers of an image, not this machine's files",
        );
    }
    for (option, mode) in [("--pid host", config.pid), ("--ipc host", config.ipc), ("--uts host", config.uts)]
    {
        if mode == NamespaceMode::Host {
            return refused(&format!("`{option}`"), "the host's namespaces are of the host's kernel");
        }
    }
    if config.userns != UsernsMode::Host {
        return refused("`--userns`", "its users are those of its own kernel");
    }
    let network = match &config.network {
        Some(NetworkMode::Host) => Some("host"),
        Some(NetworkMode::Container(_)) => Some("container:…"),
        Some(NetworkMode::Cni(_)) => Some("cni:…"),
        Some(NetworkMode::Pasta(_)) => Some("pasta"),
        Some(NetworkMode::Slirp4netns(_)) => Some("slirp4netns"),
        Some(NetworkMode::None | NetworkMode::Bridge) | None => None,
    };
    if let Some(mode) = network {
        return refused(&format!("`--network {mode}`"), "a machine has cards in bridges, or none");
    }
    for mount in &config.mounts {
        match &mount.kind {
            MountKind::Bind { propagation: Some(propagation), .. } if !propagation.ends_with("private") => {
                return refused(
                    &format!("the mount option `{propagation}`"),
                    "mounts do not spread between two kernels",
                );
            }
            MountKind::Tmpfs { .. } | MountKind::Bind { .. } | MountKind::Volume { .. } => {}
        }
    }
    if config.security.apparmor.as_ref().is_some_and(|profile| profile != "unconfined") {
        return refused("`--security-opt apparmor`", "the profiles are of the host's kernel");
    }
    if config.resources.cpuset_cpus.is_some() {
        return refused("`--cpuset-cpus`", "the machine's processors are not the host's");
    }
    Ok(())
}

/// The limits on this side of a container in a machine: its memory with what the machine takes; processes inside are none here.
fn limits(resources: &mut LinuxResources) {
    resources.set_pids(None).set_devices(None);
    if let Some(memory) = resources.memory_mut() {
        let with = |limit: Option<i64>| {
            limit.map(|limit| {
                if limit < 0 { limit } else { limit.saturating_add(OVERHEAD + (i64::from(GUEST_MIB) << 20)) }
            })
        };
        let (limit, swap, reservation) = (memory.limit(), memory.swap(), memory.reservation());
        memory.set_limit(with(limit)).set_swap(with(swap)).set_reservation(with(reservation));
    }
}

impl Engine {
    /// The machine of a container; `None` when it runs on this machine's kernel. Makes the disk with the image's files, when it
    /// is not there.
    pub(crate) fn machine_plan(
        &self,
        record: &Record,
        rootfs: &Rootfs,
        state_dir: &Path,
    ) -> Result<Option<MachinePlan>, DiskError> {
        let config = &record.config;
        if config.isolation != Isolation::Vm {
            return Ok(None);
        }
        let disk = self.disks().make(&record.facts.layers, rootfs)?;
        Ok(Some(MachinePlan {
            root: self.options.root.clone(),
            disk,
            upper: (!config.auto_remove).then(|| upper_disk(state_dir)),
            memory_mib: memory_mib(config.resources.memory),
            cpus: cpus(config.resources.nano_cpus, crate::machine::cpus()),
            user: user(record.id.as_str()),
        }))
    }

    /// The disks of machines.
    pub(crate) fn disks(&self) -> DiskStore {
        DiskStore::at(&self.options.root.join("vm/disks"))
    }

    /// Removes the disks of all stacks of layers but these, which are of images and containers; gives the bytes that they took.
    pub(crate) fn prune_disks(&mut self, stacks: &[Vec<Digest>]) -> io::Result<u64> {
        let store = self.layer_store().map_err(io::Error::other)?;
        // An image that is not unpacked has no disk; a container's stack has the layers of its links already.
        let linked: Vec<Vec<Digest>> =
            stacks.iter().filter_map(|stack| store.with_links(stack).ok()).collect();
        self.disks().keep_only(stacks.iter().chain(&linked).map(Vec::as_slice))
    }
}

/// The disk of what a container in a machine writes.
pub(crate) fn upper_disk(state_dir: &Path) -> PathBuf {
    state_dir.join("upper.ext4")
}

/// A template is made for each size, and a guest that has more than it uses costs no more: so sizes are few.
fn memory_mib(limit: Option<u64>) -> u32 {
    let Some(limit) = limit else { return MEMORY_MIB };
    let wanted = u32::try_from(limit.div_ceil(1 << 20)).unwrap_or(u32::MAX).saturating_add(GUEST_MIB);
    wanted.checked_next_power_of_two().unwrap_or(wanted).max(MEMORY_MIB)
}

/// As many processors as the limit has use for; one without a limit.
fn cpus(nano_cpus: Option<u64>, available: usize) -> u32 {
    let wanted = nano_cpus.map_or(1, |nano| nano.div_ceil(1_000_000_000));
    u32::try_from(wanted).unwrap_or(u32::MAX).min(u32::try_from(available).unwrap_or(1)).max(1)
}

/// Who runs the machine of the container with this id.
fn user(id: &str) -> u32 {
    let number = id.get(..7).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    FIRST_USER + number
}

/// The limits of the container's control group on this side.
pub(crate) fn host_resources(config: &ContainerConfig, spec: &Spec) -> LinuxResources {
    let mut resources = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
    if config.isolation == Isolation::Vm {
        limits(&mut resources);
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_few_sizes() {
        let sizes = [None, Some(6 << 20), Some(384 << 20), Some(385 << 20), Some(1 << 30)].map(memory_mib);
        assert_eq!(sizes, [512, 512, 512, 1024, 2048]);
    }

    #[test]
    fn a_machine_has_the_processors_that_its_limit_has_use_for() {
        let counts = [None, Some(500_000_000), Some(1_500_000_000), Some(64_000_000_000)];
        assert_eq!(counts.map(|limit| cpus(limit, 4)), [1, 1, 2, 4]);
    }

    #[test]
    fn every_machine_has_a_user_of_its_own_that_the_kernel_takes() {
        let one = user("ffffffff00");
        assert!(one > user("0000000100") && one < 0x7fff_ffff);
    }
}
