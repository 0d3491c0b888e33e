//! The ordinary user that rootless tests run as.

use std::fs;

use crate::ORDINARY_USER;

/// An account of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

impl Account {
    /// The ordinary user, when it exists and has subordinate ids.
    ///
    /// # Errors
    /// The reason why rootless tests cannot run.
    pub fn ordinary() -> Result<Account, String> {
        let passwd =
            fs::read_to_string("/etc/passwd").map_err(|error| format!("no `/etc/passwd`: {error}"))?;
        let account = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&ORDINARY_USER))
            .and_then(|fields| {
                Some(Account { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
            })
            .ok_or_else(|| format!("no user `{ORDINARY_USER}` (`cargo xtask test` makes it)"))?;
        for path in ["/etc/subuid", "/etc/subgid"] {
            let entries = fs::read_to_string(path).unwrap_or_default();
            if !entries.lines().any(|line| line.starts_with(&format!("{ORDINARY_USER}:"))) {
                return Err(format!("user `{ORDINARY_USER}` has no entry in `{path}`"));
            }
        }
        if !crate::have("newuidmap") {
            return Err("no `newuidmap` (package uidmap)".to_owned());
        }
        Ok(account)
    }
}
