//! The table `leases`: IPv4 addresses of the default bridge.

use std::net::{IpAddr, Ipv4Addr};

use rusqlite::{OptionalExtension, Transaction, params};

use stanza_network::{Network, lease};

use super::{Database, DatabaseError};

/// Takes the lowest free address of the network for `container` (the one it holds already, when it does); `None` when
/// all are taken.
pub(super) fn take(
    transaction: &Transaction<'_>,
    network: &Network,
    container: &str,
) -> rusqlite::Result<Option<Ipv4Addr>> {
    let Some(place) = network.subnets.iter().find(|place| !place.subnet.is_ipv6()) else { return Ok(None) };
    let subnet = place.subnet;
    let held: Option<u32> = transaction
        .query_row("SELECT address FROM leases WHERE container = ?", [container], |row| row.get(0))
        .optional()?;
    if let Some(held) = held.map(Ipv4Addr::from).filter(|held| subnet.contains((*held).into())) {
        return Ok(Some(held));
    }
    let mut statement = transaction.prepare("SELECT address FROM leases ORDER BY address")?;
    let leased: Vec<u32> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let is_taken = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            leased.binary_search(&address.to_bits()).is_ok() || place.is_reserved(address.into())
        }
        IpAddr::V6(_) => true,
    };
    let highest = leased.last().map(|address| Ipv4Addr::from(*address).into());
    let chosen = lease::choose(subnet, place.range.unwrap_or(subnet), &is_taken, highest);
    let chosen = match chosen {
        Some(IpAddr::V4(address)) => Some(address),
        _ => None,
    };
    if let Some(address) = chosen {
        transaction.execute(
            "INSERT INTO leases(address, container) VALUES(?, ?)",
            params![address.to_bits(), container],
        )?;
    }
    Ok(chosen)
}

impl Database {
    /// Notes that a start is begun and takes an address for it; `None` when all are taken.
    pub(crate) fn start_with_lease(
        &mut self,
        id: &str,
        network: &Network,
    ) -> Result<Option<Ipv4Addr>, DatabaseError> {
        self.write("take an address", |transaction| {
            transaction.execute("UPDATE containers SET phase = 1, exit = NULL WHERE id = ?", [id])?;
            take(transaction, network, id)
        })
    }

    /// Frees the address of a container that does not run.
    pub(crate) fn free_address(&mut self, id: &str) -> Result<(), DatabaseError> {
        self.write("free an address", |transaction| {
            transaction.execute("DELETE FROM leases WHERE container = ?", [id]).map(|_| ())
        })
    }

    /// The default network as it was once chosen.
    pub(crate) fn network(&self) -> Result<Option<Network>, DatabaseError> {
        let json: Option<String> = self.read("look up the network", |connection| {
            connection
                .query_row("SELECT network FROM networks WHERE name = 'bridge'", [], |row| row.get(0))
                .optional()
        })?;
        // One that cannot be read is chosen anew.
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// Keeps the choice of the default network.
    pub(crate) fn set_network(&mut self, network: &Network) -> Result<(), DatabaseError> {
        let json = serde_json::to_string(network).unwrap_or_default();
        self.write("note the network", |transaction| {
            transaction
                .execute("INSERT OR REPLACE INTO networks(name, network) VALUES('bridge', ?)", [json])
                .map(|_| ())
        })
    }

    /// Every lease: address and container.
    pub(crate) fn leases(&self) -> Result<Vec<(Ipv4Addr, String)>, DatabaseError> {
        self.read("list the addresses", |connection| {
            let mut statement =
                connection.prepare("SELECT address, container FROM leases ORDER BY address")?;
            let leases =
                statement.query_map([], |row| Ok((Ipv4Addr::from(row.get::<_, u32>(0)?), row.get(1)?)))?;
            leases.collect()
        })
    }

    /// Frees what no container of the table holds; gives the number of rows.
    pub(crate) fn free_orphans(&mut self) -> Result<usize, DatabaseError> {
        self.write("free addresses", |transaction| {
            let leases = transaction
                .execute("DELETE FROM leases WHERE container NOT IN (SELECT id FROM containers)", [])?;
            let ranges = transaction
                .execute("DELETE FROM id_ranges WHERE container NOT IN (SELECT id FROM containers)", [])?;
            Ok(leases + ranges)
        })
    }
}
