//! `cargo xtask interop`: the real callers of an OCI runtime, with stanza's in place of runc.
//!
//! Debian's podman (root's and a user's), containerd and dockerd each get a [`room`] of their own, and a script of steps that
//! is run with one runtime: `stanza-oci`, or whatever `--runtime` names. The steps are black-box: they were first made to pass
//! with runc, so that a step that fails tells something about the runtime. A step is a piece of shell; it passes when it ends
//! with 0, and is skipped when it ends with 77. The last step of each caller is that its cgroups are gone.
//!
//! It does not pull images and needs no network: the image is made of `busybox-static`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::bench::{built, make_rootfs};
use crate::packages::{self, is_root};
use crate::room::{self, Room};
use crate::shell::{cargo, output, step};

mod containerd;
mod docker;
mod podman;
mod rootless;

/// How long one step may take, in seconds.
const PATIENCE: u64 = 60;
/// How much of a failed step's output is shown.
const LINES: usize = 40;
/// How many of its commands are shown, the last ones.
const TRACE: usize = 6;
/// The exit code of a step that cannot run on this machine.
const SKIPPED: i32 = 77;

/// One thing that a caller is asked to do.
#[derive(Debug)]
struct Step {
    name: &'static str,
    script: &'static str,
}

/// A program that calls OCI runtimes.
#[derive(Debug)]
struct Caller {
    name: &'static str,
    /// The programs that must be installed.
    programs: &'static [&'static str],
    /// The shell functions that the steps use.
    prelude: &'static str,
    /// What the path of a container's cgroup contains.
    cgroup: &'static str,
    steps: &'static [Step],
}

/// What every script can use: `expect ACTUAL EXPECTED`, `same ONE OTHER` (not
/// empty), `contains TEXT PART`, `fails_with CODE COMMAND…`, `soon COMMAND…` (retries
/// for twenty seconds), `nothing_left`, `skip REASON`, `on_terminal COMMAND`.
const COMMON: &str = r#"
expect() { if [ "$1" != "$2" ]; then echo "got \`$1\` in place of \`$2\`"; exit 1; fi; }
same() { expect "$1" "$2"; [ -n "$1" ] || { echo "both are empty"; exit 1; }; }
contains() { case $1 in *"$2"*) ;; *) echo "got \`$1\` without \`$2\`"; exit 1 ;; esac; }
fails_with() { wanted=$1; shift; code=0; "$@" || code=$?; expect "$code" "$wanted"; }
soon() { tries=0; until "$@"; do tries=$((tries + 1)); [ $tries -lt 200 ] || return 1; sleep 0.1; done; }
# No process of the runtime, no mount of a root file system, no directory named after a container below /run.
nothing_left() {
  soon sh -c "! pgrep -x '$(basename $RUNTIME | cut -c1-15)'"
  expect "$(grep -c ' overlay ' /proc/mounts)" "$(grep -c ' / overlay ' /proc/mounts)"
  expect "$(find /run -type d -regextype posix-extended -regex '.*/[0-9a-f]{64}')" ""
}
skip() { echo "skipped: $*"; exit 77; }
# A caller on a terminal of its own; what it printed comes without carriage returns.
# Its input never ends: podman leaves a terminal whose input has ended, mostly before it has shown anything.
on_terminal() {
  [ -p "$D/still" ] || mkfifo "$D/still"
  script --quiet --return --command "$1" /dev/null <>"$D/still" | tr -d '\r'
}
"#;

const CALLERS: &[&Caller] = &[&podman::CALLER, &rootless::CALLER, &containerd::CALLER, &docker::CALLER];

/// What was asked for.
#[derive(Debug, Default)]
struct Options {
    callers: Vec<String>,
    runtime: Option<PathBuf>,
    /// Only the steps whose names contain it, and those that prepare.
    filter: Option<String>,
}

/// Numbers of the closing line.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    ignored: usize,
    filtered: usize,
    failures: Vec<String>,
}

fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runtime" => {
                let path = words.next().ok_or("`--runtime` needs a path")?;
                let path =
                    fs::canonicalize(path).map_err(|error| format!("no runtime at `{path}`: {error}"))?;
                options.runtime = Some(path);
            }
            "--only" => {
                options.filter = Some(words.next().ok_or("`--only` needs a part of a step's name")?.clone())
            }
            name if CALLERS.iter().any(|caller| caller.name == name) => options.callers.push(name.to_owned()),
            other => {
                let names: Vec<&str> = CALLERS.iter().map(|caller| caller.name).collect();
                return Err(format!("no caller `{other}`; there are {}", names.join(", ")));
            }
        }
    }
    Ok(options)
}

/// The debug build of the runtime, made now.
fn executable() -> Result<PathBuf, String> {
    if !step("build stanza-oci", cargo().args(["build", "--package", "stanza-oci"]))? {
        return Err("stanza-oci does not build".to_owned());
    }
    let mut command = cargo();
    command.args(["build", "--package", "stanza-oci", "--message-format", "json", "--quiet"]);
    built("debug", "stanza-oci", &mut command)
}

/// Makes the image's archive, in the form that `docker save` writes and every caller loads.
fn make_image(directory: &Path) -> Result<(), String> {
    let rootfs = directory.join("rootfs");
    fs::create_dir_all(&rootfs).map_err(|error| format!("cannot make `{}`: {error}", rootfs.display()))?;
    make_rootfs(&rootfs)?;
    let script = r#"
        set -e
        cd "$1"
        printf 'user:x:1000:1000:user:/tmp:/bin/sh\n' >>rootfs/etc/passwd
        printf 'user:x:1000:\n' >>rootfs/etc/group
        printf 'not a program' >rootfs/bin/text
        chmod 1777 rootfs/tmp
        mkdir image
        tar --numeric-owner --owner=0 --group=0 -C rootfs -cf image/layer.tar .
        sum=$(sha256sum image/layer.tar | cut -d' ' -f1)
        printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"busybox"}]}' "$sum" >image/config.json
        name=$(sha256sum image/config.json | cut -d' ' -f1)
        mv image/config.json "image/$name.json"
        printf '[{"Config":"%s.json","RepoTags":["localhost/interop:1"],"Layers":["layer.tar"]}]' "$name" >image/manifest.json
        tar -C image -cf image.tar manifest.json "$name.json" layer.tar
    "#;
    output(&["sh", "-c", script, "sh", &directory.display().to_string()]).map(|_| ())
}

/// Why a caller cannot run on this machine.
fn obstacle(caller: &Caller) -> Option<String> {
    let missing: Vec<&str> =
        caller.programs.iter().copied().filter(|program| !crate::shell::have(program)).collect();
    if !missing.is_empty() {
        return Some(format!("not installed: {}", missing.join(", ")));
    }
    (!room::is_possible())
        .then(|| "the steps look into cgroup v1 hierarchies, and none is mounted here".to_owned())
}

/// Runs one script and prints how it went; whether the next can build on it.
fn run_step(room: &Room, name: String, script: &str, own: &Path, tally: &mut Tally) -> bool {
    let ending = match room.run(script, &own.join("output"), PATIENCE) {
        Ok(ending) => ending,
        Err(error) => {
            println!("test {name} ... FAILED\n    {error}");
            tally.failures.push(name);
            return false;
        }
    };
    if ending.code == 0 {
        println!("test {name} ... ok");
        tally.passed += 1;
    } else if ending.code == SKIPPED {
        let reason = ending.output.lines().rev().find_map(|line| line.strip_prefix("skipped: "));
        println!("test {name} ... ignored, {}", reason.unwrap_or("no reason told"));
        tally.ignored += 1;
    } else {
        let late = if ending.code == 124 { ", the time was up" } else { "" };
        println!("test {name} ... FAILED (exit code {}{late})", ending.code);
        println!("    {}", last_lines(&ending.output, LINES));
        let trace = fs::read(own.join("trace")).unwrap_or_default();
        println!("  the last commands:\n    {}", last_lines(&String::from_utf8_lossy(&trace), TRACE));
        tally.failures.push(name);
        return false;
    }
    true
}

/// The last lines of a text, to be shown indented.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n    ")
}

/// Runs one caller's steps.
fn run_caller(caller: &Caller, runtime: &Path, directory: &Path, options: &Options, tally: &mut Tally) {
    if let Some(reason) = obstacle(caller) {
        println!("test {} ... ignored, {reason}", caller.name);
        tally.ignored += 1;
        return;
    }
    let own = directory.join(caller.name);
    let opened = fs::create_dir_all(&own)
        .map_err(|error| format!("cannot make `{}`: {error}", own.display()))
        .and_then(|()| Room::open(&format!("stanza-interop-{}-{}", caller.name, std::process::id())));
    let room = match opened {
        Ok(room) => room,
        Err(error) => {
            println!("test {} ... FAILED\n{error}", caller.name);
            tally.failures.push(caller.name.to_owned());
            return;
        }
    };
    let variables = format!(
        "D={}; ARCHIVE={}; RUNTIME={}; IMAGE=localhost/interop:1; HOME=$D; export HOME\n",
        own.display(),
        directory.join("image.tar").display(),
        runtime.display()
    );
    for step in caller.steps {
        let prepares = step.name.starts_with("prepare");
        if options.filter.as_ref().is_some_and(|filter| !prepares && !step.name.contains(filter.as_str())) {
            tally.filtered += 1;
            continue;
        }
        let script = format!(
            "{variables}{COMMON}{}\nexec 9>$D/trace; BASH_XTRACEFD=9\nset -ex\n{}",
            caller.prelude, step.script
        );
        let good = run_step(&room, format!("{}: {}", caller.name, step.name), &script, &own, tally);
        if prepares && !good {
            println!("test {}: what follows is left out", caller.name);
            return;
        }
    }
    if options.filter.is_some() {
        // What was prepared is still there.
        return;
    }
    let name = format!("{}: no cgroup is left", caller.name);
    let left = room.leftovers(caller.cgroup);
    if left.is_empty() {
        println!("test {name} ... ok");
        tally.passed += 1;
    } else {
        println!("test {name} ... FAILED\n    {}", left.join("\n    "));
        tally.failures.push(name);
    }
}

/// Runs the callers asked for, or all; `false` when a step failed.
pub(crate) fn run(words: &[String]) -> Result<bool, String> {
    let options = parse(words)?;
    if !is_root() {
        return Err("podman, containerd and dockerd are run as root here".to_owned());
    }
    packages::ensure_callers()?;
    packages::ensure_user()?;
    let runtime = match &options.runtime {
        Some(path) => path.clone(),
        None => executable()?,
    };
    let directory = std::env::temp_dir().join(format!("stanza-interop-{}", std::process::id()));
    let begin = Instant::now();
    let mut tally = Tally::default();
    let made = make_image(&directory);
    if made.is_ok() {
        println!("==> callers of {}", runtime.display());
        for caller in CALLERS {
            if options.callers.is_empty() || options.callers.iter().any(|name| name == caller.name) {
                run_caller(caller, &runtime, &directory, &options, &mut tally);
            }
        }
    }
    let removed = output(&["rm", "-rf", &directory.display().to_string()]);
    made?;
    if !tally.failures.is_empty() {
        println!("\nfailures:\n    {}", tally.failures.join("\n    "));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s",
        if tally.failures.is_empty() { "ok" } else { "FAILED" },
        tally.passed,
        tally.failures.len(),
        tally.ignored,
        tally.filtered,
        begin.elapsed().as_secs_f64()
    );
    removed?;
    Ok(tally.failures.is_empty())
}
