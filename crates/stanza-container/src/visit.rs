//! A look at a container's files from within its mounts, by a process that ends with it: for `cp`.
//!
//! ```text
//!  caller ── clones ──▶ visitor
//!                        a container that runs:     joins its user and mount namespace
//!                        one that does not:         puts its root file system together in a mount namespace of its own, volumes
//!                                                   and all, gone when the visitor is; nothing is mounted on the host
//!                        does its work beneath the root, and says how it went
//! ```
//!
//! The container may be hostile, and this process has the caller's rights or those of the container's root. It is not
//! dumpable and stays out of the container's pid namespace, so nobody there can see, trace or signal it. It executes nothing
//! and loads nothing there (CVE-2019-14271). What it works on is found beneath the root by descriptor, never by a path that
//! was looked at before (CVE-2018-15664): that is the work's part, see [`View`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use stanza_spec::Rootfs;
use stanza_spec::oci::runtime::{Linux, Spec};
use stanza_sys::{CloneFlags, Cloned, clone_process, keep_only};

use crate::copy_up::CopyUp;
use crate::error::{During, Failure, LaunchError};
use crate::exec::is_foreign;
use crate::init::{make_read_only, mount_one, mount_root, open_binds};
use crate::namespaces::become_root;
use crate::root::Root;
use crate::{idmap, source};

/// Whose files.
#[derive(Clone, Copy, Debug)]
pub enum Visited<'a> {
    /// A container that runs.
    Running {
        /// Its first process.
        pid: Pid,
        /// The same, by descriptor.
        pidfd: BorrowedFd<'a>,
    },
    /// A container that does not, and does not start meanwhile. The caller is root, of a user namespace at least.
    Standing {
        /// Its root file system.
        rootfs: &'a Rootfs,
        /// Its configuration; of its mounts all are made.
        spec: &'a Spec,
        /// Volumes that are filled first.
        copy_up: &'a [CopyUp],
        /// Nothing but what is mounted may be written.
        read_only: bool,
    },
}

/// What a visitor works on.
#[derive(Debug)]
pub struct View {
    /// The container's root directory, as an `O_PATH` descriptor: to be used with `openat2` and `RESOLVE_IN_ROOT`.
    pub root: OwnedFd,
    /// The visitor's own descriptors (`/proc/self/fd`), since what is at `/proc` may be the container's.
    pub descriptors: OwnedFd,
    /// Owners are as they are stored, not as the container's user namespace has them.
    pub stored_owners: bool,
}

/// Clones a visitor that does `work`, and gives its descriptor. Of the caller's descriptors it has the standard ones and
/// `kept`. It ends when `work` does, with what that returns.
///
/// The caller must be single-threaded.
///
/// # Errors
/// When no process can be cloned; whatever else goes wrong, `work` hears of.
pub fn visit(
    visited: Visited<'_>,
    kept: &[BorrowedFd<'_>],
    work: impl FnOnce(Result<View, LaunchError>) -> i32,
) -> Result<OwnedFd, LaunchError> {
    match clone_process(CloneFlags::NONE, None).map_err(LaunchError::Clone)? {
        Cloned::Child => {
            // From here on nothing that the caller had open may be dropped: its number may be another's.
            let code = match keep(visited, kept).and_then(|()| enter(visited)) {
                Ok(view) => work(Ok(view)),
                Err(failure) => work(Err(failure.into())),
            };
            stanza_sys::exit_process(code)
        }
        Cloned::Parent { pidfd, .. } => Ok(pidfd),
    }
}

fn keep(visited: Visited<'_>, kept: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    rustix::process::umask(Mode::empty());
    let pidfd = match visited {
        Visited::Running { pidfd, .. } => Some(pidfd),
        Visited::Standing { .. } => None,
    };
    let all: Vec<BorrowedFd<'_>> = kept.iter().copied().chain(pidfd).collect();
    keep_only(3, &all).during("close the caller's descriptors")
}

fn hide() -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during("hide from tracing")
}

fn open(path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

fn enter(visited: Visited<'_>) -> Result<View, Failure> {
    match visited {
        Visited::Running { pid, pidfd } => {
            let descriptors = open("/proc/self/fd", OFlags::PATH).during("open /proc/self/fd")?;
            hide()?;
            join(pid, pidfd)?;
            let root = open("/", OFlags::PATH | OFlags::DIRECTORY).during("open the container's root")?;
            Ok(View { root, descriptors, stored_owners: false })
        }
        Visited::Standing { rootfs, spec, copy_up, read_only } => {
            put_together(rootfs, spec, copy_up, read_only)
        }
    }
}

fn join(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<(), Failure> {
    let looking = "look at the container's namespaces";
    if !is_foreign(pid, "mnt").during(looking)? {
        return Err(Failure::configuration("the container has no mount namespace of its own"));
    }
    let mut kinds = ThreadNameSpaceType::MOUNT;
    let users = is_foreign(pid, "user").during(looking)?;
    if users {
        kinds |= ThreadNameSpaceType::USER;
    }
    move_into_thread_name_spaces(pidfd, kinds).during("enter the container's namespaces")?;
    if users { become_root() } else { Ok(()) }
}

fn put_together(rootfs: &Rootfs, spec: &Spec, copy_up: &[CopyUp], read_only: bool) -> Result<View, Failure> {
    stanza_sys::unshare(CloneFlags::MOUNT).during("create a mount namespace")?;
    let descriptors = open("/proc/self/fd", OFlags::PATH).during("open /proc/self/fd")?;
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", downstream).during("make the mounts private")?;
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let none = Linux::default();
    let linux = spec.linux().as_ref().unwrap_or(&none);
    let stored_owners = linux.uid_mappings().as_ref().is_some_and(|mappings| !mappings.is_empty());
    let prepared = match stored_owners {
        true => Some(idmap::prepare(rootfs, spec).map_err(LaunchError::into_failure)?),
        false => None,
    };
    let binds = match prepared {
        Some(_) => Vec::new(),
        None => open_binds(mounts, spec)?,
    };
    let root: Root = mount_root(rootfs, prepared.as_ref(), read_only)?;
    for volume in copy_up {
        volume.apply(&root).during_on("fill the volume", &volume.source)?;
    }
    let trees = prepared.map_or(binds, |prepared| prepared.binds);
    for (mount, tree) in mounts.iter().zip(trees) {
        let make = |kind: &str, name: &str, data: &[(String, Option<String>)], attributes: u64| {
            source::new_mount(kind, name, data, attributes)
        };
        mount_one(&root, mount, tree, linux, &make)?;
    }
    if read_only {
        make_read_only(root.directory()).mounting(Path::new("/"))?;
    }
    // Not before: who is not dumpable has no say in the ids of its child's namespace (proc(5)).
    hide()?;
    let root = rustix::io::fcntl_dupfd_cloexec(root.directory().as_fd(), 3)
        .during("duplicate the container's root")?;
    Ok(View { root, descriptors, stored_owners })
}
