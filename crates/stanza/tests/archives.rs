//! Archives both ways: what other engines wrote is loaded and runs, what is saved they read, digests unchanged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use stanza_test::{Layout, Stanza, Tarball, fixture, have, hex_sha256, skip, tool, wait_for};

const FORMATS: [&str; 4] = ["docker-archive", "oci-archive", "oci-dir", "docker-dir"];

/// Two layers: busybox, and one that adds, hides and replaces.
fn layout(stanza: &Stanza) -> Layout {
    let upper = Tarball::new().file("etc/release", 0o644, "two\n").file("etc/.wh.group", 0o644, "").finish();
    Layout::new(
        vec![stanza.busybox().to_vec(), upper],
        &json!({ "Cmd": ["cat", "/etc/release"], "Env": ["PATH=/bin"] }),
    )
}

/// The same with layers compressed by gzip, as they come from a registry: in the store under `room:1`.
fn compressed(stanza: &Stanza) -> Option<String> {
    if !have("skopeo") {
        return None;
    }
    let (plain, packed) = (stanza.directory().join("plain"), stanza.directory().join("packed"));
    layout(stanza).write(&plain, "x").unwrap();
    let (plain, packed) = (format!("oci:{}:x", plain.display()), format!("oci:{}:room:1", packed.display()));
    let made = skopeo(&["copy", "--quiet", "--dest-compress", &plain, &packed]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let loaded = stanza.ok(&["load", "-q", "-i", &stanza.directory().join("packed").display().to_string()]);
    assert_eq!(loaded, "Loaded image: room:1");
    Some(manifest(stanza, "room:1"))
}

fn skopeo(args: &[&str]) -> stanza_test::Output {
    tool(&[&["skopeo", "--insecure-policy"], args].concat())
}

fn inspect(stanza: &Stanza, name: &str) -> Value {
    let all: Value = serde_json::from_str(&stanza.ok(&["image", "inspect", name])).unwrap();
    all[0].clone()
}

fn manifest(stanza: &Stanza, name: &str) -> String {
    inspect(stanza, name)["Descriptor"]["digest"].as_str().unwrap().to_owned()
}

fn run(stanza: &Stanza, args: &[&str]) -> String {
    stanza.ok(&[&["run", "--rm", "--network", "none"], args].concat())
}

fn path(stanza: &Stanza, name: &str) -> String {
    stanza.directory().join(name).display().to_string()
}

/// A stanza beside this one, without images.
fn other() -> Stanza {
    Stanza::new(env!("CARGO_BIN_EXE_stanza"), &[stanza_test::Wish::Empty]).unwrap()
}

/// A directory that is gone when dropped. podman makes a name of the path of a layout, so it must have no capitals.
struct Small(std::path::PathBuf);

impl Small {
    fn new() -> Small {
        let path = std::env::temp_dir().join(format!("stanza-archives-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Small(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// podman with storage of its own.
fn podman(stanza: &Stanza, args: &[&str]) -> stanza_test::Output {
    let (root, run) = (path(stanza, "podman"), path(stanza, "podman-run"));
    tool(&[&["podman", "--root", &root, "--runroot", &run, "--cgroup-manager", "cgroupfs"], args].concat())
}

#[test]
fn what_is_saved_is_loaded_with_the_same_digests() {
    let stanza = fixture!(Empty);
    let Some(digest) = compressed(&stanza) else { skip!("no `skopeo`") };
    let id = inspect(&stanza, "room:1")["Id"].clone();
    for format in FORMATS {
        let file = path(&stanza, format);
        stanza.ok(&["save", "--format", format, "-o", &file, "room:1"]);
        let other = other();
        let loaded = other.ok(&["load", "-i", &file]);
        if format == "docker-dir" {
            assert_eq!(loaded, format!("Loaded image ID: {}", id.as_str().unwrap()));
        } else {
            assert_eq!(loaded, "Loaded image: room:1");
            assert_eq!(manifest(&other, "room:1"), digest, "{format}");
        }
        assert_eq!(run(&other, &[id.as_str().unwrap()]), "two", "{format}");
        // The blobs are the same files.
        let blobs = |stanza: &Stanza| {
            let mut names: Vec<_> = fs::read_dir(stanza.root().join("images/blobs/sha256"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        if format != "docker-dir" {
            assert_eq!(blobs(&other), blobs(&stanza));
        }
    }
}

#[test]
fn the_same_images_give_the_same_bytes_wherever_they_go() {
    let stanza = fixture!();
    stanza.ok(&["tag", "busybox", "busybox:two"]);
    for format in ["docker-archive", "oci-archive"] {
        let args = ["save", "--format", format, "busybox"];
        let (one, two) = (path(&stanza, "1.tar"), path(&stanza, "2.tar"));
        stanza.ok(&["save", "--format", format, "-o", &one, "busybox"]);
        let mut command = stanza.command(&args);
        let status = command.stdout(fs::File::create(&two).unwrap()).status().unwrap();
        assert!(status.success());
        let mut command = stanza.command(&args);
        let piped = command.stderr(Stdio::null()).output().unwrap().stdout;
        let bytes = fs::read(&one).unwrap();
        assert!(bytes == fs::read(&two).unwrap() && bytes == piped, "{format}");
        assert_eq!(bytes.len() % 512, 0);
    }
    assert_eq!(
        fs::read_dir(stanza.directory())
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.') })
            .count(),
        0
    );
}

#[test]
fn a_name_without_a_tag_means_all_and_an_id_none() {
    let stanza = fixture!();
    stanza.ok(&["tag", "busybox", "busybox:two"]);
    stanza.ok(&["tag", "busybox", "q.io/deep/room:3"]);
    let id = stanza.ok(&["images", "-q", "--no-trunc", "busybox:two"]);
    for (names, expected) in [
        (&["busybox"][..], "Loaded image: busybox:latest\nLoaded image: busybox:two".to_owned()),
        (&["busybox:two"], "Loaded image: busybox:two".to_owned()),
        (
            &["-m", "q.io/deep/room:3", "busybox:two"],
            "Loaded image: busybox:two\nLoaded image: q.io/deep/room:3".to_owned(),
        ),
        (&[&id[..]], format!("Loaded image ID: {id}")),
        (&[&id[7..19]], format!("Loaded image ID: {id}")),
    ] {
        let file = path(&stanza, "some.tar");
        stanza.ok(&[&["save", "-q", "-o", &file], names].concat());
        assert_eq!(other().ok(&["load", "-q", "--input", &file]), expected, "{names:?}");
        let input = fs::read(&file).unwrap();
        let output = other().output_with_input(&["load"], &input);
        assert_eq!((output.code, output.stdout.trim_end()), (0, &expected[..]), "{}", output.stderr);
    }
}

#[test]
fn skopeo_reads_what_is_saved() {
    let stanza = fixture!(Empty);
    let Some(digest) = compressed(&stanza) else { skip!("no `skopeo`") };
    for (format, transport) in [
        ("docker-archive", "docker-archive"),
        ("oci-archive", "oci-archive"),
        ("oci-dir", "oci"),
        ("docker-dir", "dir"),
    ] {
        let file = path(&stanza, format);
        stanza.ok(&["save", "--format", format, "-o", &file, "room:1"]);
        let name = match transport {
            "dir" => String::new(),
            "docker-archive" => ":room:1".to_owned(),
            _ => ":docker.io/library/room:1".to_owned(),
        };
        let source = format!("{transport}:{file}{name}");
        let seen = skopeo(&["inspect", "--raw", &source]);
        assert_eq!(seen.code, 0, "{}", seen.stderr);
        if transport.starts_with("oci") {
            assert_eq!(format!("sha256:{}", hex_sha256(seen.stdout.as_bytes())), digest);
        }
        let config = skopeo(&["inspect", "--config", "--raw", &source]);
        let id = inspect(&stanza, "room:1")["Id"].clone();
        assert_eq!(format!("sha256:{}", hex_sha256(config.stdout.as_bytes())), id, "{}", config.stderr);
        // Copying checks every layer.
        let copy = path(&stanza, &format!("copy-{format}"));
        let copied = skopeo(&["copy", "--quiet", &source, &format!("dir:{copy}")]);
        assert_eq!(copied.code, 0, "{}", copied.stderr);
    }
}

#[test]
fn what_skopeo_wrote_is_loaded() {
    let stanza = fixture!(Empty);
    let Some(digest) = compressed(&stanza) else { skip!("no `skopeo`") };
    let source = format!("oci:{}:room:1", path(&stanza, "packed"));
    for (transport, name, kept) in [
        ("docker-archive", ":room:2", false),
        ("oci-archive", ":room:2", true),
        ("oci", ":room:2", true),
        ("dir", "", true),
    ] {
        let file = path(&stanza, &format!("skopeo-{transport}"));
        let made = skopeo(&["copy", "--quiet", &source, &format!("{transport}:{file}{name}")]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        let other = other();
        let loaded = other.ok(&["load", "-q", "-i", &file]);
        let image = match loaded.strip_prefix("Loaded image ID: ") {
            Some(id) => id.to_owned(),
            None => loaded.strip_prefix("Loaded image: ").unwrap().to_owned(),
        };
        assert_eq!(image == "room:2", transport != "dir", "{loaded}");
        assert_eq!(run(&other, &[&image]), "two", "{transport}");
        if kept {
            assert_eq!(manifest(&other, &image), digest, "{transport}");
        }
    }
}

#[test]
fn podman_reads_what_is_saved_and_writes_what_is_loaded() {
    let stanza = fixture!(Empty);
    let Some(digest) = compressed(&stanza) else { skip!("no `skopeo`") };
    if !have("podman") {
        skip!("no `podman`");
    }
    let id = inspect(&stanza, "room:1")["Id"].as_str().unwrap().to_owned();
    let small = Small::new();
    let path = |name: &str| small.0.join(name).display().to_string();
    for format in FORMATS {
        let file = path(format);
        stanza.ok(&["save", "--format", format, "-o", &file, "room:1"]);
        let loaded = podman(&stanza, &["load", "-q", "-i", &file]);
        assert_eq!(loaded.code, 0, "{format}: {}", loaded.stderr);
        if format.ends_with("archive") {
            assert_eq!(loaded.stdout.trim(), "Loaded image: docker.io/library/room:1", "{format}");
        }
        let seen = podman(&stanza, &["image", "inspect", "--format", "{{.Id}} {{.Digest}}", &id]);
        let (seen_id, seen_digest) = seen.stdout.trim().split_once(' ').unwrap();
        assert_eq!(format!("sha256:{seen_id}"), id, "{format}");
        if format == "oci-archive" || format == "oci-dir" {
            assert_eq!(seen_digest, digest, "{format}");
        }
        let saved = path(&format!("podman-{format}"));
        let made = podman(&stanza, &["save", "-q", "--format", format, "-o", &saved, &id]);
        assert_eq!(made.code, 0, "{format}: {}", made.stderr);
        let other = other();
        other.ok(&["load", "-i", &saved]);
        assert_eq!(run(&other, &[&id]), "two", "{format}");
        let removed = podman(&stanza, &["rmi", "-a", "-f"]);
        assert_eq!(removed.code, 0, "{}", removed.stderr);
    }
    let file = path("docker-archive");
    assert_eq!(podman(&stanza, &["load", "-q", "-i", &file]).code, 0);
    assert_eq!(podman(&stanza, &["tag", "room:1", "localhost/second:2"]).code, 0);
    let several = path("several.tar");
    let made = podman(&stanza, &["save", "-q", "-m", "-o", &several, "room:1", "localhost/second:2"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let other = other();
    let loaded = other.ok(&["load", "-i", &several]);
    let mut names: Vec<&str> = loaded.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["Loaded image: localhost/second:2", "Loaded image: room:1"]);
    assert_eq!(run(&other, &["localhost/second:2"]), "two");
}

#[test]
fn umoci_reads_what_is_saved_and_writes_what_is_loaded() {
    let stanza = fixture!();
    if !have("umoci") {
        skip!("no `umoci`");
    }
    let (layout, bundle) = (path(&stanza, "layout"), path(&stanza, "bundle"));
    stanza.ok(&["save", "--format", "oci-dir", "-o", &layout, "busybox"]);
    // Its words for images have no room for a full name.
    let index = fs::read_to_string(format!("{layout}/index.json")).unwrap();
    let index = index.replace(
        "\"org.opencontainers.image.ref.name\":\"docker.io/library/busybox:latest\"",
        "\"org.opencontainers.image.ref.name\":\"latest\"",
    );
    fs::write(format!("{layout}/index.json"), index).unwrap();
    let image = format!("{layout}:latest");
    let unpacked = tool(&["umoci", "unpack", "--image", &image, &bundle]);
    assert_eq!(unpacked.code, 0, "{}", unpacked.stderr);
    assert!(Path::new(&bundle).join("rootfs/bin/busybox").is_file());
    fs::write(Path::new(&bundle).join("rootfs/etc/release"), "umoci\n").unwrap();
    fs::remove_file(Path::new(&bundle).join("rootfs/etc/group")).unwrap();
    let packed = tool(&["umoci", "repack", "--image", &format!("{layout}:two"), &bundle]);
    assert_eq!(packed.code, 0, "{}", packed.stderr);
    let other = other();
    let loaded = other.ok(&["load", "-q", "-i", &layout]);
    // The image as it was, and the one that umoci made of it.
    let ids: Vec<&str> = loaded.lines().filter_map(|line| line.strip_prefix("Loaded image ID: ")).collect();
    assert_eq!((ids.len(), ids[0].to_owned()), (2, stanza.ok(&["images", "-q", "--no-trunc"])));
    let id = ids[1];
    assert_eq!(
        run(&other, &[id, "sh", "-c", "cat /etc/release; test -e /etc/group || echo gone"]),
        "umoci\ngone"
    );
}

/// Debian's Docker daemon, with everything of its own; gone when dropped.
struct Docker {
    child: Child,
    socket: String,
}

impl Docker {
    fn start(stanza: &Stanza) -> Result<Docker, String> {
        for program in ["dockerd", "docker"] {
            if !have(program) {
                return Err(format!("no `{program}`"));
            }
        }
        let at = |name: &str| path(stanza, name);
        let socket = format!("unix://{}", at("dockerd.sock"));
        let log = fs::File::create(at("dockerd.log")).unwrap();
        let child = Command::new("unshare")
            .args(["-m", "--propagation", "private", "dockerd", "--bridge", "none", "--iptables=false"])
            .args(["--ip6tables=false", "--data-root", &at("dockerd"), "--exec-root", &at("dockerd-run")])
            .args(["--pidfile", &at("dockerd.pid"), "--host", &socket])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut docker = Docker { child, socket };
        wait_for("dockerd answers or ends", || {
            if docker.ask(&["version"]).code == 0 {
                return Some(true);
            }
            docker.child.try_wait().ok().flatten().map(|_| false)
        })
        .then_some(docker)
        .ok_or_else(|| {
            let log = fs::read_to_string(at("dockerd.log")).unwrap_or_default();
            format!("dockerd does not run here: {}", log.lines().last().unwrap_or_default())
        })
    }

    fn ask(&self, args: &[&str]) -> stanza_test::Output {
        tool(&[&["docker", "--host", &self.socket], args].concat())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = tool(&["kill", &self.child.id().to_string()]);
        let _ = self.child.wait();
    }
}

#[test]
fn docker_reads_what_is_saved_and_writes_what_is_loaded() {
    let stanza = fixture!(Empty);
    if compressed(&stanza).is_none() {
        skip!("no `skopeo`");
    }
    let docker = match Docker::start(&stanza) {
        Ok(docker) => docker,
        Err(reason) => skip!("{reason}"),
    };
    let id = inspect(&stanza, "room:1")["Id"].as_str().unwrap().to_owned();
    let file = path(&stanza, "saved.tar");
    stanza.ok(&["save", "-o", &file, "room:1"]);
    let loaded = docker.ask(&["load", "-q", "-i", &file]);
    assert_eq!((loaded.code, loaded.stdout.trim()), (0, "Loaded image: room:1"), "{}", loaded.stderr);
    assert_eq!(docker.ask(&["image", "inspect", "-f", "{{.Id}}", "room:1"]).stdout.trim(), id);
    let file = path(&stanza, "docker.tar");
    assert_eq!(docker.ask(&["save", "-o", &file, "room:1"]).code, 0);
    let other = other();
    assert_eq!(other.ok(&["load", "-q", "-i", &file]), "Loaded image: room:1");
    assert_eq!(inspect(&other, "room:1")["Id"], id);
    assert_eq!(run(&other, &["room:1"]), "two");
    // The history says the same.
    let columns = ["history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}} {{.Comment}}", "room:1"];
    assert_eq!(stanza.ok(&columns).trim_end(), docker.ask(&columns).stdout.trim_end());
}

#[test]
fn a_load_brings_no_blob_twice_and_unpacks() {
    let stanza = fixture!();
    let layer = inspect(&stanza, "busybox")["RootFS"]["Layers"][0].as_str().unwrap().to_owned();
    let file = path(&stanza, "saved.tar");
    stanza.ok(&["save", "-o", &file, "busybox"]);
    let other = other();
    other.ok(&["load", "-q", "-i", &file]);
    let unpacked = other.root().join("layers/sha256").join(&layer[7..]);
    assert!(unpacked.join("fs/bin/busybox").is_file());
    let blob = other.root().join("images/blobs/sha256").join(&layer[7..]);
    let time = fs::metadata(&blob).unwrap().modified().unwrap();
    for input in [None, Some(fs::read(&file).unwrap())] {
        let output = match &input {
            None => other.output(&["load", "-i", &file]),
            Some(bytes) => other.output_with_input(&["load"], bytes),
        };
        assert_eq!(output.code, 0);
        assert!(output.stderr.contains("Already exists"), "{}", output.stderr);
    }
    assert_eq!(fs::metadata(&blob).unwrap().modified().unwrap(), time);
    assert_eq!(fs::read_dir(other.root().join("images/ingest")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_saved_is_told_and_leaves_nothing() {
    let stanza = fixture!();
    let file = path(&stanza, "out.tar");
    fs::write(&file, "old").unwrap();
    let error = stanza.fails(1, &["save", "-o", &file, "busybox", "absent:1"]);
    assert!(error.contains("no such image: `absent:1`"), "{error}");
    let error = stanza.fails(1, &["save", "-o", &file, "--platform", "linux/s390x", "busybox"]);
    assert!(error.contains("not for `linux/s390x`"), "{error}");
    let error = stanza.fails(1, &["save", "-o", &file, "--format", "zip", "busybox"]);
    assert!(error.contains("`zip` is not a format"), "{error}");
    let error = stanza.fails(1, &["save", "--format", "oci-dir", "busybox"]);
    assert!(error.contains("`--output`"), "{error}");
    let full = path(&stanza, "cids");
    fs::write(format!("{full}/x"), "x").unwrap();
    let error = stanza.fails(1, &["save", "--format", "oci-dir", "-o", &full, "busybox"]);
    assert!(error.contains("is there already, and not empty"), "{error}");
    let layer = inspect(&stanza, "busybox")["RootFS"]["Layers"][0].as_str().unwrap().to_owned();
    fs::remove_file(stanza.root().join("images/blobs/sha256").join(&layer[7..])).unwrap();
    let directory = path(&stanza, "new");
    for args in [&["-o", &file[..]][..], &["--format", "docker-dir", "-o", &directory]] {
        let error = stanza.fails(1, &[&["save"], args, &["busybox"]].concat());
        assert!(
            error.contains(&layer)
                && error.contains("hint: fetch it again with `stanza pull busybox:latest`"),
            "{error}"
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    let left = |name: &str| name.starts_with('.') || name == "new";
    let names = fs::read_dir(stanza.directory()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| left(&name.to_string_lossy())).count(), 0);
    let mut terminal = stanza.terminal(&["save", "busybox"]);
    terminal.expect("cowardly refusing to save to a terminal");
    assert_eq!(terminal.finish(), 1);
}

#[test]
fn an_export_is_what_the_container_sees() {
    let stanza = fixture!();
    let change = "cd /; mkdir -p a/b; echo one > a/one; ln a/one a/two; ln -s ../x a/link; mkfifo a/pipe; rm etc/group; \
                  rm -r var/www; mkdir var/www; echo w > var/www/w; chmod 4755 a/one; chown 1000:1000 a/b; rm -r home; \
                  echo file > home; touch -d @1000000000 a/b";
    let listing = "cd /; find . -xdev ! -path './proc/*' ! -path './sys/*' ! -path './dev/*' | sort";
    stanza.ok(&["run", "--name", "c1", "--network", "none", "busybox", "sh", "-c", change]);
    stanza.ok(&[
        "run",
        "-d",
        "--name",
        "c2",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        &format!("{change}; sleep 1000"),
    ]);
    stanza_test::wait_until("the changes are made", || {
        stanza.output(&["exec", "c2", "test", "-e", "/a/b"]).code == 0
            && stanza.output(&["exec", "c2", "stat", "-c", "%Y", "/a/b"]).stdout == "1000000000\n"
    });
    let seen = stanza.ok(&["exec", "c2", "sh", "-c", listing]);
    for container in ["c1", "c2"] {
        let file = path(&stanza, "export.tar");
        stanza.ok(&["export", "-o", &file, container]);
        let mut command = stanza.command(&["container", "export", container]);
        let piped = command.output().unwrap().stdout;
        assert!(piped == fs::read(&file).unwrap(), "the same bytes through a pipe");
        let unpacked = path(&stanza, &format!("unpacked-{container}"));
        fs::create_dir(&unpacked).unwrap();
        let tar = tool(&["tar", "-C", &unpacked, "-xpf", &file]);
        assert_eq!(tar.code, 0, "{}", tar.stderr);
        let script = format!("cd {unpacked}; find . -xdev | sort");
        let exported = tool(&["sh", "-c", &script]).stdout;
        assert_eq!(exported.trim_end(), seen, "{container}");
        let state = tool(&[
            "sh",
            "-c",
            &format!(
                "cd {unpacked}/a; stat -c '%n %h %a %u %F' *; stat -c %Y b; readlink link; cat two ../home"
            ),
        ]);
        assert_eq!(
            state.stdout,
            "b 2 755 1000 directory\nlink 1 777 0 symbolic link\none 2 4755 0 regular file\npipe 1 644 0 fifo\n\
             two 2 4755 0 regular file\n1000000000\n../x\none\nfile\n"
        );
        stanza.ok(&["import", "-c", "CMD [\"cat\", \"/a/two\"]", "-m", "made of it", &file, "again:1"]);
        assert_eq!(run(&stanza, &["again:1"]), "one");
        assert_eq!(stanza.ok(&["history", "--format", "{{.Comment}}", "again:1"]), "made of it");
    }
    let error = stanza.fails(1, &["export", "absent"]);
    assert!(error.contains("absent"), "{error}");
}

#[test]
fn an_export_has_the_ids_of_the_container() {
    let stanza = fixture!();
    let made = stanza.output(&[
        "run",
        "--name",
        "c1",
        "--network",
        "none",
        "--userns",
        "private",
        "busybox",
        "sh",
        "-c",
        "touch /mine; touch /hers; chown 1000:1000 /hers",
    ]);
    if made.code != 0 && made.stderr.contains("user namespace") {
        skip!("no user namespaces: {}", made.stderr);
    }
    assert_eq!(made.code, 0, "{}", made.stderr);
    let file = path(&stanza, "export.tar");
    stanza.ok(&["export", "-o", &file, "c1"]);
    let listing = tool(&["tar", "--numeric-owner", "-tvf", &file]).stdout;
    let owner = |name: &str| {
        let line = listing.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(
        [owner("mine"), owner("hers"), owner("bin/busybox"), owner("etc/")],
        ["0/0", "1000/1000", "0/0", "0/0"]
    );
}

#[test]
fn an_import_says_what_docker_says() {
    let stanza = fixture!(Empty);
    let output =
        stanza.output_with_input(&["import", "--platform", "linux/arm64", "-", "room:1"], stanza.busybox());
    assert_eq!(output.code, 0, "{}", output.stderr);
    let image = inspect(&stanza, "room:1");
    assert_eq!((&image["Architecture"], &image["Comment"]), (&json!("arm64"), &json!("Imported from -")));
    let error = stanza.fails(1, &["import", "https://example.invalid/x.tar"]);
    assert!(error.contains("import from a URL is not built yet"), "{error}");
}

#[test]
fn the_history_tells_steps_and_sizes() {
    let stanza = fixture!();
    let archive = layout(&stanza).archive("room:1");
    assert_eq!(stanza.output_with_input(&["load"], &archive).code, 0);
    let id = stanza.ok(&["images", "-q", "--no-trunc", "room:1"]);
    assert_eq!(stanza.ok(&["history", "-q", "room:1"]), format!("{}\n<missing>", &id[7..19]));
    assert_eq!(stanza.ok(&["image", "history", "-q", "--no-trunc", "room:1"]), format!("{id}\n<missing>"));
    let columns = ["history", "--human=false", "--format", "{{.CreatedBy}}|{{.Size}}", "room:1"];
    let steps = stanza.ok(&columns);
    assert!(steps.starts_with("test|4\ntest|"), "{steps}");
    let text = stanza.ok(&["history", "--human=false", "busybox"]);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(rows[0], ["IMAGE", "CREATED AT", "CREATED BY", "SIZE", "COMMENT"]);
    let created = inspect(&stanza, "busybox")["Created"].as_str().unwrap()[..19].to_owned() + "Z";
    let id = stanza.ok(&["images", "-q", "busybox"]);
    assert_eq!((rows[1][0], rows[1][1], rows[1][3]), (&id[..], &created[..], "Imported from -"));
    let tree: Value =
        serde_json::from_str(&stanza.ok(&["image", "tree", "--format", "json", "busybox"])).unwrap();
    assert_eq!(rows[1][2], tree["Layers"][0]["UnpackedSize"].to_string());
}

#[test]
fn the_layers_of_an_image_are_told() {
    let stanza = fixture!();
    let archive = layout(&stanza).archive("room:1");
    assert_eq!(stanza.output_with_input(&["load"], &archive).code, 0);
    let tree: Value =
        serde_json::from_str(&stanza.ok(&["image", "tree", "--format", "json", "room:1"])).unwrap();
    let layers = tree["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    let numbers = |layer: &Value| {
        ["Files", "Directories", "Others", "Hidden", "UnpackedSize"].map(|name| layer[name].as_u64().unwrap())
    };
    assert_eq!(numbers(&layers[0]), [1, 1, 0, 1, 4]);
    assert_eq!(layers[0]["SharedWith"], json!([]));
    assert_eq!(layers[0]["Largest"], json!([{ "Path": "/etc/release", "Size": 4 }]));
    assert_eq!(layers[1]["SharedWith"], json!(["busybox:latest"]));
    assert_eq!(layers[1]["Largest"][0]["Path"], "/bin/busybox");
    let text = stanza.ok(&["image", "tree", "room:1"]);
    assert!(text.contains("shared with busybox:latest") && text.contains("/bin/busybox"), "{text}");

    let tree = stanza.ok(&["images", "--tree"]);
    assert!(tree.starts_with("IMAGE") && tree.contains("└─ linux/"), "{tree}");
    let tree = stanza.ok(&["image", "ls", "--tree", "--format", "json", "room"]);
    let tree: Value = serde_json::from_str(&tree).unwrap();
    assert_eq!(tree["Names"], json!(["room:1"]));
    let size = layers.iter().map(|layer| layer["UnpackedSize"].as_u64().unwrap()).sum::<u64>();
    let content = tree["ContentSize"].as_u64().unwrap();
    assert_eq!(tree["DiskUsage"], json!(content + size));
    let error = stanza.fails(1, &["images", "--tree", "-q"]);
    assert!(error.contains("--quiet is not yet supported with --tree"), "{error}");
}

#[test]
fn the_difference_of_two_images_is_told() {
    let stanza = fixture!();
    let load = |name: &str, layers: Vec<Vec<u8>>| {
        let archive = Layout::new(layers, &json!({})).archive(name);
        assert_eq!(stanza.output_with_input(&["load"], &archive).code, 0);
    };
    let base = stanza.busybox().to_vec();
    let one = Tarball::new()
        .directory("d/", 0o755)
        .file("d/same", 0o644, "same")
        .file("d/content", 0o644, "one")
        .file("d/mode", 0o644, "x")
        .file("d/kind", 0o644, "x")
        .directory("gone/", 0o755)
        .file("gone/inner", 0o644, "x")
        .symlink("d/link", "a")
        .finish();
    let two = Tarball::new()
        .directory("d/", 0o755)
        .file("d/same", 0o644, "same")
        .file("d/content", 0o644, "two")
        .file("d/mode", 0o600, "x")
        .directory("d/kind/", 0o755)
        .file("d/kind/inner", 0o644, "x")
        .symlink("d/link", "b")
        .directory("new/", 0o755)
        .file("new/inner", 0o644, "x")
        .file("etc/.wh.group", 0o644, "")
        .finish();
    load("one:1", vec![base.clone(), one.clone()]);
    load("two:2", vec![base.clone(), two]);
    let expected = "C /d\nC /d/content\nC /d/kind\nA /d/kind/inner\nC /d/link\nC /d/mode\nC /etc\nD /etc/group\nD /gone\nA /new\nA /new/inner";
    assert_eq!(stanza.ok(&["image", "diff", "one:1", "two:2"]), expected);
    assert_eq!(stanza.ok(&["image", "diff", "one:1", "one:1"]), "");
    // The same files in another order of layers, and all in one.
    load("one:2", vec![one, base]);
    assert_eq!(stanza.ok(&["image", "diff", "one:1", "one:2"]), "");
    let lines = stanza.ok(&["image", "diff", "--format", "json", "busybox", "one:1"]);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first, json!({ "Kind": "A", "Path": "/d" }));
}

#[test]
fn an_ordinary_user_saves_loads_and_exports() {
    let stanza = fixture!(Rootless);
    let uid = stanza_test::Account::ordinary().unwrap().uid;
    let saved = path(&stanza, "home/saved.tar");
    stanza.ok(&["save", "-o", &saved, "busybox"]);
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(&saved).unwrap()), uid);
    stanza.ok(&["rmi", "busybox"]);
    assert_eq!(stanza.ok(&["load", "-q", "-i", &saved]), "Loaded image: busybox:latest");
    let change = "touch /x; chown 1000:2000 /x; rm /etc/group";
    stanza.ok(&["run", "--name", "c1", "--network", "none", "busybox", "sh", "-c", change]);
    let exported = path(&stanza, "home/export.tar");
    stanza.ok(&["export", "-o", &exported, "c1"]);
    let listing = tool(&["tar", "--numeric-owner", "-tvf", &exported]).stdout;
    let line = |name: &str| listing.lines().find(|line| line.ends_with(&format!(" {name}")));
    assert!(line("x").unwrap().contains(" 1000/2000 ") && line("bin/busybox").unwrap().contains(" 0/0 "));
    assert_eq!(line("etc/group"), None);
    stanza.ok(&["import", &exported, "changed:1"]);
    assert_eq!(stanza.ok(&["image", "diff", "busybox", "changed:1"]).lines().last(), Some("A /x"));
    assert!(stanza.ok(&["images", "--tree"]).contains("changed:1"));
    assert!(stanza.ok(&["history", "busybox"]).contains("Imported from -"));
}

#[test]
fn a_load_that_was_killed_leaves_nothing_for_long() {
    let stanza = fixture!();
    let saved = path(&stanza, "saved.tar");
    stanza.ok(&["save", "-o", &saved, "busybox"]);
    let archive = fs::read(&saved).unwrap();
    let other = other();
    let ingest = || fs::read_dir(other.root().join("images/ingest")).unwrap().count();
    for part in 1..6 {
        let mut running = other.spawn(&["load"]);
        running.send(&archive[..archive.len() * part / 6]);
        stanza_test::wait_until("the load has begun", || ingest() == 1);
        running.signal(rustix::process::Signal::KILL);
        assert_eq!(running.finish().code, 137);
        assert_eq!(other.ok(&["images", "-q"]), "");
        other.ok(&["image", "prune", "-f"]);
        assert_eq!(ingest(), 0);
        assert_eq!(fs::read_dir(other.root().join("images/blobs/sha256")).unwrap().count(), 0);
    }
    other.ok(&["load", "-i", &saved]);
    assert_eq!(run(&other, &["busybox", "echo", "whole"]), "whole");
}

#[test]
fn a_manifest_of_dockers_own_type_is_kept_where_the_form_allows() {
    let stanza = fixture!(Empty);
    if compressed(&stanza).is_none() {
        skip!("no `skopeo`");
    }
    let (source, docker) = (format!("oci:{}:room:1", path(&stanza, "packed")), path(&stanza, "docker"));
    let made = skopeo(&["copy", "--quiet", "--format", "v2s2", &source, &format!("dir:{docker}")]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let text = fs::read(format!("{docker}/manifest.json")).unwrap();
    let digest = format!("sha256:{}", hex_sha256(&text));
    let other = other();
    let loaded = other.ok(&["load", "-q", "-i", &docker]);
    let id = loaded.strip_prefix("Loaded image ID: ").unwrap();
    other.ok(&["tag", id, "room:2"]);
    let descriptor = inspect(&other, "room:2")["Descriptor"].clone();
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    assert_eq!(descriptor, json!({ "mediaType": kind, "digest": digest, "size": text.len() }));

    let again = path(&stanza, "again");
    other.ok(&["save", "--format", "docker-dir", "-o", &again, "room:2"]);
    assert_eq!(fs::read(format!("{again}/manifest.json")).unwrap(), text);
    let archive = path(&stanza, "docker.tar");
    other.ok(&["save", "-o", &archive, "room:2"]);
    let third = self::other();
    assert_eq!(third.ok(&["load", "-q", "-i", &archive]), "Loaded image: room:2");
    assert_eq!(manifest(&third, "room:2"), digest);
    // The OCI's readers look for the OCI's types only.
    let archive = path(&stanza, "oci.tar");
    other.ok(&["save", "--format", "oci-archive", "-o", &archive, "room:2"]);
    let seen = skopeo(&["inspect", "--raw", &format!("oci-archive:{archive}:docker.io/library/room:2")]);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(seen["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(seen["config"]["digest"], id);
    assert_eq!(seen["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(third.ok(&["load", "-q", "-i", &archive]), "Loaded image: room:2");
    assert_eq!(run(&third, &["room:2"]), "two");
}
