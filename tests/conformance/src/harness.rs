//! Every case on stanza-oci, with the lines and the closing sum of the usual test runner.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::case::Case;
use crate::runner::{Base, Verdict, each, one_case, run};
use crate::runtime::Runtime;

/// Two cores are what the smallest machine of ours has.
const THREADS: usize = 2;

/// The words that the usual runner takes and that matter here.
#[derive(Debug, Default)]
struct Wanted {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
}

impl Wanted {
    fn new(words: &[String]) -> Wanted {
        let mut wanted = Wanted::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--exact" => wanted.exact = true,
                "--list" => wanted.list = true,
                "--skip" => wanted.skipped.extend(words.next().cloned()),
                "--format" | "--test-threads" | "--color" | "--logfile" | "-Z" => drop(words.next()),
                word if word.starts_with('-') => {}
                word => wanted.filters.push(word.to_owned()),
            }
        }
        wanted
    }

    fn has(&self, name: &str) -> bool {
        let matches =
            |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skipped.iter().any(matches)
    }
}

/// Where cargo puts the executables of the workspace: beside this one, or above when this is a test.
pub(crate) fn target_directory() -> Result<PathBuf, String> {
    let executable =
        std::env::current_exe().map_err(|error| format!("no path of this executable: {error}"))?;
    let directory = executable.parent().ok_or("this executable has no directory")?;
    let above = directory.parent().filter(|_| directory.file_name().is_some_and(|name| name == "deps"));
    Ok(above.unwrap_or(directory).to_path_buf())
}

/// The executable under test: `STANZA_OCI`, or what cargo makes of the sources as they are.
pub(crate) fn stanza_oci() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("STANZA_OCI") {
        return Ok(PathBuf::from(path));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "stanza-oci"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .status();
    let path = target_directory()?.join("stanza-oci");
    match status {
        Ok(status) if status.success() && path.exists() => Ok(path),
        Ok(status) => Err(format!("`cargo build -p stanza-oci` made no `{}` ({status})", path.display())),
        Err(error) if path.exists() => {
            let _ = error; // No cargo, but what it built is there.
            Ok(path)
        }
        Err(error) => Err(format!("cannot run cargo: {error}")),
    }
}

/// Runs the cases that the words of this process ask for.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a test runner talks to whoever runs it")]
pub fn harness() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(verdict) = one_case(&words) {
        print!("{verdict}");
        return ExitCode::SUCCESS;
    }
    let wanted = Wanted::new(&words);
    let name = |case: &Case| format!("{}::{}", case.area, case.name);
    let (cases, filtered): (Vec<_>, Vec<_>) = crate::all().partition(|case| wanted.has(&name(case)));
    if wanted.list {
        for case in &cases {
            println!("{}: test", name(case));
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", cases.len());
    let start = Instant::now();
    let close = |passed: usize, failed: usize| {
        println!(
            "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
            if failed == 0 { "ok" } else { "FAILED" },
            filtered.len(),
            start.elapsed().as_secs_f64()
        );
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    };
    if cases.is_empty() {
        return close(0, 0);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: conformance: not root");
        return close(1, 0);
    }
    let ready = stanza_oci().and_then(|path| Ok((Runtime::new("stanza", &path)?, Base::new()?)));
    let (runtime, base) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            println!("{error}");
            return close(0, cases.len());
        }
    };
    let tell = |case: &&Case, verdict: &Verdict| {
        let name = name(case);
        match verdict {
            Verdict::Passed => println!("test {name} ... ok"),
            Verdict::Failed(_) => println!("test {name} ... FAILED"),
            Verdict::Skipped(reason) | Verdict::Unsupported(reason) => {
                println!("test {name} ... ok");
                // Counted apart by `cargo xtask test`.
                println!("skipped: {name}: {reason}");
            }
        }
    };
    let verdicts = each(&cases, THREADS, |case| run(case, &runtime, &base), tell);
    let failures: Vec<(String, &String)> = cases
        .iter()
        .zip(&verdicts)
        .filter_map(|(case, verdict)| match verdict {
            Verdict::Failed(reason) => Some((name(case), reason)),
            _ => None,
        })
        .collect();
    if !failures.is_empty() {
        println!("\nfailures:\n");
        for (name, reason) in &failures {
            println!("---- {name} ----\n{reason}\n");
        }
        println!("failures:");
        for (name, _) in &failures {
            println!("    {name}");
        }
    }
    close(verdicts.len() - failures.len(), failures.len())
}
