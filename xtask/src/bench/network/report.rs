//! The table: a row for each thing measured, a column for each contender, what stanza is of the best of the others.

use serde_json::{Value, json};

use crate::bench::image::verdict;
use crate::bench::oci::render;

/// What a row's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Microseconds,
    Gigabits,
    /// One of two rows above, divided by the other.
    Ratio,
}

/// What stanza's number may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    None,
    /// At most this.
    Most(f64),
    /// At most this times the least of the others.
    OfLeast(f64),
    /// At least this times the greatest of the others.
    OfGreatest(f64),
}

/// A number with the contender it is of.
pub(super) type Values = Vec<(String, f64)>;

#[derive(Debug)]
struct Row {
    work: String,
    unit: Unit,
    values: Values,
    goal: Goal,
}

/// Everything measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "µs",
            Unit::Gigabits => "Gbit/s",
            Unit::Ratio => "x",
        }
    }
}

impl Row {
    fn stanza(&self) -> Option<f64> {
        self.values.iter().find(|(name, _)| name == "stanza").map(|(_, value)| *value)
    }

    /// Stanza's number divided by the best of the others.
    fn ratio(&self) -> Option<f64> {
        let others = self.values.iter().filter(|(name, _)| name != "stanza").map(|(_, value)| *value);
        let best = if self.unit == Unit::Gigabits {
            others.fold(f64::NAN, f64::max)
        } else {
            others.fold(f64::NAN, f64::min)
        };
        let ratio = self.stanza()? / best;
        (self.unit != Unit::Ratio && ratio.is_finite()).then_some(ratio)
    }

    /// What is to be reached, with whether it is.
    fn goals(&self) -> Vec<(String, bool)> {
        let found = match (self.goal, self.stanza(), self.ratio()) {
            (Goal::Most(most), Some(value), _) => {
                Some((format!("<= {most} {}", self.unit.name()), value <= most))
            }
            (Goal::OfLeast(most), _, Some(ratio)) => Some((format!("<= {most} x best"), ratio <= most)),
            (Goal::OfGreatest(least), _, Some(ratio)) => Some((format!(">= {least} x best"), ratio >= least)),
            _ => None,
        };
        found.into_iter().collect()
    }
}

impl Report {
    /// Adds a row; refused when there is no number of stanza in it, after it was added for the others'.
    pub(super) fn row(&mut self, work: &str, unit: Unit, values: Values, goal: Goal) -> Result<(), String> {
        let values: Values = values.into_iter().filter(|(_, value)| value.is_finite()).collect();
        let row = Row { work: work.to_owned(), unit, values, goal };
        let measured = row.stanza().is_some();
        if !row.values.is_empty() {
            self.rows.push(row);
        }
        measured.then_some(()).ok_or_else(|| format!("nothing was measured of stanza in `{work}`"))
    }

    /// Whether nothing was measured.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The contenders, in the order of their appearance.
    fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|row| &row.values) {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
        }
        columns
    }

    /// The table, as text in columns or in Markdown.
    pub(super) fn render(&self, markdown: bool) -> String {
        let columns = self.columns();
        let mut head = vec!["what".to_owned()];
        head.extend(columns.iter().map(|name| (*name).to_owned()));
        head.extend(["x of the best other", "to reach", "reached"].map(str::to_owned));
        let mut lines = vec![head];
        for row in &self.rows {
            let mut cells = vec![match row.unit {
                Unit::Ratio => row.work.clone(),
                unit => format!("{}, {}", row.work, unit.name()),
            }];
            cells.extend(columns.iter().map(|column| {
                let value = row.values.iter().find(|(name, _)| name == column);
                value.map_or(String::new(), |(_, value)| match value.abs() {
                    much if much >= 100.0 => format!("{value:.0}"),
                    _ => format!("{value:.2}"),
                })
            }));
            cells.push(row.ratio().map_or(String::new(), |ratio| format!("{ratio:.3}")));
            let (words, reached) = verdict(&row.goals());
            cells.extend([words, reached]);
            lines.push(cells);
        }
        render(&lines, markdown)
    }

    /// The same for other tools.
    pub(super) fn document(&self) -> Value {
        let values =
            |row: &Row| row.values.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let reached = |row: &Row| row.goals().first().map(|(_, reached)| *reached);
        let rows = self.rows.iter();
        rows.map(|row| {
            json!({ "what": row.work, "unit": row.unit.name(), "values": Value::Object(values(row)), "reached": reached(row) })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(stanza: f64) -> Values {
        [("stanza", stanza), ("a", 10.0), ("b", 20.0)].map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    fn rendered(unit: Unit, stanza: f64, goal: Goal) -> String {
        let mut report = Report::default();
        report.row("work", unit, values(stanza), goal).expect("has stanza");
        report.render(true)
    }

    #[test]
    fn the_best_other_is_the_fastest() {
        let text = rendered(Unit::Milliseconds, 5.0, Goal::OfLeast(0.5));
        assert!(text.contains("| work, ms | 5.00 | 10.00 | 20.00 | 0.500 | <= 0.5 x best | yes |"), "{text}");
        let text = rendered(Unit::Gigabits, 19.0, Goal::OfGreatest(1.0));
        assert!(text.contains("| 0.950 | >= 1 x best | NO |"), "{text}");
    }

    #[test]
    fn a_row_without_stanza_is_told_and_shown() {
        let mut report = Report::default();
        let told = report.row("work", Unit::Ratio, vec![("a".to_owned(), 1.0)], Goal::Most(1.1));
        assert_eq!(told, Err("nothing was measured of stanza in `work`".to_owned()));
        assert!(report.render(true).contains("| work | 1.00 |"));
    }
}
