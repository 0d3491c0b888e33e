//! One netlink socket, and what the kernel says on it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use stanza_spec::ErrorKind;

use super::message::{Batch, HEADER, attribute, native_u32, replies, text};

/// Room for one datagram of a dump: the kernel fills at most this much at once (`netlink_dump`).
const DUMP_ROOM: usize = 32 * 1024;
/// Room for one object or one refusal, which echoes one request.
const ROOM: usize = 8 * 1024;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `NLM_F_CAPPED`: the echoed request has no body.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow the echoed request.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;

/// Why a netlink conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a `{family}` netlink socket")]
    Open {
        /// `route` or `netfilter`.
        family: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The socket does not carry the request, or not its answer.
    #[error("cannot {request}: the netlink socket failed")]
    Socket {
        /// What was asked for.
        request: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel said no.
    #[error("cannot {request}{}", .text.as_ref().map(|text| format!(" (the kernel says `{text}`)")).unwrap_or_default())]
    Refused {
        /// What was asked for.
        request: &'static str,
        /// The kernel's own words, if it has some.
        text: Option<String>,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl NetlinkError {
    /// The kernel's error number as [`io::Error`].
    pub(crate) fn io(&self) -> &io::Error {
        match self {
            NetlinkError::Open { source, .. }
            | NetlinkError::Socket { source, .. }
            | NetlinkError::Refused { source, .. } => source,
        }
    }

    /// The kernel's error number.
    pub(crate) fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(self.io())
    }
}

impl stanza_spec::Classify for NetlinkError {
    fn kind(&self) -> ErrorKind {
        match self.errno() {
            Some(Errno::PERM) => ErrorKind::PermissionDenied,
            // A kernel without veth, bridge or nf_tables answers with one of these.
            Some(Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => ErrorKind::Unsupported,
            _ => ErrorKind::of_io(self.io()),
        }
    }

    fn hint(&self) -> Option<String> {
        match self.kind() {
            ErrorKind::PermissionDenied => Some("changing the network needs root (CAP_NET_ADMIN)".to_owned()),
            ErrorKind::Unsupported => Some(
                "the kernel needs `veth`, `bridge` and `nf_tables` with `inet` and `bridge` tables, `nft_nat` and `nft_fib`".to_owned(),
            ),
            _ => None,
        }
    }
}

/// What the kernel said to one message of a batch.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Index of the message in its batch.
    pub(crate) index: usize,
    /// Why.
    pub(crate) errno: Errno,
    /// The kernel's own words.
    pub(crate) text: Option<String>,
    /// What the message asked for.
    pub(crate) request: &'static str,
}

impl From<Refusal> for NetlinkError {
    fn from(refusal: Refusal) -> NetlinkError {
        NetlinkError::Refused { request: refusal.request, text: refusal.text, source: refusal.errno.into() }
    }
}

/// Which part of the kernel is talked to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    /// Links, addresses, routes.
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
}

/// One netlink socket.
#[derive(Debug)]
pub(crate) struct Conversation {
    socket: OwnedFd,
    next: u32,
}

impl Conversation {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(family: Family) -> Result<Conversation, NetlinkError> {
        let (protocol, name) = match family {
            Family::Route => (None, "route"),
            Family::Netfilter => (Some(rustix::net::netlink::NETFILTER), "netfilter"),
        };
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            protocol,
        )
        .map_err(|error| NetlinkError::Open { family: name, source: error.into() })?;
        Ok(Conversation { socket, next: 1 })
    }

    /// The socket, for the few `ioctl`s that any socket serves.
    pub(crate) fn socket(&self) -> impl AsFd + '_ {
        &self.socket
    }

    /// A new batch, numbered after everything sent so far.
    pub(crate) fn batch(&self) -> Batch {
        Batch::new(self.next)
    }

    /// Sends the batch and returns what the kernel refused, in order; nothing is done twice.
    pub(crate) fn commit(&mut self, mut batch: Batch) -> Result<Vec<Refusal>, NetlinkError> {
        batch.acknowledge_last();
        self.exchange(&batch, |_, _| {})
    }

    /// [`Conversation::commit`] for a batch that says itself which message is answered.
    pub(crate) fn transact(&mut self, batch: &Batch) -> Result<Vec<Refusal>, NetlinkError> {
        self.exchange(batch, |_, _| {})
    }

    /// [`Conversation::commit`], with the first refusal as the error.
    pub(crate) fn commit_all(&mut self, batch: Batch) -> Result<(), NetlinkError> {
        self.commit(batch)?.into_iter().next().map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// Sends a batch of one request and hands every object of the answer to `visit` as (type, payload).
    ///
    /// The request is either a dump, or it is acknowledged.
    pub(crate) fn query(
        &mut self,
        batch: &Batch,
        mut visit: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        let refusals = self.exchange(batch, &mut visit)?;
        refusals.into_iter().next().map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// Sends a batch whole. One that is larger than the socket's buffer, as the rules of a thousand containers are, gets
    /// it a larger one.
    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        /// What the kernel takes off the buffer's size (`netlink_sendmsg`), and more.
        const MARGIN: usize = 4096;
        match rustix::net::send(&self.socket, bytes, SendFlags::empty()) {
            Err(Errno::MSGSIZE) => {
                sockopt::set_socket_send_buffer_size_force(&self.socket, bytes.len() + MARGIN)?;
                rustix::net::send(&self.socket, bytes, SendFlags::empty())?;
            }
            result => drop(result?),
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        batch: &Batch,
        mut visit: impl FnMut(u16, &[u8]),
    ) -> Result<Vec<Refusal>, NetlinkError> {
        let Some(last) = batch.final_answer() else { return Ok(Vec::new()) };
        self.next = self.next.wrapping_add(batch.len());
        let failed =
            |error: Errno| NetlinkError::Socket { request: batch.request(last), source: error.into() };
        let length = batch.bytes().len();
        if length > ROOM {
            // A refusal repeats the request that it refuses, and every request may be refused before the first answer is read.
            // Where this is not allowed, what does not fit is told as such.
            let _ = sockopt::set_socket_recv_buffer_size_force(&self.socket, 4 * length);
        }
        self.send(batch.bytes()).map_err(failed)?;
        let mut buffer = vec![0; if batch.is_dump() { DUMP_ROOM } else { ROOM + length }];
        let mut refusals = Vec::new();
        loop {
            let (_, length) = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::TRUNC) {
                // A batch that is refused as a whole is answered once, not message by message.
                Err(Errno::AGAIN) if !refusals.is_empty() => return Ok(refusals),
                result => result.map_err(failed)?,
            };
            let datagram = buffer.get(..length).ok_or(failed(Errno::MSGSIZE))?;
            for reply in replies(datagram) {
                let Some(index) = batch.index_of(reply.sequence) else { continue };
                match reply.kind {
                    ERROR => {
                        if let Some((errno, text)) = refusal(reply.flags, reply.payload) {
                            refusals.push(Refusal { index, errno, text, request: batch.request(index) });
                        }
                        if index == last {
                            return Ok(refusals);
                        }
                    }
                    DONE => return Ok(refusals),
                    kind => visit(kind, reply.payload),
                }
            }
        }
    }
}

/// Reads `struct nlmsgerr` and the attributes after it; `None` is an acknowledgement.
fn refusal(flags: u16, payload: &[u8]) -> Option<(Errno, Option<String>)> {
    let code = native_u32(payload, 0)?.cast_signed();
    if code == 0 {
        return None;
    }
    let words = (flags & ACK_TLVS != 0)
        .then(|| {
            let echoed = if flags & CAPPED != 0 {
                HEADER
            } else {
                usize::try_from(native_u32(payload, 4)?).ok()?.next_multiple_of(4)
            };
            attribute(payload.get(4 + echoed..)?, ERROR_TEXT).and_then(text).map(str::to_owned)
        })
        .flatten();
    Some((Errno::from_raw_os_error(code.checked_neg().unwrap_or(i32::MAX)), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct nlmsgerr` with the request echoed, and one text attribute.
    fn error_payload(code: i32, echoed_body: usize, words: &str) -> Vec<u8> {
        let mut payload = code.to_ne_bytes().to_vec();
        payload.extend_from_slice(&u32::try_from(HEADER + echoed_body).unwrap().to_ne_bytes());
        payload.resize(4 + HEADER + echoed_body, 0);
        payload.extend_from_slice(&u16::try_from(5 + words.len()).unwrap().to_ne_bytes());
        payload.extend_from_slice(&ERROR_TEXT.to_ne_bytes());
        payload.extend_from_slice(words.as_bytes());
        payload.push(0);
        payload.resize(payload.len().next_multiple_of(4), 0);
        payload
    }

    #[test]
    fn the_kernels_words_are_found_behind_the_echoed_request() {
        let whole = error_payload(-95, 20, "Unknown device type");
        assert_eq!(
            refusal(ACK_TLVS, &whole),
            Some((Errno::OPNOTSUPP, Some("Unknown device type".to_owned())))
        );
        let capped = error_payload(-95, 0, "Unknown device type");
        assert_eq!(
            refusal(ACK_TLVS | CAPPED, &capped),
            Some((Errno::OPNOTSUPP, Some("Unknown device type".to_owned())))
        );
        assert_eq!(refusal(0, &whole), Some((Errno::OPNOTSUPP, None)));
        assert_eq!(refusal(0, &[0; 20]), None);
    }

    #[test]
    fn an_error_names_the_request_and_the_kernels_words_once() {
        let error = NetlinkError::from(Refusal {
            index: 0,
            errno: Errno::OPNOTSUPP,
            text: Some("Unknown device type".to_owned()),
            request: "create the bridge",
        });
        assert_eq!(error.to_string(), "cannot create the bridge (the kernel says `Unknown device type`)");
        assert_eq!(stanza_spec::Classify::kind(&error), ErrorKind::Unsupported);
    }
}
