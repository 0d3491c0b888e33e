//! Medians, minima, ratios, and the table they stand in.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Sample;

/// The middle of the values; of two in the middle, their mean.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// The value that a share of all, from 0 to 1, does not exceed.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
    let before = (0..count).filter(|at| f64::from(*at) < share * f64::from(count) - 1.0).count();
    sorted.get(before).copied().unwrap_or(f64::NAN)
}

/// The least of the values.
pub(super) fn minimum(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// A contender with what was measured of it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) samples: Vec<Sample>,
}

impl Row {
    pub(super) fn wall(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.wall_ms).collect()
    }

    pub(super) fn cpu(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.cpu_ms).collect()
    }
}

/// A table: median, minimum, processor time, and how many times longer stanza takes than each contender.
pub(super) fn table(rows: &[Row]) -> String {
    let stanza = rows.iter().find(|row| row.name == "stanza").map_or(f64::NAN, |row| median(&row.wall()));
    let mut text = "| | median ms | minimum ms | CPU of the command, median ms | stanza is x of it |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} | {:.3} |",
            row.name,
            median(&row.wall()),
            minimum(&row.wall()),
            median(&row.cpu()),
            stanza / median(&row.wall()),
        );
    }
    text
}

/// The same with every sample, for other tools.
pub(super) fn document(rows: &[Row]) -> Value {
    let mut document = json!({});
    for row in rows {
        document[row.name.as_str()] = json!({
            "median_ms": median(&row.wall()),
            "minimum_ms": minimum(&row.wall()),
            "cpu_median_ms": median(&row.cpu()),
            "page_faults": row.samples.first().map(|sample| sample.page_faults),
            "wall_ms": row.wall(),
        });
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((quantile(&hundred, 0.99) - 99.0).abs() < 1e-9);
        assert!((quantile(&[5.0], 0.99) - 5.0).abs() < 1e-9);
        assert!((minimum(&[3.0, 1.0, 2.0]) - 1.0).abs() < 1e-9);
    }
}
