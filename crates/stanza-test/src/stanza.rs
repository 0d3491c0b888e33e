//! The fixture: a stanza with directories of its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::leftovers::{self, Leftovers};
use crate::{Account, Network, Output, Running, Terminal, busybox_tarball, wait_until};

/// What a test wants of its fixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No image is loaded.
    Empty,
    /// A network and a mount name space of its own, so that the machine's network stays as it is.
    PrivateNetwork,
    /// It runs as an ordinary user.
    Rootless,
    /// Its containers are in virtual machines.
    Machines,
}

/// A stanza with directories of its own.
#[derive(Debug)]
pub struct Stanza {
    binary: PathBuf,
    directory: TempDir,
    root: PathBuf,
    runroot: PathBuf,
    network: Option<Network>,
    account: Option<Account>,
    machines: bool,
    counter: AtomicU32,
}

/// The busybox archive, made once per test process.
fn busybox_archive() -> Result<&'static [u8], String> {
    static ARCHIVE: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let made = ARCHIVE.get_or_init(|| Ok(busybox_tarball()?.finish()));
    made.as_deref().map_err(Clone::clone)
}

impl Stanza {
    /// A fixture with the executable at `binary`, or at `STANZA_BIN` when that is set.
    ///
    /// # Errors
    /// The reason why the test cannot run here.
    ///
    /// # Panics
    /// When the image cannot be loaded: then stanza is broken.
    pub fn new(binary: &str, wishes: &[Wish]) -> Result<Stanza, String> {
        if !geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let mut binary = std::env::var_os("STANZA_BIN").map_or_else(|| PathBuf::from(binary), PathBuf::from);
        let archive = busybox_archive()?;
        let directory = TempDir::with_prefix("stanza-test-").map_err(|error| error.to_string())?;
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        for name in ["cids", "home", "run", "bin"] {
            fs::create_dir(path.join(name)).map_err(|error| error.to_string())?;
        }
        let account = wishes.contains(&Wish::Rootless).then(Account::ordinary).transpose()?;
        if let Some(account) = &account {
            // The target directory may be where an ordinary user cannot look.
            let copy = path.join("bin/stanza");
            fs::copy(&binary, &copy)
                .map_err(|error| format!("cannot copy `{}`: {error}", binary.display()))?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))
                .map_err(|error| error.to_string())?;
            binary = copy;
            for name in ["", "cids", "home", "run"] {
                chown(path.join(name), Some(account.uid), Some(account.gid))
                    .map_err(|error| error.to_string())?;
            }
        }
        let network = wishes.contains(&Wish::PrivateNetwork).then(Network::private).transpose()?;
        let (root, runroot) = (path.join("root"), path.join("runroot"));
        let machines = wishes.contains(&Wish::Machines);
        if machines {
            crate::machines::provide(&binary, archive, &root)?;
        }
        let counter = AtomicU32::new(0);
        let stanza = Stanza { binary, directory, root, runroot, network, account, machines, counter };
        if wishes.contains(&Wish::Empty) {
            // What the first command makes is not what a test looks for.
            stanza.ok(&["images", "-q"]);
        } else {
            let loaded = stanza.output_with_input(&["import", "-", "busybox:latest"], archive);
            assert_eq!(loaded.code, 0, "stanza import: {}", loaded.stderr);
        }
        Ok(stanza)
    }

    /// The executable under test.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The fixture's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `--root`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `--runroot`.
    #[must_use]
    pub fn runroot(&self) -> &Path {
        &self.runroot
    }

    /// The private network, when it was wished for.
    #[must_use]
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// The archive of the root file system `busybox:latest`.
    ///
    /// # Panics
    /// Never: it was there when the fixture was made.
    #[must_use]
    pub fn busybox(&self) -> &'static [u8] {
        busybox_archive().expect("the archive was made")
    }

    /// A file in the fixture's directory with this content, readable for everybody; its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.directory().join(name);
        fs::write(&path, content).expect("the file is written");
        path.display().to_string()
    }

    /// A command with the fixture's directories; `run` and `create` also write their id for [`Stanza::leftovers`].
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(network) = &self.network {
            words.extend(network.prefix());
        }
        if let Some(account) = &self.account {
            let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
            words.extend(
                ["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups", "--"].map(str::to_owned),
            );
        }
        words.push(self.binary.display().to_string());
        words.push(format!("--root={}", self.root.display()));
        words.push(format!("--runroot={}", self.runroot.display()));
        let arguments = args;
        let mut args = args.iter();
        words.extend(args.next().map(|word| (*word).to_owned()));
        let given = args.clone().any(|word| word.starts_with("--cidfile"));
        if words.last().is_some_and(|word| matches!(word.as_str(), "run" | "create")) && !given {
            let number = self.counter.fetch_add(1, Ordering::Relaxed);
            words.push(format!("--cidfile={}", self.directory().join(format!("cids/{number}")).display()));
        }
        let makes = arguments.first().is_some_and(|word| matches!(*word, "run" | "create"));
        if self.machines && makes {
            words.push("--isolation=vm".to_owned());
        }
        words.extend(args.map(|word| (*word).to_owned()));
        let mut command = Command::new(&words[0]);
        // The machine's own CNI networks are no part of a test.
        let chains = self.directory().join("net.d");
        command.args(&words[1..]).current_dir("/").env("NETCONFPATH", chains);
        if self.account.is_some() {
            command
                .env("HOME", self.directory().join("home"))
                .env("XDG_RUNTIME_DIR", self.directory().join("run"))
                .env("USER", crate::ORDINARY_USER);
        }
        command
    }

    /// Runs it to its end, with empty input.
    ///
    /// # Panics
    /// When it does not end.
    pub fn output(&self, args: &[&str]) -> Output {
        self.spawn(args).finish()
    }

    /// Runs it to its end with `input`.
    ///
    /// # Panics
    /// When it does not read its input or does not end.
    #[must_use]
    pub fn output_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut running = self.spawn(args);
        running.send(input);
        running.finish()
    }

    /// Runs it; its standard output without the last line's end.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.code, 0, "stanza {args:?}\nstdout: {}\nstderr: {}", output.stdout, output.stderr);
        output.stdout.strip_suffix('\n').unwrap_or(&output.stdout).to_owned()
    }

    /// Runs it; its standard error.
    ///
    /// # Panics
    /// When its exit code is another than `code`.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(
            output.code, code,
            "stanza {args:?}\nstdout: {}\nstderr: {}",
            output.stdout, output.stderr
        );
        output.stderr
    }

    /// `run --rm --network none OPTIONS busybox sh -c SCRIPT`.
    ///
    /// # Panics
    /// When it does not end.
    pub fn shell(&self, options: &[&str], script: &str) -> Output {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(options);
        args.extend(["busybox", "sh", "-c", script]);
        self.output(&args)
    }

    /// The same; its standard output without the last line's end.
    ///
    /// # Panics
    /// When it fails.
    pub fn shell_ok(&self, options: &[&str], script: &str) -> String {
        let output = self.shell(options, script);
        assert_eq!(
            output.code, 0,
            "{options:?} {script}\nstdout: {}\nstderr: {}",
            output.stdout, output.stderr
        );
        output.stdout.strip_suffix('\n').unwrap_or(&output.stdout).to_owned()
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Starts it on a terminal.
    ///
    /// # Panics
    /// When there is no terminal.
    #[must_use]
    pub fn terminal(&self, args: &[&str]) -> Terminal {
        Terminal::start(&self.command(args))
    }

    /// A detached container without network that sleeps; its id.
    ///
    /// # Panics
    /// When it does not start.
    pub fn sleeper(&self, name: &str) -> String {
        self.ok(&["run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "1000"])
    }

    /// `inspect NAME`, its first object.
    ///
    /// # Panics
    /// When it fails or is no JSON.
    #[must_use]
    pub fn inspect(&self, name: &str) -> Value {
        let text = self.ok(&["inspect", name]);
        let document: Value = serde_json::from_str(&text).expect("inspect prints JSON");
        document[0].clone()
    }

    /// The state of a container: `running`, `exited`, `created`.
    ///
    /// # Panics
    /// When there is no such container.
    #[must_use]
    pub fn state(&self, name: &str) -> String {
        self.inspect(name)["State"]["Status"].as_str().unwrap_or_default().to_owned()
    }

    /// The process id of a container's init.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        let pid = self.inspect(name)["State"]["Pid"].as_u64().unwrap_or_default();
        assert_ne!(pid, 0, "container `{name}` runs");
        u32::try_from(pid).expect("a process id")
    }

    /// The monitor of a container: the parent of its init.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn monitor(&self, name: &str) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid(name))).expect("init lives");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
        parent.trim().parse().expect("a process id")
    }

    /// The ids of all containers that were made with a cid file.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.directory().join("cids")).into_iter().flatten().flatten();
        let ids =
            files.filter_map(|file| fs::read_to_string(file.path()).ok()).map(|id| id.trim().to_owned());
        ids.filter(|id| !id.is_empty()).collect()
    }

    /// What the kernel and the disk hold of this fixture.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers {
        Leftovers::of(self)
    }

    /// Waits until everything is as it was.
    ///
    /// # Panics
    /// When something stays.
    pub fn assert_clean(&self, before: &Leftovers) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        loop {
            let now = self.leftovers();
            if now == *before {
                return;
            }
            if std::time::Instant::now() > end {
                assert_eq!(now, *before, "left: after, right: before");
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Waits until a container is in this state.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn wait_state(&self, name: &str, state: &str) {
        wait_until(&format!("`{name}` is {state}"), || self.state(name) == state);
    }
}

/// Sends a signal to a process that the test knows.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

impl Stanza {
    /// `kill -9` of a process.
    ///
    /// # Panics
    /// When the number is no process id.
    pub fn kill_9(&self, pid: u32) {
        signal(i32::try_from(pid).expect("a process id"), Signal::KILL);
    }
}

impl Drop for Stanza {
    fn drop(&mut self) {
        let listed = Command::output(&mut self.command(&["ps", "-a", "-q", "--no-trunc"]));
        let text =
            listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let mut args = vec!["rm", "-f"];
        args.extend(text.lines());
        if args.len() > 2 {
            let _ = Command::output(&mut self.command(&args));
        }
        // A test that failed, or a stanza that is broken, may leave processes: a test run must not.
        let ids = self.ids();
        for (pid, _) in leftovers::processes(self.directory(), &ids) {
            signal(pid, Signal::KILL);
        }
        for path in leftovers::cgroups(&ids) {
            for _ in 0..50 {
                if fs::remove_dir(&path).is_ok() || !path.exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}
