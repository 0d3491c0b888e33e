//! What a tree of processes has used: processor time of a daemon, memory while it works.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::shell::output;

/// Most of what was seen, in KiB: of the process in which it was the most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// `VmHWM`: everything resident, with pages of files.
    pub(super) resident: f64,
    /// `RssAnon`: its own memory, without pages of files.
    pub(super) anonymous: f64,
}

impl Memory {
    /// The larger of each.
    pub(super) fn most(self, other: Memory) -> Memory {
        Memory { resident: self.resident.max(other.resident), anonymous: self.anonymous.max(other.anonymous) }
    }
}

/// The fields of `stat` from the third on: what is before may hold spaces.
fn fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// This process and all below it that live.
fn tree(root: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let parent = fields(pid).and_then(|fields| fields.get(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let (mut found, mut next) = (BTreeSet::new(), vec![root]);
    while let Some(pid) = next.pop() {
        if found.insert(pid) {
            next.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// Processor time of the tree so far, with that of its children that have ended, in milliseconds.
pub(super) fn cpu(root: u32) -> Result<f64, String> {
    let second: f64 = output(&["getconf", "CLK_TCK"])?.trim().parse().map_err(|_| "no `CLK_TCK`")?;
    // utime, stime, cutime, cstime: fields 14 to 17.
    let used =
        |pid| -> Option<f64> { fields(pid)?.get(11..15)?.iter().map(|text| text.parse::<f64>().ok()).sum() };
    Ok(tree(root).into_iter().filter_map(used).sum::<f64>() * 1000.0 / second)
}

/// What the tree holds at this moment.
pub(super) fn memory(root: u32) -> Memory {
    let of = |pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
            value.unwrap_or(0.0)
        };
        Memory { resident: field("VmHWM:"), anonymous: field("RssAnon:") }
    };
    tree(root).into_iter().map(of).fold(Memory::default(), Memory::most)
}
