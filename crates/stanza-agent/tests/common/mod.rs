//! An agent on this machine: in namespaces of its own, at the other end of a socket pair.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use stanza_agent::{
    ContainerPlan, Event, ExecPlan, ExitStatus, Guest, GuestConfig, GuestError, Root, Stream, TaskId,
};
use tempfile::TempDir;

/// Longer than anything here takes on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test: another one than this build's for measurements.
pub(crate) fn agent() -> PathBuf {
    std::env::var_os("STANZA_TEST_AGENT")
        .map_or_else(|| env!("CARGO_BIN_EXE_stanza-agent").into(), PathBuf::from)
}

/// An agent and its root file system.
pub(crate) struct Fixture {
    pub(crate) guest: Guest,
    pub(crate) child: Killed,
    directory: Option<TempDir>,
    /// What came and nobody has asked for yet.
    events: Vec<Event>,
    /// Bytes are told of as consumed as soon as they come.
    pub(crate) reading: bool,
}

/// A process that is killed when it is dropped; with an agent its namespace of processes ends.
pub(crate) struct Killed(Child);

impl std::ops::Deref for Killed {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Killed {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory with busybox.
pub(crate) fn root_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut tar =
        Command::new("tar").args(["-x", "-C"]).arg(directory.path()).stdin(Stdio::piped()).spawn().unwrap();
    let archive = stanza_test::busybox_tarball().unwrap().finish();
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(tar.wait().unwrap().success());
    directory
}

/// Starts an agent whose channel is `channel`.
pub(crate) fn start_agent(channel: UnixStream) -> Child {
    Command::new("unshare")
        .args(["--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child", "--mount-proc"])
        .arg(agent())
        .arg("--serve")
        .stdin(Stdio::from(OwnedFd::from(channel)))
        .spawn()
        .unwrap()
}

impl Fixture {
    /// One that somebody else has started.
    pub(crate) fn of(guest: Guest, child: Child) -> Fixture {
        Fixture { guest, child: Killed(child), directory: None, events: Vec::new(), reading: true }
    }

    /// One that is configured.
    pub(crate) fn new() -> Fixture {
        let directory = root_directory();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = start_agent(theirs);
        let guest = Guest::new(ours).unwrap();
        let root = Root::Directory(directory.path().to_owned());
        let mut fixture = Fixture { directory: Some(directory), ..Fixture::of(guest, child) };
        fixture.guest.configure(GuestConfig { root, ..GuestConfig::default() }).unwrap();
        fixture.wait("ready", |event| matches!(event, Event::Ready { .. }));
        fixture.wait("configured", |event| matches!(event, Event::Configured));
        fixture
    }

    /// One whose container sleeps, as task 1.
    pub(crate) fn with_container() -> Fixture {
        let mut fixture = Fixture::new();
        fixture.guest.create(1, container(&["sleep", "1000"])).unwrap();
        fixture.started(1);
        fixture
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    /// Sends and receives once.
    pub(crate) fn turn(&mut self) -> Result<(), GuestError> {
        self.guest.flush()?;
        let events = if self.guest.wants_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&self.guest, events)], Some(&second)).unwrap();
        if ready > 0 {
            let events = self.guest.receive()?;
            for event in events {
                if let (true, Event::Output { task, stream, bytes }) = (self.reading, &event) {
                    self.guest.consumed(*task, *stream, bytes.len());
                }
                self.events.push(event);
            }
        }
        self.guest.flush()
    }

    /// Waits for an event, and takes it out.
    pub(crate) fn wait(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.events.iter().position(&wanted) {
                return self.events.remove(at);
            }
            assert!(Instant::now() < end, "nothing is {what}: {:?}", self.events);
            self.turn().unwrap_or_else(|error| panic!("while waiting for {what}: {error:?}"));
        }
    }

    pub(crate) fn started(&mut self, wanted: TaskId) {
        let event = self.wait("started or failed", |event| {
            matches!(event, Event::Started { task, .. } | Event::Failed { task, .. } if *task == wanted)
        });
        assert!(matches!(event, Event::Started { .. }), "{event:?}");
    }

    /// Everything that a task wrote, and how it ended.
    pub(crate) fn finish(&mut self, wanted: TaskId) -> Finished {
        let exit =
            self.wait("exited", |event| matches!(event, Event::Exited { task, .. } if *task == wanted));
        let Event::Exited { status, .. } = exit else { unreachable!("it was looked for") };
        let mut finished = Finished { status, output: Vec::new(), error: Vec::new() };
        self.events.retain(|event| match event {
            Event::Output { task, stream, bytes } if *task == wanted => {
                let to = if *stream == Stream::Output { &mut finished.output } else { &mut finished.error };
                to.extend_from_slice(bytes);
                false
            }
            Event::OutputEnd { task, .. } => *task != wanted,
            _ => true,
        });
        finished
    }

    /// Runs a command in the container.
    pub(crate) fn exec(&mut self, task: TaskId, words: &[&str]) -> Finished {
        self.guest.exec(task, exec(words)).unwrap();
        self.started(task);
        self.finish(task)
    }

    /// Drops what a task wrote so far; how much it was.
    pub(crate) fn take_output(&mut self, wanted: TaskId) -> Vec<u8> {
        let mut all = Vec::new();
        self.events.retain(|event| match event {
            Event::Output { task, bytes, .. } if *task == wanted => {
                all.extend_from_slice(bytes);
                false
            }
            _ => true,
        });
        all
    }
}

/// A task that is no more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    pub(crate) error: Vec<u8>,
}

impl Finished {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.output.clone()).unwrap()
    }
}

pub(crate) fn process(words: &[&str]) -> Value {
    json!({
        "user": { "uid": 0, "gid": 0 },
        "args": words,
        "env": ["PATH=/bin:/usr/bin:/sbin", "TERM=dumb"],
        "cwd": "/",
        "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
        "noNewPrivileges": true
    })
}

pub(crate) fn container(words: &[&str]) -> ContainerPlan {
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": process(words),
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["newinstance", "ptmxmode=0666", "mode=0620"] }
        ],
        "linux": { "namespaces": [
            { "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "ipc" }
        ] }
    });
    ContainerPlan {
        copy_up: Vec::new(),
        spec: serde_json::from_value(spec).unwrap(),
        filter: None,
        files: Vec::new(),
        tty: false,
        console_size: None,
        open_stdin: false,
    }
}

pub(crate) fn exec(words: &[&str]) -> ExecPlan {
    ExecPlan {
        process: serde_json::from_value(process(words)).unwrap(),
        filter: None,
        tty: false,
        console_size: None,
        open_stdin: false,
    }
}

/// With what only a guest of its own has: cgroups, the network of the machine, and a volume.
pub(crate) fn as_in_a_machine(spec: &mut stanza_spec::oci::runtime::Spec, volume: &str) {
    let mut value = serde_json::to_value(&*spec).unwrap();
    let limits = json!({ "memory": { "limit": 64 << 20, "swap": 64 << 20 }, "pids": { "limit": 100 } });
    value["linux"]["resources"] = limits;
    let namespaces = value["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "cgroup" }));
    let mounts = value["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }));
    mounts.push(json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]
    }));
    mounts.push(json!({
        "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]
    }));
    *spec = serde_json::from_value(value).unwrap();
}
