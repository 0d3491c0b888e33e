//! `network update`: name servers and labels of a network that is there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{NetworkEntry, NetworkError};
use crate::Engine;

/// What is to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkUpdate {
    /// Name servers to add, in order, behind those that are there.
    pub dns_add: Vec<IpAddr>,
    /// Name servers to take away.
    pub dns_drop: Vec<IpAddr>,
    /// Labels to set.
    pub labels_add: BTreeMap<String, String>,
    /// Labels to take away.
    pub labels_drop: Vec<String>,
}

impl Engine {
    /// Changes a network's name servers and labels. Containers that run ask the new servers from their next start on, or after
    /// `reload`.
    ///
    /// # Errors
    /// When there is no such network, or a name server that is to go is not there.
    pub fn update_network(
        &mut self,
        name: &str,
        update: &NetworkUpdate,
    ) -> Result<NetworkEntry, NetworkError> {
        let network = self.network_record(name)?.network;
        let changed = self.database()?.update_network(&network.id, |record| {
            if let Some(server) = update.dns_drop.iter().find(|server| !record.dns.contains(server)) {
                return Err(NetworkError::Refused(format!(
                    "network {} has no name server `{server}`",
                    network.name
                )));
            }
            record.dns.retain(|server| !update.dns_drop.contains(server));
            for server in &update.dns_add {
                if !record.dns.contains(server) {
                    record.dns.push(*server);
                }
            }
            record.labels.retain(|key, _| !update.labels_drop.contains(key));
            record.labels.extend(update.labels_add.clone());
            Ok(())
        })?;
        let record = changed?.ok_or_else(|| NetworkError::NotFound(name.to_owned()))?;
        self.network(&record.network.name)
    }
}
