//! Images to registries, and what registries tell.

use std::fs;

use serde_json::{Value, json};
use stanza_test::{
    Answer, FakeRegistry, Layout, Output, Registry, Relay, Stanza, Tarball, fixture, have, hex_sha256, skip,
    tool,
};

/// Starts a registry, or ends the test.
macro_rules! registry {
    () => {
        match Registry::start() {
            Ok(registry) => registry,
            Err(reason) => skip!("{reason}"),
        }
    };
}

fn layout(stanza: &Stanza) -> Layout {
    let upper = Tarball::new().file("etc/release", 0o644, "two\n").finish();
    Layout::new(
        vec![stanza.busybox().to_vec(), upper],
        &json!({ "Cmd": ["cat", "/etc/release"], "Env": ["PATH=/bin"] }),
    )
}

/// Loads an image and gives it a name.
fn load(stanza: &Stanza, layout: &Layout, name: &str) {
    let loaded = stanza.output_with_input(&["load"], &layout.archive("made:1"));
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
    stanza.ok(&["tag", "made:1", name]);
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_sha256(bytes))
}

fn short(bytes: &[u8]) -> String {
    hex_sha256(bytes)[..12].to_owned()
}

fn skopeo(args: &[&str]) -> Output {
    tool(&[&["skopeo", "--insecure-policy"], args].concat())
}

/// What the registry has under a name, byte for byte.
fn raw(name: &str) -> Vec<u8> {
    let seen = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    seen.stdout.into_bytes()
}

#[test]
fn what_is_pushed_is_what_was_there_and_other_tools_pull_it() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let layout = layout(&stanza);
    let name = registry.name("team/room:1");
    load(&stanza, &layout, &name);
    let output = stanza.output(&["push", &name]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let mut lines: Vec<&str> = output.stdout.lines().collect();
    lines[1..3].sort_unstable();
    let mut layers =
        [format!("{}: Pushed", short(&layout.layers[0])), format!("{}: Pushed", short(&layout.layers[1]))];
    layers.sort();
    let manifest = &layout.manifest;
    assert_eq!(
        lines,
        [
            format!("The push refers to repository [{}]", registry.name("team/room")),
            layers[0].clone(),
            layers[1].clone(),
            format!("1: digest: {} size: {}", digest(manifest), manifest.len()),
        ]
    );
    assert_eq!(&raw(&name), manifest);

    let by_digest = registry.name(&format!("team/room@{}", digest(manifest)));
    stanza.ok(&["rmi", &name, "made:1"]);
    stanza.ok(&["pull", &by_digest]);
    assert_eq!(stanza.ok(&["run", "--rm", "--network", "none", &by_digest]), "two");

    if !have("podman") {
        return;
    }
    let directory = stanza.directory().join("podman");
    let (root, runroot) = (directory.join("root"), directory.join("run"));
    let podman = |args: &[&str]| {
        let (root, runroot) = (root.display().to_string(), runroot.display().to_string());
        let own = ["podman", "--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        tool(&[&own[..], args].concat())
    };
    let pulled = podman(&["pull", "--quiet", "--tls-verify=false", &name]);
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    let seen = podman(&["image", "inspect", "--format", "{{.Digest}} {{.Id}}", &name]);
    assert_eq!(seen.stdout.trim(), format!("{} {}", digest(manifest), hex_sha256(&layout.config)));
}

#[test]
fn a_compressed_image_of_another_tool_keeps_its_digest_on_its_way() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let pushed = registry.push(&layout(&stanza), "room:1");
    let (first, second) = (registry.name("room:1"), registry.name("attic:2"));
    stanza.ok(&["pull", &first]);
    stanza.ok(&["tag", &first, &second]);
    let file = stanza.directory().join("digest").display().to_string();
    assert_eq!(stanza.ok(&["push", "-q", "--digestfile", &file, &second]), second);
    assert_eq!(fs::read_to_string(&file).unwrap(), pushed);
    assert_eq!(raw(&second), raw(&first));
}

#[test]
fn a_push_of_nothing_new_asks_once() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let relay = Relay::start(&registry.name(""));
    let layout = layout(&stanza);
    let name = relay.name("room:1");
    load(&stanza, &layout, &name);
    stanza.ok(&["push", &name]);
    let first = relay.requests();
    assert_eq!(first.iter().filter(|asked| asked.starts_with("PUT ")).count(), 4, "{first:?}");
    let output = stanza.ok(&["push", &name]);
    assert_eq!(relay.requests(), ["HEAD /v2/room/manifests/1"]);
    assert_eq!(output.lines().nth(1).unwrap(), format!("{}: Layer already exists", short(&layout.layers[0])));
    // One more tag: the blobs are asked for, and nothing is sent but the name.
    let other = relay.name("room:2");
    stanza.ok(&["tag", &name, &other]);
    stanza.ok(&["push", &other]);
    let mut asked = relay.requests();
    assert_eq!(
        (asked.remove(0), asked.pop().unwrap()),
        ("HEAD /v2/room/manifests/2".into(), "PUT /v2/room/manifests/2".into())
    );
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|asked| asked.starts_with("HEAD /v2/room/blobs/sha256:")), "{asked:?}");
}

#[test]
fn layers_of_another_repository_of_the_registry_are_not_sent() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let relay = Relay::start(&registry.name(""));
    let layout = layout(&stanza);
    let (first, second) = (relay.name("team/base:1"), relay.name("team/room:1"));
    load(&stanza, &layout, &first);
    stanza.ok(&["push", &first]);
    stanza.ok(&["tag", &first, &second]);
    let _ = relay.requests();
    let output = stanza.ok(&["push", &second]);
    for layer in &layout.layers {
        let line = format!("{}: Mounted from team/base", short(layer));
        assert!(output.lines().any(|own| own == line), "{output}");
    }
    let puts: Vec<String> = relay
        .requests()
        .into_iter()
        .filter(|asked| asked.starts_with("PUT") || asked.starts_with("PATCH"))
        .collect();
    assert_eq!(puts, ["PUT /v2/team/room/manifests/1"]);
    assert_eq!(raw(&registry.name("team/room:1")), layout.manifest);
}

#[test]
fn a_connection_that_breaks_does_not_break_the_push() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let relay = Relay::start(&registry.name(""));
    // What does not repeat: a resumed upload with a wrong position would have another digest.
    let content: Vec<u8> =
        (0..2_000_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let big = Tarball::new().file("big", 0o644, &content).finish();
    let layout = Layout::new(vec![big], &json!({ "Cmd": ["/big"] }));
    let name = relay.name("room:1");
    load(&stanza, &layout, &name);
    relay.cut_once_after(3_000_000);
    let output = stanza.output(&["push", &name]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stderr.contains("warning: trying again"), "{}", output.stderr);
    assert_eq!(raw(&registry.name("room:1")), layout.manifest);
    let copy = format!("oci:{}:x", stanza.directory().join("copy").display());
    // It checks every digest.
    let name = format!("docker://{}", registry.name("room:1"));
    let copied = skopeo(&["copy", "--quiet", "--src-tls-verify=false", &name, &copy]);
    assert_eq!(copied.code, 0, "{}", copied.stderr);
}

#[test]
fn all_tags_of_a_repository_are_pushed() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let layout = layout(&stanza);
    for tag in ["1", "2", "latest"] {
        load(&stanza, &layout, &registry.name(&format!("room:{tag}")));
    }
    load(&stanza, &layout, &registry.name("attic:1"));
    let repository = registry.name("room");
    assert!(stanza.fails(1, &["push", "-a", &format!("{repository}:1")]).contains("--all-tags"));
    assert_eq!(stanza.ok(&["push", "-q", "--all-tags", &repository]), repository);
    let shown = stanza.ok(&["image", "tags", &repository]);
    let mut tags: Vec<&str> = shown.lines().collect();
    assert_eq!(stanza.ok(&["image", "tags", "--limit", "1", "--format", "{{.Tag}}", &repository]), tags[0]);
    tags.sort_unstable();
    assert_eq!(tags, ["1", "2", "latest"]);
    let output = stanza.ok(&["push", &repository]);
    assert_eq!(output.lines().next(), Some("Using default tag: latest"));
    assert!(stanza.fails(1, &["image", "tags", &registry.name("attic")]).contains("attic"));
}

#[test]
fn an_index_is_pushed_with_all_its_manifests_or_one_of_them() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let here = layout(&stanza);
    let other =
        Layout::for_architecture(vec![stanza.busybox().to_vec()], &json!({ "Cmd": ["true"] }), "s390x");
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let entry = |layout: &Layout, architecture: &str| {
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&layout.manifest),
            "size": layout.manifest.len(), "platform": { "os": "linux", "architecture": architecture } })
    };
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&here, architecture), entry(&other, "s390x")] });
    let index = serde_json::to_vec(&index).unwrap();
    let source = stanza.directory().join("oci");
    here.write(&source, "x").unwrap();
    other.write(&source, "x").unwrap();
    fs::write(source.join("blobs/sha256").join(hex_sha256(&index)), &index).unwrap();
    let top = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest(&index), "size": index.len(), "annotations": { "org.opencontainers.image.ref.name": "x" } }] });
    fs::write(source.join("index.json"), top.to_string()).unwrap();
    // The store is a layout: what another tool puts there is there.
    stanza.ok(&["images"]);
    let name = registry.name("room:all");
    let images = stanza.root().join("images");
    let copied = skopeo(&[
        "copy",
        "--all",
        "--preserve-digests",
        "--quiet",
        &format!("oci:{}:x", source.display()),
        &format!("oci:{}:{name}", images.display()),
    ]);
    assert_eq!(copied.code, 0, "{}", copied.stderr);
    let pushed = stanza.ok(&["push", &name]);
    assert_eq!(
        pushed.lines().last().unwrap(),
        format!("all: digest: {} size: {}", digest(&index), index.len())
    );
    assert_eq!(raw(&name), index);
    for layout in [&here, &other] {
        assert_eq!(raw(&registry.name(&format!("room@{}", digest(&layout.manifest)))), layout.manifest);
    }
    stanza.ok(&["push", "--platform", "linux/s390x", &name]);
    assert_eq!(raw(&name), other.manifest);
    let error = stanza.fails(1, &["push", "--platform", "linux/riscv64", &name]);
    assert!(error.contains("linux/riscv64"), "{error}");
    assert_eq!(stanza.ok(&["run", "--rm", "--network", "none", &name]), "two");
}

#[test]
fn what_cannot_be_pushed_is_told_and_leaves_nothing() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let layout = layout(&stanza);
    let name = registry.name("room:1");
    load(&stanza, &layout, &name);
    for (wrong, text) in [
        (
            registry.name("attic:1"),
            format!("An image does not exist locally with the tag: {}", registry.name("attic")),
        ),
        (registry.name("room:2"), format!("tag does not exist: {}", registry.name("room:2"))),
        (registry.name(&format!("room@{}", digest(b""))), "cannot push a digest reference".to_owned()),
    ] {
        assert!(stanza.fails(1, &["push", &wrong]).contains(&text), "{wrong}");
    }
    // A layer that the store has lost.
    let blob = stanza.root().join("images/blobs/sha256").join(hex_sha256(&layout.layers[1]));
    let kept = stanza.directory().join("kept");
    fs::rename(&blob, &kept).unwrap();
    let error = stanza.fails(1, &["push", &name]);
    assert!(
        error.contains(&digest(&layout.layers[1])) && error.contains(&format!("stanza pull {name}")),
        "{error}"
    );
    assert!(stanza.fails(1, &["manifest", "inspect", &name]).contains(&format!("no such manifest: {name}")));
    fs::rename(&kept, &blob).unwrap();
    stanza.ok(&["push", &name]);
    // With the layer there, the store need not have it.
    fs::rename(&blob, &kept).unwrap();
    stanza.ok(&["push", &name]);
    drop(registry);
    assert!(stanza.fails(1, &["push", &name]).contains("cannot reach registry `127.0.0.1:"));
}

#[test]
fn a_token_for_pushing_is_asked_for_at_once() {
    let stanza = fixture!(Empty);
    let layout = layout(&stanza);
    let port = std::sync::Arc::new(std::sync::OnceLock::new());
    let known = std::sync::Arc::clone(&port);
    let registry = FakeRegistry::of(&layout, move |request, good| {
        if request.path.starts_with("/token") {
            return Answer::ok("application/json", r#"{"access_token":"secret","expires_in":300}"#);
        }
        if request.headers.get("authorization").is_some_and(|value| value == "Bearer secret") {
            let digest = digest(&good.body);
            return good.header("Docker-Content-Digest", &digest);
        }
        let port = known.get().copied().unwrap_or(0);
        let challenge = format!(
            "Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"test\",scope=\"repository:room:pull\""
        );
        Answer::status(401).header("WWW-Authenticate", &challenge)
    });
    let name = registry.name("room:1");
    let number: u16 = name.split([':', '/']).nth(1).unwrap().parse().unwrap();
    port.set(number).unwrap();
    load(&stanza, &layout, &name);
    stanza.ok(&["push", &name]);
    let asked: Vec<String> = registry.requests().into_iter().map(|request| request.path).collect();
    let token = "/token?service=test&scope=repository:room:pull,push";
    assert_eq!(asked, ["/v2/room/manifests/1", token, "/v2/room/manifests/1"]);
}

#[test]
fn a_manifest_is_shown_as_the_registry_has_it() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let pushed = registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    let shown = stanza.ok(&["manifest", "inspect", &name]);
    let bytes = raw(&name);
    let same = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(same(&shown), same(&String::from_utf8(bytes.clone()).unwrap()));
    assert!(shown.starts_with("{\n\t\"schemaVersion\": 2,\n\t\""), "{shown}");
    let verbose = same(&stanza.ok(&["manifest", "inspect", "-v", &name]));
    assert_eq!(verbose["Ref"], name);
    assert_eq!(
        (&verbose["Descriptor"]["digest"], &verbose["Descriptor"]["size"]),
        (&json!(pushed), &json!(bytes.len()))
    );
    assert_eq!(verbose["Descriptor"]["platform"]["os"], "linux");
    assert_eq!(verbose["OCIManifest"], same(&shown));
    let error = stanza.fails(1, &["manifest", "inspect", &registry.name("room:2")]);
    assert!(error.contains(&format!("no such manifest: {}", registry.name("room:2"))), "{error}");
}

#[test]
fn referrers_are_listed_where_a_registry_keeps_them() {
    let stanza = fixture!(Empty);
    let layout = layout(&stanza);
    let subject = digest(&layout.manifest);
    let list =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(b"a"), "size": 1234,
          "artifactType": "application/spdx+json", "annotations": { "org.example": "yes" } },
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(b"b"), "size": 1,
          "artifactType": "application/x-signature" },
    ] })
        .to_string();
    for (api, path) in [
        (true, format!("/v2/room/referrers/{subject}")),
        (false, format!("/v2/room/manifests/{}", subject.replace(':', "-"))),
    ] {
        let list = list.clone();
        let registry = FakeRegistry::of(&layout, move |request, good| {
            let own = request.path.split('?').next().unwrap_or_default();
            if own == path {
                return Answer::ok("application/vnd.oci.image.index.v1+json", list.clone());
            }
            if own.contains("/referrers/") {
                return Answer::status(if api { 500 } else { 404 });
            }
            let digest = digest(&good.body);
            good.header("Docker-Content-Digest", &digest)
        });
        let name = registry.name("room:1");
        let format = ["image", "referrers", "--format", "{{.Digest}} {{.ArtifactType}} {{.Size}}"];
        assert_eq!(
            stanza.ok(&[&format[..], &[&name]].concat()),
            format!(
                "{} application/spdx+json 1.23kB\n{} application/x-signature 1B",
                digest(b"a"),
                digest(b"b")
            )
        );
        let one =
            ["image", "referrers", "--artifact-type", "application/spdx+json", "--format", "json", &name];
        let one: Value = serde_json::from_str(&stanza.ok(&one)).unwrap();
        assert_eq!(
            (&one["Digest"], &one["Annotations"]["org.example"]),
            (&json!(digest(b"a")), &json!("yes"))
        );
    }
}
