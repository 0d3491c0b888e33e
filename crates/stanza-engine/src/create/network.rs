//! What of a wish is about networks: checked, and names made those on record.

use stanza_spec::{ContainerConfig, NetworkMode, Protocol};

use super::CreateError;
use crate::Engine;
use crate::networks::{self, NetworkError};
use crate::spec::SpecError;
use crate::user_mode;

/// In Docker's words.
const MIXED: &str = "cannot attach both user-defined and non-user-defined network-modes";

/// The kind of network that a container gets when it says nothing: the bridge, or a helper's where a bridge needs root.
pub(crate) fn network_mode(config: &ContainerConfig, rootless: bool) -> NetworkMode {
    let default = || {
        if rootless && config.networks.is_empty() { user_mode::default_mode() } else { NetworkMode::Bridge }
    };
    config.network.clone().unwrap_or_else(default)
}

impl Engine {
    /// The kind of network that a container gets.
    pub(crate) fn network_mode(&self, config: &ContainerConfig) -> NetworkMode {
        network_mode(config, self.options.rootless)
    }

    /// Refuses what contradicts itself or cannot be had, and drops what means nothing, with a warning.
    pub(super) fn check_network(
        &mut self,
        config: &mut ContainerConfig,
        warnings: &mut Vec<String>,
    ) -> Result<(), CreateError> {
        let mode = self.network_mode(config);
        let unsupported = |what: &str, reason| CreateError::Unsupported { what: what.to_owned(), reason };
        match &mode {
            NetworkMode::Bridge if self.options.rootless => {
                self.check_endpoints(config)?;
                return self.check_shared_network(config);
            }
            NetworkMode::Bridge => return self.check_endpoints(config),
            NetworkMode::Container(name) => {
                check_shared(config)?;
                let other = self.find(name).map_err(NetworkError::from)?;
                config.network = Some(NetworkMode::Container(other.to_string()));
                return Ok(());
            }
            NetworkMode::Pasta(_) | NetworkMode::Slirp4netns(_) => {
                if !config.networks.is_empty() {
                    return Err(SpecError::Conflict(MIXED).into());
                }
                return self.check_user_mode(&mode);
            }
            NetworkMode::Cni(chain) if self.options.rootless => {
                return Err(unsupported(
                    &format!("`--network {}` without root", networks::cni_name(chain)),
                    "use `--network pasta`, `slirp4netns`, `host` or `none`",
                ));
            }
            NetworkMode::Cni(chain) => return Ok(self.check_cni(chain, config)?),
            NetworkMode::None | NetworkMode::Host => {}
        }
        if mode == NetworkMode::None && config.network.is_none() {
            warnings.push(format!("The container has no network: `{}` cannot be opened", user_mode::TUNNELS));
        }
        let word = if mode == NetworkMode::Host { "host" } else { "none" };
        if !config.networks.is_empty() {
            return Err(SpecError::Conflict(MIXED).into());
        }
        if !config.ports.is_empty() || config.publish_all {
            warnings.push(format!("Published ports are discarded when using {word} network mode"));
            config.ports.clear();
            config.publish_all = false;
        }
        Ok(())
    }

    /// What the bridges of a user without root do not have.
    fn check_shared_network(&mut self, config: &ContainerConfig) -> Result<(), CreateError> {
        let unsupported = |what: String, reason| Err(CreateError::Unsupported { what, reason });
        let places = self.places(config)?;
        if let Some((_, record)) = places.iter().find(|(_, record)| record.network.bridge().is_none()) {
            let name = &record.network.name;
            return unsupported(
                format!("`--network {name}` without root"),
                "a network on a card of the host needs root; use one of the driver `bridge`",
            );
        }
        if config.ports.iter().any(|port| port.protocol == Protocol::Sctp) {
            return unsupported("publishing SCTP ports without root".to_owned(), "publish TCP or UDP ports");
        }
        Ok(())
    }

    /// Networks that are to be joined: each there, once, with addresses that a container may have there.
    fn check_endpoints(&mut self, config: &mut ContainerConfig) -> Result<(), CreateError> {
        for index in 0..config.networks.len() {
            let name = self.network_name(&config.networks[index].network)?;
            let refused = |text: &str| CreateError::from(NetworkError::Refused(text.to_owned()));
            if config.networks[..index].iter().any(|other| other.network == name) {
                return Err(refused(&format!("network {name} is specified multiple times")));
            }
            let request = &mut config.networks[index];
            if name == networks::DEFAULT && !request.aliases.is_empty() {
                return Err(refused(
                    "network-scoped alias is supported only for containers in user defined networks",
                ));
            }
            request.network = name;
        }
        // Refuses addresses that are not to be had; nothing is taken yet.
        self.wishes(config)?;
        self.check_macs(&config.networks, None)?;
        Ok(())
    }
}

/// What a container that shares another one's network cannot have of its own, in Docker's words.
fn check_shared(config: &ContainerConfig) -> Result<(), SpecError> {
    let conflicts = [
        (config.hostname.is_some(), "hostname and the network mode"),
        (!config.networks.is_empty(), MIXED),
        (
            !config.ports.is_empty() || config.publish_all,
            "port publishing and the container type network mode",
        ),
        (!config.expose.is_empty(), "port exposing and the container type network mode"),
        (!config.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
        (
            !config.dns.is_empty() || !config.dns_search.is_empty() || !config.dns_options.is_empty(),
            "dns and the network mode",
        ),
    ];
    match conflicts.into_iter().find(|(conflict, _)| *conflict) {
        Some((_, words)) => Err(SpecError::Conflict(words)),
        None => Ok(()),
    }
}
