//! `stanza compare`: the same work behind each wall, in turns.

use std::io::{Read as _, Write as _};
use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use rustix::time::{ClockId, clock_gettime};
use stanza_engine::HOST_IMAGE;
use stanza_spec::{ContainerConfig, ErrorKind, Isolation};

use super::container_options::{self, Asked};
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::output_file::OutputFile;
use crate::progress::Display;
use crate::render::compare::{self, Comparison, Contender, Sample, Wall};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["compare"],
    group: Group::Other,
    about: "Run the same work as a container and in a virtual machine, and compare what it takes",
    needs: Needs::Monitor,
    faults: Faults::Plain,
    build,
    run,
};

const ROUNDS: usize = 5;

fn build() -> Command {
    let command = crate::arguments::command(
        "compare",
        "stanza compare [OPTIONS] IMAGE [COMMAND] [ARG...]",
        ENTRY.about,
        "Takes the options of `run`.\n\nExample:\n  stanza compare --html report.html python:3 python -c 'print(1)'",
    );
    container_options::declare(command)
        .arg(value("rounds", None, "NUMBER", "Times that each is run; 5 by default"))
        .arg(switch("on-host", None, "Run COMMAND without any wall too: it may do whatever you may"))
        .arg(value("format", None, "FORMAT", "`text` (default) or `json`"))
        .arg(value("svg", None, "FILE", "Write a picture"))
        .arg(value("html", None, "FILE", "Write a report with the picture"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let rounds = rounds(given.text("rounds"))?;
    let json = match given.text("format") {
        None | Some("" | "text") => false,
        Some("json") => true,
        Some(other) => {
            return Err(Failure::usage(format!("option `--format`: `{other}` is neither `text` nor `json`")));
        }
    };
    for name in ["name", "cidfile", "isolation"] {
        if given.text(name).is_some() {
            return Err(Failure::usage(format!(
                "`compare` does not take `--{name}`: it runs many containers"
            )));
        }
    }
    let Asked { mut config, quiet, .. } = container_options::read(given)?;
    if config.tty || config.open_stdin {
        return Err(Failure::usage("`compare` gives no terminal and no input: leave out `-t` and `-i`"));
    }
    config.auto_remove = true;
    let on_host = given.on("on-host") || config.image == HOST_IMAGE;
    if on_host && config.command.is_empty() {
        return Err(Failure::usage("nothing to run on the host: `compare --on-host` needs a COMMAND"));
    }
    let walls: &[Wall] = if on_host { &Wall::ALL } else { &Wall::ALL[1..] };
    let mut comparison = Comparison {
        image: config.image.clone(),
        command: config.command.clone(),
        rounds,
        contenders: Vec::new(),
        left_out: Vec::new(),
    };
    let mut first_failure = None;
    // Once without counting: layers are unpacked, a disk and a template made, files read.
    for wall in walls {
        match measure(door, *wall, &config, quiet, true) {
            Ok(_) => comparison.contenders.push(Contender { wall: *wall, samples: Vec::new() }),
            Err(failure) => {
                comparison.left_out.push((*wall, failure.to_string()));
                first_failure.get_or_insert(failure);
            }
        }
    }
    if let Some(failure) = first_failure.filter(|_| comparison.contenders.is_empty()) {
        return Err(failure);
    }
    let count = comparison.contenders.len();
    for turn in 0..rounds * count {
        let contender = &mut comparison.contenders[(turn + turn / count) % count];
        contender.samples.push(measure(door, contender.wall, &config, true, false)?);
    }
    for (option, draw) in [("svg", compare::svg as fn(&Comparison) -> String), ("html", compare::html)] {
        if let Some(path) = given.text(option) {
            let file = OutputFile::open(Some(path), option)?;
            let text = draw(&comparison);
            let failed = |error| Failure::io(&format!("cannot write `{path}`"), &error);
            file.file().write_all(text.as_bytes()).map_err(failed)?;
            file.finish()?;
        }
    }
    let text = if json { compare::json(&comparison) } else { compare::text(&comparison) };
    output::data(&text).map(|()| 0)
}

fn rounds(text: Option<&str>) -> Result<usize, Failure> {
    let Some(text) = text else { return Ok(ROUNDS) };
    text.parse()
        .ok()
        .filter(|rounds| (1..=1000).contains(rounds))
        .ok_or_else(|| Failure::usage(format!("option `--rounds`: `{text}` is not a number from 1 to 1000")))
}

/// Runs the work once behind one wall.
fn measure(
    door: &mut Door,
    wall: Wall,
    config: &ContainerConfig,
    quiet: bool,
    warn: bool,
) -> Result<Sample, Failure> {
    let isolation = match wall {
        Wall::Host => return on_host(&config.command, &config.env, config.workdir.as_deref()),
        Wall::Container => Isolation::Container,
        Wall::Vm => Isolation::Vm,
    };
    contained(door, ContainerConfig { isolation, ..config.clone() }, quiet, warn)
}

/// As a container or a virtual machine: what this process, the monitor and the container's control group have used.
fn contained(door: &mut Door, config: ContainerConfig, quiet: bool, warn: bool) -> Result<Sample, Failure> {
    let (begin, cpu) = (Instant::now(), own_cpu());
    let mut engine = door.engine()?;
    let mut progress = Display::for_run(&config.image, quiet);
    let created = engine.create_to_start(config, &mut progress)?;
    progress.finish();
    let started = door
        .monitor()
        .and_then(|monitor| engine.start(&created.id, monitor, true, None).map_err(Failure::from))
        .inspect_err(|_| {
            // The first failure is the one to tell.
            let _ = engine.remove(&created.id, true, true);
        });
    let (mut started, warnings) = started?;
    let runs = begin.elapsed();
    let mut first_output = None;
    let record = started.connection.listen(|_| {
        first_output.get_or_insert_with(|| begin.elapsed());
    })?;
    engine.finish(&created.id)?;
    let finished = begin.elapsed();
    if warn {
        super::run::warn(&warnings);
    }
    let used = record.used.unwrap_or_default();
    let door_cpu = own_cpu().saturating_sub(cpu);
    let all = |group: u64| door_cpu + Duration::from_nanos(used.monitor_cpu.saturating_add(group));
    Ok(Sample {
        runs,
        first_output,
        finished,
        cpu: used.cpu.map(all),
        memory_peak: used.memory_peak,
        code: record.code,
    })
}

/// Without any wall.
fn on_host(command: &[String], env: &[String], workdir: Option<&str>) -> Result<Sample, Failure> {
    let Some((name, words)) = command.split_first() else {
        return Err(Failure::usage("nothing to run on the host"));
    };
    let failed = |error: std::io::Error| {
        let kind = match ErrorKind::of_io(&error) {
            ErrorKind::NotFound => ErrorKind::CommandNotFound,
            kind => kind,
        };
        Failure::new(kind, format!("cannot run `{name}` on the host: {error}"))
    };
    let begin = Instant::now();
    let (mut output, its_output) = std::io::pipe().map_err(failed)?;
    let mut program = Program::new(name);
    program.args(words).envs(env.iter().filter_map(|pair| pair.split_once('=')));
    if let Some(workdir) = workdir {
        program.current_dir(workdir);
    }
    let its_errors = its_output.try_clone().map_err(failed)?;
    let child = program.stdin(Stdio::null()).stdout(its_output).stderr(its_errors).spawn().map_err(failed)?;
    let runs = begin.elapsed();
    // It holds the pipe's other end.
    drop(program);
    let (mut first_output, mut buffer) = (None, [0; 32 << 10]);
    while output.read(&mut buffer).map_err(failed)? > 0 {
        first_output.get_or_insert_with(|| begin.elapsed());
    }
    let ended = stanza_sys::wait_with_usage(child).map_err(failed)?;
    Ok(Sample {
        runs,
        first_output,
        finished: begin.elapsed(),
        cpu: Some(ended.cpu),
        // It has no control group, and its largest process says little.
        memory_peak: None,
        code: std::os::unix::process::ExitStatusExt::signal(&ended.status)
            .map_or_else(|| ended.status.code().unwrap_or(-1), |signal| 128 + signal),
    })
}

/// Processor time of this process.
fn own_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_a_small_number() {
        assert_eq!(rounds(None).ok(), Some(5));
        assert_eq!(rounds(Some("3")).ok(), Some(3));
        for wrong in ["0", "1001", "-1", "x"] {
            assert!(rounds(Some(wrong)).unwrap_err().to_string().contains(wrong));
        }
    }

    #[test]
    fn work_on_the_host_is_measured_and_its_signal_told() {
        let words = |text: &str| ["sh", "-c", text].map(str::to_owned).to_vec();
        let sample = on_host(&words("echo $A; exit 3"), &["A=1".to_owned()], Some("/")).unwrap();
        assert!(sample.code == 3 && sample.first_output.is_some() && sample.finished >= sample.runs);
        assert_eq!(on_host(&words("kill -9 $$"), &[], None).unwrap().code, 137);
        let failure = on_host(&["no-such-program".to_owned()], &[], None).unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::CommandNotFound);
    }
}
