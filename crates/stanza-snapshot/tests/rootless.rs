//! Layers unpacked in a user namespace that has one id: what a user without root can do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Scene, Tar, digest, header, in_namespaces, is_whiteout, xattr};
use stanza_snapshot::{ApplyError, LayerStore};
use stanza_tar::{EntryKind, Header};

#[test]
fn layers_are_unpacked_in_a_user_namespace() {
    in_namespaces("-Urm", "layers_are_unpacked_in_a_user_namespace", in_user_namespace);
}

fn in_user_namespace() {
    let scene = Scene::new();
    let store = LayerStore::open(&scene.directory.path().join("layers"), true).unwrap();
    let block = Header { device: (8, 1), ..header("sda", EntryKind::BlockDevice) };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let xattrs = vec![
        (b"security.capability".to_vec(), capability),
        (b"trusted.foo".to_vec(), b"1".to_vec()),
        (b"user.kept".to_vec(), b"1".to_vec()),
    ];
    let program = Header { mode: 0o4755, xattrs, ..header("program", EntryKind::File) };
    let tar = Tar::new()
        .entry(block, b"")
        .entry(program, b"x")
        .file("d/.wh..wh..opq", "")
        .file("d/.wh.gone", "")
        .entry(header("pipe", EntryKind::Fifo), b"")
        .end();
    let applied = store.apply(&digest(&tar), &mut &*tar).unwrap();
    assert_eq!((applied.skipped_devices, applied.skipped_xattrs), (1, 1));
    store.verify(&digest(&tar)).unwrap();
    let layer = store.path(&digest(&tar));
    assert!(is_whiteout(&layer.join("d/gone")) && !layer.join("sda").exists());
    assert_eq!(xattr(&layer.join("d"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(xattr(&layer.join("program"), "user.kept").as_deref(), Some(&b"1"[..]));
    assert!(xattr(&layer.join("program"), "security.capability").is_some());

    let stranger = Header { uid: 1000, ..header("f", EntryKind::File) };
    let tar = Tar::new().entry(stranger, b"").end();
    let result = store.apply(&digest(&tar), &mut &*tar);
    assert!(matches!(result, Err(ApplyError::Unmapped { uid: 1000, .. })), "{result:?}");
    scene.assert_untouched();
}
