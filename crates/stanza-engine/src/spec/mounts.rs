//! What is mounted in a container, in order: Docker's kernel file systems, then stanza's three files, then what the
//! user asked for, shallow destinations before deep ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use stanza_spec::{ContainerConfig, MountKind, MountRequest, NamespaceMode, NetworkMode};

use super::MountError;
use crate::record::VolumeUse;

/// What mounts depend on besides the container's own configuration.
#[derive(Clone, Debug)]
pub(crate) struct MountInput<'a> {
    /// What was asked for.
    pub(crate) config: &'a ContainerConfig,
    /// Its volumes.
    pub(crate) volumes: &'a [VolumeUse],
    /// The network, decided.
    pub(crate) network: &'a NetworkMode,
    /// `<root>/containers/<id>`.
    pub(crate) state_dir: &'a Path,
    /// `<root>/volumes`.
    pub(crate) volumes_dir: &'a Path,
    /// The container has a user namespace that does not own the network and process id namespaces it shares with
    /// the host: the kernel refuses a new sysfs or proc there.
    pub(crate) foreign_namespaces: bool,
}

/// The default size of `/dev/shm`.
const SHM_SIZE: u64 = 64 << 20;

/// The files that stanza writes into a container, below its state directory, and where they are seen.
pub(crate) const FILES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];

fn mount(destination: &str, kind: &str, source: impl Into<PathBuf>, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(PathBuf::from(destination));
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(source.into()));
    if !options.is_empty() {
        mount.set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    }
    mount
}

/// Every mount of the container.
pub(crate) fn plan(input: &MountInput<'_>) -> Result<Vec<Mount>, MountError> {
    check(&input.config.mounts)?;
    let mut user = user_mounts(input);
    let taken: BTreeSet<PathBuf> = user.iter().map(|mount| mount.destination().clone()).collect();
    let mut mounts = kernel_mounts(input);
    // A mount of the user's own takes the place of stanza's, and of all below it.
    mounts.retain(|mount| !taken.iter().any(|path| mount.destination().starts_with(path)));
    for (name, destination) in FILES {
        if !taken.contains(Path::new(destination)) {
            let mut options = vec!["bind", "rprivate"];
            if input.config.read_only {
                options.push("ro");
            }
            mounts.push(mount(destination, "bind", input.state_dir.join(name), &options));
        }
    }
    user.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(user);
    Ok(mounts)
}

fn kernel_mounts(input: &MountInput<'_>) -> Vec<Mount> {
    let config = input.config;
    let privileged = config.security.privileged;
    let host_pid = config.pid == NamespaceMode::Host;
    let host_ipc = config.ipc == NamespaceMode::Host;
    let bound = ["rbind", "nosuid", "noexec", "nodev", "rprivate"];
    let mut mounts = Vec::with_capacity(10 + input.volumes.len() + config.mounts.len());
    mounts.push(if host_pid && input.foreign_namespaces {
        mount("/proc", "bind", "/proc", &bound)
    } else {
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])
    });
    mounts.push(mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]));
    mounts.push(mount(
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ));
    let access: &[&str] = if privileged { &[] } else { &["ro"] };
    let with_access = |options: &[&'static str]| [options, access].concat();
    mounts.push(if *input.network == NetworkMode::Host && input.foreign_namespaces {
        let recursive: &[&str] = if privileged { &[] } else { &["ro", "rro"] };
        mount("/sys", "bind", "/sys", &[bound.as_slice(), recursive].concat())
    } else {
        mount("/sys", "sysfs", "sysfs", &with_access(&["nosuid", "noexec", "nodev"]))
    });
    mounts.push(mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &with_access(&["nosuid", "noexec", "nodev", "relatime"]),
    ));
    if host_ipc {
        // The host's queues are those of its namespace, wherever they are mounted; a user namespace may not mount them.
        if !input.foreign_namespaces {
            mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
        }
        mounts.push(mount("/dev/shm", "bind", "/dev/shm", &bound));
    } else {
        let size = format!("size={}k", config.shm_size.unwrap_or(SHM_SIZE).div_ceil(1024));
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
        mounts.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
    }
    mounts
}

fn user_mounts(input: &MountInput<'_>) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = input.config.mounts.iter().filter_map(user_mount).collect();
    for volume in input.volumes {
        let source = volume_dir(input.volumes_dir, &volume.name);
        let options: &[&str] =
            if volume.read_only { &["rbind", "rprivate", "ro"] } else { &["rbind", "rprivate"] };
        mounts.push(mount(&clean(&volume.destination), "bind", source, options));
    }
    mounts
}

/// The data of a volume.
pub(crate) fn volume_dir(volumes_dir: &Path, name: &str) -> PathBuf {
    volumes_dir.join(name).join("_data")
}

/// A bind mount or tmpfs; volumes come resolved, by another way.
fn user_mount(request: &MountRequest) -> Option<Mount> {
    let destination = clean(&request.destination);
    match &request.kind {
        MountKind::Volume { .. } => None,
        MountKind::Bind { source, propagation, non_recursive, .. } => {
            let mut options = vec![if *non_recursive { "bind" } else { "rbind" }];
            options.push(propagation.as_deref().unwrap_or("rprivate"));
            if request.read_only {
                options.push("ro");
                if !non_recursive {
                    options.push("rro");
                }
            }
            Some(mount(&destination, "bind", source, &options))
        }
        MountKind::Tmpfs { size, mode, options } => {
            let mut all: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
            all.push(format!("mode={:o}", mode.unwrap_or(0o1777)));
            if let Some(size) = size {
                all.push(format!("size={size}"));
            }
            all.extend(options.iter().filter(|option| *option != "defaults").cloned());
            if request.read_only {
                all.push("ro".to_owned());
            }
            let mut mount = mount(&destination, "tmpfs", "tmpfs", &[]);
            mount.set_options(Some(all));
            Some(mount)
        }
    }
}

/// A destination without trailing or doubled slashes and `.` parts.
fn clean(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        text.push('/');
        text.push_str(part);
    }
    if text.is_empty() { "/".to_owned() } else { text }
}

/// What may be mounted in /proc: numbers that lxcfs and its like show per container. Anything else would put something
/// that is no procfs where stanza and programs trust the kernel's answers (CVE-2019-16884).
const REPLACEABLE_IN_PROC: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/net/dev",
];

/// Whether something may be mounted there.
pub(crate) fn is_legal_destination(path: &str) -> bool {
    check_destination(path).is_ok()
}

fn check_destination(path: &str) -> Result<(), MountError> {
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") || path.contains('\0') {
        return Err(MountError::Destination(path.to_owned()));
    }
    let cleaned = clean(path);
    if cleaned == "/" {
        return Err(MountError::DestinationRoot(path.to_owned()));
    }
    if cleaned == "/proc"
        || (cleaned.starts_with("/proc/") && !REPLACEABLE_IN_PROC.contains(&cleaned.as_str()))
    {
        return Err(MountError::DestinationProc(path.to_owned()));
    }
    Ok(())
}

/// Whether every mount asked for has a legal destination of its own and legal options.
pub(crate) fn check(mounts: &[MountRequest]) -> Result<(), MountError> {
    let mut seen = BTreeSet::new();
    for request in mounts {
        let path = &request.destination;
        check_destination(path)?;
        let path = clean(path);
        match &request.kind {
            MountKind::Bind { source, propagation, .. } => {
                if !source.starts_with('/') {
                    return Err(MountError::Source(source.clone()));
                }
                if let Some(word) = propagation
                    && !matches!(
                        word.as_str(),
                        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
                    )
                {
                    return Err(MountError::Propagation(word.clone()));
                }
            }
            MountKind::Volume { name: Some(name), .. } if !stanza_spec::is_valid_container_name(name) => {
                return Err(MountError::VolumeName(name.clone()));
            }
            MountKind::Volume { .. } | MountKind::Tmpfs { .. } => {}
        }
        if !seen.insert(path) {
            return Err(MountError::DuplicateMount(request.destination.clone()));
        }
    }
    Ok(())
}

/// Whether a mount of the user's lies at this place of the container.
pub(crate) fn is_covered(mounts: &[MountRequest], destination: &str) -> bool {
    let wanted = clean(destination);
    mounts.iter().any(|request| clean(&request.destination) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, destination: &str) -> MountRequest {
        MountRequest {
            kind: MountKind::Bind {
                source: source.into(),
                create_source: false,
                propagation: None,
                non_recursive: false,
            },
            destination: destination.into(),
            read_only: false,
        }
    }

    fn lines(
        config: &ContainerConfig,
        volumes: &[VolumeUse],
        network: &NetworkMode,
        foreign: bool,
    ) -> Vec<String> {
        let input = MountInput {
            config,
            volumes,
            network,
            state_dir: Path::new("/s"),
            volumes_dir: Path::new("/v"),
            foreign_namespaces: foreign,
        };
        plan(&input)
            .unwrap()
            .iter()
            .map(|mount| {
                format!(
                    "{} {} {} {}",
                    mount.destination().display(),
                    mount.typ().as_deref().unwrap_or("-"),
                    mount.source().as_deref().unwrap_or(Path::new("-")).display(),
                    mount.options().as_deref().unwrap_or_default().join(",")
                )
            })
            .collect()
    }

    #[test]
    fn the_default_mounts_are_dockers() {
        assert_eq!(
            lines(&ContainerConfig::default(), &[], &NetworkMode::Bridge, false),
            [
                "/proc proc proc nosuid,noexec,nodev",
                "/dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k",
                "/dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
                "/sys sysfs sysfs nosuid,noexec,nodev,ro",
                "/sys/fs/cgroup cgroup cgroup nosuid,noexec,nodev,relatime,ro",
                "/dev/mqueue mqueue mqueue nosuid,noexec,nodev",
                "/dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=65536k",
                "/etc/resolv.conf bind /s/resolv.conf bind,rprivate",
                "/etc/hostname bind /s/hostname bind,rprivate",
                "/etc/hosts bind /s/hosts bind,rprivate",
            ]
        );
    }

    #[test]
    fn mounts_of_the_user_come_last_shallow_first_and_replace_stanzas() {
        let mut config = ContainerConfig { read_only: true, ..Default::default() };
        config.mounts = vec![bind("/a", "/x/y/"), bind("/h", "/etc/hosts"), bind("/d", "/dev")];
        config.mounts.push(MountRequest {
            kind: MountKind::Tmpfs { size: Some(1024), mode: Some(0o700), options: vec!["exec".into()] },
            destination: "/run".into(),
            read_only: true,
        });
        config.mounts[0].read_only = true;
        let volumes = [VolumeUse {
            name: "data".into(),
            destination: "/x".into(),
            read_only: false,
            anonymous: false,
            no_copy: false,
        }];
        let lines = lines(&config, &volumes, &NetworkMode::None, false);
        assert_eq!(
            lines[3..],
            [
                "/etc/resolv.conf bind /s/resolv.conf bind,rprivate,ro",
                "/etc/hostname bind /s/hostname bind,rprivate,ro",
                "/dev bind /d rbind,rprivate",
                "/run tmpfs tmpfs nosuid,nodev,noexec,mode=700,size=1024,exec,ro",
                "/x bind /v/data/_data rbind,rprivate",
                "/x/y bind /a rbind,rprivate,ro,rro",
                "/etc/hosts bind /h rbind,rprivate",
            ]
        );
    }

    #[test]
    fn shared_namespaces_bring_the_hosts_file_systems() {
        let config =
            ContainerConfig { pid: NamespaceMode::Host, ipc: NamespaceMode::Host, ..Default::default() };
        let lines = lines(&config, &[], &NetworkMode::Host, true);
        assert_eq!(lines[0], "/proc bind /proc rbind,nosuid,noexec,nodev,rprivate");
        assert_eq!(lines[3], "/sys bind /sys rbind,nosuid,noexec,nodev,rprivate,ro,rro");
        assert_eq!(lines[5], "/dev/shm bind /dev/shm rbind,nosuid,noexec,nodev,rprivate");
        assert!(!lines.iter().any(|line| line.starts_with("/dev/mqueue")));
    }

    #[test]
    fn bad_mounts_are_refused_by_name() {
        for (mounts, words) in [
            (vec![bind("/a", "b")], "must be an absolute path"),
            (vec![bind("/a", "/b/../c")], "/b/../c"),
            (vec![bind("/a", "//")], "must not be `/`"),
            (vec![bind("/a", "/proc")], "inside /proc"),
            (vec![bind("/a", "/proc/sys/kernel")], "inside /proc"),
            (vec![bind("a", "/b")], "`a`"),
            (vec![bind("/a", "/b"), bind("/c", "/b/")], "Duplicate mount point: /b/"),
        ] {
            let error = check(&mounts).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
