//! `network connect`: a container in one more network, whether it runs or not.

use stanza_spec::{ContainerId, EndpointRequest, NetworkMode};

use super::change::Change;
use super::{DEFAULT, NetworkError};
use crate::Engine;

impl Engine {
    /// Joins a container to a network; the request's own field `network` is not looked at.
    ///
    /// # Errors
    /// When there is no such network or container, when the container is in it already or shares somebody else's network,
    /// when the address is not to be had, or when the kernel refuses. The container is as before then.
    pub fn connect_network(
        &mut self,
        network: &str,
        container: &ContainerId,
        request: EndpointRequest,
    ) -> Result<(), NetworkError> {
        let network = self.network_record(network)?;
        let name = network.network.name.clone();
        let locked = self.lock_container(container)?;
        let container = locked.record.name.clone();
        match self.network_mode(&locked.record.config) {
            NetworkMode::Bridge | NetworkMode::None => {}
            NetworkMode::Host => {
                return Err(NetworkError::Refused(format!(
                    "cannot connect the container {container} to the network {name}: it is in the host's network"
                )));
            }
            _ => {
                return Err(NetworkError::Refused(format!(
                    "container sharing network namespace with another container or host cannot be connected to any other network: {container}"
                )));
            }
        }
        let mut config = self.spelt_out(&locked)?;
        config.network = Some(NetworkMode::Bridge);
        if config.networks.iter().any(|known| known.network == name) {
            return Err(NetworkError::Refused(format!(
                "container {container} is already connected to network {name}"
            )));
        }
        if name == DEFAULT && !request.aliases.is_empty() {
            return Err(NetworkError::Refused(
                "network-scoped alias is supported only for containers in user defined networks".to_owned(),
            ));
        }
        if let Some(interface) = &request.interface
            && config.networks.iter().any(|known| known.interface.as_ref() == Some(interface))
        {
            return Err(NetworkError::Refused(format!(
                "container {container} has a network device `{interface}` already"
            )));
        }
        let place = (EndpointRequest { network: name, ..request }, network);
        self.check_macs(std::slice::from_ref(&place.0), Some(&locked.record.id))?;
        let joined = vec![self.wish(&place)?];
        config.networks.push(place.0);
        self.change_networks(&locked, Change { config, left: None, joined })
    }
}
