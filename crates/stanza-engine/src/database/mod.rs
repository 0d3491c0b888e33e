//! What the user asked for, in one SQLite file that any number of processes share.
//!
//! ```text
//! containers  seq | id | name | config | facts | created_at | phase | exit      config, facts, exit: JSON
//! leases      address -> container                                               IPv4 addresses in use
//! id_ranges   base -> container                                                  user namespace id ranges
//! networks    name -> bridge, subnet, gateway                                    JSON
//! volumes     name | anonymous | labels | created_at
//! ```
//!
//! Invariants: a name, an address and an id range have at most one owner, held by the file's UNIQUE constraints and
//! not by any lock of ours; a change is one `BEGIN IMMEDIATE` transaction. What is alive is not in here: `phase` says
//! only whether a start was ever begun and whether its end was seen.
//!
//! Speed: processes live for milliseconds, so the file is in WAL mode with `synchronous=NORMAL` (a commit is no
//! fsync; a power failure may lose the newest transactions but never the file), and closing does not checkpoint
//! (SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE). The first process to open the file reads the whole log to rebuild its index,
//! so the log is kept short: [`LONGEST_LOG`].
//!
//! The file is made under another name and linked to its own when it is whole, so nobody ever opens half a schema.

mod containers;
mod idranges;
mod leases;
mod volumes;

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use stanza_spec::{Classify, ErrorKind};

pub(crate) use containers::{Insert, InsertError, Phase, Record, Row};

/// Length of the write-ahead log in bytes, some hundred pages, from which on closing moves it into the file (two fsyncs)
/// and empties it. A `run --rm` writes about ten pages, so that is every tenth.
///
/// SQLite's own checkpoint does not do for processes that live for milliseconds: what was moved is noted in shared memory
/// only, which the next process makes anew, so the log would never begin again and be read whole by everybody. Measured
/// with it: 18 MB after 1,000 starts, and a start rate of 0.39 of that at the beginning.
const LONGEST_LOG: u64 = 400 << 10;

/// How long a statement waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(20);

/// The steps from each version of the schema to the next; the file's `user_version` counts those done.
const MIGRATIONS: &[&str] = &["
CREATE TABLE containers(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL UNIQUE,
  config TEXT NOT NULL,
  facts TEXT NOT NULL,
  created_at TEXT NOT NULL,
  phase INTEGER NOT NULL,
  exit TEXT
) STRICT;
CREATE TABLE leases(address INTEGER PRIMARY KEY, container TEXT NOT NULL) STRICT;
CREATE TABLE id_ranges(base INTEGER PRIMARY KEY, container TEXT NOT NULL) STRICT;
CREATE TABLE networks(name TEXT PRIMARY KEY, network TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE volumes(
  name TEXT PRIMARY KEY,
  anonymous INTEGER NOT NULL,
  labels TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"];

/// The schema's version that this program writes.
#[expect(clippy::cast_possible_truncation, reason = "a handful of migrations")]
const VERSION: u32 = MIGRATIONS.len() as u32;

/// The database, open.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
}

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be made or opened.
    #[error("cannot open the database `{path}`")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// Its file cannot be made.
    #[error("cannot create the database `{path}`")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: std::io::Error,
    },
    /// Its bytes are not a database of SQLite, or a damaged one.
    #[error("the database `{path}` is damaged")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// A newer stanza wrote it.
    #[error("the database `{path}` has schema version {found}, this stanza knows versions up to {known}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest version that this program knows.
        known: usize,
    },
    /// Another process holds it for too long.
    #[error("the database `{path}` is held by another process")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A statement failed.
    #[error("cannot {what} in the database `{path}`")]
    Statement {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// A record's JSON cannot be read.
    #[error("the record of container `{id}` in the database `{path}` is damaged")]
    Record {
        /// The container.
        id: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Classify for DatabaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            DatabaseError::Create { source, .. } => ErrorKind::of_io(source),
            DatabaseError::Corrupt { .. } | DatabaseError::Record { .. } => ErrorKind::Corrupt,
            DatabaseError::TooNew { .. } => ErrorKind::Unsupported,
            DatabaseError::Busy { .. } => ErrorKind::Unavailable,
            DatabaseError::Open { source, .. } | DatabaseError::Statement { source, .. } => {
                match source.sqlite_error_code() {
                    Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::Exhausted,
                    Some(
                        rusqlite::ErrorCode::ReadOnly
                        | rusqlite::ErrorCode::PermissionDenied
                        | rusqlite::ErrorCode::CannotOpen,
                    ) => ErrorKind::PermissionDenied,
                    _ => ErrorKind::Internal,
                }
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            DatabaseError::Corrupt { path, .. } => Some(format!(
                "restore `{}` from a backup, or move it away together with its `-wal` and `-shm` files: images and volumes are kept, containers are not",
                path.display()
            )),
            DatabaseError::TooNew { .. } => {
                Some("use the newer stanza that wrote it, or another `--root`".to_owned())
            }
            DatabaseError::Record { id, .. } => {
                Some(format!("remove the container with `stanza rm -f {}`", id.get(..12).unwrap_or(id)))
            }
            DatabaseError::Open { source, .. } | DatabaseError::Statement { source, .. }
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) =>
            {
                Some("free some space on its file system".to_owned())
            }
            _ => None,
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        if fs::metadata(log).is_ok_and(|log| log.len() > LONGEST_LOG) {
            // Without waiting: while somebody else uses the file, the last one to leave does it.
            let _ = self.connection.busy_timeout(Duration::ZERO);
            let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }
}

impl Database {
    /// Opens the database, making it (and the directory it is in, by `ensure_dir`) when it does not exist.
    pub(crate) fn open(
        path: &Path,
        ensure_dir: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<Database, DatabaseError> {
        match Database::connect(path) {
            Err(DatabaseError::Open { source, .. })
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen) =>
            {
                // Another process may have made it since: then only the second try is needed.
                if !path.exists() {
                    ensure_dir().and_then(|()| create(path)).map_err(|error| match error.downcast() {
                        Ok(database) => database,
                        Err(source) => DatabaseError::Create { path: path.to_path_buf(), source },
                    })?;
                }
                Database::connect(path)
            }
            result => result,
        }
    }

    fn connect(path: &Path) -> Result<Database, DatabaseError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|source| DatabaseError::Open { path: path.to_path_buf(), source })?;
        let mut database = Database { connection, path: path.to_path_buf() };
        database.prepare().map_err(|source| database.classify(source))?;
        let version = database
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
            .map_err(|source| database.classify(source))?;
        let version = usize::try_from(version).unwrap_or(usize::MAX);
        if version > MIGRATIONS.len() {
            return Err(DatabaseError::TooNew {
                path: path.to_path_buf(),
                found: version,
                known: MIGRATIONS.len(),
            });
        }
        if version < MIGRATIONS.len() {
            database.migrate().map_err(|source| database.classify(source))?;
        }
        Ok(database)
    }

    fn prepare(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(BUSY)?;
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        self.connection.execute_batch("PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0;")
    }

    /// Brings an older schema up to date; whoever comes second finds it done.
    fn migrate(&mut self) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        for step in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()
    }

    /// The error of a statement that has no more to say than that the file could not be used.
    fn classify(&self, source: rusqlite::Error) -> DatabaseError {
        self.failure("read", source)
    }

    fn failure(&self, what: &'static str, source: rusqlite::Error) -> DatabaseError {
        use rusqlite::ErrorCode as Code;
        let path = self.path.clone();
        match source.sqlite_error_code() {
            Some(Code::NotADatabase | Code::DatabaseCorrupt) => DatabaseError::Corrupt { path, source },
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => DatabaseError::Busy { path },
            Some(Code::CannotOpen) => DatabaseError::Open { path, source },
            _ => DatabaseError::Statement { what, path, source },
        }
    }

    /// Runs `body` in one transaction that holds the write lock from its start.
    fn write<T>(
        &mut self,
        what: &'static str,
        body: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let result = (|| {
            let transaction =
                rusqlite::Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        result.map_err(|source| self.failure(what, source))
    }

    fn read<T>(
        &self,
        what: &'static str,
        body: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        body(&self.connection).map_err(|source| self.failure(what, source))
    }

    /// Whether the whole file is sound, slowly; `Err` says what is not.
    pub(crate) fn verify(&self) -> Result<(), DatabaseError> {
        let answer = self.read("check", |connection| {
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        })?;
        if answer == "ok" {
            return Ok(());
        }
        let source = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(answer),
        );
        Err(DatabaseError::Corrupt { path: self.path.clone(), source })
    }
}

#[cfg(test)]
impl Database {
    /// Makes a record unreadable, for tests.
    pub(crate) fn damage(&self, id: &str) {
        self.connection
            .execute("UPDATE containers SET config = '{' WHERE id = ?", [id])
            .expect("the table is there");
    }
}

/// Makes the file under a name of its own and links it to `path`; that another process was faster is a success.
fn create(path: &Path) -> std::io::Result<()> {
    let draft = path.with_extension(format!("db.{}", crate::names::container_id()?.short()));
    let remove_draft = || {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = draft.clone().into_os_string();
            name.push(suffix);
            let _ = fs::remove_file(name);
        }
    };
    // The other files of the database take their mode from this one.
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let fill = || -> rusqlite::Result<()> {
        let mut connection = Connection::open(&draft)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let transaction = connection.transaction()?;
        for step in MIGRATIONS {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
        // Closing does it too, but does not tell of a full disk, and the log is not linked: half a file would stay.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        connection.close().map_err(|(_, error)| error)
    };
    let result = fill()
        .map_err(|source| std::io::Error::other(DatabaseError::Open { path: path.to_path_buf(), source }))
        .and_then(|()| match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    remove_draft();
    result
}

#[cfg(test)]
pub(crate) mod tests;
