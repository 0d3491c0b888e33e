//! Which namespaces a container gets new, which it joins, and the order in which that is allowed.
//!
//! A new user namespace owns what is made after it, and the one who is in it has no say over what others own. So all that
//! is joined by path is joined first; where the container's own user namespace owns it, after that was joined:
//!
//! ```text
//!  join what can be joined ─▶ join the user namespace ─▶ join the rest ─▶ new user namespace ─▶ other new ones
//! ```
//!
//! A pid or time namespace is entered by children only (setns(2)), so where one of those, or a user namespace, is joined,
//! an intermediate process joins and then clones the real child as its own sibling. In the usual case, a container that
//! joins a network namespace, the child does it itself.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stanza_spec::oci::runtime::{Linux, LinuxNamespaceType, LinuxTimeOffset, Spec};
use stanza_sys::CloneFlags;

use crate::error::{During, Failure};

/// A namespace to join, open.
#[derive(Debug)]
struct Joined {
    kind: LinuxNamespaceType,
    path: PathBuf,
    file: File,
}

/// All namespaces of one container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    new: CloneFlags,
    joined: Vec<Joined>,
    /// Lines for `/proc/self/timens_offsets`.
    time_offsets: String,
}

fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::MOUNT,
        LinuxNamespaceType::Cgroup => CloneFlags::CGROUP,
        LinuxNamespaceType::Uts => CloneFlags::UTS,
        LinuxNamespaceType::Ipc => CloneFlags::IPC,
        LinuxNamespaceType::User => CloneFlags::USER,
        LinuxNamespaceType::Pid => CloneFlags::PID,
        LinuxNamespaceType::Network => CloneFlags::NETWORK,
        LinuxNamespaceType::Time => CloneFlags::TIME,
    }
}

fn link_type(kind: LinuxNamespaceType) -> LinkNameSpaceType {
    match kind {
        LinuxNamespaceType::Mount => LinkNameSpaceType::Mount,
        LinuxNamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
        LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
        LinuxNamespaceType::User => LinkNameSpaceType::User,
        LinuxNamespaceType::Pid => LinkNameSpaceType::ProcessID,
        LinuxNamespaceType::Network => LinkNameSpaceType::Network,
        LinuxNamespaceType::Time => LinkNameSpaceType::Time,
    }
}

impl Namespaces {
    /// Reads the configuration and opens what is to be joined. A container always has a mount namespace of its own, unless
    /// it joins one.
    pub(crate) fn of(spec: &Spec) -> Result<Namespaces, Failure> {
        let linux = spec.linux().as_ref();
        let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let mut namespaces =
            Namespaces { new: CloneFlags::MOUNT, joined: Vec::new(), time_offsets: String::new() };
        for namespace in listed {
            let kind = namespace.typ();
            match namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()) {
                None => namespaces.new |= flag(kind),
                Some(path) => {
                    let file = File::open(path).during_on("open the namespace", path)?;
                    namespaces.joined.push(Joined { kind, path: path.to_owned(), file });
                    if kind == LinuxNamespaceType::Mount {
                        namespaces.new = namespaces.new.without(CloneFlags::MOUNT);
                    }
                }
            }
        }
        if namespaces.new.contains(CloneFlags::TIME) {
            namespaces.time_offsets = linux.map(time_offsets).transpose()?.unwrap_or_default();
        }
        Ok(namespaces)
    }

    /// Whether the container gets this kind new.
    pub(crate) fn has_new(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind)
    }

    /// Whether the container has this kind apart from its starter's, new or joined.
    pub(crate) fn has_own(&self, kind: LinuxNamespaceType) -> bool {
        self.new.contains(flag(kind)) || self.joins(kind)
    }

    /// Whether the container joins this kind by path.
    pub(crate) fn joins(&self, kind: LinuxNamespaceType) -> bool {
        self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// Whether an intermediate process must clone the child.
    pub(crate) fn need_intermediate(&self) -> bool {
        use LinuxNamespaceType as T;
        self.joins(T::User)
            || self.joins(T::Pid)
            || self.joins(T::Time)
            || self.new.contains(CloneFlags::TIME)
            || (self.new.contains(CloneFlags::USER) && !self.joined.is_empty())
    }

    /// What the real child is cloned with. The cgroup namespace is not among it: its root is the cgroup of the moment,
    /// which the child has yet to join; nor is time, which the intermediate process has unshared.
    pub(crate) fn clone_flags(&self) -> CloneFlags {
        self.new.without(CloneFlags::CGROUP).without(CloneFlags::TIME)
    }

    /// Joins what is to be joined, in the intermediate process or in the child, whichever there is.
    pub(crate) fn join(&self) -> Result<(), Failure> {
        let (users, others): (Vec<&Joined>, Vec<&Joined>) =
            self.joined.iter().partition(|joined| joined.kind == LinuxNamespaceType::User);
        let mut refused = Vec::new();
        // The mount namespace last: what it shows is the container's.
        for joined in in_order(others) {
            match joined.enter() {
                Err(Errno::PERM) if !users.is_empty() => refused.push(joined),
                other => other.during_on("join the namespace", &joined.path)?,
            }
        }
        for joined in users {
            joined.enter().during_on("join the namespace", &joined.path)?;
            become_root()?;
        }
        for joined in refused {
            joined.enter().during_on("join the namespace", &joined.path)?;
        }
        Ok(())
    }

    /// Makes the new time namespace for the children of this process, with its offsets, which must be written before
    /// anybody is in it (time_namespaces(7)).
    pub(crate) fn unshare_time(&self) -> Result<(), Failure> {
        if !self.new.contains(CloneFlags::TIME) {
            return Ok(());
        }
        stanza_sys::unshare(CloneFlags::TIME).during("create a time namespace")?;
        if self.time_offsets.is_empty() {
            return Ok(());
        }
        std::fs::write("/proc/self/timens_offsets", &self.time_offsets).during("set the time offsets")
    }
}

fn in_order(mut joined: Vec<&Joined>) -> Vec<&Joined> {
    joined.sort_by_key(|joined| joined.kind == LinuxNamespaceType::Mount);
    joined
}

impl Joined {
    fn enter(&self) -> rustix::io::Result<()> {
        move_into_link_name_space(self.file.as_fd(), Some(link_type(self.kind)))
    }
}

/// Becomes user 0 of the user namespace that this process is in.
pub(crate) fn become_root() -> Result<(), Failure> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).during("become root in the user namespace")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).during("become root in the user namespace")
}

fn time_offsets(linux: &Linux) -> Result<String, Failure> {
    let mut text = String::new();
    let mut clocks: Vec<(&String, &LinuxTimeOffset)> = linux.time_offsets().iter().flatten().collect();
    clocks.sort_unstable_by_key(|(name, _)| *name);
    for (name, offset) in clocks {
        if !matches!(name.as_str(), "monotonic" | "boottime") {
            return Err(Failure::configuration(format!(
                "`{name}` in `timeOffsets` is no clock: expected `monotonic` or `boottime`"
            )));
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        text.push_str(&format!("{name} {seconds} {nanoseconds}\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(json: serde_json::Value) -> Namespaces {
        let spec = serde_json::json!({"ociVersion": "1.0.0", "linux": json});
        Namespaces::of(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    #[test]
    fn only_what_children_alone_can_enter_needs_an_intermediate() {
        let plain = namespaces(serde_json::json!({"namespaces": [{"type": "pid"}, {"type": "cgroup"}]}));
        assert_eq!(plain.clone_flags(), CloneFlags::MOUNT | CloneFlags::PID);
        assert!(!plain.need_intermediate() && plain.has_own(LinuxNamespaceType::Cgroup));
        let net = serde_json::json!({"type": "network", "path": "/proc/self/ns/net"});
        assert!(!namespaces(serde_json::json!({"namespaces": [net]})).need_intermediate());
        for list in [
            serde_json::json!([net, {"type": "user"}]),
            serde_json::json!([{"type": "pid", "path": "/proc/self/ns/pid"}]),
            serde_json::json!([{"type": "time"}]),
        ] {
            assert!(namespaces(serde_json::json!({ "namespaces": list })).need_intermediate());
        }
        let joined = serde_json::json!({"namespaces": [{"type": "mount", "path": "/proc/self/ns/mnt"}]});
        assert_eq!(namespaces(joined).clone_flags(), CloneFlags::NONE);
    }

    #[test]
    fn offsets_are_lines_of_known_clocks() {
        let time = namespaces(serde_json::json!({
            "namespaces": [{"type": "time"}],
            "timeOffsets": {"monotonic": {"secs": 5}, "boottime": {"secs": -1, "nanosecs": 3}}
        }));
        assert_eq!(time.time_offsets, "boottime -1 3\nmonotonic 5 0\n");
    }
}
