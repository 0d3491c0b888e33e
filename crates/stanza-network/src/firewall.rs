//! What the host's own firewall does with what comes in, and with what is forwarded.
//!
//! Address translation leads a packet to a published port past the host's rules for what comes in: it is forwarded. So a
//! firewall that lets nothing in would be no firewall for containers. With [`Publish::RespectFirewall`](crate::Publish)
//! the rules are told of such a firewall (their set `guarded`), and close published ports to the outside
//! until their chain `user` lets them in. It is looked at whenever ports are published, and at
//! [`change`](crate::change()) with all anew.
//!
//! ```text
//!   drops at input    a base chain of another table (of ip, ip6, inet), at the hook `input`, whose policy is drop or
//!                     whose last rule drops or rejects everything: ufw, firewalld, iptables-nft, own rules
//!   drops at forward  the same at the hook `forward`: it drops what we accept, and has to let the bridges through itself
//!   legacy iptables   of another mechanism in the kernel: only that it is in use can be seen (`ip_tables_names`)
//! ```
//!
//! Not seen: rules that drop what they name before they accept the rest, filters on devices (tc, XDP), and other hosts.

use crate::netlink::nftables::{self, BaseChain, TableFamily};
use crate::netlink::{Conversation, Family, NetlinkError};
use crate::rules::HOST;

/// `NF_INET_LOCAL_IN`.
const INPUT: u32 = 1;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// What the host's firewall does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// IPv4 packets to the host are dropped unless a rule allows them.
    pub drops_ipv4: bool,
    /// IPv6 packets to the host are dropped unless a rule allows them.
    pub drops_ipv6: bool,
    /// Chains that drop forwarded packets unless a rule allows them, as `ip filter FORWARD`: they close containers in, and
    /// published ports.
    pub forward_drops: Vec<String>,
    /// Legacy iptables are in use, whose rules were not seen.
    pub legacy: bool,
}

impl Firewall {
    /// Whether published ports are closed to the outside, in either family, unless the rules' chain `user` lets them in.
    #[must_use]
    pub fn drops_input(&self) -> bool {
        self.drops_ipv4 || self.drops_ipv6
    }

    /// The families that drop (`NFPROTO_*`).
    pub(crate) fn families(&self) -> Vec<u8> {
        let drops = [(self.drops_ipv4, IPV4), (self.drops_ipv6, IPV6)];
        drops.into_iter().filter_map(|(drops, family)| drops.then_some(family)).collect()
    }

    /// Looks at the firewall of the calling thread's network name space.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell its rules.
    pub fn look() -> Result<Firewall, NetlinkError> {
        look(&mut Conversation::open(Family::Netfilter)?)
    }
}

pub(crate) fn look(conversation: &mut Conversation) -> Result<Firewall, NetlinkError> {
    let mut firewall = Firewall { legacy: has_legacy_tables(), ..Firewall::default() };
    for chain in nftables::base_chains(conversation)? {
        let is_ours = chain.table == HOST.name && chain.family == HOST.family;
        let filters = matches!(chain.hook, INPUT | FORWARD) && chain.family != TableFamily::Bridge;
        if is_ours || !filters || !drops(conversation, &chain)? {
            continue;
        }
        if chain.hook == FORWARD {
            firewall.forward_drops.push(format!("{} {} {}", chain.family, chain.table, chain.name));
            continue;
        }
        firewall.drops_ipv4 |= chain.family != TableFamily::Ipv6;
        firewall.drops_ipv6 |= chain.family != TableFamily::Ipv4;
    }
    Ok(firewall)
}

fn drops(conversation: &mut Conversation, chain: &BaseChain) -> Result<bool, NetlinkError> {
    Ok(chain.drops || nftables::ends_with_drop(conversation, chain)?)
}

/// The files name the legacy tables of this name space; without the module there are none.
fn has_legacy_tables() -> bool {
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"]
        .into_iter()
        .any(|path| std::fs::read(path).is_ok_and(|names| !names.trim_ascii().is_empty()))
}
