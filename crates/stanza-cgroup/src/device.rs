//! The rules about device nodes, the same for both versions: who may make, read and write which.

use serde::{Deserialize, Serialize};
use stanza_spec::oci::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::plan::PlanError;

/// Which nodes a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// All nodes of both kinds; such a rule has no numbers and all access.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// What a rule opens or shuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Opening for reading.
    pub read: bool,
    /// Opening for writing.
    pub write: bool,
    /// `mknod`.
    pub make: bool,
}

impl Access {
    /// Everything.
    pub const ALL: Access = Access { read: true, write: true, make: true };
}

/// One rule. In a list the last one that speaks of a node and an access decides; what none speaks of is shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Opens, or shuts.
    pub allow: bool,
    /// Which nodes.
    pub kind: DeviceKind,
    /// Major number; `None` for all.
    pub major: Option<u32>,
    /// Minor number; `None` for all.
    pub minor: Option<u32>,
    /// What is opened or shut.
    pub access: Access,
}

/// The OCI rules in a form that both versions can express: `all` only as the whole, and only as the first rule, since
/// nothing before it has a say any more. A list that starts with no such rule starts with "shut all".
pub(crate) fn normalize(rules: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, PlanError> {
    let everything =
        |allow| DeviceRule { allow, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };
    let mut normal = vec![everything(false)];
    for rule in rules {
        let access = access(rule)?;
        let (major, minor) = (number(rule, rule.major())?, number(rule, rule.minor())?);
        let one = |kind| DeviceRule { allow: rule.allow(), kind, major, minor, access };
        match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A if major.is_none() && minor.is_none() && access == Access::ALL => {
                normal = vec![everything(rule.allow())];
            }
            LinuxDeviceType::A => normal.extend([one(DeviceKind::Block), one(DeviceKind::Character)]),
            LinuxDeviceType::B => normal.push(one(DeviceKind::Block)),
            LinuxDeviceType::C | LinuxDeviceType::U => normal.push(one(DeviceKind::Character)),
            LinuxDeviceType::P => return Err(PlanError::Device { rule: rule.to_string() }),
        }
    }
    Ok(normal)
}

/// Whether normal rules shut nothing.
pub(crate) fn allows_all(rules: &[DeviceRule]) -> bool {
    rules.iter().all(|rule| rule.allow) && rules.first().is_some_and(|rule| rule.kind == DeviceKind::All)
}

fn access(rule: &LinuxDeviceCgroup) -> Result<Access, PlanError> {
    let text = rule.access().as_deref().unwrap_or_default();
    if text.is_empty() {
        return Ok(Access::ALL);
    }
    if !text.bytes().all(|letter| b"rwm".contains(&letter)) {
        return Err(PlanError::Device { rule: rule.to_string() });
    }
    Ok(Access { read: text.contains('r'), write: text.contains('w'), make: text.contains('m') })
}

/// OCI says "all" by nothing or by -1.
fn number(rule: &LinuxDeviceCgroup, number: Option<i64>) -> Result<Option<u32>, PlanError> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => {
            let number = u32::try_from(number).map_err(|_| PlanError::Device { rule: rule.to_string() })?;
            Ok(Some(number))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: serde_json::Value) -> Result<Vec<DeviceRule>, PlanError> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(json).unwrap();
        normalize(&rules)
    }

    #[test]
    fn a_rule_for_all_makes_what_was_before_it_void() {
        let found = rules(serde_json::json!([
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 8, "minor": -1, "access": "r"},
            {"allow": true, "type": "a", "major": 5, "access": "m"},
        ]))
        .unwrap();
        let read = Access { read: true, write: false, make: false };
        let make = Access { read: false, write: false, make: true };
        let rule = |kind, major, access| DeviceRule { allow: true, kind, major, minor: None, access };
        let expected = [
            DeviceRule { allow: false, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL },
            rule(DeviceKind::Block, Some(8), read),
            rule(DeviceKind::Block, Some(5), make),
            rule(DeviceKind::Character, Some(5), make),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn rules_that_no_kernel_knows_are_refused() {
        for bad in [
            serde_json::json!([{"allow": true, "type": "p", "major": 1, "minor": 3}]),
            serde_json::json!([{"allow": true, "type": "c", "access": "rx"}]),
            serde_json::json!([{"allow": true, "type": "c", "major": -7}]),
        ] {
            assert!(matches!(rules(bad), Err(PlanError::Device { .. })));
        }
    }
}
