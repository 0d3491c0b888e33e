//! The table: one row for each kind of work, one column for each contender, the ratios and what is to be reached.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// The columns, in order. What `exec` is measured against stands in the floor's.
const COLUMNS: [&str; 5] = ["stanza", "crun", "runc", "bwrap", "floor"];

/// What stanza's value may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Goal {
    /// Times the floor.
    pub(super) floor: Option<f64>,
    /// Times crun.
    pub(super) crun: Option<f64>,
    /// At most.
    pub(super) most: Option<f64>,
}

#[derive(Debug)]
struct Row {
    work: String,
    values: BTreeMap<String, f64>,
    goal: Goal,
}

/// Everything measured.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

impl Row {
    /// Stanza's value divided by another's.
    fn ratio(&self, other: &str) -> Option<f64> {
        let (own, other) = (self.values.get("stanza")?, self.values.get(other)?);
        (*other > 0.0).then(|| own / other)
    }

    /// What is to be reached, in words; whether it is.
    fn verdict(&self) -> (String, Option<bool>) {
        let ratio = |wanted: Option<f64>, name: &str| {
            let (wanted, is) = (wanted?, self.ratio(name)?);
            Some((format!("<= {wanted} x {name}"), is <= wanted))
        };
        let most = |wanted: Option<f64>| {
            let (wanted, is) = (wanted?, *self.values.get("stanza")?);
            Some((format!("<= {wanted}"), is <= wanted))
        };
        let found = [ratio(self.goal.floor, "floor"), ratio(self.goal.crun, "crun"), most(self.goal.most)];
        let found: Vec<_> = found.into_iter().flatten().collect();
        let words: Vec<&str> = found.iter().map(|(word, _)| word.as_str()).collect();
        let all = found.iter().all(|(_, reached)| *reached);
        (words.join(", "), (!found.is_empty()).then_some(all))
    }

    fn cells(&self) -> Vec<String> {
        let number = |value: Option<f64>| match value {
            None => String::new(),
            Some(value) if value.fract() == 0.0 || value >= 1000.0 => format!("{value:.0}"),
            Some(value) => format!("{value:.2}"),
        };
        let (words, reached) = self.verdict();
        let mut cells = vec![self.work.clone()];
        cells.extend(COLUMNS.iter().map(|name| number(self.values.get(*name).copied())));
        cells.extend(
            ["floor", "crun"]
                .map(|name| self.ratio(name).map_or(String::new(), |ratio| format!("{ratio:.2}"))),
        );
        cells.push(words);
        cells.push(
            match reached {
                None => "",
                Some(true) => "yes",
                Some(false) => "NO",
            }
            .to_owned(),
        );
        cells
    }
}

impl Report {
    /// Adds a row; refused when stanza has no value in it.
    pub(super) fn row(&mut self, work: &str, values: Vec<(String, f64)>, goal: Goal) -> Result<(), String> {
        // `nsenter` is to `exec` what the floor is to `run`.
        let named = values.into_iter().filter(|(_, value)| value.is_finite());
        let values: BTreeMap<String, f64> = named
            .map(|(name, value)| (if name == "nsenter" { "floor".to_owned() } else { name }, value))
            .collect();
        if !values.contains_key("stanza") {
            return Err(format!("nothing was measured of stanza in `{work}`"));
        }
        self.rows.push(Row { work: work.to_owned(), values, goal });
        Ok(())
    }

    /// Whether nothing was measured.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, as text in columns or in Markdown.
    pub(super) fn render(&self, markdown: bool) -> String {
        let mut lines =
            vec![["work"].iter().chain(&COLUMNS).map(|word| (*word).to_owned()).collect::<Vec<_>>()];
        lines[0].extend(["x floor", "x crun", "to reach", "reached"].map(str::to_owned));
        lines.extend(self.rows.iter().map(Row::cells));
        render(&lines, markdown)
    }

    /// All values, for other tools.
    pub(super) fn document(&self) -> Value {
        let rows = self.rows.iter();
        rows.map(|row| json!({ "work": row.work, "values": row.values, "reached": row.verdict().1 }))
            .collect()
    }
}

/// A table whose first line is its head.
pub(in crate::bench) fn render(lines: &[Vec<String>], markdown: bool) -> String {
    let mut text = String::new();
    if markdown {
        for (number, cells) in lines.iter().enumerate() {
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if number == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(cells.len()));
            }
        }
        return text;
    }
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines.iter().filter_map(|cells| cells.get(column)).map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for cells in lines {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            // Words to the left, numbers to the right.
            let _ = if column == 0 || column + 2 >= columns {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(stanza: f64) -> Report {
        let mut report = Report::default();
        let values = [("stanza", stanza), ("crun", 8.0), ("floor", 3.0)];
        let goal = Goal { floor: Some(1.5), crun: Some(0.55), most: None };
        report
            .row("run", values.map(|(name, value)| (name.to_owned(), value)).to_vec(), goal)
            .expect("has stanza");
        report
    }

    #[test]
    fn every_goal_must_be_reached() {
        assert!(report(4.2).render(true).contains("| 1.40 | 0.53 | <= 1.5 x floor, <= 0.55 x crun | yes |"));
        assert!(report(4.45).render(true).contains("| NO |"));
    }

    #[test]
    fn a_row_without_stanza_is_refused() {
        let refused = Report::default().row("run", vec![("crun".to_owned(), 1.0)], Goal::default());
        assert_eq!(refused, Err("nothing was measured of stanza in `run`".to_owned()));
    }

    #[test]
    fn text_stands_in_columns() {
        let lines =
            [["a", "1", "x", ""], ["bcd", "10", "", "y"]].map(|line| line.map(str::to_owned).to_vec());
        assert_eq!(render(&lines, false), "a     1  x\nbcd  10     y\n");
    }
}
