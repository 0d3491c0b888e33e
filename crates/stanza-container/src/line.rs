//! The line between the process that starts a container and the child that becomes it: one message each way at a time.
//!
//! ```text
//!  child ──▶ parent   Cloned(pid, pidfd)  Mounted  Terminal(controller)  Listener(number)  Ready  Failed(json)
//!  parent ──▶ child   Placed  Mapped  Network  Hooked  Taken
//! ```
//!
//! A sequenced-packet socket keeps messages apart. The child's end is closed by its exec, or by its death: a line that
//! ends after `Ready` and without `Failed` means that the program runs. What the child says after its system call filter is
//! in force needs `read` and `write` only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use stanza_sys::{receive_descriptors, send_descriptors};

use crate::error::{During, Failure};

/// One end of the line.
#[derive(Debug)]
pub(crate) struct Line(OwnedFd);

/// What the parent tells the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The child is in its control groups.
    Placed = b'c' as isize,
    /// The ids of its user namespace are mapped.
    Mapped = b'm' as isize,
    /// Its network is attached, and its record written.
    Network = b'n' as isize,
    /// The hooks of the runtime's namespaces have run.
    Hooked = b'h' as isize,
    /// The seccomp listener was taken.
    Taken = b't' as isize,
}

/// What the child tells the parent.
#[derive(Debug)]
pub(crate) enum Word {
    /// The intermediate process made the real child: its pid as the parent sees it, and its descriptor.
    Cloned { pid: i32, pidfd: OwnedFd },
    /// All mounts are made, the root is not changed yet.
    Mounted,
    /// The controlling end of the terminal.
    Terminal(OwnedFd),
    /// The number of the seccomp listener among the child's descriptors.
    Listener(i32),
    /// All is done but the wait for `start` and the exec.
    Ready,
    /// There will be no program.
    Failed(Failure),
}

const LONGEST: usize = 4096;

/// Both ends: the parent's, the child's.
pub(crate) fn pair() -> io::Result<(Line, Line)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Line(ours), Line(theirs)))
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Line {
    /// The parent's word; a child that is gone is heard of when the parent listens.
    pub(crate) fn reply(&self, reply: Reply) {
        let _ = rustix::net::send(&self.0, &[reply as u8], rustix::net::SendFlags::NOSIGNAL);
    }

    /// The child waits for the parent's word. The other end closed means that the parent has gone or given up.
    pub(crate) fn wait_for(&self, expected: Reply) -> Result<(), Failure> {
        let mut byte = [0];
        loop {
            match rustix::io::read(&self.0, &mut byte) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(1) if byte[0] == expected as u8 => return Ok(()),
                Ok(_) => return Err(Failure::configuration("the container's starter gave up")),
                Err(error) => return Err(error).during("hear from the container's starter"),
            }
        }
    }

    fn say(&self, bytes: &[u8]) -> io::Result<()> {
        Ok(rustix::io::write(&self.0, bytes).map(drop)?)
    }

    pub(crate) fn say_cloned(&self, pid: i32, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        let [a, b, c, d] = pid.to_ne_bytes();
        send_descriptors(&self.0, &[b'P', a, b, c, d], &[pidfd])
    }

    pub(crate) fn say_mounted(&self) -> io::Result<()> {
        self.say(b"M")
    }

    pub(crate) fn say_ready(&self) -> io::Result<()> {
        self.say(b"R")
    }

    pub(crate) fn say_terminal(&self, controller: BorrowedFd<'_>) -> io::Result<()> {
        send_descriptors(&self.0, b"T", &[controller])
    }

    pub(crate) fn say_listener(&self, number: i32) -> io::Result<()> {
        let [a, b, c, d] = number.to_ne_bytes();
        self.say(&[b'S', a, b, c, d])
    }

    /// The child's last words.
    pub(crate) fn say_failed(&self, failure: &Failure) {
        let mut text = vec![b'F'];
        if serde_json::to_writer(&mut text, failure).is_err() || text.len() > LONGEST {
            // A name of thousands of bytes; what was tried is enough.
            text.truncate(1);
            let _ = serde_json::to_writer(&mut text, &failure.shortened());
        }
        // Nobody may be left to hear it.
        let _ = self.say(&text);
    }

    /// The parent hears the next word; `None` when the child has closed its end.
    pub(crate) fn hear(&self) -> io::Result<Option<Word>> {
        let mut buffer = [0u8; LONGEST];
        let mut descriptors = Vec::new();
        let count = loop {
            match receive_descriptors(&self.0, &mut buffer, &mut descriptors) {
                Ok(0) => return Ok(None),
                Ok(count) => break count,
                // The child gave up without reading all that it was told. The kernel says so once, before what is still to be
                // heard.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error),
            }
        };
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let number = |bytes: &[u8]| bytes.try_into().map(i32::from_ne_bytes).map_err(|_| bad());
        let word = match &buffer[..count] {
            [b'P', pid @ ..] => Word::Cloned { pid: number(pid)?, pidfd: descriptors.pop().ok_or_else(bad)? },
            b"M" => Word::Mounted,
            b"R" => Word::Ready,
            b"T" => Word::Terminal(descriptors.pop().ok_or_else(bad)?),
            [b'S', listener @ ..] => Word::Listener(number(listener)?),
            [b'F', text @ ..] => Word::Failed(serde_json::from_slice(text).map_err(io::Error::other)?),
            _ => return Err(bad()),
        };
        Ok(Some(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::What;

    #[test]
    fn words_arrive_apart_and_the_end_is_seen() {
        let (ours, theirs) = pair().unwrap();
        theirs.say_mounted().unwrap();
        theirs.say_listener(7).unwrap();
        theirs.say_failed(&Failure::plain(What::Step("x".repeat(10_000))));
        ours.reply(Reply::Hooked);
        theirs.wait_for(Reply::Hooked).unwrap();
        ours.reply(Reply::Mapped);
        assert!(theirs.wait_for(Reply::Network).is_err());
        // Not read by the other end before it goes.
        ours.reply(Reply::Network);
        drop(theirs);
        assert!(matches!(ours.hear().unwrap(), Some(Word::Mounted)));
        assert!(matches!(ours.hear().unwrap(), Some(Word::Listener(7))));
        assert!(matches!(ours.hear().unwrap(), Some(Word::Failed(_))));
        assert!(ours.hear().unwrap().is_none());
    }
}
