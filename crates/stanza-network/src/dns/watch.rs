//! What a resolver waits for: one descriptor for its sockets and the time, so that its owner polls only that,
//! beside the socket for questions by UDP: that one is worth no second look.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// What something happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The listener for connections.
    Listener,
    /// It is time.
    Time,
    /// A connection of the container.
    Connection(u32),
    /// The socket of a query that a server is to answer.
    Server(u32),
}

impl Token {
    fn number(self) -> u64 {
        match self {
            Token::Listener => 0,
            Token::Time => 1,
            Token::Connection(number) => 1 << 32 | u64::from(number),
            Token::Server(number) => 2 << 32 | u64::from(number),
        }
    }

    fn of(number: u64) -> Option<Token> {
        let low = u32::try_from(number & u64::from(u32::MAX)).ok()?;
        match (number >> 32, low) {
            (0, 0) => Some(Token::Listener),
            (0, 1) => Some(Token::Time),
            (1, low) => Some(Token::Connection(low)),
            (2, low) => Some(Token::Server(low)),
            _ => None,
        }
    }
}

/// As many as are dealt with in one turn: others of the owner's descriptors get theirs.
///
/// The kernel gives those that were not named first the next time, so none is left out for ever.
const EVENTS: usize = 8;

/// An epoll instance with a timer in it.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// When the timer is set to.
    deadline: Option<Instant>,
}

impl Watch {
    pub(super) fn new() -> io::Result<Watch> {
        let watch = Watch {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            timer: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?,
            deadline: None,
        };
        watch.add(&watch.timer, Token::Time, EventFlags::IN)?;
        Ok(watch)
    }

    pub(super) fn add(&self, source: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token.number()), flags)?)
    }

    pub(super) fn change(&self, source: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(token.number()), flags)?)
    }

    /// What happened; waits for nothing.
    pub(super) fn ready(&self) -> Vec<(Token, EventFlags)> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = epoll::wait(&self.epoll, &mut events, Some(&now)).unwrap_or(0);
        let happened = events[..count].iter();
        happened.filter_map(|event| Some((Token::of(event.data.u64())?, event.flags))).collect()
    }

    /// Sets the timer to `deadline`, or off.
    pub(super) fn wake_at(&mut self, deadline: Option<Instant>) {
        if deadline == self.deadline {
            return;
        }
        // Zero would switch it off.
        let left = deadline.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1))
        });
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // Setting it also takes back what it has said.
        if timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec).is_ok() {
            self.deadline = deadline;
        }
    }

    /// The timer went off: it is to be set again.
    pub(super) fn rang(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut count);
        self.deadline = None;
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
