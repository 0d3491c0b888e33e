//! The memory of a template, which many machines share and none may write.
//!
//! QEMU before 8.2 opens it for writing, although it maps it privately. A filter of its system calls holds up whatever it opens
//! with exactly those flags; the first such call is answered with a descriptor that can only be read from, and then nobody
//! listens any more, so that all further ones fail (`ENOSYS`). Nothing that the program says is believed for that: its words
//! for the path are not even read.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use stanza_container::Attendant;
use stanza_container::seccomp::{Filter, compile};
use stanza_spec::oci::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};
use stanza_vmm::Qemu;

use crate::frame::Refusal;

/// How long QEMU may take until it opens its memory.
const PATIENCE: Duration = Duration::from_secs(20);
/// Which argument of `openat` are the flags.
const FLAGS: usize = 2;

/// Gives QEMU its memory.
pub(super) struct Opener {
    filter: Filter,
    memory: File,
}

impl Opener {
    /// For this template's memory; `None` for a QEMU that opens it for reading by itself.
    pub(super) fn of(qemu: &Qemu, memory: &Path) -> Result<Option<Opener>, Refusal> {
        if qemu.opens_memory_read_only() {
            return Ok(None);
        }
        let memory = File::open(memory)
            .map_err(|error| Refusal::of_io("failed to open the memory of the template", &error))?;
        let filter = compile(&profile()).map_err(|error| {
            Refusal::of_io("failed to compile the machine's filter", &io::Error::other(error))
        })?;
        Ok(Some(Opener { filter, memory }))
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Answers the one call, of the program that ends when `program` can be read.
    pub(super) fn serve(&self, listener: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
        let patience = Timespec::try_from(PATIENCE).map_err(|_| io::ErrorKind::InvalidInput)?;
        loop {
            let mut watched = [PollFd::new(listener, PollFlags::IN), PollFd::new(program, PollFlags::IN)];
            match poll(&mut watched, Some(&patience)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !watched[1].revents().is_empty() {
                return Err(io::Error::other("QEMU has ended"));
            }
            let call = stanza_sys::next_held_call(listener.as_fd())?;
            return stanza_sys::answer_with_descriptor(listener.as_fd(), call, self.memory.as_fd());
        }
    }
}

fn profile() -> LinuxSeccomp {
    let read_and_write = u64::from(rustix::fs::OFlags::RDWR.bits());
    let flags = LinuxSeccompArgBuilder::default()
        .index(FLAGS)
        .value(read_and_write)
        .op(LinuxSeccompOperator::ScmpCmpEq)
        .build()
        .unwrap_or_default();
    let mut opening = LinuxSyscall::default();
    opening
        .set_names(vec!["openat".to_owned()])
        .set_action(LinuxSeccompAction::ScmpActNotify)
        .set_args(Some(vec![flags]));
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActAllow)
        .set_architectures(None)
        .set_syscalls(Some(vec![opening]));
    profile
}

/// Keeps the filter's listener for the one who starts the machine; all else is another's.
pub(super) struct Listening<'a> {
    attendant: &'a mut dyn Attendant,
    listener: Option<OwnedFd>,
}

impl<'a> Listening<'a> {
    pub(super) fn new(attendant: &'a mut dyn Attendant) -> Listening<'a> {
        Listening { attendant, listener: None }
    }

    pub(super) fn into_listener(self) -> Option<OwnedFd> {
        self.listener
    }
}

impl Attendant for Listening<'_> {
    fn attach(&mut self, pid: Pid) -> Result<(), String> {
        self.attendant.attach(pid)
    }

    fn take_listener(&mut self, _pid: Pid, listener: OwnedFd) -> Result<(), String> {
        self.listener = Some(listener);
        Ok(())
    }
}
