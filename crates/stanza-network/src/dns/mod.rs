//! A container's resolver: it tells the names of the container's networks, and asks others for all other names.
//!
//! ```text
//!   container's namespace                      the monitor, in the host's namespace
//!   127.0.0.11:53 ══ rewritten to ══▶ sockets ─▶ a neighbour's name?  the directories of the networks (`names`)
//!                     a free port               └▶ another one?       the host's servers, or those the user named
//! ```
//!
//! A [`Resolver`] belongs to one container's monitor, and is two descriptors to poll: [`Resolver::questions`], for what is
//! asked by UDP, most often about a neighbour, and one for all the rest. Whenever one is readable, [`Resolver::answer`] or
//! [`Resolver::turn`] does what there is to do, and waits for nothing. A neighbour's name that was asked before so takes four system
//! calls: `poll`, `recvfrom`, a look at the neighbour's lock, `sendto`.
//!
//! Invariants:
//!
//! * A container is told only names of networks that it is in: the plan's, no others are even opened.
//! * A name that a neighbour has is never asked of others, whatever the type of the question; what the neighbour has not
//!   is an empty answer, not a missing name.
//! * A change of a name, and a neighbour's death, is seen by the next question; answers live for a second.
//! * Whatever the container or a server sends, the monitor goes on: messages, queries on their way, connections, bytes
//!   that wait and the work of a turn are bounded, and nothing of a message is trusted but what was compared.
//! * Answers of servers are passed on as they came, but for the id.
//!
//! The container's own name and `host.docker.internal` are in its `/etc/hosts`, not here. It checks no signatures (the
//! client may: records of DNSSEC pass through) and does not limit how often a container asks: that is its own monitor's
//! time.

mod announce;
mod answer;
mod forward;
mod listen;
mod servers;
mod streams;
mod watch;
mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use rustix::event::epoll::EventFlags;
use serde::{Deserialize, Serialize};
use stanza_spec::{Classify, ErrorKind};

use crate::names::Living;
use crate::{InsideError, NetlinkError};
pub use announce::{announce, withdraw, withdraw_changed};
use answer::Neighbours;
use forward::{Asker, Forwarder};
use listen::Listeners;
use streams::{MAX_QUERY, Streams};
use watch::{Token, Watch};

/// Where a container finds its resolver, as with Docker.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The largest message by TCP.
const MAX_MESSAGE: usize = 65_535;

/// What a container's resolver answers: plain data.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ResolverPlan {
    /// The networks whose names it tells, the first one first.
    pub networks: Vec<ResolverNetwork>,
    /// Other names are asked of others; `false` in a container that is in internal networks only.
    pub forward: bool,
    /// Of whom.
    pub upstream: Upstream,
}

/// A network whose names a resolver tells.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ResolverNetwork {
    /// The network's id.
    pub id: String,
    /// Its name: `web.NAME` is `web` of this network alone.
    pub name: String,
    /// Where its names are ([`crate::names`]): `RUNROOT/networks/ID`.
    pub directory: PathBuf,
    /// Whose names count; `None` is everybody's that are there.
    #[serde(default)]
    pub living: Option<Living>,
}

/// Who is asked for names that are nobody's in the container's networks.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Upstream {
    /// The host's resolvers, also those on its loopback. The file is looked at for every question, so that changes count
    /// at once.
    Host {
        /// `/etc/resolv.conf`.
        file: PathBuf,
    },
    /// These, in their order.
    Servers(Vec<IpAddr>),
}

/// Why a container has no resolver.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The container's namespace.
    #[error("cannot enter the container for its resolver")]
    Inside {
        /// What failed.
        #[source]
        source: InsideError,
    },
    /// Its sockets.
    #[error("cannot listen for the container's questions on `{ADDRESS}`")]
    Bind {
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The rules in the container.
    #[error("cannot lead port 53 of `{ADDRESS}` to the container's resolver")]
    Rules {
        /// What the kernel refused.
        #[source]
        source: NetlinkError,
    },
    /// Waiting for questions.
    #[error("cannot wait for the container's questions")]
    Watch {
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl Classify for ResolverError {
    fn kind(&self) -> ErrorKind {
        match self {
            ResolverError::Inside { source } => source.kind(),
            ResolverError::Bind { source } | ResolverError::Watch { source } => ErrorKind::of_io(source),
            ResolverError::Rules { source } => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ResolverError::Inside { source } => source.hint(),
            ResolverError::Rules { source } => source.hint(),
            ResolverError::Bind { .. } | ResolverError::Watch { .. } => None,
        }
    }
}

/// An answer on its way to who asked.
#[derive(Debug)]
struct Reply {
    asker: Asker,
    /// Where the question ends.
    end: usize,
    bytes: Vec<u8>,
}

/// What becomes of a query.
enum Response {
    Now(Vec<u8>),
    /// A server has been asked.
    Later,
    /// It is no query.
    Never,
}

/// One container's resolver.
#[derive(Debug)]
pub struct Resolver {
    networks: Vec<Neighbours>,
    forward: bool,
    listeners: Listeners,
    watch: Watch,
    streams: Streams,
    forwarder: Forwarder,
    /// Answers for the guest of a virtual machine.
    answers: Vec<(u32, Vec<u8>)>,
}

impl Resolver {
    /// Listens in the network namespace `netns`, whose loopback is up. Servers are asked from the calling thread's.
    ///
    /// The thread is in `netns` for a moment. The rules that are made there stay until the namespace goes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn open(plan: &ResolverPlan, netns: BorrowedFd<'_>) -> Result<Resolver, ResolverError> {
        let listeners = listen::listen(netns)?;
        let watch = || {
            let watch = Watch::new()?;
            watch.add(&listeners.streams, Token::Listener, EventFlags::IN)?;
            Ok(watch)
        };
        let watch = watch().map_err(|source| ResolverError::Watch { source })?;
        Ok(Resolver {
            networks: plan.networks.iter().map(Neighbours::of).collect(),
            forward: plan.forward,
            listeners,
            watch,
            streams: Streams::default(),
            forwarder: Forwarder::new(plan.upstream.clone()),
            answers: Vec::new(),
        })
    }

    /// Changes what is answered: the container joined a network, or left one, or others are to be asked. Queries on their
    /// way go on.
    pub fn set_plan(&mut self, plan: &ResolverPlan) {
        self.networks = plan.networks.iter().map(Neighbours::of).collect();
        self.forward = plan.forward;
        self.forwarder.set_upstream(&plan.upstream);
    }

    /// Tells no neighbour's name any more: the container left all networks with names. Others are still asked, for its
    /// `resolv.conf` names the resolver for as long as it runs.
    pub fn forget_networks(&mut self) {
        self.networks.clear();
    }

    /// Where questions come by UDP.
    #[must_use]
    pub fn questions(&self) -> BorrowedFd<'_> {
        self.listeners.datagrams.as_fd()
    }

    /// Answers one question that came by UDP, or sends it on its way. To be called whenever [`Resolver::questions`] is
    /// readable: it is no sooner empty than polled again, and between two questions the monitor has other duties.
    pub fn answer(&mut self) {
        let mut buffer = [0; MAX_QUERY];
        let Ok((count, from)) = self.listeners.datagrams.recv_from(&mut buffer) else { return };
        match self.respond(&buffer[..count], |limit| Asker::Datagram { from, limit }, None) {
            // A client that has gone needs no answer.
            Response::Now(bytes) => drop(self.listeners.datagrams.send_to(&bytes, from)),
            Response::Later => self.wake_in_time(),
            Response::Never => {}
        }
    }

    /// Takes a question of the guest of a virtual machine, which has its own way to ask it; `number` is its way to know it again.
    /// Sooner or later [`Resolver::answers`] has the answer.
    pub fn ask(&mut self, number: u32, query: &[u8]) {
        match self.respond(query, |_| Asker::Guest(number), Some(MAX_MESSAGE)) {
            Response::Now(bytes) => self.answers.push((number, bytes)),
            Response::Never => self.answers.push((number, Vec::new())),
            Response::Later => self.wake_in_time(),
        }
    }

    /// The answers to such questions since the last call; an empty one is none.
    pub fn answers(&mut self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.answers)
    }

    /// Does all the rest that there is to do. To be called whenever the resolver's own descriptor is readable.
    pub fn turn(&mut self) {
        for (token, flags) in self.watch.ready() {
            match token {
                Token::Listener => {
                    if let Some(gone) = self.streams.accept(&self.watch, &self.listeners.streams) {
                        self.forwarder.forget(gone);
                    }
                }
                Token::Time => self.watch.rang(),
                Token::Connection(number) => {
                    let queries = self.streams.turn(number, flags);
                    let served = queries.and_then(|queries| self.serve(number, &queries));
                    self.settle(number, served);
                }
                Token::Server(number) => {
                    if let Some(reply) = self.forwarder.turn(&self.watch, number) {
                        self.deliver(&reply);
                    }
                }
            }
        }
        let now = Instant::now();
        for reply in self.forwarder.expire(&self.watch, now) {
            self.deliver(&reply);
        }
        for gone in self.streams.expire(now) {
            self.forwarder.forget(gone);
        }
        self.wake_in_time();
    }

    fn wake_in_time(&mut self) {
        let deadlines = [self.forwarder.deadline(), self.streams.deadline()];
        self.watch.wake_at(deadlines.into_iter().flatten().min());
    }

    /// Some queries of a connection: the others wait for the next turn.
    fn serve(&mut self, number: u32, queries: &[Vec<u8>]) -> Result<(), ()> {
        for query in queries {
            match self.respond(query, |_| Asker::Stream(number), Some(MAX_MESSAGE)) {
                Response::Now(bytes) => self.streams.send(number, Some(&bytes))?,
                Response::Never => self.streams.send(number, None)?,
                Response::Later => {}
            }
        }
        Ok(())
    }

    /// Goes on with a connection, or forgets what it asked when it is no more.
    fn settle(&mut self, number: u32, result: Result<(), ()>) {
        match result {
            Ok(()) => self.streams.settle(&self.watch, number),
            Err(()) => self.forwarder.forget(number),
        }
    }

    /// Answers a query, or sends it on its way. `limit` is the largest answer where it is not the query that says so.
    fn respond(
        &mut self,
        query: &[u8],
        asker: impl FnOnce(usize) -> Asker,
        limit: Option<usize>,
    ) -> Response {
        let question = match wire::question(query) {
            Ok(question) => question,
            Err(wire::Unreadable::Answer(bytes)) => return Response::Now(bytes),
            Err(wire::Unreadable::Silence) => return Response::Never,
        };
        let limit = limit.unwrap_or_else(|| question.limit());
        if let Some(bytes) = answer::answer(query, &question, &mut self.networks, limit) {
            return Response::Now(bytes);
        }
        if !self.forward {
            // A name that nobody has here does not exist here.
            return Response::Now(wire::failure(query, question.end, ResponseCode::NXDomain));
        }
        match self.forwarder.ask(&self.watch, asker(limit), query, question.end) {
            Some(reply) => Response::Now(reply.bytes),
            None => Response::Later,
        }
    }

    /// Hands a server's answer to who asked.
    fn deliver(&mut self, reply: &Reply) {
        match reply.asker {
            Asker::Datagram { from, limit } => {
                let short = (reply.bytes.len() > limit).then(|| wire::cut(&reply.bytes, reply.end));
                let _ = self.listeners.datagrams.send_to(short.as_ref().unwrap_or(&reply.bytes), from);
            }
            Asker::Guest(number) => self.answers.push((number, reply.bytes.clone())),
            Asker::Stream(number) => {
                let sent = self.streams.send(number, Some(&reply.bytes));
                self.settle(number, sent);
            }
        }
    }
}

impl AsFd for Resolver {
    /// Readable when there is something to do, but for [`Resolver::questions`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

/// What hostile messages are tried on without a container: the answer to `query` by UDP, and whether `reply` would be
/// taken as a server's to it.
#[cfg(feature = "fuzzing")]
#[must_use]
pub fn try_messages(networks: &[ResolverNetwork], query: &[u8], reply: &[u8]) -> (Option<Vec<u8>>, bool) {
    let question = match wire::question(query) {
        Ok(question) => question,
        Err(wire::Unreadable::Answer(bytes)) => return (Some(bytes), false),
        Err(wire::Unreadable::Silence) => return (None, false),
    };
    let id = reply.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let taken = wire::worth(query, question.end, id, reply) == wire::Worth::Answer;
    let cut = wire::cut(reply, question.end);
    assert!(cut.len() <= reply.len(), "an answer is cut to more than it was");
    let mut networks: Vec<Neighbours> = networks.iter().map(Neighbours::of).collect();
    (answer::answer(query, &question, &mut networks, question.limit()), taken)
}
