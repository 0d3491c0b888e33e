//! `network disconnect`: a container out of one network.

use stanza_spec::{ContainerId, NetworkMode};

use super::NetworkError;
use super::change::Change;
use crate::Engine;

impl Engine {
    /// Takes a container out of a network. One that was in no other has none then. With `force` also when the container does
    /// not answer: it is so in its record, and from its next start on.
    ///
    /// # Errors
    /// When there is no such network or container, when the container is not in it, or when the kernel refuses.
    pub fn disconnect_network(
        &mut self,
        network: &str,
        container: &ContainerId,
        force: bool,
    ) -> Result<(), NetworkError> {
        let network = self.network_record(network)?.network;
        let mut locked = self.lock_container(container)?;
        let mut config = self.spelt_out(&locked)?;
        let before = config.networks.len();
        config.networks.retain(|known| known.network != network.name);
        if config.networks.len() == before {
            return Err(NetworkError::NotConnected {
                container: locked.record.name.clone(),
                network: network.name,
            });
        }
        if config.networks.is_empty() {
            config.network = Some(NetworkMode::None);
        }
        let change = |config| Change { config, left: Some(network.id.as_str()), joined: Vec::new() };
        match self.change_networks(&locked, change(config.clone())) {
            Err(NetworkError::Change { .. }) if force => {
                locked.running = false;
                self.change_networks(&locked, change(config))
            }
            result => result,
        }
    }
}
