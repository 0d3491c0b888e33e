//! Room for transactions on a full disk: who removes containers there wants to make room, and must not need any.
//!
//! ```text
//!   -wal   | header | frames … |     allocated, beyond the end     |
//!                              ^ length: what SQLite sees   ROOM ──▶
//!   .db    | pages | pages that are in the log only, and MARGIN    |
//!                  ^ length
//! ```
//!
//! The blocks are the files' own, so nobody else takes them in between, and a crash leaves nothing to clear. When those of the log
//! are used up, it is moved into the file, which has a block for each of its pages, and begun again in its own blocks.
//!
//! Invariant: whoever wrote leaves this room behind, if the disk has it. Whoever is killed first leaves it to the next one.

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use rustix::fs::{FallocateFlags, fallocate};

/// Bytes beyond the log's end when they are allocated: for some dozen transactions, so that not every process has to.
const ROOM: u64 = 256 << 10;
/// With fewer bytes they are allocated again. The removal of a container writes ten pages of 4 KiB at most, the end of one that
/// ran as many.
const LEAST_ROOM: u64 = 96 << 10;
/// Bytes beyond the file's last page: an end that is noted on the full disk can make it longer.
const MARGIN: u64 = 128 << 10;
/// With fewer bytes they are allocated again.
const LEAST_MARGIN: u64 = 32 << 10;

/// Allocates the room when it is dropped, if asked to. To be dropped after the connection: closing any descriptor of the file
/// lets go the locks that SQLite holds on it for this process.
#[derive(Debug)]
pub(super) struct Room {
    path: PathBuf,
    /// The file's length in bytes when all of the log is in it; 0: nothing was written.
    pub(super) whole: u64,
}

impl Room {
    pub(super) fn of(path: &Path) -> Room {
        Room { path: path.to_path_buf(), whole: 0 }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Not by whoever only looks: what takes space does not change by looking at it.
        if self.whole > 0 {
            allocate(&self.path, self.whole, [LEAST_MARGIN, MARGIN]);
            let log = log_of(&self.path);
            if let Ok(metadata) = log.metadata() {
                allocate(&log, metadata.len(), [LEAST_ROOM, ROOM]);
            }
        }
    }
}

/// Has the file blocks up to `used` and `room` bytes more, when they are not up to `least` more. On a disk that has none there is
/// nothing to be done about it.
fn allocate(path: &Path, used: u64, [least, room]: [u64; 2]) {
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return };
    let Ok(metadata) = file.metadata() else { return };
    if metadata.blocks() * 512 >= used + least {
        return;
    }
    let up_to = |end: u64| {
        let begin = metadata.len().min(end);
        fallocate(&file, FallocateFlags::KEEP_SIZE, begin, end - begin)
    };
    let _ = up_to(used + room).or_else(|_| up_to(used + least));
}

/// The write-ahead log of a database.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.to_path_buf().into_os_string();
    log.push("-wal");
    log.into()
}

/// The file's length in bytes when all of the log is in it.
pub(super) fn whole(connection: &Connection) -> u64 {
    let pragma = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let bytes = pragma("PRAGMA page_count").and_then(|pages| Ok(pages * pragma("PRAGMA page_size")?));
    bytes.ok().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)
}

/// Moves the log into the file and has it begin again, without giving its blocks back.
pub(super) fn begin_log_again(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
}

/// Whether SQLite says that the disk is full. Of its index of the log in shared memory it says only that it cannot be made that
/// long.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || code == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}
