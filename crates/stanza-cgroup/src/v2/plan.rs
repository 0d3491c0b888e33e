//! OCI resources as writes to version 2 files (`Documentation/admin-guide/cgroup-v2.rst`).

use std::path::Path;

use stanza_spec::oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use crate::device;
use crate::plan::{
    CgroupPlan, Enable, Group, Limits, NOT_AVAILABLE, NOT_DELEGATED, PlanError, Version, Warning, Write,
    memory_check, unsupported,
};
use crate::v1;

/// The controllers that give statistics; handed down when they can be.
const USEFUL: [&str; 4] = ["cpu", "io", "memory", "pids"];

pub(crate) fn plan(
    root: &Path,
    controllers: &[String],
    path: &Path,
    resources: &LinuxResources,
    may_write: &dyn Fn(&Path, &Path) -> bool,
) -> Result<(CgroupPlan, Vec<Warning>), PlanError> {
    let limits = limits(resources)?;
    let there = |controller: &str| controllers.iter().any(|name| name == controller);
    let open = may_write(root, path);
    for limit in &limits.writes {
        // `cgroup.*` files need no controller.
        if limit.controller != "cgroup" && !there(limit.controller) {
            return Err(unsupported(limit.controller, &limit.option, NOT_AVAILABLE));
        }
        if !open {
            return Err(unsupported(limit.controller, &limit.option, NOT_DELEGATED));
        }
    }
    let files = unified(resources)?;
    for write in &files {
        let controller = write.controller();
        if controller != "cgroup" && !there(controller) {
            return Err(unsupported(controller, &write.file, NOT_AVAILABLE));
        }
        if !open {
            return Err(unsupported(controller, &write.file, NOT_DELEGATED));
        }
    }
    let rules = device::normalize(resources.devices().as_deref().unwrap_or_default())?;
    if !open {
        return Ok((CgroupPlan::default(), limits.warnings));
    }

    let needed = |name: &str| limits.has(name) || files.iter().any(|write| write.controller() == name);
    let enable: Vec<Enable> = controllers
        .iter()
        .filter(|name| needed(name) || USEFUL.contains(&name.as_str()))
        .map(|name| Enable { controller: name.clone(), required: needed(name) })
        .collect();
    let mut writes: Vec<Write> = limits.writes.into_iter().map(|limit| limit.write).collect();
    writes.extend(files);
    let group = Group {
        root: root.to_owned(),
        path: path.to_owned(),
        controllers: enable.iter().map(|enable| enable.controller.clone()).collect(),
        inherit: Vec::new(),
        enable,
        writes,
    };
    let devices = resources.devices().is_some().then_some(rules);
    let check_memory = memory_check(resources);
    let groups = vec![group];
    let plan = CgroupPlan { version: Version::V2, groups, devices, check_memory, ..CgroupPlan::default() };
    Ok((plan, limits.warnings))
}

fn limits(resources: &LinuxResources) -> Result<Limits, PlanError> {
    let mut limits = Limits::default();
    if let Some(memory) = resources.memory() {
        memory_limits(memory, &mut limits)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(cpu, &mut limits);
    }
    if let Some(pids) = resources.pids() {
        limits.push("pids", "pids.limit", Write::new("pids.max", number_or_max(pids.limit())));
    }
    if let Some(io) = resources.block_io() {
        io_limits(io, &mut limits);
    }
    for page in resources.hugepage_limits().iter().flatten() {
        let size = v1::page_size(page)?;
        let option = "hugepageLimits";
        limits.push("hugetlb", option, Write::new(format!("hugetlb.{size}.max"), page.limit()));
        let reserved = Write::new(format!("hugetlb.{size}.rsvd.max"), page.limit()).optional();
        limits.push("hugetlb", option, reserved);
    }
    if let Some(network) = resources.network() {
        let asked = network.class_id().is_some_and(|class| class != 0)
            || network.priorities().as_ref().is_some_and(|list| !list.is_empty());
        if asked {
            limits.warn("network", "cgroups of version 2 do not mark packets");
        }
    }
    v1::rdma_limits(resources, &mut limits);
    Ok(limits)
}

/// `max` for what OCI writes as -1 or 0.
fn number_or_max(value: i64) -> String {
    if value > 0 { value.to_string() } else { "max".into() }
}

/// Version 2 limits swap alone, OCI limits memory and swap together.
fn memory_limits(memory: &LinuxMemory, limits: &mut Limits) -> Result<(), PlanError> {
    let controller = "memory";
    let limit = memory.limit().filter(|limit| *limit != 0);
    // No limit of memory means none of swap either, as on version 1.
    let unlimited = limit.filter(|limit| *limit < 0);
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0).or(unlimited) {
        v1::check_swap(memory, swap)?;
        let value = match limit {
            _ if swap < 0 => "max".to_owned(),
            Some(limit) if limit > 0 => (swap - limit).to_string(),
            _ => {
                let reason = "swap can be limited only together with memory";
                return Err(PlanError::Value { option: "memory.swap", value: swap.to_string(), reason });
            }
        };
        let write = Write::new("memory.swap.max", &value);
        // A kernel without swap accounting has nothing to limit.
        let moot = value == "max" || value == "0";
        limits.push(controller, "memory.swap", if moot { write.optional() } else { write });
    }
    if let Some(limit) = limit {
        limits.push(controller, "memory.limit", Write::new("memory.max", number_or_max(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        limits.push(controller, "memory.reservation", Write::new("memory.low", number_or_max(reservation)));
    }
    let kernel = memory.kernel();
    let none = "cgroups of version 2 have no such setting";
    if kernel.is_some_and(|limit| limit != 0) {
        limits.warn("memory.kernel", none);
    }
    if memory.kernel_tcp().is_some_and(|limit| limit != 0) {
        limits.warn("memory.kernelTCP", none);
    }
    if memory.swappiness().is_some() {
        limits.warn("memory.swappiness", none);
    }
    if memory.disable_oom_killer() == Some(true) {
        limits.warn("memory.disableOOMKiller", none);
    }
    Ok(())
}

fn cpu_limits(cpu: &LinuxCpu, limits: &mut Limits) {
    if let Some(idle) = cpu.idle() {
        limits.push("cpu", "cpu.idle", Write::new("cpu.idle", idle));
    }
    if let Some(shares) = v1::shares(cpu, limits) {
        limits.push("cpu", "cpu.shares", Write::new("cpu.weight", weight_of_shares(shares)));
    }
    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    if quota != 0 || period != 0 {
        let period = if period == 0 { 100_000 } else { period };
        let option = if quota == 0 { "cpu.period" } else { "cpu.quota" };
        limits.push("cpu", option, Write::new("cpu.max", format!("{} {period}", number_or_max(quota))));
    }
    if let Some(burst) = cpu.burst() {
        limits.push("cpu", "cpu.burst", Write::new("cpu.max.burst", burst));
    }
    if cpu.realtime_period().is_some_and(|period| period != 0)
        || cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)
    {
        limits.warn("cpu.realtimeRuntime", "cgroups of version 2 do not share out realtime");
    }
    for (option, file, list) in
        [("cpu.cpus", "cpuset.cpus", cpu.cpus()), ("cpu.mems", "cpuset.mems", cpu.mems())]
    {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            limits.push("cpuset", option, Write::new(file, list));
        }
    }
}

/// Shares (2 to 262144, 1024 by default) as a weight (1 to 10000, 100 by default), so that smallest, default and largest
/// meet: the curve that runc and crun use since 2025, in place of the line that made 39 of the default.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    let shares = u32::try_from(shares.clamp(2, 262_144)).expect("clamped to 18 bits");
    let log = f64::from(shares).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the result lies between 1 and 10000"
    )]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// `io.bfq.weight` is there with the scheduler BFQ and has OCI's range of 10 to 1000; `io.weight`, of the cost model,
/// has 1 to 10000.
fn io_limits(io: &LinuxBlockIo, limits: &mut Limits) {
    let wide = |weight: u16| 1 + (u32::from(weight.max(10)) - 10) * 9999 / 990;
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        let write = Write::new("io.bfq.weight", weight).or("io.weight", wide(weight));
        limits.push("io", "blockIO.weight", write);
    }
    if io.leaf_weight().is_some_and(|weight| weight != 0) {
        limits.warn("blockIO.leafWeight", "cgroups of version 2 have no weight of leaves");
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let value = |weight: u32| format!("{}:{} {weight}", device.major(), device.minor());
            let write =
                Write::new("io.bfq.weight", value(weight.into())).or("io.weight", value(wide(weight)));
            limits.push("io", "blockIO.weightDevice", write);
        }
    }
    let throttles = [
        ("blockIO.throttleReadBpsDevice", "rbps", io.throttle_read_bps_device()),
        ("blockIO.throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device()),
        ("blockIO.throttleReadIOPSDevice", "riops", io.throttle_read_iops_device()),
        ("blockIO.throttleWriteIOPSDevice", "wiops", io.throttle_write_iops_device()),
    ];
    for (option, key, devices) in throttles {
        for device in devices.iter().flatten() {
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            limits.push("io", option, Write::new("io.max", value));
        }
    }
}

/// The files that were named themselves, by name; after the other limits, so that they win.
fn unified(resources: &LinuxResources) -> Result<Vec<Write>, PlanError> {
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort_unstable();
    let write = |(name, value): (&String, &String)| {
        let good = name.split_once('.').is_some_and(|(controller, rest)| {
            !controller.is_empty() && !rest.is_empty() && !name.contains(['/', '\0'])
        });
        // These would take the group apart, or move processes.
        let own = ["cgroup.procs", "cgroup.threads", "cgroup.type", "cgroup.kill", "cgroup.subtree_control"];
        if good && !own.contains(&name.as_str()) {
            Ok(Write::new(name.clone(), value))
        } else {
            Err(PlanError::UnifiedName(name.clone()))
        }
    };
    files.into_iter().map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    fn planned(resources: serde_json::Value) -> Result<(CgroupPlan, Vec<Warning>), PlanError> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        let controllers = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"].map(str::to_owned).to_vec();
        crate::plan(&Layout::V2 { root: "/c".into(), controllers }, "stanza/abc", &resources, false)
    }

    fn drawn(plan: &CgroupPlan) -> Vec<String> {
        let writes = plan.groups.iter().flat_map(|group| &group.writes);
        writes.map(|write| format!("{}={}", write.file, write.value)).collect()
    }

    fn required(plan: &CgroupPlan) -> Vec<&str> {
        let enable = plan.groups.iter().flat_map(|group| &group.enable);
        enable.filter(|enable| enable.required).map(|enable| enable.controller.as_str()).collect()
    }

    #[test]
    fn without_limits_controllers_are_wished_for_but_not_required() {
        let (plan, _) = planned(serde_json::json!({})).unwrap();
        assert_eq!(plan.groups[0].controllers, ["cpu", "io", "memory", "pids"]);
        assert_eq!((drawn(&plan), required(&plan), &plan.devices), (vec![], vec![], &None));
    }

    #[test]
    fn every_limit_becomes_a_write() {
        let (plan, warnings) = planned(serde_json::json!({
            "memory": {"limit": 1000, "swap": 3000, "reservation": 500, "swappiness": 5, "disableOOMKiller": true},
            "cpu": {"shares": 1024, "quota": 50_000, "cpus": "0", "realtimeRuntime": 5},
            "pids": {"limit": 0},
            "blockIO": {"weight": 1000, "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 7}],
            "unified": {"memory.high": "900", "cgroup.max.depth": "3"},
        }))
        .unwrap();
        let expected = [
            "memory.swap.max=2000",
            "memory.max=1000",
            "memory.low=500",
            "cpu.weight=100",
            "cpu.max=50000 100000",
            "cpuset.cpus=0",
            "pids.max=max",
            "io.bfq.weight=1000",
            "io.max=8:0 wbps=9",
            "hugetlb.2MB.max=7",
            "hugetlb.2MB.rsvd.max=7",
            "cgroup.max.depth=3",
            "memory.high=900",
        ];
        assert_eq!(drawn(&plan), expected);
        assert_eq!(required(&plan), ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"]);
        let weight = &plan.groups[0].writes[7];
        assert_eq!(weight.otherwise, Some(("io.weight".into(), "10000".into())));
        let passed_over: Vec<_> = warnings.iter().map(|warning| warning.option).collect();
        assert_eq!(passed_over, ["memory.swappiness", "memory.disableOOMKiller", "cpu.realtimeRuntime"]);
    }

    #[test]
    fn swap_is_what_is_left_of_memory_and_swap() {
        let swap =
            |memory: serde_json::Value| drawn(&planned(serde_json::json!({"memory": memory})).unwrap().0);
        let unlimited = serde_json::json!({"limit": 1000, "swap": -1});
        assert_eq!(swap(unlimited), ["memory.swap.max=max", "memory.max=1000"]);
        let none = serde_json::json!({"limit": 1000, "swap": 1000});
        assert_eq!(swap(none), ["memory.swap.max=0", "memory.max=1000"]);
        assert_eq!(swap(serde_json::json!({"limit": -1})), ["memory.swap.max=max", "memory.max=max"]);
        let alone = planned(serde_json::json!({"memory": {"swap": 1000}}));
        assert!(matches!(alone, Err(PlanError::Value { option: "memory.swap", .. })));
    }

    #[test]
    fn the_smallest_the_default_and_the_largest_share_meet_their_weights() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight_of_shares), [1, 1, 100, 10_000, 10_000]);
    }

    #[test]
    fn names_that_are_no_limits_are_refused() {
        for bad in ["../x.y", "memory", "a/b.c", ".x", "cgroup.procs", "cgroup.kill"] {
            let error = planned(serde_json::json!({"unified": {bad: "1"}})).unwrap_err();
            assert_eq!(error, PlanError::UnifiedName(bad.into()));
        }
        let error = planned(serde_json::json!({"unified": {"rdma.max": "x"}})).unwrap_err();
        assert_eq!(error, unsupported("rdma", "rdma.max", NOT_AVAILABLE));
    }
}
