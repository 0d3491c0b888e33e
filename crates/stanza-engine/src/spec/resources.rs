//! Limits and device rules for the control groups.

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder,
    LinuxPidsBuilder, LinuxResources,
};
use stanza_spec::{ContainerConfig, Resources};

use super::SpecError;

/// Docker's least limit: below it nothing starts.
const LEAST_MEMORY: u64 = 6 << 20;
const PERIOD: u64 = 100_000;

/// The limits as OCI writes them. `cpus` is the number of processors of this machine.
pub(crate) fn plan(config: &ContainerConfig, cpus: usize) -> Result<LinuxResources, SpecError> {
    let asked = &config.resources;
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(device_rules(config.security.privileged)));
    if let Some(memory) = memory(asked)? {
        resources.set_memory(Some(memory));
    }
    let mut cpu = LinuxCpuBuilder::default();
    let mut limits_cpu = false;
    if let Some(nano) = asked.nano_cpus {
        let most = u64::try_from(cpus).unwrap_or(u64::MAX).saturating_mul(1_000_000_000);
        if !(10_000_000..=most).contains(&nano) {
            return Err(SpecError::Cpus { count: cpus });
        }
        let quota = i64::try_from(nano / (1_000_000_000 / PERIOD)).unwrap_or(i64::MAX);
        cpu = cpu.period(PERIOD).quota(quota);
        limits_cpu = true;
    }
    if let Some(list) = &asked.cpuset_cpus {
        if !is_cpu_list(list) {
            return Err(SpecError::CpuList(list.clone()));
        }
        cpu = cpu.cpus(list.clone());
        limits_cpu = true;
    }
    if limits_cpu {
        resources.set_cpu(cpu.build().ok());
    }
    if let Some(limit) = asked.pids.filter(|limit| *limit != 0) {
        resources.set_pids(LinuxPidsBuilder::default().limit(limit.max(-1)).build().ok());
    }
    Ok(resources)
}

fn memory(asked: &Resources) -> Result<Option<oci_spec::runtime::LinuxMemory>, SpecError> {
    let Some(limit) = asked.memory.filter(|limit| *limit != 0) else {
        return match asked.memory_swap {
            Some(swap) if swap > 0 => Err(SpecError::SwapWithoutMemory),
            _ => Ok(None),
        };
    };
    if limit < LEAST_MEMORY {
        return Err(SpecError::LittleMemory(limit));
    }
    let signed = i64::try_from(limit).unwrap_or(i64::MAX);
    let swap = match asked.memory_swap {
        None | Some(0) => signed.saturating_mul(2),
        Some(swap) if swap < 0 => -1,
        Some(swap) if swap < signed => return Err(SpecError::SwapBelowMemory),
        Some(swap) => swap,
    };
    Ok(LinuxMemoryBuilder::default().limit(signed).swap(swap).build().ok())
}

/// `0-2,5`: numbers and rising ranges.
fn is_cpu_list(text: &str) -> bool {
    text.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits(first)
            && digits(last)
            && matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(a), Ok(b)) if a <= b)
    })
}

/// Docker's device rules: nothing, but for making any node and using the harmless ones.
fn device_rules(privileged: bool) -> Vec<LinuxDeviceCgroup> {
    let rule = |allow: bool, kind: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
        if let Some(major) = major {
            rule = rule.major(major);
        }
        if let Some(minor) = minor {
            rule = rule.minor(minor);
        }
        rule.build().unwrap_or_default()
    };
    if privileged {
        return vec![rule(true, LinuxDeviceType::A, None, None, "rwm")];
    }
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        rule(true, LinuxDeviceType::C, None, None, "m"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
    ];
    // null, zero, full, random, urandom, tty, console, ptmx; and every terminal of /dev/pts.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(true, LinuxDeviceType::C, Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(true, LinuxDeviceType::C, Some(136), None, "rwm"));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(resources: Resources) -> Result<LinuxResources, SpecError> {
        plan(&ContainerConfig { resources, ..Default::default() }, 4)
    }

    #[test]
    fn limits_become_what_docker_makes_of_them() {
        let planned = plan_of(Resources {
            memory: Some(256 << 20),
            nano_cpus: Some(1_500_000_000),
            cpuset_cpus: Some("0-2,3".into()),
            pids: Some(100),
            ..Default::default()
        })
        .unwrap();
        let memory = planned.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(256 << 20), Some(512 << 20)));
        let cpu = planned.cpu().as_ref().unwrap();
        assert_eq!(
            (cpu.quota(), cpu.period(), cpu.cpus().as_deref()),
            (Some(150_000), Some(100_000), Some("0-2,3"))
        );
        assert_eq!(planned.pids().as_ref().unwrap().limit(), 100);
        let none = plan_of(Resources::default()).unwrap();
        assert!(none.memory().is_none() && none.cpu().is_none() && none.pids().is_none());
    }

    #[test]
    fn impossible_limits_are_refused_in_dockers_words() {
        for (resources, words) in [
            (Resources { memory: Some(1), ..Default::default() }, "Minimum memory limit allowed is 6MB"),
            (
                Resources { memory_swap: Some(1), ..Default::default() },
                "You should always set the Memory limit when using Memoryswap limit",
            ),
            (
                Resources { memory: Some(64 << 20), memory_swap: Some(1), ..Default::default() },
                "Minimum memoryswap limit should be larger than memory limit",
            ),
            (
                Resources { nano_cpus: Some(5_000_000_000), ..Default::default() },
                "range of CPUs is from 0.01 to 4.00",
            ),
            (Resources { cpuset_cpus: Some("3-1".into()), ..Default::default() }, "3-1"),
        ] {
            let error = plan_of(resources).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let unlimited = Resources { memory: Some(64 << 20), memory_swap: Some(-1), ..Default::default() };
        assert_eq!(plan_of(unlimited).unwrap().memory().unwrap().swap(), Some(-1));
    }

    #[test]
    fn privileged_uses_every_device() {
        assert_eq!(device_rules(true).len(), 1);
        assert!(!device_rules(false)[0].allow());
    }
}
