//! What a monitor needs of the thing that runs, whatever the walls round it are made of.

use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use crate::lifecycle::ExitStatus;
use crate::log::Stream;

/// Takes output as it comes.
pub(super) type Sink<'a> = dyn FnMut(Stream, &[u8]) + 'a;

/// One running thing.
pub(super) trait Isolation {
    /// Its first process, in this machine's numbering.
    fn pid(&self) -> Pid;

    /// Adds what is to be watched. Output is left where it is unless it is `wanted`.
    fn watch<'a>(&'a self, wanted: bool, descriptors: &mut Vec<PollFd<'a>>);

    /// Deals with what happened to the watched descriptors, in their order; says how the thing ended, once it has.
    fn turn(&mut self, ready: &[PollFlags], sink: &mut Sink<'_>) -> Option<ExitStatus>;

    /// Reads what was written last: until the end, or until nothing is there where somebody still may write.
    fn collect(&mut self, sink: &mut Sink<'_>);

    /// Whether it may be given more input.
    fn takes_input(&self) -> bool;

    /// Takes input from a client.
    fn push_input(&mut self, bytes: &[u8]);

    /// No more input will come from the client that says so.
    fn end_input(&mut self);

    /// Sets the terminal's size.
    fn resize(&mut self, rows: u16, columns: u16);

    /// Sends a signal to the program.
    fn signal(&mut self, signal: i32);
}
