//! Writing layers: what is written and applied again is what it was; several layers become one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{Scene, Tar, digest};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, mknodat};
use stanza_snapshot::{IdRange, LayerError, LayerSource, OwnerMap, write_layer};
use stanza_spec::Layer;
use stanza_tar::{Archive, Limits};

fn write(trees: &[&Path], below: &[&Path]) -> Result<Vec<u8>, LayerError> {
    let layers = |paths: &[&Path]| paths.iter().map(|path| Layer::Directory(path.to_path_buf())).collect();
    let source = LayerSource {
        own: None,
        trees: layers(trees),
        below: layers(below),
        userxattr: false,
        owners: OwnerMap::default(),
    };
    let mut bytes = Vec::new();
    write_layer(&source, &mut bytes).map(|_| bytes)
}

fn paths(tar: &[u8]) -> Vec<String> {
    let mut archive = Archive::new(tar, Limits::default());
    let mut paths = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        paths.push(String::from_utf8_lossy(&entry.header().path).into_owned());
    }
    paths
}

fn whiteout(path: &Path) {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

fn opaque(path: &Path) {
    lsetxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Fills a directory with everything that an upper layer can hold.
fn grow(directory: &Path, dice: &mut Dice, depth: u32, files: &mut Vec<PathBuf>) {
    for number in 0..dice.roll(7) {
        let long = "n".repeat(usize::try_from(dice.roll(200)).unwrap());
        let name = match dice.roll(12) {
            0 => [format!("{number}").as_bytes(), b"\xff\xfe"].concat(),
            1 => format!("{number}\nline").into_bytes(),
            2 => format!("{number}{long}").into_bytes(),
            _ => format!("entry{number}").into_bytes(),
        };
        let path = directory.join(std::ffi::OsStr::from_bytes(&name));
        match dice.roll(10) {
            0 | 1 if depth < 5 => {
                fs::create_dir(&path).unwrap();
                grow(&path, dice, depth + 1, files);
                if dice.roll(3) == 0 {
                    opaque(&path);
                }
            }
            2 => {
                whiteout(&path);
                continue;
            }
            3 => symlink(format!("../{long}/x"), &path).unwrap(),
            4 => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            5 => {
                let device = rustix::fs::makedev(u32::try_from(dice.roll(300) + 1).unwrap(), 7);
                mknodat(CWD, &path, FileType::BlockDevice, Mode::RUSR, device).unwrap();
            }
            6 if !files.is_empty() => {
                let at = usize::try_from(dice.roll(files.len() as u64)).unwrap();
                fs::hard_link(&files[at], &path).unwrap();
                continue;
            }
            _ => {
                fs::write(&path, vec![b'x'; usize::try_from(dice.roll(300_000)).unwrap()]).unwrap();
                files.push(path.clone());
            }
        }
        let is_link = path.symlink_metadata().unwrap().is_symlink();
        let owner = u32::try_from(dice.roll(3_000_000)).unwrap();
        std::os::unix::fs::lchown(&path, Some(owner), Some(owner / 2)).unwrap();
        if !is_link {
            let mode = u32::try_from(dice.roll(0o10000)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let is_plain = path.is_file() || path.is_dir();
            if is_plain && dice.roll(3) == 0 {
                lsetxattr(&path, "user.some", b"\0\n=1", XattrFlags::empty()).unwrap();
                lsetxattr(&path, "trusted.other", b"", XattrFlags::empty()).unwrap();
                lsetxattr(&path, "trusted.overlay.origin", b"drop me", XattrFlags::empty()).unwrap();
            }
        }
    }
    touch(directory, dice);
}

/// Gives everything in a directory a time of its own, what is in it first.
fn touch(directory: &Path, dice: &mut Dice) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let time = Timespec {
            tv_sec: i64::try_from(dice.roll(4_000_000_000)).unwrap() - 1_000_000_000,
            tv_nsec: i64::try_from(dice.roll(1_000_000_000)).unwrap(),
        };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Everything that counts of a tree, by path.
fn describe(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut links: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(directory) = left.pop() {
        let mut found: Vec<PathBuf> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        for path in found {
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            if common::is_whiteout(&path) {
                all.insert(name, "whiteout".to_owned());
                continue;
            }
            let kind = meta.file_type();
            let content = if kind.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if kind.is_file() {
                digest(&fs::read(&path).unwrap()).to_string()
            } else if kind.is_block_device() || kind.is_char_device() {
                format!("device {}", meta.rdev())
            } else {
                String::new()
            };
            let mut first = None;
            if meta.nlink() > 1 && !kind.is_dir() {
                // The least of its names tells which file it is.
                let known = links.entry(meta.ino()).or_insert_with(|| name.clone());
                first = Some(known.clone());
            }
            let xattrs: Vec<_> = ["user.some", "trusted.other", "trusted.overlay.opaque"]
                .iter()
                .map(|name| common::xattr(&path, name))
                .collect();
            all.insert(
                name,
                format!(
                    "{:o} {}:{} {}.{} {content} {first:?} {xattrs:?}",
                    meta.mode(),
                    meta.uid(),
                    meta.gid(),
                    meta.mtime(),
                    meta.mtime_nsec()
                ),
            );
            if kind.is_dir() {
                left.push(path);
            }
        }
    }
    all
}

#[test]
fn what_is_written_and_applied_is_what_it_was() {
    if !common::is_root() {
        return;
    }
    let mut whiteouts = 0;
    for seed in 1..=25 {
        let scene = Scene::new();
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let (upper, lower) = (work.path().join("upper"), work.path().join("lower"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&lower).unwrap();
        let mut files = Vec::new();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        grow(&upper, &mut dice, 0, &mut files);
        let tar = write(&[&upper], &[&lower]).unwrap();
        assert_eq!(tar, write(&[&upper], &[&lower]).unwrap(), "the same bytes every time");
        let before = describe(&upper);
        whiteouts += before.values().filter(|text| *text == "whiteout").count();
        let applied = scene.layer(&tar);
        assert_eq!(describe(&applied), before, "seed {seed}");
    }
    assert!(whiteouts > 5, "{whiteouts}");
}

#[test]
fn a_root_of_its_own_kind_is_kept() {
    if !common::is_root() {
        return;
    }
    let scene = Scene::new();
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let (upper, lower) = (work.path().join("upper"), work.path().join("lower"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&lower).unwrap();
    assert_eq!(paths(&write(&[&upper], &[&lower]).unwrap()), [""; 0]);
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o700)).unwrap();
    let tar = write(&[&upper], &[&lower]).unwrap();
    assert_eq!(paths(&tar), ["./"]);
    let mode = scene.layer(&tar).metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn what_a_layer_cannot_hold_is_left_out_or_refused() {
    if !common::is_root() {
        return;
    }
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let (upper, lower) = (work.path().join("upper"), work.path().join("lower"));
    fs::create_dir_all(upper.join("etc")).unwrap();
    fs::create_dir(upper.join("dev")).unwrap();
    fs::create_dir(upper.join("proc")).unwrap();
    fs::write(upper.join("etc/hosts"), "").unwrap();
    fs::write(upper.join("etc/hostname"), "mine").unwrap();
    fs::create_dir_all(lower.join("proc")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(upper.join("socket")).unwrap();
    // Of stanza's mount points those stay that a layer has, or that are not empty.
    assert_eq!(paths(&write(&[&upper], &[&lower]).unwrap()), ["etc/", "etc/hostname", "proc/"]);

    fs::write(upper.join("etc/.wh.x"), "").unwrap();
    let error = write(&[&upper], &[&lower]).unwrap_err();
    assert!(matches!(&error, LayerError::Name { path } if path == "/etc/.wh.x"), "{error}");
    fs::remove_file(upper.join("etc/.wh.x")).unwrap();
    lsetxattr(upper.join("etc"), "trusted.overlay.redirect", b"/usr", XattrFlags::empty()).unwrap();
    let error = write(&[&upper], &[&lower]).unwrap_err();
    assert!(matches!(&error, LayerError::Redirected { path } if path == "/etc"), "{error}");
}

#[test]
fn owners_are_told_as_the_container_knows_them() {
    if !common::is_root() {
        return;
    }
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    for (name, owner) in [("root", 100_000), ("user", 101_000), ("stranger", 5)] {
        fs::write(work.path().join(name), "").unwrap();
        std::os::unix::fs::chown(work.path().join(name), Some(owner), Some(owner)).unwrap();
    }
    let ids = vec![IdRange { inside: 0, outside: 100_000, count: 65_536 }];
    // Those of a layer are what it shows already.
    let layer = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(layer.path().join("of-a-layer"), "").unwrap();
    std::os::unix::fs::chown(layer.path().join("of-a-layer"), Some(7), Some(7)).unwrap();
    let source = LayerSource {
        own: Some(work.path().to_path_buf()),
        trees: vec![Layer::Directory(layer.path().to_path_buf())],
        below: Vec::new(),
        userxattr: false,
        owners: OwnerMap { uids: ids.clone(), gids: ids },
    };
    let mut tar = Vec::new();
    write_layer(&source, &mut tar).unwrap();
    let mut archive = Archive::new(&tar[..], Limits::default());
    let mut owners = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        let header = entry.header();
        owners.push((String::from_utf8_lossy(&header.path).into_owned(), header.uid, header.gid));
    }
    let expected = [("./", 65_534), ("of-a-layer", 7), ("root", 0), ("stranger", 65_534), ("user", 1000)];
    assert_eq!(owners, expected.map(|(name, id)| (name.to_owned(), id, id)));
}

/// The layers of the test below, lowest first.
fn layers() -> [Vec<u8>; 3] {
    let bottom = Tar::new()
        .dir("a")
        .file("a/gone", "1")
        .file("a/kept", "1")
        .dir("opaque")
        .file("opaque/old", "1")
        .dir("file-then-dir")
        .file("file-then-dir/deep", "1")
        .dir("removed")
        .file("removed/x", "1")
        .end();
    let middle = Tar::new()
        .file("a/.wh.gone", "")
        .file("a/new", "2")
        .file("file-then-dir", "2")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/mid", "2")
        .file(".wh.removed", "")
        .end();
    let top = Tar::new()
        .file("a/kept", "3")
        .file("a/.wh.new", "")
        .dir("file-then-dir")
        .file("file-then-dir/top", "3")
        .hard_link("opaque/linked", "a/kept")
        .dir("removed")
        .file("removed/y", "3")
        .end();
    [bottom, middle, top]
}

#[test]
fn layers_merge_as_overlayfs_merges_them() {
    if !common::is_root() {
        return;
    }
    let scene = Scene::new();
    let trees: Vec<PathBuf> = layers().iter().map(|tar| scene.layer(tar)).collect();
    let [bottom, middle, top] = &trees[..] else { unreachable!() };
    let whole = write(&[top, middle, bottom], &[]).unwrap();
    let expected = [
        "a/",
        "a/kept",
        "file-then-dir/",
        "file-then-dir/top",
        "opaque/",
        "opaque/linked",
        "opaque/mid",
        "removed/",
        "removed/y",
    ];
    assert_eq!(paths(&whole), expected);
    let squashed = scene.layer(&whole);
    let (kept, linked) = (squashed.join("a/kept"), squashed.join("opaque/linked"));
    assert_eq!(fs::read_to_string(&kept).unwrap(), "3");
    assert_eq!(kept.metadata().unwrap().ino(), linked.metadata().unwrap().ino());

    // Over the lowest layer the upper two say the same as one.
    let upper = write(&[top, middle], &[bottom]).unwrap();
    let expected = [
        "a/",
        "a/.wh.gone",
        "a/kept",
        "a/.wh.new",
        "file-then-dir/",
        "file-then-dir/.wh..wh..opq",
        "file-then-dir/top",
        "opaque/",
        "opaque/.wh..wh..opq",
        "opaque/linked",
        "opaque/mid",
        "removed/",
        "removed/.wh..wh..opq",
        "removed/y",
    ];
    let mut found = paths(&upper);
    found.sort();
    let mut expected = expected.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(found, expected);
    let upper = scene.layer(&upper);
    let again = write(&[&upper, bottom], &[]).unwrap();
    assert_eq!(paths(&again), paths(&whole));
}
