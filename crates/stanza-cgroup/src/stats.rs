//! What a cgroup has used. A part is `None` when its controller is not there.

use serde::{Deserialize, Serialize};

/// The use of one cgroup, children included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Option<CpuStats>,
    /// Memory.
    pub memory: Option<MemoryStats>,
    /// Processes and threads.
    pub pids: Option<PidsStats>,
    /// Block devices, all together.
    pub io: Option<IoStats>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// All time used.
    pub usage: u64,
    /// The part spent in user mode.
    pub user: u64,
    /// The part spent in the kernel.
    pub system: u64,
    /// Periods in which the quota was enforced.
    pub periods: u64,
    /// Periods in which it ran out.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// All memory charged, page cache included.
    pub usage: u64,
    /// The most that was ever charged; `None` on kernels that do not tell.
    pub peak: Option<u64>,
    /// The limit; `None` without one.
    pub limit: Option<u64>,
    /// Page cache.
    pub cache: u64,
    /// Page cache that can go at once: `docker stats` shows usage without it.
    pub inactive_file: u64,
    /// Anonymous memory.
    pub anonymous: u64,
    /// Swapped out; `None` without swap accounting.
    pub swap: Option<u64>,
    /// Times a process was killed for want of memory.
    pub oom_kills: u64,
}

/// Numbers of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// Tasks now.
    pub current: u64,
    /// The most there may be; `None` without limit.
    pub limit: Option<u64>,
}

/// Input and output on block devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoStats {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
}
