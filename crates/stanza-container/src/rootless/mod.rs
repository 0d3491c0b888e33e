//! Root without root: a user namespace in which the calling user is 0 and owns a range of further ids
//! (/etc/subuid, /etc/subgid, mapped by the set-user-id programs newuidmap and newgidmap). One for all that the user's
//! engine does, for as long as any of it runs (`common.rs`).

mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Gid, Uid, getegid, geteuid, getpid};
use stanza_spec::{Classify, ErrorKind};
use stanza_sys::{CloneFlags, Cloned, clone_process};

use crate::launch::reap;
use common::Common;

pub use common::{leave, stay};

/// Why a user namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum RootlessError {
    /// The kernel refuses user namespaces to ordinary users.
    #[error("failed to create a user namespace")]
    Refused(#[source] io::Error),
    /// The child that maps ids could not be started or asked.
    #[error("failed to start the process that maps user ids")]
    Mapper(#[source] io::Error),
    /// The ids could not be mapped.
    #[error("failed to map user ids")]
    Map,
    /// The user's other processes cannot be looked for, or their namespace not be entered.
    #[error("failed to look for the user namespace of the user's containers in `{}`", path.display())]
    Common {
        /// The run root.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A step inside the namespace failed.
    #[error("failed to become root in the user namespace")]
    Become(#[source] io::Error),
}

impl Classify for RootlessError {
    fn kind(&self) -> ErrorKind {
        match self {
            RootlessError::Refused(_) => ErrorKind::PermissionDenied,
            RootlessError::Mapper(_) | RootlessError::Become(_) => ErrorKind::Internal,
            RootlessError::Map => ErrorKind::PermissionDenied,
            RootlessError::Common { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            RootlessError::Refused(_) => Some(
                "allow them with `sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000`, or run as root"
                    .to_owned(),
            ),
            RootlessError::Map => {
                Some("install the package `uidmap` and give the user a range in /etc/subuid and /etc/subgid".to_owned())
            }
            _ => None,
        }
    }
}

/// Ids that a user may map, from the id 1 of the namespace on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

/// The ranges of a user, by name or number (subuid(5)).
fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let owner = fields.next()?;
            let matches = Some(owner) == name || owner.parse() == Ok(uid);
            let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
            (matches && count > 0).then_some(Range { start, count })
        })
        .collect()
}

/// The name that /etc/passwd has for a user.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Enters the user namespace of the user's engine at `runroot` as its root, a new one when nothing of it runs, with mounts
/// of its own. Does nothing for root.
///
/// Without a range of ids only the caller is mapped, and files of other owners in an image cannot be unpacked.
/// The caller must be single-threaded.
///
/// # Errors
/// When the kernel or the mapping programs refuse.
pub fn enter(runroot: &Path) -> Result<(), RootlessError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid == 0 {
        return Ok(());
    }
    let failed = |source| RootlessError::Common { path: runroot.to_owned(), source };
    let common = Common::open(runroot).map_err(failed)?;
    if !common.join().map_err(failed)? {
        create(uid, gid)?;
    }
    let (root, group) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group)
        .and_then(|()| rustix::thread::set_thread_res_uid(root, root, root))
        .map_err(|error| RootlessError::Become(error.into()))?;
    common.note().map_err(failed)
}

/// Enters a new user and mount namespace.
fn create(uid: u32, gid: u32) -> Result<(), RootlessError> {
    let name = user_name(uid);
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let uids = ranges(&read("/etc/subuid"), name.as_deref(), uid);
    let gids = ranges(&read("/etc/subgid"), name.as_deref(), uid);

    // The mapping programs must run outside the namespace, so a child is left there to call them.
    let (mut ours, theirs) = UnixStream::pair().map_err(RootlessError::Mapper)?;
    let target = getpid().as_raw_nonzero().get();
    let pidfd = match clone_process(CloneFlags::NONE, None).map_err(RootlessError::Mapper)? {
        Cloned::Child => {
            drop(ours);
            let mapped = (&theirs).read_exact(&mut [0]).is_ok() && map(target, uid, gid, &uids, &gids);
            let _ = (&theirs).write_all(&[u8::from(mapped)]);
            stanza_sys::exit_process(0)
        }
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let unshared = stanza_sys::unshare(CloneFlags::USER | CloneFlags::MOUNT);
    let mut answer = [0];
    let asked = unshared.is_ok() && ours.write_all(b"x").and_then(|()| ours.read_exact(&mut answer)).is_ok();
    drop(ours);
    reap(&pidfd);
    unshared.map_err(RootlessError::Refused)?;
    if asked && answer == [1] { Ok(()) } else { Err(RootlessError::Map) }
}

/// Maps the caller to 0 and its ranges behind; without ranges or mapping programs, only the caller.
fn map(target: i32, uid: u32, gid: u32, uids: &[Range], gids: &[Range]) -> bool {
    if !uids.is_empty()
        && !gids.is_empty()
        && run("newuidmap", target, uid, uids)
        && run("newgidmap", target, gid, gids)
    {
        return true;
    }
    let write = |file: &str, text: String| fs::write(format!("/proc/{target}/{file}"), text).is_ok();
    write("uid_map", format!("0 {uid} 1\n"))
        && write("setgroups", "deny".to_owned())
        && write("gid_map", format!("0 {gid} 1\n"))
}

fn run(program: &str, target: i32, own: u32, ranges: &[Range]) -> bool {
    let mut command = Command::new(program);
    command.arg(target.to_string()).args(["0", &own.to_string(), "1"]);
    let mut next = 1;
    for range in ranges {
        command.args([next.to_string(), range.start.to_string(), range.count.to_string()]);
        next += range.count;
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "a:100000:65536\n1000:200000:10\nb:1:1\nbroken\na:300000:0\n";
        assert_eq!(ranges(text, Some("a"), 1), [Range { start: 100_000, count: 65_536 }]);
        assert_eq!(ranges(text, Some("x"), 1000), [Range { start: 200_000, count: 10 }]);
        assert_eq!(ranges(text, None, 7), []);
    }
}
