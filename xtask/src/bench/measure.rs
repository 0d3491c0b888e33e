//! One command, timed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(super) wall_ms: f64,
    /// User and system time of the command itself, the children it waited for, and orphans of it that have ended: a daemon's
    /// work is not in it.
    pub(super) cpu_ms: f64,
    pub(super) page_faults: u64,
    pub(super) switches: u64,
}

/// The little program that times others.
#[derive(Clone, Debug)]
pub(crate) struct Timer {
    pub(super) program: PathBuf,
}

impl Timer {
    /// Runs `words` inside what `enter` (a command prefix) leads to, and times `words` alone.
    pub(super) fn time(&self, enter: &[String], words: &[String]) -> Result<Sample, String> {
        let program = self.program.display().to_string();
        let all: Vec<&String> = enter.iter().chain([&program]).chain(words).collect();
        // A file: what a command leaves running would hold a pipe open.
        let file = self.program.with_extension("told");
        let tell = |error: std::io::Error| format!("cannot write `{}`: {error}", file.display());
        let output = Command::new(all[0])
            .args(&all[1..])
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(File::create(&file).map_err(tell)?)
            .output()
            .map_err(|error| format!("cannot run `{}`: {error}", all[0]))?;
        let told = fs::read(&file).unwrap_or_default();
        let told = String::from_utf8_lossy(&told);
        let failed =
            || format!("`{}` failed: {}", words.join(" "), told.trim().lines().last().unwrap_or_default());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let fields: Vec<f64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        match fields[..] {
            [wall, user, system, faults, code, switches] if code.abs() < 0.5 => Ok(Sample {
                wall_ms: wall / 1e6,
                cpu_ms: (user + system) / 1e3,
                page_faults: format!("{faults:.0}").parse().unwrap_or_default(),
                switches: format!("{switches:.0}").parse().unwrap_or_default(),
            }),
            _ => Err(failed()),
        }
    }
}
