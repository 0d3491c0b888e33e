//! The table `leases`: who has which address in which network.
//!
//! The table's primary key is what keeps two containers from having one address. What is chosen anew begins behind the
//! highest address that was chosen, which the key finds in one step: the work does not grow with the number of containers.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use stanza_network::{Network, NetworkSubnet, Subnet, lease};

use super::containers::Phase;
use super::{Database, DatabaseError};

/// An address of a container in a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    /// The network's id.
    pub(crate) network: String,
    /// The address.
    pub(crate) address: IpAddr,
}

/// A lease and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    /// The container's id.
    pub(crate) container: String,
}

/// What a container wants in one network.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) network: Network,
    /// This IPv4 address and no other, for as long as the container is in the network.
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// This IPv6 address and no other, likewise.
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// Why there was no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All addresses of the network are taken.
    NoneLeft { network: String },
    /// The address belongs to the container with this id.
    Taken { address: IpAddr, network: String, container: String },
    /// The network was removed meanwhile.
    Gone { network: String },
}

/// Gives the container what it wants: the addresses it named, and with `all` one of each other family that the network has.
/// What it holds already stays.
pub(super) fn take(
    transaction: &Transaction<'_>,
    wishes: &[Wish],
    container: &str,
    all: bool,
) -> rusqlite::Result<Result<(), Refusal>> {
    for wish in wishes {
        let network = &wish.network;
        let gone = || Refusal::Gone { network: network.name.clone() };
        if !transaction.prepare_cached("SELECT 1 FROM networks WHERE id = ?")?.exists([&network.id])? {
            return Ok(Err(gone()));
        }
        for (ipv6, named) in [(false, wish.ipv4.map(IpAddr::from)), (true, wish.ipv6.map(IpAddr::from))] {
            let taken = match named {
                Some(address) => take_named(transaction, network, address, container)?,
                None if all => take_any(transaction, network, ipv6, container)?,
                None => Ok(()),
            };
            if taken.is_err() {
                return Ok(taken);
            }
        }
    }
    Ok(Ok(()))
}

fn take_named(
    transaction: &Transaction<'_>,
    network: &Network,
    address: IpAddr,
    container: &str,
) -> rusqlite::Result<Result<(), Refusal>> {
    let bytes = bytes_of(address);
    let owner: Option<(String, i64)> = transaction
        .prepare_cached(
            "SELECT container, ifnull((SELECT phase FROM containers WHERE id = container), 0) \
             FROM leases WHERE network = ? AND address = ?",
        )?
        .query_row(params![network.id, bytes], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match owner {
        // It may be asked for again while its owner does not run, who must then ask for it, too.
        Some((owner, phase)) if owner != container && Phase::of_number(phase) == Phase::Started => {
            Ok(Err(Refusal::Taken { address, network: network.name.clone(), container: owner }))
        }
        _ => {
            transaction.execute(
                "INSERT OR REPLACE INTO leases(network, address, container, fixed) VALUES(?, ?, ?, 1)",
                params![network.id, bytes, container],
            )?;
            Ok(Ok(()))
        }
    }
}

fn take_any(
    transaction: &Transaction<'_>,
    network: &Network,
    ipv6: bool,
    container: &str,
) -> rusqlite::Result<Result<(), Refusal>> {
    let mut places = network.subnets.iter().filter(|place| place.subnet.is_ipv6() == ipv6).peekable();
    if places.peek().is_none() {
        return Ok(Ok(()));
    }
    let mut held =
        transaction.prepare_cached("SELECT address FROM leases WHERE container = ? AND network = ?")?;
    let held: Vec<Vec<u8>> =
        held.query_map([container, &network.id], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let fits = |address: IpAddr| address.is_ipv6() == ipv6 && network.subnet_of(address).is_some();
    if held.iter().filter_map(|bytes| address_of(bytes)).any(fits) {
        return Ok(Ok(()));
    }
    for place in places {
        if let Some(address) = choose(transaction, &network.id, place)? {
            transaction.execute(
                "INSERT INTO leases(network, address, container, fixed) VALUES(?, ?, ?, 0)",
                params![network.id, bytes_of(address), container],
            )?;
            return Ok(Ok(()));
        }
    }
    Ok(Err(Refusal::NoneLeft { network: network.name.clone() }))
}

/// A free address of the subnet.
fn choose(
    transaction: &Transaction<'_>,
    network: &str,
    place: &NetworkSubnet,
) -> rusqlite::Result<Option<IpAddr>> {
    let range = place.range.unwrap_or(place.subnet);
    let highest = highest(transaction, network, range)?;
    let mut lookup = transaction.prepare_cached("SELECT 1 FROM leases WHERE network = ? AND address = ?")?;
    let lookup = RefCell::new(&mut lookup);
    let failure = RefCell::new(None);
    let is_taken = |address: IpAddr| {
        let found = lookup.borrow_mut().exists(params![network, bytes_of(address)]);
        // What cannot be asked is not given, and the question's failure is what is told.
        place.is_reserved(address)
            || found.unwrap_or_else(|error| {
                failure.replace(Some(error));
                true
            })
    };
    let chosen = lease::choose(place.subnet, range, &is_taken, highest);
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(chosen),
    }
}

/// The highest address in the range that nobody asked for by name.
fn highest(transaction: &Transaction<'_>, network: &str, range: Subnet) -> rusqlite::Result<Option<IpAddr>> {
    let bytes: Option<Vec<u8>> = transaction
        .prepare_cached(
            "SELECT address FROM leases WHERE network = ?1 AND address BETWEEN ?2 AND ?3 \
             AND length(address) = length(?2) AND fixed = 0 ORDER BY address DESC LIMIT 1",
        )?
        .query_row(params![network, bytes_of(range.network()), bytes_of(range.last())], |row| row.get(0))
        .optional()?;
    Ok(bytes.as_deref().and_then(address_of))
}

/// The leases of one container, by network and address.
pub(super) fn of(connection: &Connection, container: &str) -> rusqlite::Result<Vec<Lease>> {
    let mut statement = connection.prepare_cached(
        "SELECT network, address FROM leases WHERE container = ? ORDER BY network, address",
    )?;
    statement.query_map([container], lease_of)?.collect()
}

/// Every lease, by network and address.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Held>> {
    let mut statement =
        connection.prepare("SELECT network, address, container FROM leases ORDER BY network, address")?;
    statement.query_map([], |row| Ok(Held { lease: lease_of(row)?, container: row.get(2)? }))?.collect()
}

/// Frees what the container got for the time that it runs.
pub(super) fn free_chosen(transaction: &Transaction<'_>, container: &str) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM leases WHERE container = ? AND fixed = 0", [container]).map(|_| ())
}

impl Database {
    /// Notes that a start is begun and takes the addresses for it; gives all that the container holds.
    pub(crate) fn start_with_leases(
        &mut self,
        id: &str,
        wishes: &[Wish],
    ) -> Result<Result<Vec<Lease>, Refusal>, DatabaseError> {
        self.write_or_refuse("take an address", |transaction| {
            if let Err(refusal) = take(transaction, wishes, id, true)? {
                return Ok(Err(refusal));
            }
            transaction.execute("UPDATE containers SET phase = 1, exit = NULL WHERE id = ?", [id])?;
            of(transaction, id).map(Ok)
        })
    }

    /// Frees the chosen addresses of a container that does not run.
    pub(crate) fn free_addresses(&mut self, id: &str) -> Result<(), DatabaseError> {
        self.write("free an address", |transaction| free_chosen(transaction, id))
    }

    /// Every lease, by network and address.
    pub(crate) fn leases(&self) -> Result<Vec<Held>, DatabaseError> {
        self.read("list the addresses", all)
    }

    /// Frees what no container of the table holds; gives the number of rows.
    pub(crate) fn free_orphans(&mut self) -> Result<usize, DatabaseError> {
        self.write("free addresses", |transaction| {
            let leases = transaction.execute(
                "DELETE FROM leases WHERE container NOT IN (SELECT id FROM containers) \
                 OR network NOT IN (SELECT id FROM networks)",
                [],
            )?;
            let ranges = transaction
                .execute("DELETE FROM id_ranges WHERE container NOT IN (SELECT id FROM containers)", [])?;
            Ok(leases + ranges)
        })
    }
}

fn lease_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Lease> {
    let bytes: Vec<u8> = row.get(1)?;
    let address = address_of(&bytes).ok_or(rusqlite::Error::IntegralValueOutOfRange(1, 0))?;
    Ok(Lease { network: row.get(0)?, address })
}

/// Four bytes or sixteen, so that addresses of one family are in order.
pub(super) fn bytes_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
