//! `exec`: one more process in a running container.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::Pid;
use stanza_cgroup::Cgroup;
use stanza_container::{Attendant, ExecTarget, Init, Landlock, Manner, exec_through};

use crate::arguments::{Parsed, Verb, option, switch};
use crate::context::Context;
use crate::creation::{check_terminal, entry, stdio};
use crate::failure::Failure;
use crate::seccomp::Agent;
use crate::state::{Container, Status};
use crate::{descriptors, foreground, process, seccomp};

pub(super) static VERB: Verb = Verb {
    name: "exec",
    usage: "ID COMMAND [ARGUMENT...] | --process FILE ID",
    help: "Run one more process in a container",
    flags: &[
        option(&["process", "p"], "FILE", "a file with the process, as in config.json"),
        switch(&["detach", "d"], "do not wait for the process's end"),
        option(&["pid-file"], "FILE", "where to write the process's pid"),
        option(&["console-socket"], "SOCKET", "a socket that is sent the controlling end of the terminal"),
        option(&["pidfd-socket"], "SOCKET", "a socket that is sent a pidfd of the process"),
        switch(&["tty", "t"], "give it a terminal"),
        option(&["user", "u"], "UID[:GID]", "its user and group"),
        option(&["additional-gids", "g"], "GID", "one more group"),
        option(&["cwd"], "DIR", "its working directory"),
        option(&["env", "e"], "NAME=VALUE", "one more environment variable"),
        option(&["cap", "c"], "CAP", "one more capability"),
        switch(&["no-new-privs"], "it can gain no privileges"),
        option(&["apparmor"], "PROFILE", "its AppArmor profile"),
        option(&["process-label"], "LABEL", "its SELinux label"),
        option(&["preserve-fds"], "N", "pass N more descriptors from 3 on to it"),
        option(&["cgroup"], "[CONTROLLER:]PATH", "a cgroup below the container's to put it in"),
        switch(&["ignore-paused"], "start it in a paused container, where it waits"),
        switch(&["no-subreaper"], "accepted for runc's sake: orphans are never taken over"),
    ],
    own_words: 1,
    run,
};

/// Nothing of the start is this process's part but to hand a listener to its agent.
struct Starter<'a> {
    container: &'a Container,
    agent: Option<Agent>,
}

impl Attendant for Starter<'_> {
    fn attach(&mut self, _pid: Pid) -> Result<(), String> {
        Ok(())
    }

    fn take_listener(&mut self, pid: Pid, listener: OwnedFd) -> Result<(), String> {
        let Some(agent) = &self.agent else {
            return Err("the system call filter notifies, and no agent is named".to_owned());
        };
        let state = self.container.record.state(Status::Running);
        agent.send(pid.as_raw_nonzero().get(), &listener, &state).map_err(|failure| failure.chain())
    }
}

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id =
        parsed.words.first().ok_or_else(|| Failure::Usage("exec needs the container's id".to_owned()))?;
    let container = Container::open(context, id)?;
    let pidfd = container.init().ok_or_else(|| stopped(&container))?;
    match container.status() {
        Status::Stopped | Status::Creating => return Err(stopped(&container)),
        Status::Paused if !parsed.is_on("ignore-paused") => {
            return Err(Failure::State(
                "cannot exec in a paused container (use --ignore-paused to override)".to_owned(),
            ));
        }
        _ => {}
    }
    let pid = Pid::from_raw(container.record.init_process_pid).ok_or_else(|| stopped(&container))?;
    let spec = container.spec()?;
    let mut process = process::of(parsed, &spec)?;
    let detached = parsed.is_on("detach");
    let path = |name| parsed.value(name).filter(|path| !path.is_empty()).map(Path::new);
    let console = path("console-socket");
    let terminal = process.terminal().unwrap_or(false);
    check_terminal(terminal, detached, console)?;
    let preserved = descriptors::preserved(parsed.number("preserve-fds")?.unwrap_or(0), &mut process)?;
    let filter = seccomp::filter(&spec)?;
    let agent = Agent::of(&spec, filter.as_ref())?;
    let landlock = Landlock::of(spec.annotations().as_ref())?;
    let cgroup = cgroup(&container, &parsed.values("cgroup").collect::<Vec<_>>())?;
    let init = exec_through(
        ExecTarget {
            pid,
            pidfd,
            process: &process,
            filter: filter.as_ref(),
            landlock: landlock.as_ref(),
            cgroup: entry(&cgroup)?,
            stdio: stdio(Some(&process)),
            manner: Manner {
                keyring: Some(format!("_ses.{id}")),
                outlives_starter: true,
                preserved,
                ..Manner::default()
            },
        },
        &mut Starter { container: &container, agent },
    )?;
    hand_over(parsed, console, &init)?;
    if detached { Ok(0) } else { foreground::attend(&init) }
}

fn stopped(container: &Container) -> Failure {
    match container.status() {
        Status::Creating => Failure::State("cannot exec in a container in the creating state".to_owned()),
        _ => Failure::State("cannot exec in a stopped container".to_owned()),
    }
}

/// The cgroup of the new process: below the container's where asked for, else beside the first process.
fn cgroup(container: &Container, wanted: &[&str]) -> Result<Cgroup, Failure> {
    let cgroup = container.cgroup();
    if !wanted.is_empty() {
        return cgroup.sub(wanted).map_err(Failure::below);
    }
    let pid = container.record.init_process_pid.cast_unsigned();
    Ok(cgroup.beside(pid).map_err(Failure::below)?.unwrap_or(cgroup))
}

/// What the caller wants of the new process.
fn hand_over(parsed: &Parsed, console: Option<&Path>, init: &Init) -> Result<(), Failure> {
    if let (Some(socket), Some(controller)) = (console, &init.controller) {
        descriptors::send_console(socket, controller)?;
    }
    if let Some(socket) = parsed.value("pidfd-socket").filter(|path| !path.is_empty()) {
        descriptors::send_pidfd(Path::new(socket), &init.pidfd)?;
    }
    if let Some(path) = parsed.value("pid-file").filter(|path| !path.is_empty()) {
        descriptors::write_pid_file(Path::new(path), init.pid.as_raw_nonzero().get())?;
    }
    Ok(())
}
