//! The parent's side of a new container: clone, map ids, let the caller attach the network, hear how it went.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use stanza_spec::Rootfs;
use stanza_spec::oci::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};
use stanza_sys::{CloneFlags, Cloned, clone_process, receive_descriptors, send_descriptors};

use crate::copy_up::CopyUp;
use crate::error::{Failure, LaunchError};
use crate::process::{CgroupEntry, give_up};
use crate::seccomp::Filter;

/// What the first process has as standard input, output and error.
#[derive(Debug)]
pub enum Stdio {
    /// A terminal of the container's own; its controller comes back in [`Init`].
    Terminal {
        /// Rows and columns.
        size: Option<(u16, u16)>,
    },
    /// These.
    Descriptors([OwnedFd; 3]),
}

/// A container to start.
pub struct Launch<'a> {
    /// The OCI configuration. `linux.seccomp` and `linux.resources` are not looked at: see `filter` and `cgroup`.
    pub spec: &'a Spec,
    /// How `/` is made.
    pub rootfs: &'a Rootfs,
    /// Volumes to fill first.
    pub copy_up: &'a [CopyUp],
    /// The compiled system call filter.
    pub filter: Option<&'a Filter>,
    /// The control groups to be in.
    pub cgroup: CgroupEntry,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// Called in the parent once the child and its namespaces exist, while the child is mounting.
    pub around: &'a mut dyn FnMut(Pid) -> Result<(), String>,
    /// Called in the child, inside all namespaces, after `around` has succeeded.
    pub inside: &'a dyn Fn() -> Result<(), String>,
}

/// A container's first process; its program runs.
#[derive(Debug)]
pub struct Init {
    /// In this pid namespace's numbering.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// The controlling end of its terminal.
    pub controller: Option<OwnedFd>,
}

/// What the parent tells the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncByte {
    Mapped = b'm' as isize,
    Network = b'n' as isize,
}

impl Launch<'_> {
    pub(crate) fn has_cgroup_namespace(&self) -> bool {
        self.namespaces().any(|kind| kind == LinuxNamespaceType::Cgroup)
    }

    fn namespaces(&self) -> impl Iterator<Item = LinuxNamespaceType> {
        let namespaces = self.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        namespaces
            .into_iter()
            .flatten()
            .filter(|namespace| namespace.path().is_none())
            .map(|namespace| namespace.typ())
    }

    fn clone_flags(&self) -> CloneFlags {
        let mut flags = CloneFlags::MOUNT;
        for kind in self.namespaces() {
            flags |= match kind {
                LinuxNamespaceType::Mount => CloneFlags::MOUNT,
                LinuxNamespaceType::Uts => CloneFlags::UTS,
                LinuxNamespaceType::Ipc => CloneFlags::IPC,
                LinuxNamespaceType::User => CloneFlags::USER,
                LinuxNamespaceType::Pid => CloneFlags::PID,
                LinuxNamespaceType::Network => CloneFlags::NETWORK,
                // The cgroup namespace is made after the cgroup is joined; the others are not ours to clone.
                _ => CloneFlags::NONE,
            };
        }
        flags
    }
}

/// Starts a container: returns when its program runs, or with the reason why it does not, and then nothing is left.
///
/// The caller must be single-threaded.
///
/// # Errors
/// Everything that can be wrong with a configuration, a root file system or a kernel.
pub fn launch(mut launch: Launch<'_>) -> Result<Init, LaunchError> {
    let step = |step: &str| {
        let step = step.to_owned();
        move |source| LaunchError::Step { step, source }
    };
    let (ours, theirs) = UnixStream::pair().map_err(step("make a socket pair"))?;
    let flags = launch.clone_flags();
    let userns = flags.contains(CloneFlags::USER);
    let prepared = match userns {
        true => Some(crate::idmap::prepare(launch.rootfs, launch.spec)?),
        false => None,
    };
    match clone_process(flags, launch.cgroup.directory.as_ref().map(AsFd::as_fd))
        .map_err(LaunchError::Clone)?
    {
        Cloned::Child => {
            drop(ours);
            let Err(failure) = crate::init::run(&launch, &theirs, prepared.as_ref());
            report(&theirs, &failure);
            give_up()
        }
        Cloned::Parent { pid, pidfd } => {
            drop((theirs, prepared));
            if let Err(error) = guide(&mut launch, &ours, pid, userns) {
                // The child finds the socket closed, or says itself what went wrong; the first cause counts.
                let _ = ours.shutdown(std::net::Shutdown::Write);
                let reported = hear(&ours).map_or(None, |heard| heard.failure);
                reap(&pidfd);
                return Err(reported
                    .filter(|_| matches!(error, LaunchError::Step { .. }))
                    .map_or(error, LaunchError::from));
            }
            let heard = hear(&ours).map_err(step("hear from the container's first process"))?;
            match heard.failure {
                Some(failure) => {
                    reap(&pidfd);
                    Err(failure.into())
                }
                None => Ok(Init { pid, pidfd, controller: heard.controller }),
            }
        }
    }
}

/// What the parent does for the child.
fn guide(launch: &mut Launch<'_>, sync: &UnixStream, pid: Pid, userns: bool) -> Result<(), LaunchError> {
    let tell = |byte: SyncByte| {
        let mut stream = sync;
        stream
            .write_all(&[byte as u8])
            .map_err(|source| LaunchError::Step { step: "talk to the child".to_owned(), source })
    };
    if userns {
        map_ids(pid, launch.spec)?;
        tell(SyncByte::Mapped)?;
    }
    (launch.around)(pid).map_err(LaunchError::Around)?;
    tell(SyncByte::Network)
}

/// Writes the id mappings of a new user namespace.
pub(crate) fn map_ids(pid: Pid, spec: &Spec) -> Result<(), LaunchError> {
    let linux = spec.linux().as_ref();
    let text = |mappings: Option<&Vec<LinuxIdMapping>>| {
        mappings
            .into_iter()
            .flatten()
            .map(|mapping| format!("{} {} {}\n", mapping.container_id(), mapping.host_id(), mapping.size()))
            .collect::<String>()
    };
    let uids = text(linux.and_then(|linux| linux.uid_mappings().as_ref()));
    let gids = text(linux.and_then(|linux| linux.gid_mappings().as_ref()));
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
        fs::write(&path, mappings)
            .map_err(|source| LaunchError::Step { step: format!("write {file}"), source })?;
    }
    Ok(())
}

/// Takes a dead or dying child off the process table.
pub(crate) fn reap(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
}

/// Says in the child's last words why there will be no program.
pub(crate) fn report(mut sync: &UnixStream, failure: &Failure) {
    if let Ok(text) = serde_json::to_vec(failure) {
        let _ = sync.write_all(&text);
    }
}

/// Sends the terminal's controller to the parent, with one byte that [`hear`] takes off again.
pub(crate) fn send_controller(sync: &UnixStream, controller: &OwnedFd) -> io::Result<()> {
    send_descriptors(sync, b"T", &[controller.as_fd()])
}

/// What a child said until its end of the socket was closed, by exec or by its end.
pub(crate) struct Heard {
    pub(crate) controller: Option<OwnedFd>,
    pub(crate) failure: Option<Failure>,
}

/// Listens to a child until it has become its program or given up.
pub(crate) fn hear(sync: &UnixStream) -> io::Result<Heard> {
    let mut descriptors = Vec::new();
    let mut text = Vec::new();
    let mut buffer = [0u8; 1024];
    loop {
        match receive_descriptors(sync, &mut buffer, &mut descriptors) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            // The child gave up without reading all that it was told; what it said has been read by now.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        }
    }
    let controller = descriptors.pop();
    let text = if controller.is_some() { text.strip_prefix(b"T").unwrap_or(&text) } else { &text };
    let failure =
        if text.is_empty() { None } else { Some(serde_json::from_slice(text).map_err(io::Error::other)?) };
    Ok(Heard { controller, failure })
}
