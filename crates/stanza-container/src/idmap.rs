//! A root file system for a new user namespace: the layers' owners are translated by id-mapped mounts, so that what
//! the image gives to root belongs to the namespace's root, without a copy (mount_setattr(2), "ID-mapped mounts").

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use stanza_spec::oci::runtime::Spec;
use stanza_spec::{OverlayLayers, Rootfs, RootfsPart};
use stanza_sys::{CloneFlags, Cloned, MountAttributes, clone_process};

use crate::error::LaunchError;
use crate::launch::{map_ids, reap};
use crate::source;

/// A root file system's mounts, made where the privileges for it are, to be attached in the new namespaces.
pub(crate) struct Prepared {
    pub(crate) root: OwnedFd,
    pub(crate) parts: Vec<(PathBuf, OwnedFd)>,
}

/// Makes the mounts of `rootfs` with owners mapped as `spec` says. Where this process may not map (it is in a user
/// namespace itself), owners stay as they are.
pub(crate) fn prepare(rootfs: &Rootfs, spec: &Spec) -> Result<Prepared, LaunchError> {
    let namespace = user_namespace(spec)?;
    let mount = |destination: &Path| {
        let destination = destination.to_owned();
        move |source| LaunchError::Mount { destination, source }
    };
    match rootfs {
        Rootfs::Directory(path) => {
            let root = source::clone_tree(path, true).map_err(mount(path))?;
            let _ = map(&root, &namespace);
            Ok(Prepared { root, parts: Vec::new() })
        }
        Rootfs::Layered { root, parts } => {
            let prepared = parts.iter().map(|part| match part {
                RootfsPart::Overlay { destination, layers } => {
                    Ok((destination.clone(), overlay(layers, &namespace).map_err(mount(destination))?))
                }
                RootfsPart::ReadOnlyBind { destination, source } => {
                    let tree =
                        source::clone_tree(source, false).or_else(|_| source::clone_tree(source, true));
                    let tree = tree.map_err(mount(destination))?;
                    let read_only =
                        MountAttributes { set: MountAttributes::READ_ONLY, ..MountAttributes::default() };
                    source::set_attributes(&tree, true, &read_only).map_err(mount(destination))?;
                    let _ = map(&tree, &namespace);
                    Ok((destination.clone(), tree))
                }
            });
            Ok(Prepared {
                parts: prepared.collect::<Result<_, LaunchError>>()?,
                root: overlay(root, &namespace).map_err(mount(Path::new("/")))?,
            })
        }
    }
}

/// A user namespace with the mappings of `spec`, made by a child that lives just as long as it takes to open it.
fn user_namespace(spec: &Spec) -> Result<OwnedFd, LaunchError> {
    let step = |source| LaunchError::Step { step: "make a user namespace".to_owned(), source };
    let (ours, theirs) = UnixStream::pair().map_err(step)?;
    match clone_process(CloneFlags::USER, None).map_err(LaunchError::Clone)? {
        Cloned::Child => {
            drop(ours);
            let _ = io::Read::read(&mut &theirs, &mut [0]);
            stanza_sys::exit_process(0)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let opened = map_ids(pid, spec).and_then(|()| {
                std::fs::File::open(format!("/proc/{}/ns/user", pid.as_raw_nonzero()))
                    .map(OwnedFd::from)
                    .map_err(step)
            });
            drop(ours);
            reap(&pidfd);
            opened
        }
    }
}

fn map(mount: &OwnedFd, namespace: &OwnedFd) -> io::Result<()> {
    let attributes = MountAttributes {
        set: MountAttributes::IDMAP,
        user_namespace: u64::try_from(namespace.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        ..MountAttributes::default()
    };
    source::set_attributes(mount, true, &attributes)
}

/// An overlay whose layers are id-mapped clones. Upper and work directory must be of one mount, so it is their parent
/// that is cloned.
fn overlay(layers: &OverlayLayers, namespace: &OwnedFd) -> io::Result<OwnedFd> {
    let parent = layers.upper.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let writable = source::clone_tree(parent, false)?;
    if map(&writable, namespace).is_err() {
        return source::overlay(layers);
    }
    let mut clones = Vec::with_capacity(layers.lower.len());
    for layer in &layers.lower {
        let clone = source::clone_tree(layer, false)?;
        map(&clone, namespace)?;
        clones.push(clone);
    }
    let by_descriptor = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
    let below = |path: &Path| path.strip_prefix(parent).map(|rest| by_descriptor(&writable).join(rest));
    source::overlay(&OverlayLayers {
        lower: clones.iter().map(by_descriptor).collect(),
        upper: below(&layers.upper).map_err(|_| io::ErrorKind::InvalidInput)?,
        work: below(&layers.work).map_err(|_| io::ErrorKind::InvalidInput)?,
        userxattr: layers.userxattr,
    })
}
