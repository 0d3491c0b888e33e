//! From what was asked for to OCI's runtime configuration: pure, so that the whole of it is tested without root.
//!
//! Two things differ from what runc would get. The user is not resolved: `process.user.username` holds the text
//! (`name`, `uid`, `name:group`, `uid:gid`), and the container floor looks it up in the container's own /etc/passwd,
//! and sets `HOME` from there. And `linux.seccomp` is empty: the filter travels compiled, beside the configuration.
//!
//! With a user namespace (`linux.uidMappings`, `linux.gidMappings`) the layers on disk keep their ids: the container
//! floor mounts them id-mapped by the same mappings.

pub(crate) mod capabilities;
mod mounts;
pub(crate) mod process;
mod resources;
pub(crate) mod userns;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxIdMapping, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount,
    RootBuilder, Spec,
};
use stanza_spec::{Classify, ContainerConfig, ErrorKind, NamespaceMode, NetworkMode, Security};

pub(crate) use mounts::{FILES, check as check_mounts, is_covered, is_legal_destination, volume_dir};

use crate::record::Facts;

/// Why a request cannot become a container. The texts that clients know are Docker's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// Neither image nor user name a program.
    #[error("no command specified")]
    NoCommand,
    /// The working directory is relative.
    #[error("the working directory '{0}' is invalid, it needs to be an absolute path")]
    Workdir(String),
    /// An unknown capability.
    #[error("invalid {option}: unknown capability: \"{name}\"")]
    Capability {
        /// Docker's name of the list.
        option: &'static str,
        /// What was given.
        name: String,
    },
    /// An unknown resource limit.
    #[error("invalid ulimit type: {0}")]
    Ulimit(String),
    /// A soft limit above its hard one.
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard} (`{name}`)")]
    UlimitOrder {
        /// Which.
        name: String,
        /// The soft limit.
        soft: i64,
        /// The hard limit.
        hard: i64,
    },
    /// A memory limit in which nothing starts.
    #[error("Minimum memory limit allowed is 6MB, `{0}` bytes were asked for")]
    LittleMemory(u64),
    /// A swap limit alone.
    #[error("You should always set the Memory limit when using Memoryswap limit, see usage")]
    SwapWithoutMemory,
    /// A swap limit, which includes memory, below it.
    #[error("Minimum memoryswap limit should be larger than memory limit, see usage")]
    SwapBelowMemory,
    /// More processors than there are.
    #[error("range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")]
    Cpus {
        /// How many there are.
        count: usize,
    },
    /// Not a list of processors.
    #[error("`{0}` is not a list of CPUs: expected numbers and ranges, as `0-2,5`")]
    CpuList(String),
    /// Wishes that exclude each other.
    #[error("conflicting options: {0}")]
    Conflict(&'static str),
    /// A mount.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Why a mount that was asked for cannot be made. The texts that clients know are Docker's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MountError {
    /// A destination that is no absolute path.
    #[error("invalid mount config: `{0}` must be an absolute path without `..`")]
    Destination(String),
    /// A destination that would hide everything.
    #[error("invalid mount config: destination `{0}` must not be `/`")]
    DestinationRoot(String),
    /// A destination that would hide what the kernel says.
    #[error("invalid mount config: `{0}` cannot be mounted because it is inside /proc")]
    DestinationProc(String),
    /// A relative source.
    #[error("invalid mount config for type \"bind\": source `{0}` must be an absolute path")]
    Source(String),
    /// A source that is not there.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    SourceMissing(String),
    /// An unknown propagation.
    #[error("invalid mount config: `{0}` is not a propagation")]
    Propagation(String),
    /// A name that no volume may have.
    #[error(
        "`{0}` includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    )]
    VolumeName(String),
    /// Two mounts at one place.
    #[error("Duplicate mount point: {0}")]
    DuplicateMount(String),
}

impl Classify for SpecError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }

    fn hint(&self) -> Option<String> {
        match self {
            SpecError::NoCommand => {
                Some("name a command after the image, as `stanza run IMAGE sh`".to_owned())
            }
            SpecError::Mount(error) => error.hint(),
            _ => None,
        }
    }
}

impl Classify for MountError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }

    fn hint(&self) -> Option<String> {
        match self {
            MountError::VolumeName(_) => {
                Some("a host directory is given by an absolute path, as `-v /srv/data:/data`".to_owned())
            }
            MountError::Propagation(_) => {
                Some("use `rprivate`, `private`, `rshared`, `shared`, `rslave` or `slave`".to_owned())
            }
            _ => None,
        }
    }
}

/// All that a configuration is made of.
pub(crate) struct SpecInput<'a> {
    /// What was asked for.
    pub(crate) config: &'a ContainerConfig,
    /// What creation found out.
    pub(crate) facts: &'a Facts,
    /// The network, decided.
    pub(crate) network: NetworkMode,
    /// The host name inside; `None` leaves the host's, shared.
    pub(crate) hostname: &'a str,
    /// `<root>/containers/<id>`.
    pub(crate) state_dir: &'a Path,
    /// `<root>/volumes`.
    pub(crate) volumes_dir: &'a Path,
    /// The engine runs in a user namespace of its own.
    pub(crate) rootless: bool,
    /// The mappings of a user namespace of the container's own, uids and gids; `None` without one.
    pub(crate) mappings: Option<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)>,
    /// The capability bits that this process may give; not asked when `mappings` are there, which give all.
    pub(crate) available_capabilities: u64,
    /// The AppArmor profile for containers that the machine has loaded.
    pub(crate) apparmor_profile: Option<&'static str>,
    /// Processors of this machine.
    pub(crate) cpus: usize,
    /// This process's hard resource limit of that name when it cannot raise it.
    pub(crate) hard_limit: &'a dyn Fn(&str) -> Option<u64>,
    /// The host's devices, for a privileged container.
    pub(crate) host_devices: Vec<LinuxDevice>,
}

/// What planning gives.
#[derive(Debug)]
pub(crate) struct Planned {
    /// The configuration.
    pub(crate) spec: Spec,
    /// The capabilities given, by name.
    pub(crate) capabilities: BTreeSet<&'static str>,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// Paths whose content is nobody's business inside: Docker 28's list.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The AppArmor profile of a container, where `default` is the one that the machine has for containers.
fn apparmor(security: &Security, default: Option<&str>) -> Option<String> {
    match security.apparmor.as_deref() {
        Some("unconfined") => None,
        Some(profile) => Some(profile.to_owned()),
        None if security.privileged => None,
        None => default.map(str::to_owned),
    }
}

/// Plans the whole configuration.
pub(crate) fn plan(input: SpecInput<'_>) -> Result<Planned, SpecError> {
    let config = input.config;
    let privileged = config.security.privileged;
    let available = if input.mappings.is_some() { u64::MAX } else { input.available_capabilities };
    let (capabilities, mut warnings) = capabilities::choose(&config.security, available)?;
    let (rlimits, lowered) = process::rlimits(&config.ulimits, input.hard_limit)?;
    warnings.extend(lowered);

    let mut process = process::blank();
    process
        .set_terminal(Some(config.tty))
        .set_user(process::user(&input.facts.user))
        .set_args(Some(input.facts.argv.clone()))
        .set_env(Some(environment(&input)))
        .set_cwd(PathBuf::from(&input.facts.workdir))
        .set_capabilities(Some(process::capability_sets(&capabilities)))
        .set_rlimits((!rlimits.is_empty()).then_some(rlimits))
        .set_no_new_privileges(Some(config.security.no_new_privileges))
        .set_apparmor_profile(apparmor(&config.security, input.apparmor_profile));

    let mut mounts = mounts::plan(&mounts::MountInput {
        config,
        volumes: &input.facts.volumes,
        network: &input.network,
        state_dir: input.state_dir,
        volumes_dir: input.volumes_dir,
        foreign_namespaces: input.rootless || input.mappings.is_some(),
    })?;
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(&input)))
        .set_resources(Some(resources::plan(config, input.cpus)?))
        .set_masked_paths((!privileged).then(|| MASKED.map(str::to_owned).to_vec()))
        .set_readonly_paths((!privileged).then(|| READ_ONLY.map(str::to_owned).to_vec()))
        .set_devices(None);
    let shares_network = matches!(input.network, NetworkMode::Host | NetworkMode::Container(_));
    if !shares_network && !input.rootless && input.mappings.is_none() {
        linux.set_sysctl(Some(HashMap::from([
            ("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned()),
            ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()),
        ])));
    } else if !shares_network {
        // The group range must lie within the namespace's ids.
        linux.set_sysctl(Some(HashMap::from([
            ("net.ipv4.ping_group_range".to_owned(), "0 0".to_owned()),
            ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()),
        ])));
    }
    if privileged {
        if input.rootless || input.mappings.is_some() {
            // A user namespace makes no device nodes: the host's own are bound.
            mounts.extend(input.host_devices.iter().map(bind_device));
        } else if !input.host_devices.is_empty() {
            linux.set_devices(Some(input.host_devices));
        }
    }
    if let Some((uids, gids)) = input.mappings {
        linux.set_uid_mappings(Some(uids)).set_gid_mappings(Some(gids));
    }

    let root = RootBuilder::default().path("rootfs").readonly(config.read_only).build().unwrap_or_default();
    let mut spec = Spec::default();
    spec.set_root(Some(root)).set_process(Some(process)).set_mounts(Some(mounts)).set_linux(Some(linux));
    spec.set_hostname((config.uts == NamespaceMode::Private).then(|| input.hostname.to_owned()));
    spec.set_hooks(None).set_annotations(None);
    Ok(Planned { spec, capabilities, warnings })
}

fn environment(input: &SpecInput<'_>) -> Vec<String> {
    let mut env = input.facts.env.clone();
    process::add_default(&mut env, "HOSTNAME", input.hostname);
    if input.config.tty {
        process::add_default(&mut env, "TERM", "xterm");
    }
    env
}

fn namespaces(input: &SpecInput<'_>) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as T;
    let config = input.config;
    let mut kinds = vec![T::Mount, T::Cgroup];
    for (kind, mode) in [(T::Pid, config.pid), (T::Ipc, config.ipc), (T::Uts, config.uts)] {
        if mode == NamespaceMode::Private {
            kinds.push(kind);
        }
    }
    if input.network != NetworkMode::Host {
        kinds.push(T::Network);
    }
    if input.mappings.is_some() {
        kinds.push(T::User);
    }
    kinds.into_iter().filter_map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().ok()).collect()
}

fn bind_device(device: &LinuxDevice) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(device.path().clone())
        .set_source(Some(device.path().clone()))
        .set_typ(Some("bind".to_owned()))
        .set_options(Some(["bind", "rprivate", "nosuid", "noexec"].map(str::to_owned).to_vec()));
    mount
}

#[cfg(test)]
mod tests;
