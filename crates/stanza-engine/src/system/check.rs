//! `check`: what this machine offers and lacks, with what to do about it, and what crashed processes left.
//!
//! Each part is tried as far as that leaves no trace: an overlay is really mounted (detached, so that it is nowhere to
//! be seen), `/dev/kvm` is really opened. The rest is read from the kernel's files.

use std::fs;
use std::io::{self, BufRead};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use stanza_cgroup::Layout;

use super::{SystemError, facts};
use crate::engine::make_directory;
use crate::{Engine, machine, names};

/// One thing that `check` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, as `cgroups`.
    pub area: &'static str,
    /// How it stands.
    pub status: FindingStatus,
    /// What was found.
    pub what: String,
    /// What to do; `None` when nothing is to be done.
    pub advice: Option<String>,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingStatus {
    /// As it should be.
    Ok,
    /// Works, with limits.
    Warning,
    /// Does not work.
    Missing,
    /// Something that a dead process left.
    Leftover,
    /// A leftover that is cleared now.
    Repaired,
}

use FindingStatus::{Missing, Ok as Good, Warning};

fn finding(area: &'static str, status: FindingStatus, what: impl Into<String>, advice: &str) -> Finding {
    let advice = (!advice.is_empty()).then(|| advice.to_owned());
    Finding { area, status, what: what.into(), advice }
}

impl Engine {
    /// What this machine offers and lacks, and what is left over; with `repair` leftovers are cleared.
    ///
    /// # Errors
    /// When the database cannot be opened at all; a damaged one is a finding.
    pub fn check(&mut self, repair: bool) -> Result<Vec<Finding>, SystemError> {
        let mut findings = vec![user_namespaces(), subordinate_ids(), cgroups(), self.overlay()];
        findings.extend([kernel_module(
            "nftables",
            "nf_tables",
            "nft_do_chain",
            "published ports and masquerading need it",
        )]);
        findings.push(kernel_module("network", "bridge", "br_add_if", "the default network needs it"));
        findings.push(kernel_module("network", "veth", "veth_newlink", "the default network needs it"));
        findings.extend([seccomp(), mandatory_access(), kvm(), limits(), pasta(self.options.rootless)]);
        findings.push(self.disk());
        findings.extend(self.leftovers(repair)?);
        Ok(findings)
    }

    /// Mounts an overlay in a directory of the engine's own, detached.
    fn overlay(&self) -> Finding {
        match self.try_overlay() {
            Ok(()) => finding("overlay", Good, "overlay file systems can be mounted", ""),
            Err(error) => finding(
                "overlay",
                Missing,
                format!("an overlay cannot be mounted in `{}`: {error}", self.options.root.display()),
                "load the module `overlay`; use a root on ext4, xfs or btrfs; without root a kernel of 5.11 or later is needed",
            ),
        }
    }

    fn try_overlay(&self) -> io::Result<()> {
        let directory = self.options.root.join(format!(".check-{}", names::container_id()?.short()));
        make_directory(&self.options.root, 0o711)?;
        stanza_snapshot::try_overlay(&directory, self.options.rootless)
    }

    fn disk(&self) -> Finding {
        let found = self.options.root.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
        let Some(stat) = found else {
            return finding("disk", Warning, "the free space cannot be read", "");
        };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let text =
            format!("{} free for `{}`", stanza_spec::units::human_size(free), self.options.root.display());
        if free < 1 << 30 {
            finding("disk", Warning, text, "free some space, as with `stanza system prune`")
        } else {
            finding("disk", Good, text, "")
        }
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn user_namespaces() -> Finding {
    let area = "user namespaces";
    if number("/proc/sys/user/max_user_namespaces").is_none_or(|most| most == 0) {
        return finding(
            area,
            Missing,
            "none may be made",
            "set the sysctl user.max_user_namespaces, as to 10000",
        );
    }
    if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return finding(
            area,
            Warning,
            "only root may make them",
            "set the sysctl kernel.unprivileged_userns_clone=1",
        );
    }
    if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return finding(
            area,
            Warning,
            "AppArmor restricts those that users make",
            "give stanza an AppArmor profile with `userns,`, or set kernel.apparmor_restrict_unprivileged_userns=0",
        );
    }
    finding(area, Good, "users may make them", "")
}

/// A program in one of the usual places; `PATH` is the caller's and may lack sbin.
fn program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

fn subordinate_ids() -> Finding {
    let area = "subordinate ids";
    let granted = |path: &str| {
        fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.split(':').count() == 3))
    };
    if !granted("/etc/subuid") || !granted("/etc/subgid") {
        return finding(
            area,
            Warning,
            "/etc/subuid or /etc/subgid grants no ranges: users have one id in their containers",
            "add one, as with `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`",
        );
    }
    let helper = |name: &str| {
        program(name).is_some_and(|path| {
            let set_user =
                fs::metadata(&path).is_ok_and(|m| m.permissions().mode() & 0o4000 != 0 && m.uid() == 0);
            let mut value = [0u8; 64];
            set_user || rustix::fs::getxattr(&path, "security.capability", &mut value).is_ok()
        })
    };
    if helper("newuidmap") && helper("newgidmap") {
        finding(area, Good, "ranges are granted, newuidmap and newgidmap are there", "")
    } else {
        finding(
            area,
            Warning,
            "newuidmap and newgidmap are missing or have no rights",
            "install the package `uidmap`",
        )
    }
}

fn cgroups() -> Finding {
    let layout = match stanza_cgroup::detect() {
        Ok(layout) => layout,
        Err(error) => return finding("cgroups", Missing, error.to_string(), ""),
    };
    let (version, controllers) = facts::cgroups(&layout);
    if layout == Layout::Absent {
        return finding("cgroups", Missing, "none are mounted: no limits", "mount cgroup2 at /sys/fs/cgroup");
    }
    let missing: Vec<&str> = ["cpu", "cpuset", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.iter().any(|controller| controller == wanted))
        .collect();
    let text = format!("version {version} with {}", controllers.join(" "));
    if missing.is_empty() {
        finding("cgroups", Good, text, "")
    } else {
        let advice = "enable them on the kernel's command line, as `cgroup_enable=memory`";
        finding("cgroups", Warning, format!("{text}; without {}", missing.join(" ")), advice)
    }
}

/// Whether a module is loaded, built in (told by one of its functions, `symbol`), or can be loaded.
fn kernel_module(area: &'static str, name: &str, symbol: &str, why: &str) -> Finding {
    if Path::new("/sys/module").join(name).exists() || has_symbol(symbol) {
        return finding(area, Good, format!("`{name}` is there"), "");
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let listed = ["modules.builtin", "modules.dep"].iter().any(|list| {
        let needle = format!("/{name}.ko");
        fs::read_to_string(Path::new("/lib/modules").join(&release).join(list)).is_ok_and(|text| {
            text.lines().any(|line| line.split(':').next().unwrap_or(line).contains(&needle))
        })
    });
    if listed {
        finding(area, Good, format!("`{name}` is loaded when it is needed"), "")
    } else {
        finding(area, Warning, format!("`{name}` is not seen; {why}"), &format!("try `modprobe {name}`"))
    }
}

/// Whether the running kernel has a function of that name. One that is built in without parameters shows nowhere else.
fn has_symbol(symbol: &str) -> bool {
    let Ok(file) = fs::File::open("/proc/kallsyms") else { return false };
    let mut lines = io::BufReader::new(file).lines().map_while(Result::ok);
    lines.any(|line| line.split_whitespace().nth(2) == Some(symbol))
}

fn seccomp() -> Finding {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) => finding("seccomp", Good, format!("actions: {}", actions.trim()), ""),
        Err(_) => finding(
            "seccomp",
            Missing,
            "the kernel has no system call filters",
            "use a kernel with CONFIG_SECCOMP_FILTER; until then `--security-opt seccomp=unconfined`",
        ),
    }
}

fn mandatory_access() -> Finding {
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    match (facts::apparmor(), selinux) {
        (true, _) => finding("mandatory access control", Good, "AppArmor is on", ""),
        (false, true) => finding("mandatory access control", Good, "SELinux is on", ""),
        (false, false) => {
            finding("mandatory access control", Warning, "neither AppArmor nor SELinux is on", "")
        }
    }
}

fn kvm() -> Finding {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => finding("kvm", Good, "/dev/kvm opens", ""),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            finding("kvm", Warning, "/dev/kvm does not open for this user", "add the user to the group `kvm`")
        }
        Err(error) => finding(
            "kvm",
            Warning,
            format!("/dev/kvm does not open: {error}"),
            "turn on virtualisation in the firmware, or nested virtualisation at the host",
        ),
    }
}

fn limits() -> Finding {
    if machine::may_raise_limits() {
        finding("limits", Good, "resource limits can be raised", "")
    } else {
        finding(
            "limits",
            Warning,
            "resource limits cannot be raised (no CAP_SYS_RESOURCE): higher ones are lowered with a warning",
            "",
        )
    }
}

fn pasta(rootless: bool) -> Finding {
    match program("pasta") {
        Some(path) => finding("pasta", Good, format!("`{}` is there", path.display()), ""),
        None if rootless => finding(
            "pasta",
            Warning,
            "not there: networks without root reach nothing",
            "install the package `passt`",
        ),
        None => finding("pasta", Good, "not there, and not needed by root", ""),
    }
}
