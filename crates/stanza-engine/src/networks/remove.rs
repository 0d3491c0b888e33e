//! `network rm`: the record first, then the device. What a crash leaves between the two is noted in the database.

use std::time::Duration;

use stanza_network::{Network, remove_network};
use stanza_spec::{ContainerConfig, NetworkMode};

use super::error::ChangeError;
use super::find::Found;
use super::plan::requests;
use super::{DEFAULT, NetworkError};
use crate::Engine;

impl Engine {
    /// Removes a network. With `force` the containers that are in it go first, each asked to stop for `timeout`, as with
    /// Podman.
    ///
    /// # Errors
    /// When there is no such network, when it is `bridge`, `host` or `none`, or when containers, running or not, are in it.
    pub fn remove_network(
        &mut self,
        name: &str,
        force: bool,
        timeout: Option<Duration>,
    ) -> Result<(), NetworkError> {
        let predefined = |name: &str| {
            NetworkError::Refused(format!("{name} is a pre-defined network and cannot be removed"))
        };
        let network = match self.find_network(name)? {
            Found::Predefined(name) => return Err(predefined(name)),
            Found::Network(record) if record.network.name == DEFAULT => return Err(predefined(DEFAULT)),
            Found::Network(record) => record.network,
        };
        loop {
            let Err(users) = self.delete_network(&network)? else { break };
            if !force {
                return Err(NetworkError::InUse { name: network.name, users });
            }
            users.iter().try_for_each(|user| self.remove_user(user, timeout))?;
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

    fn remove_user(&mut self, name: &str, timeout: Option<Duration>) -> Result<(), NetworkError> {
        let Ok(id) = self.find(name) else { return Ok(()) };
        let seconds = timeout.map(|timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX));
        // What does not stop is killed by the removal.
        let _ = self.stop(&id, None, seconds);
        self.remove(&id, true, false).map_err(|error| NetworkError::Change {
            container: name.to_owned(),
            source: Box::new(ChangeError::Remove(error)),
        })
    }

    /// Takes the device of a network that is forgotten away.
    pub(super) fn clear_network_device(&mut self, network: &Network) -> Result<(), NetworkError> {
        if !self.options.rootless {
            remove_network(network)?;
        }
        Ok(self.database()?.forget_removed(&network.id)?)
    }

    /// Takes the devices of networks away whose removal was cut short; gives their names.
    pub(crate) fn clear_removed_networks(&mut self) -> Vec<String> {
        let removed = self.database().and_then(|database| database.removed_networks()).unwrap_or_default();
        let cleared = removed.into_iter().filter(|network| self.clear_network_device(network).is_ok());
        cleared.map(|network| network.name).collect()
    }
}
