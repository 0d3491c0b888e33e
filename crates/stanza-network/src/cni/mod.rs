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
//! The path to the network name space that they get is `/proc/OWNER/fd/N`: the owner, stanza's monitor, holds the name space
//! open. So the path is there, and the same for every verb, as long as the owner is, also when the container has ended, and
//! DEL finds what it is to take down. After the owner's death DEL gets none, which the specification allows; plugins
//! then give back what they keep outside of the name space, as far as they can. No name space is bound to a file: nothing
//! has to be unmounted after a crash.
//!
//! The plugin `dhcp` asks a daemon of its own, which whoever wants it has to run (`/usr/lib/cni/dhcp daemon`), in the host's
//! pid and mount name spaces.
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
mod places;
mod plan;
mod plugin;
mod program;
mod record;
mod result;
mod tell;

pub use chain::{CniAttachment, add, check, collect, del, leave, status, supported_versions};
pub use conflist::{CniConfigError, find, list};
pub use error::{CniCall, CniError};
pub use places::{config_dirs, kubernetes_args, plugin_dirs};
pub use plan::{CniBandwidth, CniDns, CniFiles, CniNetwork, CniPlaces, CniPlan, CniRequest, CniVersion};
pub use record::{attached, recorded};
pub use result::{CniAddress, CniInterface, CniResult, CniRoute};
