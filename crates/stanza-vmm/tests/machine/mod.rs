//! A store with one kernel in it, and machines started as a launcher would: descriptors inherited by number.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use stanza_vmm::{
    Accelerator, Agent, Boot, Disk, Event, Kernel, KernelFiles, Memory, Qemu, Qmp, QmpError, Shape, Store,
    Template, VmSpec, install_kernel, installed, plan_command,
};

/// Far more than anything takes, on a machine that does much else.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// What the tests' machines have in common.
pub(crate) const SHAPE: Shape = Shape { accelerator: Accelerator::Tcg, memory_mib: 128, cpus: 1 };

/// The kernel packages, or why there is nothing to boot.
pub(crate) fn kernels() -> Result<Vec<PathBuf>, String> {
    installed().ok_or("QEMU is not installed")?;
    let directory = std::env::var_os("STANZA_KERNEL_PACKAGES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kernel-packages"),
        PathBuf::from,
    );
    let entries =
        fs::read_dir(&directory).map_err(|_| format!("no kernel packages in `{}`", directory.display()))?;
    let mut packages: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.sort();
    if packages.is_empty() {
        Err(format!("no kernel packages in `{}`", directory.display()))
    } else {
        Ok(packages)
    }
}

/// A store, and what its machines boot from.
pub(crate) struct Room {
    pub(crate) root: PathBuf,
    pub(crate) store: Store,
    pub(crate) qemu: Qemu,
    pub(crate) boot: Boot,
    pub(crate) version: String,
}

impl Room {
    /// Unpacks a kernel package into a store at `root`.
    pub(crate) fn install(root: &Path, package: &Path) -> Room {
        install_kernel(&Store::open(root).unwrap(), package).unwrap();
        Room::open(root)
    }

    /// The store at `root`, with its newest kernel and this executable as the agent.
    pub(crate) fn open(root: &Path) -> Room {
        let store = Store::open(root).unwrap();
        let files = KernelFiles::find(&store).unwrap();
        let version = files.image.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let kernel = Kernel::prepare(&store, &files).unwrap();
        let boot = Boot::prepare(&store, kernel, Agent { program: &agent(root), greeting: b"" }).unwrap();
        Room { root: root.to_owned(), qemu: Qemu::find(&store).unwrap(), store, boot, version }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn template(&self) -> Template {
        Template::ensure(&self.store, &self.qemu, &self.boot, SHAPE, LIMIT).unwrap()
    }

    /// A machine without devices; its descriptors' numbers are filled in by [`Room::start`].
    pub(crate) fn spec(&self) -> VmSpec {
        VmSpec {
            kernel: self.boot.kernel.vmlinux.clone(),
            initramfs: self.boot.initramfs.clone(),
            accelerator: SHAPE.accelerator,
            memory_mib: SHAPE.memory_mib,
            memory: Memory::Private,
            cpus: SHAPE.cpus,
            disks: Vec::new(),
            nics: Vec::new(),
            shares: Vec::new(),
            agent: -1,
            qmp: -1,
            console: None,
            restore: false,
        }
    }

    /// A machine that goes on from the template.
    pub(crate) fn restored(&self) -> Machine {
        let template = self.template();
        let mut spec = self.spec();
        spec.memory = Memory::Template(template.ram.clone());
        spec.restore = true;
        let mut machine = self.start(spec, false);
        template.restore(&mut machine.qmp, LIMIT).unwrap();
        machine
    }

    /// Starts a machine, and waits until its agent says that it is ready, if it is one that boots.
    pub(crate) fn start(&self, mut spec: VmSpec, boots: bool) -> Machine {
        let (control, its_control) = UnixStream::pair().unwrap();
        let (agent, its_agent) = UnixStream::pair().unwrap();
        let console = File::create(self.path("console")).unwrap();
        (spec.qmp, spec.agent) = (its_control.as_raw_fd(), its_agent.as_raw_fd());
        spec.console = Some(console.as_raw_fd());
        let command = plan_command(&self.qemu, &spec).unwrap();
        for descriptor in [its_control.as_fd(), its_agent.as_fd(), console.as_fd()] {
            fcntl_setfd(descriptor, FdFlags::empty()).unwrap();
        }
        let child =
            Command::new(&command.program).args(&command.arguments).stdin(Stdio::null()).spawn().unwrap();
        drop((its_control, its_agent, console));
        let qmp = Qmp::connect(control, LIMIT).unwrap();
        agent.set_read_timeout(Some(LIMIT)).unwrap();
        let mut machine = Machine { child, qmp, agent: BufReader::new(agent) };
        if boots {
            let heard = machine.hear();
            let console = fs::read_to_string(self.path("console")).unwrap();
            assert_eq!(heard, "ready", "the console: {console}");
        }
        machine
    }
}

/// This executable without its symbols: as small as an agent.
fn agent(root: &Path) -> Vec<u8> {
    let (whole, stripped) = (std::env::current_exe().unwrap(), root.join("agent"));
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&whole).status();
    let path = if strip.is_ok_and(|status| status.success()) { stripped } else { whole };
    fs::read(path).unwrap()
}

/// A disk with `content` in its file `hello`.
pub(crate) fn disk(room: &Room, content: &str) -> Disk {
    let (tree, path) = (room.path("tree"), room.path(&format!("{content}.erofs")));
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("hello"), content).unwrap();
    let made = Command::new("mkfs.erofs").arg(&path).arg(&tree).stdout(Stdio::null()).status();
    assert!(made.expect("mkfs.erofs, of the package erofs-utils").success());
    Disk { path, read_only: true, serial: "disk".to_owned() }
}

/// A running machine. Dropped, it is killed.
pub(crate) struct Machine {
    pub(crate) child: Child,
    pub(crate) qmp: Qmp,
    agent: BufReader<UnixStream>,
}

impl Machine {
    pub(crate) fn tell(&mut self, line: &str) {
        self.agent.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.agent.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    /// Whether the guest says something within `limit`.
    pub(crate) fn hears(&self, limit: Duration) -> bool {
        let timeout = limit.try_into().unwrap();
        poll(&mut [PollFd::new(self.agent.get_ref(), PollFlags::IN)], Some(&timeout)).unwrap() > 0
    }

    /// The last event before QEMU ends, by a poll loop.
    pub(crate) fn last_event(&mut self) -> Event {
        let end = Instant::now() + LIMIT;
        let mut last = None;
        loop {
            assert!(Instant::now() < end, "QEMU does not end");
            let timeout = Duration::from_secs(1).try_into().unwrap();
            poll(&mut [PollFd::new(&self.qmp, PollFlags::IN)], Some(&timeout)).unwrap();
            let turn = self.qmp.turn();
            last = self.qmp.events().last().or(last);
            match turn {
                Ok(()) => {}
                Err(QmpError::Ended) => return last.expect("an event before the end"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
