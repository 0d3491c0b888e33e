//! What kind of executable starts fastest: static, static and position-independent, dynamic.

use std::fs;

use serde_json::{Value, json};

use super::statistics::{Row, document, median, minimum};
use super::{Options, Workshop, built};
use crate::shell::cargo;

/// A kind of executable with the compiler's flags for it.
const KINDS: &[(&str, &str)] = &[
    ("static", "-C target-feature=+crt-static -C relocation-model=static"),
    ("static, position-independent", "-C target-feature=+crt-static -C relocation-model=pic"),
    ("dynamic", "-C target-feature=-crt-static"),
];

/// Builds each kind in a directory of its own and times `version`.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<Value, String> {
    let mut programs = Vec::new();
    for (number, (name, flags)) in KINDS.iter().enumerate() {
        println!("building: {name}");
        let target = format!("target/startup/{number}");
        let mut command = cargo();
        command
            .args([
                "build",
                "--release",
                "--package",
                "stanza",
                "--message-format",
                "json",
                "--quiet",
                "--target-dir",
                &target,
            ])
            .env("RUSTFLAGS", flags)
            .env_remove("CARGO_TARGET_DIR");
        programs.push((*name, built(name, "stanza", &mut command)?));
    }
    let enter = vec!["env".to_owned()];
    let mut rows: Vec<Row> =
        programs.iter().map(|(name, _)| Row { name: (*name).to_owned(), samples: Vec::new() }).collect();
    for round in 0..options.runs.max(100) {
        for turn in 0..programs.len() {
            let at = (turn + round) % programs.len();
            let words = [programs[at].1.display().to_string(), "--version".to_owned()];
            rows[at].samples.push(workshop.timer.time(&enter, &words)?);
        }
    }
    println!(
        "\n| executable | `--version`, median ms | minimum ms | page faults | size, KiB |\n|---|---|---|---|---|"
    );
    let mut report = document(&rows);
    for (row, (_, path)) in rows.iter().zip(&programs) {
        let wall: Vec<f64> = row.samples.iter().map(|sample| sample.wall_ms).collect();
        let faults = row.samples.iter().map(|sample| sample.page_faults).min().unwrap_or_default();
        let size = fs::metadata(path).map(|data| data.len() / 1024).unwrap_or_default();
        println!("| {} | {:.3} | {:.3} | {faults} | {size} |", row.name, median(&wall), minimum(&wall));
        report[row.name.as_str()]["size_kib"] = json!(size);
    }
    Ok(report)
}
