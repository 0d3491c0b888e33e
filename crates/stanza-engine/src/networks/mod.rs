//! Networks: what there is to join, who is in it, and every verb on them.
//!
//! ```text
//!   NetworkRequest ── options.rs, subnets.rs ──▶ create.rs ──▶ table `networks`
//!   EndpointRequest ─ find.rs ─▶ wishes ─▶ table `leases`, in the transaction of the container's creation or start
//!                              └▶ plan.rs ─▶ NetworkPlan ─▶ the monitor, which makes bridge, veth, rules
//!   `cni:NAME` ─ cni.rs ─▶ the plan of a chain of plugins, which make and name everything themselves
//!   connect.rs, disconnect.rs, reload.rs ── record first, then a message to the monitor of a container that runs
//! ```
//!
//! Invariants
//! * A network is plain data until a container starts in it: no verb here makes a device, but `remove` takes one away.
//! * A container is in the networks that its configuration names; none named is the default network `bridge`, made when it is
//!   first needed.
//! * An address has one owner by the primary key of `leases`. One that was asked for by name is the container's for as long as
//!   it is in the network; one that was chosen, while it runs.
//! * A network that a container names is not removed.

mod change;
mod cni;
mod connect;
mod counters;
mod create;
mod disconnect;
mod error;
mod files;
mod find;
mod graph;
mod list;
mod options;
mod plan;
mod prune;
mod reload;
mod remove;
mod subnets;
#[cfg(test)]
mod tests;
mod update;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stanza_network::cni::CniNetwork;
use stanza_network::{Network, PortMap, Subnet};
use stanza_spec::ContainerId;

pub use counters::InterfaceCounters;
pub use error::{AddressError, NetworkError, NetworkRequestError};
pub use graph::{GraphContainer, NetworkGraph};
pub use update::NetworkUpdate;

pub(crate) use cni::full_name as cni_name;
pub(crate) use list::Known;
pub(crate) use options::is_device_name;
pub(crate) use plan::ports;

/// The default network's name.
pub(crate) const DEFAULT: &str = "bridge";
/// The names of what is no network of the user's. `default` is Docker's word for [`DEFAULT`].
const RESERVED: [&str; 4] = [DEFAULT, "host", "none", "default"];

/// A network, as asked for. Empty and absent mean the engine's choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkRequest {
    /// Its name.
    pub name: String,
    /// `bridge`, `macvlan` or `ipvlan`; empty is `bridge`.
    pub driver: String,
    /// Its subnets; where a family has none, one is chosen.
    pub subnets: Vec<SubnetRequest>,
    /// It has IPv4 addresses; `None` is yes.
    pub ipv4: Option<bool>,
    /// It has IPv6 addresses; `None` is where a subnet says so.
    pub ipv6: Option<bool>,
    /// Nothing gets in or out.
    pub internal: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options by Docker's names (`com.docker.network.…`) or Podman's (`mtu`, `parent`, …).
    pub options: BTreeMap<String, String>,
    /// Who gives addresses: `default` and `host-local` are the engine, `none` is nobody.
    pub ipam_driver: Option<String>,
    /// Name servers for what is not the name of a container.
    pub dns: Vec<IpAddr>,
    /// Its containers do not find each other by name.
    pub disable_dns: bool,
    /// The bridge's name, or the card of a macvlan or ipvlan network.
    pub interface_name: Option<String>,
    /// A network of that name is as good.
    pub ignore_existing: bool,
}

/// A subnet, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetRequest {
    /// Its addresses.
    pub subnet: Subnet,
    /// The way out; `None` is its first address.
    pub gateway: Option<IpAddr>,
    /// The part of it that addresses are chosen from.
    pub range: Option<Subnet>,
    /// Addresses that are not to be given to containers, with their names.
    pub aux: Vec<(String, IpAddr)>,
}

/// A network as listings and `inspect` see it.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkEntry {
    /// What containers join. Of `host`, `none` and a chain of CNI plugins only id and name mean something.
    pub network: Network,
    /// Docker's word for the driver: `bridge`, `macvlan`, `ipvlan`, `host` or `null`; `cni` for a chain of CNI plugins.
    pub driver: &'static str,
    /// The chain's configuration.
    pub cni: Option<CniNetwork>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// The options it was created with, as they were typed.
    pub options: BTreeMap<String, String>,
    /// When it was made, RFC 3339; empty for what was never made.
    pub created_at: String,
    /// Name servers for what is not the name of a container; empty is the host's.
    pub dns: Vec<IpAddr>,
    /// Its containers do not find each other by name.
    pub disable_dns: bool,
    /// Its containers, running or not, by name.
    pub endpoints: Vec<EndpointEntry>,
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointEntry {
    /// The network's name.
    pub network: String,
    /// The network's id; empty while the default network was never needed.
    pub network_id: String,
    /// The container.
    pub container: ContainerId,
    /// Its name.
    pub container_name: String,
    /// Its IPv4 address and the length of the network's prefix, while it holds one.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// Its IPv6 address and the length of the network's prefix, while it holds one.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// The network's gateway for its IPv4 address.
    pub gateway4: Option<Ipv4Addr>,
    /// The network's gateway for its IPv6 address.
    pub gateway6: Option<Ipv6Addr>,
    /// Its hardware address, while it holds an address.
    pub mac: Option<[u8; 6]>,
    /// Name of the device on the host; empty in a macvlan or ipvlan network.
    pub device: String,
    /// Name of the device inside.
    pub interface: String,
    /// What others of the network find it by.
    pub names: Vec<String>,
    /// Its names besides its own.
    pub aliases: Vec<String>,
    /// Its published ports.
    pub ports: Vec<PortMap>,
    /// The way out leads through this network.
    pub default_route: bool,
    /// It runs.
    pub running: bool,
}
