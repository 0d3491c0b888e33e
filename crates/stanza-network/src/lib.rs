//! A container's network: a bridge on the host, a veth pair, an address, published ports; from plan to teardown.
//!
//! ```text
//!   container's name space          host
//!   eth0 10.77.0.2/16 --veth-- stz0123456789ab --port of-- stanza0 10.77.0.1/16
//!        default via 10.77.0.1                                |
//!                                  nft table `ip stanza`: -p 8080:80 -> 10.77.0.2:80, masquerade outwards
//!                                  socket bound to 0.0.0.0:8080, held by the container's monitor
//! ```
//!
//! A [`NetworkPlan`] is plain data. [`attach()`] applies it, on both sides; a container that joins no bridge has its
//! loopback, which whoever makes its name space brings up. [`detach()`] takes it down, [`clear_leftovers`] finds what a crashed owner left.
//! [`choose_subnet`] and [`lease`] choose subnets and addresses, [`files`] writes `resolv.conf` and `hosts`.
//!
//! Invariants:
//!
//! * A published port belongs to whoever holds its bound socket. The kernel gives it free with its owner's death,
//!   and the next owner replaces the map element that the dead one left.
//! * A bridge that is up is complete; the nft table is made whole in one transaction. So several processes may
//!   start containers at once, and each may die at any point.
//! * Only devices called `stz…` on the own bridge and the own nft table are ever removed or changed, and no program
//!   is run, but for the plugins of [`cni`].
//!
//! It does not know containers by name, keeps no leases, does not watch the host's firewall (see the module
//! `rules`), starts no [`proxy`] for the ports that need one but those of the shared name space, and needs `CAP_NET_ADMIN` over
//! the host's network, or over the name space that stands for it without root (module `shared`).

#![forbid(unsafe_code)]

mod attach;
mod bridge;
mod card;
mod change;
mod choose;
pub mod cni;
mod detach;
mod device;
pub mod dns;
pub mod files;
mod firewall;
mod inside;
#[cfg(test)]
mod kernel_tests;
pub mod lease;
pub mod names;
mod netlink;
mod plan;
mod ports;
pub mod proxy;
mod rules;
mod shared;
mod subnet;
mod user_mode;

pub use attach::{AttachError, Attachment, Proxied, attach, attach_machine};
pub use bridge::is_own_bridge;
pub use change::change;
pub use choose::{
    ChooseError, Pool, choose_subnet, default_pools, free_part, host_routes, subnets_of_device,
};
pub use detach::{
    DetachError, Live, clear_leftovers, detach, devices_of, forget_network, remove_devices, remove_network,
    withdraw_ports,
};
pub use device::{DeviceError, move_device};
pub use firewall::Firewall;
pub use inside::InsideError;
pub use netlink::NetlinkError;
pub use plan::{
    Bridge, DEFAULT_BRIDGE, Driver, Endpoint, EndpointsPlan, IpvlanMode, MacvlanMode, Network, NetworkPlan,
    NetworkSubnet, PortMap, Publish, device_of, endpoint_of, mac_of,
};
pub use shared::{SharedError, SharedPlan, within_shared};
pub use subnet::{Subnet, SubnetError};
pub use user_mode::{
    OptionError, UserMode, UserModeDriver, UserModeError, UserModePlan, choose_user_mode, parse_options,
    start_user_mode, user_mode_resolv_conf,
};
