//! `commit` and `image squash`: what a container changed is an image, which other tools read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use stanza_test::{Registry, Stanza, Wish, fixture, have, skip, tool, wait_until};

/// Does everything to a root file system that a layer can tell.
const CHANGES: &str = "set -e; echo new > /etc/new; ln /etc/new /etc/hard; ln -s new /etc/soft; rm /etc/group; \
    rm -r /home/user; mkdir -p /home/user/again; echo 1 > /home/user/again/f; chmod 4711 /etc/new; \
    chown 1000:2000 /etc/soft -h; mkfifo /tmp/pipe; mkdir -m 1750 /opt/sticky; mv /usr/bin /usr/moved; \
    dd if=/dev/zero of=/opt/sparse bs=1 count=1 seek=1000000 2>/dev/null; touch -d '2001-02-03 04:05:06' /opt/old; \
    i=0; while [ $i -lt 300 ]; do echo $i > /opt/file$i; i=$((i+1)); done";

/// A line for every path: kind, mode, owner, size, links, content.
const LIST: &str = "cd /; find bin etc home opt root tmp usr var -exec stat -c '%n %f %u:%g %s %h %Y' {} + | \
    grep -v '^etc/h[o]*s' | grep -v '^etc/resolv' | sort | sed 's/^\\([^ ]* 4[0-9a-f][0-9a-f][0-9a-f] [^ ]*\\) .*/\\1/'; \
    find etc opt home -type f ! -name 'host*' ! -name 'resolv*' -exec md5sum {} + | sort";

fn image(stanza: &Stanza, name: &str) -> Value {
    let text = stanza.ok(&["image", "inspect", name]);
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// The image's configuration, as it is stored.
fn configuration(stanza: &Stanza, name: &str) -> Value {
    let id = image(stanza, name)["Id"].as_str().unwrap().replace("sha256:", "");
    serde_json::from_slice(&fs::read(stanza.root().join("images/blobs/sha256").join(id)).unwrap()).unwrap()
}

fn layers(stanza: &Stanza, name: &str) -> Vec<String> {
    let layers = image(stanza, name)["RootFS"]["Layers"].clone();
    layers.as_array().unwrap().iter().map(|layer| layer.as_str().unwrap().to_owned()).collect()
}

/// A container that has changed a lot and ended.
fn changed(stanza: &Stanza) {
    stanza.ok(&["run", "--network", "none", "--name", "changed", "busybox", "sh", "-c", CHANGES]);
}

/// Two listings have the same lines; tells those that only one has.
fn assert_same(what: &str, seen: &str, expected: &str) {
    let only = |of: &str, other: &str| -> Vec<String> {
        of.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
    };
    assert_eq!(only(seen, expected), only(expected, seen), "{what}: seen, and expected");
}

/// Nothing is on its way in or left over.
fn assert_no_ingest(stanza: &Stanza) {
    for directory in ["images/ingest", "layers/ingest"] {
        let left: Vec<_> =
            fs::read_dir(stanza.root().join(directory)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_container_of_the_new_image_is_as_the_old_one() {
    let stanza = fixture!();
    changed(&stanza);
    stanza.ok(&["start", "changed"]);
    stanza.ok(&["wait", "changed"]);
    stanza.ok(&["run", "-d", "--network", "none", "--name", "twin", "busybox", "sleep", "1000"]);
    stanza.ok(&["exec", "twin", "sh", "-c", CHANGES]);
    let expected = stanza.ok(&["exec", "twin", "sh", "-c", LIST]);
    for (options, name) in [
        (&["--compression", "gzip"][..], "room:gzip"),
        (&["--compression", "zstd"], "room:zstd"),
        (&["--compression", "none"], "room:none"),
        (&["--squash"], "room:squashed"),
        (&["--pause=false"], "room:running"),
    ] {
        let id = stanza.ok(&[&["commit"], options, &["twin", name]].concat());
        assert_eq!(image(&stanza, name)["Id"], id);
        let seen = stanza.ok(&["run", "--rm", "--network", "none", name, "sh", "-c", LIST]);
        assert_same(name, &seen, &expected);
        let parent = layers(&stanza, "busybox");
        let own = layers(&stanza, name);
        match name {
            "room:squashed" => assert_eq!(own.len(), 1),
            _ => assert_eq!((&own[..1], own.len()), (&parent[..], 2)),
        }
    }
    // The same files make the same layer, whatever it is compressed with.
    assert_eq!(layers(&stanza, "room:gzip"), layers(&stanza, "room:zstd"));
    assert_eq!(layers(&stanza, "room:gzip"), layers(&stanza, "room:none"));
    // Nothing has to be unpacked when the image is run: its layer is there.
    let layer = layers(&stanza, "room:gzip")[1].replace("sha256:", "");
    assert!(stanza.root().join("layers/sha256").join(layer).join("fs/etc/new").exists());
    assert_no_ingest(&stanza);
    // And a container of it has no differences.
    stanza.ok(&["create", "--network", "none", "--name", "fresh", "room:gzip"]);
    assert_eq!(stanza.ok(&["diff", "fresh"]), "");
}

#[test]
fn the_configuration_is_the_containers_with_the_changes_over_it() {
    let stanza = fixture!(PrivateNetwork);
    stanza.ok(&[
        "create",
        "--name",
        "room",
        "-e",
        "A=1",
        "-w",
        "/opt",
        "-u",
        "user",
        "-l",
        "who=me",
        "-p",
        "8080:80",
        "-v",
        "/data",
        "--entrypoint",
        "sh",
        "busybox",
        "-c",
        "echo $A",
    ]);
    stanza.ok(&[
        "commit",
        "-a",
        "Ada <ada@example.org>",
        "-m",
        "first words",
        "-c",
        "ENV B=2",
        "-c",
        "LABEL what=room",
        "--change",
        "HEALTHCHECK --interval=5s CMD true",
        "-c",
        "ONBUILD RUN make",
        "-c",
        "EXPOSE 53/udp",
        "room",
        "room:1",
    ]);
    let first = configuration(&stanza, "room:1");
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        first["config"],
        json!({
            "Cmd": ["-c", "echo $A"], "Entrypoint": ["sh"], "Env": [path, "A=1", "B=2"],
            "ExposedPorts": { "53/udp": {}, "80/tcp": {} }, "Labels": { "what": "room", "who": "me" },
            "OnBuild": ["RUN make"], "User": "user", "Volumes": { "/data": {} }, "WorkingDir": "/opt",
            "Healthcheck": { "Interval": 5_000_000_000_u64, "Test": ["CMD-SHELL", "true"] },
        })
    );
    assert_eq!((&first["author"], &first["os"]), (&json!("Ada <ada@example.org>"), &json!("linux")));
    let last = first["history"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["comment"], &last["created_by"]), (&json!("first words"), &json!("sh -c echo $A")));
    assert_eq!(last["created"], first["created"]);
    // It changed nothing: there is no layer, but a line in the history.
    assert_eq!((layers(&stanza, "room:1"), &last["empty_layer"]), (layers(&stanza, "busybox"), &json!(true)));
    assert_eq!(stanza.ok(&["run", "--rm", "--network", "none", "room:1"]), "1");

    // What the OCI does not describe goes on to the next generation, and what the user does not change.
    stanza.ok(&[
        "run",
        "--network",
        "none",
        "--name",
        "second",
        "-e",
        "A=3",
        "room:1",
        "-c",
        "echo 2 > /tmp/f",
    ]);
    stanza.ok(&["commit", "second", "room:2"]);
    let second = configuration(&stanza, "room:2");
    for key in ["OnBuild", "Healthcheck", "Volumes", "Labels", "Entrypoint", "ExposedPorts"] {
        assert_eq!(second["config"][key], first["config"][key], "{key}");
    }
    assert_eq!(second["config"]["Env"], json!([path, "A=3", "B=2"]));
    assert_eq!(second["history"].as_array().unwrap().len(), first["history"].as_array().unwrap().len() + 1);
    // The entry point of the command line alone takes the image's command away.
    stanza.ok(&["create", "--network", "none", "--name", "third", "--entrypoint", "true", "room:2"]);
    stanza.ok(&["commit", "third", "room:3"]);
    assert_eq!(configuration(&stanza, "room:3")["config"]["Cmd"], Value::Null);
}

#[test]
fn images_without_a_name_are_committed_and_names_move() {
    let stanza = fixture!();
    changed(&stanza);
    let first = stanza.ok(&["commit", "changed"]);
    assert_eq!(image(&stanza, &first)["RepoTags"], json!([]));
    let second = stanza.ok(&["commit", "-m", "other", "changed", "busybox"]);
    assert_eq!(image(&stanza, "busybox:latest")["Id"], second);
    assert_ne!(first, second);
    // The container's own image lost its name, and is there still.
    stanza.ok(&["commit", "changed", "third"]);
}

#[test]
fn wrong_wishes_are_refused_by_name_and_leave_nothing() {
    let stanza = fixture!();
    changed(&stanza);
    let before = stanza.leftovers();
    let images = stanza.ok(&["images", "-aq"]);
    for (args, words) in [
        (&["commit", "nobody"][..], "No such container: nobody"),
        (&["commit", "changed", "UPPER"], "UPPER"),
        (&["commit", "changed", &format!("room@sha256:{}", "0".repeat(64))], "digest"),
        (&["commit", "-c", "RUN true", "changed"], "cannot apply the change `RUN true`"),
        (&["commit", "-c", "EXPOSE 0", "changed"], "`0` is not a port"),
        (&["commit", "--compression", "xz", "changed"], "`xz` is not a compression"),
        (&["image", "squash", "nothing"], "nothing"),
        (&["image", "squash", "--from", "0123", "busybox"], "image `busybox` has no layer `0123`"),
    ] {
        let error = stanza.fails(1, args);
        assert!(error.contains(words), "{args:?}: {error}");
    }
    stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "liar",
        "busybox",
        "sh",
        "-c",
        "touch /.wh.x; sleep 1000",
    ]);
    let error = loop {
        let output = stanza.output(&["commit", "liar"]);
        if output.code != 0 {
            break output.stderr;
        }
        stanza.ok(&["rmi", output.stdout.trim()]);
    };
    assert!(error.contains("`/.wh.x` cannot be stored in a layer"), "{error}");
    stanza.ok(&["rm", "-f", "liar"]);
    stanza.assert_clean(&before);
    assert_eq!(stanza.ok(&["images", "-aq"]), images);
    stanza.ok(&["create", "--network", "none", "--name", "machine", "host"]);
    let error = stanza.fails(1, &["commit", "machine"]);
    assert!(error.contains("cannot commit container `machine`"), "{error}");
}

#[test]
fn a_container_stands_still_while_it_is_committed_and_goes_on() {
    let stanza = fixture!();
    // Two files that are the same at every moment in which nothing is half done.
    let script = "i=0; while :; do i=$((i+1)); echo $i > /tmp/a; echo $i > /tmp/b; done";
    stanza.ok(&["run", "-d", "--network", "none", "--name", "counter", "busybox", "sh", "-c", script]);
    stanza.ok(&["exec", "counter", "sh", "-c", "dd if=/dev/urandom of=/opt/big bs=1M count=20 2>/dev/null"]);
    let frozen = |id: &str| {
        let path = format!("/sys/fs/cgroup/freezer/stanza/{id}/freezer.state");
        let v2 = format!("/sys/fs/cgroup/stanza/{id}/cgroup.freeze");
        fs::read_to_string(path).or_else(|_| fs::read_to_string(v2)).unwrap_or_default().trim().to_owned()
    };
    let id = stanza.inspect("counter")["Id"].as_str().unwrap().to_owned();
    for round in 0..5 {
        let name = format!("room:{round}");
        stanza.ok(&["commit", "--compression", "none", "counter", &name]);
        assert!(["THAWED", "0"].contains(&frozen(&id).as_str()), "{}", frozen(&id));
        let seen = stanza.ok(&["run", "--rm", "--network", "none", &name, "cat", "/tmp/a", "/tmp/b"]);
        let numbers: Vec<u64> = seen.lines().map(|line| line.parse().unwrap_or(0)).collect();
        // One of them may be empty: opened, and not written yet.
        if let [a, b] = numbers[..] {
            assert!(a == b || a == b + 1, "{seen}");
        }
        let value = || stanza.ok(&["exec", "counter", "cat", "/tmp/a"]);
        let before = value();
        wait_until("it counts on", || value() != before);
    }
    // Killed at any moment, the committing process takes nobody with it, and leaves nothing.
    for round in 0..12 {
        let commit = stanza.spawn(&["commit", "counter", "room:killed"]);
        std::thread::sleep(Duration::from_millis(20 * round));
        commit.signal(Signal::KILL);
        drop(commit);
        wait_until("it counts on", || ["THAWED", "0"].contains(&frozen(&id).as_str()));
    }
    stanza.ok(&["rm", "-f", "counter"]);
    let _ = stanza.output(&["rmi", "room:killed"]);
    stanza.ok(&["image", "prune", "-f"]);
    stanza.ok(&["run", "--rm", "--network", "none", "room:0", "true"]);
    let output = stanza.output(&["system", "check", "--repair"]);
    assert!(output.code <= 1, "{}", output.stderr);
    let left: Vec<PathBuf> = fs::read_dir(stanza.root().join("images/ingest"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn a_container_that_swaps_files_while_it_is_committed_gives_nothing_of_the_host() {
    let stanza = fixture!();
    let victim = stanza.directory().join("host-only");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("marker-of-the-host"), "host").unwrap();
    let script = format!(
        "mkdir -p /swap/d; echo x > /swap/d/f; ln -s {} /swap/l; mkfifo /swap/p; cd /swap; \
         while :; do mv d e; mv l d; mv d l; mv e d; mv d/f d/g; mv p d/f; mv d/f p; mv d/g d/f; done",
        victim.display()
    );
    stanza.ok(&["run", "-d", "--network", "none", "--name", "swapper", "busybox", "sh", "-c", &script]);
    wait_until("it swaps", || stanza.output(&["exec", "swapper", "test", "-p", "/swap/p"]).code == 0);
    for _ in 0..60 {
        let id = stanza.ok(&["commit", "--pause=false", "--compression", "none", "swapper", "room"]);
        let layer = layers(&stanza, &id)[1].replace("sha256:", "");
        let text = fs::read(stanza.root().join("images/blobs/sha256").join(layer)).unwrap();
        assert!(!text.windows(6).any(|window| window == b"marker"));
    }
}

#[test]
fn several_layers_become_one() {
    let stanza = fixture!();
    let mut name = "busybox".to_owned();
    for (number, script) in [
        "echo 1 > /etc/one; mkdir /opt/d; echo 1 > /opt/d/f",
        "rm /etc/one; echo 2 > /opt/two",
        "rm -r /opt/d; mkdir /opt/d; rm /etc/group",
    ]
    .iter()
    .enumerate()
    {
        let step = format!("step{number}");
        stanza.ok(&["run", "--network", "none", "--name", &step, &name, "sh", "-c", script]);
        name = format!("room:{number}");
        stanza.ok(&["commit", &step, &name]);
    }
    let all = layers(&stanza, &name);
    assert_eq!(all.len(), 4);
    let expected = stanza.ok(&["run", "--rm", "--network", "none", &name, "sh", "-c", LIST]);
    stanza.ok(&["image", "squash", "-t", "flat", &name]);
    let from = all[2].replace("sha256:", "");
    stanza.ok(&["image", "squash", "-m", "two in one", "--from", &from[..12], "-t", "upper", &name]);
    for squashed in ["flat", "upper"] {
        let seen = stanza.ok(&["run", "--rm", "--network", "none", squashed, "sh", "-c", LIST]);
        assert_same(squashed, &seen, &expected);
        let (own, parent) = (configuration(&stanza, squashed), configuration(&stanza, &name));
        assert_eq!(own["config"], parent["config"]);
    }
    assert_eq!((layers(&stanza, "flat").len(), &layers(&stanza, "upper")[..2]), (1, &all[..2]));
    let history = configuration(&stanza, "upper")["history"].clone();
    assert_eq!((history.as_array().unwrap().len(), &history[2]["comment"]), (3, &json!("two in one")));
    assert_eq!(configuration(&stanza, "flat")["history"].as_array().unwrap().len(), 1);
    // Squashed once more it is the same.
    stanza.ok(&["image", "squash", "-t", "again", "flat"]);
    assert_eq!(layers(&stanza, "again"), layers(&stanza, "flat"));
    // The image that it was made of is as it was.
    assert_eq!(layers(&stanza, &name), all);
}

/// Kind, mode, owner and content of every path of a directory.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let kind = meta.file_type();
            let content = if kind.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if kind.is_file() {
                stanza_test::hex_sha256(&fs::read(&path).unwrap())
            } else {
                String::new()
            };
            let links = if kind.is_dir() { 0 } else { meta.nlink() };
            let line =
                format!("{:o} {}:{} {links} {} {content}", meta.mode(), meta.uid(), meta.gid(), meta.mtime());
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), line);
            if kind.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

/// Runs a tool that must succeed.
fn tool_ok(words: &[&str]) -> String {
    let output = tool(words);
    assert_eq!(output.code, 0, "{words:?}: {}", output.stderr);
    output.stdout
}

#[test]
fn other_tools_read_it() {
    let stanza = fixture!();
    for program in ["skopeo", "umoci"] {
        if !have(program) {
            skip!("no `{program}`");
        }
    }
    let registry = match Registry::start() {
        Ok(registry) => registry,
        Err(reason) => skip!("{reason}"),
    };
    changed(&stanza);
    for compression in ["gzip", "zstd", "none"] {
        let name = format!("room:{compression}");
        stanza.ok(&["commit", "--compression", compression, "changed", &name]);
        let store = format!("oci:{}:docker.io/library/{name}", stanza.root().join("images").display());
        let target = registry.name(&name);
        let remote = format!("docker://{target}");
        tool_ok(&[
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &store,
            &remote,
        ]);
        let seen = tool_ok(&["skopeo", "inspect", "--tls-verify=false", &remote]);
        let seen: Value = serde_json::from_str(&seen).unwrap();
        let manifest = image(&stanza, &name)["Descriptor"]["digest"].clone();
        assert_eq!((&seen["Digest"], seen["Layers"].as_array().unwrap().len()), (&manifest, 2));

        // What comes back is what went out.
        let elsewhere = fixture!(Empty);
        elsewhere.ok(&["pull", &target]);
        assert_eq!(image(&elsewhere, &target)["Id"], image(&stanza, &name)["Id"]);
        let list = |stanza: &Stanza, name: &str| {
            stanza.ok(&["run", "--rm", "--network", "none", name, "sh", "-c", LIST])
        };
        assert_eq!(list(&elsewhere, &target), list(&stanza, &name));
        if compression == "zstd" {
            // This umoci knows no zstd.
            continue;
        }
        // umoci unpacks the same files as stanza shows.
        let layout = stanza.directory().join("layout");
        let _ = fs::remove_dir_all(&layout);
        tool_ok(&[
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            &store,
            &format!("oci:{}:x", layout.display()),
        ]);
        let bundle = stanza.directory().join(format!("bundle-{compression}"));
        tool_ok(&[
            "umoci",
            "unpack",
            "--image",
            &format!("{}:x", layout.display()),
            &bundle.display().to_string(),
        ]);
        let out = stanza.directory().join(format!("out-{compression}"));
        fs::create_dir(&out).unwrap();
        stanza.ok(&["create", "--network", "none", "--name", compression, &name]);
        stanza.ok(&["cp", "-a", &format!("{compression}:/."), &out.display().to_string()]);
        // stanza's own mount points, which the image lacks.
        for own in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
            fs::remove_file(out.join(own)).unwrap();
        }
        for own in ["dev", "proc", "sys"] {
            fs::remove_dir(out.join(own)).unwrap();
        }
        let (mut ours, theirs) = (tree(&out), tree(&bundle.join("rootfs")));
        // /etc is stanza's directory where the mount points are, and newer.
        ours.insert("etc".to_owned(), theirs["etc"].clone());
        assert_eq!(ours, theirs);
    }
}

#[test]
fn podman_runs_it() {
    let stanza = fixture!();
    if !have("podman") {
        skip!("no `podman`");
    }
    let registry = match Registry::start() {
        Ok(registry) => registry,
        Err(reason) => skip!("{reason}"),
    };
    changed(&stanza);
    stanza.ok(&["commit", "changed", "room:1"]);
    let home = stanza.directory().join("podman");
    fs::create_dir(&home).unwrap();
    let base = [
        "podman",
        "--root",
        &home.join("root").display().to_string(),
        "--runroot",
        &home.join("run").display().to_string(),
        "--storage-driver",
        "vfs",
    ]
    .map(str::to_owned);
    let podman = |words: &[&str]| {
        let base: Vec<&str> = base.iter().map(String::as_str).collect();
        tool_ok(&[&base, words].concat())
    };
    let store = format!("oci:{}:docker.io/library/room:1", stanza.root().join("images").display());
    let target = registry.name("room:1");
    let remote = format!("docker://{target}");
    tool_ok(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &store,
        &remote,
    ]);
    let id =
        podman(&["pull", "--quiet", "--tls-verify=false", "--signature-policy", &policy(&stanza), &target]);
    assert_eq!(format!("sha256:{}", id.trim()), image(&stanza, "room:1")["Id"].as_str().unwrap());
    let mounted = podman(&["image", "mount", id.trim()]);
    let seen = tree(Path::new(mounted.trim()));
    assert!(seen["etc/new"].starts_with("104711 0:0 2 "), "{}", seen["etc/new"]);
    assert!(!seen.contains_key("etc/group") && seen.contains_key("home/user/again/f"));
    podman(&["image", "umount", id.trim()]);
}

/// A policy that accepts everything.
fn policy(stanza: &Stanza) -> String {
    stanza.file("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
}

#[test]
fn containers_with_user_namespaces_are_committed_with_the_owners_they_see() {
    let stanza = fixture!();
    let script = "echo 1 > /etc/mine; chown 1000:2000 /etc/mine; echo 2 > /etc/roots";
    stanza.ok(&[
        "run",
        "--userns",
        "private",
        "--network",
        "none",
        "--name",
        "apart",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    stanza.ok(&["commit", "apart", "room"]);
    let look = ["busybox", "stat", "-c", "%u:%g", "/etc/mine", "/etc/roots"];
    for options in [
        &["run", "--rm", "--network", "none"][..],
        &["run", "--rm", "--network", "none", "--userns", "private"],
    ] {
        assert_eq!(stanza.ok(&[options, &["room"], &look[1..]].concat()), "1000:2000\n0:0");
    }
}

#[test]
fn without_root_it_is_committed_as_well() {
    let stanza = match Stanza::new(env!("CARGO_BIN_EXE_stanza"), &[Wish::Rootless]) {
        Ok(stanza) => stanza,
        Err(reason) => skip!("{reason}"),
    };
    let script = "rm -r /home; mkdir /home; echo 1 > /home/f; chown 1000 /home/f; rm /etc/group; ln -s x /y";
    stanza.ok(&["run", "--network", "none", "--name", "room", "busybox", "sh", "-c", script]);
    stanza.ok(&["run", "-d", "--network", "none", "--name", "awake", "busybox", "sleep", "1000"]);
    stanza.ok(&["commit", "room", "room"]);
    stanza.ok(&["commit", "awake", "awake"]);
    stanza.ok(&["image", "squash", "-t", "flat", "room"]);
    for name in ["room", "flat"] {
        let seen = stanza.ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            name,
            "sh",
            "-c",
            "ls /home; stat -c %u /home/f; readlink /y; ls /etc/group 2>&1 || :",
        ]);
        assert_eq!(seen, "f\n1000\nx\nls: /etc/group: No such file or directory", "{name}");
    }
}
