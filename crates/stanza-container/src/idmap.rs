//! A root file system for a new user namespace: the layers' owners are translated by id-mapped mounts, so that what
//! the image gives to root belongs to the namespace's root, without a copy (mount_setattr(2), "ID-mapped mounts").

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};
use stanza_spec::oci::runtime::{Linux, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};
use stanza_spec::{Layer, OverlayLayers, Rootfs, RootfsPart};
use stanza_sys::{CloneFlags, Cloned, MountAttributes, clone_process};

use crate::error::LaunchError;
use crate::id_maps::IdMaps;
use crate::init::open_binds;
use crate::launch::reap;
use crate::source;

/// A root file system's mounts, made where the privileges for it are, to be attached in the new namespaces.
pub(crate) struct Prepared {
    pub(crate) root: OwnedFd,
    pub(crate) parts: Vec<(PathBuf, OwnedFd)>,
    /// The sources of bind mounts, in the order of the configuration's mounts: the namespace's root need not be able to
    /// reach them.
    pub(crate) binds: Vec<Option<OwnedFd>>,
}

/// Makes the mounts of `rootfs` with owners mapped as `spec` says. Where this process may not map (it is in a user
/// namespace itself), owners stay as they are.
///
/// A directory's owners stay as they are in any case: whoever wrote the configuration has given it the owners it shall have,
/// or asks for a mapping (runtime-spec, "Root").
pub(crate) fn prepare(rootfs: &Rootfs, spec: &Spec) -> Result<Prepared, LaunchError> {
    let owner = root_ids(spec);
    let binds = open_binds(spec.mounts().as_deref().unwrap_or_default(), spec)?;
    let mount = |destination: &Path| {
        let destination = destination.to_owned();
        move |source| LaunchError::Mount { destination, source }
    };
    match rootfs {
        Rootfs::Directory(path) | Rootfs::Copied { root: path, .. } => {
            let root = source::clone_tree(path, true).map_err(mount(path))?;
            Ok(Prepared { root, parts: Vec::new(), binds })
        }
        Rootfs::Layered { root, parts } => {
            let namespace = user_namespace(spec.linux().as_ref())?;
            let prepared = parts.iter().map(|part| match part {
                RootfsPart::Overlay { destination, layers } => {
                    Ok((destination.clone(), overlay(layers, &namespace, owner).map_err(mount(destination))?))
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
                root: overlay(root, &namespace, owner).map_err(mount(Path::new("/")))?,
                binds,
            })
        }
    }
}

/// The user namespace of the container: the one it joins, or one with the same mappings.
pub(crate) fn user_namespace(linux: Option<&Linux>) -> Result<OwnedFd, LaunchError> {
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let joined = listed
        .iter()
        .filter(|namespace| namespace.typ() == LinuxNamespaceType::User)
        .find_map(|namespace| namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()));
    if let Some(path) = joined {
        let step = format!("open the namespace `{}`", path.display());
        return std::fs::File::open(path)
            .map(OwnedFd::from)
            .map_err(|source| LaunchError::Step { step, source });
    }
    namespace_of(&IdMaps::of(linux))
}

/// A user namespace with these mappings, made by a child that lives just as long as it takes to open it.
pub(crate) fn namespace_of(maps: &IdMaps) -> Result<OwnedFd, LaunchError> {
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
            let opened = maps.write(pid).and_then(|()| {
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

/// Whether owners on the file system of `directory` can be translated by id-mapped mounts: a trial, attached nowhere.
///
/// # Errors
/// When there is no user namespace to try it with, or the directory cannot be cloned.
pub fn maps_owners(directory: &Path) -> Result<bool, LaunchError> {
    let step = |source| LaunchError::Step { step: "try an id-mapped mount".to_owned(), source };
    let one = LinuxIdMappingBuilder::default().container_id(0u32).host_id(1u32).size(1u32).build();
    let one = [one.unwrap_or_default()];
    let namespace = namespace_of(&IdMaps::new(Some(&one), Some(&one)))?;
    let clone = source::clone_tree(directory, false).map_err(step)?;
    Ok(map(&clone, &namespace).is_ok())
}

/// Translates the owners of a detached mount.
fn map(mount: &OwnedFd, namespace: &OwnedFd) -> io::Result<()> {
    translate(mount, namespace, true)
}

/// Translates the owners of a detached mount, and of those below it when `recursive`.
pub(crate) fn translate(mount: &OwnedFd, namespace: &OwnedFd, recursive: bool) -> io::Result<()> {
    let attributes = MountAttributes {
        set: MountAttributes::IDMAP,
        user_namespace: u64::try_from(namespace.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        ..MountAttributes::default()
    };
    source::set_attributes(mount, recursive, &attributes)
}

/// An overlay whose lower layers are id-mapped clones. What is written is stored with the ids of the namespace as they
/// are: the one who mounts has no id in an id-mapped upper layer, and could make nothing there.
fn overlay(layers: &OverlayLayers, namespace: &OwnedFd, root: (Uid, Gid)) -> io::Result<OwnedFd> {
    let mut clones = Vec::with_capacity(layers.lower.len());
    for layer in &layers.lower {
        let clone = source::mount_layer(layer)?;
        let mapped = matches!(layer, Layer::Shifted(_));
        if !mapped && map(&clone, namespace).is_err() && clones.is_empty() {
            return source::overlay(layers);
        }
        clones.push(clone);
    }
    for directory in [&layers.upper, &layers.work] {
        rustix::fs::chown(directory, Some(root.0), Some(root.1))?;
    }
    let lower: Vec<_> = clones.iter().map(|clone| Cow::Owned(source::descriptor_path(clone))).collect();
    source::overlay_of(&lower, layers)
}

/// The host's ids of the namespace's root.
fn root_ids(spec: &Spec) -> (Uid, Gid) {
    let find = |mappings: Option<&Vec<LinuxIdMapping>>| {
        mappings
            .into_iter()
            .flatten()
            .find(|mapping| mapping.container_id() == 0)
            .map_or(0, |mapping| mapping.host_id())
    };
    let linux = spec.linux().as_ref();
    (
        Uid::from_raw(find(linux.and_then(|linux| linux.uid_mappings().as_ref()))),
        Gid::from_raw(find(linux.and_then(|linux| linux.gid_mappings().as_ref()))),
    )
}
