//! The image `host`, really mounted: as root, and in a user namespace. Each case is an ignored test that runs itself
//! again inside namespaces of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::in_namespaces;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use stanza_snapshot::{Change, ChangeKind, changes, plan_host, prepare, remove_tree};
use stanza_spec::{OverlayLayers, Rootfs, RootfsPart};

#[test]
fn the_host_image_mounts_as_root() {
    in_namespaces("-m", "the_host_image_mounts_as_root", as_root);
}

#[test]
fn the_host_image_mounts_in_a_user_namespace() {
    in_namespaces("-Urm", "the_host_image_mounts_in_a_user_namespace", in_user_namespace);
}

fn as_root() {
    mounted(false);
}

fn in_user_namespace() {
    mounted(true);
}

#[test]
fn state_in_a_further_mount_is_hidden_too() {
    in_namespaces("-m", "state_in_a_further_mount_is_hidden_too", with_state_in_a_further_mount);
}

fn with_state_in_a_further_mount() {
    let scene = tempfile::tempdir_in("/var/tmp").unwrap();
    let target = tempfile::tempdir_in("/var/tmp").unwrap();
    let state = scene.path().join("lib/state");
    fs::create_dir_all(state.join("c")).unwrap();
    fs::write(scene.path().join("beside"), "visible").unwrap();
    mount_bind(scene.path(), scene.path()).unwrap();
    let plan = plan_host(&state.join("c"), std::slice::from_ref(&state), false).unwrap();
    prepare(&plan).unwrap();
    mount_plan(&plan, target.path());
    let inside = target.path().join(scene.path().strip_prefix("/").unwrap());
    assert_eq!(fs::read(inside.join("beside")).unwrap(), b"visible");
    assert_eq!(fs::read_dir(inside.join("lib")).unwrap().count(), 0);
    assert_eq!(changes(&plan).unwrap(), []);
    rustix::mount::unmount(target.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    rustix::mount::unmount(scene.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

fn mount_overlay(layers: &OverlayLayers, target: &Path) {
    let lower: Vec<_> = layers.lower.iter().map(|layer| common::directory(layer).to_str().unwrap()).collect();
    let mut options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        layers.upper.display(),
        layers.work.display()
    );
    if layers.userxattr {
        options.push_str(",userxattr");
    }
    let options = std::ffi::CString::new(options).unwrap();
    mount("overlay", target, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .unwrap_or_else(|error| panic!("{}: {error}", target.display()));
}

fn mount_plan(plan: &Rootfs, target: &Path) {
    let Rootfs::Layered { root, parts } = plan else { panic!("{plan:?}") };
    mount_overlay(root, target);
    for part in parts {
        let inside = |path: &Path| target.join(path.strip_prefix("/").unwrap());
        match part {
            RootfsPart::Overlay { destination, layers } => mount_overlay(layers, &inside(destination)),
            RootfsPart::ReadOnlyBind { destination, source } => {
                let target = inside(destination);
                mount_bind(source, &target).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
                // Flags that the source has locked must be kept.
                let flags = rustix::fs::statvfs(source).unwrap().f_flag;
                let mut keep = MountFlags::BIND | MountFlags::RDONLY;
                for (held, flag) in [
                    (rustix::fs::StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
                    (rustix::fs::StatVfsMountFlags::NODEV, MountFlags::NODEV),
                    (rustix::fs::StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
                    (rustix::fs::StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
                ] {
                    if flags.contains(held) {
                        keep |= flag;
                    }
                }
                mount_remount(&target, keep, "").unwrap();
            }
        }
    }
}

fn change(kind: ChangeKind, path: impl Into<PathBuf>) -> Change {
    Change { path: path.into(), kind }
}

fn mounted(rootless: bool) {
    let scene = tempfile::tempdir_in("/var/tmp").unwrap();
    // Not in the scene: whose time of change would differ from the one the plan has seen.
    let target = tempfile::tempdir_in("/var/tmp").unwrap();
    let target = target.path();
    fs::set_permissions(scene.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state = scene.path().join("state");
    let container = state.join("containers/c");
    let exclude = [state.clone(), PathBuf::from("/run/stanza"), PathBuf::from("/does/not/exist")];
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("secret"), "database").unwrap();
    fs::write(scene.path().join("beside"), "visible").unwrap();

    let plan = plan_host(&container, &exclude, rootless).unwrap();
    prepare(&plan).unwrap();
    assert_eq!(changes(&plan).unwrap(), []);
    mount_plan(&plan, target);

    let inside = |path: &str| target.join(path.trim_start_matches('/'));
    let chrooted = Command::new("chroot").arg(target).arg("true").status().unwrap();
    assert!(chrooted.success());
    assert!(fs::read_dir(inside("/usr/bin")).unwrap().count() > 10);
    for empty in ["/proc", "/sys", "/dev", "/run", "/tmp"] {
        assert_eq!(fs::read_dir(inside(empty)).unwrap().count(), 0, "{empty}");
    }
    assert_eq!(fs::metadata(inside("/tmp")).unwrap().mode() & 0o7777, 0o1777);
    let here = scene.path().to_str().unwrap();
    assert!(fs::symlink_metadata(inside(&format!("{here}/state"))).is_err(), "stanza's state is visible");
    assert_eq!(fs::read(inside(&format!("{here}/beside"))).unwrap(), b"visible");
    let (real, shown) = (fs::metadata(scene.path()).unwrap(), fs::metadata(inside(here)).unwrap());
    assert_eq!((real.mode(), real.uid(), real.mtime()), (shown.mode(), shown.uid(), shown.mtime()));

    // A container may have made its mount points and closed the door; that is not its doing.
    fs::create_dir_all(inside("/etc")).unwrap();
    fs::write(inside("/etc/stanza-test-file"), "written").unwrap();
    fs::write(inside("/tmp/scratch"), "").unwrap();
    fs::remove_file(inside("/etc/passwd")).unwrap();
    fs::remove_file(inside(&format!("{here}/beside"))).unwrap();
    assert!(!Path::new("/etc/stanza-test-file").exists() && Path::new("/etc/passwd").exists());
    assert!(scene.path().join("beside").exists());

    let mut expected = vec![
        change(ChangeKind::Modified, "/etc"),
        change(ChangeKind::Deleted, "/etc/passwd"),
        change(ChangeKind::Added, "/etc/stanza-test-file"),
        change(ChangeKind::Modified, "/tmp"),
        change(ChangeKind::Added, "/tmp/scratch"),
    ];
    let mut above = PathBuf::new();
    for part in scene.path().components() {
        above.push(part);
        if above != Path::new("/") {
            expected.push(change(ChangeKind::Modified, &above));
        }
    }
    expected.push(change(ChangeKind::Deleted, scene.path().join("beside")));
    assert_eq!(changes(&plan).unwrap(), expected);

    // Planned again it is the same and touches nothing.
    rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(plan_host(&container, &exclude, rootless).unwrap(), plan);
    assert_eq!(changes(&plan).unwrap(), expected);
    remove_tree(&container).unwrap();
}
