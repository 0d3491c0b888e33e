//! The container's side: addresses and the way out, from within its network name space.
//!
//! On a bridge all of it is done by [`attach`](crate::attach()), which steps into the container's name space for a
//! moment: the order of the two ends matters. A device that is brought up without its other end stays deaf until a
//! kernel thread gets round to it (`linkwatch`), and a packet that is lost meanwhile costs its sender a second.
//!
//! ```text
//!   host       the host's end up         no carrier yet
//!   container  eth0 up                   carrier at once, on both; eth0 sends
//!   host       look at the host's end    which makes the kernel forward on it now
//! ```

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stanza_spec::{Classify, ErrorKind};

use crate::netlink::route::{self, Device, LOOPBACK};
use crate::netlink::{Conversation, Family, NetlinkError};
use crate::{BridgePlan, Subnet};

/// The container's network device.
pub(crate) const DEVICE: &str = "eth0";

/// Why the container's network could not be configured from inside.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// The container's name space cannot be entered, or not be left.
    #[error("cannot {step} the container's network name space")]
    NameSpace {
        /// `enter` or `leave`.
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The attached device is not there.
    #[error("cannot find the container's network device `{device}`")]
    NoDevice {
        /// The device.
        device: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A kernel setting cannot be made.
    #[error("cannot write `1` to `{path}` in the container's network name space")]
    Sysctl {
        /// The setting.
        path: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step.
    #[error("cannot configure the container's network")]
    Configure {
        /// What was refused.
        #[source]
        source: NetlinkError,
    },
}

impl Classify for InsideError {
    fn kind(&self) -> ErrorKind {
        match self {
            InsideError::NoDevice { .. } => ErrorKind::Internal,
            InsideError::NameSpace { source, .. } | InsideError::Sysctl { source, .. } => {
                ErrorKind::of_io(source)
            }
            InsideError::Configure { source } => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            InsideError::NoDevice { .. } | InsideError::NameSpace { .. } | InsideError::Sysctl { .. } => None,
            InsideError::Configure { source } => source.hint(),
        }
    }
}

/// Configures loopback and `eth0` in the name space `netns`: addresses, up, the way out.
///
/// The calling thread is in that name space meanwhile, and back in its own after.
pub(crate) fn configure(plan: &BridgePlan, subnet: Subnet, netns: BorrowedFd<'_>) -> Result<(), InsideError> {
    within(netns, || configure_here(plan, subnet))
}

/// Does `action` with the calling thread in the name space `netns`.
pub(crate) fn within(
    netns: BorrowedFd<'_>,
    action: impl FnOnce() -> Result<(), InsideError>,
) -> Result<(), InsideError> {
    let failed = |step| move |source| InsideError::NameSpace { step, source };
    let home = File::open("/proc/thread-self/ns/net").map_err(failed("leave"))?;
    enter(netns).map_err(failed("enter"))?;
    let result = action();
    enter(home.as_fd()).map_err(failed("leave"))?;
    result
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?)
}

fn configure_here(plan: &BridgePlan, subnet: Subnet) -> Result<(), InsideError> {
    disable_ipv6()?;
    let failed = |source| InsideError::Configure { source };
    let mut conversation = Conversation::open(Family::Route).map_err(failed)?;
    let index = rustix::net::netdevice::name_to_index(conversation.socket(), DEVICE)
        .map_err(|error| InsideError::NoDevice { device: DEVICE.to_owned(), source: error.into() })?;
    let mut batch = conversation.batch();
    route::bring_up(&mut batch, Device::Index(LOOPBACK));
    route::add_address(&mut batch, index, plan.address, subnet);
    route::bring_up(&mut batch, Device::Index(index));
    route::add_default_route(&mut batch, plan.gateway);
    conversation.commit_all(batch).map_err(failed)
}

/// A neighbour on the bridge could otherwise lead the container's IPv6 through itself, by router advertisements.
/// Loopback keeps IPv6.
fn disable_ipv6() -> Result<(), InsideError> {
    const PATH: &str = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
    match fs::write(PATH, "1") {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| InsideError::Sysctl { path: PATH, source }),
    }
}
