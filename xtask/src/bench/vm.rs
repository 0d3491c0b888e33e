//! `cargo xtask bench vm`: what a virtual machine costs beside a container, in turns, and whether KVM or emulation runs it.
//!
//! The kernel is unpacked out of a Debian package and never installed. A cold boot is measured by `stanza-vmm`'s example
//! `measure`, with the same package: no option of stanza boots without a template.

use std::fs;
use std::path::{Path, PathBuf};

use super::Workshop;
use super::commands::{Contender, compete};
use super::statistics::{median, table};
use crate::packages::is_root;
use crate::shell::output;

const IMAGE: &str = "busybox";
/// Machines of which memory is counted.
const COUNTS: [usize; 4] = [1, 2, 5, 10];

struct Options {
    runs: usize,
    kernel: Option<PathBuf>,
    stanza: Option<PathBuf>,
}

fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options { runs: 10, kernel: None, stanza: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        match word.as_str() {
            "--runs" => {
                options.runs = value()?.parse().map_err(|_| "`--runs` needs a number".to_owned())?;
            }
            "--kernel" => options.kernel = Some(PathBuf::from(value()?)),
            "--stanza" => options.stanza = Some(PathBuf::from(value()?)),
            other => return Err(format!("`bench vm` has no option `{other}`")),
        }
    }
    Ok(options)
}

/// Debian 13's kernel among those of the tests.
fn package() -> Result<PathBuf, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("kernel-packages");
    let name = fs::read_to_string(directory.join("trixie")).map_err(|_| {
        "no kernel package: name one by `--kernel`, or let `cargo xtask test` fetch it".to_owned()
    })?;
    Ok(directory.join(name.trim()))
}

/// Proportional memory of a process and of its parent, in MiB: QEMU and its monitor.
fn memory(pid: &str) -> Result<f64, String> {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).map_err(|error| format!("cannot read `{path}`: {error}"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        let value = value.and_then(|value| value.split_whitespace().next().map(str::to_owned));
        value.ok_or_else(|| format!("no `{name}` in `{path}`"))
    };
    let parent = field(&format!("/proc/{pid}/status"), "PPid:")?;
    let mut sum = 0.0;
    for pid in [pid, &parent] {
        let value = field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
        sum += value.parse::<f64>().map_err(|error| error.to_string())? / 1024.0;
    }
    Ok(sum)
}

/// Runs everything.
pub(super) fn run(words: &[String]) -> Result<bool, String> {
    let options = parse(words)?;
    if !is_root() {
        return Err("virtual machines need root".to_owned());
    }
    let package = options.kernel.map_or_else(package, Ok)?;
    let stanza = match &options.stanza {
        Some(path) => fs::canonicalize(path).map_err(|error| format!("no `{}`: {error}", path.display()))?,
        None => super::executable()?,
    };
    let workshop = Workshop::open(stanza)?;
    println!("==> {}; {} rounds", workshop.describe(), options.runs);
    let root = workshop.make("root")?;
    let prefix = [workshop.stanza.display().to_string(), "--root".to_owned(), root.display().to_string()];
    let command = |words: &[&str]| -> Vec<String> {
        prefix.iter().cloned().chain(words.iter().map(|word| (*word).to_owned())).collect()
    };
    let ask = |words: &[&str]| {
        let words = command(words);
        output(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    ask(&["vm", "kernel", "install", &package.display().to_string()])?;
    ask(&["import", &workshop.archive.display().to_string(), IMAGE])?;
    let once = ["--rm", "--network", "none", IMAGE, "true"];
    let vm = [&["run", "--isolation", "vm"][..], &once].concat();
    // Makes the template and the disk; says why KVM was not taken.
    ask(&vm)?;
    let start = |name: &str, isolation: &str| {
        let words = ["run", "-d", "--rm", "--network", "none", "--isolation", isolation, "--name", name];
        ask(&[&words[..], &[IMAGE, "sleep", "100000"]].concat())
    };
    let contender = |name: &str, words: &[&str]| Contender {
        name: name.to_owned(),
        enter: vec!["env".to_owned()],
        words: command(words),
        fresh: None,
    };
    let rows = vec![contender("stanza", &vm), contender("container", &[&["run"][..], &once].concat())];
    println!("\n==> run --rm --network none {IMAGE} true, from a template\n");
    print!("{}", table(&compete(&workshop, rows, options.runs)));
    let measure = || -> Result<(), String> {
        let mut names = vec!["one".to_owned()];
        start("one", "vm")?;
        start("beside", "container")?;
        let pid = |name: &str| ask(&["inspect", "--format", "{{.State.Pid}}", name]);
        let words = fs::read_to_string(format!("/proc/{}/cmdline", pid("one")?.trim())).unwrap_or_default();
        println!("\n==> run by {}", if words.contains("kvm") { "KVM" } else { "emulation" });
        println!("\n==> exec {IMAGE} true\n");
        let rows = vec![
            contender("stanza", &["exec", "one", "true"]),
            contender("container", &["exec", "beside", "true"]),
        ];
        print!("{}", table(&compete(&workshop, rows, options.runs)));
        println!(
            "\n==> memory of idle machines of one template, with their monitors\n\n| machines | PSS of all, MiB | each, median MiB |\n|---|---|---|"
        );
        for count in COUNTS {
            while names.len() < count {
                let name = format!("vm{}", names.len());
                start(&name, "vm")?;
                names.push(name);
            }
            let all: Vec<f64> =
                names.iter().map(|name| memory(pid(name)?.trim())).collect::<Result<_, _>>()?;
            println!("| {count} | {:.1} | {:.1} |", all.iter().sum::<f64>(), median(&all));
        }
        Ok(())
    };
    let measured = measure();
    // Whatever was started, also when a measurement failed.
    let ids = ask(&["ps", "-aq"])?;
    let remove: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.split_whitespace()).collect();
    if remove.len() > 2 {
        ask(&remove)?;
    }
    measured.map(|()| true)
}
