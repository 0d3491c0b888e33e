//! A bundle: a root file system of busybox and the probe, and a configuration like the one `runc spec` writes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::case::Outcome;

/// What runs inside containers: see `probe/probe.c`.
const PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe"));

/// The applets of busybox that the cases use.
const APPLETS: &[&str] = &[
    "[",
    "ash",
    "awk",
    "cat",
    "chmod",
    "chown",
    "chrt",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dmesg",
    "dnsdomainname",
    "echo",
    "env",
    "false",
    "find",
    "free",
    "grep",
    "head",
    "hostname",
    "id",
    "ifconfig",
    "ionice",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mknod",
    "mount",
    "mv",
    "nc",
    "nproc",
    "nslookup",
    "ping",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "taskset",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "wc",
    "xargs",
    "yes",
];

/// A directory with `config.json` and `rootfs`.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) directory: PathBuf,
    /// Written when a container is made.
    pub(crate) config: Value,
}

/// Says what was tried, in front of an error.
pub(crate) fn doing<T>(what: &str, path: &Path, result: std::io::Result<T>) -> Outcome<T> {
    result.map_err(|error| format!("cannot {what} `{}`: {error}", path.display()))
}

/// Writes the probe as an executable file.
pub(crate) fn write_probe(path: &Path) -> Outcome {
    doing("write", path, fs::write(path, PROBE))?;
    doing("change", path, fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
}

/// Makes the root file system.
pub(crate) fn make_rootfs(rootfs: &Path) -> Outcome {
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "run", "home", "mnt"] {
        let path = rootfs.join(name);
        doing("create", &path, fs::create_dir_all(&path))?;
    }
    let tmp = rootfs.join("tmp");
    doing("change", &tmp, fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)))?;
    let busybox = rootfs.join("bin/busybox");
    let source = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    doing("copy", &busybox, fs::copy(source.ok_or("no `busybox`")?, &busybox))?;
    for applet in APPLETS {
        let path = rootfs.join("bin").join(applet);
        doing("link", &path, symlink("busybox", &path))?;
    }
    write_probe(&rootfs.join("bin/probe"))?;
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
    let group = "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n";
    for (name, text) in [("passwd", passwd), ("group", group)] {
        let path = rootfs.join("etc").join(name);
        doing("write", &path, fs::write(&path, text))?;
    }
    Ok(())
}

/// Capabilities of the usual configuration.
const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// The configuration that `runc spec` writes, without a terminal and with a writable root.
pub(crate) fn default_config(cgroup: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "conformance",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                           {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

impl Bundle {
    /// The directory that becomes `/`.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Writes `config.json`.
    pub(crate) fn write(&self) -> Outcome {
        let path = self.directory.join("config.json");
        let text = serde_json::to_vec_pretty(&self.config).map_err(|error| error.to_string())?;
        doing("write", &path, fs::write(&path, text))
    }

    /// The program and its words.
    pub(crate) fn args(&mut self, words: &[&str]) {
        self.config["process"]["args"] = json!(words);
    }

    /// Adds a mount after the others.
    pub(crate) fn mount(&mut self, mount: Value) {
        push(&mut self.config["mounts"], mount);
    }

    /// Gives the process these capabilities in all sets but the ambient and inheritable.
    pub(crate) fn capabilities(&mut self, names: &[&str]) {
        self.config["process"]["capabilities"] =
            json!({"bounding": names, "effective": names, "permitted": names});
    }

    /// Leaves a kind of namespace out, so that the host's is used.
    pub(crate) fn without_namespace(&mut self, kind: &str) {
        if let Some(namespaces) = self.config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != kind);
        }
    }

    /// Adds a namespace, in place of one of its kind.
    pub(crate) fn namespace(&mut self, namespace: Value) {
        let kind = namespace["type"].as_str().unwrap_or_default().to_owned();
        self.without_namespace(&kind);
        push(&mut self.config["linux"]["namespaces"], namespace);
    }

    /// Leaves a mount out.
    pub(crate) fn without_mount(&mut self, destination: &str) {
        if let Some(mounts) = self.config["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != destination);
        }
    }
}

/// Appends to an array, which is made when it is not there.
pub(crate) fn push(array: &mut Value, value: Value) {
    if !array.is_array() {
        *array = json!([]);
    }
    if let Some(array) = array.as_array_mut() {
        array.push(value);
    }
}
