//! `network rm`: the record first, then the device. What a crash leaves between the two is noted in the database.

use stanza_network::{DetachError, Network, forget_network, is_own_bridge, remove_network, within_shared};
use stanza_spec::{ContainerConfig, NetworkMode};

use super::find::{Found, not_permitted};
use super::plan::requests;
use super::{DEFAULT, NetworkError};
use crate::Engine;

impl Engine {
    /// Removes a network. With `force` the containers that are in it leave it first, also those that run.
    ///
    /// # Errors
    /// When there is no such network, when it is `bridge`, `host` or `none`, or when containers, running or not, are in it.
    pub fn remove_network(&mut self, name: &str, force: bool) -> Result<(), NetworkError> {
        let predefined = |name: &str| {
            NetworkError::Refused(format!("{name} is a pre-defined network and cannot be removed"))
        };
        let network = match self.find_network(name)? {
            Found::Predefined(name) => return Err(predefined(name)),
            Found::Cni(chain) => return Err(not_permitted(&chain)),
            Found::Network(record) if record.network.name == DEFAULT => return Err(predefined(DEFAULT)),
            Found::Network(record) => record.network,
        };
        loop {
            let Err(users) = self.delete_network(&network)? else { break };
            if !force {
                return Err(NetworkError::InUse { name: network.name, users });
            }
            users.iter().try_for_each(|user| self.disconnect_user(&network, user))?;
        }
        self.clear_network_device(&network)
    }

    /// Forgets a network that no container has; `Err` names those that do.
    pub(super) fn delete_network(
        &mut self,
        network: &Network,
    ) -> Result<Result<(), Vec<String>>, NetworkError> {
        let rootless = self.options.rootless;
        let uses = |config: &ContainerConfig| {
            crate::create::network_mode(config, rootless) == NetworkMode::Bridge
                && requests(config).iter().any(|request| request.network == network.name)
        };
        Ok(self.database()?.delete_network(network, &uses)?)
    }

    /// Takes a container out of a network; one that is gone, or has left it since, is well.
    fn disconnect_user(&mut self, network: &Network, user: &str) -> Result<(), NetworkError> {
        let Ok(id) = self.find(user) else { return Ok(()) };
        match self.disconnect_network(&network.id, &id, true) {
            Err(NetworkError::Find(_) | NetworkError::NotConnected { .. }) => Ok(()),
            result => result,
        }
    }

    /// Takes the device of a network that is forgotten away.
    pub(super) fn clear_network_device(&mut self, network: &Network) -> Result<(), NetworkError> {
        let is_shared = self.shares_device(network)?;
        if self.options.rootless {
            // With nobody in it there is no name space, and no device.
            let directory = self.options.shared_network_dir();
            within_shared(&directory, || remove_device(network, is_shared))?.transpose()?;
        } else {
            remove_device(network, is_shared)?;
        }
        let names = self.options.network_dir(&network.id);
        // What is left of it is found by `system check`.
        let _ = stanza_snapshot::remove_tree(&names);
        Ok(self.database()?.forget_removed(&network.id)?)
    }

    /// Whether the network's bridge is another one's since.
    fn shares_device(&mut self, network: &Network) -> Result<bool, NetworkError> {
        let Some(bridge) = network.bridge() else { return Ok(false) };
        let others = self.database()?.networks()?;
        let has_it = |other: &Network| other.bridge().is_some_and(|other| other.device == bridge.device);
        Ok(others.iter().any(|other| has_it(&other.network)))
    }

    /// Takes the devices of networks away whose removal was cut short; gives their names.
    pub(crate) fn clear_removed_networks(&mut self) -> Vec<String> {
        let removed = self.database().and_then(|database| database.removed_networks()).unwrap_or_default();
        let cleared = removed.into_iter().filter(|network| self.clear_network_device(network).is_ok());
        cleared.map(|network| network.name).collect()
    }
}

/// Takes the device away where it was made for the network, and what the rules know of it.
fn remove_device(network: &Network, is_shared: bool) -> Result<(), DetachError> {
    let looked = || {
        let is_own = network.bridge().is_none() || is_own_bridge(network)?;
        Ok(!is_shared && is_own)
    };
    match looked().map_err(|source| DetachError::Network { network: network.name.clone(), source })? {
        true => remove_network(network),
        false => forget_network(network),
    }
}
