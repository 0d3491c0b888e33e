//! `stanza run`: create, start and attach in one.

use clap::{ArgMatches, Command};

use super::container_options::{self, Asked};
use super::create::Cidfile;
use super::session::{Session, check_terminal, console_size};
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;
use crate::progress::{Display, Stream};

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["run", "container run"],
    group: Group::Common,
    about: "Create and run a new container from an image",
    needs: Needs::Monitor,
    faults: Faults::Run,
    build,
    run,
};

fn build() -> Command {
    let command = command(
        "run",
        "stanza run [OPTIONS] IMAGE [COMMAND] [ARG...]",
        ENTRY.about,
        "Example:\n  stanza run --rm -it -v \"$PWD:/work\" -w /work busybox sh\n  stanza run --rm host id",
    );
    container_options::declare(command)
        .arg(switch("detach", 'd', "Run in the background and print the container's id"))
        .arg(value("detach-keys", None, "KEYS", "Keys that detach (default `ctrl-p,ctrl-q`)"))
        .arg(switch("sig-proxy", None, "Forward signals to the container (default true)"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let Asked { config, cidfile, quiet } = container_options::read(given)?;
    let detach = given.on("detach");
    let (tty, stdin, auto_remove) = (config.tty, config.open_stdin, config.auto_remove);
    let session = Session::read(given, stdin, tty)?;
    if !detach {
        check_terminal(stdin, tty)?;
    }
    let cidfile = cidfile.map(Cidfile::reserve).transpose()?;
    let mut engine = door.engine()?;
    let mut progress = Display::for_run(&config.image, quiet);
    let created = engine.create_to_start(config, &mut progress)?;
    progress.finish();
    warn(&created.warnings);
    if let Some(cidfile) = cidfile {
        cidfile.write(created.id.as_str())?;
    }
    let size = if tty { console_size() } else { None };
    let started = door
        .monitor()
        .and_then(|monitor| engine.start(&created.id, monitor, !detach, size).map_err(Failure::from));
    let (mut started, warnings) = match started {
        Ok(started) => started,
        Err(failure) => {
            if auto_remove {
                // The first failure is the one to tell.
                let _ = engine.remove(&created.id, true, true);
            }
            return Err(failure);
        }
    };
    warn(&warnings);
    if detach {
        return output::line(created.id.as_str()).map(|()| 0);
    }
    session.pump(&mut engine, &created.id, &mut started.connection)
}

pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        output::warning(warning);
    }
}

impl Display {
    /// How `run` and `create` show a pull.
    pub(super) fn for_run(image: &str, quiet: bool) -> Display {
        let stream = if quiet { Stream::Quiet } else { Stream::Stderr };
        let mut display = Display::new(stream);
        display.title = Some(format!("pulling `{image}`"));
        display
    }
}
