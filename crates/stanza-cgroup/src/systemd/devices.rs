//! Device rules as `DevicePolicy=` and `DeviceAllow=`.

use stanza_spec::oci::runtime::LinuxDeviceCgroup;

use super::plan::Property;
use super::wire::Value;
use crate::device::{self, DeviceKind, DeviceRule};
use crate::plan::PlanError;

/// systemd can only open: rules that shut something after others have opened it are beyond it, and it is told to leave devices
/// alone; the cgroup's own files have the rules in any case.
pub(super) fn properties(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Property>, PlanError> {
    let rules = device::normalize(rules)?;
    let (first, opened) = rules.split_first().expect("normal rules start with one for all");
    let policy =
        |name: &str| Property { name: "DevicePolicy".into(), value: Value::Text(name.into()), since: 0 };
    let allow = |pairs| Property { name: "DeviceAllow".into(), value: Value::Pairs(pairs), since: 0 };
    let listed: Option<Vec<_>> = opened.iter().map(pair).collect();
    // An empty list takes back what was there before.
    Ok(match listed.filter(|_| !first.allow) {
        Some(pairs) => vec![policy("strict"), allow(Vec::new()), allow(pairs)],
        None => vec![policy("auto"), allow(Vec::new())],
    })
}

/// The nodes and the access of a rule that opens; `None` when systemd has no word for it.
fn pair(rule: &DeviceRule) -> Option<(String, String)> {
    let kind = match rule.kind {
        DeviceKind::All => return None,
        DeviceKind::Block => "block",
        DeviceKind::Character => "char",
    };
    let nodes = match (rule.major, rule.minor) {
        _ if !rule.allow => return None,
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => format!("{kind}-{major}"),
        (None, None) => format!("{kind}-*"),
        (None, Some(_)) => return None,
    };
    let letters = [(rule.access.read, 'r'), (rule.access.write, 'w'), (rule.access.make, 'm')];
    Some((nodes, letters.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(rules: serde_json::Value) -> String {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(rules).unwrap();
        let one = |property: Property| format!("{}={:?}", property.name, property.value);
        properties(&rules).unwrap().into_iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rules_become_paths_and_groups() {
        let rule = |kind: &str, major: i64, minor: i64| serde_json::json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": "rm"});
        assert_eq!(
            drawn(serde_json::json!([rule("c", 136, -1), rule("b", -1, -1), rule("c", 1, 3)])),
            "DevicePolicy=Text(\"strict\") DeviceAllow=Pairs([]) DeviceAllow=Pairs([(\"char-136\", \"rm\"), \
             (\"block-*\", \"rm\"), (\"/dev/char/1:3\", \"rm\")])"
        );
    }

    #[test]
    fn what_systemd_cannot_say_is_left_to_the_cgroup() {
        let open = "DevicePolicy=Text(\"auto\") DeviceAllow=Pairs([])";
        assert_eq!(drawn(serde_json::json!([{"allow": true}])), open);
        let shut =
            serde_json::json!([{"allow": true, "type": "c"}, {"allow": false, "type": "c", "major": 1}]);
        assert_eq!(drawn(shut), open);
    }
}
