//! Disks of machines: the kernel shows the same tree in one as in an overlay of its layers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/tree.rs"]
mod tree;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Scene, Tar, header, is_root};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use stanza_snapshot::{DiskStore, is_disk, plan_layers};
use stanza_spec::{Digest, Layer, Rootfs};
use stanza_tar::{EntryKind, Header};
use tree::Tree;

/// Some layers, their plan, and a place for disks.
struct Stack {
    scene: Scene,
    layers: Vec<Digest>,
    plan: Rootfs,
    disks: tempfile::TempDir,
}

impl Stack {
    fn of(archives: &[Vec<u8>]) -> Stack {
        let scene = Scene::new();
        let layers: Vec<Digest> = archives.iter().map(|tar| scene.apply(tar).0).collect();
        let plan = plan_layers(&scene.store, &layers, Path::new("/nowhere"), false).unwrap();
        Stack { scene, layers, plan, disks: tempfile::tempdir_in("/var/tmp").unwrap() }
    }

    fn store(&self) -> DiskStore {
        DiskStore::at(&self.disks.path().join("disks"))
    }

    fn make(&self) -> PathBuf {
        self.store().make(&self.layers, &self.plan).unwrap()
    }

    /// What overlayfs shows of the layers.
    fn overlay(&self) -> OwnedFd {
        let Rootfs::Layered { root, .. } = &self.plan else { panic!("{:?}", self.plan) };
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for layer in &root.lower {
            let Layer::Directory(path) = layer else { panic!("{layer:?}") };
            fsconfig_set_string(context.as_fd(), "lowerdir+", path).unwrap();
        }
        attach(context, "ro")
    }
}

fn attach(context: OwnedFd, flag: &str) -> OwnedFd {
    fsconfig_set_flag(context.as_fd(), flag).unwrap();
    fsconfig_create(context.as_fd()).unwrap();
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

/// What erofs shows of a disk; `None` where the kernel does not mount files.
#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
fn mount(disk: &Path) -> Option<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(context.as_fd(), "source", disk).unwrap();
    match fsconfig_create(context.as_fd()) {
        Err(rustix::io::Errno::NOTBLK) => {
            eprintln!("skipped: this kernel mounts erofs from block devices only");
            None
        }
        result => {
            result.unwrap();
            Some(
                fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
                    .unwrap(),
            )
        }
    }
}

fn tree_of(mount: &OwnedFd) -> Tree {
    let mut tree = Tree::of(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())));
    for (path, node) in &mut tree.0 {
        // Overlayfs does not count a directory's subdirectories, and its root is the base's.
        if node.mode & 0o170_000 == 0o040_000 {
            node.links = 0;
        }
        if path.as_os_str().is_empty() {
            node.time = None;
        }
        node.xattrs.retain(|name, _| !name.starts_with(b"trusted.overlay."));
    }
    tree
}

#[track_caller]
fn compare(stack: &Stack) {
    let disk = stack.make();
    assert!(is_disk(&disk).unwrap());
    let checked = Command::new("fsck.erofs").arg(&disk).output();
    if let Ok(checked) = checked {
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    let Some(mount) = mount(&disk) else { return };
    let (expected, tree) = (tree_of(&stack.overlay()), tree_of(&mount));
    for (path, node) in &expected.0 {
        assert_eq!(tree.0.get(path), Some(node), "{}", path.display());
    }
    assert_eq!(tree.0.keys().find(|path| !expected.0.contains_key(*path)), None);
}

fn with(path: &str, kind: EntryKind, change: impl FnOnce(&mut Header)) -> Header {
    let mut header = header(path, kind);
    change(&mut header);
    header
}

#[test]
fn a_disk_has_what_an_overlay_of_its_layers_shows() {
    if !is_root() {
        return;
    }
    let large = "0123456789abcdef".repeat(70_000);
    let long = format!("deep/{}", "n".repeat(250));
    let lower = Tar::new()
        .dir("a")
        .dir("b")
        .dir("deep")
        .file("a/empty", "")
        .file("a/short", "short")
        .file("a/page", &large[..4096])
        .file("a/large", &large)
        .file(&long, "x")
        .hard_link("a/same", "a/large")
        .symlink("link", "a/short")
        .symlink("far", "f".repeat(4000))
        .file("b/gone", "gone")
        .file("b/kept", "kept")
        .entry(with("a/pipe", EntryKind::Fifo, |_| {}), b"")
        .entry(with("a/null", EntryKind::CharacterDevice, |header| header.device = (1, 3)), b"")
        .entry(
            with("a/of", EntryKind::File, |header| {
                (header.uid, header.gid, header.mode) = (70_000, 70_001, 0o4755);
                header.mtime = (1_600_000_000, 5);
                header.xattrs = vec![
                    (b"user.word".to_vec(), b"value".to_vec()),
                    (b"trusted.word".to_vec(), vec![7; 3000]),
                ];
            }),
            b"owned",
        );
    let upper = Tar::new()
        .dir("b")
        .file("b/.wh.gone", "")
        .file("a/short", "another")
        .dir("deep")
        .file("deep/.wh..wh..opq", "")
        .file("deep/new", "new");
    compare(&Stack::of(&[lower.end(), upper.end()]));
}

#[test]
fn many_names_and_a_wide_directory_fill_several_blocks() {
    if !is_root() {
        return;
    }
    let mut tar = Tar::new().dir("wide");
    for number in 0..3000 {
        tar = tar.file(format!("wide/file-{number:05}"), &number.to_string());
    }
    compare(&Stack::of(&[tar.end()]));
}

#[test]
fn holes_take_no_room() {
    if !is_root() {
        return;
    }
    let stack = Stack::of(&[Tar::new().file("f", "x").end()]);
    let Rootfs::Layered { root, .. } = &stack.plan else { panic!() };
    let Layer::Directory(layer) = &root.lower[0] else { panic!() };
    let sparse = File::create(layer.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"middle", 20 << 20).unwrap();
    let disk = stack.make();
    assert!(fs::metadata(&disk).unwrap().blocks() * 512 < 1 << 20);
    let Some(mount) = mount(&disk) else { return };
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let read = fs::read(root.join("sparse")).unwrap();
    assert_eq!(read.len(), 64 << 20);
    assert_eq!(&read[20 << 20..(20 << 20) + 6], b"middle");
    assert_eq!(read.iter().filter(|byte| **byte != 0).count(), 6);
}

#[test]
fn a_disk_is_made_once_and_anew_when_it_is_damaged() {
    if !is_root() {
        return;
    }
    let stack = Stack::of(&[Tar::new().file("f", "content").end()]);
    let disk = stack.make();
    let inode = fs::metadata(&disk).unwrap().ino();
    assert_eq!(stack.make(), disk);
    assert_eq!(fs::metadata(&disk).unwrap().ino(), inode);
    for damage in [
        // A superblock of another's making, and a file that lost its end.
        &|file: &File| file.write_all_at(b"x", 1100).unwrap() as _,
        &|file: &File| file.set_len(file.metadata().unwrap().len() - 4096).unwrap() as _,
        &|file: &File| file.set_len(10).unwrap() as _,
    ] as [&dyn Fn(&File); 3]
    {
        damage(&File::options().write(true).open(&disk).unwrap());
        assert!(!is_disk(&disk).unwrap());
        assert_eq!(stack.store().find(&stack.layers), None);
        stack.make();
        assert!(is_disk(&disk).unwrap());
    }
    assert_eq!(fs::read_dir(stack.disks.path().join("disks/ingest")).unwrap().count(), 0);
}

#[test]
fn only_disks_of_stacks_that_are_wanted_are_kept() {
    if !is_root() {
        return;
    }
    let (one, two) =
        (Stack::of(&[Tar::new().file("f", "1").end()]), Stack::of(&[Tar::new().file("f", "2").end()]));
    let first = one.make();
    let second = one.store().make(&two.layers, &two.plan).unwrap();
    assert_ne!(first, second);
    assert_eq!(one.store().keep_only([&one.layers[..], &two.layers[..]]).unwrap(), 0);
    assert!(one.store().keep_only([&two.layers[..]]).unwrap() > 0);
    assert!(!first.exists() && second.exists());
    assert_eq!(DiskStore::at(Path::new("/nowhere")).keep_only([]).unwrap(), 0);
}

#[test]
fn a_disk_whose_layers_cannot_be_read_is_not_made() {
    if !is_root() {
        return;
    }
    let stack = Stack::of(&[Tar::new().file("f", "1").end()]);
    fs::remove_dir_all(stack.scene.store.path(&stack.layers[0])).unwrap();
    stack.store().make(&stack.layers, &stack.plan).unwrap_err();
    assert_eq!(stack.store().find(&stack.layers), None);
    assert_eq!(fs::read_dir(stack.disks.path().join("disks/ingest")).unwrap().count(), 0);
}
