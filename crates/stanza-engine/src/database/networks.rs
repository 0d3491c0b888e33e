//! The table `networks`, and what of `containers` and `leases` a change of a network touches.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use stanza_network::{Network, Subnet};
use stanza_spec::ContainerConfig;

use super::leases::{self, Lease, Refusal, Wish};
use super::{Database, DatabaseError, containers};

/// A network on record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    /// What containers join.
    pub(crate) network: Network,
    /// The user's labels.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// The options it was created with, as they were typed.
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
    /// RFC 3339.
    #[serde(default)]
    pub(crate) created_at: String,
    /// Name servers for what is not the name of a container; empty is the host's.
    #[serde(default)]
    pub(crate) dns: Vec<IpAddr>,
    /// Its containers do not find each other by name.
    #[serde(default)]
    pub(crate) disable_dns: bool,
    /// What devices inside are called, a number behind it; `None` is `eth`.
    #[serde(default)]
    pub(crate) interface: Option<String>,
    /// It never leads out, though it has a gateway.
    #[serde(default)]
    pub(crate) no_default_route: bool,
    /// Of a container's networks with one priority, that with the smallest leads out; `None` is 100, as with Podman.
    #[serde(default)]
    pub(crate) metric: Option<u32>,
}

/// Why a network was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreRefusal {
    /// The name belongs to another one.
    NameTaken,
    /// A subnet has addresses in common with one of this network.
    Overlap { subnet: Subnet, network: String, other: Subnet },
    /// Two networks cannot have one bridge.
    BridgeTaken { device: String, network: String },
}

/// The key of the random /48 that IPv6 subnets are parts of.
const UNIQUE_LOCAL: &str = "unique-local-prefix";
/// What the keys of networks begin with whose devices are to go; the id follows.
const REMOVED: &str = "removed-network/";

impl NetworkRecord {
    /// A network about which nothing else is said.
    pub(crate) fn new(network: Network) -> NetworkRecord {
        NetworkRecord {
            network,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            created_at: String::new(),
            dns: Vec::new(),
            disable_dns: false,
            interface: None,
            no_default_route: false,
            metric: None,
        }
    }
}

impl Database {
    /// The network with this name.
    pub(crate) fn network_named(&self, name: &str) -> Result<Option<NetworkRecord>, DatabaseError> {
        let json: Option<String> = self.read("look up a network", |connection| {
            connection
                .prepare_cached("SELECT network FROM networks WHERE name = ?")?
                .query_row([name], |row| row.get(0))
                .optional()
        })?;
        Ok(json.and_then(|json| decode(&json)))
    }

    /// The id that the row of that name has, even when its network cannot be read.
    pub(crate) fn network_id(&self, name: &str) -> Result<Option<String>, DatabaseError> {
        self.read("look up a network", |connection| {
            connection
                .query_row("SELECT id FROM networks WHERE name = ?", [name], |row| row.get(0))
                .optional()
        })
    }

    /// The networks that `text` may mean: the one with this id or name, else those whose id begins with it.
    pub(crate) fn networks_like(&self, text: &str) -> Result<Vec<NetworkRecord>, DatabaseError> {
        let rows: Vec<String> = self.read("look up a network", |connection| {
            let exact: Option<String> = connection
                .query_row(
                    "SELECT network FROM networks WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1",
                    [text],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(exact) = exact {
                return Ok(vec![exact]);
            }
            if text.is_empty() || text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Ok(Vec::new());
            }
            let mut statement = connection
                .prepare("SELECT network FROM networks WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2")?;
            statement.query_map([text.to_ascii_lowercase()], |row| row.get(0))?.collect()
        })?;
        Ok(rows.iter().filter_map(|json| decode(json)).collect())
    }

    /// Every network, by name. One that cannot be read is left out.
    pub(crate) fn networks(&self) -> Result<Vec<NetworkRecord>, DatabaseError> {
        self.read("list the networks", networks_in)
    }

    /// Stores a new network, or the one that is given again by its id, and refuses what cannot stand beside the others.
    pub(crate) fn store_network(
        &mut self,
        record: &NetworkRecord,
    ) -> Result<Result<(), StoreRefusal>, DatabaseError> {
        let json = encode(record);
        let network = &record.network;
        self.write_or_refuse("note the network", |transaction| {
            let others = networks_in(transaction)?;
            let others = others.iter().filter(|other| other.network.id != network.id);
            if let Some(refusal) = others.filter_map(|other| refusal(network, &other.network)).next() {
                return Ok(Err(refusal));
            }
            transaction.execute(
                "INSERT OR REPLACE INTO networks(id, name, network) VALUES(?, ?, ?)",
                params![network.id, network.name, json],
            )?;
            Ok(Ok(()))
        })
    }

    /// Changes the network with this id, unless `change` refuses; `None` when there is none any more.
    pub(crate) fn update_network<E>(
        &mut self,
        id: &str,
        change: impl Fn(&mut NetworkRecord) -> Result<(), E>,
    ) -> Result<Result<Option<NetworkRecord>, E>, DatabaseError> {
        self.write_or_refuse("change the network", |transaction| {
            let json: Option<String> = transaction
                .query_row("SELECT network FROM networks WHERE id = ?", [id], |row| row.get(0))
                .optional()?;
            let Some(mut record) = json.and_then(|json| decode(&json)) else { return Ok(Ok(None)) };
            if let Err(refusal) = change(&mut record) {
                return Ok(Err(refusal));
            }
            let json = encode(&record);
            transaction.execute("UPDATE networks SET network = ?2 WHERE id = ?1", params![id, json])?;
            Ok(Ok(Some(record)))
        })
    }

    /// Forgets a network that no container has; `Err` names those that do. That its device is to go is noted until
    /// [`Database::forget_removed`].
    pub(crate) fn delete_network(
        &mut self,
        network: &Network,
        is_user: &dyn Fn(&ContainerConfig) -> bool,
    ) -> Result<Result<(), Vec<String>>, DatabaseError> {
        self.write_or_refuse("remove a network", |transaction| {
            let mut statement = transaction.prepare("SELECT name, config FROM containers ORDER BY seq")?;
            let rows = statement
                .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let uses = |config: &String| serde_json::from_str(config).is_ok_and(|config| is_user(&config));
            let users: Vec<String> =
                rows.into_iter().filter(|(_, config)| uses(config)).map(|(name, _)| name).collect();
            if !users.is_empty() {
                return Ok(Err(users));
            }
            transaction.execute(
                "INSERT OR REPLACE INTO choices(key, value) SELECT ?1 || id, network FROM networks WHERE id = ?2",
                [REMOVED, &network.id],
            )?;
            transaction.execute("DELETE FROM networks WHERE id = ?", [&network.id])?;
            transaction.execute("DELETE FROM leases WHERE network = ?", [&network.id])?;
            Ok(Ok(()))
        })
    }

    /// Networks that were forgotten, and whose devices may be there.
    pub(crate) fn removed_networks(&self) -> Result<Vec<Network>, DatabaseError> {
        let rows: Vec<String> = self.read("list the networks", |connection| {
            let mut statement =
                connection.prepare("SELECT value FROM choices WHERE key >= ?1 AND key < ?1 || 'g'")?;
            statement.query_map([REMOVED], |row| row.get(0))?.collect()
        })?;
        Ok(rows.iter().filter_map(|json| decode(json)).map(|record| record.network).collect())
    }

    /// The device of a network that was forgotten is gone.
    pub(crate) fn forget_removed(&mut self, id: &str) -> Result<(), DatabaseError> {
        self.write("remove a network", |transaction| {
            transaction.execute("DELETE FROM choices WHERE key = ?1 || ?2", [REMOVED, id]).map(|_| ())
        })
    }

    /// Gives a container other networks: notes its new configuration, frees its addresses in the network `left`, and takes
    /// those of `wishes`, all that it needs with `running`. Gives what it holds then.
    pub(crate) fn change_networks(
        &mut self,
        id: &str,
        config: &ContainerConfig,
        left: Option<&str>,
        wishes: &[Wish],
        running: bool,
    ) -> Result<Result<Vec<Lease>, Refusal>, DatabaseError> {
        let json = containers::compact(config);
        self.write_or_refuse("change the networks of a container", |transaction| {
            if let Some(network) = left {
                transaction
                    .execute("DELETE FROM leases WHERE container = ? AND network = ?", [id, network])?;
            }
            if let Err(refusal) = leases::take(transaction, wishes, id, running)? {
                return Ok(Err(refusal));
            }
            transaction.execute("UPDATE containers SET config = ?2 WHERE id = ?1", params![id, json])?;
            leases::of(transaction, id).map(Ok)
        })
    }

    /// The /48 of unique local IPv6 addresses that this engine's subnets are parts of; `fresh` the first time.
    pub(crate) fn unique_local(&mut self, fresh: Subnet) -> Result<Subnet, DatabaseError> {
        let text: String = self.write("choose an IPv6 prefix", |transaction| {
            transaction.execute(
                "INSERT OR IGNORE INTO choices(key, value) VALUES(?, ?)",
                params![UNIQUE_LOCAL, fresh.to_string()],
            )?;
            transaction.query_row("SELECT value FROM choices WHERE key = ?", [UNIQUE_LOCAL], |row| row.get(0))
        })?;
        Ok(text.parse().unwrap_or(fresh))
    }
}

fn refusal(new: &Network, other: &Network) -> Option<StoreRefusal> {
    if new.name == other.name {
        return Some(StoreRefusal::NameTaken);
    }
    if let (Some(ours), Some(theirs)) = (new.bridge(), other.bridge())
        && ours.device == theirs.device
    {
        return Some(StoreRefusal::BridgeTaken { device: ours.device.clone(), network: other.name.clone() });
    }
    let pairs =
        new.subnets.iter().flat_map(|one| other.subnets.iter().map(move |two| (one.subnet, two.subnet)));
    pairs
        .filter(|(one, two)| one.overlaps(two))
        .map(|(subnet, two)| StoreRefusal::Overlap { subnet, network: other.name.clone(), other: two })
        .next()
}

fn networks_in(connection: &rusqlite::Connection) -> rusqlite::Result<Vec<NetworkRecord>> {
    let mut statement = connection.prepare_cached("SELECT network FROM networks ORDER BY name")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    rows.filter_map(|json| json.map(|json| decode(&json)).transpose()).collect()
}

fn encode(record: &NetworkRecord) -> String {
    serde_json::to_string(record).unwrap_or_default()
}

fn decode(json: &str) -> Option<NetworkRecord> {
    serde_json::from_str(json).ok()
}
