//! The driver `copy`: what the layers show together, and copies of one layer for a user namespace.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::{Scene, Tar, digest, header, is_opaque, is_root, is_whiteout, xattr};
use stanza_snapshot::{ChangeKind, changes, plan_copy, plan_layers, prepare, shift_layers};
use stanza_spec::{Digest, Layer, Rootfs};
use stanza_tar::{EntryKind, Header};

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn layers(scene: &Scene) -> [Digest; 2] {
    let xattrs =
        vec![(b"security.capability".to_vec(), CAPABILITY.to_vec()), (b"user.a".to_vec(), b"1".to_vec())];
    let low = Tar::new()
        .entry(Header { mode: 0o2750, uid: 7, gid: 70_000, ..header("d", EntryKind::Directory) }, b"")
        .file("d/a", "a")
        .hard_link("d/b", "d/a")
        .symlink("d/l", "a")
        .file("d/gone", "")
        .file("d/sub/hidden", "")
        .entry(Header { mode: 0o4755, xattrs, ..header("program", EntryKind::File) }, b"x")
        .entry(Header { device: (1, 3), ..header("null", EntryKind::CharacterDevice) }, b"")
        .file("replaced/inside", "")
        .end();
    let top = Tar::new()
        .entry(Header { mode: 0o2750, uid: 7, gid: 70_000, ..header("d", EntryKind::Directory) }, b"")
        .file("d/.wh.gone", "")
        .file("d/sub/.wh..wh..opq", "")
        .file("d/sub/new", "new")
        .file("replaced", "now a file")
        .end();
    let both = [&low, &top].map(|tar| digest(tar));
    for tar in [low, top] {
        scene.layer(&tar);
    }
    both
}

fn copied(scene: &Scene, layers: &[Digest], shift: u32) -> (Rootfs, std::path::PathBuf) {
    let directory = tempfile::tempdir_in(scene.outside()).unwrap().keep();
    let plan = plan_copy(&scene.store, layers, &directory, shift).unwrap();
    prepare(&plan).unwrap();
    (plan, directory.join("rootfs"))
}

#[test]
fn a_copy_is_what_the_layers_show_and_its_changes_are_told() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let layers = layers(&scene);
    let (plan, root) = copied(&scene, &layers, 0);
    let meta = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    assert!(!root.join("d/gone").exists() && !root.join("d/sub/hidden").exists());
    assert_eq!(fs::read(root.join("replaced")).unwrap(), b"now a file");
    assert_eq!((meta("d/a").ino(), meta("d/a").nlink()), (meta("d/b").ino(), 2));
    assert_ne!(meta("d/a").ino(), fs::metadata(scene.store.path(&layers[0]).join("d/a")).unwrap().ino());
    assert_eq!(fs::read_link(root.join("d/l")).unwrap(), Path::new("a"));
    assert_eq!((meta("program").mode() & 0o7777, meta("program").mtime()), (0o4755, 1_000_000));
    assert_eq!(xattr(&root.join("program"), "security.capability").unwrap(), CAPABILITY);
    assert_eq!(xattr(&root.join("program"), "user.a").unwrap(), b"1");
    assert_eq!(rustix::fs::major(meta("null").rdev()), 1);
    assert!(!is_opaque(&root.join("d/sub")));
    assert!(root.join("etc/resolv.conf").exists(), "the base layer is below");
    assert_eq!(changes(&plan).unwrap(), []);

    fs::write(root.join("d/a"), "longer").unwrap();
    fs::remove_file(root.join("program")).unwrap();
    fs::create_dir(root.join("d/made")).unwrap();
    fs::remove_file(root.join("d/l")).unwrap();
    symlink("b", root.join("d/l")).unwrap();
    fs::set_permissions(root.join("null"), fs::Permissions::from_mode(0o600)).unwrap();
    // Preparing again, as a second start does, takes nothing back.
    prepare(&plan).unwrap();
    let told: Vec<_> = changes(&plan)
        .unwrap()
        .into_iter()
        .map(|change| (change.path.display().to_string(), change.kind))
        .collect();
    let expected = [
        ("/d", ChangeKind::Modified),
        ("/d/a", ChangeKind::Modified),
        ("/d/b", ChangeKind::Modified),
        ("/d/l", ChangeKind::Modified),
        ("/d/made", ChangeKind::Added),
        ("/null", ChangeKind::Modified),
        ("/program", ChangeKind::Deleted),
    ];
    assert_eq!(told, expected.map(|(path, kind)| (path.to_owned(), kind)));
}

#[test]
fn a_sparse_file_is_copied_without_its_holes_being_filled() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let tar = Tar::new().file("s", "").end();
    let layer = scene.layer(&tar);
    let file = fs::File::options().write(true).open(layer.join("s")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 5 << 20).unwrap();
    file.set_len(1 << 30).unwrap();
    let (_, root) = copied(&scene, &[digest(&tar)], 0);
    let copy = fs::File::open(root.join("s")).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), 1 << 30);
    assert!(copy.metadata().unwrap().blocks() < 2048);
    let mut found = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&copy, &mut found, (5 << 20) - 1).unwrap();
    assert_eq!(&found, b"\0middle\0");
}

#[test]
fn owners_are_shifted_and_capabilities_given_to_the_namespaces_root() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let layers = layers(&scene);
    let base = 1 << 20;
    let (plan, root) = copied(&scene, &layers, base);
    let owner = |path: &Path| {
        let meta = fs::symlink_metadata(path).unwrap();
        (meta.uid(), meta.gid())
    };
    // A group beyond the namespace's range stays nobody's.
    assert_eq!(owner(&root.join("d")), (base + 7, 70_000));
    assert_eq!(owner(&root.join("d/l")), (base, base));
    assert_eq!(fs::metadata(root.join("program")).unwrap().mode() & 0o7777, 0o4755);
    let version3 = [&[1, 0, 0, 3][..], &CAPABILITY[4..], &base.to_le_bytes()].concat();
    assert_eq!(raw_capability(&root.join("program")), version3);
    assert_eq!(changes(&plan).unwrap(), []);

    let plan = plan_layers(&scene.store, &layers, &scene.outside(), false).unwrap();
    let Rootfs::Layered { root, .. } = shift_layers(plan, base).unwrap() else { unreachable!() };
    let [Layer::Shifted(top), Layer::Shifted(low), Layer::Directory(_)] = &root.lower[..] else {
        panic!("{:?}", root.lower)
    };
    assert_eq!(top, &scene.store.home(&layers[1]).join(format!("fs-{base}")));
    assert!(is_whiteout(&top.join("d/gone")) && is_opaque(&top.join("d/sub")));
    assert_eq!(owner(&low.join("d")), (base + 7, 70_000));
    assert_eq!(fs::metadata(low.join("d/a")).unwrap().nlink(), 2);
    scene.store.remove(&layers[1]).unwrap();
    assert!(!top.exists());
}

/// The attribute as the machine's root sees it who is not the namespace's: with the id of that root.
fn raw_capability(path: &Path) -> Vec<u8> {
    xattr(path, "security.capability").unwrap()
}
