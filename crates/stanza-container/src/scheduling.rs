//! How the container's process is scheduled: policy, input and output priority, processors, memory nodes, personality.

use rustix::thread::{CpuSet, sched_setaffinity};
use stanza_spec::oci::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};
use stanza_sys::SchedulingAttributes;

use crate::error::{During, Failure};

/// Applies what the process's own part of the configuration says; before capabilities are dropped.
pub(crate) fn apply(process: &Process) -> Result<(), Failure> {
    if let Some(scheduler) = process.scheduler() {
        let attributes = attributes(scheduler)?;
        stanza_sys::set_scheduling(attributes).during("set the scheduler")?;
    }
    if let Some(priority) = process.io_priority() {
        let (class, level) = io_priority(priority)?;
        stanza_sys::set_io_priority(class, level).during("set the I/O priority")?;
    }
    Ok(())
}

fn attributes(scheduler: &Scheduler) -> Result<SchedulingAttributes, Failure> {
    use LinuxSchedulerFlag as F;
    use LinuxSchedulerPolicy as P;
    let policy = match scheduler.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => 4,
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let flags = scheduler.flags().iter().flatten().fold(0, |bits, flag| {
        bits | match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin => 0x20,
            F::SchedFlagUtilClampMax => 0x40,
        }
    });
    let priority = scheduler.priority().unwrap_or(0);
    let priority = u32::try_from(priority).map_err(|_| {
        Failure::configuration(format!("`{priority}` is no scheduler priority: expected 1 to 99"))
    })?;
    Ok(SchedulingAttributes {
        policy,
        flags,
        nice: scheduler.nice().unwrap_or(0),
        priority,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        ..SchedulingAttributes::default()
    })
}

fn io_priority(priority: &LinuxIOPriority) -> Result<(u32, u32), Failure> {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = priority.priority();
    let level = u32::try_from(level)
        .ok()
        .filter(|level| *level <= 7)
        .ok_or_else(|| Failure::configuration(format!("`{level}` is no I/O priority: expected 0 to 7")))?;
    Ok((class, level))
}

/// Sets how willingly the kernel kills this process and its children when memory is short. To be called while /proc is
/// the host's.
pub(crate) fn set_oom_score(process: &Process) -> Result<(), Failure> {
    match process.oom_score_adj() {
        Some(score) => std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .during("set the out-of-memory score"),
        None => Ok(()),
    }
}

/// Sets the execution domain.
pub(crate) fn apply_personality(personality: &LinuxPersonality) -> Result<(), Failure> {
    if let Some(flag) = personality.flags().iter().flatten().next() {
        return Err(Failure::configuration(format!("personality flag `{flag}` is not supported")));
    }
    let domain = match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    };
    stanza_sys::set_personality(domain).during("set the personality")
}

/// Sets from which nodes memory is taken.
pub(crate) fn apply_memory_policy(policy: &LinuxMemoryPolicy) -> Result<(), Failure> {
    use MemoryPolicyFlagType as F;
    use MemoryPolicyModeType as M;
    let mode = match policy.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |bits, flag| {
        bits | match flag {
            F::MpolFNumaBalancing => 1 << 13,
            F::MpolFRelativeNodes => 1 << 14,
            F::MpolFStaticNodes => 1 << 15,
        }
    });
    let numbers = parse_list(policy.nodes().as_deref().unwrap_or_default())?;
    let mut nodes = vec![0u64; numbers.iter().max().map_or(0, |highest| highest / 64 + 1)];
    for number in numbers {
        nodes[number / 64] |= 1 << (number % 64);
    }
    stanza_sys::set_memory_policy(mode | flags, &nodes).during("set the memory policy")
}

/// Confines this process to the processors in `list`; nothing happens for an empty one.
pub(crate) fn set_affinity(list: &str) -> Result<(), Failure> {
    if list.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for number in parse_list(list)? {
        if number < CpuSet::MAX_CPU {
            set.set(number);
        }
    }
    sched_setaffinity(None, &set).during("set the CPU affinity")
}

/// A list as `0-3,7`: numbers up to 4095.
fn parse_list(text: &str) -> Result<Vec<usize>, Failure> {
    const HIGHEST: usize = 4095;
    let bad = || Failure::configuration(format!("`{text}` is no list of numbers: expected one like `0-3,7`"));
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number <= HIGHEST);
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first).ok_or_else(bad)?, number(last).ok_or_else(bad)?);
        if first > last {
            return Err(bad());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_ranges_and_numbers() {
        assert_eq!(parse_list("0-2,7, 9").unwrap(), [0, 1, 2, 7, 9]);
        assert!(parse_list("").unwrap().is_empty());
        for bad in ["a", "3-1", "1-", "99999", "-1"] {
            assert!(parse_list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scheduler_becomes_the_kernels_numbers() {
        let scheduler: Scheduler = serde_json::from_value(serde_json::json!({
            "policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_RESET_ON_FORK"]
        }))
        .unwrap();
        let found = attributes(&scheduler).unwrap();
        assert_eq!((found.policy, found.nice, found.flags, found.priority), (3, 5, 1, 0));
    }
}
