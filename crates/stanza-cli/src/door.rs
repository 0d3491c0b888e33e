//! From argv to an exit code: global options by hand, the command's own by the parser, the failure printed once.
//!
//! `run` and `start` ask for a monitor, `exec` for a process that enters, before anything else: it gets ready while this
//! process still parses.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use stanza_engine::{Engine, Options};
use stanza_sandbox::{Entering, Spawned, spawn_enter, spawn_monitor};

use crate::arguments::{self, Parsed};
use crate::commands::{self, Entry, Faults, Needs};
use crate::failure::Failure;
use crate::{help, output};

/// What a command did: its exit code.
pub(crate) type Outcome = Result<u8, Failure>;

/// A wrong option, of any command, as in Docker.
const BAD_OPTION: u8 = 125;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Door {
    options: Options,
    monitor: Option<io::Result<Spawned>>,
    entering: Option<io::Result<Entering>>,
}

impl Door {
    /// The engine.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        Ok(Engine::open(self.options.clone())?)
    }

    /// The engine's directories.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// A monitor: the one that was started early, or another.
    pub(crate) fn monitor(&mut self) -> Result<Spawned, Failure> {
        self.monitor
            .take()
            .unwrap_or_else(spawn_monitor)
            .map_err(|error| Failure::io("cannot start a monitor", &error))
    }

    /// A process that can enter a container.
    pub(crate) fn entering(&mut self) -> Result<Entering, Failure> {
        self.entering
            .take()
            .unwrap_or_else(spawn_enter)
            .map_err(|error| Failure::io("cannot start a process that enters the container", &error))
    }
}

/// Global options.
#[derive(Debug, Default, PartialEq, Eq)]
struct Globals {
    root: Option<PathBuf>,
    runroot: Option<PathBuf>,
    config: Option<PathBuf>,
    storage_driver: Option<String>,
    debug: bool,
}

/// What the words before the command say.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Help,
    Version,
    /// The place of the command's first word.
    Command(usize),
}

/// Global options of Docker that are refused by name.
const REFUSED: &[&str] = &[
    "-H",
    "--host",
    "-c",
    "--context",
    "--tls",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
    "--tlsverify",
    "-l",
    "--log-level",
    "--storage-opt",
    "--cgroup-manager",
    "--runtime",
    "--remote",
    "--url",
];

fn read_globals(words: &[OsString], globals: &mut Globals) -> Result<Start, Failure> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let text = word.to_str().unwrap_or_default();
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match name {
            "--root" | "--runroot" | "--config" => {
                let value = match attached {
                    Some(value) => PathBuf::from(value),
                    None => {
                        at += 1;
                        words.get(at).map(PathBuf::from).unwrap_or_default()
                    }
                };
                if value.as_os_str().is_empty() {
                    let what = if name == "--config" { "file" } else { "directory" };
                    return Err(Failure::usage(format!("option `{name}` needs a {what}")));
                }
                let slot = match name {
                    "--root" => &mut globals.root,
                    "--runroot" => &mut globals.runroot,
                    _ => &mut globals.config,
                };
                *slot = Some(value);
            }
            "--storage-driver" => {
                let value = match attached {
                    Some(value) => value.to_owned(),
                    None => {
                        at += 1;
                        words.get(at).and_then(|word| word.to_str()).unwrap_or_default().to_owned()
                    }
                };
                globals.storage_driver = Some(value);
            }
            "-D" | "--debug" => globals.debug = attached.is_none_or(|value| value == "true"),
            "-v" | "--version" => return Ok(Start::Version),
            "-h" | "--help" => return Ok(Start::Help),
            _ if REFUSED.contains(&name) => return Err(Failure::not_built(&format!("option `{name}`"))),
            _ if name.starts_with('-') && name.len() > 1 => {
                return Err(Failure::usage(format!("unknown option `{text}`"))
                    .with_hint("`stanza --help` lists the options that go before a command"));
            }
            _ => return Ok(Start::Command(at)),
        }
        at += 1;
    }
    Ok(Start::Help)
}

/// Does what the command line says; the exit code. `words` come without the program's name.
pub(crate) fn enter(words: &[OsString]) -> u8 {
    let mut globals = Globals::default();
    let (faults, outcome) = match read_globals(words, &mut globals) {
        Err(failure) => (Faults::Run, Err(failure)),
        Ok(Start::Help) => (Faults::Plain, output::data(&help::overview()).map(|()| 0)),
        Ok(Start::Version) => (Faults::Plain, output::line(&help::version()).map(|()| 0)),
        Ok(Start::Command(at)) => match commands::find(&words[at..]) {
            Ok((entry, used)) => (entry.faults, dispatch(&globals, entry, &words[at + used..])),
            Err(failure) => (Faults::Plain, Err(failure)),
        },
    };
    let failure = match outcome {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    output::failure(&failure);
    if globals.debug {
        output::talk(&format!("debug: {:?}", failure.kind()));
    }
    match faults {
        _ if failure.is_silent() => output::CLOSED_OUTPUT,
        Faults::Run => failure.command_code(BAD_OPTION),
        _ if failure.is_bad_option() => BAD_OPTION,
        Faults::Exec => failure.command_code(1),
        Faults::Plain => 1,
    }
}

fn dispatch(globals: &Globals, entry: &'static Entry, words: &[OsString]) -> Outcome {
    let uid = rustix::process::geteuid().as_raw();
    let mut options = Options::resolve(globals.root.clone(), globals.runroot.clone(), uid);
    // A failure waits until the words are parsed: `--help` must work wherever it is asked for.
    let namespace = match entry.needs {
        Needs::Nothing | Needs::Records | Needs::Entering => Ok(()),
        Needs::Engine | Needs::Monitor => stanza_container::rootless::enter(&options.runroot),
    };
    let monitor = (entry.needs == Needs::Monitor && namespace.is_ok()).then(spawn_monitor);
    let entering = (entry.needs == Needs::Entering && namespace.is_ok()).then(spawn_enter);
    let matches = match arguments::parse((entry.build)(), words).map_err(Failure::bad_option)? {
        Parsed::Matches(matches) => matches,
        Parsed::Help(text) => return output::data(&text).map(|()| 0),
    };
    namespace?;
    options = options.with_storage_driver(globals.storage_driver.as_deref())?;
    options.config.clone_from(&globals.config);
    let runroot = options.runroot.clone();
    let outcome = (entry.run)(&mut Door { options, monitor, entering }, &matches);
    if uid != 0 {
        stanza_container::rootless::leave(&runroot);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> (Result<Start, String>, Globals) {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let mut globals = Globals::default();
        (read_globals(&words, &mut globals).map_err(|failure| failure.to_string()), globals)
    }

    #[test]
    fn global_options_stand_before_the_command() {
        let words = ["--root", "/a", "--runroot=/b", "-D", "--config", "/c", "run", "--root", "x"];
        let (start, globals) = read(&words);
        assert_eq!(start, Ok(Start::Command(6)));
        let expected = Globals {
            root: Some("/a".into()),
            runroot: Some("/b".into()),
            config: Some("/c".into()),
            storage_driver: None,
            debug: true,
        };
        assert_eq!(globals, expected);
        for words in [&["--storage-driver", "copy", "ps"][..], &["--storage-driver=copy", "ps"]] {
            assert_eq!(read(words).1.storage_driver.as_deref(), Some("copy"));
        }
        assert_eq!(read(&[]).0, Ok(Start::Help));
        assert_eq!(read(&["-v", "run"]).0, Ok(Start::Version));
    }

    #[test]
    fn unknown_and_unbuilt_global_options_are_named() {
        assert_eq!(read(&["-H", "tcp://x", "ps"]).0, Err("option `-H` is not built yet".to_owned()));
        assert_eq!(read(&["--nope", "ps"]).0, Err("unknown option `--nope`".to_owned()));
        assert_eq!(read(&["--root"]).0, Err("option `--root` needs a directory".to_owned()));
    }
}
