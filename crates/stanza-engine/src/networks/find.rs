//! A network by name, id or the beginning of its id; and the default one, which the first to need it chooses.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use stanza_network::cni::CniNetwork;
use stanza_network::{Bridge, DEFAULT_BRIDGE, Driver, Network, NetworkSubnet, choose_subnet};
use stanza_spec::Digest;

use super::{DEFAULT, NetworkError, cni};
use crate::Engine;
use crate::database::NetworkRecord;

/// What is meant by a name.
#[derive(Debug)]
pub(super) enum Found {
    /// A network on record.
    Network(Box<NetworkRecord>),
    /// `host` or `none`.
    Predefined(&'static str),
    /// A chain of CNI plugins.
    Cni(Box<CniNetwork>),
}

/// Verbs that change networks do not change what plugins make.
pub(super) fn not_permitted(chain: &CniNetwork) -> NetworkError {
    NetworkError::Refused(format!(
        "operation is not permitted on the CNI network {}: it is what the file `{}` says",
        cni::full_name(&chain.name),
        chain.file.display()
    ))
}

/// The bridge of an engine. Engines with other roots have their own leases, so they need their own bridge.
pub(super) fn bridge_name(root: &Path) -> String {
    if root == Path::new("/var/lib/stanza") {
        return DEFAULT_BRIDGE.to_owned();
    }
    let hash = Sha256::digest(root.as_os_str().as_encoded_bytes());
    // 15 bytes, the longest name of a device.
    format!("stanza-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
}

/// The id of one of the networks that an engine always has: the same for as long as the engine's root has its name.
pub(super) fn network_id(name: &str, root: &Path) -> String {
    let hash =
        Sha256::new().chain_update(name).chain_update("\0").chain_update(root.as_os_str().as_encoded_bytes());
    Digest::from_hash(&hash.finalize()).hex().to_owned()
}

impl Engine {
    /// The default network; the first to ask chooses it.
    pub(crate) fn default_network(&mut self) -> Result<NetworkRecord, NetworkError> {
        if let Some(record) = self.database()?.network_named(DEFAULT)? {
            return Ok(record);
        }
        // Its leases go on when only its description cannot be read, as of an older version.
        let id = self.database()?.network_id(DEFAULT)?;
        let settings = self.settings()?.network.clone();
        let device = settings.default_bridge.unwrap_or_else(|| bridge_name(&self.options.root));
        let others = self.database()?.networks()?;
        let taken: Vec<_> =
            others.iter().flat_map(|other| &other.network.subnets).map(|place| place.subnet).collect();
        let place = match settings.default_subnet {
            Some(subnet) => {
                NetworkSubnet { subnet, gateway: subnet.first_host(), range: None, reserved: Vec::new() }
            }
            None => choose_subnet(&device, &settings.default_address_pools, &taken)?,
        };
        let network = Network {
            id: id.unwrap_or_else(|| network_id(DEFAULT, &self.options.root)),
            name: DEFAULT.to_owned(),
            subnets: vec![place],
            driver: Driver::Bridge(Bridge { device, masquerade: true, peers: true, vlan: None }),
            mtu: settings.mtu,
            internal: false,
        };
        let record = NetworkRecord::new(network);
        match self.database()?.store_network(&record)? {
            Ok(()) => Ok(record),
            // Another process was faster, or a network of the user's has the subnet that the settings name.
            Err(refusal) => match self.database()?.network_named(DEFAULT)? {
                Some(record) => Ok(record),
                None => Err(super::NetworkRequestError::of(DEFAULT, refusal).into()),
            },
        }
    }

    /// What `name` means.
    pub(super) fn find_network(&mut self, name: &str) -> Result<Found, NetworkError> {
        match name {
            DEFAULT | "default" => return self.default_network().map(Box::new).map(Found::Network),
            "host" => return Ok(Found::Predefined("host")),
            "none" => return Ok(Found::Predefined("none")),
            _ => {}
        }
        if let Some(chain) = name.strip_prefix(cni::PREFIX) {
            return self.cni_network(chain).map(Box::new).map(Found::Cni);
        }
        let mut found = self.database()?.networks_like(name)?;
        match (found.pop(), found.is_empty()) {
            (Some(record), true) => Ok(Found::Network(Box::new(record))),
            (Some(_), false) => Err(NetworkError::Ambiguous(name.to_owned())),
            (None, _) => {
                let (chains, _) = self.cni_networks()?;
                let root = &self.options.root;
                let by_id = |of: &str| name.len() >= 4 && network_id(of, root).starts_with(name);
                if let Some(fixed) = ["host", "none"].into_iter().find(|fixed| by_id(fixed)) {
                    return Ok(Found::Predefined(fixed));
                }
                let by_id = |chain: &CniNetwork| by_id(&cni::full_name(&chain.name));
                let chain = chains.into_iter().find(by_id).map(Box::new).map(Found::Cni);
                chain.ok_or_else(|| NetworkError::NotFound(name.to_owned()))
            }
        }
    }

    /// The name of the network that `name` means.
    pub(crate) fn network_name(&mut self, name: &str) -> Result<String, NetworkError> {
        Ok(self.network_record(name)?.network.name)
    }

    /// The network on record that `name` means; `host` and `none` are refused.
    pub(super) fn network_record(&mut self, name: &str) -> Result<NetworkRecord, NetworkError> {
        match self.find_network(name)? {
            Found::Network(record) => Ok(*record),
            Found::Predefined(name) => {
                Err(NetworkError::Refused(format!("operation is not permitted on predefined {name} network")))
            }
            Found::Cni(chain) => Err(not_permitted(&chain)),
        }
    }
}
