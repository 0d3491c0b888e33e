//! The driver `erofs` against the directory driver: the same archive gives the same tree or the same refusal. Images are
//! mounted by the kernel, attached nowhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/tree.rs"]
mod tree;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::path::{Path, PathBuf};

use common::{Tar, digest, header, is_root};
use stanza_snapshot::{ApplyError, LayerStore, PlanError, StorageDriver, plan_layers};
use stanza_spec::{Digest, ErofsWay, Layer, Rootfs};
use stanza_tar::{EntryKind, Header};
use tree::Tree;

/// Two stores of one kind each.
struct Pair {
    directory: tempfile::TempDir,
    overlay: LayerStore,
    erofs: LayerStore,
}

#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
fn pair_in(parent: &str) -> Option<Pair> {
    if !is_root() {
        return None;
    }
    let directory = tempfile::tempdir_in(parent).unwrap();
    let open = |name: &str, driver| {
        let memory = directory.path().join("memory");
        LayerStore::open(&directory.path().join(name), false).unwrap().with_driver(Some(driver), &memory)
    };
    let (overlay, erofs) = (open("overlay", StorageDriver::Overlay), open("erofs", StorageDriver::Erofs));
    let probe = Tar::new().file("f", "").end();
    erofs.apply(&digest(&probe), &mut &*probe).unwrap();
    if let Err(PlanError::NotMountable { .. }) = plan_layers(&erofs, &[digest(&probe)], Path::new("/"), false)
    {
        eprintln!("skipped: this kernel does not mount erofs from `{parent}`");
        return None;
    }
    erofs.remove(&digest(&probe)).unwrap();
    Some(Pair { directory, overlay, erofs })
}

fn pair() -> Option<Pair> {
    pair_in("/var/tmp")
}

impl Pair {
    fn layer(&self, diff_id: &Digest) -> Layer {
        let plan = plan_layers(&self.erofs, std::slice::from_ref(diff_id), Path::new("/nowhere"), false);
        match plan.unwrap() {
            Rootfs::Layered { root, .. } => root.lower[0].clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Applies an archive with both drivers and compares what comes of it; the tree, when there is one.
    fn compare(&self, tar: &[u8], what: &str) -> Option<Tree> {
        let diff_id = digest(tar);
        let directory = self.overlay.apply(&diff_id, &mut &*tar);
        let image = self.erofs.apply(&diff_id, &mut &*tar);
        let (directory, image) = match (directory, image) {
            (Ok(directory), Ok(image)) => (directory, image),
            (Err(directory), Err(image)) => {
                assert_eq!(chain(&directory), chain(&image), "{what}");
                assert!(!self.erofs.contains(&diff_id));
                assert_eq!(fs::read_dir(self.directory.path().join("erofs/ingest")).unwrap().count(), 0);
                return None;
            }
            (directory, image) => panic!("{what}: {directory:?} as directory, {image:?} as image"),
        };
        assert_eq!(directory, image, "{what}");
        let expected = Tree::of(&self.overlay.path(&diff_id));
        let mount = mount(&self.layer(&diff_id));
        let tree = Tree::of(&path_of(&mount));
        for (path, node) in &expected.0 {
            assert_eq!(tree.0.get(path), Some(node), "{what}: {}", path.display());
        }
        let surplus = tree.0.keys().find(|path| !expected.0.contains_key(*path));
        assert_eq!(surplus, None, "{what}");
        self.erofs.verify(&diff_id).unwrap();
        let links = |store: &LayerStore| fs::read(store.home(&diff_id).join("links")).ok();
        assert_eq!(links(&self.overlay), links(&self.erofs), "{what}");
        Some(tree)
    }
}

fn chain(error: &ApplyError) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn mount(layer: &Layer) -> OwnedFd {
    let Layer::Erofs { index, tar, way } = layer else { panic!("{layer:?} is no image") };
    let (index, tar) = (File::open(index).unwrap(), File::open(tar).unwrap());
    stanza_sys::mount_erofs(index.as_fd(), tar.as_fd(), *way == ErofsWay::Loop).unwrap()
}

fn path_of(mount: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()))
}

fn with(path: &str, kind: EntryKind, change: impl FnOnce(&mut Header)) -> Header {
    let mut header = header(path, kind);
    change(&mut header);
    header
}

/// An access control list with a named user.
fn named_user_list() -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in
        [(1u16, 7u16, u32::MAX), (2, 6, 1000), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 4, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(bits.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

#[test]
fn every_kind_of_entry_is_the_same_in_both() {
    let Some(pair) = pair() else { return };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let xattr = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let acl = named_user_list();
    let tar = Tar::new()
        .entry(
            with(".", EntryKind::Directory, |root| {
                root.mode = 0o711;
                root.uid = 7;
                root.mtime = (5, 6)
            }),
            b"",
        )
        .entry(
            with("d", EntryKind::Directory, |d| {
                d.mode = 0o2775;
                d.gid = 70_000;
                d.mtime = (-5, 999_999_999)
            }),
            b"",
        )
        .file("d/empty", "")
        .file("d/one", "1")
        .file("d/block", &"b".repeat(512))
        .file("d/more", &"m".repeat(513))
        .file("d/large", &"0123456789".repeat(123_456))
        .entry(
            with("setuid", EntryKind::File, |f| {
                f.mode = 0o6755;
                f.uid = 4_000_000_000;
                f.mtime = (1 << 33, 1)
            }),
            b"x",
        )
        .entry(
            with("cap", EntryKind::File, |f| f.xattrs = vec![xattr("security.capability", &capability)]),
            b"x",
        )
        .entry(
            with("cap2", EntryKind::File, |f| {
                f.xattrs = vec![
                    xattr("security.capability", &capability),
                    xattr("user.a", b""),
                    xattr("user.b", &[7; 3000]),
                ]
            }),
            b"x",
        )
        .entry(
            with("own", EntryKind::File, |f| {
                f.xattrs = vec![
                    xattr("trusted.overlay.opaque", b"y"),
                    xattr("user.overlay.redirect", b"/"),
                    xattr("trusted.x", b"1"),
                ]
            }),
            b"x",
        )
        .entry(
            with("acl", EntryKind::File, |f| {
                f.mode = 0o4600;
                f.xattrs = vec![xattr("system.posix_acl_access", &acl)]
            }),
            b"x",
        )
        .entry(
            with("acls", EntryKind::Directory, |d| {
                d.mode = 0o700;
                d.xattrs =
                    vec![xattr("system.posix_acl_access", &acl), xattr("system.posix_acl_default", &acl)]
            }),
            b"",
        )
        .dir("acls/inner")
        .file("acls/file", "")
        .symlink("short", "d")
        .symlink("s512", "t".repeat(512))
        .symlink("s600", "t".repeat(600))
        .symlink("s4000", "t".repeat(4000))
        .hard_link("d/two", "d/one")
        .hard_link("three", "./d/one")
        .hard_link("short2", "short")
        .entry(with("fifo", EntryKind::Fifo, |f| f.mode = 0o602), b"")
        .entry(with("null", EntryKind::CharacterDevice, |f| f.device = (1, 3)), b"")
        .entry(with("disk", EntryKind::BlockDevice, |f| f.device = (259, 70_000)), b"")
        .entry(with("not", EntryKind::CharacterDevice, |f| f.device = (0, 0)), b"")
        .file("implied/deep/er/f", "1")
        .file("implied/.wh..wh..opq", "")
        .file("implied/.wh.gone", "")
        .file(".wh.d", "")
        .file(format!("{}/{}", "n".repeat(255), "m".repeat(255)), "long")
        .file(b"\xff\n\x01", "bytes")
        .file("!before-dot", "")
        .end();
    let tree = pair.compare(&tar, "kinds").unwrap();
    assert_eq!(tree.0.len(), 34);
}

#[test]
fn hostile_archives_are_refused_or_harmless_alike() {
    let Some(pair) = pair() else { return };
    let deep = "a/".repeat(1500) + "x";
    let mut chain = Tar::new().dir("l0");
    for index in 1..=42 {
        chain = chain.symlink(format!("l{index}"), format!("l{}", index - 1));
    }
    let mut chain40 = Tar::new().dir("l0");
    for index in 1..=40 {
        chain40 = chain40.symlink(format!("l{index}"), format!("l{}", index - 1));
    }
    let bad_xattr = |name: &str, value: &[u8]| {
        let xattrs = vec![(name.as_bytes().to_vec(), value.to_vec())];
        Tar::new().entry(Header { xattrs, ..header("f", EntryKind::File) }, b"")
    };
    let on_link = |name: &str| {
        let xattrs = vec![(name.as_bytes().to_vec(), b"1".to_vec())];
        Tar::new().entry(Header { xattrs, link: b"x".to_vec(), ..header("l", EntryKind::Symlink) }, b"")
    };
    let cases: Vec<Tar> = vec![
        Tar::new().file("../x", ""),
        Tar::new().file("a/../../x", ""),
        Tar::new().file("", ""),
        Tar::new().file(".", ""),
        Tar::new().file("/etc/passwd", "in"),
        Tar::new().file("f/", "slash"),
        Tar::new().file("n".repeat(256), ""),
        Tar::new().file("d/".to_owned() + &"n".repeat(256) + "/x", ""),
        Tar::new().file(deep, "deep"),
        Tar::new().symlink("d", "/etc").file("d/passwd", "in"),
        Tar::new().symlink("up", "../../..").file("up/etc/x", "in"),
        Tar::new().symlink("r", "/").dir("a").symlink("a/b", "../..").file("a/b/r/z", "1"),
        Tar::new().symlink("d", "x/../y/./z").file("d/f", "1"),
        Tar::new().file("x", "").symlink("d", "x/../y").file("d/f", "1"),
        Tar::new().symlink("d", "n".repeat(256)).file("d/f", "1"),
        chain.file("l42/x", ""),
        chain40.file("l40/x", ""),
        Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", ""),
        Tar::new().symlink("l", "/").dir("l"),
        Tar::new().dir("d").file("d/x", "1").file("d", "2").file("d/y", "3"),
        Tar::new().dir("d").file("d/x", "1").file("d", "2").dir("d").file("d/z", ""),
        Tar::new()
            .entry(with("d/d", EntryKind::Directory, |d| (d.mode, d.mtime) = (0o2652, (5, 6))), b"")
            .file("d", "2")
            .dir("d")
            .file("d/d/x", ""),
        Tar::new()
            .symlink("l", "a")
            .entry(with("l/d", EntryKind::Directory, |d| (d.mode, d.mtime) = (0o2652, (5, 6))), b"")
            .file("a", "2")
            .dir("a")
            .file("a/d/x", ""),
        Tar::new().hard_link("h", "../../etc/shadow"),
        Tar::new().hard_link("h", "later").file("later", ""),
        Tar::new().file(".wh.gone", "").hard_link("h", "gone"),
        Tar::new().dir("d").hard_link("h", "d"),
        Tar::new().hard_link("h", "."),
        Tar::new().hard_link("h", ""),
        Tar::new().file("a", "1").hard_link("/a", "./a").hard_link("b", "a"),
        Tar::new().file("a", "1").dir("d").file("d/x", "").hard_link("d", "a"),
        Tar::new().file("d/a", "1").hard_link("d", "d/a"),
        Tar::new().file("d/a", "1").file("k/b", "").hard_link("k", "d/a").file("d", "2"),
        Tar::new().file("a", "1").hard_link("b", "a").file("a", "2").file("b", "3"),
        Tar::new().file(".wh...", ""),
        Tar::new().file(".wh.", ""),
        Tar::new().file(".wh.a/b", ""),
        Tar::new().file(".wh..wh.plnk/1", ""),
        Tar::new().symlink("d", "e").file("d/.wh..wh..opq", ""),
        Tar::new().file("d", "").file("d/.wh.x", ""),
        Tar::new().file("x", "1").file(".wh.x", "").file(".wh.y", "").file("y", "2"),
        Tar::new().file(".wh.d", "").file("d/x", ""),
        Tar::new().file(".wh.d", "").dir("d"),
        Tar::new().dir("d").file(".wh.d", ""),
        Tar::new().file(".wh..wh..opq", "").file("x", ""),
        Tar::new().symlink("l", ""),
        Tar::new().symlink("l", "t".repeat(4095)),
        Tar::new().symlink("l", "t".repeat(4096)),
        Tar::new().entry(with("f", EntryKind::File, |f| f.uid = u64::from(u32::MAX)), b""),
        Tar::new().entry(with("f", EntryKind::File, |f| f.mtime = (1 << 40, 5)), b""),
        Tar::new().entry(with("f", EntryKind::File, |f| f.mtime = (-(1 << 40), 5)), b""),
        Tar::new().entry(with("f", EntryKind::BlockDevice, |f| f.device = (5000, 1)), b""),
        Tar::new().entry(with("f", EntryKind::BlockDevice, |f| f.device = (1, 1 << 20)), b""),
        bad_xattr("foo.bar", b"1"),
        bad_xattr("user.", b"1"),
        bad_xattr("system.other", b"1"),
        bad_xattr("security.capability", b"1"),
        bad_xattr("system.posix_acl_access", b"1"),
        bad_xattr("system.posix_acl_access", &[2, 0, 0, 0]),
        bad_xattr("system.posix_acl_default", &[2, 0, 0, 0]),
        bad_xattr("user.overlay.opaque", b"y"),
        bad_xattr(&("user.".to_owned() + &"n".repeat(250)), b"1"),
        bad_xattr(&("user.".to_owned() + &"n".repeat(251)), b"1"),
        on_link("user.a"),
        on_link("trusted.a"),
        on_link("security.a"),
    ];
    for (number, tar) in cases.into_iter().enumerate() {
        pair.compare(&tar.end(), &format!("case {number}"));
    }
}

/// A small generator of numbers (splitmix64), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

#[test]
fn archives_of_random_entries_are_the_same_in_both() {
    let Some(pair) = pair() else { return };
    let mut refused = 0;
    for seed in 0..200 {
        let mut numbers = Numbers(seed);
        let mut tar = Tar::new();
        for _ in 0..=numbers.below(25) {
            let mut path = String::new();
            for _ in 0..=numbers.below(3) {
                path += ["a/", "b/", "c/", "./", "d/"][usize::try_from(numbers.below(5)).unwrap()];
            }
            path += ["a", "b", "c", "d", ".wh.a", ".wh.b", ".wh..wh..opq", "e"]
                [usize::try_from(numbers.below(8)).unwrap()];
            let target = ["a", "b/a", "../c", "/d", "c/../b", "e", "/", "a/b/c"]
                [usize::try_from(numbers.below(8)).unwrap()];
            tar = match numbers.below(8) {
                0 | 1 => {
                    let mode = u32::try_from(numbers.below(0o10_000)).unwrap() & 0o7777;
                    tar.entry(with(&path, EntryKind::Directory, |d| d.mode = mode), b"")
                }
                2 | 3 => tar.file(&path, &"x".repeat(usize::try_from(numbers.below(1500)).unwrap())),
                4 | 5 => tar.symlink(&path, target),
                6 => tar.hard_link(&path, target.trim_start_matches("../")),
                _ => tar.entry(header(&path, EntryKind::Fifo), b""),
            };
        }
        refused += usize::from(pair.compare(&tar.end(), &format!("seed {seed}")).is_none());
    }
    assert!((20..180).contains(&refused), "{refused} of 200 archives were refused");
}

/// An archive with one file in GNU's sparse format 1.0.
fn sparse(segments: &[(u64, &[u8])], size: u64) -> Vec<u8> {
    let records =
        format!("22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n38 GNU.sparse.realsize={size:014}\n");
    let mut block = std::mem::take(Tar::new().file("pax", &records).0.get_mut());
    block[156] = b'x';
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut tar = Tar::new();
    tar.0.get_mut().extend(block);
    let mut stored = format!("{}\n", segments.len()).into_bytes();
    for (offset, bytes) in segments {
        stored.extend(format!("{offset}\n{}\n", bytes.len()).bytes());
    }
    stored.resize(stored.len().next_multiple_of(512), 0);
    segments.iter().for_each(|(_, bytes)| stored.extend_from_slice(bytes));
    tar.entry(header("s", EntryKind::File), &stored).file("after", "1").end()
}

#[test]
fn sparse_files_have_their_holes_and_their_bytes_where_they_belong() {
    let Some(pair) = pair() else { return };
    let page: Vec<u8> = (0..4096u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let many: Vec<(u64, &[u8])> = (0..3000).map(|number| (number * 10_000 + 7, &b"x"[..])).collect();
    for (segments, size) in [
        (vec![(0, &page[..]), (8192, &page[..])], 20_000),
        (vec![(4096, &page[..]), (12_288, &page[..100])], 12_388),
        (vec![(4096, &page[..]), (12_288, &page[..100])], 12_389),
        (vec![(3, &b"abc"[..]), (600, &b"def"[..]), (9000, &page[..])], 14_000),
        (vec![(512, &page[..512]), (1024 + 512, &page[..512])], 4096),
        (vec![], 1 << 30),
        (vec![(0, &page[..]), ((1 << 38) - 4096, &page[..])], 1 << 38),
        (vec![((8 << 30) - 3, &b"end"[..])], 8 << 30),
        (many, 30_000_000),
    ] {
        pair.compare(&sparse(&segments, size), &format!("{} segments in {size}", segments.len())).unwrap();
    }
    // What would take the disk is refused: pieces that each need a chunk of their own, and of a large file a large one.
    let spread: Vec<(u64, &[u8])> = (0..5000).map(|number| (number * (1 << 28) + 7, &b"x"[..])).collect();
    let tar = sparse(&spread, 1 << 43);
    let result = pair.erofs.apply(&digest(&tar), &mut &*tar);
    assert!(matches!(result, Err(ApplyError::TooLarge { .. })), "{result:?}");
}

#[test]
fn an_archive_without_padding_or_with_bytes_after_its_end_is_kept_whole() {
    let Some(pair) = pair() else { return };
    let whole = Tar::new().file("a", "1").file("f", "the last bytes").end();
    let unpadded = &whole[..whole.len() - 1024 - 512 + 14];
    let tree = pair.compare(unpadded, "unpadded").unwrap();
    assert_eq!(tree.0[Path::new("f")].content, b"the last bytes");
    let more = [&whole[..], b"trailing"].concat();
    pair.compare(&more, "trailing").unwrap();
    let Layer::Erofs { tar, .. } = pair.layer(&digest(&more)) else { unreachable!() };
    let mut kept = Vec::new();
    File::open(tar).unwrap().take(more.len() as u64).read_to_end(&mut kept).unwrap();
    assert_eq!(kept, more);
    for bad in [&whole[..700], &whole[..1500]] {
        let result = pair.erofs.apply(&digest(&whole), &mut &*bad);
        assert!(matches!(result, Err(ApplyError::Archive(_) | ApplyError::DiffId { .. })), "{result:?}");
    }
}

/// A directory of so many files with names of all lengths, and files that have an attribute in common.
fn large(files: usize) -> Vec<u8> {
    let mut tar = Tar::new();
    for index in 0..files {
        tar = tar.file(format!("d/{index}{}", "n".repeat(index % 120)), "x");
    }
    for index in 0..300 {
        let header = with(&format!("x/{index}"), EntryKind::File, |f| {
            f.xattrs = vec![(b"security.label".to_vec(), b"the same everywhere".to_vec())];
            f.mtime = (index, 0);
        });
        tar = tar.entry(header, b"");
    }
    tar.end()
}

#[test]
fn large_directories_and_common_attributes_are_the_same_too() {
    let Some(pair) = pair() else { return };
    let tar = large(3000);
    pair.compare(&tar, "large").unwrap();
    let Layer::Erofs { index, .. } = pair.layer(&digest(&tar)) else { unreachable!() };
    let most = 300 * 96 + 3000 * 160 + 16 * 1024;
    assert!(fs::metadata(index).unwrap().len() < most, "attributes are shared and inodes small");
}

#[test]
fn in_a_memory_file_system_images_are_mounted_by_loop_devices() {
    let Some(pair) = pair_in("/dev/shm") else { return };
    let tar = large(20_000);
    pair.compare(&tar, "in memory").unwrap();
    let Layer::Erofs { way, .. } = pair.layer(&digest(&tar)) else { unreachable!() };
    assert_eq!(way, ErofsWay::Loop);
}

#[test]
fn a_hard_link_into_a_lower_layer_is_made_whatever_the_form_of_that_is() {
    let Some(pair) = pair() else { return };
    let base = Tar::new()
        .dir("bin")
        .entry(with("bin/sh", EntryKind::File, |f| f.mode = 0o4711), b"from the base")
        .symlink("link", "bin/sh")
        .end();
    let top = Tar::new()
        .hard_link("bin/bash", "bin/sh")
        .hard_link("bin/dash", "bin/sh")
        .hard_link("other", "link")
        .hard_link("gone", "bin/sh")
        .file("gone", "another came in its place")
        .end();
    let mut trees = Vec::new();
    for store in [&pair.overlay, &pair.erofs] {
        let layers = [digest(&base), digest(&top)];
        store.apply(&layers[0], &mut &*base).unwrap();
        store.apply(&layers[1], &mut &*top).unwrap();
        let all = store.with_links(&layers).unwrap();
        assert_eq!((all.len(), &all[..2]), (3, &layers[..]));
        // A link layer is a directory whatever the others are.
        store.verify(&all[2]).unwrap();
        trees.push(Tree::of(&store.path(&all[2])).0);
    }
    assert_eq!(trees[0], trees[1]);
    let paths: Vec<_> = trees[0].keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["", "bin", "bin/bash", "bin/dash", "other"]);
    assert_eq!(trees[0][Path::new("bin/dash")].same_as, Path::new("bin/bash"));
    assert_eq!(trees[0][Path::new("bin/bash")].content, b"from the base");
}

#[test]
fn a_layer_is_measured_and_gives_way_to_its_other_form_when_it_is_renewed() {
    let Some(pair) = pair() else { return };
    let tar =
        Tar::new().dir("d").file("d/a", &"a".repeat(9000)).hard_link("b", "d/a").symlink("l", "b").end();
    let diff_id = digest(&tar);
    pair.overlay.apply(&diff_id, &mut &*tar).unwrap();
    pair.erofs.apply(&diff_id, &mut &*tar).unwrap();
    let (directory, image) = (pair.overlay.record(&diff_id).unwrap(), pair.erofs.record(&diff_id).unwrap());
    assert_eq!(
        (image.size, image.inodes, image.entries),
        (directory.size, directory.inodes, directory.entries)
    );
    assert_eq!((image.size, image.inodes), (9000, 4));
    let on_disk = |name: &str| fs::metadata(pair.erofs.home(&diff_id).join(name)).unwrap().blocks() * 512;
    assert_eq!(image.allocated, on_disk("layer.tar") + on_disk("index.erofs"));

    let as_directory =
        pair.erofs.clone().with_driver(Some(StorageDriver::Overlay), &pair.directory.path().join("run"));
    assert!(as_directory.apply(&diff_id, &mut &*tar).unwrap().existed);
    as_directory.renew(&diff_id, &mut &*tar).unwrap();
    let renewed = as_directory.record(&diff_id).unwrap();
    assert_eq!((renewed.tree, renewed.erofs), (directory.tree, None));
    as_directory.verify(&diff_id).unwrap();
    pair.erofs.renew(&diff_id, &mut &*tar).unwrap();
    assert_eq!(pair.erofs.record(&diff_id).unwrap().erofs, image.erofs);
    assert!(!pair.erofs.path(&diff_id).exists());
}

#[test]
fn an_image_that_was_touched_is_not_mounted() {
    let Some(pair) = pair() else { return };
    let tar = Tar::new().file("f", "1").end();
    let diff_id = digest(&tar);
    let touch = |name: &str, change: &dyn Fn(&File)| {
        pair.erofs.apply(&diff_id, &mut &*tar).unwrap();
        let path = pair.erofs.home(&diff_id).join(name);
        change(&File::options().read(true).write(true).open(path).unwrap());
        let plan = plan_layers(&pair.erofs, std::slice::from_ref(&diff_id), Path::new("/"), false);
        let verified = pair.erofs.verify(&diff_id).is_ok();
        // Damage that is seen at once is repaired by whoever needs the layer.
        let existed = pair.erofs.apply(&diff_id, &mut &*tar).unwrap().existed;
        assert_eq!((existed, pair.erofs.is_usable(&diff_id)), (plan.is_ok(), true));
        pair.erofs.remove(&diff_id).unwrap();
        (matches!(plan, Err(PlanError::Damaged { .. })), verified)
    };
    assert_eq!(touch("index.erofs", &|_| {}), (false, true));
    assert_eq!(touch("index.erofs", &|file| file.write_all_at(b"\xff", 1100).unwrap()), (true, false));
    assert_eq!(touch("index.erofs", &|file| file.set_len(4096).unwrap()), (true, false));
    assert_eq!(touch("layer.tar", &|file| file.set_len(512).unwrap()), (true, false));
    // What the quick look misses, the thorough one finds.
    assert_eq!(touch("index.erofs", &|file| file.write_all_at(b"\xff", 4200).unwrap()), (false, false));
    assert_eq!(touch("layer.tar", &|file| file.write_all_at(b"2", 512).unwrap()), (false, false));
}
