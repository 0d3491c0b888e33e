//! Starting a monitor: early, apart from the door, and from an executable that no container can write to
//! ([`stanza_container::protected_executable`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use stanza_container::protected_executable;
use stanza_network::PortMap;
use stanza_sys::{keep_only, send_descriptors};

use crate::attach::Connection;
use crate::error::StartError;
use crate::frame::Kind;
use crate::plan::{Running, SandboxPlan};

/// The name that a monitor is started by (`argv[0]`).
pub(crate) const MONITOR: &str = "stanza-monitor";
/// The name of a proxy of published ports.
pub(crate) const PROXY: &str = "stanza-proxy";
/// The name of a process that enters a container.
pub(crate) const ENTER: &str = "stanza-enter";

/// A monitor that waits for its plan. Dropping it lets the monitor end.
#[derive(Debug)]
pub struct Spawned(UnixStream);

/// A container that runs.
#[derive(Debug)]
pub struct Started {
    /// Its first process, in this pid namespace's numbering.
    pub pid: i32,
    /// When, RFC 3339.
    pub started_at: String,
    /// Published ports with the host ports really taken.
    pub ports: Vec<PortMap>,
    /// The host's rules were missing, and were made: other containers are to be told to make theirs anew.
    pub made_rules: bool,
    /// What the user should know of its walls.
    pub notice: Option<String>,
    /// The conversation with its monitor.
    pub connection: Connection,
}

/// Starts this program under another name, with one end of a socket as its standard input.
pub(crate) fn spawn_self(name: &str) -> io::Result<UnixStream> {
    let program = protected_executable()?;
    let (mut command, ours) = self_as(name, &format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    command.spawn()?;
    Ok(ours)
}

/// The same for a process that ends with this one and never enters a container: its executable is this one's, protected or
/// not.
pub(crate) fn spawn_helper(name: &str) -> io::Result<(Child, UnixStream)> {
    let (mut command, ours) = self_as(name, "/proc/self/exe")?;
    Ok((stanza_sys::as_helper(&mut command).spawn()?, ours))
}

fn self_as(name: &str, program: &str) -> io::Result<(Command, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(program);
    command.arg0(name).env_clear().stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((command, ours))
}

/// The started side: takes the socket off standard input, and closes whatever else the door had inherited and was not
/// meant for a process that lives as long as a container.
pub(crate) fn take_socket() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    keep_only(3, &[socket.as_fd()])?;
    Ok(socket)
}

/// Starts a monitor that waits for its plan: call it before anything else, so that it gets ready while the door thinks.
///
/// # Errors
/// When no process can be started.
pub fn spawn_monitor() -> io::Result<Spawned> {
    Ok(Spawned(spawn_self(MONITOR)?))
}

impl Spawned {
    /// Sends the plan and waits until the container's program runs.
    ///
    /// `lock` is a descriptor that keeps others from changing the container, as flock(2) does. The monitor holds it
    /// too until it is known to run, so that nobody takes a container apart that a door has begun to start, although the
    /// door was killed.
    ///
    /// # Errors
    /// When it does not; nothing is left then.
    pub fn start(self, plan: &SandboxPlan, lock: BorrowedFd<'_>) -> Result<Started, StartError> {
        send_descriptors(&self.0, b"L", &[lock]).map_err(StartError::Monitor)?;
        let mut connection = Connection::new(self.0);
        let text = serde_json::to_vec(plan).map_err(|error| StartError::Monitor(error.into()))?;
        connection.send(Kind::Plan, &text).map_err(StartError::Monitor)?;
        let (kind, body) = connection.receive().map_err(StartError::Monitor)?;
        match kind {
            Kind::Started => {
                let running: Running =
                    serde_json::from_slice(&body).map_err(|error| StartError::Monitor(error.into()))?;
                Ok(Started {
                    pid: running.pid,
                    started_at: running.started_at,
                    ports: running.ports,
                    made_rules: running.made_rules,
                    notice: running.notice,
                    connection,
                })
            }
            Kind::Failed => Err(crate::error::refusal(&body)),
            _ => Err(StartError::Monitor(io::ErrorKind::InvalidData.into())),
        }
    }
}
