//! What a container uses, in Docker's words.

use stanza_engine::ContainerUsage;
use stanza_spec::ContainerId;
use stanza_spec::units::{human_size, human_size_binary};

use crate::format::listing::Row;

/// Titles of the columns of `stats`.
pub(crate) const TITLES: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

/// What is not counted.
const UNKNOWN: &str = "--";

/// The row of a container. Its share of processors is that since `before`; without it none is known.
pub(crate) fn row(
    id: &ContainerId,
    usage: &ContainerUsage,
    before: Option<&ContainerUsage>,
    truncate: bool,
) -> Row {
    let id = if truncate { id.short() } else { id.as_str() };
    let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    let memory = usage.stats.memory.as_ref().map(|memory| memory.usage.saturating_sub(memory.inactive_file));
    let limit = usage.memory_limit;
    let io = usage.stats.io.as_ref();
    let (mut received, mut sent) = (0_u64, 0_u64);
    for device in &usage.interfaces {
        received = received.saturating_add(device.rx_bytes);
        sent = sent.saturating_add(device.tx_bytes);
    }
    Row::default()
        .with("Container", id)
        .with("ID", id)
        .with("Name", usage.name.as_str())
        .with("CPUPerc", processors(usage, before))
        .with(
            "MemUsage",
            known(memory.map(|used| format!("{} / {}", human_size_binary(used), human_size_binary(limit)))),
        )
        .with("MemPerc", known(memory.map(|used| percent(used, limit))))
        .with("NetIO", format!("{} / {}", human_size(received), human_size(sent)))
        .with(
            "BlockIO",
            known(io.map(|io| format!("{} / {}", human_size(io.read_bytes), human_size(io.write_bytes)))),
        )
        .with("PIDs", known(usage.stats.pids.as_ref().map(|pids| pids.current.to_string())))
}

/// The share of one processor: two that are busy make 200 %.
fn processors(usage: &ContainerUsage, before: Option<&ContainerUsage>) -> String {
    let Some(now) = usage.stats.cpu.as_ref() else { return UNKNOWN.to_owned() };
    let since = before.and_then(|before| Some((before.stats.cpu.as_ref()?.usage, before.at)));
    let Some((used, at)) = since else { return percent(0, 1) };
    let passed = u64::try_from(usage.at.saturating_duration_since(at).as_nanos()).unwrap_or(u64::MAX);
    percent(now.usage.saturating_sub(used), passed)
}

/// `12.34%`.
fn percent(part: u64, whole: u64) -> String {
    let hundredths = match u128::from(whole) {
        0 => 0,
        whole => (u128::from(part) * 10_000 + whole / 2) / whole,
    };
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use stanza_engine::{CpuStats, InterfaceCounters, MemoryStats, PidsStats, Stats};

    use super::*;

    #[test]
    fn a_row_says_what_docker_says() {
        let id = ContainerId::from_random([0xab; 32]);
        let start = Instant::now();
        let device =
            |rx_bytes, tx_bytes| InterfaceCounters { rx_bytes, tx_bytes, ..InterfaceCounters::default() };
        let usage = |used: u64, after: u64| ContainerUsage {
            name: "web".to_owned(),
            running: true,
            at: start + Duration::from_millis(after),
            stats: Stats {
                cpu: Some(CpuStats { usage: used, ..CpuStats::default() }),
                memory: Some(MemoryStats {
                    usage: 3 << 20,
                    inactive_file: 1 << 20,
                    ..MemoryStats::default()
                }),
                pids: Some(PidsStats { current: 4, limit: None }),
                io: None,
            },
            memory_limit: 64 << 20,
            interfaces: vec![device(1000, 10), device(234, 5)],
        };
        let fields = row(&id, &usage(750_000_000, 500), Some(&usage(0, 0)), true).fields;
        let text = |name: &str| fields[name].as_str().unwrap().to_owned();
        assert_eq!((text("CPUPerc"), text("MemPerc")), ("150.00%".into(), "3.13%".into()));
        assert_eq!((text("MemUsage"), text("NetIO")), ("2MiB / 64MiB".into(), "1.23kB / 15B".into()));
        assert_eq!((text("BlockIO"), text("PIDs")), ("--".into(), "4".into()));
        assert!(TITLES.iter().all(|(name, _)| fields.contains_key(*name)));
        assert_eq!(row(&id, &usage(5, 0), None, true).fields["CPUPerc"], "0.00%");
    }
}
