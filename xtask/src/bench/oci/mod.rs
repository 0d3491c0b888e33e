//! `cargo xtask bench oci`: stanza's OCI runtime against runc, crun, bubblewrap, `nsenter` and the kernel's floor.
//!
//! All contenders run in one room (see [`hold`]): a network name space of its own and a mount name space without the v2 tree of
//! a hybrid cgroup layout, which crun refuses. All get the same configuration, runc's `spec` with the terminal off and an
//! absolute cgroup path, and the same container, `benches/still`. Every round runs each of them once, in rotating order. CPU is
//! the user and system time of the runtime and of all its descendants that have ended; for `create` and `start` also what the
//! container's first process has used, by `/proc/PID/task/*/schedstat`. What is compared are ratios of medians.
//!
//! It does not measure engines: `cargo xtask bench` does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::{Value, json};

use super::Workshop;
use super::peers::{PEER_SCRIPT, hold};
use super::workshop::compile_with;
use crate::packages::is_root;
use crate::shell::{cargo, find, step};

mod bundle;
mod calls;
mod hangs;
mod lifecycle;
mod memory;
mod report;
mod run;

use report::Report;
pub(super) use report::render;

/// All parts, in the order in which they run.
const NAMES: &[&str] = &["run", "seccomp", "lifecycle", "exec", "memory", "calls", "hangs", "stages"];

/// Those that run when none is named.
const DEFAULT: &[&str] = &["run", "seccomp", "lifecycle", "exec", "memory", "calls", "hangs"];

/// What was asked for.
#[derive(Debug)]
struct Options {
    names: Vec<String>,
    /// The runtime under test.
    stanza: Option<PathBuf>,
    rounds: usize,
    /// Runs under load.
    hangs: usize,
    markdown: bool,
    json: Option<PathBuf>,
}

/// An OCI runtime, installed here.
#[derive(Debug)]
struct Runtime {
    name: String,
    path: String,
    /// Its `--root`, inside the room.
    state: PathBuf,
    /// Its bundles.
    directory: PathBuf,
}

/// Where everything happens.
#[derive(Debug)]
struct Scene {
    workshop: Workshop,
    /// Holds the name spaces.
    holder: Child,
    /// The words that lead into them.
    enter: Vec<String>,
    /// Stanza first.
    runtimes: Vec<Runtime>,
}

fn parse(words: &[String]) -> Result<Options, String> {
    let mut options =
        Options { names: Vec::new(), stanza: None, rounds: 50, hangs: 1000, markdown: false, json: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        let number = |text: &String| text.parse().map_err(|_| format!("`{word}` needs a number"));
        match word.as_str() {
            "--stanza" => options.stanza = Some(PathBuf::from(value()?)),
            "--rounds" => options.rounds = number(value()?)?,
            "--hangs" => options.hangs = number(value()?)?,
            "--stages" => options.names.push("stages".to_owned()),
            "--markdown" => options.markdown = true,
            "--json" => options.json = Some(PathBuf::from(value()?)),
            name if NAMES.contains(&name) => options.names.push(name.to_owned()),
            other => return Err(format!("no part `{other}` of `bench oci`; there are {}", NAMES.join(", "))),
        }
    }
    if options.names.is_empty() {
        options.names = DEFAULT.iter().map(|name| (*name).to_owned()).collect();
    }
    Ok(options)
}

/// The release build of the runtime, made now.
fn executable() -> Result<PathBuf, String> {
    let words = ["build", "--release", "--package", "stanza-oci"];
    if !step("build stanza-oci", cargo().args(words))? {
        return Err("stanza-oci does not build".to_owned());
    }
    let mut command = cargo();
    command.args(words).args(["--message-format", "json", "--quiet"]);
    super::built("release", "stanza-oci", &mut command)
}

impl Scene {
    fn open(stanza: PathBuf) -> Result<Scene, String> {
        let stanza = fs::canonicalize(&stanza)
            .map_err(|error| format!("no runtime at `{}`: {error}", stanza.display()))?;
        let workshop = Workshop::open(stanza.clone())?;
        for (name, options) in [("true", &["-nostdlib"][..]), ("pause", &["-nostdlib", "-DFOREVER"])] {
            compile_with(options, "benches/still/still.c", &workshop.rootfs.join(name))?;
        }
        let (holder, enter) = hold(PEER_SCRIPT)?;
        let mut scene = Scene { workshop, holder, enter, runtimes: Vec::new() };
        let mut found = vec![("stanza", Some(stanza.display().to_string()))];
        found.extend(["crun", "runc"].map(|name| (name, find(name))));
        for (name, path) in found {
            let Some(path) = path else {
                println!("skipped: {name}: not installed (package {name})");
                continue;
            };
            let directory = scene.workshop.make(name)?;
            // The room's `/run` is a tmpfs, as everywhere: new files on ext4 cost a fifth of a `run`.
            let state = Path::new("/run").join(name);
            let runtime = Runtime { name: name.to_owned(), path, state, directory };
            match scene.prepare(&runtime) {
                Ok(()) => scene.runtimes.push(runtime),
                Err(error) => println!("skipped: {name}: {error}"),
            }
        }
        if scene.runtimes.first().is_none_or(|runtime| runtime.name != "stanza") {
            return Err("stanza-oci does not run the container".to_owned());
        }
        Ok(scene)
    }

    /// Makes the runtime's bundles and runs one once: the first run of all caches things.
    fn prepare(&self, runtime: &Runtime) -> Result<(), String> {
        bundle::make_all(&self.workshop, runtime)?;
        self.ask(runtime, &["run", "--bundle", &runtime.bundle("true"), "first"]).map(|_| ())
    }

    /// Runs a command of the runtime in the room, unmeasured; its standard output. A container that it leaves behind keeps
    /// none of this task's pipes.
    fn ask(&self, runtime: &Runtime, arguments: &[&str]) -> Result<String, String> {
        let log = runtime.directory.join("output");
        let script = "log=$1; shift; \"$@\" </dev/null >\"$log\" 2>&1 || { code=$?; cat \"$log\" >&2; exit $code; }; \
                      cat \"$log\"";
        let (log, rest) = (log.display().to_string(), runtime.command(arguments));
        let words: Vec<&str> =
            self.enter.iter().map(String::as_str).chain(["sh", "-c", script, "sh", &log]).collect();
        crate::shell::output(&words.into_iter().chain(rest.iter().map(String::as_str)).collect::<Vec<_>>())
    }
}

impl Runtime {
    /// The whole command line inside the name spaces.
    fn command(&self, arguments: &[&str]) -> Vec<String> {
        let state = self.state.display().to_string();
        [&self.path, "--root", &state]
            .into_iter()
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect()
    }

    /// Where a bundle is.
    fn bundle(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What a failed part left behind.
        for runtime in &self.runtimes {
            for id in ["bench", "long", "waiting", "small"] {
                let _ = self.ask(runtime, &["delete", "--force", id]);
            }
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // Runtimes remove the container's cgroup, not the one above it.
        for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path().join(bundle::cgroup()));
        }
    }
}

/// Runs the parts asked for; `false` when one could not be run.
pub(super) fn run(words: &[String]) -> Result<bool, String> {
    let options = parse(words)?;
    if !is_root() {
        return Err("the peers need root; so does this comparison".to_owned());
    }
    let stanza = match &options.stanza {
        Some(path) => path.clone(),
        None => executable()?,
    };
    let scene = Scene::open(stanza)?;
    println!("==> {}; {} rounds", scene.workshop.describe(), options.rounds);
    let mut report = Report::default();
    let mut good = true;
    for name in &options.names {
        println!("==> {name}");
        let done = match name.as_str() {
            "run" => run::run(&scene, options.rounds, &mut report),
            "seccomp" => run::seccomp(&scene, options.rounds, &mut report),
            "lifecycle" => lifecycle::run(&scene, options.rounds, &mut report),
            "exec" => run::exec(&scene, options.rounds, &mut report),
            "memory" => memory::run(&scene, &mut report),
            "calls" => calls::run(&scene, &mut report),
            "hangs" => hangs::run(&scene, options.hangs, &mut report),
            _ => calls::stages(&scene, options.markdown),
        };
        if let Err(error) = done {
            println!("error: {name}: {error}");
            good = false;
        }
    }
    if !report.is_empty() {
        println!("\n{}", report.render(options.markdown));
    }
    if let Some(path) = &options.json {
        let document: Value = json!({
            "machine": scene.workshop.describe(), "rounds": options.rounds, "rows": report.document()
        });
        fs::write(path, document.to_string())
            .map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    }
    Ok(good)
}
