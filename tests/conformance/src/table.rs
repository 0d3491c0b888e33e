//! Every case on several runtimes, side by side.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::case::Case;
use crate::harness::stanza_oci;
use crate::runner::{Base, Verdict, each, one_case, run};
use crate::runtime::Runtime;

/// The peers that are looked for when no runtime is named.
const PEERS: [(&str, &[&str]); 2] =
    [("runc", &["/usr/sbin/runc", "/usr/bin/runc"]), ("crun", &["/usr/bin/crun", "/usr/sbin/crun"])];

/// What was asked for.
#[derive(Debug, Default)]
struct Wanted {
    runtimes: Vec<(String, PathBuf)>,
    areas: Vec<String>,
    /// Parts of `area::case`.
    cases: Vec<String>,
    markdown: bool,
}

/// The executable of a runtime that goes by a name of its own.
fn known(name: &str) -> Result<PathBuf, String> {
    if name == "stanza" {
        return stanza_oci();
    }
    let paths = PEERS.iter().find(|(peer, _)| *peer == name).map(|(_, paths)| *paths).unwrap_or_default();
    let found = paths.iter().map(PathBuf::from).find(|path| path.exists());
    found.ok_or_else(|| format!("no runtime `{name}`: say `--runtime {name}=PATH`"))
}

impl Wanted {
    fn new(words: &[String]) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
            match word.as_str() {
                "--runtime" => {
                    let value = value()?;
                    wanted.runtimes.push(match value.split_once('=') {
                        Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
                        None => (value.clone(), known(value)?),
                    });
                }
                "--area" => wanted.areas.push(value()?.clone()),
                "--case" => wanted.cases.push(value()?.clone()),
                "--markdown" => wanted.markdown = true,
                word if word.starts_with('-') => return Err(format!("unknown option `{word}`")),
                word => wanted.cases.push(word.to_owned()),
            }
        }
        if wanted.runtimes.is_empty() {
            for (name, _) in PEERS {
                wanted.runtimes.extend(known(name).ok().map(|path| (name.to_owned(), path)));
            }
            wanted.runtimes.push(("stanza".to_owned(), stanza_oci()?));
        }
        Ok(wanted)
    }

    fn has(&self, case: &Case) -> bool {
        let name = format!("{}::{}", case.area, case.name);
        (self.areas.is_empty() || self.areas.iter().any(|area| area == case.area))
            && (self.cases.is_empty() || self.cases.iter().any(|part| name.contains(part.as_str())))
    }
}

fn cell(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "ok",
        Verdict::Failed(_) => "FAIL",
        Verdict::Unsupported(_) => "-",
        Verdict::Skipped(_) => "skip",
    }
}

/// One row of the table: a case and how it ended on each runtime.
type Row<'a> = (&'a Case, Vec<Verdict>);

/// The table and the sums of each area, as Markdown.
fn markdown(runtimes: &[Runtime], rows: &[Row]) -> String {
    let names: Vec<String> =
        runtimes.iter().map(|runtime| format!("{} {}", runtime.name, runtime.version)).collect();
    let line = "|---".repeat(runtimes.len());
    let mut text = format!("| area | cases | {} |\n|---|---{line}|\n", names.join(" | "));
    let mut areas: Vec<&str> = rows.iter().map(|(case, _)| case.area).collect();
    areas.dedup();
    let sum = |of: &dyn Fn(&Row) -> bool, at: usize| {
        let verdicts: Vec<&Verdict> =
            rows.iter().filter(|row| of(row)).map(|(_, verdicts)| &verdicts[at]).collect();
        let count = |wanted: &str| verdicts.iter().filter(|verdict| cell(verdict) == wanted).count();
        let (passed, lacking, skipped) = (count("ok"), count("-"), count("skip"));
        let mut text = format!("{passed}");
        let failed = verdicts.len() - passed - lacking - skipped;
        for (number, word) in [(failed, "fail"), (lacking, "lacking"), (skipped, "skipped")] {
            if number > 0 {
                let _ = write!(text, ", {number} {word}");
            }
        }
        text
    };
    let all = |_: &Row| true;
    for area in areas {
        let of = |row: &Row| row.0.area == area;
        let sums: Vec<String> = (0..runtimes.len()).map(|at| sum(&of, at)).collect();
        let _ = writeln!(
            text,
            "| {area} | {} | {} |",
            rows.iter().filter(|row| of(row)).count(),
            sums.join(" | ")
        );
    }
    let sums: Vec<String> = (0..runtimes.len()).map(|at| sum(&all, at)).collect();
    let _ = writeln!(text, "| **all** | {} | {} |", rows.len(), sums.join(" | "));
    let _ = write!(text, "\n| case | {} |\n|---{line}|\n", names.join(" | "));
    for (case, verdicts) in rows {
        let cells: Vec<&str> = verdicts.iter().map(cell).collect();
        let _ = writeln!(text, "| {}::{} | {} |", case.area, case.name, cells.join(" | "));
    }
    text
}

/// Where the runtimes differ, and why each that did not pass did not; what one lacks only when asked for.
fn differences(runtimes: &[Runtime], rows: &[Row], lacking: bool) -> String {
    let mut text = String::new();
    for (case, verdicts) in rows {
        if verdicts.iter().all(|verdict| cell(verdict) == cell(&verdicts[0])) && cell(&verdicts[0]) != "FAIL"
        {
            continue;
        }
        for (runtime, verdict) in runtimes.iter().zip(verdicts) {
            let reason = match verdict {
                Verdict::Failed(reason) | Verdict::Skipped(reason) => reason,
                Verdict::Unsupported(reason) if lacking => reason,
                Verdict::Passed | Verdict::Unsupported(_) => continue,
            };
            let line: String = reason.lines().next().unwrap_or_default().chars().take(200).collect();
            let name = format!("{}::{}", case.area, case.name);
            if text.is_empty() {
                text.push_str("Differences:\n\n");
            }
            let _ = writeln!(text, "* `{name}`, {} {}: {line}", runtime.name, cell(verdict));
        }
    }
    text
}

/// Runs the cases on the runtimes that the words of this process name, prints the table.
#[expect(clippy::print_stdout, reason = "a task talks to whoever runs it")]
pub fn table() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(verdict) = one_case(&words) {
        print!("{verdict}");
        return ExitCode::SUCCESS;
    }
    match compare(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether stanza, or the last runtime that was named, failed none.
#[expect(clippy::print_stdout, reason = "a task talks to whoever runs it")]
fn compare(words: &[String]) -> Result<bool, String> {
    let wanted = Wanted::new(words)?;
    if !rustix::process::geteuid().is_root() {
        return Err("the cases need root".to_owned());
    }
    let runtimes: Vec<Runtime> =
        wanted.runtimes.iter().map(|(name, path)| Runtime::new(name, path)).collect::<Result<_, _>>()?;
    let base = Base::new()?;
    let cases: Vec<&Case> = crate::all().filter(|case| wanted.has(case)).collect();
    let width = cases.iter().map(|case| case.area.len() + case.name.len() + 2).max().unwrap_or(0);
    let names: Vec<String> = runtimes.iter().map(|runtime| format!("{:8}", runtime.name)).collect();
    println!("{:width$}  {}", "", names.join(" "));
    let work =
        |case: &&Case| runtimes.iter().map(|runtime| run(case, runtime, &base)).collect::<Vec<Verdict>>();
    let tell = |case: &&Case, verdicts: &Vec<Verdict>| {
        let cells: Vec<String> = verdicts.iter().map(|verdict| format!("{:8}", cell(verdict))).collect();
        println!("{:width$}  {}", format!("{}::{}", case.area, case.name), cells.join(" "));
        for (runtime, verdict) in runtimes.iter().zip(verdicts) {
            if let Verdict::Failed(reason) | Verdict::Skipped(reason) = verdict {
                let reason: String = reason.chars().take(1500).collect();
                println!("    {}: {}", runtime.name, reason.trim_end().replace('\n', "\n    "));
            }
        }
        let _ = std::io::stdout().flush();
    };
    let verdicts = each(&cases, 2, work, tell);
    let good = verdicts.iter().all(|row| !matches!(row.last(), Some(Verdict::Failed(_))));
    let rows: Vec<Row> = cases.into_iter().zip(verdicts).collect();
    let text = markdown(&runtimes, &rows);
    let shown = if wanted.markdown { text.as_str() } else { text.split("\n\n").next().unwrap_or_default() };
    println!("\n{shown}\n\n{}", differences(&runtimes, &rows, wanted.markdown));
    Ok(good)
}
