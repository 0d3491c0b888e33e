//! OCI resources as writes to version 1 files (`Documentation/admin-guide/cgroup-v1/`).

use std::path::Path;

use stanza_spec::oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources};

use super::devices;
use crate::detect::Hierarchy;
use crate::device;
use crate::location::Location;
use crate::plan::{
    CgroupPlan, Group, Limits, NOT_AVAILABLE, NOT_DELEGATED, PlanError, Version, Warning, Write,
    memory_check, unsupported,
};

/// The controllers whose cgroups every container has: to shut devices, to freeze, to count, and to be limited later.
const ALWAYS: [&str; 6] = ["devices", "freezer", "memory", "pids", "cpu", "cpuacct"];

pub(crate) fn plan(
    hierarchies: &[Hierarchy],
    location: &Location,
    resources: &LinuxResources,
    every: bool,
    may_write: &dyn Fn(&Path, &Path) -> bool,
) -> Result<(CgroupPlan, Vec<Warning>), PlanError> {
    let limits = limits(resources)?;
    let rules = device::normalize(resources.devices().as_deref().unwrap_or_default())?;
    let shut = resources.devices().is_some() && !device::allows_all(&rules);

    let find = |controller: &str| {
        hierarchies.iter().find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    };
    let path = |hierarchy: &Hierarchy| {
        location.below(&hierarchy.root).filter(|path| may_write(&hierarchy.root, path))
    };
    for limit in &limits.writes {
        match find(limit.controller) {
            None => return Err(unsupported(limit.controller, &limit.option, NOT_AVAILABLE)),
            Some(hierarchy) if path(hierarchy).is_none() => {
                return Err(unsupported(limit.controller, &limit.option, NOT_DELEGATED));
            }
            Some(_) => {}
        }
    }
    if shut && find("devices").is_none() {
        return Err(unsupported("devices", "devices", NOT_AVAILABLE));
    }

    let wanted = |name: &String| every || ALWAYS.contains(&name.as_str()) || limits.has(name);
    let mut groups = Vec::with_capacity(hierarchies.len());
    for hierarchy in hierarchies {
        if !hierarchy.controllers.iter().any(wanted) {
            continue;
        }
        let Some(path) = path(hierarchy) else { continue };
        let has = |controller: &str| hierarchy.controllers.iter().any(|name| name == controller);
        let mut writes: Vec<Write> = limits
            .writes
            .iter()
            .filter(|limit| has(limit.controller))
            .map(|limit| limit.write.clone())
            .collect();
        if has("devices") && resources.devices().is_some() {
            writes.extend(devices::writes(&rules));
        }
        let inherit = if has("cpuset") { vec!["cpuset.cpus".into(), "cpuset.mems".into()] } else { vec![] };
        groups.push(Group {
            root: hierarchy.root.clone(),
            path: path.to_owned(),
            controllers: hierarchy.controllers.clone(),
            inherit,
            enable: Vec::new(),
            writes,
        });
    }
    let version = if groups.is_empty() { Version::None } else { Version::V1 };
    let check_memory = memory_check(resources);
    Ok((CgroupPlan { version, groups, check_memory, ..CgroupPlan::default() }, limits.warnings))
}

/// All limits but the device rules, in the order in which the kernel takes them.
pub(crate) fn limits(resources: &LinuxResources) -> Result<Limits, PlanError> {
    let mut limits = Limits::default();
    if let Some(memory) = resources.memory() {
        memory_limits(memory, &mut limits)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(cpu, &mut limits);
    }
    if let Some(pids) = resources.pids() {
        let value = if pids.limit() > 0 { pids.limit().to_string() } else { "max".into() };
        limits.push("pids", "pids.limit", Write::new("pids.max", value));
    }
    if let Some(io) = resources.block_io() {
        io_limits(io, &mut limits);
    }
    for page in resources.hugepage_limits().iter().flatten() {
        let size = page_size(page)?;
        let option = "hugepageLimits";
        let file = format!("hugetlb.{size}.limit_in_bytes");
        limits.push("hugetlb", option, Write::new(file, page.limit()));
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        limits.push("hugetlb", option, Write::new(reserved, page.limit()).optional());
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            limits.push("net_cls", "network.classID", Write::new("net_cls.classid", class));
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            limits.push("net_prio", "network.priorities", Write::new("net_prio.ifpriomap", value));
        }
    }
    rdma_limits(resources, &mut limits);
    if let Some(name) = resources.unified().iter().flat_map(|files| files.keys()).min() {
        return Err(PlanError::UnifiedOnV1(name.clone()));
    }
    Ok(limits)
}

/// The size as the kernel has it in the names of files: `64KB`, `2MB`, `1GB`.
pub(crate) fn page_size(page: &LinuxHugepageLimit) -> Result<&str, PlanError> {
    let size = page.page_size();
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        let reason = "expected a page size, as `2MB`";
        return Err(PlanError::Value { option: "hugepageLimits.pageSize", value: size.clone(), reason });
    }
    Ok(size)
}

/// The limit goes before the limit with swap, which may not be lower.
fn memory_limits(memory: &LinuxMemory, limits: &mut Limits) -> Result<(), PlanError> {
    let controller = "memory";
    if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
        limits.push(controller, "memory.limit", Write::new("memory.limit_in_bytes", limit));
    }
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        check_swap(memory, swap)?;
        limits.push(controller, "memory.swap", Write::new("memory.memsw.limit_in_bytes", swap));
    } else if memory.limit().is_some_and(|limit| limit < 0) {
        // No limit of memory means none of swap either, where swap is counted.
        limits.push(controller, "memory.swap", Write::new("memory.memsw.limit_in_bytes", -1).optional());
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        let write = Write::new("memory.soft_limit_in_bytes", reservation);
        limits.push(controller, "memory.reservation", write);
    }
    if let Some(tcp) = memory.kernel_tcp().filter(|tcp| *tcp != 0) {
        limits.push(controller, "memory.kernelTCP", Write::new("memory.kmem.tcp.limit_in_bytes", tcp));
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            let (option, value) = ("memory.swappiness", swappiness.to_string());
            return Err(PlanError::Value { option, value, reason: "expected 0 to 100" });
        }
        limits.push(controller, "memory.swappiness", Write::new("memory.swappiness", swappiness));
    }
    if memory.disable_oom_killer() == Some(true) {
        limits.push(controller, "memory.disableOOMKiller", Write::new("memory.oom_control", 1));
    }
    let kernel = memory.kernel();
    if kernel.is_some_and(|limit| limit != 0) {
        limits.warn("memory.kernel", "kernels since 5.4 have no limit for kernel memory alone");
    }
    Ok(())
}

/// Memory and swap together cannot be less than memory alone.
pub(crate) fn check_swap(memory: &LinuxMemory, swap: i64) -> Result<(), PlanError> {
    let limit = memory.limit().unwrap_or(0);
    if swap > 0 && limit > 0 && swap < limit {
        let reason = "memory with swap cannot be less than the memory limit";
        return Err(PlanError::Value { option: "memory.swap", value: swap.to_string(), reason });
    }
    Ok(())
}

/// The shares to write. The kernel takes none for a cgroup that is idle.
pub(crate) fn shares(cpu: &LinuxCpu, limits: &mut Limits) -> Option<u64> {
    let shares = cpu.shares().filter(|shares| *shares != 0)?;
    if cpu.idle() == Some(1) {
        limits.warn("cpu.shares", "an idle cgroup has no share of its own");
        return None;
    }
    Some(shares)
}

/// Periods go before what is measured against them; to be idle or not before the shares.
fn cpu_limits(cpu: &LinuxCpu, limits: &mut Limits) {
    let shares = shares(cpu, limits);
    let mut push = |option: &str, file: &str, value: Option<String>| {
        if let Some(value) = value {
            limits.push("cpu", option, Write::new(file, value));
        }
    };
    let text = |value: u64| value.to_string();
    push("cpu.idle", "cpu.idle", cpu.idle().map(|idle| idle.to_string()));
    push("cpu.shares", "cpu.shares", shares.map(text));
    push("cpu.realtimePeriod", "cpu.rt_period_us", cpu.realtime_period().filter(|p| *p != 0).map(text));
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    push("cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime.map(|runtime| runtime.to_string()));
    push("cpu.period", "cpu.cfs_period_us", cpu.period().filter(|period| *period != 0).map(text));
    let quota = cpu.quota().filter(|quota| *quota != 0);
    push("cpu.quota", "cpu.cfs_quota_us", quota.map(|quota| quota.to_string()));
    push("cpu.burst", "cpu.cfs_burst_us", cpu.burst().map(text));

    for (option, file, list) in
        [("cpu.cpus", "cpuset.cpus", cpu.cpus()), ("cpu.mems", "cpuset.mems", cpu.mems())]
    {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            limits.push("cpuset", option, Write::new(file, list));
        }
    }
}

/// Weights exist with the scheduler that honours them: `blkio.weight` (CFQ, gone with 5.0) or `blkio.bfq.weight`.
fn io_limits(io: &LinuxBlockIo, limits: &mut Limits) {
    let controller = "blkio";
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        let write = Write::new("blkio.weight", weight).or("blkio.bfq.weight", weight);
        limits.push(controller, "blockIO.weight", write);
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        limits.push(controller, "blockIO.leafWeight", Write::new("blkio.leaf_weight", weight));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            let write = Write::new("blkio.weight_device", &value).or("blkio.bfq.weight_device", &value);
            limits.push(controller, "blockIO.weightDevice", write);
        }
        if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            limits.push(controller, "blockIO.weightDevice", Write::new("blkio.leaf_weight_device", value));
        }
    }
    let throttles = [
        ("blockIO.throttleReadBpsDevice", "read_bps", io.throttle_read_bps_device()),
        ("blockIO.throttleWriteBpsDevice", "write_bps", io.throttle_write_bps_device()),
        ("blockIO.throttleReadIOPSDevice", "read_iops", io.throttle_read_iops_device()),
        ("blockIO.throttleWriteIOPSDevice", "write_iops", io.throttle_write_iops_device()),
    ];
    for (option, what, devices) in throttles {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            limits.push(controller, option, Write::new(format!("blkio.throttle.{what}_device"), value));
        }
    }
}

/// The same file on both versions.
pub(crate) fn rdma_limits(resources: &LinuxResources, limits: &mut Limits) {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_unstable_by_key(|(name, _)| *name);
    for (name, limit) in devices {
        let mut value = name.clone();
        for (key, count) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(count) = count {
                value.push_str(&format!(" {key}={count}"));
            }
        }
        limits.push("rdma", "rdma", Write::new("rdma.max", value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceRule, Layout};

    fn layout() -> Layout {
        let hierarchy = |names: &[&str]| Hierarchy {
            root: Path::new("/c").join(names.join(",")),
            controllers: names.iter().map(|&name| name.to_owned()).collect(),
        };
        let all: [&[&str]; 9] = [
            &["cpu", "cpuacct"],
            &["cpuset"],
            &["memory"],
            &["devices"],
            &["freezer"],
            &["blkio"],
            &["pids"],
            &["name=systemd"],
            &["hugetlb"],
        ];
        Layout::V1(all.map(hierarchy).to_vec())
    }

    fn planned(resources: serde_json::Value) -> Result<(CgroupPlan, Vec<Warning>), PlanError> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        crate::plan(&layout(), "stanza/abc", &resources, false)
    }

    /// `<hierarchy>: <file>=<value> ...` for each group.
    fn drawn(plan: &CgroupPlan) -> Vec<String> {
        let one = |group: &Group| {
            assert_eq!(group.path, Path::new("stanza/abc"));
            let writes: Vec<String> =
                group.writes.iter().map(|write| format!(" {}={}", write.file, write.value)).collect();
            format!("{}:{}", group.root.display(), writes.concat())
        };
        plan.groups.iter().map(one).collect()
    }

    #[test]
    fn without_limits_only_the_usual_directories_are_made() {
        let (plan, warnings) = planned(serde_json::json!({})).unwrap();
        assert_eq!(drawn(&plan), ["/c/cpu,cpuacct:", "/c/memory:", "/c/devices:", "/c/freezer:", "/c/pids:"]);
        assert_eq!((plan.version, warnings), (Version::V1, vec![]));
    }

    #[test]
    fn every_limit_becomes_a_write_in_the_order_the_kernel_wants() {
        let (plan, warnings) = planned(serde_json::json!({
            "memory": {"limit": 1_048_576, "swap": -1, "reservation": 4096, "swappiness": 0,
                "disableOOMKiller": true, "kernel": 5},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "realtimeRuntime": 10,
                "realtimePeriod": 20, "cpus": "0-1", "mems": "0", "burst": 7},
            "pids": {"limit": -1},
            "blockIO": {"weight": 300, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 3}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 7}],
            "devices": [{"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
        }))
        .unwrap();
        let expected = [
            "/c/cpu,cpuacct: cpu.shares=512 cpu.rt_period_us=20 cpu.rt_runtime_us=10 cpu.cfs_period_us=100000 \
             cpu.cfs_quota_us=50000 cpu.cfs_burst_us=7",
            "/c/cpuset: cpuset.cpus=0-1 cpuset.mems=0",
            "/c/memory: memory.limit_in_bytes=1048576 memory.memsw.limit_in_bytes=-1 \
             memory.soft_limit_in_bytes=4096 memory.swappiness=0 memory.oom_control=1",
            "/c/devices: devices.deny=a devices.allow=c 1:3 rw",
            "/c/freezer:",
            "/c/blkio: blkio.weight=300 blkio.throttle.read_bps_device=8:0 9 \
             blkio.throttle.write_iops_device=8:16 3",
            "/c/pids: pids.max=max",
            "/c/hugetlb: hugetlb.2MB.limit_in_bytes=7 hugetlb.2MB.rsvd.limit_in_bytes=7",
        ];
        assert_eq!(drawn(&plan), expected);
        assert_eq!(plan.groups[1].inherit, ["cpuset.cpus", "cpuset.mems"]);
        assert_eq!(warnings.iter().map(|warning| warning.option).collect::<Vec<_>>(), ["memory.kernel"]);
        assert_eq!(plan.devices, None::<Vec<DeviceRule>>);
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        let refused = |resources| planned(resources).unwrap_err().to_string();
        assert_eq!(
            refused(serde_json::json!({"network": {"classID": 5}})),
            "set `network.classID`: the cgroup controller `net_cls` is not available"
        );
        assert_eq!(
            refused(serde_json::json!({"memory": {"limit": 10, "swap": 9}})),
            "`9` is not a value for `memory.swap`: memory with swap cannot be less than the memory limit"
        );
        for bad in ["", "MB", "2mb", "a\0MB", "../2MB", "2MB\n"] {
            let pages = serde_json::json!({"hugepageLimits": [{"pageSize": bad, "limit": 1}]});
            assert!(matches!(
                planned(pages),
                Err(PlanError::Value { option: "hugepageLimits.pageSize", .. })
            ));
        }
        let unified = serde_json::json!({"unified": {"memory.high": "1"}});
        assert_eq!(planned(unified), Err(PlanError::UnifiedOnV1("memory.high".into())));
    }

    #[test]
    fn without_delegation_there_are_no_groups_and_no_limits() {
        let Layout::V1(hierarchies) = layout() else { unreachable!() };
        let path = Location::same("a/b".into());
        let shut = |_: &Path, _: &Path| false;
        let rules = serde_json::json!({"devices": [{"allow": false}]});
        let (plan, _) =
            super::plan(&hierarchies, &path, &serde_json::from_value(rules).unwrap(), false, &shut).unwrap();
        assert_eq!(plan, CgroupPlan::default());
        let limited = serde_json::json!({"pids": {"limit": 3}});
        let error = super::plan(&hierarchies, &path, &serde_json::from_value(limited).unwrap(), true, &shut);
        assert_eq!(error, Err(unsupported("pids", "pids.limit", NOT_DELEGATED)));
    }
}
