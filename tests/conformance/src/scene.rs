//! Where one case plays: a runtime, a directory of its own, a cgroup of its own.
//!
//! ```text
//!   <scratch>/state/            the runtime's --root
//!            /<id>/config.json  a bundle each, with rootfs/
//!            /call-N.out .err   what the runtime (and the container, which has the same streams) printed
//!   cgroup: /stanza-conformance/<tag>/<id>
//! ```
//!
//! The process of a case is the reaper of all that its containers leave: so they can be found, and none outlives it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait, waitpid};
use serde_json::Value;

use crate::bundle::{Bundle, default_config, doing, make_rootfs, write_probe};
use crate::case::{Outcome, contains_any, same, wait_for};
use crate::container::Container;
use crate::runtime::{Output, Runtime, code};

/// The parent of all cgroups that cases make.
pub(crate) const CGROUP: &str = "stanza-conformance";

/// The scene of one case.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) runtime: Runtime,
    pub(crate) scratch: PathBuf,
    /// Names this case among all that run.
    pub(crate) tag: String,
    count: Cell<u32>,
}

/// A command that runs, its streams in files.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
}

impl Running {
    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Outcome<Output> {
        let status = self.child.wait().map_err(|error| format!("cannot wait: {error}"))?;
        Ok(Output { code: code(status), stdout: read(&self.stdout), stderr: read(&self.stderr) })
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }
}

/// A text file, empty when it is not there.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Ends a process at once.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 1) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

impl Scene {
    pub(crate) fn new(runtime: Runtime, scratch: PathBuf, tag: String) -> Scene {
        Scene { runtime, scratch, tag, count: Cell::new(0) }
    }

    /// A number that was not given before in this scene.
    pub(crate) fn next(&self) -> u32 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// A path below the scratch directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file below the scratch directory; its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> Outcome<String> {
        let path = self.path(name);
        doing("write", &path, fs::write(&path, text))?;
        Ok(path.display().to_string())
    }

    /// Makes a directory below the scratch directory; its path.
    pub(crate) fn directory(&self, name: &str) -> Outcome<String> {
        let path = self.path(name);
        doing("create", &path, fs::create_dir_all(&path))?;
        Ok(path.display().to_string())
    }

    /// The probe, to be run on the host.
    pub(crate) fn probe(&self) -> Outcome<PathBuf> {
        let path = self.path("probe");
        if !path.exists() {
            write_probe(&path)?;
        }
        Ok(path)
    }

    /// A bundle with the usual configuration, for an id of its own.
    pub(crate) fn container(&self, words: &[&str]) -> Outcome<Container<'_>> {
        let id = format!("{}-{}", self.tag, self.next());
        let directory = self.path(&id);
        make_rootfs(&directory.join("rootfs"))?;
        let config = default_config(&format!("/{CGROUP}/{}/{id}", self.tag));
        let mut bundle = Bundle { directory, config };
        bundle.args(words);
        Ok(Container { scene: self, id, bundle, log: RefCell::new(None) })
    }

    /// One whose program is a shell script.
    pub(crate) fn script(&self, script: &str) -> Outcome<Container<'_>> {
        self.container(&["sh", "-c", script])
    }

    /// One that waits, created and started.
    pub(crate) fn waiting(&self) -> Outcome<Container<'_>> {
        let container = self.container(&["sleep", "1000"])?;
        container.create()?;
        container.start()?;
        Ok(container)
    }

    /// The runtime with its `--root`.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.runtime.path);
        command.arg("--root").arg(self.path("state"));
        command
    }

    /// Starts a command with its streams in files.
    pub(crate) fn spawn(&self, mut command: Command) -> Outcome<Running> {
        let number = self.next();
        let stdout = self.path(&format!("call-{number}.out"));
        let stderr = self.path(&format!("call-{number}.err"));
        command.stdin(Stdio::null());
        self.spawn_into(command, stdout, stderr)
    }

    /// The same, with a standard input that is set already.
    pub(crate) fn spawn_into(
        &self,
        mut command: Command,
        stdout: PathBuf,
        stderr: PathBuf,
    ) -> Outcome<Running> {
        command.stdout(doing("create", &stdout, File::create(&stdout))?);
        command.stderr(doing("create", &stderr, File::create(&stderr))?);
        let child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
        Ok(Running { child, stdout, stderr })
    }

    /// Runs a command to its end.
    pub(crate) fn finish(&self, command: Command) -> Outcome<Output> {
        self.spawn(command)?.finish()
    }

    /// Runs the runtime to its end.
    pub(crate) fn call(&self, words: &[&str]) -> Outcome<Output> {
        let mut command = self.command();
        command.args(words);
        self.finish(command)
    }

    /// Runs another program of the machine to its end; what it printed.
    pub(crate) fn tool(&self, words: &[&str]) -> Outcome<String> {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let output = self.finish(command)?;
        if output.code == 0 { Ok(output.stdout) } else { Err(format!("{words:?} failed: {output:?}")) }
    }

    /// Runs the usual container with a script, after a change of its bundle; what it printed.
    pub(crate) fn sh_with(&self, script: &str, change: impl FnOnce(&mut Bundle)) -> Outcome<String> {
        let mut container = self.script(script)?;
        change(&mut container.bundle);
        container.run()?.ok()
    }

    /// Runs the usual container with a script; what it printed.
    pub(crate) fn sh(&self, script: &str) -> Outcome<String> {
        self.sh_with(script, |_| ())
    }

    /// Runs the usual container with a script and a changed bundle, which must be refused; what was said.
    pub(crate) fn refused_with(&self, change: impl FnOnce(&mut Bundle)) -> Outcome<String> {
        let mut container = self.script("echo should not run")?;
        change(&mut container.bundle);
        let said = container.run()?.refused()?;
        same("the program has not run", said.contains("should not run"), false)?;
        Ok(said)
    }

    /// What a runtime says must contain one of these texts, which callers match. crun has texts of its own.
    pub(crate) fn says(&self, text: &str, parts: &[&str]) -> Outcome {
        if self.runtime.is_crun() { Ok(()) } else { contains_any("what is said", text, parts) }
    }

    /// The directories of a container's cgroup that exist, by hierarchy.
    pub(crate) fn cgroups(&self, id: &str) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        for (name, hierarchy) in hierarchies() {
            let path = hierarchy.join(CGROUP).join(&self.tag).join(id);
            if path.is_dir() {
                found.insert(name, path);
            }
        }
        found
    }

    /// Reaps what has ended, the case's own children that it has not waited for too.
    pub(crate) fn reap(&self) {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }

    /// Removes what the case still has, and says what should not have been there.
    pub(crate) fn close(&self) -> Outcome {
        self.reap();
        let state = self.path("state");
        for entry in fs::read_dir(&state).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && !id.starts_with('.') {
                self.delete_force(&id)?;
            }
        }
        self.reap();
        let quiet = || {
            self.reap();
            Ok(descendants(rustix::process::getpid().as_raw_pid()).is_empty().then_some(()))
        };
        wait_for("no process is left", quiet).map_err(|error| {
            let left = descendants(rustix::process::getpid().as_raw_pid());
            let names: Vec<String> = left.iter().map(|pid| name(*pid)).collect();
            format!("{error}: {names:?}")
        })?;
        let mut left = Vec::new();
        for (_, hierarchy) in hierarchies() {
            let parent = hierarchy.join(CGROUP).join(&self.tag);
            for child in fs::read_dir(&parent).into_iter().flatten().flatten() {
                if child.path().is_dir() {
                    left.push(child.path());
                }
            }
        }
        same("cgroups left", left, Vec::<PathBuf>::new())?;
        same("mounts left", mounts_below(&self.scratch), Vec::<String>::new())
    }

    /// `delete --force`.
    pub(crate) fn delete_force(&self, id: &str) -> Outcome {
        let mut command = self.command();
        command.args(["delete", "--force", id]);
        self.finish_reaping(command)?.ok().map_err(|error| format!("delete --force {id}: {error}")).map(drop)
    }

    /// Runs a command to its end, while this case reaps what would keep a container's first process from ending.
    pub(crate) fn finish_reaping(&self, command: Command) -> Outcome<Output> {
        let mut running = self.spawn(command)?;
        while running.child.try_wait().map_err(|error| format!("cannot wait: {error}"))?.is_none() {
            self.reap_but(running.pid());
            std::thread::sleep(Duration::from_micros(200));
        }
        running.finish()
    }

    /// Reaps the children that have ended, but for one.
    pub(crate) fn reap_but(&self, one: i32) {
        let own = rustix::process::getpid().as_raw_pid();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            if pid != one && parent(pid) == Some((own, 'Z')) {
                let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
            }
        }
    }

    /// What `state` prints.
    pub(crate) fn state(&self, id: &str) -> Outcome<Value> {
        let text = self.call(&["state", id])?.ok()?;
        serde_json::from_str(&text).map_err(|error| format!("state is no JSON: {error}: {text}"))
    }
}

/// The mounted hierarchies of cgroups, by their directory's name.
pub(crate) fn hierarchies() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    // crun sees an empty directory in place of version 2.
    named.filter(|(_, path)| path.join("cgroup.procs").exists()).collect()
}

fn name(pid: i32) -> String {
    format!("{pid} {}", read(format!("/proc/{pid}/cmdline")).replace('\0', " "))
}

/// Mount points of this process below a directory, the deepest last.
pub(crate) fn mounts_below(directory: &Path) -> Vec<String> {
    let text = read("/proc/self/mountinfo");
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(directory)).map(str::to_owned).collect()
}

/// The parent of a process and its state.
fn parent(pid: i32) -> Option<(i32, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// All processes below one, but for those that have ended.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if let Some((parent, state)) = parent(pid) {
            parents.insert(pid, (parent, state));
        }
    }
    let below = |mut pid: i32| {
        while let Some((parent, _)) = parents.get(&pid) {
            if *parent == root {
                return true;
            }
            pid = *parent;
        }
        false
    };
    parents
        .iter()
        .filter(|(_, (_, state))| *state != 'Z')
        .map(|(pid, _)| *pid)
        .filter(|pid| below(*pid))
        .collect()
}
