//! Hostile layers: refused by name or made harmless, nothing outside the layer touched, nothing left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use common::{Scene, Tar, digest, header, is_opaque, is_root, is_whiteout, xattr};
use stanza_snapshot::{ApplyError, LinksError};
use stanza_tar::{EntryKind, Header};

#[test]
fn names_that_lead_out_are_refused_and_others_stay_inside() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    for bad in ["../x", "a/../../x", "./../x", "..", "a/./../b", "", "../outside/victim"] {
        let (_, result) = scene.apply(&Tar::new().file(bad, "evil").end());
        assert!(matches!(result, Err(ApplyError::Name { .. })), "{bad}: {result:?}");
    }
    let root_as_file = scene.apply(&Tar::new().file(".", "evil").end()).1;
    assert!(matches!(root_as_file, Err(ApplyError::Name { .. })));
    let absolute = scene.outside().join("victim");
    let tar =
        Tar::new().file(absolute.as_os_str().as_bytes(), "inside").file("f/", "slash").file("\u{e9}", "");
    let layer = scene.layer(&tar.file(b"\xff\n", "bytes").end());
    assert_eq!(fs::read(layer.join(absolute.strip_prefix("/").unwrap())).unwrap(), b"inside");
    assert_eq!(fs::read(layer.join("f")).unwrap(), b"slash");
    assert_eq!(fs::read(layer.join(std::ffi::OsStr::from_bytes(b"\xff\n"))).unwrap(), b"bytes");
}

#[test]
fn names_that_the_file_system_does_not_hold_are_refused() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    for path in ["n".repeat(256), "a/".repeat(2049) + "x"] {
        assert!(scene.apply(&Tar::new().file(path, "").end()).1.is_err());
    }
    let deep = "a/".repeat(2000) + "x";
    let layer = scene.layer(&Tar::new().file(&deep, "deep").end());
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let layer = rustix::fs::open(&layer, flags, rustix::fs::Mode::empty()).unwrap();
    let stat = rustix::fs::statat(&layer, &deep, rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(stat.st_size, 4);
}

#[test]
fn links_on_the_way_lead_nowhere_outside() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let outside = scene.outside();
    let outside = outside.as_os_str().as_bytes();
    let inner = Path::new("/").join(std::str::from_utf8(outside).unwrap());
    let inner = inner.strip_prefix("/").unwrap();
    let layer = scene.layer(&Tar::new().symlink("d", outside).file("d/victim", "evil").end());
    assert_eq!(fs::read(layer.join(inner).join("victim")).unwrap(), b"evil");
    assert!(fs::symlink_metadata(layer.join("d")).unwrap().is_symlink());

    let layer = scene.layer(&Tar::new().symlink("up", "../../../../../../..").file("up/etc/x", "evil").end());
    assert_eq!(fs::read(layer.join("etc/x")).unwrap(), b"evil");
    let layer = scene
        .layer(&Tar::new().symlink("r", "/").dir("a").symlink("a/b", "../..").file("a/b/r/z", "1").end());
    assert_eq!(fs::read(layer.join("z")).unwrap(), b"1");

    let mut chain = Tar::new().dir("l0");
    for index in 1..=42 {
        chain = chain.symlink(format!("l{index}"), format!("l{}", index - 1));
    }
    let (_, result) = scene.apply(&chain.file("l42/x", "").end());
    assert!(matches!(result, Err(ApplyError::Entry { .. })), "{result:?}");
    let endless = Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "").end();
    assert!(scene.apply(&endless).1.is_err());
    let magic = Tar::new().symlink("p", "/proc/self/cwd").file("p/x", "in").end();
    assert_eq!(fs::read(scene.layer(&magic).join("proc/self/cwd/x")).unwrap(), b"in");
}

#[test]
fn a_link_in_an_entrys_place_is_replaced_and_not_followed() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let victim = scene.outside().join("victim");
    let victim = victim.as_os_str().as_bytes();
    let outside = scene.outside();
    let outside = outside.as_os_str().as_bytes();
    let open_mode = Header { mode: 0o777, ..header("l", EntryKind::Directory) };
    // CVE-2026-33056: a directory entry over a link changes the mode of what the link names.
    let layer = scene.layer(&Tar::new().symlink("l", outside).entry(open_mode, b"").end());
    assert!(fs::symlink_metadata(layer.join("l")).unwrap().is_dir());
    let layer = scene.layer(&Tar::new().symlink("l", victim).file("l", "evil").end());
    assert_eq!(fs::read(layer.join("l")).unwrap(), b"evil");
    let fifo = Header { mode: 0o777, ..header("l", EntryKind::Fifo) };
    let layer = scene.layer(&Tar::new().symlink("l", victim).entry(fifo, b"").end());
    assert!(fs::symlink_metadata(layer.join("l")).unwrap().file_type().is_fifo());
}

#[test]
fn hard_links_name_files_of_their_layer_only() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let victim = scene.outside().join("victim");
    let victim = victim.as_os_str().as_bytes();
    for tar in [
        Tar::new().hard_link("h", "../../../outside/victim"),
        Tar::new().dir("d").hard_link("h", "d"),
        Tar::new().hard_link("h", "."),
        Tar::new().hard_link("h", ""),
    ] {
        let (_, result) = scene.apply(&tar.end());
        assert!(matches!(result, Err(ApplyError::Link { .. })), "{result:?}");
    }
    // What the layer does not have, a layer below may; here none does.
    for tar in [
        Tar::new().hard_link("h", victim),
        Tar::new().symlink("s", scene.outside().as_os_str().as_bytes()).hard_link("h", "s/victim"),
        Tar::new().hard_link("h", "later").file("later", ""),
        Tar::new().file(".wh.gone", "").hard_link("h", "gone"),
        Tar::new().file(".wh.gone", "").hard_link("h", ".wh.gone"),
    ] {
        let (diff_id, result) = scene.apply(&tar.end());
        result.unwrap();
        let stacked = scene.store.with_links(&[diff_id]);
        assert!(matches!(stacked, Err(LinksError::NoTarget { .. })), "{stacked:?}");
        scene.assert_untouched();
    }
    // A link to a link is one more name of the link itself.
    let layer = scene.layer(&Tar::new().symlink("s", victim).hard_link("h", "s").file("h", "evil").end());
    assert_eq!(fs::read(layer.join("h")).unwrap(), b"evil");
    let layer = scene.layer(&Tar::new().file("a", "1").hard_link("/a", "./a").hard_link("b", "a").end());
    assert_eq!(fs::metadata(layer.join("b")).unwrap().nlink(), 2);
    let over = Tar::new().file("a", "1").dir("d").file("d/x", "").hard_link("d", "a").end();
    assert_eq!(fs::read(scene.layer(&over).join("d")).unwrap(), b"1");
}

#[test]
fn a_hard_link_into_a_lower_layer_is_made_for_the_image_that_has_it() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let layer = |tar: Tar| {
        let tar = tar.end();
        scene.layer(&tar);
        digest(&tar)
    };
    let one = layer(Tar::new().dir("bin").file("bin/sh", "one"));
    let other = layer(Tar::new().file("bin/sh", "other").file(".wh.x", ""));
    let links = layer(
        Tar::new()
            .hard_link("bin/bash", "bin/sh")
            .hard_link("bin/dash", "bin/sh")
            .hard_link("gone", "bin/sh")
            .file("gone", "own"),
    );
    assert_eq!(fs::read_dir(scene.store.path(&links).join("bin")).unwrap().count(), 0);

    for (base, content) in [(&one, "one"), (&other, "other")] {
        let stacked = scene.store.with_links(&[base.clone(), links.clone()]).unwrap();
        assert_eq!((&stacked[0], &stacked[1], stacked.len()), (base, &links, 3));
        let made = scene.store.path(&stacked[2]);
        assert_eq!(fs::read_to_string(made.join("bin/bash")).unwrap(), content);
        // Both names are one file; what replaced a link is the layer's own.
        assert_eq!(fs::metadata(made.join("bin/dash")).unwrap().nlink(), 2);
        assert!(!made.join("gone").exists() && !made.join("bin/sh").exists());
        assert_eq!(scene.store.with_links(&[base.clone(), links.clone()]).unwrap(), stacked);
    }
    let alone = scene.store.with_links(std::slice::from_ref(&links));
    assert!(matches!(alone, Err(LinksError::NoTarget { .. })), "{alone:?}");
    // The layer itself and those below stay what they are.
    assert_eq!(fs::metadata(scene.store.path(&one).join("bin/sh")).unwrap().nlink(), 1);
    scene.assert_untouched();
}

#[test]
fn malformed_whiteouts_are_refused_and_good_ones_delete_nothing() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    for bad in [".wh.", ".wh..", ".wh...", ".wh./x", ".wh.a/b", "d/.wh...", "d/.wh./"] {
        let (_, result) = scene.apply(&Tar::new().dir("d").file(bad, "").end());
        assert!(matches!(result, Err(ApplyError::Name { .. })), "{bad}: {result:?}");
    }
    let outside = scene.outside();
    let tar = Tar::new()
        .symlink("out", outside.as_os_str().as_bytes())
        .file("out/.wh.victim", "")
        .file("out/.wh..wh..opq", "")
        .file(".wh..wh.plnk/1.2", "")
        .file(".wh..wh.aufs", "")
        .file(".wh.gone", "")
        .file("d/x", "")
        .file("d/.wh..wh..opq", "")
        .file(".wh..wh..opq", "");
    let layer = scene.layer(&tar.end());
    let inner = layer.join(outside.strip_prefix("/").unwrap());
    assert!(is_whiteout(&inner.join("victim")) && is_opaque(&inner));
    assert!(is_whiteout(&layer.join("gone")) && is_opaque(&layer.join("d")) && is_opaque(&layer));
    assert!(!layer.join(".wh..wh.plnk").exists() && !layer.join(".wh..wh.aufs").exists());
    assert!(layer.join("d/x").exists());
}

#[test]
fn an_entry_wins_over_a_whiteout_of_its_name_in_both_orders() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    for tar in [
        Tar::new()
            .file(".wh.f", "")
            .file("f", "1")
            .file(".wh.d", "")
            .dir("d")
            .file(".wh.i", "")
            .file("i/x", ""),
        Tar::new()
            .file("f", "1")
            .file(".wh.f", "")
            .dir("d")
            .file(".wh.d", "")
            .file("i/x", "")
            .file(".wh.i", ""),
    ] {
        let layer = scene.layer(&tar.end());
        assert_eq!(fs::read(layer.join("f")).unwrap(), b"1");
        assert!(is_opaque(&layer.join("d")) && is_opaque(&layer.join("i")) && layer.join("i/x").exists());
    }
}

#[test]
fn the_last_of_several_entries_counts_without_taking_for_ever() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut tar = Tar::new().file("d/e/old", "").file("d", "file").dir("d").file("d/e/new", "");
    tar = tar.symlink("x", "y").file("x", "file").dir("x").file("x/z", "").symlink("x", "end");
    for _ in 0..20_000 {
        tar = tar.file("d/same", "");
    }
    let layer = scene.layer(&tar.end());
    assert!(layer.join("d/e/new").exists() && !layer.join("d/e/old").exists());
    assert_eq!(fs::read_link(layer.join("x")).unwrap(), Path::new("end"));
    // The remembered directory is not used after it was replaced.
    let tar = Tar::new().file("p/q/1", "").file("p/q", "").dir("p/q").file("p/q/2", "").end();
    let layer = scene.layer(&tar);
    assert!(layer.join("p/q/2").exists() && !layer.join("p/q/1").exists());
}

#[test]
fn devices_modes_and_attributes_are_kept_but_for_overlays_own() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let device = |path: &str, device| Header { device, ..header(path, EntryKind::CharacterDevice) };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let xattrs: Vec<(Vec<u8>, Vec<u8>)> = [
        (&b"security.capability"[..], &capability[..]),
        (b"trusted.overlay.opaque", b"y"),
        (b"trusted.overlay.redirect", b"/etc"),
        (b"user.overlay.metacopy", b""),
        (b"user.kept", b"1"),
    ]
    .map(|(name, value)| (name.to_vec(), value.to_vec()))
    .into();
    let file =
        Header { mode: 0o6755, uid: 1000, gid: 1001, xattrs: xattrs.clone(), ..header("f", EntryKind::File) };
    let directory = Header { mode: 0o2755, gid: 5, xattrs, ..header("d", EntryKind::Directory) };
    let tar = Tar::new()
        .entry(device("null", (1, 3)), b"")
        .entry(device("hidden", (0, 0)), b"")
        .entry(file, b"x")
        .entry(Header { xattrs: directory.xattrs[1..].to_vec(), ..directory }, b"")
        .file("d/in", "");
    let (diff_id, result) = scene.apply(&tar.end());
    let applied = result.unwrap();
    assert_eq!((applied.skipped_devices, applied.skipped_xattrs), (1, 6));
    let layer = scene.store.path(&diff_id);
    let stat = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap();
    assert_eq!(stat("null").rdev(), rustix::fs::makedev(1, 3));
    assert!(!layer.join("hidden").exists());
    assert_eq!((stat("f").mode() & 0o7777, stat("f").uid(), stat("f").gid()), (0o6755, 1000, 1001));
    assert_eq!(xattr(&layer.join("f"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&layer.join("f"), "user.kept").unwrap(), b"1");
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.metacopy"] {
        assert_eq!((xattr(&layer.join("f"), name), xattr(&layer.join("d"), name)), (None, None));
    }
    // The directory's group is not handed down: that file belongs to group 0.
    assert_eq!((stat("d").mode() & 0o7777, stat("d").gid(), stat("d/in").gid()), (0o2755, 5, 0));
    assert_eq!((stat("d").mtime(), stat("f").mtime()), (1_000_000, 1_000_000));
}

#[test]
fn owners_and_times_that_cannot_be_are_refused_or_clamped() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    for (uid, gid) in [(u64::from(u32::MAX), 0), (0, u64::from(u32::MAX)), (1 << 32, 0), (0, u64::MAX)] {
        let entry = Header { uid, gid, ..header("f", EntryKind::File) };
        let (_, result) = scene.apply(&Tar::new().entry(entry, b"").end());
        assert!(matches!(result, Err(ApplyError::Owner { .. })), "{result:?}");
    }
    let at = |path: &str, mtime| Header { mtime, ..header(path, EntryKind::File) };
    let tar = Tar::new().entry(at("far", (i64::MAX, 5)), b"").entry(at("early", (i64::MIN, 5)), b"");
    let layer = scene.layer(&tar.entry(at("before", (-2, 500_000_000)), b"").end());
    let stat = |name: &str| fs::metadata(layer.join(name)).unwrap();
    assert!(stat("far").mtime() > 1 << 33 && stat("early").mtime() < 0);
    assert_eq!((stat("before").mtime(), stat("before").mtime_nsec()), (-2, 500_000_000));
}

#[test]
fn sparse_files_stay_sparse() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let size = 8u64 << 30;
    let records =
        format!("22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n34 GNU.sparse.realsize={size:010}\n");
    let mut tar = Tar::new();
    // A pax header is an entry of another type with the records as content.
    let mut raw = Tar::new().file("pax", &records).0;
    let mut block = std::mem::take(raw.get_mut());
    block[156] = b'x';
    seal(&mut block[..512]);
    tar.0.get_mut().extend(block);
    let mut stored = format!("1\n{}\n3\n", size - 3);
    stored.push_str(&"\0".repeat(512 - stored.len()));
    let layer = scene.layer(&tar.file("s", &(stored + "end")).end());
    let meta = fs::metadata(layer.join("s")).unwrap();
    assert_eq!(meta.len(), size);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

#[test]
fn streams_that_are_not_the_layer_leave_nothing() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let tar = Tar::new().dir("d").file("d/f", &"content".repeat(200)).symlink("l", "d").end();
    let diff_id = digest(&tar);
    for length in (0..tar.len()).step_by(97) {
        let result = scene.store.apply(&diff_id, &mut &tar[..length]);
        assert!(result.is_err(), "cut at {length}");
        scene.assert_untouched();
    }
    let mut last = tar.clone();
    let content = last.windows(7).rposition(|window| window == b"content").unwrap();
    last[content] ^= 1;
    let more = [&tar[..], b"x"].concat();
    for other in [last, more] {
        let result = scene.store.apply(&diff_id, &mut &*other);
        assert!(matches!(result, Err(ApplyError::DiffId { .. })), "{result:?}");
        scene.assert_untouched();
    }
    assert!(!scene.store.contains(&diff_id));
    // Trailing bytes belong to the digest, and sha512 is as good.
    let padded = [tar, vec![0; 5000]].concat();
    scene.layer(&padded);
    let sha512 = stanza_spec::Digest::from_hash(&<sha2::Sha512 as sha2::Digest>::digest(&padded));
    scene.store.apply(&sha512, &mut &*padded).unwrap();
    assert!(scene.store.contains(&sha512));
}
