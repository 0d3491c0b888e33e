//! Users and groups of a container: `user[:group]` against its own /etc/passwd and /etc/group.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use rustix::fs::{Mode, OFlags};

use crate::error::{Failure, What};

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// The home directory of /etc/passwd.
    pub(crate) home: Option<String>,
}

/// A hostile image may bring a file without end; nobody has this many users.
const MAX_FILE: u64 = 8 << 20;
/// The highest id: 4294967295 is the kernel's "no id".
const MAX_ID: u32 = u32::MAX - 1;

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// Lines of a colon-separated file, split; a missing file has none.
fn records(path: &str) -> impl Iterator<Item = Vec<String>> {
    // Without blocking: an image may bring a pipe under this name, which nobody ever writes.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).ok().map(File::from);
    let file = opened.filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()));
    file.into_iter()
        .flat_map(|file| BufReader::new(file.take(MAX_FILE)).split(b'\n').map_while(Result::ok))
        .map(|line| String::from_utf8_lossy(&line).split(':').map(str::to_owned).collect())
}

fn find_account(path: &str, wanted: impl Fn(&Account) -> bool) -> Option<Account> {
    records(path).find_map(|fields| {
        let account = Account {
            name: fields.first()?.clone(),
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: fields.get(5).cloned().unwrap_or_default(),
        };
        wanted(&account).then_some(account)
    })
}

/// A number that is an id: digits only, so that `+5`, `0x0` or ` 1` are names (and not found) instead of root.
fn id(text: &str) -> Option<Result<u32, ()>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse::<u32>().ok().filter(|id| *id <= MAX_ID).ok_or(()))
}

/// Resolves `user[:group]` with the given files; an empty user is 0.
pub(crate) fn resolve(text: &str, passwd: &str, group: &str) -> Result<Identity, Failure> {
    let unknown_user = || Failure::plain(What::UnknownUser(text.to_owned()));
    let (user, wanted_group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if wanted_group == Some("") || (user.is_empty() && wanted_group.is_some()) {
        return Err(unknown_user());
    }
    let user = if user.is_empty() { "0" } else { user };
    let account = find_account(passwd, |account| account.name == user);
    let (uid, account) = match (account, id(user)) {
        (Some(account), _) => (account.uid, Some(account)),
        (None, Some(Ok(uid))) => (uid, find_account(passwd, |account| account.uid == uid)),
        (None, _) => return Err(unknown_user()),
    };
    let mut identity = Identity {
        uid,
        gid: account.as_ref().map_or(0, |account| account.gid),
        groups: Vec::new(),
        home: account.as_ref().map(|account| account.home.clone()).filter(|home| !home.is_empty()),
    };
    if let Some(wanted) = wanted_group {
        let by_name = records(group).find(|fields| fields.first().is_some_and(|name| name == wanted));
        identity.gid = match (by_name.and_then(|fields| fields.get(2)?.parse().ok()), id(wanted)) {
            (Some(gid), _) | (None, Some(Ok(gid))) => gid,
            _ => return Err(Failure::plain(What::UnknownGroup(wanted.to_owned()))),
        };
    } else if let Some(account) = &account {
        identity.groups = records(group)
            .filter(|fields| {
                fields.get(3).is_some_and(|members| members.split(',').any(|name| name == account.name))
            })
            .filter_map(|fields| fields.get(2)?.parse().ok())
            .collect();
    }
    Ok(identity)
}

/// The home directory of a user given by number.
pub(crate) fn home_of(uid: u32, passwd: &str) -> Option<String> {
    find_account(passwd, |account| account.uid == uid)
        .map(|account| account.home)
        .filter(|home| !home.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_files(test: impl Fn(&dyn Fn(&str) -> Result<Identity, Failure>)) {
        let directory = std::env::temp_dir().join(format!(
            "stanza-user-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&directory).unwrap();
        let (passwd, group) = (directory.join("passwd"), directory.join("group"));
        std::fs::write(
            &passwd,
            "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/srv:/bin/sh\n77:x:1077:1078::/n:\n",
        )
        .unwrap();
        std::fs::write(&group, "root:x:0:\nweb:x:34:\nlog:x:40:web,other\nadm:x:4:web\n").unwrap();
        test(&|text| resolve(text, passwd.to_str().unwrap(), group.to_str().unwrap()));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn every_form_of_user_is_resolved() {
        with_files(|resolve| {
            let ids = |text| resolve(text).map(|i| (i.uid, i.gid, i.groups)).unwrap();
            assert_eq!(ids(""), (0, 0, vec![]));
            assert_eq!(ids("web"), (33, 34, vec![40, 4]));
            assert_eq!(ids("33"), (33, 34, vec![40, 4]));
            assert_eq!(ids("web:log"), (33, 40, vec![]));
            assert_eq!(ids("1000"), (1000, 0, vec![]));
            assert_eq!(ids("1000:2000"), (1000, 2000, vec![]));
            // A name of digits is a name first, as in runc.
            assert_eq!(ids("77"), (1077, 1078, vec![]));
            assert_eq!(resolve("web").unwrap().home.as_deref(), Some("/srv"));
        });
    }

    #[test]
    fn what_is_no_user_is_never_root() {
        with_files(|resolve| {
            for bad in [
                "nosuch",
                "1000:",
                ":100",
                ":",
                "+5",
                "-1",
                "4294967295",
                "4294967296",
                "0x0",
                " 0",
                "web:nosuch",
                "0:-1",
            ] {
                assert!(resolve(bad).is_err(), "{bad}");
            }
        });
    }
}
