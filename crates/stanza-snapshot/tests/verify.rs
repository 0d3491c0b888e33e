//! The digest of a layer's tree: the same however it is told, and another after every kind of damage.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::{Scene, Tar, digest, header, is_root};
use stanza_snapshot::{LayerStore, VerifyError};
use stanza_spec::{Classify, Digest, ErrorKind};
use stanza_tar::{EntryKind, Header};

/// A layer with something of everything.
fn everything() -> Tar {
    let attributes = vec![(b"trusted.x".to_vec(), b"1".to_vec()), (b"user.a".to_vec(), b"2".to_vec())];
    let big: String = (0..300_000).map(|at| char::from(b'a' + u8::try_from(at % 23).unwrap())).collect();
    Tar::new()
        .entry(Header { mode: 0o1777, mtime: (5, 7), ..header(".", EntryKind::Directory) }, b"")
        .dir("d")
        .file("d/file", "content")
        .file("implied/by/this", &big)
        .entry(Header { xattrs: attributes.clone(), ..header("d/attributes", EntryKind::File) }, b"x")
        .entry(Header { xattrs: attributes, ..header("with", EntryKind::Directory) }, b"")
        .hard_link("with/link", "d/file")
        .hard_link("with/again", "d/attributes")
        .symlink("d/symlink", "file")
        .hard_link("d/symlink2", "d/symlink")
        .entry(header("d/pipe", EntryKind::Fifo), b"")
        .entry(Header { device: (1, 3), ..header("d/null", EntryKind::CharacterDevice) }, b"")
        .file("d/.wh.gone", "")
        .file("hidden/.wh..wh..opq", "")
        .entry(Header { mode: 0o4755, uid: 1000, gid: 5, ..header("d/setuid", EntryKind::File) }, b"s")
        .entry(Header { mode: 0o2755, gid: 9, ..header("sgid", EntryKind::Directory) }, b"")
        .file("sgid/inside", "")
        .entry(Header { mtime: (1 << 40, 5), ..header("late", EntryKind::File) }, b"")
        .entry(Header { mtime: (-77, 5), ..header("early", EntryKind::File) }, b"")
}

fn tree(store: &LayerStore, layer: &Digest) -> String {
    store.record(layer).unwrap().tree.unwrap().to_string()
}

#[test]
fn the_digest_depends_on_content_alone() {
    if !is_root() {
        return;
    }
    let (first, second) = (Scene::new(), Scene::new());
    let tar = everything().end();
    let layer = digest(&tar);
    first.layer(&tar);
    second.layer(&tar);
    assert_eq!(tree(&first.store, &layer), tree(&second.store, &layer));
    // The same tree from an archive in which an entry is replaced: read back in place of summed up.
    let replaced = Tar::new().file("zz", "old").end();
    let mut twice = replaced[..1024].to_vec();
    twice.extend_from_slice(&Tar::new().symlink("zz", "nowhere").end());
    let plain = Tar::new().symlink("zz", "nowhere").end();
    first.layer(&twice);
    first.layer(&plain);
    assert_eq!(tree(&first.store, &digest(&twice)), tree(&first.store, &digest(&plain)));
}

#[test]
fn a_record_tells_how_large_a_layer_is() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let tar = everything().end();
    let layer = scene.layer(&tar);
    let record = scene.store.record(&digest(&tar)).unwrap();
    let (mut size, mut allocated, mut seen) = (0, 0, std::collections::HashSet::new());
    let mut left = vec![layer];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if !seen.insert(meta.ino()) {
            continue;
        }
        allocated += meta.blocks() * 512;
        size += if meta.is_file() { meta.len() } else { 0 };
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert_eq!((record.inodes, record.size, record.entries), (seen.len() as u64, size, 19));
    assert_eq!(record.allocated, allocated);
}

#[test]
fn every_kind_of_damage_is_found() {
    if !is_root() {
        return;
    }
    let tar = everything().end();
    let layer = digest(&tar);
    let set_time = |path: &Path, time: i64| {
        let time = rustix::fs::Timespec { tv_sec: time, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
    };
    /// Changes a tree somehow.
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, &str, Damage<'_>); 13] = [
        ("a byte", "/d/file", &|root| {
            let time = fs::metadata(root.join("d/file")).unwrap().mtime();
            fs::write(root.join("d/file"), "c0ntent").unwrap();
            set_time(&root.join("d/file"), time);
        }),
        ("a length", "/d/file", &|root| fs::write(root.join("d/file"), "content!").unwrap()),
        ("a mode", "/d/setuid", &|root| {
            fs::set_permissions(root.join("d/setuid"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("an owner", "/d/file", &|root| {
            std::os::unix::fs::lchown(root.join("d/file"), Some(7), None).unwrap();
        }),
        ("a time", "/d/symlink", &|root| set_time(&root.join("d/symlink"), 5)),
        ("a target", "/d", &|root| {
            fs::remove_file(root.join("d/symlink")).unwrap();
            symlink("elif", root.join("d/symlink")).unwrap();
            set_time(&root.join("d/symlink"), 1_000_000);
            set_time(&root.join("d"), 1_000_000);
        }),
        ("an attribute", "/with", &|root| {
            let flags = rustix::fs::XattrFlags::REPLACE;
            rustix::fs::setxattr(root.join("with"), "user.a", b"3", flags).unwrap();
        }),
        ("an opaque mark", "/hidden", &|root| {
            rustix::fs::removexattr(root.join("hidden"), "trusted.overlay.opaque").unwrap();
        }),
        ("a file less", "/with", &|root| fs::remove_file(root.join("with/link")).unwrap()),
        ("a file more", "/d", &|root| fs::write(root.join("d/more"), "").unwrap()),
        ("a whiteout less", "/d", &|root| {
            fs::remove_file(root.join("d/gone")).unwrap();
            set_time(&root.join("d"), 1_000_000);
        }),
        ("a name", "/d", &|root| {
            fs::rename(root.join("d/file"), root.join("d/elif")).unwrap();
            set_time(&root.join("d"), 1_000_000);
        }),
        ("the root", "/", &|root| {
            fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        }),
    ];
    for (what, place, damage) in cases {
        let scene = Scene::new();
        let root = scene.layer(&tar);
        // The clock of a file system goes in steps of a few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(12));
        damage(&root);
        match scene.store.verify(&layer) {
            Err(VerifyError::Differs { changed, .. }) => {
                assert!(changed.iter().any(|path| path == Path::new(place)), "{what}: {changed:?}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_damaged_record_and_a_missing_layer_are_told_apart() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let tar = Tar::new().file("a", "b").end();
    let layer = digest(&tar);
    assert!(matches!(scene.store.verify(&layer), Err(VerifyError::NotFound(_))));
    let root = scene.layer(&tar);
    let record = root.with_file_name("record.json");
    let text = fs::read_to_string(&record).unwrap();
    for bad in ["", "{}", &text.replace("\"version\":1", "\"version\":9"), &text.replace("xxh3-sum:", "md5:")]
    {
        fs::write(&record, bad).unwrap();
        let error = scene.store.verify(&layer).unwrap_err();
        assert!(matches!(error, VerifyError::Record { .. }), "{bad}: {error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    fs::write(&record, text).unwrap();
    scene.store.verify(&layer).unwrap();
}

#[test]
fn files_with_holes_are_told_by_their_content() {
    if !is_root() {
        return;
    }
    // Written in GNU's format 1.0: two pieces of a file of 5 GiB.
    let scene = Scene::new();
    let size = 5u64 << 30;
    let map = format!("3\n0\n3\n{}\n4\n{size}\n0\n", (1u64 << 32) + 5);
    let mut stored = vec![0; 512];
    stored[..map.len()].copy_from_slice(map.as_bytes());
    stored.extend_from_slice(b"onetwo!");
    let mut tar = Vec::new();
    let records = [
        "GNU.sparse.major=1".to_owned(),
        "GNU.sparse.minor=0".to_owned(),
        "GNU.sparse.name=f".to_owned(),
        format!("GNU.sparse.realsize={size}"),
    ];
    let pax: String = records
        .iter()
        .map(|record| {
            let length = record.len() + 4;
            assert!((10..100).contains(&length));
            format!("{length} {record}\n")
        })
        .collect();
    tar.extend_from_slice(&block("pax", b'x', pax.len()));
    tar.extend_from_slice(&padded(pax.as_bytes()));
    tar.extend_from_slice(&block("GNUSparseFile.0/f", b'0', stored.len()));
    tar.extend_from_slice(&padded(&stored));
    tar.extend_from_slice(&[0; 1024]);
    let layer = scene.layer(&tar);
    let meta = fs::metadata(layer.join("f")).unwrap();
    assert!(meta.len() == size && meta.blocks() < 100, "{meta:?}");
    let record = scene.store.record(&digest(&tar)).unwrap();
    assert!((record.size, record.allocated < 1 << 20) == (size, true), "{record:?}");
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(512), 0);
    padded
}

fn block(name: &str, flag: u8, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(257, "ustar\u{0}00");
    block[156] = flag;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[test]
fn a_damaged_layer_is_renewed_in_its_place() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let tar = everything().end();
    let layer = digest(&tar);
    let root = scene.layer(&tar);
    fs::write(root.join("d/file"), "other").unwrap();
    let wrong = Tar::new().file("x", "").end();
    assert!(scene.store.renew(&layer, &mut &*wrong).is_err());
    assert_eq!(fs::read(root.join("d/file")).unwrap(), b"other");
    assert_eq!(scene.store.verify_all(std::slice::from_ref(&layer), 2).len(), 1);
    scene.store.renew(&layer, &mut &*tar).unwrap();
    assert!(scene.store.verify_all(std::slice::from_ref(&layer), 2).is_empty());
    scene.assert_untouched();
    // One that is not there is just unpacked.
    scene.store.remove(&layer).unwrap();
    scene.store.renew(&layer, &mut &*tar).unwrap();
    scene.store.verify(&layer).unwrap();
    // Taken away at once, and then taken apart.
    let missing = Digest::from_hash(&[0; 32]);
    let taken = scene.store.take(&[missing, layer.clone()]).unwrap();
    assert!(!scene.store.contains(&layer));
    assert_eq!(taken.remove().unwrap(), [layer]);
    scene.assert_untouched();
}
