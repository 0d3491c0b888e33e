//! Mounts in a container that runs: made where the caller's view of the host is, attached where the container's is.
//!
//! ```text
//!  caller ── opens what is bound, in its own view
//!    └─ clone ──▶ helper: joins the user, network and IPC namespaces; its mounts are a copy of the caller's (its own view)
//!                   for each mount:  its own view        makes a new file system, detached
//!                                    the container's     finds the destination beneath the root, attaches
//!                 ◀── which mounts these are, or why not; then none of them is left
//! ```
//!
//! The container may be hostile. It decides what its directories are, so a destination can be led anywhere within the
//! container, and nowhere else: the helper's root is then the container's, and what it has found it uses by descriptor. Names
//! of the host (sources, `/proc`) are looked up in the helper's own view only. The helper stays out of the container's pid
//! namespace and is not dumpable, so nobody there can see or trace it.
//!
//! What was added is known by the kernel's number of the mount, and only that is taken off again, whatever lies at its
//! destination by then.
//!
//! Not here: `proc` and `cgroup`, which would show another process's view; they are made with the container.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{DumpableBehavior, Pid, fchdir, geteuid, set_dumpable_behavior};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};
use serde::{Deserialize, Serialize};
use stanza_spec::oci::runtime::{Linux, Mount, Spec};
use stanza_sys::{CloneFlags, Cloned, Handle, clone_process};

use crate::error::{During, Failure, LaunchError};
use crate::exec::is_foreign;
use crate::init::{mount_one, open_binds};
use crate::launch::reap;
use crate::mount_options::MountOptions;
use crate::namespaces::become_root;
use crate::root::Root;
use crate::source;

const CHANGING: &str = "change between the mount namespaces";

/// `STATX_MNT_ID_UNIQUE`, since Linux 6.8, as is the number that it asks for.
const UNIQUE_MOUNT_NUMBER: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The kernel's number of the mount that `descriptor` is on.
fn mount_number(descriptor: impl AsFd) -> io::Result<u64> {
    let wanted = UNIQUE_MOUNT_NUMBER | StatxFlags::MNT_ID;
    let seen = statx(descriptor, "", AtFlags::EMPTY_PATH, wanted)?;
    match seen.stx_mask & wanted.bits() {
        // Linux before 5.8 does not tell.
        0 => Err(Errno::OPNOTSUPP.into()),
        _ => Ok(seen.stx_mnt_id),
    }
}

/// A running container whose mounts are to change.
#[derive(Clone, Copy, Debug)]
pub struct MountTarget<'a> {
    /// Its first process.
    pub pid: Pid,
    /// The same, by descriptor.
    pub pidfd: BorrowedFd<'a>,
    /// Its configuration.
    pub spec: &'a Spec,
}

/// A mount that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedMount {
    /// Where, as it was asked for.
    pub destination: PathBuf,
    /// The kernel's number of the mount: never used again since Linux 6.8, before that not while the mount is there.
    pub number: u64,
}

/// Mounts all of `mounts` in order, or none.
///
/// The caller must be single-threaded.
///
/// # Errors
/// As for the mounts of a new container; also for kinds that can only be made with it, and for `remount`.
pub fn add_mounts(target: MountTarget<'_>, mounts: &[Mount]) -> Result<Vec<AddedMount>, LaunchError> {
    mounts.iter().try_for_each(check).map_err(LaunchError::from)?;
    // Whose root may be unable to reach what its caller can.
    let opened = match geteuid().is_root() {
        true => Some(open_binds(mounts, target.spec)?),
        false => None,
    };
    in_helper(|| {
        let views = Views::open(target)?;
        let opened = match opened {
            Some(opened) => opened,
            None => views.in_own(|| open_binds(mounts, target.spec)).during(CHANGING)??,
        };
        views.add_all(target.spec, mounts, opened)
    })
}

/// Takes off those of `mounts` that are still where they were put, the last first; the others are an error, and stay.
///
/// # Errors
/// When one is not there any more, or another mount lies over it.
pub fn remove_mounts(target: MountTarget<'_>, mounts: &[AddedMount]) -> Result<(), LaunchError> {
    in_helper(|| {
        let views = Views::open(target)?;
        mounts.iter().rev().try_for_each(|mount| views.remove(mount))
    })
}

/// Refuses what a container cannot be given later.
fn check(mount: &Mount) -> Result<(), Failure> {
    let name = mount.destination().display();
    let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
    let refuse = |text: String| Err(Failure::configuration(text));
    if !mount.destination().is_absolute() {
        return refuse(format!("mount destination `{name}` is not an absolute path"));
    }
    if options.remount {
        return refuse(format!("`remount` at `{name}` adds no mount"));
    }
    if options.copy_link {
        return refuse(format!("`copy-symlink` at `{name}` adds no mount"));
    }
    match mount.typ().as_deref() {
        Some(kind @ ("proc" | "cgroup" | "cgroup2")) if options.bind.is_none() => refuse(format!(
            "a mount of type `{kind}` at `{name}` cannot be added to a running container: it is made with the container"
        )),
        _ => Ok(()),
    }
}

/// Runs `work` in a process that ends with it.
fn in_helper<T: Serialize + for<'de> Deserialize<'de>>(
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, LaunchError> {
    let step = |step: &'static str| move |source| LaunchError::Step { step: step.to_owned(), source };
    let (mut ours, mut theirs) = UnixStream::pair().map_err(step("make a socket pair"))?;
    match clone_process(CloneFlags::NONE, None).map_err(step("clone a process"))? {
        Cloned::Child => {
            drop(ours);
            let text = serde_json::to_vec(&work()).unwrap_or_default();
            stanza_sys::exit_process(i32::from(theirs.write_all(&text).is_err()))
        }
        Cloned::Parent { pid: _, pidfd } => {
            drop(theirs);
            let mut text = Vec::new();
            let read = ours.read_to_end(&mut text);
            reap(&pidfd);
            read.map_err(step("hear from the process that mounts"))?;
            let said: Result<T, Failure> = serde_json::from_slice(&text).map_err(|_| LaunchError::Died)?;
            said.map_err(LaunchError::from)
        }
    }
}

/// The helper, between its own view of the host and the container's. It is in the container's unless said otherwise.
struct Views<'a> {
    container: BorrowedFd<'a>,
    own: OwnedFd,
    /// The root directory of the own view, which need not be that of its namespace.
    own_root: OwnedFd,
    /// The helper's own descriptors, as the host's procfs shows them.
    descriptors: OwnedFd,
    /// The container's.
    root: Root,
}

impl<'a> Views<'a> {
    /// Leaves the caller's namespaces.
    fn open(target: MountTarget<'a>) -> Result<Views<'a>, Failure> {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).during("hide from tracing")?;
        rustix::process::umask(Mode::empty());
        let looking = "look at the container's namespaces";
        let foreign = |name| is_foreign(target.pid, name).during(looking);
        if !foreign("mnt")? {
            return Err(Failure::configuration("the container has no mount namespace of its own"));
        }
        let mut kinds = ThreadNameSpaceType::empty();
        for (name, kind) in [
            ("user", ThreadNameSpaceType::USER),
            ("net", ThreadNameSpaceType::NETWORK),
            ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
        ] {
            if foreign(name)? {
                kinds |= kind;
            }
        }
        let entering = "enter the container's namespaces";
        if !kinds.is_empty() {
            move_into_thread_name_spaces(target.pidfd, kinds).during(entering)?;
        }
        if kinds.contains(ThreadNameSpaceType::USER) {
            become_root()?;
        }
        // One in which this process may mount, also in the container's user namespace.
        stanza_sys::unshare(CloneFlags::MOUNT).during("create a mount namespace")?;
        let open = |path: &str, flags| openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty());
        let own = open("/proc/self/ns/mnt", OFlags::RDONLY).during("open the mount namespace")?;
        let own_root = open("/", OFlags::PATH).during("open the root")?;
        let descriptors = open("/proc/self/fd", OFlags::PATH).during("open /proc/self/fd")?;
        move_into_thread_name_spaces(target.pidfd, ThreadNameSpaceType::MOUNT).during(entering)?;
        let root = Root::open_at(Path::new("/")).during("open the container's root")?;
        Ok(Views { container: target.pidfd, own, own_root, descriptors, root })
    }

    /// Does `work` in the own view.
    fn in_own<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        move_into_link_name_space(self.own.as_fd(), Some(LinkNameSpaceType::Mount))?;
        fchdir(&self.own_root)?;
        rustix::process::chroot(".")?;
        let done = work();
        move_into_thread_name_spaces(self.container, ThreadNameSpaceType::MOUNT)?;
        Ok(done)
    }

    fn add_all(
        &self,
        spec: &Spec,
        mounts: &[Mount],
        opened: Vec<Option<OwnedFd>>,
    ) -> Result<Vec<AddedMount>, Failure> {
        let none = Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&none);
        let mut added = Vec::with_capacity(mounts.len());
        for (mount, tree) in mounts.iter().zip(opened) {
            match self.add(mount, tree, linux) {
                Ok(mount) => added.push(mount),
                Err(failure) => {
                    // The first failure is what the caller is told.
                    added.iter().rev().for_each(|mount| drop(self.remove(mount)));
                    return Err(failure);
                }
            }
        }
        Ok(added)
    }

    fn add(&self, mount: &Mount, tree: Option<OwnedFd>, linux: &Linux) -> Result<AddedMount, Failure> {
        let number = Cell::new(0);
        if let Some(tree) = &tree {
            number.set(mount_number(tree).during("number a mount")?);
        }
        let make = |kind: &str, name: &str, data: &[(String, Option<String>)], attributes: u64| {
            let made = self.in_own(|| source::new_mount(kind, name, data, attributes))??;
            number.set(mount_number(&made)?);
            Ok(made)
        };
        mount_one(&self.root, mount, tree, linux, &make)?;
        Ok(AddedMount { destination: mount.destination().clone(), number: number.get() })
    }

    fn remove(&self, mount: &AddedMount) -> Result<(), Failure> {
        let destination = &mount.destination;
        let found = self.find(mount).during_on("look for the mount at", destination)?;
        let found = found.ok_or_else(|| {
            let name = destination.display();
            Failure::configuration(format!("what is at `{name}` is not the mount that was added there"))
        })?;
        // By descriptor: a name could lead to another mount by now.
        fchdir(&self.descriptors).during("enter /proc/self/fd")?;
        let name = found.as_fd().as_raw_fd().to_string();
        unmount(name, UnmountFlags::DETACH).during_on("unmount", destination)
    }

    /// The top of the mount, when it lies open at its destination.
    fn find(&self, mount: &AddedMount) -> io::Result<Option<Handle>> {
        for follow in [OFlags::empty(), OFlags::NOFOLLOW] {
            let found = match self.root.open(&mount.destination, OFlags::PATH | follow) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if mount_number(&found)? == mount.number {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Makes what is missing of the places (true: a directory, false: a file) in the root file system at `rootfs`, for somebody else
/// to mount on. No link in it leads out.
///
/// # Errors
/// When one cannot be made.
pub fn ensure_mount_points(rootfs: &Path, places: &[(&Path, bool)]) -> Result<(), LaunchError> {
    let root = Root::open_at(rootfs)
        .map_err(|source| LaunchError::Step { step: "open the root file system".to_owned(), source })?;
    places.iter().try_for_each(|(place, is_directory)| {
        let made = if *is_directory { root.ensure_directory(place) } else { root.ensure_file(place) };
        made.map(drop).map_err(|source| LaunchError::Mount { destination: place.to_path_buf(), source })
    })
}
