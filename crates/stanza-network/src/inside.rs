//! The container's side: addresses and the way out, from within its network name space.
//!
//! All of it is done by [`attach`](crate::attach()), which steps into the container's name space for a
//! moment: the order of a veth's two ends matters. A device that is brought up without its other end stays deaf until a
//! kernel thread gets round to it (`linkwatch`), and a packet that is lost meanwhile costs its sender a second.
//!
//! ```text
//!   host       the host's end up         no carrier yet
//!   container  eth0 up                   carrier at once, on both; eth0 sends
//!   host       look at the host's end    which makes the kernel forward on it now
//! ```

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stanza_spec::{Classify, ErrorKind};

use crate::netlink::route::{self, DefaultRoute, Device, LOOPBACK};
use crate::netlink::{Conversation, Family, NetlinkError};
use crate::{Driver, Endpoint, IpvlanMode};

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
    #[error("cannot write `{value}` to `{path}` in the container's network name space")]
    Sysctl {
        /// The setting.
        path: String,
        /// The value.
        value: &'static str,
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

/// Configures loopback and the devices of the endpoints in the name space `netns`: addresses, up, the ways out.
///
/// The calling thread is in that name space meanwhile, and back in its own after.
pub(crate) fn configure(endpoints: &[Endpoint], netns: BorrowedFd<'_>) -> Result<(), InsideError> {
    within(netns, || {
        let mut conversation = Conversation::open(Family::Route).map_err(configure_failed)?;
        let mut batch = conversation.batch();
        route::bring_up(&mut batch, Device::Index(LOOPBACK));
        let mut ways = Vec::new();
        for endpoint in endpoints {
            set_ipv6(endpoint)?;
            let index = index_of(&conversation, &endpoint.interface)?;
            for (address, subnet) in endpoint.placed() {
                route::add_address(&mut batch, index, address, subnet.subnet);
            }
            route::bring_up(&mut batch, Device::Index(index));
            if endpoint.default_route {
                ways.extend(ways_out(endpoint).map(|way| (index, way)));
            }
        }
        // Behind all devices: a gateway must be reachable when a route leads to it.
        for (index, way) in ways {
            route::add_default_route(&mut batch, index, way);
        }
        conversation.commit_all(batch).map_err(configure_failed)
    })
}

/// Makes the device of one endpoint the way out, in the place of any other (`others`: names of devices inside).
pub(crate) fn lead_out_by(
    endpoint: &Endpoint,
    others: &[&str],
    netns: BorrowedFd<'_>,
) -> Result<(), InsideError> {
    within(netns, || {
        let mut conversation = Conversation::open(Family::Route).map_err(configure_failed)?;
        let mut batch = conversation.batch();
        for other in others {
            // One that is gone has no routes.
            let Ok(index) = index_of(&conversation, other) else { continue };
            route::delete_default_route(&mut batch, index, false);
            route::delete_default_route(&mut batch, index, true);
        }
        let index = index_of(&conversation, &endpoint.interface)?;
        for way in ways_out(endpoint) {
            route::add_default_route(&mut batch, index, way);
        }
        let refusals = conversation.commit(batch).map_err(configure_failed)?;
        // The deletions come first, and may find nothing; a route that is there already is what is wanted.
        let is_real =
            |errno: rustix::io::Errno| !matches!(errno, rustix::io::Errno::SRCH | rustix::io::Errno::EXIST);
        match refusals.into_iter().find(|refusal| is_real(refusal.errno)) {
            Some(refusal) => Err(configure_failed(refusal.into())),
            None => Ok(()),
        }
    })
}

/// The default routes of an endpoint: its subnets' gateways, and out of the device where the host routes by itself.
fn ways_out(endpoint: &Endpoint) -> impl Iterator<Item = DefaultRoute> {
    let routed =
        matches!(endpoint.network.driver, Driver::Ipvlan { mode: IpvlanMode::L3 | IpvlanMode::L3s, .. });
    let internal = endpoint.network.internal;
    endpoint.placed().filter(move |_| !internal).filter_map(move |(address, subnet)| {
        if routed {
            return Some(DefaultRoute::Link { ipv6: address.is_ipv6() });
        }
        subnet.gateway.filter(|gateway: &IpAddr| *gateway != address).map(DefaultRoute::Gateway)
    })
}

fn index_of(conversation: &Conversation, device: &str) -> Result<u32, InsideError> {
    rustix::net::netdevice::name_to_index(conversation.socket(), device)
        .map_err(|error| InsideError::NoDevice { device: device.to_owned(), source: error.into() })
}

fn configure_failed(source: NetlinkError) -> InsideError {
    InsideError::Configure { source }
}

/// A neighbour could otherwise lead the container's IPv6 through itself, by router advertisements: they are not listened
/// to, and without an address of ours the device has no IPv6 at all. Loopback keeps it.
fn set_ipv6(endpoint: &Endpoint) -> Result<(), InsideError> {
    // Who joins a network whose addresses somebody else gives has to listen to that.
    if endpoint.network.subnets.is_empty() {
        return Ok(());
    }
    let wanted: &[_] = match endpoint.ipv6 {
        Some(_) => &[("accept_ra", "0"), ("disable_ipv6", "0")],
        None => &[("disable_ipv6", "1")],
    };
    for (setting, value) in wanted.iter().copied() {
        let path = format!("/proc/sys/net/ipv6/conf/{}/{setting}", endpoint.interface);
        match fs::write(&path, value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(|source| InsideError::Sysctl { path, value, source })?,
        }
    }
    Ok(())
}

/// Does `action` in the name space `netns`: on the calling thread, or on one of its own where that would not get back.
pub(crate) fn within(
    netns: BorrowedFd<'_>,
    action: impl FnOnce() -> Result<(), InsideError> + Send,
) -> Result<(), InsideError> {
    let failed = |step| move |source| InsideError::NameSpace { step, source };
    let home = File::open("/proc/thread-self/ns/net").map_err(failed("leave"))?;
    // Root of a user name space may not enter the host's, in which it is.
    if enter(home.as_fd()).is_err() {
        return aside(netns, action)?;
    }
    enter(netns).map_err(failed("enter"))?;
    let result = action();
    enter(home.as_fd()).map_err(failed("leave"))?;
    result
}

/// Does `action` in the name space `netns` on a thread that ends with it.
pub(crate) fn aside<T: Send>(
    netns: BorrowedFd<'_>,
    action: impl FnOnce() -> T + Send,
) -> Result<T, InsideError> {
    let failed = |source| InsideError::NameSpace { step: "enter", source };
    let work = || enter(netns).map(|()| action()).map_err(failed);
    let ended = std::thread::scope(|scope| scope.spawn(work).join());
    ended.unwrap_or_else(|_| Err(failed(io::ErrorKind::Other.into())))
}

/// Puts the calling thread into a name space.
pub(crate) fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?)
}
