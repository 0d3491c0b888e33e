//! `stanza exec`.

use clap::{ArgMatches, Command};
use stanza_engine::ExecRequest;
use stanza_sandbox::ExecEnd;

use super::container_options::read_environment;
use super::session::{check_terminal, console_size, exit_code};
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, list, rest, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::flags::keys;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["exec", "container exec"],
    group: Group::Common,
    about: "Run a command in a running container",
    needs: Needs::Entering,
    faults: Faults::Exec,
    build,
    run,
};

fn build() -> Command {
    command(
        "exec",
        "stanza exec [OPTIONS] CONTAINER COMMAND [ARG...]",
        ENTRY.about,
        "Example:\n  stanza exec -it web sh",
    )
    .arg(switch("detach", 'd', "Do not wait for the command's end"))
    .arg(value("detach-keys", None, "KEYS", "Keys that detach (default `ctrl-p,ctrl-q`)"))
    .arg(list("env", 'e', "NAME=VALUE", "Set a variable; a bare NAME takes the caller's value"))
    .arg(list("env-file", None, "FILE", "Read variables from a file"))
    .arg(switch("interactive", 'i', "Keep standard input open"))
    .arg(switch("privileged", None, "Allow the command everything that root on the host may do"))
    .arg(switch("tty", 't', "Give the command a terminal"))
    .arg(value("user", 'u', "USER[:GROUP]", "User, by name or number"))
    .arg(value("workdir", 'w', "DIR", "Working directory inside"))
    .arg(rest("CONTAINER").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut words = given.texts("CONTAINER").map(str::to_owned);
    let name = words.next().unwrap_or_default();
    let argv: Vec<String> = words.collect();
    if argv.is_empty() {
        return Err(
            Failure::usage("`exec` needs a command").with_hint("`stanza exec CONTAINER COMMAND [ARG...]`")
        );
    }
    let (detached, tty, open_stdin) = (given.on("detach"), given.on("tty"), given.on("interactive"));
    if !detached {
        check_terminal(open_stdin, tty)?;
    }
    let request = ExecRequest {
        command: argv,
        env: read_environment(given)?,
        workdir: given.text("workdir").filter(|dir| !dir.is_empty()).map(str::to_owned),
        user: given.text("user").filter(|user| !user.is_empty()).map(str::to_owned),
        tty,
        open_stdin,
        privileged: given.on("privileged"),
        detached,
        detach_keys: keys::detach_keys(given.text("detach-keys"))?,
        console_size: if tty { console_size() } else { None },
    };
    let mut engine = door.engine()?;
    let id = engine.find(&name)?;
    let plan = engine.exec_plan(&id, &request)?;
    match door.entering()?.exec(&plan)? {
        ExecEnd::Exited(code) => Ok(exit_code(code)),
        ExecEnd::Detached => Ok(0),
    }
}
