//! Which capabilities a container gets: Docker's 14, and its rules for adding and dropping.

use std::collections::BTreeSet;

use stanza_container::ALL_CAPABILITIES;
use stanza_spec::Security;

use super::SpecError;

/// Docker's default set.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The capabilities of a container, by name, and warnings for those asked for by name that this machine cannot give.
///
/// `available` holds the bits that may be given: what this process has, or all where a user namespace gives them.
pub(crate) fn choose(
    security: &Security,
    available: u64,
) -> Result<(BTreeSet<&'static str>, Vec<String>), SpecError> {
    let add = names(&security.cap_add, "CapAdd")?;
    let drop = names(&security.cap_drop, "CapDrop")?;
    let has_all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let every = ALL_CAPABILITIES.iter().copied();
    let wanted: BTreeSet<&'static str> = if security.privileged {
        every.collect()
    } else if has_all(&security.cap_add) {
        every.filter(|name| !drop.contains(name)).collect()
    } else if has_all(&security.cap_drop) {
        add.clone()
    } else {
        DEFAULT.into_iter().filter(|name| !drop.contains(name)).chain(add.iter().copied()).collect()
    };
    let can = |name: &&'static str| {
        ALL_CAPABILITIES
            .iter()
            .position(|known| known == name)
            .is_some_and(|number| available >> number & 1 == 1)
    };
    let warnings = add
        .iter()
        .filter(|name| wanted.contains(*name) && !can(name))
        .map(|name| format!("this machine does not have {name} to give: the container runs without it"))
        .collect();
    Ok((wanted.into_iter().filter(can).collect(), warnings))
}

/// The known names of a list, `ALL` left out.
fn names(list: &[String], option: &'static str) -> Result<BTreeSet<&'static str>, SpecError> {
    list.iter()
        .filter(|name| *name != "ALL")
        .map(|name| {
            let full = if name.starts_with("CAP_") { name.clone() } else { format!("CAP_{name}") };
            ALL_CAPABILITIES
                .iter()
                .copied()
                .find(|known| **known == full)
                .ok_or_else(|| SpecError::Capability { option, name: name.clone() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = u64::MAX;

    fn choose_names(add: &[&str], drop: &[&str], privileged: bool, available: u64) -> Vec<&'static str> {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security =
            Security { cap_add: list(add), cap_drop: list(drop), privileged, ..Security::default() };
        choose(&security, available).unwrap().0.into_iter().collect()
    }

    #[test]
    fn capabilities_follow_dockers_rules() {
        assert_eq!(choose_names(&[], &[], false, EVERY), DEFAULT);
        assert_eq!(choose_names(&[], &["ALL"], false, EVERY), Vec::<&str>::new());
        assert_eq!(choose_names(&["CAP_NET_ADMIN"], &["ALL"], false, EVERY), ["CAP_NET_ADMIN"]);
        assert_eq!(choose_names(&["ALL"], &["CAP_SYS_ADMIN"], false, EVERY).len(), 40);
        assert_eq!(choose_names(&[], &[], true, EVERY).len(), 41);
        let some = choose_names(&["CAP_SYS_TIME"], &["CAP_MKNOD"], false, EVERY);
        assert!(some.len() == 14 && some.contains(&"CAP_SYS_TIME") && !some.contains(&"CAP_MKNOD"));
        // Added after it was dropped: adding wins.
        assert!(choose_names(&["CAP_MKNOD"], &["CAP_MKNOD"], false, EVERY).contains(&"CAP_MKNOD"));
    }

    #[test]
    fn what_the_machine_cannot_give_is_left_out_and_told_when_asked_for_by_name() {
        let without_resource = EVERY & !(1 << 24);
        assert_eq!(choose_names(&[], &[], true, without_resource).len(), 40);
        let security = Security { cap_add: vec!["CAP_SYS_RESOURCE".into()], ..Security::default() };
        let (chosen, warnings) = choose(&security, without_resource).unwrap();
        assert_eq!((chosen.len(), warnings.len()), (14, 1));
        let security = Security { cap_add: vec!["ALL".into()], ..Security::default() };
        assert_eq!(choose(&security, without_resource).unwrap().1, Vec::<String>::new());
    }

    #[test]
    fn an_unknown_name_is_refused_in_dockers_words() {
        let security = Security { cap_drop: vec!["CAP_NOPE".into()], ..Security::default() };
        let error = choose(&security, EVERY).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapDrop: unknown capability: \"CAP_NOPE\"");
    }
}
