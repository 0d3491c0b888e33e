//! A network device of the host, given to a container: moved, renamed, with its addresses, and up.

use std::io;
use std::os::fd::BorrowedFd;

use stanza_spec::{Classify, ErrorKind};

use crate::inside::{InsideError, within};
use crate::netlink::route::{self, Device};
use crate::netlink::{Conversation, Family, NetlinkError};

/// Why a device could not be given to a container.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No device has that name.
    #[error("no network device is named `{0}`")]
    Missing(String),
    /// The kernel refused a step.
    #[error("cannot move the network device `{device}` into the container")]
    Move {
        /// Its name on the host.
        device: String,
        /// What was refused.
        #[source]
        source: NetlinkError,
    },
    /// It was moved and could not be configured there.
    #[error("cannot configure the network device `{device}` in the container")]
    Configure {
        /// Its name in the container.
        device: String,
        /// What was refused.
        #[source]
        source: InsideError,
    },
}

impl Classify for DeviceError {
    fn kind(&self) -> ErrorKind {
        match self {
            DeviceError::Missing(_) => ErrorKind::InvalidArgument,
            DeviceError::Move { source, .. } => source.kind(),
            DeviceError::Configure { source, .. } => source.kind(),
        }
    }
}

/// Moves the device `name` into the network namespace `netns` and calls it `new` there. The kernel takes its addresses away on
/// the way; those of global scope are given back, and it is brought up. The kernel refuses a name that is taken there, and the
/// device stays.
///
/// The calling thread is in that namespace for a moment.
///
/// # Errors
/// When there is no such device, or the kernel refuses a step.
pub fn move_device(name: &str, netns: BorrowedFd<'_>, new: &str) -> Result<(), DeviceError> {
    let refused = |source| DeviceError::Move { device: name.to_owned(), source };
    let mut host = Conversation::open(Family::Route).map_err(refused)?;
    let link = route::link(&mut host, name).map_err(refused)?;
    let link = link.ok_or_else(|| DeviceError::Missing(name.to_owned()))?;
    let addresses = route::global_addresses(&mut host, link.index).map_err(refused)?;
    let mut batch = host.batch();
    route::move_link(&mut batch, link.index, netns, new);
    host.commit_all(batch).map_err(refused)?;
    let configured = within(netns, || {
        let failed = |source| InsideError::Configure { source };
        let mut inside = Conversation::open(Family::Route).map_err(failed)?;
        let moved = route::link(&mut inside, new).map_err(failed)?;
        let moved = moved.ok_or_else(|| InsideError::NoDevice {
            device: new.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        let mut batch = inside.batch();
        for address in &addresses {
            route::restore_address(&mut batch, moved.index, address);
        }
        route::bring_up(&mut batch, Device::Index(moved.index));
        inside.commit_all(batch).map_err(failed)
    });
    configured.map_err(|source| DeviceError::Configure { device: new.to_owned(), source })
}
