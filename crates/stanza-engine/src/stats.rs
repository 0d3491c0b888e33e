//! `stats`: what a container uses, as its control groups and network devices count it.

use std::time::Instant;

use stanza_cgroup::Stats;
use stanza_spec::ContainerId;
use stanza_spec::oci::runtime::LinuxResources;

use crate::container::State;
use crate::find::FindError;
use crate::networks::InterfaceCounters;
use crate::system::machine_memory;
use crate::{Engine, ListError};

/// What a container has used up to a moment.
#[derive(Clone, Debug)]
pub struct ContainerUsage {
    /// Its name.
    pub name: String,
    /// It runs; else everything is empty.
    pub running: bool,
    /// When it was looked at.
    pub at: Instant,
    /// Processor time, memory, processes and block devices; a part is `None` where nothing counts it.
    pub stats: Stats,
    /// Bytes of memory that it may use: its limit, or all of the machine's.
    pub memory_limit: u64,
    /// Its network devices but for loopback; none on the host's network.
    pub interfaces: Vec<InterfaceCounters>,
}

impl Engine {
    /// What a container has used.
    ///
    /// # Errors
    /// When there is no such container, or its state cannot be read.
    pub fn usage(&mut self, id: &ContainerId) -> Result<ContainerUsage, ListError> {
        let record = self.record(id)?;
        let state = self.state(&record)?.ok_or_else(|| FindError::NotFound(id.to_string()))?;
        let running = matches!(state, State::Running(_));
        let stats = if running { self.control_group_stats(id) } else { Stats::default() };
        let machine = machine_memory();
        let limit = stats.memory.and_then(|memory| memory.limit).unwrap_or(machine);
        Ok(ContainerUsage {
            running,
            at: Instant::now(),
            memory_limit: limit.min(machine),
            interfaces: self.counters_of(&record, &state),
            name: record.name,
            stats,
        })
    }

    /// The counters of a container's control groups. One that ended a moment ago, or has none, has no counters.
    fn control_group_stats(&self, id: &ContainerId) -> Stats {
        let Ok(layout) = stanza_cgroup::detect() else { return Stats::default() };
        let path = format!("stanza/{id}");
        // Where its groups are does not depend on its limits.
        let planned = stanza_cgroup::plan(&layout, &path, &LinuxResources::default(), self.options.rootless);
        planned.ok().and_then(|(plan, _)| stanza_cgroup::open(&plan).stats().ok()).unwrap_or_default()
    }
}
