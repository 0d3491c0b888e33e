//! The statistics of `events` out of version 2 files, in version 1's terms.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::cgroup::pids_below;
use crate::events::{
    BlockIo, BlockIoEntry, Cpu, CpuUsage, EventStats, HugePages, Memory, MemoryEntry, Pids, Pressure,
    PressureShare, Throttling, huge_page_sizes, number, rdma, table,
};
use crate::file;

pub(crate) fn read(group: &Path) -> io::Result<EventStats> {
    Ok(EventStats {
        cpu: cpu(group)?,
        memory: memory(group)?,
        pids: pids(group)?,
        blkio: block_io(group)?,
        hugetlb: huge_pages(group)?,
        rdma: rdma(Some(group.to_owned()))?,
        ..EventStats::default()
    })
}

fn cpu(group: &Path) -> io::Result<Cpu> {
    let stat = table(&group.join("cpu.stat"))?;
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    let nanoseconds = |key: &str| get(key).saturating_mul(1000);
    Ok(Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: get("nr_periods"),
            throttled_periods: get("nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
        psi: pressure(&group.join("cpu.pressure"))?,
    })
}

/// Without the controller the processes are counted, as runc does.
fn pids(group: &Path) -> io::Result<Pids> {
    let current = match file::read_number(&group.join("pids.current"))? {
        Some(current) => current,
        None => u64::try_from(pids_below(group)?.len()).unwrap_or(u64::MAX),
    };
    Ok(Pids { current, limit: number(&group.join("pids.max"))? })
}

/// No limit is `u64::MAX`; 0 when the file is not there.
fn limit(path: &Path) -> io::Result<u64> {
    match file::read(path)?.as_deref().map(str::trim) {
        Some("max") => Ok(u64::MAX),
        other => Ok(other.and_then(|text| text.parse().ok()).unwrap_or(0)),
    }
}

fn memory(group: &Path) -> io::Result<Memory> {
    let raw = table(&group.join("memory.stat"))?;
    let events = table(&group.join("memory.events"))?;
    let usage = MemoryEntry {
        limit: limit(&group.join("memory.max"))?,
        usage: number(&group.join("memory.current"))?,
        max: number(&group.join("memory.peak"))?,
        failcnt: events.get("max").copied().unwrap_or(0),
    };
    let (swap_limit, swap_usage) =
        (limit(&group.join("memory.swap.max"))?, number(&group.join("memory.swap.current"))?);
    let swap = MemoryEntry {
        limit: swap_limit.saturating_add(usage.limit),
        usage: swap_usage.saturating_add(usage.usage),
        // The peaks of both need not have been at the same time.
        ..MemoryEntry::default()
    };
    let psi = pressure(&group.join("memory.pressure"))?;
    let cache = raw.get("file").copied().unwrap_or(0);
    Ok(Memory { cache, usage, swap, raw, psi, ..Memory::default() })
}

/// Lines `<major>:<minor> rbytes=1 wbytes=2 rios=3 wios=4 ...`.
fn block_io(group: &Path) -> io::Result<BlockIo> {
    let text = file::read(&group.join("io.stat"))?.unwrap_or_default();
    let mut io = BlockIo { psi: pressure(&group.join("io.pressure"))?, ..BlockIo::default() };
    for line in text.lines() {
        let mut fields = line.split(' ');
        let device = fields.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut io.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut io.io_service_bytes_recursive, "Write"),
                "rios" => (&mut io.io_serviced_recursive, "Read"),
                "wios" => (&mut io.io_serviced_recursive, "Write"),
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            table.push(BlockIoEntry { major, minor, op: op.to_owned(), value });
        }
    }
    Ok(io)
}

fn huge_pages(group: &Path) -> io::Result<BTreeMap<String, HugePages>> {
    let mut pages = BTreeMap::new();
    for size in huge_page_sizes(group, ".current")? {
        let usage = number(&group.join(format!("hugetlb.{size}.current")))?;
        let events = table(&group.join(format!("hugetlb.{size}.events")))?;
        let failcnt = events.get("max").copied().unwrap_or(0);
        pages.insert(size, HugePages { usage, max: 0, failcnt });
    }
    Ok(pages)
}

/// Lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`. `None` on a kernel that does not count, or is told not to.
fn pressure(path: &Path) -> io::Result<Option<Pressure>> {
    let text = match file::read(path) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => None,
        other => other?,
    };
    let Some(text) = text else { return Ok(None) };
    let share = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
        let value = |key: &str| {
            let mut pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == key).map_or("", |(_, value)| value).to_owned()
        };
        let percent = |key: &str| value(key).parse().unwrap_or(0.0);
        PressureShare {
            avg10: percent("avg10"),
            avg60: percent("avg60"),
            avg300: percent("avg300"),
            total: value("total").parse().unwrap_or(0),
        }
    };
    Ok(Some(Pressure { some: share("some"), full: share("full") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_version_1s_terms() {
        let place = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        put("cpu.stat", "usage_usec 15\nuser_usec 10\nsystem_usec 5\nnr_periods 3\nnr_throttled 2\n");
        put("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n");
        put("memory.current", "10\n");
        put("memory.max", "100\n");
        put("memory.swap.current", "5\n");
        put("memory.swap.max", "max\n");
        put("memory.stat", "anon 3\nfile 7\n");
        put("memory.events", "low 0\nmax 2\n");
        put("io.stat", "8:0 rbytes=10 wbytes=0 rios=2 wios=0 dbytes=0 dios=0\n");
        put("hugetlb.2MB.current", "0\n");
        put("hugetlb.2MB.rsvd.current", "0\n");
        put("hugetlb.2MB.events", "max 4\n");
        let stats = serde_json::to_value(read(place.path()).unwrap()).unwrap();
        let none = serde_json::json!({"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0});
        let expected = serde_json::json!({
            "usage": {"total": 15000, "kernel": 5000, "user": 10000},
            "throttling": {"periods": 3, "throttledPeriods": 2},
            "psi": {"some": {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 7}, "full": none},
        });
        assert_eq!(stats["cpu"], expected);
        let zero = serde_json::json!({"limit": 0, "failcnt": 0});
        let expected = serde_json::json!({
            "cache": 7, "usage": {"limit": 100, "usage": 10, "failcnt": 2},
            "swap": {"limit": u64::MAX, "usage": 15, "failcnt": 0}, "kernel": zero, "kernelTCP": zero,
            "raw": {"anon": 3, "file": 7},
        });
        assert_eq!(stats["memory"], expected);
        let expected = serde_json::json!({
            "ioServiceBytesRecursive": [
                {"major": 8, "op": "Read", "value": 10}, {"major": 8, "op": "Write"}],
            "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 2}, {"major": 8, "op": "Write"}],
        });
        assert_eq!(stats["blkio"], expected);
        assert_eq!(stats["hugetlb"], serde_json::json!({"2MB": {"failcnt": 4}}));
    }
}
