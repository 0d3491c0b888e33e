//! From a plan to a machine whose guest runs the container.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
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
use stanza_vmm::{Disk, Memory, Nic, Qmp, Share, Template, VmSpec, plan_command};

use super::exec::Sessions;
use super::kind::{Kind, refused};
use super::memory::{Listening, Opener};
use super::shares::{Servers, Shared};
use super::walls::{self, Seen};
use super::{CONSOLE_TAIL, Input, Machine, PROGRAM, guest};
use crate::error::chain;
use crate::frame::Refusal;
use crate::plan::{MachinePlan, SandboxPlan};

/// How long a guest may take from its first instruction until its program runs, and QEMU for whatever it is told: an emulated
/// one on a loaded machine takes its time.
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
    /// The way into the same control groups, for each further process.
    pub(in crate::monitor) cgroup_again: &'a dyn Fn() -> io::Result<CgroupEntry>,
    /// The cables of its network cards, and the cards' addresses.
    pub(in crate::monitor) cards: Vec<(OwnedFd, [u8; 6])>,
    pub(in crate::monitor) attendant: &'a mut dyn Attendant,
}

impl Starting<'_> {
    /// Starts the machine and the container in it: returns when its program runs.
    pub(in crate::monitor) fn start(self) -> Result<Machine, Refusal> {
        let failed = |what: &'static str| move |error: io::Error| Refusal::of_io(what, &error);
        let shares = Shared::of(self.plan)?;
        let kind = Kind::of(self.machine, !shares.is_empty())?;
        let ram = kind.template.as_ref().map(|template| &template.ram);
        let opener = ram.map(|ram| Opener::of(&kind.qemu, ram)).transpose()?.flatten();
        let root = self.plan.run_dir.join("machine");
        walls::make_root(&root).map_err(failed("failed to make the machine's directory"))?;
        let channels = Channels::open(&self.plan.state_dir.join("console.log"))
            .map_err(failed("failed to make the machine's channels"))?;
        let files = Files::of(self.machine, &kind)?;

        let mut guest = Guest::new(channels.agent).map_err(failed("failed to prepare the channel"))?;
        guest.configure(guest::config(self.plan, &shares)?).map_err(|error| Refusal::of(&error))?;
        let container = guest::container(self.plan, self.filter, &shares)?;
        guest.create(PROGRAM, container).map_err(|error| Refusal::of(&error))?;

        let mut servers = Servers::default();
        let sockets = servers.start(self.plan, &shares, self.cgroup_again, &channels.console)?;
        let spec = VmSpec {
            kernel: files.kernel.path(),
            initramfs: files.initramfs.path(),
            accelerator: kind.accelerator,
            memory_mib: self.machine.memory_mib,
            memory: files.ram.as_ref().map_or(Memory::Shared, |ram| Memory::Template(ram.path())),
            cpus: self.machine.cpus,
            disks: files.disks(),
            nics: self.cards.iter().map(|(tap, mac)| Nic { tap: tap.as_raw_fd(), mac: *mac }).collect(),
            shares: shares
                .iter()
                .zip(&sockets)
                .map(|(share, socket)| Share { socket: socket.as_raw_fd(), tag: share.tag() })
                .collect(),
            agent: channels.its_agent.as_raw_fd(),
            qmp: channels.its_control.as_raw_fd(),
            console: Some(channels.console.as_raw_fd()),
            restore: kind.template.is_some(),
        };
        let command = plan_command(&kind.qemu, &spec)
            .map_err(|error| refused("failed to describe the machine", &error))?;
        let stdio = stdio(&channels.console).map_err(failed("failed to open /dev/null"))?;
        let mut handed = vec![channels.its_agent, channels.its_control, channels.console.into()];
        handed.extend(self.cards.into_iter().map(|(tap, _)| tap));
        handed.extend(sockets);
        let mut attendant = Listening::new(self.attendant);
        let init = launch(Launch {
            spec: &walls::spec(&command, &files.all(), self.machine.user, kind.accelerator),
            rootfs: &Rootfs::Directory(root),
            copy_up: &[],
            filter: opener.as_ref().map(Opener::filter),
            landlock: None,
            cgroup: self.cgroup,
            stdio,
            manner: Manner { handed, ..Manner::default() },
            attendant: &mut attendant,
        })
        .map_err(|error| Refusal::of(&error))?;
        let listener = attendant.into_listener();
        let mut machine = Machine {
            init,
            guest,
            servers,
            console: channels.console_path,
            input: Input { once: self.plan.attached, closed: !self.plan.open_stdin, ..Input::default() },
            sessions: Sessions::default(),
            news: Vec::new(),
            questions: Vec::new(),
            notice: kind.notice,
            ended: None,
            oom_killed: false,
            trouble: None,
        };
        let served = opener
            .zip(listener)
            .map_or(Ok(()), |(opener, listener)| opener.serve(&listener, &machine.init.pidfd));
        served
            .map_err(|error| machine.lost(&format!("its memory cannot be opened: {error}")))
            .and_then(|()| match &kind.template {
                Some(template) => machine.go_on(channels.control, template),
                None => Ok(()),
            })
            .and_then(|()| machine.wait_for_program())
            .inspect_err(|_| machine.kill())?;
        Ok(machine)
    }
}

/// The machine's channels, both ends of each.
struct Channels {
    agent: OwnedFd,
    its_agent: OwnedFd,
    control: UnixStream,
    its_control: OwnedFd,
    console: File,
    console_path: PathBuf,
}

impl Channels {
    fn open(console: &Path) -> io::Result<Channels> {
        let (agent, its_agent) = UnixStream::pair()?;
        let (control, its_control) = UnixStream::pair()?;
        let file = File::options().create(true).write(true).truncate(true).mode(0o600).open(console)?;
        Ok(Channels {
            agent: agent.into(),
            its_agent: its_agent.into(),
            control,
            its_control: its_control.into(),
            console: file,
            console_path: console.to_owned(),
        })
    }
}

/// The files that the machine opens.
struct Files {
    kernel: Seen,
    initramfs: Seen,
    ram: Option<Seen>,
    lower: Seen,
    upper: Option<Seen>,
}

impl Files {
    /// Makes those that are not there yet.
    fn of(machine: &MachinePlan, kind: &Kind) -> Result<Files, Refusal> {
        if let Some(upper) = &machine.upper {
            make_upper(upper, machine.user)?;
        }
        Ok(Files {
            kernel: Seen::read(&kind.boot.kernel.vmlinux, "kernel"),
            initramfs: Seen::read(&kind.boot.initramfs, "initramfs"),
            ram: kind.template.as_ref().map(|template| Seen::read(&template.ram, "ram")),
            lower: Seen::read(&machine.disk, guest::LOWER),
            upper: machine.upper.as_ref().map(|upper| Seen::written(upper, guest::UPPER)),
        })
    }

    fn disks(&self) -> Vec<Disk> {
        let disk = |file: &Seen, serial: &str, read_only| Disk {
            path: file.path(),
            read_only,
            serial: serial.to_owned(),
        };
        let lower = disk(&self.lower, guest::LOWER, true);
        std::iter::once(lower)
            .chain(self.upper.as_ref().map(|upper| disk(upper, guest::UPPER, false)))
            .collect()
    }

    fn all(self) -> Vec<Seen> {
        let mut all = vec![self.kernel, self.initramfs, self.lower];
        all.extend(self.ram);
        all.extend(self.upper);
        all
    }
}

impl Machine {
    /// Loads the template's state, and lets the guest go on.
    fn go_on(&self, control: UnixStream, template: &Template) -> Result<(), Refusal> {
        let mut qmp = Qmp::connect(control, PATIENCE).map_err(|error| self.lost(&chain(&error)))?;
        template.restore(&mut qmp, PATIENCE).map_err(|error| self.lost(&chain(&error)))
    }

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
            let mut events = self.guest.receive().map_err(|error| self.lost(&chain(&error)))?.into_iter();
            while let Some(event) = events.next() {
                match event {
                    Event::Started { task: PROGRAM, .. } => {
                        self.news = events.collect();
                        return Ok(());
                    }
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
pub(super) fn stdio(console: &File) -> io::Result<Stdio> {
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
