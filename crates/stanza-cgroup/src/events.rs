//! Statistics in the form of `runc events --stats`: the names and shapes of its JSON, which callers parse.
//!
//! A number that is 0 and a list that is empty are left out where runc leaves them out. Numbers of controllers that are not there
//! are 0. On version 2 the values are put into version 1's terms, as runc does: swap includes memory, no limit is
//! 2^64 - 1.
//!
//! `v1/events.rs` and `v2/events.rs` read them. Network interfaces are not counted: neither does runc for those it did
//! not make itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cgroup::{Cgroup, ControlError, failed};
use crate::file;
use crate::plan::Version;
use crate::rdt::RdtStats;
use crate::{v1, v2};

/// One line of `events`: `{"type":"stats","id":"<id>","data":{...}}`, or of type `oom` without data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event<'a> {
    /// `stats` or `oom`.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// The container.
    pub id: &'a str,
    /// The statistics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a EventStats>,
}

/// All statistics of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EventStats {
    /// Processor time.
    pub cpu: Cpu,
    /// Version 1: the processors and memory nodes that may be used.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices.
    pub blkio: BlockIo,
    /// Huge pages by their size (`2MB`).
    pub hugetlb: BTreeMap<String, HugePages>,
    /// RDMA devices, where there are any.
    #[serde(skip_serializing_if = "Rdma::is_empty")]
    pub rdma: Rdma,
    /// Cache and memory bandwidth.
    pub intel_rdt: RdtStats,
    /// Always absent (`null`).
    pub network_interfaces: Option<Vec<()>>,
}

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// Time not given.
    pub throttling: Throttling,
    /// Version 2: time waited for a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// Version 1: all, for each processor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// Version 1: in the kernel, for each processor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// Version 1: in user mode, for each processor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// What the quota did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which it was enforced.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Periods in which it ran out.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Nanoseconds spent waiting for the next period.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// The files of a version 1 cpuset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each is the file `cpuset.<name>`")]
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    /// Version 1: the kernel's own.
    pub kernel: MemoryEntry,
    /// Version 1: buffers of TCP.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// All of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Version 2: time waited for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// The limit.
    pub limit: u64,
    /// In use.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that was ever in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// Times the limit was reached.
    pub failcnt: u64,
}

/// Numbers of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// The most there may be; 0 without limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Use of block devices, children included.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockIo {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockIoEntry>,
    /// Requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockIoEntry>,
    /// Requests that wait now.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlockIoEntry>,
    /// Nanoseconds of work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlockIoEntry>,
    /// Nanoseconds of waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlockIoEntry>,
    /// Requests that were merged into others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlockIoEntry>,
    /// Time given, in the scheduler's unit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlockIoEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlockIoEntry>,
    /// Version 2: time waited for devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One number of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlockIoEntry {
    /// Major number.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`; empty where there is no difference.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HugePages {
    /// In use.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that was ever in use (version 1).
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// Times the limit was reached.
    pub failcnt: u64,
}

/// Use of RDMA devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rdma {
    /// The limits, 2^32 - 1 for none.
    #[serde(rename = "rdma_limit", skip_serializing_if = "Vec::is_empty")]
    pub limit: Vec<RdmaEntry>,
    /// In use.
    #[serde(rename = "rdma_current")]
    pub current: Vec<RdmaEntry>,
}

impl Rdma {
    fn is_empty(&self) -> bool {
        self.limit.is_empty() && self.current.is_empty()
    }
}

/// One RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RdmaEntry {
    /// Its name.
    pub device: String,
    /// Handles.
    pub hca_handles: u32,
    /// Objects.
    pub hca_objects: u32,
}

/// Time that tasks waited for something ("pressure stall information").
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some tasks.
    pub some: PressureShare,
    /// All tasks at once.
    pub full: PressureShare,
}

/// Shares of time in percent, over the last 10, 60 and 300 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the kernel's names")]
pub struct PressureShare {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    /// Microseconds since the cgroup was made.
    pub total: u64,
}

impl Cgroup {
    /// What the cgroup has used, as `events --stats` tells it. `intel_rdt` is left empty: see [`crate::Rdt::stats`].
    ///
    /// # Errors
    /// When a file cannot be read; one that is not there counts as 0.
    pub fn event_stats(&self) -> Result<EventStats, ControlError> {
        let Some(first) = self.groups.first() else { return Ok(EventStats::default()) };
        let read = match self.version {
            Version::V2 => v2::events::read(&first.directory()),
            _ => v1::events::read(&|controller| self.group(controller)),
        };
        read.map_err(|source| failed("read", &first.directory(), source))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A file with one number; 0 when it is not there or says `max`.
pub(crate) fn number(path: &Path) -> io::Result<u64> {
    Ok(file::read_number(path)?.unwrap_or(0))
}

/// A file of `key number` lines.
pub(crate) fn table(path: &Path) -> io::Result<BTreeMap<String, u64>> {
    let text = file::read(path)?.unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// The sizes of huge pages that a group has files for: `hugetlb.<size>.<name>`.
pub(crate) fn huge_page_sizes(group: &Path, name: &str) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(group) {
        Err(error) if file::is_gone(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut sizes = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let size = file.to_str().and_then(|file| file.strip_prefix("hugetlb.")?.strip_suffix(name));
        sizes.extend(size.filter(|size| !size.contains('.')).map(str::to_owned));
    }
    sizes.sort_unstable();
    Ok(sizes)
}

/// The same files on both versions.
pub(crate) fn rdma(group: Option<PathBuf>) -> io::Result<Rdma> {
    let Some(group) = group else { return Ok(Rdma::default()) };
    let entries = |name: &str| -> io::Result<Vec<RdmaEntry>> {
        let text = file::read(&group.join(name))?.unwrap_or_default();
        let entry = |line: &str| {
            let (device, rest) = line.split_once(' ')?;
            let value = |key: &str| {
                let mut pairs = rest.split(' ').filter_map(|pair| pair.split_once('='));
                pairs.find(|(name, _)| *name == key).map_or(0, |(_, text)| text.parse().unwrap_or(u32::MAX))
            };
            let (hca_handles, hca_objects) = (value("hca_handle"), value("hca_object"));
            Some(RdmaEntry { device: device.to_owned(), hca_handles, hca_objects })
        };
        Ok(text.lines().filter_map(entry).collect())
    };
    Ok(Rdma { limit: entries("rdma.max")?, current: entries("rdma.current")? })
}
