//! Mounts and volumes of containers in virtual machines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use stanza_test::{Output, Stanza, fixture};

fn run(stanza: &Stanza, mounts: &[&str], script: &str) -> Output {
    let mut words = vec!["run", "--rm", "--network", "none", "--isolation", "vm"];
    for mount in mounts {
        words.extend(["-v", mount]);
    }
    words.extend(["busybox", "sh", "-c", script]);
    stanza.output(&words)
}

fn directory(stanza: &Stanza, name: &str) -> PathBuf {
    let path = stanza.directory().join(name);
    fs::create_dir(&path).unwrap();
    path
}

fn at(path: &Path, inside: &str) -> String {
    format!("{}:{inside}", path.display())
}

#[test]
fn files_of_the_host_are_read_and_written_in_a_machine() {
    let stanza = fixture!(Machines);
    let data = directory(&stanza, "data");
    fs::write(data.join("a"), "from the host").unwrap();
    fs::write(data.join("hostname"), "the host's").unwrap();
    symlink(data.join("hostname"), data.join("link")).unwrap();
    let script = "cat /data/a; echo from inside > /data/b; ln /data/b /data/hard; mv /data/b /data/c; \
        chown 12:34 /data/c; cat /data/link 2>/dev/null || echo none";
    let output = run(&stanza, &[&at(&data, "/data")], script);
    assert_eq!((output.code, output.stdout.as_str()), (0, "from the hostnone\n"), "{}", output.stderr);
    let found = fs::metadata(data.join("c")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.nlink()), (12, 34, 2));
    assert_eq!(fs::read_to_string(data.join("hard")).unwrap(), "from inside\n");
}

#[test]
fn a_read_only_mount_stays_as_it_is_and_a_single_file_is_written() {
    let stanza = fixture!(Machines);
    let data = directory(&stanza, "data");
    let file = stanza.file("file", "one\n");
    let read_only = format!("{}:ro", at(&data, "/data"));
    let script =
        "echo two >> /one; touch /data/x || mount -o remount,rw /data; touch /data/x || echo refused";
    let output = run(&stanza, &[&read_only, &at(Path::new(&file), "/one")], script);
    assert_eq!((output.code, output.stdout.as_str()), (0, "refused\n"), "{}", output.stderr);
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
}

#[test]
fn a_new_volume_has_what_the_image_has_there_and_keeps_what_is_written() {
    let stanza = fixture!(Machines);
    let first = run(&stanza, &["kept:/bin"], "echo mine > /bin/mine; ls /bin/busybox");
    assert_eq!((first.code, first.stdout.as_str()), (0, "/bin/busybox\n"), "{}", first.stderr);
    let second = run(&stanza, &["kept:/kept"], "cat /kept/mine");
    assert_eq!((second.code, second.stdout.as_str()), (0, "mine\n"), "{}", second.stderr);
}

#[test]
fn the_kernels_own_files_are_refused_by_name() {
    let stanza = fixture!(Machines);
    let output = run(&stanza, &["/proc/sys:/host"], "true");
    assert_ne!(output.code, 0);
    assert!(
        output.stderr.contains("`/proc/sys` cannot be mounted in a virtual machine"),
        "{}",
        output.stderr
    );
}
