//! The holder: a process that keeps the shared name space, and is the parent of what leads out of it.
//!
//! ```text
//!   start ─▶ the way out ─▶ first member: descriptor ─▶ poll ◀─┬─ listener: another member, descriptor
//!                 │                                            └─ a member's stream ends ─▶ none left ─▶ end
//!                 └─ fails: first member: why ─▶ end
//! ```

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use stanza_sys::{keep_only, send_descriptors};

use super::member::{self, SOCKET};
use super::{SharedError, SharedPlan, is_readable};
use crate::{UserMode, UserModeDriver, UserModePlan, start_user_mode};

/// How long the holder waits for somebody who looks for it while it wants to end.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Why there is no name space.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Answer {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// The holder's whole life, in the process that was made for it.
pub(super) fn live(plan: &SharedPlan, listener: &UnixListener, mut first: UnixStream, netns: &File) -> ! {
    // Whatever else the starter had open is not the holder's: a container's lock among it.
    let _ = keep_only(3, &[listener.as_fd(), first.as_fd(), netns.as_fd()]);
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"stanza-network");
    match start_user_mode(&way_out(plan), netns.as_fd()) {
        Ok(way) => {
            let mut holder = Holder { plan, listener, netns, members: Vec::new(), way: Some(way) };
            holder.admit(first);
            holder.serve();
        }
        Err(error) => {
            if let SharedError::WayOut { message, hint } = SharedError::way_out(&error) {
                let text = serde_json::to_vec(&Answer { message, hint }).unwrap_or_default();
                let _ = first.write_all(&text);
            }
            clear(&plan.directory);
        }
    }
    stanza_sys::exit_process(0)
}

/// The same addresses with both programs, which are none of the host's: so the host itself is reached by its own.
fn way_out(plan: &SharedPlan) -> UserModePlan {
    let options: &[&str] = match plan.driver {
        UserModeDriver::Pasta => &["-a", "10.0.2.100", "-n", "24", "-g", "10.0.2.2"],
        // Its own.
        UserModeDriver::Slirp4netns => &[],
    };
    UserModePlan {
        driver: plan.driver,
        program: plan.program.clone(),
        ports: Vec::new(),
        options: options.iter().map(|word| (*word).to_owned()).collect(),
        directory: plan.directory.clone(),
    }
}

/// Removes the files of a name space that is going, or gone.
pub(super) fn clear(directory: &Path) {
    for name in [SOCKET, "netns", "slirp4netns.sock"] {
        // The next holder replaces what is left.
        let _ = fs::remove_file(directory.join(name));
    }
}

struct Holder<'a> {
    plan: &'a SharedPlan,
    listener: &'a UnixListener,
    netns: &'a File,
    members: Vec<UnixStream>,
    way: Option<UserMode>,
}

impl Holder<'_> {
    /// Until the last member is gone.
    fn serve(&mut self) {
        loop {
            let patience = self.members.is_empty().then_some(&TURN);
            let mut sources: Vec<PollFd<'_>> = [self.listener.as_fd()]
                .into_iter()
                .chain(self.way.as_ref().map(UserMode::pidfd))
                .chain(self.members.iter().map(AsFd::as_fd))
                .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
                .collect();
            let _ = poll(&mut sources, patience);
            drop(sources);
            if is_readable(self.listener.as_fd())
                && let Ok((stream, _)) = self.listener.accept()
            {
                self.admit(stream);
            }
            // A member says nothing: what can be read is its end.
            self.members.retain(|member| !is_readable(member.as_fd()));
            if self.way.as_ref().is_some_and(|way| is_readable(way.pidfd())) {
                self.way = None;
            }
            if self.members.is_empty() && self.may_end() {
                return;
            }
        }
    }

    /// Gives a new member the name space, and a way out that has been lost is looked for again.
    fn admit(&mut self, stream: UnixStream) {
        if self.way.is_none() {
            // Without one they still have each other.
            self.way = start_user_mode(&way_out(self.plan), self.netns.as_fd()).ok();
        }
        if send_descriptors(&stream, b"N", &[self.netns.as_fd()]).is_ok() {
            self.members.push(stream);
        }
    }

    /// Ends, unless somebody looks for the holder right now: he has the lock, or waits for an answer.
    fn may_end(&mut self) -> bool {
        let _lock = match member::lock(&self.plan.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => lock,
            Err(SharedError::File { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                return false;
            }
            // The directory is gone: nobody finds the holder any more.
            Err(_) => return true,
        };
        if is_readable(self.listener.as_fd()) {
            return false;
        }
        self.way = None;
        clear(&self.plan.directory);
        true
    }
}
