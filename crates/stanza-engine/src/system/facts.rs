//! `info` and `version`.

use std::fs;
use std::path::{Path, PathBuf};

use stanza_snapshot::StorageDriver;

use super::SystemError;
use crate::container::State;
use crate::list::ListQuery;
use crate::{Engine, machine};

/// Facts about this engine and its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// stanza's version.
    pub version: String,
    /// The engine's directory.
    pub root: PathBuf,
    /// Its directory for what does not outlive a boot.
    pub runroot: PathBuf,
    /// The caller is not the machine's root.
    pub rootless: bool,
    /// Containers in all.
    pub containers: usize,
    /// Containers that run.
    pub running: usize,
    /// Containers that ended or were never started.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// The machine's name.
    pub hostname: String,
    /// The kernel's release.
    pub kernel: String,
    /// The distribution, as it calls itself.
    pub operating_system: String,
    /// Go's name of the architecture.
    pub architecture: String,
    /// Processors that may be used.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// `1`, `2` or `none`.
    pub cgroup: String,
    /// Controllers that limits can be set with, sorted.
    pub cgroup_controllers: Vec<String>,
    /// `seccomp`, `apparmor`, `selinux`, `rootless`, as far as they are there.
    pub security: Vec<&'static str>,
    /// How root file systems are put together.
    pub storage_driver: StorageDriver,
    /// The file system that holds the root, by name.
    pub backing_file_system: String,
}

impl Engine {
    /// stanza's version.
    #[must_use]
    pub fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// Facts about this engine and its machine.
    ///
    /// # Errors
    /// When the database or the image store cannot be read.
    pub fn info(&mut self) -> Result<Facts, SystemError> {
        let containers = self.list(&ListQuery { all: true, ..ListQuery::default() })?;
        let running =
            containers.iter().filter(|container| matches!(container.state, State::Running(_))).count();
        let images =
            self.image_store().map_err(crate::ImageError::from)?.list().map_err(crate::ImageError::from)?;
        let layout = stanza_cgroup::detect().unwrap_or(stanza_cgroup::Layout::Absent);
        let (version, cgroup_controllers) = cgroups(&layout);
        // A configuration file that is wrong is told by the first command that needs it.
        let _ = self.choose_driver();
        // A store that cannot be opened is told by the first command that needs it.
        let storage_driver = self.layer_store().map(|store| store.driver()).unwrap_or_default();
        Ok(Facts {
            storage_driver,
            version: Engine::version().to_owned(),
            root: self.options.root.clone(),
            runroot: self.options.runroot.clone(),
            rootless: self.options.rootless,
            containers: containers.len(),
            running,
            stopped: containers.len() - running,
            images: images.len(),
            hostname: machine::host_name(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            operating_system: operating_system(),
            architecture: stanza_spec::Platform::host().architecture,
            cpus: machine::cpus(),
            memory: memory(),
            cgroup: version.to_owned(),
            cgroup_controllers,
            security: security(self.options.rootless),
            backing_file_system: file_system(&self.options.root),
        })
    }
}

pub(super) fn cgroups(layout: &stanza_cgroup::Layout) -> (&'static str, Vec<String>) {
    match layout {
        stanza_cgroup::Layout::V1(hierarchies) => {
            let mut controllers: Vec<String> = hierarchies
                .iter()
                .flat_map(|hierarchy| hierarchy.controllers.clone())
                .filter(|controller| !controller.starts_with("name="))
                .collect();
            controllers.sort();
            ("1", controllers)
        }
        stanza_cgroup::Layout::V2 { controllers, .. } => ("2", controllers.clone()),
        stanza_cgroup::Layout::Absent => ("none", Vec::new()),
    }
}

fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

pub(crate) fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

fn security(rootless: bool) -> Vec<&'static str> {
    [
        ("seccomp", Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()),
        ("apparmor", apparmor()),
        ("selinux", Path::new("/sys/fs/selinux/enforce").exists()),
        ("rootless", rootless),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

pub(super) fn apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// The type of the file system that holds `path`, of its nearest directory that exists.
fn file_system(path: &Path) -> String {
    let kinds = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlayfs"),
        (0x2fc1_2fc1, "zfs"),
        (0xf2f5_2010, "f2fs"),
        (0x6969, "nfs"),
    ];
    let found = path.ancestors().find_map(|path| rustix::fs::statfs(path).ok());
    let magic = found.map(|stat| stat.f_type);
    kinds
        .iter()
        .find(|(number, _)| Some(*number) == magic)
        .map_or_else(|| "unknown".to_owned(), |(_, name)| (*name).to_owned())
}
