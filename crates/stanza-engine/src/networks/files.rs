//! `hosts` and `resolv.conf` of a container, by its networks and what the user says.

use std::fs;
use std::net::IpAddr;

use stanza_network::{Endpoint, NetworkPlan, SharedPlan, files};
use stanza_spec::{ContainerConfig, NetworkMode};

use super::{DEFAULT, NetworkError};
use crate::database::Record;
use crate::{Engine, user_mode};

/// The host's name servers.
pub(super) const HOST_RESOLVERS: &str = "/etc/resolv.conf";
/// systemd-resolved's own list of the resolvers behind it.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

impl Engine {
    /// The text of `/etc/hosts`: the host's on the host's network, else the container's own names and what the user adds.
    pub(crate) fn hosts(&self, record: &Record, network: &NetworkPlan) -> String {
        let hostname = self.hostname(record);
        let mut text = match network {
            NetworkPlan::Host => fs::read_to_string("/etc/hosts").unwrap_or_default(),
            _ => files::hosts(&hostname, &addresses(network)),
        };
        let gateway = gateway(network);
        for extra in &record.config.extra_hosts {
            // Without a way to the host its name leads nowhere.
            if let Some(address) = extra.address.or(gateway) {
                text.push_str(&format!("{address}\t{}\n", extra.name));
            }
        }
        text
    }

    /// The text of `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(
        &mut self,
        record: &Record,
        network: &NetworkPlan,
    ) -> Result<String, NetworkError> {
        let host = fs::read_to_string(HOST_RESOLVERS).unwrap_or_default();
        let config = self.resolver(&record.config)?;
        if let NetworkPlan::UserMode(plan) = network {
            let host = user_mode::resolv_conf(plan, &host);
            let reachable = files::Reachable { loopback: true, ipv6: true };
            return Ok(files::resolv_conf(&host, None, &[], reachable, &config));
        }
        if matches!(network, NetworkPlan::Endpoints(plan) if plan.resolver.is_some()) {
            return Ok(files::resolver_conf(&host, &config));
        }
        if *network == NetworkPlan::Host && config == files::Resolver::default() {
            return Ok(host);
        }
        // A resolver on the host's loopback is reached by the helper's own.
        let host = match shared(network) {
            Some(shared) => stanza_network::user_mode_resolv_conf(shared.driver, &host),
            None => host,
        };
        let ipv6 = addresses(network).iter().any(IpAddr::is_ipv6);
        let reachable = files::Reachable { loopback: *network == NetworkPlan::Host, ipv6 };
        let text = files::resolv_conf(&host, None, &[], reachable, &config);
        if text.contains("nameserver") {
            return Ok(text);
        }
        let upstream = fs::read_to_string(BEHIND_RESOLVED).ok();
        Ok(files::resolv_conf(&host, upstream.as_deref(), &files::FALLBACK_RESOLVERS, reachable, &config))
    }

    /// What the user says about resolving names of the container, then of its networks, then in the configuration file.
    /// A container without network asks nobody, so it is started without that file.
    pub(super) fn resolver(&mut self, config: &ContainerConfig) -> Result<files::Resolver, NetworkError> {
        let mut resolver = files::Resolver {
            servers: config.dns.clone(),
            search: config.dns_search.clone(),
            options: config.dns_options.clone(),
        };
        if self.network_mode(config) == NetworkMode::None {
            return Ok(resolver);
        }
        let of_networks = if resolver.servers.is_empty() { self.servers(config)? } else { Vec::new() };
        let settings = &self.settings()?.network;
        if resolver.servers.is_empty() {
            resolver.servers = of_networks;
        }
        if resolver.servers.is_empty() {
            resolver.servers.clone_from(&settings.dns);
        }
        if resolver.search.is_empty() {
            resolver.search.clone_from(&settings.dns_search);
        }
        if resolver.options.is_empty() {
            resolver.options.clone_from(&settings.dns_options);
        }
        Ok(resolver)
    }

    /// The name servers of a container's networks, in their order.
    fn servers(&mut self, config: &ContainerConfig) -> Result<Vec<IpAddr>, NetworkError> {
        // The default network's are those of the configuration file.
        if config.networks.iter().all(|request| request.network == DEFAULT) {
            return Ok(Vec::new());
        }
        let mut servers: Vec<IpAddr> = Vec::new();
        for server in self.places(config)?.into_iter().flat_map(|(_, record)| record.dns) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        Ok(servers)
    }
}

fn endpoints(network: &NetworkPlan) -> &[Endpoint] {
    match network {
        NetworkPlan::Endpoints(plan) => &plan.endpoints,
        _ => &[],
    }
}

fn shared(network: &NetworkPlan) -> Option<&SharedPlan> {
    match network {
        NetworkPlan::Endpoints(plan) => plan.shared.as_ref(),
        _ => None,
    }
}

fn addresses(network: &NetworkPlan) -> Vec<IpAddr> {
    match network {
        NetworkPlan::UserMode(plan) => plan.address().into_iter().collect(),
        _ => endpoints(network).iter().flat_map(Endpoint::addresses).collect(),
    }
}

/// The host as the container reaches it: the bridge's address of the network that leads out, else of the first that has one.
fn gateway(network: &NetworkPlan) -> Option<IpAddr> {
    if *network == NetworkPlan::Host {
        return Some(IpAddr::from([127, 0, 0, 1]));
    }
    if shared(network).is_some() {
        return user_mode::host_address();
    }
    let of = |endpoint: &Endpoint| endpoint.placed().find_map(|(_, place)| place.gateway);
    let endpoints = endpoints(network);
    endpoints
        .iter()
        .find(|endpoint| endpoint.default_route)
        .and_then(of)
        .or_else(|| endpoints.iter().find_map(of))
}
