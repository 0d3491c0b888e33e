//! Device rules as writes to `devices.deny` and `devices.allow`: one write per rule, the kernel takes no more at once.

use std::collections::BTreeMap;
use std::path::Path;

use crate::device::{DeviceKind, DeviceRule};
use crate::file;
use crate::plan::Write;

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";

/// The writes of normal rules, of which the first is about all devices.
pub(super) fn writes(rules: &[DeviceRule]) -> impl Iterator<Item = Write> {
    rules.iter().map(|rule| {
        let file = if rule.allow { ALLOW } else { DENY };
        Write::new(file, text(rule))
    })
}

fn text(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        // The kernel reads no further than this letter.
        DeviceKind::All => return "a".into(),
        DeviceKind::Block => 'b',
        DeviceKind::Character => 'c',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let letters = [(rule.access.read, 'r'), (rule.access.write, 'w'), (rule.access.make, 'm')];
    let access: String = letters.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

/// Whether a write is a device rule.
pub(crate) fn is_rule(write: &Write) -> bool {
    write.file == ALLOW || write.file == DENY
}

/// Whether a write opens all devices.
pub(crate) fn opens_all(write: &Write) -> bool {
    write.file == ALLOW && write.value == "a"
}

/// The writes that lead from the rules that hold in a cgroup to those of `writes`, without shutting what stays open in
/// between: a list of open devices becomes another by its differences. Any other change is written out in full.
pub(crate) fn changes(directory: &Path, writes: Vec<Write>) -> Vec<Write> {
    let Some((first, opened)) = writes.split_first() else { return writes };
    let is_list = first.file == DENY && first.value == "a" && opened.iter().all(|write| write.file == ALLOW);
    let Ok(Some(holds)) = file::read(&directory.join("devices.list")) else { return writes };
    let holds: Vec<&str> = holds.lines().map(str::trim).collect();
    if !is_list || holds.iter().any(|rule| rule.starts_with('a')) {
        return writes;
    }
    let (old, new) =
        (open_nodes(holds.into_iter()), open_nodes(opened.iter().map(|write| write.value.as_str())));
    let beyond = |file: &'static str, more: &Nodes, less: &Nodes| -> Vec<Write> {
        let difference = |(nodes, access): (&String, &String)| {
            let known = less.get(nodes).map_or("", String::as_str);
            let letters: String = access.chars().filter(|letter| !known.contains(*letter)).collect();
            (!letters.is_empty()).then(|| Write::new(file, format!("{nodes} {letters}")))
        };
        more.iter().filter_map(difference).collect()
    };
    [beyond(ALLOW, &new, &old), beyond(DENY, &old, &new)].concat()
}

/// From `<kind> <major>:<minor>` to the letters of what is open.
type Nodes = BTreeMap<String, String>;

fn open_nodes<'a>(rules: impl Iterator<Item = &'a str>) -> Nodes {
    let mut nodes = Nodes::new();
    for (key, access) in rules.filter_map(|rule| rule.rsplit_once(' ')) {
        let letters = nodes.entry(key.to_owned()).or_default();
        for letter in access.chars().filter(|letter| "rwm".contains(*letter)) {
            if !letters.contains(letter) {
                letters.push(letter);
            }
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_open_devices_changes_by_its_differences() {
        let place = tempfile::tempdir().unwrap();
        let changed = |holds: &str, writes: &[(&str, &str)]| {
            std::fs::write(place.path().join("devices.list"), holds).unwrap();
            let writes = writes.iter().map(|(file, value)| Write::new(*file, value)).collect();
            let changes = changes(place.path(), writes);
            let drawn = changes.iter().map(|write| format!("{}={}", &write.file[8..], write.value));
            drawn.collect::<Vec<_>>().join(" ")
        };
        let new =
            [(DENY, "a"), (ALLOW, "c 1:3 rw"), (ALLOW, "c 1:5 r"), (ALLOW, "c 1:5 w"), (ALLOW, "b 8:0 r")];
        assert_eq!(
            changed("c 1:3 rwm\nc 1:5 rw\nc 5:0 rwm\n", &new),
            "allow=b 8:0 r deny=c 1:3 m deny=c 5:0 rwm"
        );
        assert_eq!(changed("a *:* rwm\n", &new[..2]), "deny=a allow=c 1:3 rw");
        assert_eq!(changed("c 1:3 rwm\n", &[(ALLOW, "a")]), "allow=a");
        assert_eq!(changed("c 1:3 rwm\n", &[]), "");
    }
}
