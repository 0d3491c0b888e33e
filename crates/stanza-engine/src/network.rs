//! The default bridge, one per engine: its subnet is chosen once and recorded; addresses are leases of the database.

use std::net::Ipv4Addr;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use stanza_network::{
    Bridge, ChooseError, DEFAULT_BRIDGE, Driver, Endpoint, EndpointsPlan, Network, NetworkPlan, PortMap,
    choose_subnet, device_of, mac_of,
};
use stanza_spec::{Digest, NetworkMode};

use crate::Engine;
use crate::database::{DatabaseError, Phase, Record};

/// Why there is no default network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error(transparent)]
    Choose(#[from] ChooseError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The bridge of an engine. Engines with other roots have their own leases, so they need their own bridge.
pub(crate) fn bridge_name(root: &Path) -> String {
    if root == Path::new("/var/lib/stanza") {
        return DEFAULT_BRIDGE.to_owned();
    }
    let hash = Sha256::digest(root.as_os_str().as_encoded_bytes());
    // 15 bytes, the longest name of a device.
    format!("stanza-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
}

/// The default network's id: the same for as long as the engine's root has its name.
fn network_id(root: &Path) -> String {
    let hash = Sha256::new().chain_update("bridge\0").chain_update(root.as_os_str().as_encoded_bytes());
    Digest::from_hash(&hash.finalize()).hex().to_owned()
}

impl Engine {
    /// The default network; the first to ask chooses it.
    pub(crate) fn network(&mut self) -> Result<Network, NetworkError> {
        if let Some(network) = self.database()?.network()? {
            return Ok(network);
        }
        let device = bridge_name(&self.options.root);
        let network = Network {
            id: network_id(&self.options.root),
            name: "bridge".to_owned(),
            subnets: vec![choose_subnet(&device)?],
            driver: Driver::Bridge(Bridge { device, masquerade: true, peers: true, vlan: None }),
            mtu: None,
            internal: false,
        };
        self.database()?.set_network(&network)?;
        Ok(network)
    }

    /// The network of a container on record, as far as it has an address for it.
    pub(crate) fn network_plan(&mut self, record: &Record) -> Result<NetworkPlan, NetworkError> {
        Ok(match self.network_mode(&record.config) {
            NetworkMode::None => NetworkPlan::None,
            NetworkMode::Host => NetworkPlan::Host,
            NetworkMode::Bridge => match record.address {
                Some(address) => NetworkPlan::Endpoints(endpoints_plan(record, self.network()?, address)),
                None => NetworkPlan::None,
            },
        })
    }

    /// Frees the addresses of containers that do not run any more, whose owner died before it could; gives how many.
    ///
    /// Called when addresses ran out: at other times such an address does no harm.
    pub(crate) fn reclaim_addresses(&mut self) -> usize {
        let Ok(before) = self.database().and_then(|database| database.leases()) else { return 0 };
        if let Ok(database) = self.database() {
            // Failures leave the pool as it is, which the caller reports.
            let _ = database.free_orphans();
        }
        for (_, container) in &before {
            let Ok(id) = container.parse() else { continue };
            let Ok(Some(record)) = self.database().and_then(|database| database.container(&id)) else {
                continue;
            };
            if record.phase == Phase::Started {
                let _ = self.settle(&record);
            } else if let Ok(Some(_lock)) = self.try_lock(container)
                && let Ok(database) = self.database()
            {
                let _ = database.free_address(container);
            }
        }
        let after =
            self.database().and_then(|database| database.leases()).map_or(before.len(), |after| after.len());
        before.len().saturating_sub(after)
    }
}

fn endpoints_plan(record: &Record, network: Network, address: Ipv4Addr) -> EndpointsPlan {
    let endpoint = Endpoint {
        device: device_of(&record.id, &network.id),
        network,
        interface: "eth0".to_owned(),
        ipv4: Some(address),
        ipv6: None,
        mac: mac_of(address.into()),
        names: vec![record.name.clone()],
        default_route: true,
    };
    EndpointsPlan {
        container: record.id.clone(),
        endpoints: vec![endpoint],
        ports: record.config.ports.iter().map(PortMap::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_root_has_a_bridge_of_its_own() {
        assert_eq!(bridge_name(Path::new("/var/lib/stanza")), "stanza0");
        let other = bridge_name(Path::new("/tmp/a"));
        assert!(other.len() == 15 && other != bridge_name(Path::new("/tmp/b")), "{other}");
    }
}
