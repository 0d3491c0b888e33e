//! `diff`: what overlayfs itself writes into an upper layer is told as Docker tells it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Scene, Tar, digest};
use stanza_snapshot::{Change, ChangeKind, changes, plan_layers, prepare};
use stanza_spec::Rootfs;

fn lines(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| {
            let letter = match change.kind {
                ChangeKind::Added => 'A',
                ChangeKind::Modified => 'C',
                ChangeKind::Deleted => 'D',
            };
            format!("{letter} {}", change.path.display())
        })
        .collect()
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
fn changes_are_told_as_docker_tells_them() {
    if !common::is_root() {
        return;
    }
    let scene = Scene::new();
    let base = Tar::new()
        .dir("etc")
        .file("etc/a", "1")
        .file("etc/b", "1")
        .dir("etc/d")
        .file("etc/d/x", "1")
        .dir("usr")
        .dir("usr/keep")
        .file("usr/keep/f", "1")
        .dir("gone")
        .file("gone/f", "")
        .dir("again")
        .file("again/old", "")
        .file("again/both", "")
        .dir("again/sub")
        .file("again/sub/s", "")
        .end();
    let middle = Tar::new().file("etc/.wh.b", "").file("etc/c", "1").dir("again").end();
    scene.layer(&base);
    scene.layer(&middle);
    let container = tempfile::tempdir_in("/var/tmp").unwrap();
    let plan = plan_layers(&scene.store, &[digest(&base), digest(&middle)], container.path(), false).unwrap();
    assert_eq!(changes(&plan).unwrap(), []);
    prepare(&plan).unwrap();
    let Rootfs::Layered { root, .. } = &plan else { unreachable!() };
    let lower: Vec<_> = root.lower.iter().map(|layer| common::directory(layer).to_str().unwrap()).collect();
    let target = container.path().join("m");
    fs::create_dir(&target).unwrap();
    let script = r#"
        set -e
        mount -t overlay overlay -o "$1" "$2" || exit 77
        cd "$2"; ls proc sys dev etc/hosts etc/hostname etc/resolv.conf > /dev/null
        if [ "$3" = more ]; then
            echo 2 > etc/a; rm etc/c; rm -r gone; rm -r again; mkdir again; echo 1 > again/both; echo n > again/new; mkdir again/sub
            mkdir -p new/dir; echo x > new/dir/f; chmod 700 usr/keep; echo b > etc/b; ln -s x etc/link
        fi
    "#;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        root.upper.display(),
        root.work.display()
    );
    let run = |what: &str| {
        Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", &options])
            .arg(&target)
            .arg(what)
            .status()
            .unwrap()
            .code()
    };
    match run("less") {
        Some(0) => {}
        Some(77) => {
            eprintln!("skipped: cannot mount an overlay here");
            return;
        }
        other => panic!("the script failed: {other:?}"),
    }
    // Only what stanza makes to mount on.
    assert_eq!(lines(&changes(&plan).unwrap()), [""; 0]);
    fs::remove_dir_all(&root.upper).unwrap();
    prepare(&plan).unwrap();
    assert_eq!(run("more"), Some(0));
    assert_eq!(
        lines(&changes(&plan).unwrap()),
        [
            "C /again",
            "C /again/both",
            "A /again/new",
            "D /again/old",
            "C /again/sub",
            "D /again/sub/s",
            "C /etc",
            "C /etc/a",
            "A /etc/b",
            "D /etc/c",
            "A /etc/link",
            "D /gone",
            "A /new",
            "A /new/dir",
            "A /new/dir/f",
            "C /usr",
            "C /usr/keep",
        ]
    );
    let bundle = Rootfs::Directory(Path::new("/").to_owned());
    assert!(changes(&bundle).is_err());
}
