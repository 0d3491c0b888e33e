//! A configuration as a bundle for the runtime itself: `create`, then `delete --force`.
//!
//! A mutated configuration may ask for anything, in the host's namespaces too. Run this as root in namespaces that are thrown
//! away, on a machine that may be lost:
//!
//! ```sh
//! unshare --mount --net --uts --ipc --pid --fork --mount-proc --propagation private stanza-fuzz runtime --runtime PATH
//! ```
//!
//! The container's process is never started: `create` sets everything up, and `delete` takes it down. Hooks and the root file
//! system are this module's own whatever the configuration says; `create` runs hooks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Outcome;

/// A runtime that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where bundles are made, and what the machine looked like before.
pub(crate) struct Place {
    program: PathBuf,
    directory: PathBuf,
    /// Tells this run's cgroups from all others.
    name: String,
    number: u64,
    before: BTreeSet<String>,
}

impl Place {
    pub(crate) fn new(program: &Path) -> Result<Place, String> {
        let program = program.canonicalize().map_err(|error| format!("{}: {error}", program.display()))?;
        // Else the host's own mounts and processes would be at stake.
        if std::process::id() > 1
            && std::fs::read_link("/proc/self/ns/pid").ok() == std::fs::read_link("/proc/1/ns/pid").ok()
            && !children_are_ours()
        {
            return Err("run this in namespaces of its own: see src/runtime.rs".into());
        }
        let name = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis()).to_string();
        let directory = std::env::temp_dir().join(format!("stanza-fuzz-{name}"));
        let rootfs = directory.join("bundle/rootfs");
        for name in ["proc", "dev", "sys", "bin", "tmp", "etc"] {
            std::fs::create_dir_all(rootfs.join(name))
                .map_err(|error| format!("{}: {error}", rootfs.display()))?;
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/true"))
            .map_err(|error| format!("/bin/busybox: {error}"))?;
        Ok(Place { program, directory, name, number: 0, before: seen() })
    }

    pub(crate) fn run(&mut self, text: &[u8]) -> Outcome {
        self.number += 1;
        let id = format!("fuzz-{}-{}", self.name, self.number);
        let bundle = self.directory.join("bundle");
        std::fs::write(bundle.join("config.json"), self.harmless(text, &id))
            .map_err(|error| error.to_string())?;
        let log = self.directory.join("log");
        let _ = std::fs::remove_file(&log);
        let created = self.call(&["create", "--bundle", &bundle.to_string_lossy(), &id])?;
        self.call(&["delete", "--force", &id])?;
        let mut after = seen();
        after.extend(cgroups(&|name| name == id).iter().map(|path| format!("cgroup {}", path.display())));
        let new: Vec<&String> = after.difference(&self.before).collect();
        if !new.is_empty() {
            let what = format!("left behind: {new:?}");
            // Told once.
            self.before = after.clone();
            return Err(what);
        }
        if self.directory.join("state").join(&id).exists() {
            return Err("left behind: its state".into());
        }
        Ok(created)
    }

    /// What could do harm outside is replaced; all else stays as it is. Bytes that are no JSON stay altogether.
    fn harmless(&self, text: &[u8], id: &str) -> Vec<u8> {
        let Ok(mut spec) = serde_json::from_slice::<Value>(text) else { return text.to_vec() };
        if let Some(hooks) = spec.get_mut("hooks").and_then(Value::as_object_mut) {
            for hook in hooks.values_mut().filter_map(Value::as_array_mut).flatten() {
                if hook.get("path").is_some_and(Value::is_string) {
                    hook["path"] = "/bin/true".into();
                }
            }
        }
        if let Some(path) = spec.pointer_mut("/root/path").filter(|path| path.is_string()) {
            *path = "rootfs".into();
        }
        if let Some(linux) = spec.get_mut("linux").and_then(Value::as_object_mut) {
            // Other people's cgroups are on the same machine. What the path has in the middle stays.
            if let Some(Value::String(path)) = linux.get_mut("cgroupsPath") {
                *path = format!("/stanza-fuzz-{}/{}/{id}", self.name, path.replace("..", "dots"));
            }
            // Namespaces by path are this process's own or the host's; a sysctl may be the host's.
            linux.remove("sysctl");
            for namespace in linux.get_mut("namespaces").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(namespace) = namespace.as_object_mut() {
                    namespace.remove("path");
                }
            }
        }
        spec.to_string().into_bytes()
    }

    /// Whether it exits with 0; anything but 0 and 1 is wrong.
    fn call(&self, words: &[&str]) -> Outcome {
        let output = self.directory.join("output");
        let file = || std::fs::File::create(&output).map_err(|error| error.to_string());
        let mut child = Command::new(&self.program)
            .arg("--root")
            .arg(self.directory.join("state"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file()?)
            .spawn()
            .map_err(|error| error.to_string())?;
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None if Instant::now() >= end => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("{} hangs", words[0]));
                }
                None => std::thread::sleep(Duration::from_micros(500)),
            }
        };
        let said = std::fs::read(&output).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        if said.contains("panicked at") {
            return Err(format!("{} panics: {said}", words[0]));
        }
        match status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(format!("{} ends with {status}: {said}", words[0])),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
        let mut waiting = cgroups(&|name| name.strip_prefix("stanza-fuzz-") == Some(&self.name));
        let mut all = Vec::new();
        while let Some(directory) = waiting.pop() {
            let children = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            waiting.extend(children.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()));
            all.push(directory);
        }
        for directory in all.iter().rev() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// In a pid namespace of its own the first process is this one, or the shell that it was started from.
fn children_are_ours() -> bool {
    std::fs::read_to_string("/proc/1/comm")
        .is_ok_and(|name| ["stanza-fuzz", "sh", "timeout"].contains(&name.trim()))
}

/// The mounts and processes that there are, in these namespaces.
fn seen() -> BTreeSet<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = |line: &str| line.split(' ').nth(4).map(|place| format!("mount {place}"));
    let mut seen: BTreeSet<String> = mounts.lines().filter_map(place).collect();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let lives =
            std::fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| !stat.contains(") Z "));
        if lives && name.bytes().all(|letter| letter.is_ascii_digit()) {
            seen.insert(format!("process {name}"));
        }
    }
    seen
}

/// The cgroups with such a name, parents first.
fn cgroups(wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if wanted(&entry.file_name().to_string_lossy()) {
                    found.push(entry.path());
                }
                waiting.push(entry.path());
            }
        }
    }
    found
}
