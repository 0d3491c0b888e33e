//! Images in and out of the store.

use std::fs;

use serde_json::{Value, json};
use stanza_test::{Layout, Registry, Stanza, Tarball, fixture, have, hex_sha256, skip, tool};

fn layout(stanza: &Stanza) -> Layout {
    let upper = Tarball::new().file("etc/release", 0o644, "two\n").file("etc/.wh.group", 0o644, "").finish();
    Layout::new(
        vec![stanza.busybox().to_vec(), upper],
        &json!({ "Cmd": ["cat", "/etc/release"], "Env": ["PATH=/bin"] }),
    )
}

fn run(stanza: &Stanza, args: &[&str]) -> String {
    stanza.ok(&[&["run", "--rm", "--network", "none"], args].concat())
}

/// Starts a registry, or ends the test.
macro_rules! registry {
    () => {
        match Registry::start() {
            Ok(registry) => registry,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn an_image_is_pulled_by_tag_and_runs() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let _ = registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    let output = stanza.output(&["pull", &name]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(output.stdout.lines().last(), Some(name.as_str()));
    assert_eq!(run(&stanza, &[&name]), "two");
    assert_eq!(
        run(&stanza, &[&name, "sh", "-c", "ls /etc/group 2>&1 || true"]),
        "ls: /etc/group: No such file or directory"
    );
}

#[test]
fn an_image_is_pulled_by_digest() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let digest = registry.push(&layout(&stanza), "room:1");
    let name = registry.name(&format!("room@{digest}"));
    stanza.ok(&["pull", &name]);
    assert_eq!(run(&stanza, &[&name]), "two");
    let image: Value = serde_json::from_str(&stanza.ok(&["image", "inspect", &name])).unwrap();
    assert_eq!(image[0]["RepoDigests"], json!([name]));
}

#[test]
fn run_pulls_what_is_missing_and_only_that() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let _ = registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    assert!(
        stanza.fails(125, &["run", "--rm", "--network", "none", "--pull", "never", &name]).contains(&name)
    );
    assert_eq!(run(&stanza, &[&name]), "two");
    drop(registry);
    assert_eq!(run(&stanza, &[&name]), "two");
    assert_eq!(run(&stanza, &["--pull", "never", &name]), "two");
    let error = stanza.fails(125, &["run", "--rm", "--network", "none", "--pull", "always", &name]);
    assert!(error.contains("127.0.0.1"), "{error}");
}

#[test]
fn unknown_repositories_and_tags_are_named() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let _ = registry.push(&layout(&stanza), "room:1");
    let before = stanza.leftovers();
    for name in [
        registry.name("room:2"),
        registry.name("attic:1"),
        registry.name(&format!("room@sha256:{}", "0".repeat(64))),
    ] {
        let error = stanza.fails(1, &["pull", &name]);
        assert!(
            error.contains(&name)
                || error.contains(name.split('/').nth(1).unwrap().split([':', '@']).next().unwrap()),
            "{error}"
        );
        assert_eq!(
            stanza
                .fails(125, &["run", "--rm", "--network", "none", &name])
                .lines()
                .filter(|line| line.contains("127.0.0.1"))
                .count(),
            1
        );
    }
    stanza.assert_clean(&before);
    assert_eq!(stanza.ok(&["images", "-q"]), "");
}

#[test]
fn an_archive_of_docker_is_loaded() {
    let stanza = fixture!(Empty);
    if !have("skopeo") {
        skip!("no `skopeo`");
    }
    let oci = stanza.directory().join("oci");
    layout(&stanza).write(&oci, "x").unwrap();
    let archive = stanza.directory().join("docker.tar").display().to_string();
    let made = tool(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        &format!("oci:{}:x", oci.display()),
        &format!("docker-archive:{archive}:room:7"),
    ]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert_eq!(stanza.ok(&["load", "-i", &archive]), "Loaded image: room:7");
    assert_eq!(run(&stanza, &["room:7"]), "two");
}

#[test]
fn an_archive_of_oci_is_loaded_compressed_and_from_standard_input() {
    let stanza = fixture!(Empty);
    let archive = layout(&stanza).archive("room:3");
    let output = stanza.output_with_input(&["load"], &archive);
    assert_eq!((output.code, output.stdout.as_str()), (0, "Loaded image: room:3\n"), "{}", output.stderr);
    assert_eq!(run(&stanza, &["room:3"]), "two");
    stanza.ok(&["rmi", "room:3"]);
    let file = stanza.file("oci.tar", &archive);
    assert_eq!(tool(&["gzip", "-k", &file]).code, 0);
    assert_eq!(stanza.ok(&["load", "-i", &format!("{file}.gz")]), "Loaded image: room:3");
    assert_eq!(run(&stanza, &["room:3"]), "two");
    if !have("zstd") {
        return;
    }
    stanza.ok(&["rmi", "room:3"]);
    assert_eq!(tool(&["zstd", "-q", &file]).code, 0);
    assert_eq!(stanza.ok(&["load", "-i", &format!("{file}.zst")]), "Loaded image: room:3");
    assert_eq!(run(&stanza, &["room:3"]), "two");
}

#[test]
fn an_archive_made_by_skopeo_is_loaded() {
    let stanza = fixture!(Empty);
    if !have("skopeo") {
        skip!("no `skopeo`");
    }
    let oci = stanza.directory().join("oci");
    layout(&stanza).write(&oci, "x").unwrap();
    let archive = stanza.directory().join("oci.tar").display().to_string();
    let made = tool(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        &format!("oci:{}:x", oci.display()),
        &format!("oci-archive:{archive}:room:8"),
    ]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert_eq!(stanza.ok(&["load", "--input", &archive]), "Loaded image: room:8");
    assert_eq!(run(&stanza, &["room:8"]), "two");
}

#[test]
fn a_root_file_system_is_imported_with_changes() {
    let stanza = fixture!(Empty);
    let file = stanza.file("rootfs.tar", stanza.busybox());
    let id = stanza.ok(&["import", "-c", "CMD [\"echo\", \"imported\"]", "-c", "ENV A=1", &file, "room:9"]);
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(run(&stanza, &["room:9"]), "imported");
    assert_eq!(run(&stanza, &[&id]), "imported");
    assert_eq!(run(&stanza, &[&id[7..19]]), "imported");
    assert_eq!(run(&stanza, &["room:9", "sh", "-c", "echo $A"]), "1");
}

#[test]
fn an_image_has_several_names_and_goes_with_the_last() {
    let stanza = fixture!();
    let id = stanza.ok(&["images", "-q", "--no-trunc", "busybox"]);
    stanza.ok(&["tag", "busybox", "room:a"]);
    stanza.ok(&["tag", "busybox:latest", "127.0.0.1:5000/deep/room"]);
    let names = stanza.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["127.0.0.1:5000/deep/room:latest", "busybox:latest", "room:a"]);
    assert_eq!(stanza.ok(&["rmi", "room:a"]), "Untagged: room:a");
    assert_eq!(stanza.ok(&["rmi", "127.0.0.1:5000/deep/room"]), "Untagged: 127.0.0.1:5000/deep/room:latest");
    let removed = stanza.ok(&["rmi", "busybox"]);
    assert!(removed.starts_with("Untagged: busybox:latest"), "{removed}");
    assert!(removed.contains(&format!("Deleted: {id}")), "{removed}");
    assert_eq!(stanza.ok(&["images", "-q"]), "");
    assert_eq!(fs::read_dir(stanza.root().join("images/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn an_image_in_use_is_not_removed() {
    let stanza = fixture!();
    stanza.ok(&["create", "--name", "c1", "--network", "none", "busybox", "true"]);
    let error = stanza.fails(1, &["rmi", "busybox"]);
    assert!(error.contains("busybox"), "{error}");
    assert_eq!(stanza.ok(&["start", "-a", "c1"]), "");
}

#[test]
fn the_store_is_a_layout_that_other_tools_read() {
    let stanza = fixture!();
    if !have("skopeo") {
        skip!("no `skopeo`");
    }
    let store = stanza.root().join("images");
    let index: Value = serde_json::from_slice(&fs::read(store.join("index.json")).unwrap()).unwrap();
    let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
    let seen = tool(&["skopeo", "--insecure-policy", "inspect", &format!("oci:{}:{name}", store.display())]);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(seen["Os"], "linux");
    for entry in fs::read_dir(store.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), hex_sha256(&fs::read(&path).unwrap()));
    }
}

#[test]
fn the_platform_of_an_index_is_chosen() {
    let stanza = fixture!(Empty);
    let here = layout(&stanza);
    let other =
        Layout::for_architecture(vec![stanza.busybox().to_vec()], &json!({ "Cmd": ["true"] }), "s390x");
    let descriptor = |layout: &Layout, architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", hex_sha256(&layout.manifest)), "size": layout.manifest.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor(&other, "s390x"), descriptor(&here, architecture)] });
    let index = serde_json::to_vec(&index).unwrap();
    let manifests: Vec<Vec<u8>> = vec![here.manifest.clone(), other.manifest.clone()];
    let mut blobs = here.blobs();
    blobs.extend(other.blobs());
    let registry = stanza_test::FakeRegistry::start(move |request| {
        let wanted = request.path.rsplit('/').next().unwrap_or_default();
        let hex = wanted.strip_prefix("sha256:").unwrap_or_default();
        if request.path.contains("/blobs/") {
            let found = blobs.iter().find(|(digest, _)| digest == hex);
            return found.map_or(stanza_test::Answer::status(404), |(_, bytes)| {
                stanza_test::Answer::ok("application/octet-stream", bytes.clone())
            });
        }
        if let Some(manifest) = manifests.iter().find(|manifest| hex_sha256(manifest) == hex) {
            return stanza_test::Answer::ok("application/vnd.oci.image.manifest.v1+json", manifest.clone());
        }
        if request.path.contains("/manifests/") {
            return stanza_test::Answer::ok("application/vnd.oci.image.index.v1+json", index.clone());
        }
        stanza_test::Answer::ok("application/json", "{}")
    });
    let name = registry.name("room:1");
    stanza.ok(&["pull", &name]);
    assert_eq!(run(&stanza, &[&name]), "two");
    let error = stanza.fails(1, &["pull", "--platform", "linux/riscv64", &name]);
    assert!(error.contains("linux/riscv64"), "{error}");
    stanza.ok(&["pull", "--platform", "linux/s390x", &name]);
    let image: Value = serde_json::from_str(&stanza.ok(&["image", "inspect", &name])).unwrap();
    assert_eq!(image[0]["Architecture"], "s390x");
}

#[test]
fn a_token_is_fetched_when_the_registry_wants_one() {
    let stanza = fixture!(Empty);
    let port = std::sync::Arc::new(std::sync::OnceLock::new());
    let known = std::sync::Arc::clone(&port);
    let registry = stanza_test::FakeRegistry::of(&layout(&stanza), move |request, good| {
        if request.path.starts_with("/token") {
            return stanza_test::Answer::ok("application/json", r#"{"token":"secret","expires_in":300}"#);
        }
        if request.headers.get("authorization").is_some_and(|value| value == "Bearer secret") {
            return good;
        }
        let realm = format!(
            "Bearer realm=\"http://127.0.0.1:{}/token\",service=\"test\"",
            known.get().copied().unwrap_or(0)
        );
        stanza_test::Answer::status(401).header("WWW-Authenticate", &realm)
    });
    let name = registry.name("room:1");
    let number: u16 = name.split([':', '/']).nth(1).unwrap().parse().unwrap();
    port.set(number).unwrap();
    stanza.ok(&["pull", &name]);
    assert_eq!(run(&stanza, &[&name]), "two");
    let asked = registry.requests().into_iter().find(|request| request.path.starts_with("/token")).unwrap();
    assert!(asked.path.contains("service=test"), "{}", asked.path);
    assert!(
        asked.path.contains("scope=repository%3Aroom%3Apull")
            || asked.path.contains("scope=repository:room:pull"),
        "{}",
        asked.path
    );
}

#[test]
fn two_pulls_of_one_image_at_once_both_succeed() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let _ = registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    let mut both = [stanza.spawn(&["pull", &name]), stanza.spawn(&["pull", &name])];
    for running in &mut both {
        let output = running.finish();
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
    assert_eq!(run(&stanza, &[&name]), "two");
}
