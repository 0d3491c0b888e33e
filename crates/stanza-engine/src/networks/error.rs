//! Why something about a network was not done.

use std::net::IpAddr;

use stanza_network::cni::{CniConfigError, CniError};
use stanza_network::{ChooseError, DetachError, SharedError, Subnet};
use stanza_spec::{Classify, ErrorKind};

use crate::database::{DatabaseError, Refusal, StoreRefusal};
use crate::find::FindError;
use crate::reconcile::SettleError;
use crate::settings::SettingsError;

/// Why a verb on a network failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is none.
    #[error("network {0} not found")]
    NotFound(String),
    /// There are several.
    #[error("network {0} is ambiguous: several ids begin with it")]
    Ambiguous(String),
    /// The verb means nothing for this network or container, as told.
    #[error("{0}")]
    Refused(String),
    /// The container is not in the network.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// The directory of names.
    #[error("cannot make `{}` for names of containers", path.display())]
    Names {
        /// The directory.
        path: std::path::PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// Containers are in it.
    #[error("error while removing network: network {name} has active endpoints ({})", users.join(", "))]
    InUse {
        /// The network.
        name: String,
        /// The containers.
        users: Vec<String>,
    },
    /// The request is no network.
    #[error(transparent)]
    Request(#[from] NetworkRequestError),
    /// An address is not to be had.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The container that runs was not changed.
    #[error("cannot change the networks of the running container {container}")]
    Change {
        /// Its name.
        container: String,
        /// Why not.
        #[source]
        source: Box<ChangeError>,
    },
    /// The network's device.
    #[error(transparent)]
    Device(#[from] DetachError),
    /// The network name space of the user's bridges.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The container's state cannot be read.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
    /// The configuration file.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The configuration of a chain of CNI plugins.
    #[error(transparent)]
    CniConfig(#[from] CniConfigError),
    /// A chain of CNI plugins.
    #[error(transparent)]
    Cni(Box<CniError>),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why a running container was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Its monitor was not reached.
    #[error(transparent)]
    Connect(#[from] stanza_sandbox::ConnectError),
    /// Its monitor refused.
    #[error(transparent)]
    Change(#[from] stanza_sandbox::NetworkChangeError),
    /// A file of its own.
    #[error("cannot {what} `{}`", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No subnet for the network.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// All are taken.
    #[error("no address is left in the network `{0}`")]
    NoneLeft(String),
    /// Another container has it.
    #[error("address `{address}` of the network `{network}` is taken by the container `{container}`")]
    Taken {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// The container.
        container: String,
    },
    /// It is of no subnet of the network.
    #[error("address `{address}` is of no subnet of the network `{network}`")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
    },
    /// A hardware address that no device may have.
    #[error("`{0}` is no hardware address of a device: it must be unicast and not all zero")]
    Mac(String),
    /// Another container of the network has the hardware address.
    #[error("hardware address `{mac}` of the network `{network}` is taken by the container `{container}`")]
    MacTaken {
        /// The hardware address.
        mac: String,
        /// The network.
        network: String,
        /// The container.
        container: String,
    },
    /// No container may have it.
    #[error("address `{address}` of the network `{network}` is reserved for {what}")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// For what.
        what: String,
    },
}

/// Why a request is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkRequestError {
    /// A name that no network may have.
    #[error("{0} is not a valid name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
    /// A name that stands for something else.
    #[error("operation is not permitted on predefined {0} network")]
    Predefined(String),
    /// A name that another network has.
    #[error("network with name {0} already exists")]
    NameTaken(String),
    /// A driver that is not built in.
    #[error("network driver `{0}` is not built in")]
    Driver(String),
    /// An option that is not known, or has a value that it cannot have.
    #[error("network option `{name}`: {reason}")]
    Option {
        /// The option.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A subnet has addresses in common with another network.
    #[error("subnet `{subnet}` overlaps `{other}` of the network `{network}`")]
    Overlap {
        /// The subnet.
        subnet: Subnet,
        /// The other network's.
        other: Subnet,
        /// The other network.
        network: String,
    },
    /// A subnet has addresses in common with a route of the host.
    #[error("subnet `{subnet}` overlaps the host's route to `{route}`")]
    Route {
        /// The subnet.
        subnet: Subnet,
        /// Where the route leads.
        route: Subnet,
    },
    /// Something of a subnet does not fit it.
    #[error("subnet `{subnet}`: {reason}")]
    Subnet {
        /// The subnet.
        subnet: Subnet,
        /// What is wrong.
        reason: String,
    },
    /// Another network has the bridge.
    #[error("the bridge `{device}` is that of the network `{network}`")]
    BridgeTaken {
        /// The device.
        device: String,
        /// The other network.
        network: String,
    },
    /// No random numbers for an id.
    #[error("cannot draw random numbers")]
    Random(#[source] std::io::Error),
}

impl Classify for NetworkError {
    fn kind(&self) -> ErrorKind {
        match self {
            NetworkError::NotFound(_) => ErrorKind::NotFound,
            NetworkError::Ambiguous(_) => ErrorKind::InvalidArgument,
            NetworkError::Refused(_) | NetworkError::NotConnected { .. } | NetworkError::InUse { .. } => {
                ErrorKind::Conflict
            }
            NetworkError::Names { source, .. } => ErrorKind::of_io(source),
            NetworkError::Request(error) => error.kind(),
            NetworkError::Address(error) => error.kind(),
            NetworkError::Find(error) => error.kind(),
            NetworkError::Change { source, .. } => source.kind(),
            NetworkError::Device(error) => error.kind(),
            NetworkError::Shared(error) => error.kind(),
            NetworkError::Status(error) => error.kind(),
            NetworkError::Settings(error) => error.kind(),
            NetworkError::CniConfig(error) => error.kind(),
            NetworkError::Cni(error) => error.kind(),
            NetworkError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            NetworkError::NotFound(_) => Some("`stanza network ls` lists all networks".to_owned()),
            NetworkError::Ambiguous(_) => Some("give more digits, or the name".to_owned()),
            NetworkError::Refused(_) | NetworkError::Names { .. } => None,
            NetworkError::NotConnected { network, .. } => {
                Some(format!("`stanza network inspect {network}` shows its containers"))
            }
            NetworkError::InUse { name, .. } => Some(format!(
                "remove those containers, or take them out with `stanza network disconnect {name}`"
            )),
            NetworkError::Request(error) => error.hint(),
            NetworkError::Address(error) => error.hint(),
            NetworkError::Find(error) => error.hint(),
            NetworkError::Change { source, .. } => source.hint(),
            NetworkError::Device(error) => error.hint(),
            NetworkError::Shared(error) => error.hint(),
            NetworkError::Status(error) => error.hint(),
            NetworkError::Settings(error) => error.hint(),
            NetworkError::CniConfig(error) => error.hint(),
            NetworkError::Cni(error) => error.hint(),
            NetworkError::Database(error) => error.hint(),
        }
    }
}

impl Classify for ChangeError {
    fn kind(&self) -> ErrorKind {
        match self {
            ChangeError::Connect(error) => error.kind(),
            ChangeError::Change(error) => error.kind(),
            ChangeError::File { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ChangeError::Connect(error) => error.hint(),
            ChangeError::Change(error) => error.hint(),
            ChangeError::File { .. } => None,
        }
    }
}

impl Classify for AddressError {
    fn kind(&self) -> ErrorKind {
        match self {
            AddressError::Choose(error) => error.kind(),
            AddressError::NoneLeft(_) => ErrorKind::Exhausted,
            AddressError::Taken { .. } | AddressError::MacTaken { .. } => ErrorKind::Conflict,
            AddressError::Mac(_) | AddressError::Outside { .. } | AddressError::Reserved { .. } => {
                ErrorKind::InvalidArgument
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            AddressError::Choose(error) => error.hint(),
            AddressError::NoneLeft(_) => Some(
                "remove containers that are not needed, run `stanza system check --repair`, or create a network with a larger `--subnet`"
                    .to_owned(),
            ),
            AddressError::Mac(_) => None,
            AddressError::Taken { network, .. }
            | AddressError::MacTaken { network, .. }
            | AddressError::Outside { network, .. }
            | AddressError::Reserved { network, .. } => {
                Some(format!("`stanza network inspect {network}` shows its subnets and addresses"))
            }
        }
    }
}

impl Classify for NetworkRequestError {
    fn kind(&self) -> ErrorKind {
        match self {
            NetworkRequestError::Predefined(_) => ErrorKind::PermissionDenied,
            NetworkRequestError::NameTaken(_) => ErrorKind::AlreadyExists,
            NetworkRequestError::Driver(_) => ErrorKind::Unsupported,
            NetworkRequestError::Overlap { .. }
            | NetworkRequestError::Route { .. }
            | NetworkRequestError::BridgeTaken { .. } => ErrorKind::Conflict,
            NetworkRequestError::Name(_)
            | NetworkRequestError::Option { .. }
            | NetworkRequestError::Subnet { .. } => ErrorKind::InvalidArgument,
            NetworkRequestError::Random(source) => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            NetworkRequestError::Driver(_) => Some(
                "there are `bridge`, `macvlan` and `ipvlan`; plugins are used by `run --network cni:NAME`"
                    .to_owned(),
            ),
            NetworkRequestError::Overlap { .. } | NetworkRequestError::Route { .. } => {
                Some("leave `--subnet` out to have a free one chosen".to_owned())
            }
            NetworkRequestError::NameTaken(name) => Some(format!("`stanza network inspect {name}` shows it")),
            NetworkRequestError::Option { .. } => Some("docs/networks.md tells every option".to_owned()),
            _ => None,
        }
    }
}

impl From<CniError> for NetworkError {
    fn from(error: CniError) -> NetworkError {
        NetworkError::Cni(Box::new(error))
    }
}

impl From<ChooseError> for NetworkError {
    fn from(error: ChooseError) -> NetworkError {
        AddressError::from(error).into()
    }
}

impl From<SettleError> for NetworkError {
    fn from(error: SettleError) -> NetworkError {
        match error {
            SettleError::Status(error) => error.into(),
            SettleError::Database(error) => error.into(),
        }
    }
}

impl NetworkRequestError {
    /// Why the table does not take the network `name`.
    pub(super) fn of(name: &str, refusal: StoreRefusal) -> NetworkRequestError {
        match refusal {
            StoreRefusal::NameTaken => NetworkRequestError::NameTaken(name.to_owned()),
            StoreRefusal::Overlap { subnet, network, other } => {
                NetworkRequestError::Overlap { subnet, other, network }
            }
            StoreRefusal::BridgeTaken { device, network } => {
                NetworkRequestError::BridgeTaken { device, network }
            }
        }
    }
}

impl NetworkError {
    /// Why the table of leases does not give an address; `name_of` knows the names of containers.
    pub(crate) fn of_refusal(refusal: Refusal, name_of: impl FnOnce(&str) -> Option<String>) -> NetworkError {
        match refusal {
            Refusal::NoneLeft { network } => AddressError::NoneLeft(network).into(),
            Refusal::Taken { address, network, container } => {
                let container = name_of(&container).unwrap_or(container);
                AddressError::Taken { address, network, container }.into()
            }
            Refusal::Gone { network } => NetworkError::NotFound(network),
        }
    }
}
