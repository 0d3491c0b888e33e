//! The table `containers`.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanza_spec::{ContainerConfig, ContainerId};

use super::leases::{self, Lease, Refusal, Wish};
use super::{Database, DatabaseError};
use crate::record::Facts;

/// How far a container's life has got, as far as records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No start was begun.
    Created,
    /// A start was begun; whether it is alive is to be looked at.
    Started,
    /// Its end was seen; `exit` holds it.
    Exited,
}

/// One container, whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Its id.
    pub(crate) id: ContainerId,
    /// Its name.
    pub(crate) name: String,
    /// What was asked for.
    pub(crate) config: ContainerConfig,
    /// What was found out when it was created.
    pub(crate) facts: Facts,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// Records' view of its life.
    pub(crate) phase: Phase,
    /// The exit record's JSON, when its end was seen.
    pub(crate) exit: Option<String>,
    /// The addresses it holds.
    pub(crate) leases: Vec<Lease>,
}

/// One container as it is stored, its JSON not looked into yet.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) name: String,
    config: String,
    facts: String,
    created_at: String,
    pub(crate) phase: Phase,
    exit: Option<String>,
    leases: Vec<Lease>,
}

/// What is stored together with a new container.
pub(crate) struct Insert<'a> {
    /// The container; its `leases` are ignored.
    pub(crate) record: &'a Record,
    /// The name is invented: on conflict the next one that this gives is tried.
    pub(crate) invent: Option<&'a dyn Fn(usize) -> String>,
    /// The networks it is to be in.
    pub(crate) networks: &'a [Wish],
    /// Volumes to record when they are not: name, and whether it is anonymous.
    pub(crate) volumes: &'a [(String, bool)],
}

/// Why a container was not stored.
#[derive(Debug)]
pub(crate) enum InsertError {
    /// The name belongs to the container with this id.
    NameTaken { name: String, owner: String },
    /// An address is not to be had.
    Address(Refusal),
    /// The database.
    Database(DatabaseError),
}

const COLUMNS: &str = "id, name, config, facts, created_at, phase, exit";

/// Names that are tried before an invented name counts as taken.
const INVENTIONS: usize = 12;

impl Database {
    /// Stores a new container, its volumes and its leases in one transaction; gives the name and the addresses it got: all that
    /// it needs when it is started at once, else those that it asked for by name.
    pub(crate) fn insert(&mut self, insert: &Insert<'_>) -> Result<(String, Vec<Lease>), InsertError> {
        let record = insert.record;
        let config = compact(&record.config);
        let facts = compact(&record.facts);
        let outcome = self.write_or_refuse("add a container", |transaction| {
            let name = match free_name(transaction, insert)? {
                Ok(name) => name,
                Err(taken) => return Ok(Err(taken)),
            };
            transaction.execute(
                "INSERT INTO containers(id, name, config, facts, created_at, phase, exit) VALUES(?, ?, ?, ?, ?, ?, ?)",
                params![record.id.as_str(), name, config, facts, record.created_at, record.phase.number(), record.exit],
            )?;
            for (volume, anonymous) in insert.volumes {
                transaction.execute(
                    "INSERT OR IGNORE INTO volumes(name, anonymous, labels, created_at) VALUES(?, ?, '{}', ?)",
                    params![volume, anonymous, record.created_at],
                )?;
            }
            let all = record.phase == Phase::Started;
            match leases::take(transaction, insert.networks, record.id.as_str(), all)? {
                Ok(()) => Ok(Ok((name, leases::of(transaction, record.id.as_str())?))),
                Err(refusal) => Ok(Err(InsertError::Address(refusal))),
            }
        });
        outcome.map_err(InsertError::Database)?
    }

    /// The container with exactly this id.
    pub(crate) fn container(&self, id: &ContainerId) -> Result<Option<Record>, DatabaseError> {
        let row = self.read("look up a container", |connection| {
            let row = connection
                .query_row(
                    &format!("SELECT {COLUMNS} FROM containers WHERE id = ?"),
                    [id.as_str()],
                    Row::from_row,
                )
                .optional()?;
            row.map(|row| Ok(Row { leases: leases::of(connection, id.as_str())?, ..row })).transpose()
        })?;
        row.map(|row| self.decode(&row)).transpose()
    }

    /// Every container, the oldest first.
    pub(crate) fn rows(&self) -> Result<Vec<Row>, DatabaseError> {
        self.read("list the containers", |connection| {
            // One pass over the small table of leases in place of a search per container.
            let mut leases: HashMap<String, Vec<Lease>> = HashMap::new();
            for held in leases::all(connection)? {
                leases.entry(held.container).or_default().push(held.lease);
            }
            let mut statement =
                connection.prepare(&format!("SELECT {COLUMNS} FROM containers ORDER BY seq"))?;
            let rows = statement.query_map([], |row| {
                let row = Row::from_row(row)?;
                let leases = leases.remove(&row.id).unwrap_or_default();
                Ok(Row { leases, ..row })
            })?;
            rows.collect()
        })
    }

    /// Takes a row's JSON apart.
    pub(crate) fn decode(&self, row: &Row) -> Result<Record, DatabaseError> {
        let damaged = |source| DatabaseError::Record { id: row.id.clone(), path: self.path.clone(), source };
        let id = row.id.parse().map_err(|error| damaged(serde::de::Error::custom(error)))?;
        Ok(Record {
            id,
            name: row.name.clone(),
            config: serde_json::from_str(&row.config).map_err(damaged)?,
            facts: serde_json::from_str(&row.facts).map_err(damaged)?,
            created_at: row.created_at.clone(),
            phase: row.phase,
            exit: row.exit.clone(),
            leases: row.leases.clone(),
        })
    }

    /// The ids that `text` may mean: the one with this id, else the one with this name, else those that start with it.
    pub(crate) fn matching(&self, text: &str) -> Result<Vec<String>, DatabaseError> {
        self.read("look up a container", |connection| {
            let exact: Option<String> = connection
                .query_row(
                    "SELECT id FROM containers WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1",
                    [text],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(id) = exact {
                return Ok(vec![id]);
            }
            if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Ok(Vec::new());
            }
            // A range, so that the index is used.
            let mut statement =
                connection.prepare("SELECT id FROM containers WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2")?;
            let found = statement.query_map([text.to_ascii_lowercase()], |row| row.get(0))?;
            found.collect()
        })
    }

    /// Gives the container another name; `Err(owner)` when that belongs to another one.
    pub(crate) fn rename(&mut self, id: &str, name: &str) -> Result<Result<(), String>, DatabaseError> {
        self.write_or_refuse("rename a container", |transaction| {
            if let Some(owner) = owner_of(transaction, name)? {
                return Ok(if owner == id { Ok(()) } else { Err(owner) });
            }
            transaction.execute("UPDATE containers SET name = ?2 WHERE id = ?1", [id, name])?;
            Ok(Ok(()))
        })
    }

    /// Takes a start back that came to nothing: the container is as before, its addresses free but for those asked for by
    /// name.
    pub(crate) fn set_unstarted(
        &mut self,
        id: &str,
        phase: Phase,
        exit: Option<&str>,
    ) -> Result<(), DatabaseError> {
        self.write("note a failed start", |transaction| {
            transaction.execute(
                "UPDATE containers SET phase = ?2, exit = ?3 WHERE id = ?1",
                params![id, phase.number(), exit],
            )?;
            leases::free_chosen(transaction, id)
        })
    }

    /// Notes ends that were seen, and frees the chosen addresses: pairs of id and exit record.
    pub(crate) fn set_exited(&mut self, exits: &[(&str, &str)]) -> Result<(), DatabaseError> {
        self.write("note an exit", |transaction| {
            for (id, exit) in exits {
                transaction.execute(
                    "UPDATE containers SET phase = ?2, exit = ?3 WHERE id = ?1",
                    params![id, Phase::Exited.number(), exit],
                )?;
                leases::free_chosen(transaction, id)?;
            }
            Ok(())
        })
    }

    /// Forgets a container with its addresses, its id range and the named volumes' records; idempotent.
    pub(crate) fn delete_with_volumes(&mut self, id: &str, volumes: &[String]) -> Result<(), DatabaseError> {
        self.write("remove a container", |transaction| {
            transaction.execute("DELETE FROM containers WHERE id = ?", [id])?;
            transaction.execute("DELETE FROM leases WHERE container = ?", [id])?;
            transaction.execute("DELETE FROM id_ranges WHERE container = ?", [id])?;
            for volume in volumes {
                transaction.execute("DELETE FROM volumes WHERE name = ?", [volume])?;
            }
            Ok(())
        })
    }

    /// Forgets a container with its addresses and id range; idempotent.
    pub(crate) fn delete(&mut self, id: &str) -> Result<(), DatabaseError> {
        self.delete_with_volumes(id, &[])
    }
}

fn owner_of(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<String>> {
    transaction.query_row("SELECT id FROM containers WHERE name = ?", [name], |row| row.get(0)).optional()
}

/// The name asked for, or the first invented one that nobody has.
fn free_name(
    transaction: &Transaction<'_>,
    insert: &Insert<'_>,
) -> rusqlite::Result<Result<String, InsertError>> {
    let mut name = insert.record.name.clone();
    for attempt in 1.. {
        let Some(owner) = owner_of(transaction, &name)? else { break };
        match insert.invent {
            Some(invent) if attempt < INVENTIONS => name = invent(attempt),
            _ => return Ok(Err(InsertError::NameTaken { name, owner })),
        }
    }
    Ok(Ok(name))
}

impl Row {
    fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
        Ok(Row {
            id: row.get(0)?,
            name: row.get(1)?,
            config: row.get(2)?,
            facts: row.get(3)?,
            created_at: row.get(4)?,
            phase: Phase::of_number(row.get(5)?),
            exit: row.get(6)?,
            leases: Vec::new(),
        })
    }
}

impl Phase {
    fn number(self) -> i64 {
        match self {
            Phase::Created => 0,
            Phase::Started => 1,
            Phase::Exited => 2,
        }
    }

    pub(super) fn of_number(number: i64) -> Phase {
        match number {
            0 => Phase::Created,
            2 => Phase::Exited,
            _ => Phase::Started,
        }
    }
}

/// JSON without what equals the default: records are read far more often than written, and most fields are defaults.
pub(super) fn compact<T: Serialize + Default + for<'de> Deserialize<'de>>(value: &T) -> String {
    let mut json = serde_json::to_value(value).unwrap_or(Value::Null);
    let default = serde_json::to_value(T::default()).unwrap_or(Value::Null);
    strip(&mut json, &default);
    json.to_string()
}

fn strip(value: &mut Value, default: &Value) {
    if let (Value::Object(value), Value::Object(default)) = (value, default) {
        value.retain(|key, field| match default.get(key) {
            Some(same) if same == field => false,
            // Only structures that have a default of their own may lose fields: those whose default is an object.
            Some(inner @ Value::Object(fields)) if !fields.is_empty() => {
                strip(field, inner);
                true
            }
            _ => true,
        });
    }
}
