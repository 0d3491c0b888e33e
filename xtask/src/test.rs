//! `cargo xtask test`: installs what the tests need, runs them all and the callers of the OCI runtime, closes with one line of
//! numbers.
//!
//! The runner's own lines are passed on as they come. A test that cannot run on this machine prints `skipped: reason` and
//! passes for the runner; here it is counted apart.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::shell::{cargo, step};
use crate::{kernels, packages};

/// Tests that compare bytes may print a great many of them.
const LONGEST_LINE: usize = 2000;

/// What was counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    ignored: u64,
    /// Inside the output of tests that passed, of which only the reasons of skipped ones are shown.
    quiet: bool,
}

impl Tally {
    /// Takes one line; whether it is to be shown.
    fn line(&mut self, line: &str) -> bool {
        if line == "successes:" {
            self.quiet = true;
            return false;
        }
        if line.starts_with("failures:") {
            self.quiet = false;
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.quiet = false;
            self.passed += number_before(rest, " passed");
            self.failed += number_before(rest, " failed");
            self.ignored += number_before(rest, " ignored");
            return true;
        }
        if line.starts_with("skipped:") {
            self.skipped += 1;
            return true;
        }
        !self.quiet
    }
}

/// The number that stands before `word`.
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().filter(|before| before.len() < text.len()).unwrap_or_default();
    before.rsplit([' ', ';']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn forward(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
}

/// Runs the tests whose names contain the filter, or all; whether none failed.
pub(crate) fn run(words: &[String]) -> Result<bool, String> {
    packages::ensure()?;
    packages::ensure_user()?;
    kernels::ensure()?;
    if !step("build", cargo().args(["test", "--workspace", "--no-run"]))? {
        return Ok(false);
    }
    println!("==> test");
    let mut tally = Tally::default();
    let mut tests = cargo();
    tests.args(["test", "--quiet", "--workspace", "--no-fail-fast", "--"]);
    tests.args(words).args(["--show-output", "--format=pretty"]);
    let mut good = follow(tests, &mut tally)?;
    if words.is_empty() {
        // The callers of an OCI runtime, each with this one.
        if packages::is_root() {
            println!("==> interop");
            let mut callers = cargo();
            callers.args(["run", "--quiet", "--package", "xtask", "--", "interop"]);
            good &= follow(callers, &mut tally)?;
        } else {
            println!("skipped: the callers of an OCI runtime need root");
        }
    }
    // Skipped tests have passed for the runner.
    let passed = tally.passed.saturating_sub(tally.skipped);
    println!("\n{passed} passed, {} failed, {} skipped", tally.failed, tally.skipped + tally.ignored);
    Ok(good && tally.failed == 0)
}

/// Runs a command, shows what it says and counts; whether it succeeded.
fn follow(mut command: Command, tally: &mut Tally) -> Result<bool, String> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let (sender, lines) = channel();
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        forward(stdout, sender.clone());
        forward(stderr, sender);
    }
    for line in lines {
        if tally.line(&line) {
            println!("{}", line.chars().take(LONGEST_LINE).collect::<String>());
        }
    }
    let status = child.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut tally = Tally::default();
        assert!(tally.line(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s"
        ));
        assert!(tally.line(
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s"
        ));
        assert_eq!((tally.passed, tally.failed, tally.ignored), (15, 2, 1));
    }

    #[test]
    fn of_successes_only_the_reasons_of_skipped_tests_are_shown() {
        let mut tally = Tally::default();
        let shown = [
            "a",
            "successes:",
            "---- x stdout ----",
            "skipped: no root",
            "noise",
            "successes:",
            "    x",
            "failures:",
            "b",
        ]
        .map(|line| tally.line(line));
        assert_eq!(shown, [true, false, false, true, false, false, false, true, true]);
        assert_eq!(tally.skipped, 1);
    }
}
