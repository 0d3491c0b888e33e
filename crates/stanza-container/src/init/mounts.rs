//! The mounts of an OCI configuration, in order, each found and attached by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, fstat, mkdirat};
use rustix::io::Errno;
use stanza_spec::RootfsPart;
use stanza_spec::oci::runtime::Mount;
use stanza_sys::MountAttributes;

use crate::error::{During, Failure};
use crate::mount_options::MountOptions;
use crate::root::Root;
use crate::source;

/// A mounted version 1 hierarchy that this process has a cgroup of its own in, by its controllers (`cpu,cpuacct`) or
/// its name (`name=systemd`); or version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hierarchy {
    V1(String),
    V2,
}

/// The hierarchies of this process, by /proc/self/cgroup. Those in whose root cgroup it stands are the host's
/// business, unless there is nothing else.
pub(super) fn joined_hierarchies() -> Result<Vec<Hierarchy>, Failure> {
    let text = super::read_host_file("/proc/self/cgroup").during("read /proc/self/cgroup")?;
    Ok(parse_hierarchies(&text))
}

fn parse_hierarchies(text: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    let mut unified = false;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            unified = true;
        } else if path != "/" {
            found.push(Hierarchy::V1(controllers.to_owned()));
        }
    }
    if found.is_empty() && unified { vec![Hierarchy::V2] } else { found }
}

/// A part of the root file system as a detached mount, and where it goes.
pub(super) fn make_part(part: &RootfsPart) -> Result<(PathBuf, OwnedFd), Failure> {
    let attributes = MountAttributes { set: MountAttributes::READ_ONLY, ..MountAttributes::default() };
    match part {
        RootfsPart::Overlay { destination, layers } => {
            Ok((destination.clone(), source::overlay(layers).mounting(destination)?))
        }
        RootfsPart::ReadOnlyBind { destination, source: path } => {
            // In a user namespace mounts below are locked to their parents and must come along.
            let mount = source::clone_tree(path, false)
                .or_else(|_| source::clone_tree(path, true))
                .mounting(destination)?;
            source::set_attributes(&mount, true, &attributes).mounting(destination)?;
            Ok((destination.clone(), mount))
        }
    }
}

/// The sources of all bind mounts, opened in the host's view before anything is mounted: one entry a mount.
pub(crate) fn open_binds(mounts: &[Mount]) -> Result<Vec<Option<OwnedFd>>, Failure> {
    mounts
        .iter()
        .map(|mount| {
            let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
            let recursive = match options.bind {
                Some(recursive) => recursive,
                None if mount.typ().as_deref() == Some("bind") => false,
                None => return Ok(None),
            };
            let path = mount.source().as_deref().unwrap_or(Path::new(""));
            let tree = source::clone_tree(path, recursive)
                .or_else(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
                    // Mounts below are locked to their parents in a user namespace.
                    Some(Errno::INVAL) if !recursive => source::clone_tree(path, true),
                    _ => Err(error),
                })
                .during_on("open the mount source", path)?;
            Ok(Some(tree))
        })
        .collect()
}

/// What the mounts are made in.
pub(super) struct Context<'a> {
    pub(super) root: &'a Root,
    pub(super) hierarchies: &'a [Hierarchy],
    pub(super) binds: &'a [Option<OwnedFd>],
}

impl Context<'_> {
    /// Makes all mounts; returns a descriptor of the procfs at /proc when there is one.
    pub(super) fn mount_all(&self, mounts: &[Mount]) -> Result<Option<OwnedFd>, Failure> {
        let mut procfs = None;
        for (index, mount) in mounts.iter().enumerate() {
            let destination = mount.destination();
            let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
            let kind = mount.typ().as_deref().unwrap_or("none");
            if let Some(tree) = self.binds.get(index).and_then(Option::as_ref) {
                self.bind(tree, destination, &options).mounting(destination)?;
            } else if kind == "cgroup" {
                self.cgroup(destination, &options).mounting(destination)?;
            } else {
                let made = self.file_system(kind, mount, &options).mounting(destination)?;
                if kind == "proc" && destination == Path::new("/proc") {
                    procfs = Some(made);
                }
            }
        }
        Ok(procfs)
    }

    fn bind(&self, tree: &OwnedFd, destination: &Path, options: &MountOptions) -> io::Result<()> {
        let mut attributes = options.attributes;
        attributes.propagation = 0;
        // A clear of what the source has locked in a user namespace would be refused: only what was asked for is set.
        attributes.clear &= MountAttributes::ATIME_MASK;
        source::set_attributes(tree, false, &attributes)?;
        source::set_attributes(tree, true, &options.recursive)?;
        let (bits, recursive) = options.propagation.unwrap_or((1 << 18, true));
        source::set_attributes(
            tree,
            recursive,
            &MountAttributes { propagation: bits, ..MountAttributes::default() },
        )?;
        let directory = FileType::from_raw_mode(fstat(tree)?.st_mode).is_dir();
        let target = if directory {
            self.root.ensure_directory(destination)?
        } else {
            self.root.ensure_file(destination)?
        };
        source::attach(tree, target)
    }

    fn file_system(&self, kind: &str, mount: &Mount, options: &MountOptions) -> io::Result<OwnedFd> {
        let destination = mount.destination();
        // procfs and sysfs over a link would put them, and what is masked in them, elsewhere (CVE-2019-19921).
        let target = if matches!(kind, "proc" | "sysfs") {
            self.root.ensure_directory(destination)?;
            let place = self.root.open(destination, OFlags::PATH | OFlags::NOFOLLOW)?;
            if !FileType::from_raw_mode(fstat(&place)?.st_mode).is_dir() {
                return Err(Errno::NOTDIR.into());
            }
            place
        } else {
            self.root.ensure_directory(destination)?
        };
        let name = mount.source().as_deref().and_then(Path::to_str).unwrap_or(kind);
        let made = source::new_mount(kind, name, &options.data, options.attributes.set)?;
        source::attach(&made, &target)?;
        Ok(made)
    }

    /// The control groups as a container may see them: its own only, by its cgroup namespace.
    fn cgroup(&self, destination: &Path, options: &MountOptions) -> io::Result<()> {
        let target = self.root.ensure_directory(destination)?;
        let attributes = options.attributes.set;
        if self.hierarchies == [Hierarchy::V2] {
            return source::attach(source::new_mount("cgroup2", "cgroup", &[], attributes)?, target);
        }
        let data = [("mode".to_owned(), Some("755".to_owned()))];
        let top = source::new_mount("tmpfs", "tmpfs", &data, attributes & !MountAttributes::READ_ONLY)?;
        source::attach(&top, &target)?;
        for hierarchy in self.hierarchies {
            let Hierarchy::V1(controllers) = hierarchy else { continue };
            let name = controllers.strip_prefix("name=").unwrap_or(controllers);
            mkdirat(&top, name, rustix::fs::Mode::from_raw_mode(0o755))?;
            let place =
                rustix::fs::openat(&top, name, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
            source::attach(
                source::new_mount("cgroup", "cgroup", &hierarchy_options(controllers), attributes)?,
                place,
            )?;
        }
        let read_only = MountAttributes { set: attributes, ..MountAttributes::default() };
        source::set_attributes(top.as_fd(), false, &read_only)
    }
}

fn hierarchy_options(controllers: &str) -> Vec<(String, Option<String>)> {
    match controllers.strip_prefix("name=") {
        Some(name) => vec![("none".to_owned(), None), ("name".to_owned(), Some(name.to_owned()))],
        None => controllers.split(',').map(|controller| (controller.to_owned(), None)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hierarchies_with_a_cgroup_of_ones_own_count() {
        let text = "9:name=systemd:/\n8:pids:/stanza/x\n2:cpu,cpuacct:/stanza/x\n0::/\n";
        assert_eq!(
            parse_hierarchies(text),
            [Hierarchy::V1("pids".into()), Hierarchy::V1("cpu,cpuacct".into())]
        );
        assert_eq!(parse_hierarchies("0::/user.slice\n"), [Hierarchy::V2]);
        assert_eq!(hierarchy_options("cpu,cpuacct"), [("cpu".into(), None), ("cpuacct".into(), None)]);
    }
}
