//! Networks that chains of CNI plugins make: the programs that Kubernetes, and who comes from it, has already
//! (<https://www.cni.dev/docs/spec/>, versions 0.3.0 to 1.1.0).
//!
//! ```text
//!   NET.conflist ── find ──▶ CniNetwork ─┐
//!   container, interface, ports, … ──────┴▶ CniPlan ── add ──▶ plugin 1 ── result ──▶ plugin 2 ── … ──▶ CniAttachment
//!                                               │                 ▲ prevResult ─────────────┘
//!                                               └─ record ──▶ check, del (in reverse), gc
//! ```
//!
//! This is the one place where the network floor starts programs: what a plugin does is only in the plugin. They come from
//! the configured directories alone, see the variables of the specification and `PATH` and nothing else, have no
//! descriptors but the standard ones, a limited time, and an answer of limited size; what they started with is killed with
//! them when the time is over, and they with whoever waits for them.
//!
//! The path to the network name space that they get is the caller's choice. stanza's monitor holds the name space open and
//! gives `/proc/MONITOR/fd/N`, for every verb the same: it is there as long as the monitor, also when the container has
//! ended, so that DEL finds what it is to take down. After the monitor's death DEL gets none, which the
//! specification allows; plugins then give back what they keep outside of the name space, as far as they can. No
//! name space is bound to a file: nothing has to be unmounted after a crash.
//!
//! Invariants:
//!
//! * A record of an attachment is on disk before the first plugin runs, and goes only when DEL of the whole chain
//!   succeeded. So whoever comes after a crash knows what has to be deleted, and with which configuration it was added,
//!   whatever the files say by then.
//! * A failed ADD is followed by DEL of the whole chain, last plugin first; a failed DEL does not stop the others.
//! * GC never runs while an ADD or DEL of the same network does.
//!
//! It does not interpret a plugin's own configuration, and does not fetch plugins.

mod chain;
mod conflist;
mod error;
mod plan;
mod plugin;
mod program;
mod record;
mod result;

pub use chain::{CniAttachment, add, check, collect, del, status, supported_versions};
pub use conflist::{CniConfigError, find, list};
pub use error::{CniCall, CniError};
pub use plan::{CniBandwidth, CniDns, CniNetwork, CniPlaces, CniPlan, CniRequest, CniVersion};
pub use record::{attached, recorded};
pub use result::{CniAddress, CniInterface, CniResult, CniRoute};
