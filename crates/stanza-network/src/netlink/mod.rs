//! A conversation with the kernel by netlink: requests go out in batches, failures come back with the request
//! they belong to.
//!
//! ```text
//! message        bytes in, bytes out; no kernel
//!   conversation one socket: a batch, its refusals; a dump
//!     route      links, addresses, routes (rtnetlink)
//!     nftables   tables, chains, sets, elements (nfnetlink)
//!     conntrack  forgetting connections (nfnetlink)
//! ```
//!
//! The kernel handles a request inside `sendmsg`, and continues a dump inside `recvmsg`: when those return, the
//! answer is in the socket's queue. So nothing here ever waits, and a missing answer is an error, not a hang.

pub(crate) mod conntrack;
mod conversation;
pub(crate) mod message;
pub(crate) mod nftables;
pub(crate) mod route;

pub use conversation::NetlinkError;
pub(crate) use conversation::{Conversation, Family, Refusal};
pub(crate) use message::text;
