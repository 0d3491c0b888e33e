//! A container on this machine's kernel.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use stanza_container::Init;

use super::isolation::{Isolation, Sink};
use super::output::Streams;
use crate::lifecycle::ExitStatus;

/// Its first process and its standard streams.
pub(super) struct Container {
    init: Init,
    streams: Streams,
}

impl Container {
    pub(super) fn new(mut init: Init, streams: Streams) -> Container {
        let streams = streams.with_controller(init.controller.take());
        Container { init, streams }
    }

    /// How the first process ended; `None` when it has not.
    fn reap(&self) -> Option<ExitStatus> {
        let id = WaitId::PidFd(self.init.pidfd.as_fd());
        let status = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, signal) => ExitStatus::Signal(signal.unwrap_or(9)),
        })
    }
}

impl Isolation for Container {
    fn pid(&self) -> Pid {
        self.init.pid
    }

    fn watch<'a>(&'a self, wanted: bool, descriptors: &mut Vec<PollFd<'a>>) {
        descriptors.push(PollFd::new(&self.init.pidfd, PollFlags::IN));
        descriptors
            .extend(self.streams.wants_to_write().map(|sink| PollFd::from_borrowed_fd(sink, PollFlags::OUT)));
        // Last, so that those after them are still the others when they are left out.
        let outputs = self.streams.outputs.iter().filter(|_| wanted);
        descriptors.extend(outputs.map(|output| PollFd::new(&output.descriptor, PollFlags::IN)));
    }

    fn turn(&mut self, ready: &[PollFlags], sink: &mut Sink<'_>) -> Option<ExitStatus> {
        let is_ready = |at: usize| ready.get(at).is_some_and(|flags| !flags.is_empty());
        let writes = self.streams.wants_to_write().is_some();
        let first_output = 1 + usize::from(writes);
        if writes && is_ready(1) {
            self.streams.write_input();
        }
        let ready_outputs = (0..self.streams.outputs.len()).filter(|index| is_ready(first_output + index));
        let finished: Vec<usize> =
            ready_outputs.filter(|index| !self.streams.read(*index, &mut *sink)).collect();
        for index in finished.into_iter().rev() {
            self.streams.outputs.remove(index);
        }
        if is_ready(0) { self.reap() } else { None }
    }

    fn collect(&mut self, sink: &mut Sink<'_>) {
        for index in 0..self.streams.outputs.len() {
            self.streams.drain(index, &mut *sink);
        }
    }

    fn takes_input(&self) -> bool {
        self.streams.takes_input()
    }

    fn push_input(&mut self, bytes: &[u8]) {
        self.streams.push_input(bytes);
    }

    fn end_input(&mut self) {
        self.streams.end_input();
    }

    fn resize(&mut self, rows: u16, columns: u16) {
        self.streams.resize(rows, columns);
    }

    fn signal(&mut self, signal: i32) {
        let _ = stanza_sys::signal_process(self.init.pidfd.as_fd(), signal);
    }
}
