//! `network create`: from a request to a record. The network's devices are made when a container starts in it.

use stanza_network::{Bridge, Driver, IpvlanMode, MacvlanMode, Network};
use stanza_spec::{Instant, is_valid_container_name};

use super::options::{self, Options};
use super::{NetworkEntry, NetworkError, NetworkRequest, NetworkRequestError, RESERVED};
use crate::database::{NetworkRecord, StoreRefusal};
use crate::{Engine, names};

impl Engine {
    /// Creates a network.
    ///
    /// # Errors
    /// When the request is no network, when it collides with another network or a route of the host, or when no subnet is left.
    pub fn create_network(&mut self, request: &NetworkRequest) -> Result<NetworkEntry, NetworkError> {
        let name = &request.name;
        // Docker's rule for names of networks is that for containers, but a single character will do.
        if !is_valid_container_name(name) && !matches!(name.as_bytes(), [b] if b.is_ascii_alphanumeric()) {
            return Err(NetworkRequestError::Name(name.clone()).into());
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(NetworkRequestError::Predefined(name.clone()).into());
        }
        if self.database()?.network_named(name)?.is_some() {
            if request.ignore_existing {
                return self.network(name);
            }
            return Err(NetworkRequestError::NameTaken(name.clone()).into());
        }
        // A device that an interrupted removal left may have the name that this network's is to have.
        self.clear_removed_networks();
        loop {
            let record = self.plan_network(request)?;
            match self.database()?.store_network(&record)? {
                Ok(()) => return Ok(NetworkEntry::of(record)),
                Err(StoreRefusal::NameTaken) if request.ignore_existing => return self.network(name),
                // Somebody else was faster with a subnet that nobody asked for: there are others, or the next plan finds none.
                Err(StoreRefusal::Overlap { subnet, .. })
                    if request.subnets.iter().all(|asked| asked.subnet != subnet) => {}
                Err(refusal) => return Err(NetworkRequestError::of(name, refusal).into()),
            }
        }
    }

    fn plan_network(&mut self, request: &NetworkRequest) -> Result<NetworkRecord, NetworkError> {
        let word = match request.driver.as_str() {
            "" => "bridge",
            word => word,
        };
        if !matches!(word, "bridge" | "macvlan" | "ipvlan") {
            return Err(NetworkRequestError::Driver(word.to_owned()).into());
        }
        check_ipam(request.ipam_driver.as_deref())?;
        let mut options = options::read(word, &request.options)?;
        if let Some(device) = &request.interface_name {
            if !options::is_device_name(device) {
                let reason = format!("`{device}` is no name of a network device");
                return Err(NetworkRequestError::Option { name: "interface-name".to_owned(), reason }.into());
            }
            let target = if word == "bridge" { &mut options.bridge } else { &mut options.parent };
            *target = Some(device.clone());
        }
        let id = names::container_id().map_err(NetworkRequestError::Random)?.as_str().to_owned();
        let driver = driver(word, &id, &options)?;
        let bridge = match &driver {
            Driver::Bridge(bridge) => Some(bridge.device.clone()),
            Driver::Macvlan { .. } | Driver::Ipvlan { .. } => None,
        };
        // A network of layer 3 has no neighbour that is its way out.
        let gateways = !matches!(driver, Driver::Ipvlan { mode: IpvlanMode::L3 | IpvlanMode::L3s, .. });
        let subnets = self.plan_subnets(request, bridge.as_deref(), gateways)?;
        let network = Network {
            id,
            name: request.name.clone(),
            driver,
            subnets,
            mtu: options.mtu,
            internal: request.internal,
        };
        Ok(NetworkRecord {
            labels: request.labels.clone(),
            options: request.options.clone(),
            created_at: Instant::now().rfc3339(),
            dns: request.dns.clone(),
            disable_dns: request.disable_dns,
            interface: options.interface,
            no_default_route: options.no_default_route,
            metric: options.metric,
            ..NetworkRecord::new(network)
        })
    }
}

fn check_ipam(driver: Option<&str>) -> Result<(), NetworkRequestError> {
    let reason = match driver {
        None | Some("" | "default" | "host-local" | "none") => return Ok(()),
        Some("dhcp") => "`dhcp` is asked by the CNI plugin of that name: `run --network cni:NAME`".to_owned(),
        Some(other) => format!("there is no `{other}`: expected `default`, `host-local` or `none`"),
    };
    Err(NetworkRequestError::Option { name: "ipam-driver".to_owned(), reason })
}

fn driver(word: &str, id: &str, options: &Options) -> Result<Driver, NetworkRequestError> {
    let wrong = |mode: &str, known: &str| NetworkRequestError::Option {
        name: "mode".to_owned(),
        reason: format!("`{mode}` is none of {known}"),
    };
    if word == "bridge" {
        // The first digits of the id, so that the device tells its network: 15 bytes in all.
        let device =
            options.bridge.clone().unwrap_or_else(|| format!("stanza-{}", id.get(..8).unwrap_or(id)));
        return Ok(Driver::Bridge(Bridge {
            device,
            masquerade: options.masquerade,
            peers: options.peers,
            vlan: options.vlan,
        }));
    }
    let parent = match (&options.parent, options.vlan) {
        (Some(card), Some(vlan)) => format!("{card}.{vlan}"),
        (None, Some(_)) => {
            let reason = "it is of a card: name it with `parent`".to_owned();
            return Err(NetworkRequestError::Option { name: "vlan".to_owned(), reason });
        }
        (card, _) => card.clone().unwrap_or_default(),
    };
    if !parent.is_empty() && !options::is_device_name(&parent) {
        let reason = format!("`{parent}` is no name of a network device");
        return Err(NetworkRequestError::Option { name: "parent".to_owned(), reason });
    }
    let mode = options.mode.as_deref();
    if word == "macvlan" {
        let mode = match mode {
            None | Some("bridge") => MacvlanMode::Bridge,
            Some("private") => MacvlanMode::Private,
            Some("vepa") => MacvlanMode::Vepa,
            Some("passthru") => MacvlanMode::Passthru,
            Some(other) => return Err(wrong(other, "`bridge`, `private`, `vepa` and `passthru`")),
        };
        return Ok(Driver::Macvlan { parent, mode });
    }
    let mode = match mode {
        None | Some("l2") => IpvlanMode::L2,
        Some("l3") => IpvlanMode::L3,
        Some("l3s") => IpvlanMode::L3s,
        Some(other) => return Err(wrong(other, "`l2`, `l3` and `l3s`")),
    };
    Ok(Driver::Ipvlan { parent, mode })
}
