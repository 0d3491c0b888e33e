//! What a monitor needs of the thing that runs, whatever the walls round it are made of.

use std::io::Write;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use crate::frame::{self, Kind, Reader, Refusal};
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

    /// Whether [`Isolation::turn`] has something to do although nothing may happen to any descriptor.
    fn has_news(&self) -> bool {
        false
    }

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

    /// Runs one more command for a client that gives its connection over for that, with what was read of it and what it is yet
    /// to be sent. Only what cannot be entered from outside is asked.
    fn exec(&mut self, mut client: UnixStream, _reader: Reader, mut queue: Vec<u8>, _plan: &[u8]) {
        let refusal = Refusal {
            message: "this container's commands are not its monitor's business".to_owned(),
            kind: "unsupported".to_owned(),
            hint: None,
        };
        frame::push(&mut queue, Kind::Failed, &serde_json::to_vec(&refusal).unwrap_or_default());
        let _ = client.write_all(&queue);
    }

    /// Questions about names that came to it and not to the resolver in its network namespace, by their number.
    fn questions(&mut self) -> Vec<(u32, Vec<u8>)> {
        Vec::new()
    }

    /// The answer to one of them; an empty one is none.
    fn answer(&mut self, _question: u32, _message: &[u8]) {}

    /// What the user should know of it when it starts.
    fn notice(&self) -> Option<&str> {
        None
    }

    /// Whether its own kernel has killed a process of it for want of memory; this machine's is asked elsewhere.
    fn oom_killed(&self) -> bool {
        false
    }

    /// What went wrong with the walls, once.
    fn trouble(&mut self) -> Option<String> {
        None
    }

    /// Whether its networks can change while it runs.
    fn changes_networks(&self) -> bool {
        true
    }
}
