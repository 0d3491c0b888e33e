//! What a configuration may not say, with runc's words where it refuses the same.

use std::path::Path;

use stanza_spec::oci::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec, User};

use crate::failure::Failure;

fn refuse(text: impl Into<String>) -> Failure {
    Failure::Configuration(text.into())
}

/// The kernel's "no id": who asks for it would stay who he is.
const NO_ID: u32 = u32::MAX;

/// Checks the ids of a process.
pub(crate) fn check_user(user: &User) -> Result<(), Failure> {
    let groups = user.additional_gids().iter().flatten().copied();
    match [user.uid(), user.gid()].into_iter().chain(groups).any(|id| id == NO_ID) {
        true => Err(refuse(format!("{NO_ID} is not the id of a user or group"))),
        false => Ok(()),
    }
}

/// Checks what does not need the kernel.
pub(crate) fn check(spec: &Spec) -> Result<(), Failure> {
    let process = spec.process().as_ref().ok_or_else(|| refuse("process property must not be empty"))?;
    if process.cwd().as_os_str().is_empty() {
        return Err(refuse("Cwd property must not be empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(refuse("Cwd must be an absolute path"));
    }
    if process.args().as_deref().unwrap_or_default().is_empty() {
        return Err(refuse("args must not be empty"));
    }
    check_user(process.user())?;
    let limits = process.rlimits().as_deref().unwrap_or_default();
    for (index, limit) in limits.iter().enumerate() {
        if limits[..index].iter().any(|other| other.typ() == limit.typ()) {
            return Err(refuse(format!("duplicate rlimit entry: {}", limit.typ())));
        }
    }
    let label = process.selinux_label().as_deref().filter(|label| !label.is_empty());
    if let Some(label) = label.filter(|_| !Path::new("/sys/fs/selinux/enforce").exists()) {
        return Err(refuse(format!(
            "selinux label is specified in config, but selinux is disabled or not supported: {label}"
        )));
    }
    let linux = spec.linux().as_ref().ok_or_else(|| refuse("the configuration has no `linux` part"))?;
    check_namespaces(spec, linux)?;
    check_devices(linux)?;
    check_sysctls(spec, linux)
}

/// Where a container stands with one kind of namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    /// Its starter's.
    No,
    New,
    Joined,
}

fn own(linux: &Linux, kind: LinuxNamespaceType) -> Own {
    let listed = linux.namespaces().as_deref().unwrap_or_default();
    match listed.iter().find(|namespace| namespace.typ() == kind) {
        None => Own::No,
        Some(namespace) => match namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()) {
            None => Own::New,
            Some(_) => Own::Joined,
        },
    }
}

fn check_namespaces(spec: &Spec, linux: &Linux) -> Result<(), Failure> {
    let listed = linux.namespaces().as_deref().unwrap_or_default();
    for (index, namespace) in listed.iter().enumerate() {
        if listed[..index].iter().any(|other| other.typ() == namespace.typ()) {
            return Err(refuse(format!("malformed spec file: duplicated ns \"{}\"", namespace.typ())));
        }
    }
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let uts = own(linux, LinuxNamespaceType::Uts);
    if set(spec.hostname()) && uts == Own::No {
        return Err(refuse("unable to set hostname without a private UTS namespace"));
    }
    if set(spec.domainname()) && uts == Own::No {
        return Err(refuse("unable to set domainname without a private UTS namespace"));
    }
    let full = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let hides = full(linux.masked_paths()) || full(linux.readonly_paths());
    if hides && own(linux, LinuxNamespaceType::Mount) == Own::No {
        return Err(refuse("unable to restrict sys entries without a private MNT namespace"));
    }
    let maps = [linux.uid_mappings(), linux.gid_mappings()];
    let ends =
        |map: &LinuxIdMapping| [map.container_id(), map.host_id()].map(|id| id.checked_add(map.size()));
    if maps.iter().copied().flatten().flatten().any(|map| map.size() == 0 || ends(map).contains(&None)) {
        return Err(refuse("an id mapping is empty or goes beyond the last id"));
    }
    match own(linux, LinuxNamespaceType::User) {
        Own::No if maps.iter().any(|map| map.as_ref().is_some_and(|map| !map.is_empty())) => {
            Err(refuse("User namespace mappings specified, but user namespace isn't enabled in the config"))
        }
        Own::New if maps.iter().any(|map| map.as_ref().is_none_or(Vec::is_empty)) => {
            Err(refuse("User namespaces enabled, but no uid or gid mappings found"))
        }
        Own::No if !rustix::process::geteuid().is_root() => {
            Err(refuse("rootless container requires user namespaces"))
        }
        _ => match linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) {
            true if own(linux, LinuxNamespaceType::Time) == Own::No => Err(refuse(
                "time namespace offsets specified, but time namespace isn't enabled in the config",
            )),
            _ => Ok(()),
        },
    }
}

/// Before a device is moved: one that cannot have its new name is lost with the namespace.
fn check_devices(linux: &Linux) -> Result<(), Failure> {
    let devices = linux.net_devices().iter().flatten();
    for (name, device) in devices {
        if own(linux, LinuxNamespaceType::Network) == Own::No {
            return Err(refuse(format!(
                "network device {name:?} needs a network namespace of the container's own"
            )));
        }
        let new = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        for name in [name.as_str(), new] {
            let odd = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0;
            if matches!(name, "" | "." | "..") || name.len() > 15 || name.bytes().any(odd) {
                return Err(refuse(format!(
                    "{name:?} is no name for a network device: expected 1 to 15 bytes"
                )));
            }
        }
        if new == "lo" && own(linux, LinuxNamespaceType::Network) == Own::New {
            return Err(refuse(format!(
                "network device {name:?} cannot be named \"lo\": every namespace has one"
            )));
        }
    }
    let names: Vec<&str> = linux
        .net_devices()
        .iter()
        .flatten()
        .map(|(name, device)| device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name))
        .collect();
    match names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        Some((_, name)) => Err(refuse(format!("two network devices would be named {name:?}"))),
        None => Ok(()),
    }
}

const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// With dots, whichever way it was written: the first separator tells (sysctl(8)).
fn with_dots(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// A container sets what is its own, never the host's.
fn check_sysctls(spec: &Spec, linux: &Linux) -> Result<(), Failure> {
    for written in linux.sysctl().iter().flatten().map(|(name, _)| name) {
        let name = with_dots(written);
        if name.split('.').any(|part| part.is_empty() || part == "/") {
            return Err(refuse(format!("sysctl {written:?} is no name of a sysctl")));
        }
        if IPC_SYSCTLS.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
            if own(linux, LinuxNamespaceType::Ipc) == Own::No {
                return Err(refuse(format!("sysctl {written:?} is not allowed in the hosts ipc namespace")));
            }
        } else if name.starts_with("net.") {
            if own(linux, LinuxNamespaceType::Network) == Own::No {
                return Err(refuse(format!("sysctl {written:?} not allowed in host network namespace")));
            }
        } else if name == "kernel.domainname" || name == "kernel.hostname" {
            if own(linux, LinuxNamespaceType::Uts) == Own::No {
                return Err(refuse(format!("sysctl {written:?} is not allowed in the hosts uts namespace")));
            }
            if name == "kernel.hostname" && spec.hostname().is_some() {
                return Err(refuse(format!("sysctl {written:?} conflicts with the field `hostname`")));
            }
        } else {
            return Err(refuse(format!("sysctl {written:?} is not in a separate kernel namespace")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn refused(linux: Value) -> String {
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}},
        });
        spec["linux"] = linux;
        let spec: Spec = serde_json::from_value(spec).unwrap();
        check(&spec).err().map_or_else(String::new, |failure| failure.to_string())
    }

    #[test]
    fn sysctls_are_the_containers_own() {
        let with =
            |name: &str, kind: &str| refused(json!({"namespaces": [{"type": kind}], "sysctl": {name: "1"}}));
        assert_eq!(with("net.ipv4.ip_forward", "network"), "");
        assert_eq!(with("net/ipv4/conf/eth0.1/forwarding", "network"), "");
        assert_eq!(with("kernel.shmmax", "ipc"), "");
        for (name, kind) in [
            ("net.ipv4.ip_forward", "ipc"),
            ("kernel.shmmax", "network"),
            ("kernel.core_pattern", "ipc"),
            ("kernel/../vm", "ipc"),
            ("net..x", "network"),
        ] {
            assert!(with(name, kind).contains("sysctl"), "{name}");
        }
    }

    #[test]
    fn what_needs_a_namespace_has_it() {
        assert_eq!(
            refused(json!({"namespaces": [{"type": "pid"}, {"type": "pid"}]})),
            "malformed spec file: duplicated ns \"pid\""
        );
        assert!(refused(json!({"maskedPaths": ["/proc/kcore"]})).contains("private MNT"));
        assert!(refused(json!({"namespaces": [{"type": "user"}]})).contains("no uid or gid mappings"));
        let map = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
        assert!(refused(json!({"uidMappings": map})).contains("isn't enabled"));
    }
}
