//! A table for each kind of work: a row for each contender, and how many times as long stanza takes.

use serde_json::{Value, json};

use super::tool::Tool;
use crate::bench::Sample;
use crate::bench::oci::render;
use crate::bench::statistics::{median, minimum};

/// What stanza may take of what a contender takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    pub(super) tool: Tool,
    pub(super) wall: Option<f64>,
    pub(super) cpu: Option<f64>,
}

/// One kind of work.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) work: String,
    pub(super) rows: Vec<(Tool, Vec<Sample>)>,
    pub(super) goals: Vec<Goal>,
    /// The most that stanza may take, in milliseconds.
    pub(super) most: Option<f64>,
}

fn walls(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.wall_ms / 1000.0).collect()
}

fn cpus(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.cpu_ms / 1000.0).collect()
}

/// Whether all that was to be reached is; in words.
pub(in crate::bench) fn verdict(goals: &[(String, bool)]) -> (String, String) {
    let words: Vec<&str> = goals.iter().map(|(words, _)| words.as_str()).collect();
    let reached = match goals {
        [] => "",
        goals if goals.iter().all(|(_, reached)| *reached) => "yes",
        _ => "NO",
    };
    (words.join(", "), reached.to_owned())
}

impl Table {
    fn stanza(&self) -> Option<&[Sample]> {
        self.rows.iter().find(|(tool, _)| *tool == Tool::Stanza).map(|(_, samples)| samples.as_slice())
    }

    /// The median of the ratios of each round: a load that comes and goes meets both alike.
    fn ratio(&self, samples: &[Sample], of: fn(&[Sample]) -> Vec<f64>) -> Option<f64> {
        let (own, other) = (of(self.stanza()?), of(samples));
        let ratios: Vec<f64> = own.iter().zip(&other).map(|(own, other)| own / other).collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    fn goals(&self, tool: Tool, samples: &[Sample]) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        for goal in self.goals.iter().filter(|goal| goal.tool == tool) {
            for (most, of, word) in
                [(goal.wall, walls as fn(&[Sample]) -> Vec<f64>, "wall"), (goal.cpu, cpus, "CPU")]
            {
                if let (Some(most), Some(ratio)) = (most, self.ratio(samples, of)) {
                    found.push((format!("{word} <= {most}"), ratio <= most));
                }
            }
        }
        if let (Tool::Stanza, Some(most)) = (tool, self.most) {
            found.push((format!("<= {:.0} ms", most), median(&walls(samples)) * 1000.0 <= most));
        }
        found
    }

    /// The table, as text in columns or in Markdown.
    pub(super) fn render(&self, markdown: bool) -> String {
        let head = [
            self.work.as_str(),
            "wall median s",
            "minimum s",
            "CPU median s",
            "stanza's wall is x of it",
            "CPU",
            "to reach",
            "reached",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for (tool, samples) in &self.rows {
            let ratio = |of| match tool {
                Tool::Stanza => String::new(),
                _ => self.ratio(samples, of).map_or(String::new(), |ratio| format!("{ratio:.3}")),
            };
            let (words, reached) = verdict(&self.goals(*tool, samples));
            let number = |value: f64| if value < 1.0 { format!("{value:.3}") } else { format!("{value:.2}") };
            lines.push(vec![
                tool.title(),
                number(median(&walls(samples))),
                number(minimum(&walls(samples))),
                number(median(&cpus(samples))),
                ratio(walls),
                ratio(cpus),
                words,
                reached,
            ]);
        }
        render(&lines, markdown)
    }

    /// Every sample, for other tools.
    pub(super) fn document(&self) -> Value {
        let mut document = json!({});
        for (tool, samples) in &self.rows {
            document[tool.name()] = json!({ "wall_s": walls(samples), "cpu_s": cpus(samples) });
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(walls: &[f64]) -> Vec<Sample> {
        let sample = |wall_ms: &f64| Sample { wall_ms: *wall_ms, cpu_ms: 10.0, page_faults: 0, switches: 0 };
        walls.iter().map(sample).collect()
    }

    #[test]
    fn ratios_are_of_one_round() {
        let table = Table {
            work: "pull".to_owned(),
            rows: vec![
                (Tool::Stanza, samples(&[1000.0, 10_000.0, 1000.0])),
                (Tool::Podman, samples(&[10_000.0, 100_000.0, 10_000.0])),
            ],
            goals: vec![Goal { tool: Tool::Podman, wall: Some(0.1), cpu: Some(0.9) }],
            most: Some(1000.0),
        };
        let text = table.render(true);
        assert!(
            text.contains("| 10.00 | 10.00 | 0.010 | 0.100 | 1.000 | wall <= 0.1, CPU <= 0.9 | NO |"),
            "{text}"
        );
        assert!(text.contains("| **stanza** | 1.00 | 1.00 | 0.010 |  |  | <= 1000 ms | yes |"), "{text}");
    }
}
