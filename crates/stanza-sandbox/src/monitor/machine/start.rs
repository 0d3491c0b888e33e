//! From a plan to a machine whose guest runs the container.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stanza_agent::{Event, Guest};
use stanza_container::seccomp::Filter;
use stanza_container::{Attendant, CgroupEntry, Launch, Manner, Stdio, launch};
use stanza_spec::Rootfs;
use stanza_vmm::{
    Accelerator, Boot, Disk, Kernel, KernelFiles, Memory, Nic, Qemu, Store, VmSpec, plan_command,
};

use super::exec::Sessions;
use super::walls::{self, Seen};
use super::{CONSOLE_TAIL, Input, Machine, PROGRAM, guest};
use crate::error::chain;
use crate::frame::Refusal;
use crate::plan::{MachinePlan, SandboxPlan};

/// How long a guest may take from its first instruction until its program runs: an emulated one on a loaded machine takes
/// half a minute.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a disk for what a container writes; it takes room only as it is filled.
const UPPER_SIZE: u64 = 64 << 30;

/// What a machine is started with.
pub(in crate::monitor) struct Starting<'a> {
    pub(in crate::monitor) plan: &'a SandboxPlan,
    pub(in crate::monitor) machine: &'a MachinePlan,
    /// The filter of the container inside.
    pub(in crate::monitor) filter: Option<&'a Filter>,
    pub(in crate::monitor) cgroup: CgroupEntry,
    /// The cables of its network cards, and the cards' addresses.
    pub(in crate::monitor) cards: Vec<(OwnedFd, [u8; 6])>,
    pub(in crate::monitor) attendant: &'a mut dyn Attendant,
}

impl Starting<'_> {
    /// Starts the machine and the container in it: returns when its program runs.
    pub(in crate::monitor) fn start(self) -> Result<Machine, Refusal> {
        let failed = |what: &'static str| move |error: io::Error| Refusal::of_io(what, &error);
        let kind = Kind::find(self.machine)?;
        let root = self.plan.run_dir.join("machine");
        walls::make_root(&root).map_err(failed("failed to make the machine's directory"))?;
        let (agent, theirs) = UnixStream::pair().map_err(failed("failed to make a socket pair"))?;
        let (qmp, qmp_theirs) = UnixStream::pair().map_err(failed("failed to make a socket pair"))?;
        let console = self.plan.state_dir.join("console.log");
        let console_file = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&console)
            .map_err(failed("failed to make the console's file"))?;

        let mut files = vec![
            Seen::read(&kind.boot.kernel.vmlinux, "kernel"),
            Seen::read(&kind.boot.initramfs, "initramfs"),
            Seen::read(&self.machine.disk, guest::LOWER),
        ];
        if let Some(upper) = &self.machine.upper {
            make_upper(upper, self.machine.user)?;
            files.push(Seen::written(upper, guest::UPPER));
        }
        let stdio = stdio(&console_file).map_err(failed("failed to open /dev/null"))?;
        let mut handed = vec![OwnedFd::from(theirs), OwnedFd::from(qmp_theirs), OwnedFd::from(console_file)];
        let numbers: Vec<RawFd> = handed.iter().map(AsRawFd::as_raw_fd).collect();
        let nics = self.cards.iter().map(|(tap, mac)| Nic { tap: tap.as_raw_fd(), mac: *mac }).collect();
        handed.extend(self.cards.into_iter().map(|(tap, _)| tap));
        let disks = files[2..].iter().zip([guest::LOWER, guest::UPPER]);
        let spec = VmSpec {
            kernel: files[0].path(),
            initramfs: files[1].path(),
            accelerator: kind.accelerator,
            memory_mib: self.machine.memory_mib,
            memory: Memory::Private,
            cpus: self.machine.cpus,
            disks: disks
                .map(|(file, serial)| Disk {
                    path: file.path(),
                    read_only: serial == guest::LOWER,
                    serial: serial.to_owned(),
                })
                .collect(),
            nics,
            shares: Vec::new(),
            agent: numbers[0],
            qmp: numbers[1],
            console: Some(numbers[2]),
            restore: false,
        };
        let command = plan_command(&kind.qemu, &spec)
            .map_err(|error| refused("failed to describe the machine", &error))?;
        let mut guest = Guest::new(OwnedFd::from(agent)).map_err(failed("failed to prepare the channel"))?;
        guest.configure(guest::config(self.plan)?).map_err(|error| Refusal::of(&error))?;
        let container = guest::container(self.plan, self.filter)?;
        guest.create(PROGRAM, container).map_err(|error| Refusal::of(&error))?;
        let init = launch(Launch {
            spec: &walls::spec(&command, &files, self.machine.user, kind.accelerator),
            rootfs: &Rootfs::Directory(root),
            copy_up: &[],
            filter: None,
            landlock: None,
            cgroup: self.cgroup,
            stdio,
            manner: Manner { handed, ..Manner::default() },
            attendant: self.attendant,
        })
        .map_err(|error| Refusal::of(&error))?;
        drop(qmp);
        let input = Input { once: self.plan.attached, closed: !self.plan.open_stdin, ..Input::default() };
        let mut machine = Machine {
            init,
            guest,
            console,
            input,
            sessions: Sessions::default(),
            questions: Vec::new(),
            ended: None,
            oom_killed: false,
            trouble: None,
        };
        machine.wait_for_program().inspect_err(|_| machine.kill())?;
        Ok(machine)
    }
}

/// What machines of a kind are made of, found and made ready once for all of them.
struct Kind {
    qemu: Qemu,
    boot: Boot,
    accelerator: Accelerator,
}

impl Kind {
    fn find(machine: &MachinePlan) -> Result<Kind, Refusal> {
        let program = stanza_agent::program().map_err(|error| Refusal::of(&error))?;
        let store = Store::open(&machine.root)
            .map_err(|error| refused("failed to open the store of virtual machines", &error))?;
        let qemu = Qemu::find(&store).map_err(|error| refused("failed to find QEMU", &error))?;
        let no_kernel = |error: stanza_vmm::KernelError| refused("failed to get a guest's kernel", &error);
        let kernel =
            Kernel::prepare(&store, &KernelFiles::find(&store).map_err(no_kernel)?).map_err(no_kernel)?;
        let boot = Boot::prepare(&store, kernel, program)
            .map_err(|error| refused("failed to make a guest's first files", &error))?;
        let choice = Accelerator::choose(&store, &qemu, &boot)
            .map_err(|error| refused("failed to choose who runs the guest", &error))?;
        Ok(Kind { qemu, boot, accelerator: choice.accelerator })
    }
}

/// A refusal of the floor below, whose errors have no kinds.
fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal { message: format!("{what}: {}", chain(error)), kind: "unavailable".to_owned(), hint: None }
}

impl Machine {
    /// Waits until the guest says that the program runs, or why it does not.
    fn wait_for_program(&mut self) -> Result<(), Refusal> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.guest.flush().map_err(|error| self.lost(&chain(&error)))?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.lost(&format!("its agent said nothing for {} s", PATIENCE.as_secs())));
            }
            self.wait(left).map_err(|error| Refusal::of_io("failed to wait for the machine", &error))?;
            for event in self.guest.receive().map_err(|error| self.lost(&chain(&error)))? {
                match event {
                    Event::Started { task: PROGRAM, .. } => return Ok(()),
                    Event::NotConfigured(refusal) | Event::Failed { task: PROGRAM, refusal } => {
                        return Err(super::exec::told(&refusal));
                    }
                    _ => {}
                }
            }
        }
    }

    fn wait(&self, left: Duration) -> io::Result<()> {
        let mut flags = PollFlags::IN;
        if self.guest.wants_write() {
            flags |= PollFlags::OUT;
        }
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.guest, flags)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A machine that did not get as far as its program.
    fn lost(&self, reason: &str) -> Refusal {
        let tail = console_tail(&self.console);
        let told = if tail.is_empty() { String::new() } else { format!("; its kernel's last words: {tail}") };
        Refusal {
            message: format!("the virtual machine did not start: {reason}{told}"),
            kind: "unavailable".to_owned(),
            hint: None,
        }
    }
}

/// QEMU's standard streams: it says something when it fails only, which is kept with what the guest's kernel says.
fn stdio(console: &File) -> io::Result<Stdio> {
    let null = || -> io::Result<OwnedFd> {
        Ok(rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?)
    };
    Ok(Stdio::Descriptors([null()?, null()?, console.try_clone()?.into()]))
}

/// Makes the disk that keeps what the container writes, unless it is there.
fn make_upper(path: &Path, user: u32) -> Result<(), Refusal> {
    let failed =
        |error: io::Error| Refusal::of_io("failed to make the disk of what the container writes", &error);
    if path.exists() {
        return Ok(());
    }
    let new = path.with_extension("new");
    let file =
        File::options().create(true).write(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
    file.set_len(UPPER_SIZE).map_err(failed)?;
    let words =
        ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-J", "size=8"];
    let output = stanza_sys::as_helper(Program::new("mkfs.ext4").args(words).arg(&new))
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(failed(io::Error::other(format!("`mkfs.ext4` failed: {said}"))));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Refusal {
                message: "a container in a virtual machine that is not removed at its end needs `mkfs.ext4`"
                    .to_owned(),
                kind: "unavailable".to_owned(),
                hint: Some("install `e2fsprogs`, or use `--rm`".to_owned()),
            });
        }
        Err(error) => return Err(failed(error)),
    }
    std::os::unix::fs::chown(&new, Some(user), Some(user)).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

/// The end of what the guest's kernel printed, on one line, printable.
pub(super) fn console_tail(path: &PathBuf) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(CONSOLE_TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().rev().take(3).rev().copied().collect::<Vec<_>>().join(" | ");
    last.chars().filter(|character| !character.is_control()).take(400).collect()
}
