//! Device rules as writes to `devices.deny` and `devices.allow`: one write per rule, the kernel takes no more at once.

use crate::device::{DeviceKind, DeviceRule};
use crate::plan::Write;

/// The writes of normal rules, of which the first is about all devices.
pub(super) fn writes(rules: &[DeviceRule]) -> impl Iterator<Item = Write> {
    rules.iter().map(|rule| {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
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
