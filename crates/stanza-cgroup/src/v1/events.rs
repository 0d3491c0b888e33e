//! The statistics of `events` out of version 1 files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::events::{
    BlockIo, BlockIoEntry, Cpu, CpuSet, CpuUsage, EventStats, HugePages, Memory, MemoryEntry, Pids,
    Throttling, huge_page_sizes, number, rdma, table,
};
use crate::file;

/// `cpuacct.stat` counts in hundredths of a second (`USER_HZ`, the same on all machines that Linux tells programs about).
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// `group` gives the directory of a controller.
pub(crate) fn read(group: &dyn Fn(&str) -> Option<PathBuf>) -> io::Result<EventStats> {
    let mut stats = EventStats::default();
    if let Some(path) = group("cpuacct") {
        stats.cpu.usage = cpu_usage(&path)?;
    }
    if let Some(path) = group("cpu") {
        stats.cpu = Cpu { throttling: throttling(&path)?, ..stats.cpu };
    }
    if let Some(path) = group("cpuset") {
        stats.cpuset = cpuset(&path)?;
    }
    if let Some(path) = group("memory") {
        stats.memory = memory(&path)?;
    }
    if let Some(path) = group("pids") {
        stats.pids =
            Pids { current: number(&path.join("pids.current"))?, limit: number(&path.join("pids.max"))? };
    }
    if let Some(path) = group("blkio") {
        stats.blkio = block_io(&path)?;
    }
    if let Some(path) = group("hugetlb") {
        stats.hugetlb = huge_pages(&path)?;
    }
    stats.rdma = rdma(group("rdma"))?;
    Ok(stats)
}

fn cpu_usage(group: &Path) -> io::Result<CpuUsage> {
    let text = |name: &str| Ok::<_, io::Error>(file::read(&group.join(name))?.unwrap_or_default());
    let numbers = |text: &str| text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let ticks = table(&group.join("cpuacct.stat"))?;
    let time = |key: &str| ticks.get(key).copied().unwrap_or(0).saturating_mul(NANOSECONDS_PER_TICK);
    // The lines after the first are `<processor> <user> <system>`.
    let all = text("cpuacct.usage_all")?;
    let modes: Vec<Vec<u64>> = all.lines().skip(1).map(numbers).collect();
    let mode = |at: usize| modes.iter().map(|line| line.get(at).copied().unwrap_or(0)).collect();
    Ok(CpuUsage {
        total: number(&group.join("cpuacct.usage"))?,
        percpu: numbers(&text("cpuacct.usage_percpu")?),
        percpu_kernel: mode(2),
        percpu_user: mode(1),
        kernel: time("system"),
        user: time("user"),
    })
}

fn throttling(group: &Path) -> io::Result<Throttling> {
    let stat = table(&group.join("cpu.stat"))?;
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    let (periods, throttled_periods) = (get("nr_periods"), get("nr_throttled"));
    Ok(Throttling { periods, throttled_periods, throttled_time: get("throttled_time") })
}

fn cpuset(group: &Path) -> io::Result<CpuSet> {
    let text = |name: &str| {
        Ok::<_, io::Error>(file::read(&group.join(format!("cpuset.{name}")))?.unwrap_or_default())
    };
    let get = |name: &str| number(&group.join(format!("cpuset.{name}")));
    Ok(CpuSet {
        cpus: list(&text("cpus")?),
        cpu_exclusive: get("cpu_exclusive")?,
        mems: list(&text("mems")?),
        mem_hardwall: get("mem_hardwall")?,
        mem_exclusive: get("mem_exclusive")?,
        memory_migrate: get("memory_migrate")?,
        memory_spread_page: get("memory_spread_page")?,
        memory_spread_slab: get("memory_spread_slab")?,
        memory_pressure: get("memory_pressure")?,
        sched_load_balance: get("sched_load_balance")?,
        sched_relax_domain_level: text("sched_relax_domain_level")?.trim().parse().unwrap_or(0),
    })
}

/// `0-2,5` as 0, 1, 2, 5.
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn memory(group: &Path) -> io::Result<Memory> {
    let entry = |kind: &str| {
        let get = |name: &str| number(&group.join(format!("memory.{kind}{name}")));
        Ok::<_, io::Error>(MemoryEntry {
            limit: get("limit_in_bytes")?,
            usage: get("usage_in_bytes")?,
            max: get("max_usage_in_bytes")?,
            failcnt: get("failcnt")?,
        })
    };
    let raw = table(&group.join("memory.stat"))?;
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("")?,
        swap: entry("memsw.")?,
        kernel: entry("kmem.")?,
        kernel_tcp: entry("kmem.tcp.")?,
        raw,
        psi: None,
    })
}

/// BFQ's files, else those of its predecessor, else (always there) those of the throttle, which has two of them.
fn block_io(group: &Path) -> io::Result<BlockIo> {
    let entries = |name: &str| {
        for scheduler in ["bfq.", ""] {
            let found = block_io_entries(&group.join(format!("blkio.{scheduler}{name}_recursive")))?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok::<_, io::Error>(Vec::new())
    };
    let serviced = entries("io_serviced")?;
    if serviced.is_empty() {
        return Ok(BlockIo {
            io_service_bytes_recursive: block_io_entries(
                &group.join("blkio.throttle.io_service_bytes_recursive"),
            )?,
            io_serviced_recursive: block_io_entries(&group.join("blkio.throttle.io_serviced_recursive"))?,
            ..BlockIo::default()
        });
    }
    Ok(BlockIo {
        io_service_bytes_recursive: entries("io_service_bytes")?,
        io_serviced_recursive: serviced,
        io_queued_recursive: entries("io_queued")?,
        io_service_time_recursive: entries("io_service_time")?,
        io_wait_time_recursive: entries("io_wait_time")?,
        io_merged_recursive: entries("io_merged")?,
        io_time_recursive: entries("time")?,
        sectors_recursive: entries("sectors")?,
        psi: None,
    })
}

/// Lines `<major>:<minor> <operation> <number>`, or without the operation; the sum at the end has no device.
fn block_io_entries(path: &Path) -> io::Result<Vec<BlockIoEntry>> {
    let text = file::read(path)?.unwrap_or_default();
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.rsplit_once(' ').unwrap_or(("", rest));
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        Some(BlockIoEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    Ok(text.lines().filter_map(entry).collect())
}

fn huge_pages(group: &Path) -> io::Result<BTreeMap<String, HugePages>> {
    let mut pages = BTreeMap::new();
    for size in huge_page_sizes(group, ".usage_in_bytes")? {
        let get = |name: &str| number(&group.join(format!("hugetlb.{size}.{name}")));
        let (usage, max) = (get("usage_in_bytes")?, get("max_usage_in_bytes")?);
        pages.insert(size.clone(), HugePages { usage, max, failcnt: get("failcnt")? });
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_runcs() {
        let place = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        put("cpuacct.usage", "900\n");
        put("cpuacct.usage_percpu", "500 400 \n");
        put("cpuacct.usage_all", "cpu user system\n0 100 400\n1 300 100\n");
        put("cpuacct.stat", "user 2\nsystem 3\n");
        put("cpu.stat", "nr_periods 4\nnr_throttled 0\nthrottled_time 9\n");
        put("memory.stat", "cache 12\nrss 3\n");
        put("memory.usage_in_bytes", "15\n");
        put("memory.limit_in_bytes", "100\n");
        put("pids.current", "2\n");
        put("pids.max", "max\n");
        put("blkio.throttle.io_service_bytes_recursive", "8:0 Read 10\n8:0 Total 10\nTotal 10\n");
        put("cpuset.cpus", "0-2,5\n");
        put("cpuset.sched_relax_domain_level", "-1\n");
        put("hugetlb.2MB.usage_in_bytes", "2097152\n");
        put("rdma.current", "mlx4_0 hca_handle=2 hca_object=20\n");
        put("rdma.max", "mlx4_0 hca_handle=max hca_object=30\n");
        let stats = read(&|_| Some(place.path().to_owned())).unwrap();
        let zero = serde_json::json!({"limit": 0, "failcnt": 0});
        let expected = serde_json::json!({
            "cpu": {
                "usage": {"total": 900, "percpu": [500, 400], "percpu_kernel": [400, 100],
                    "percpu_user": [100, 300], "kernel": 30_000_000, "user": 20_000_000},
                "throttling": {"periods": 4, "throttledTime": 9},
            },
            "cpuset": {"cpus": [0, 1, 2, 5], "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0,
                "memory_migrate": 0, "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
                "sched_load_balance": 0, "sched_relax_domain_level": -1},
            "memory": {"cache": 12, "usage": {"limit": 100, "usage": 15, "failcnt": 0}, "swap": zero,
                "kernel": zero, "kernelTCP": zero, "raw": {"cache": 12, "rss": 3}},
            "pids": {"current": 2},
            "blkio": {"ioServiceBytesRecursive": [
                {"major": 8, "op": "Read", "value": 10}, {"major": 8, "op": "Total", "value": 10}]},
            "hugetlb": {"2MB": {"usage": 2_097_152, "failcnt": 0}},
            "rdma": {
                "rdma_limit": [{"device": "mlx4_0", "hca_handles": u32::MAX, "hca_objects": 30}],
                "rdma_current": [{"device": "mlx4_0", "hca_handles": 2, "hca_objects": 20}],
            },
            "intel_rdt": {},
            "network_interfaces": null,
        });
        assert_eq!(serde_json::to_value(stats).unwrap(), expected);
    }
}
