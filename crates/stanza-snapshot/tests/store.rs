//! The store under several users at once, after crashes, and against what containers leave.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;

use common::{Scene, Tar, digest, in_namespaces, is_root};
use stanza_snapshot::{LayerStore, PlanError, RemoveError, plan_layers, prepare, remove_tree};
use stanza_spec::{Digest, Layer, Rootfs};

#[test]
fn a_layer_applied_by_many_at_once_is_there_once() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut tar = Tar::new();
    for index in 0..200 {
        tar = tar.file(format!("d/{index}"), "x");
    }
    let tar = tar.end();
    let diff_id = digest(&tar);
    let made: usize = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..6).map(|_| scope.spawn(|| scene.store.apply(&diff_id, &mut &*tar).unwrap())).collect();
        workers.into_iter().map(|worker| usize::from(!worker.join().unwrap().existed)).sum()
    });
    assert_eq!(made, 1);
    scene.assert_untouched();
    assert_eq!(scene.store.list().unwrap(), std::slice::from_ref(&diff_id));

    // What is there is not read again.
    struct Never;
    impl Read for Never {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("read"))
        }
    }
    assert!(scene.store.apply(&diff_id, &mut io::BufReader::new(Never)).unwrap().existed);
    scene.store.remove(&diff_id).unwrap();
    assert!(matches!(scene.store.remove(&diff_id), Err(RemoveError::NotFound(_))));
    assert!(scene.store.list().unwrap().is_empty());
    scene.assert_untouched();
}

#[test]
fn leftovers_of_the_dead_are_cleared_and_those_of_the_living_kept() {
    let scene = Scene::new();
    let ingest = scene.directory.path().join("layers/ingest");
    fs::create_dir_all(ingest.join("dead/x/y")).unwrap();
    fs::write(ingest.join("dead.lock"), "").unwrap();
    fs::create_dir(ingest.join("without-lock")).unwrap();
    fs::create_dir(ingest.join("alive")).unwrap();
    let lock = fs::File::create(ingest.join("alive.lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(scene.store.clear_leftovers().unwrap(), 2);
    let mut left: Vec<_> = fs::read_dir(&ingest).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["alive", "alive.lock"]);
    drop(lock);
    assert_eq!(scene.store.clear_leftovers().unwrap(), 1);
    scene.assert_untouched();
}

#[test]
fn plans_stack_layers_topmost_first_and_each_once() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let apply = |name: &str| {
        let tar = Tar::new().file(name, "").end();
        scene.layer(&tar);
        digest(&tar)
    };
    let (a, b, opaque) = (apply("a"), apply("b"), apply(".wh..wh..opq"));
    let container = scene.outside();
    let lower = |layers: &[Digest]| match plan_layers(&scene.store, layers, &container, false).unwrap() {
        Rootfs::Layered { root, .. } => root.lower,
        _ => unreachable!(),
    };
    let path = |digest: &Digest| Layer::Directory(scene.store.path(digest));
    let base = Layer::Directory(scene.directory.path().join("layers/base"));
    assert_eq!(lower(&[a.clone(), b.clone()]), [path(&b), path(&a), base.clone()]);
    assert_eq!(lower(&[a.clone(), b.clone(), a.clone()]), [path(&a), path(&b), base.clone()]);
    assert_eq!(lower(&[a.clone(), opaque.clone(), b.clone()]), [path(&b), path(&opaque), base.clone()]);
    assert_eq!(lower(&[]), [base]);
    let missing = Digest::from_hash(&[0; 32]);
    let result = plan_layers(&scene.store, &[missing], &container, false);
    assert!(matches!(result, Err(PlanError::Missing { .. })));

    let plan = plan_layers(&scene.store, &[a], &scene.directory.path().join("outside/c"), true).unwrap();
    fs::create_dir(scene.directory.path().join("outside/c")).unwrap();
    prepare(&plan).unwrap();
    prepare(&plan).unwrap();
    let Rootfs::Layered { root, .. } = plan else { unreachable!() };
    assert!(root.userxattr && root.upper.is_dir() && root.work.is_dir());
}

#[test]
fn opening_makes_a_private_store_and_is_repeatable() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a/layers");
    LayerStore::open(&root, true).unwrap();
    LayerStore::open(&root, true).unwrap();
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn trees_of_any_shape_are_removed_and_links_not_followed() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let top = directory.path().join("top");
    let victim = directory.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "safe").unwrap();
    fs::create_dir_all(top.join("closed/in")).unwrap();
    std::os::unix::fs::symlink(&victim, top.join("link")).unwrap();
    fs::set_permissions(top.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    // Deeper than paths and descriptors reach.
    let mut at = rustix::fs::open(&top, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    for level in 0..3000 {
        rustix::fs::mkdirat(&at, "deep", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, "deep", flags, rustix::fs::Mode::empty()).unwrap();
        if level % 100 == 0 {
            rustix::fs::mkdirat(&at, "beside", rustix::fs::Mode::RWXU).unwrap();
        }
    }
    drop(at);
    remove_tree(&top).unwrap();
    assert!(!top.exists());
    assert_eq!(fs::read(victim.join("file")).unwrap(), b"safe");
    remove_tree(&top).unwrap();
    std::os::unix::fs::symlink(&victim, &top).unwrap();
    remove_tree(&top).unwrap();
    assert!(victim.join("file").exists() && fs::symlink_metadata(&top).is_err());
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
fn immutable_files_are_removed() {
    use rustix::fs::{IFlags, ioctl_setflags};
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let top = directory.path().join("top");
    fs::create_dir_all(top.join("d")).unwrap();
    fs::write(top.join("d/f"), "").unwrap();
    for path in ["d/f", "d", ""] {
        let file = fs::File::open(top.join(path)).unwrap();
        if let Err(error) = ioctl_setflags(&file, IFlags::IMMUTABLE) {
            eprintln!("skipped: cannot make files immutable here: {error}");
            return;
        }
    }
    remove_tree(&top).unwrap();
    assert!(!top.exists());
}

#[test]
fn a_mount_in_the_tree_stays() {
    in_namespaces("-m", "a_mount_in_the_tree_stays", with_a_mount_in_the_tree);
}

fn with_a_mount_in_the_tree() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = directory.path();
    fs::create_dir_all(path.join("top/mnt")).unwrap();
    fs::create_dir_all(path.join("data")).unwrap();
    fs::write(path.join("data/file"), "safe").unwrap();
    // A bind mount of the same file system: the device number tells nothing.
    rustix::mount::mount_bind(path.join("data"), path.join("top/mnt")).unwrap();
    assert!(remove_tree(&path.join("top")).is_err());
    assert_eq!(fs::read(path.join("data/file")).unwrap(), b"safe");
    rustix::mount::unmount(path.join("top/mnt"), rustix::mount::UnmountFlags::DETACH).unwrap();
    remove_tree(&path.join("top")).unwrap();
}
