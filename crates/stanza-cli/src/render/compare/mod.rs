//! What the same work took behind each wall: as text, JSON, a picture and a report.

use std::time::Duration;

use serde_json::{Value, json as object};

mod picture;
mod report;
mod text;

pub(crate) use picture::svg;
pub(crate) use report::html;
pub(crate) use text::text;

/// What stands between the work and the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wall {
    Host,
    Container,
    Vm,
}

impl Wall {
    pub(crate) const ALL: [Wall; 3] = [Wall::Host, Wall::Container, Wall::Vm];

    pub(super) fn name(self) -> &'static str {
        match self {
            Wall::Host => "host",
            Wall::Container => "container",
            Wall::Vm => "vm",
        }
    }

    /// What it has of each of [`PARTS`].
    pub(super) fn parts(self) -> [&'static str; 4] {
        match self {
            Wall::Host => ["the host's", "the host's", "the host's", "the host's"],
            Wall::Container => [
                "the host's, fewer system calls",
                "the image's, on the host's file system",
                "a name space of its own",
                "the host's, fewer capabilities",
            ],
            Wall::Vm => [
                "its own",
                "the image's, on a disk of its own",
                "a card of its own in a name space",
                "its own; outside a user without rights",
            ],
        }
    }
}

/// What walls separate.
pub(super) const PARTS: [&str; 4] = ["kernel", "file system", "network", "users"];

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Until the program ran.
    pub(crate) runs: Duration,
    /// Until it wrote something; `None` when it never did.
    pub(crate) first_output: Option<Duration>,
    /// Until it had ended and everything was cleared.
    pub(crate) finished: Duration,
    /// Processor time of all that took part; `None` where nothing counts it.
    pub(crate) cpu: Option<Duration>,
    /// The most memory, in bytes.
    pub(crate) memory_peak: Option<u64>,
    pub(crate) code: i32,
}

/// One wall with its runs.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) wall: Wall,
    pub(crate) samples: Vec<Sample>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) rounds: usize,
    pub(crate) contenders: Vec<Contender>,
    /// What could not take part, and why.
    pub(crate) left_out: Vec<(Wall, String)>,
}

impl Comparison {
    pub(super) fn title(&self) -> String {
        let words = std::iter::once(self.image.as_str()).chain(self.command.iter().map(String::as_str));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Runs,
    FirstOutput,
    Finished,
    Cpu,
    Memory,
}

impl Measure {
    pub(super) const ALL: [Measure; 5] =
        [Measure::Runs, Measure::FirstOutput, Measure::Finished, Measure::Cpu, Measure::Memory];

    pub(super) fn name(self) -> &'static str {
        match self {
            Measure::Runs => "until it runs",
            Measure::FirstOutput => "until its first output",
            Measure::Finished => "until all is done",
            Measure::Cpu => "processor time",
            Measure::Memory => "memory, at most",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Measure::Runs => "runs_ms",
            Measure::FirstOutput => "first_output_ms",
            Measure::Finished => "finished_ms",
            Measure::Cpu => "cpu_ms",
            Measure::Memory => "memory_peak_mib",
        }
    }

    /// In milliseconds or MiB.
    fn of(self, sample: &Sample) -> Option<f64> {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        match self {
            Measure::Runs => Some(milliseconds(sample.runs)),
            Measure::FirstOutput => sample.first_output.map(milliseconds),
            Measure::Finished => Some(milliseconds(sample.finished)),
            Measure::Cpu => sample.cpu.map(milliseconds),
            Measure::Memory => sample
                .memory_peak
                .map(|bytes| u32::try_from(bytes >> 10).map_or(f64::INFINITY, f64::from) / 1024.0),
        }
    }

    pub(super) fn format(self, value: f64) -> String {
        match (self, value) {
            (Measure::Memory, value) => format!("{value:.1} MiB"),
            (_, value) if value >= 1000.0 => format!("{:.2} s", value / 1000.0),
            (_, value) if value >= 100.0 => format!("{value:.0} ms"),
            (_, value) => format!("{value:.1} ms"),
        }
    }

    /// Of all runs that have it.
    pub(super) fn spread(self, contender: &Contender) -> Option<Spread> {
        let mut values: Vec<f64> = contender.samples.iter().filter_map(|one| self.of(one)).collect();
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        let middle = match values.len() % 2 {
            0 => f64::midpoint(*values.get(half.checked_sub(1)?)?, *values.get(half)?),
            _ => *values.get(half)?,
        };
        Some(Spread { least: *values.first()?, median: middle, most: *values.last()? })
    }
}

/// Values in short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) median: f64,
    pub(super) most: f64,
}

/// Exit codes, each once.
pub(super) fn codes(contender: &Contender) -> Vec<i32> {
    let mut codes: Vec<i32> = contender.samples.iter().map(|sample| sample.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// For other tools.
pub(crate) fn json(comparison: &Comparison) -> String {
    let contenders = comparison.contenders.iter().map(|contender| {
        let mut entry = object!({ "wall": contender.wall.name(), "exit_codes": codes(contender) });
        for measure in Measure::ALL {
            let values: Vec<_> = contender.samples.iter().map(|sample| measure.of(sample)).collect();
            let spread = measure.spread(contender);
            entry[measure.key()] = spread.map_or(Value::Null, |spread| {
                object!({ "median": spread.median, "least": spread.least, "most": spread.most, "all": values })
            });
        }
        for (part, what) in PARTS.iter().zip(contender.wall.parts()) {
            entry["separates"][*part] = object!(what);
        }
        entry
    });
    let left_out = comparison.left_out.iter().map(|(wall, why)| object!({ "wall": wall.name(), "why": why }));
    let document = object!({
        "image": comparison.image,
        "command": comparison.command,
        "rounds": comparison.rounds,
        "contenders": contenders.collect::<Vec<_>>(),
        "left_out": left_out.collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::render::compare) fn sample() -> Comparison {
        let one = |wall, factor: u32| Contender {
            wall,
            samples: (1..=3)
                .map(|round| Sample {
                    runs: Duration::from_millis(5) * factor * round,
                    first_output: (wall == Wall::Vm).then_some(Duration::from_millis(500)),
                    finished: Duration::from_millis(10) * factor * round,
                    cpu: Some(Duration::from_millis(7) * factor),
                    memory_peak: Some(u64::from(factor) << 20),
                    code: 0,
                })
                .collect(),
        };
        Comparison {
            image: "a<b".to_owned(),
            command: vec!["true".to_owned()],
            rounds: 3,
            contenders: vec![one(Wall::Container, 1), one(Wall::Vm, 100)],
            left_out: vec![(Wall::Host, "no `x` & no y".to_owned())],
        }
    }

    #[test]
    fn medians_lie_between() {
        let spread = Measure::Runs.spread(&sample().contenders[0]).unwrap();
        assert_eq!(spread, Spread { least: 5.0, median: 10.0, most: 15.0 });
        assert_eq!(Measure::FirstOutput.spread(&sample().contenders[0]), None);
        assert_eq!(codes(&sample().contenders[0]), [0]);
    }

    #[test]
    fn tools_read_every_value() {
        let document: Value = serde_json::from_str(&json(&sample())).unwrap();
        assert_eq!(document["contenders"][1]["runs_ms"]["all"], object!([500.0, 1000.0, 1500.0]));
        assert_eq!(document["contenders"][1]["memory_peak_mib"]["median"], 100.0);
        assert_eq!(document["contenders"][0]["first_output_ms"], Value::Null);
        assert_eq!(document["left_out"][0]["wall"], "host");
    }
}
