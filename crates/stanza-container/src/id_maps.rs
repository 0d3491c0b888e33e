//! The id mappings of a user namespace, and how they are written.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use rustix::process::{Pid, getegid, geteuid};
use stanza_spec::oci::runtime::{Linux, LinuxIdMapping};

use crate::error::LaunchError;

/// Both mappings of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMaps {
    uids: Vec<Range>,
    gids: Vec<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    container: u32,
    host: u32,
    size: u32,
}

fn ranges(mappings: Option<&[LinuxIdMapping]>) -> Vec<Range> {
    let range = |mapping: &LinuxIdMapping| Range {
        container: mapping.container_id(),
        host: mapping.host_id(),
        size: mapping.size(),
    };
    mappings.unwrap_or_default().iter().map(range).collect()
}

impl IdMaps {
    /// A container's.
    pub(crate) fn of(linux: Option<&Linux>) -> IdMaps {
        IdMaps::new(
            linux.and_then(|linux| linux.uid_mappings().as_deref()),
            linux.and_then(|linux| linux.gid_mappings().as_deref()),
        )
    }

    pub(crate) fn new(uids: Option<&[LinuxIdMapping]>, gids: Option<&[LinuxIdMapping]>) -> IdMaps {
        IdMaps { uids: ranges(uids), gids: ranges(gids) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Writes them for the new user namespace that `pid` is in.
    ///
    /// Who is not root may map himself alone (user_namespaces(7)) and has the setuid programs `newuidmap` and `newgidmap`
    /// map what `/etc/subuid` and `/etc/subgid` give him.
    pub(crate) fn write(&self, pid: Pid) -> Result<(), LaunchError> {
        let number = pid.as_raw_nonzero().get();
        let write = |file: &str, text: &str| {
            fs::write(format!("/proc/{number}/{file}"), text)
                .map_err(|source| LaunchError::Step { step: format!("write {file}"), source })
        };
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let alone =
            |ranges: &[Range], own: u32| matches!(ranges, [Range { host, size: 1, .. }] if *host == own);
        if uid == 0 {
            write("uid_map", &text(&self.uids))?;
            return write("gid_map", &text(&self.gids));
        }
        match alone(&self.uids, uid) {
            true => write("uid_map", &text(&self.uids))?,
            false => run("newuidmap", number, &self.uids)?,
        }
        if alone(&self.gids, gid) {
            // Without it the kernel lets nobody but root map a group.
            write("setgroups", "deny")?;
            return write("gid_map", &text(&self.gids));
        }
        run("newgidmap", number, &self.gids)
    }
}

fn text(ranges: &[Range]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.container, range.host, range.size)).collect()
}

fn run(program: &'static str, pid: i32, ranges: &[Range]) -> Result<(), LaunchError> {
    let words = ranges.iter().flat_map(|range| [range.container, range.host, range.size]);
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(words.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LaunchError::Step { step: format!("run {program}"), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    Err(LaunchError::Step {
        step: "map the ids of the user namespace".to_owned(),
        source: io::Error::other(said),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_range_is_a_line() {
        let maps = vec![
            Range { container: 0, host: 1000, size: 1 },
            Range { container: 1, host: 100_000, size: 65_536 },
        ];
        assert_eq!(text(&maps), "0 1000 1\n1 100000 65536\n");
    }
}
