//! Statistics out of version 1 files.

use std::io;
use std::path::Path;

use super::state;
use crate::file::{number_of, read, read_number};
use crate::stats::{CpuStats, IoStats, MemoryStats, PidsStats};

/// What the kernel says where there is no limit: the largest number of whole pages in 63 bits, 4 KiB or larger.
const NO_LIMIT: u64 = 0x7fff_ffff_ffff_0000;

/// `cpu` may be another directory than `cpuacct`, or not there.
pub(crate) fn cpu(cpuacct: &Path, cpu: Option<&Path>) -> io::Result<Option<CpuStats>> {
    let Some(usage) = read_number(&cpuacct.join("cpuacct.usage"))? else { return Ok(None) };
    let mut stats = CpuStats {
        usage,
        user: read_number(&cpuacct.join("cpuacct.usage_user"))?.unwrap_or(0),
        system: read_number(&cpuacct.join("cpuacct.usage_sys"))?.unwrap_or(0),
        ..CpuStats::default()
    };
    if let Some(cpu) = cpu {
        let text = read(&cpu.join("cpu.stat"))?.unwrap_or_default();
        stats.periods = number_of(&text, "nr_periods").unwrap_or(0);
        stats.throttled_periods = number_of(&text, "nr_throttled").unwrap_or(0);
        stats.throttled = number_of(&text, "throttled_time").unwrap_or(0);
    }
    Ok(Some(stats))
}

pub(crate) fn memory(group: &Path) -> io::Result<Option<MemoryStats>> {
    let Some(usage) = read_number(&group.join("memory.usage_in_bytes"))? else { return Ok(None) };
    let text = read(&group.join("memory.stat"))?.unwrap_or_default();
    let total = |key: &str| number_of(&text, key).unwrap_or(0);
    Ok(Some(MemoryStats {
        usage,
        peak: read_number(&group.join("memory.max_usage_in_bytes"))?,
        limit: read_number(&group.join("memory.limit_in_bytes"))?.filter(|limit| *limit < NO_LIMIT),
        cache: total("total_cache"),
        inactive_file: total("total_inactive_file"),
        anonymous: total("total_rss"),
        swap: number_of(&text, "total_swap"),
        oom_kills: state::oom_kills(group)?,
    }))
}

pub(crate) fn pids(group: &Path) -> io::Result<Option<PidsStats>> {
    let Some(current) = read_number(&group.join("pids.current"))? else { return Ok(None) };
    Ok(Some(PidsStats { current, limit: read_number(&group.join("pids.max"))? }))
}

pub(crate) fn io(group: &Path) -> io::Result<Option<IoStats>> {
    let Some(bytes) = read(&group.join("blkio.throttle.io_service_bytes_recursive"))? else {
        return Ok(None);
    };
    let requests = read(&group.join("blkio.throttle.io_serviced_recursive"))?.unwrap_or_default();
    Ok(Some(IoStats {
        read_bytes: sum(&bytes, "Read"),
        write_bytes: sum(&bytes, "Write"),
        reads: sum(&requests, "Read"),
        writes: sum(&requests, "Write"),
    }))
}

/// The sum over devices of lines `<major>:<minor> <operation> <number>`.
fn sum(text: &str, operation: &str) -> u64 {
    let number = |line: &str| {
        let mut fields = line.split(' ');
        let (_, name, number) = (fields.next()?, fields.next()?, fields.next()?);
        (name == operation).then(|| number.parse::<u64>().ok())?
    };
    text.lines().filter_map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_from_their_files() {
        let place = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        assert_eq!(cpu(place.path(), None).unwrap(), None);
        put("cpuacct.usage", "1500\n");
        put("cpuacct.usage_user", "1000\n");
        put("cpuacct.usage_sys", "500\n");
        put("cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 77\n");
        let expected = CpuStats {
            usage: 1500,
            user: 1000,
            system: 500,
            periods: 3,
            throttled_periods: 2,
            throttled: 77,
        };
        assert_eq!(cpu(place.path(), Some(place.path())).unwrap(), Some(expected));
        put("memory.usage_in_bytes", "8192\n");
        put("memory.limit_in_bytes", "9223372036854771712\n");
        put("memory.stat", "cache 1\ntotal_cache 4096\ntotal_rss 2048\ntotal_inactive_file 1024\n");
        put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        let expected = MemoryStats {
            usage: 8192,
            cache: 4096,
            inactive_file: 1024,
            anonymous: 2048,
            oom_kills: 2,
            ..MemoryStats::default()
        };
        assert_eq!(memory(place.path()).unwrap(), Some(expected));
        put("pids.current", "4\n");
        put("pids.max", "max\n");
        assert_eq!(pids(place.path()).unwrap(), Some(PidsStats { current: 4, limit: None }));
        put("blkio.throttle.io_service_bytes_recursive", "8:0 Read 10\n8:0 Write 1\n8:16 Read 5\nTotal 16\n");
        let expected = IoStats { read_bytes: 15, write_bytes: 1, reads: 0, writes: 0 };
        assert_eq!(io(place.path()).unwrap(), Some(expected));
    }
}
