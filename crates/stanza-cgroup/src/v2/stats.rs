//! Statistics out of version 2 files.

use std::io;
use std::path::Path;

use super::state;
use crate::file::{number_of, read, read_number};
use crate::stats::{CpuStats, IoStats, MemoryStats, PidsStats};

/// Times are in microseconds here. `cpu.stat` is there also without the controller.
pub(crate) fn cpu(group: &Path) -> io::Result<Option<CpuStats>> {
    let Some(text) = read(&group.join("cpu.stat"))? else { return Ok(None) };
    let number = |key: &str| number_of(&text, key).unwrap_or(0);
    let nanoseconds = |key: &str| number(key).saturating_mul(1000);
    Ok(Some(CpuStats {
        usage: nanoseconds("usage_usec"),
        user: nanoseconds("user_usec"),
        system: nanoseconds("system_usec"),
        periods: number("nr_periods"),
        throttled_periods: number("nr_throttled"),
        throttled: nanoseconds("throttled_usec"),
    }))
}

pub(crate) fn memory(group: &Path) -> io::Result<Option<MemoryStats>> {
    let Some(usage) = read_number(&group.join("memory.current"))? else { return Ok(None) };
    let text = read(&group.join("memory.stat"))?.unwrap_or_default();
    let number = |key: &str| number_of(&text, key).unwrap_or(0);
    Ok(Some(MemoryStats {
        usage,
        peak: read_number(&group.join("memory.peak"))?,
        limit: read_number(&group.join("memory.max"))?,
        cache: number("file"),
        inactive_file: number("inactive_file"),
        anonymous: number("anon"),
        swap: read_number(&group.join("memory.swap.current"))?,
        oom_kills: state::oom_kills(group)?,
    }))
}

pub(crate) fn pids(group: &Path) -> io::Result<Option<PidsStats>> {
    let Some(current) = read_number(&group.join("pids.current"))? else { return Ok(None) };
    Ok(Some(PidsStats { current, limit: read_number(&group.join("pids.max"))? }))
}

pub(crate) fn io(group: &Path) -> io::Result<Option<IoStats>> {
    let Some(text) = read(&group.join("io.stat"))? else { return Ok(None) };
    let sum = |key: &str| {
        let fields = text.split_whitespace().filter_map(|field| field.split_once('='));
        fields.filter(|(name, _)| *name == key).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    };
    Ok(Some(IoStats {
        read_bytes: sum("rbytes"),
        write_bytes: sum("wbytes"),
        reads: sum("rios"),
        writes: sum("wios"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_from_their_files() {
        let place = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        assert_eq!(memory(place.path()).unwrap(), None);
        put(
            "cpu.stat",
            "usage_usec 15\nuser_usec 10\nsystem_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 7\n",
        );
        let expected = CpuStats {
            usage: 15_000,
            user: 10_000,
            system: 5_000,
            periods: 3,
            throttled_periods: 2,
            throttled: 7_000,
        };
        assert_eq!(cpu(place.path()).unwrap(), Some(expected));
        put("memory.current", "8192\n");
        put("memory.max", "max\n");
        put("memory.peak", "9000\n");
        put("memory.stat", "anon 2048\nfile 4096\ninactive_file 1024\n");
        put("memory.events", "low 0\noom 3\noom_kill 2\n");
        let expected = MemoryStats {
            usage: 8192,
            peak: Some(9000),
            cache: 4096,
            inactive_file: 1024,
            anonymous: 2048,
            oom_kills: 2,
            ..MemoryStats::default()
        };
        assert_eq!(memory(place.path()).unwrap(), Some(expected));
        put("pids.current", "4\n");
        put("pids.max", "16\n");
        assert_eq!(pids(place.path()).unwrap(), Some(PidsStats { current: 4, limit: Some(16) }));
        put("io.stat", "8:0 rbytes=10 wbytes=1 rios=2 wios=3\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n");
        let expected = IoStats { read_bytes: 15, write_bytes: 1, reads: 3, writes: 3 };
        assert_eq!(io(place.path()).unwrap(), Some(expected));
    }
}
