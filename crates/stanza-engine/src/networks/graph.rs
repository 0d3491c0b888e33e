//! What `network graph` draws: networks, containers, and who reaches what.

use stanza_network::PortMap;
use stanza_spec::{ContainerId, NetworkMode};

use super::NetworkEntry;
use crate::filters::Filters;
use crate::{Engine, ListError, ListQuery};

/// All networks and containers of an engine. The lines between them are the networks' endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkGraph {
    /// The host's name.
    pub host: String,
    /// The networks, with their endpoints.
    pub networks: Vec<NetworkEntry>,
    /// The containers, running or not.
    pub containers: Vec<GraphContainer>,
}

/// A container in the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// It runs.
    pub running: bool,
    /// Its kind of network.
    pub mode: NetworkMode,
    /// The container whose network it shares.
    pub shares_with: Option<ContainerId>,
    /// What it publishes on the host.
    pub ports: Vec<PortMap>,
}

impl Engine {
    /// The graph of all networks.
    ///
    /// # Errors
    /// When a container's state cannot be told, or the database not be read.
    pub fn network_graph(&mut self) -> Result<NetworkGraph, ListError> {
        let networks = self.networks(&Filters::default())?;
        let listed = self.list(&ListQuery { all: true, ..ListQuery::default() })?;
        let mut containers: Vec<GraphContainer> = listed
            .into_iter()
            .map(|container| GraphContainer {
                running: matches!(container.state, crate::State::Running(_)),
                shares_with: match &container.network {
                    NetworkMode::Container(id) => id.parse().ok(),
                    _ => None,
                },
                id: container.id,
                name: container.name,
                mode: container.network,
                ports: container.ports,
            })
            .collect();
        containers.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(NetworkGraph { host: crate::machine::host_name(), networks, containers })
    }
}
