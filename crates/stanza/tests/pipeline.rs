//! A pull as a pipeline: it unpacks while it downloads, goes on where it stopped, shares downloads between processes,
//! brings all platforms, and tells machines how far it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use stanza_test::{
    Answer, FakeRegistry, Layout, Manner, Registry, Request, Tarball, fixture, hex_sha256, skip, tool,
    wait_until,
};

const LARGE: usize = 3 << 20;

/// An image with one layer of several megabytes.
fn large() -> Layout {
    let content: Vec<u8> = (0..LARGE).map(|at| u8::try_from(at * at % 251).unwrap_or(0)).collect();
    Layout::new(vec![Tarball::new().file("large", 0o644, content).finish()], &json!({ "Cmd": ["true"] }))
}

fn is_layer(request: &Request, layout: &Layout) -> bool {
    request.path.ends_with(&hex_sha256(&layout.layers[0]))
}

fn names(path: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn layers_are_unpacked_by_the_pull_itself() {
    let stanza = fixture!(Empty);
    let layout = large();
    let registry = FakeRegistry::of(&layout, |_, good| good);
    stanza.ok(&["pull", "-q", &registry.name("large:1")]);
    let layer = hex_sha256(&layout.layers[0]);
    let file = stanza.root().join("layers/sha256").join(&layer).join("fs/large");
    assert_eq!(fs::metadata(file).unwrap().len(), u64::try_from(LARGE).unwrap());
    assert_eq!(names(&stanza.root().join("images/partial")), [""; 0]);
    // Nothing is asked for again but the name.
    let before = registry.requests().len();
    stanza.ok(&["pull", "-q", &registry.name("large:1")]);
    let asked = &registry.requests()[before..];
    assert!(asked.iter().all(|request| request.path.contains("/manifests/")), "{asked:?}");
}

#[test]
fn a_killed_pull_goes_on_where_it_stopped() {
    let stanza = fixture!(Empty);
    let layout = large();
    let (stalls, copy) = (Arc::new(AtomicBool::new(true)), layout.clone());
    let stalling = Arc::clone(&stalls);
    let registry = FakeRegistry::of(&layout, move |request, good| {
        if !is_layer(request, &copy) {
            return good;
        }
        let answer = good.ranged(request);
        if stalling.load(Ordering::SeqCst) { answer.manner(Manner::Stall(1 << 20)) } else { answer }
    });
    let name = registry.name("large:1");
    let door = stanza.spawn(&["pull", "-q", &name]);
    let partials = stanza.root().join("images/partial");
    let kept = || fs::read_dir(&partials).ok()?.next()?.ok()?.metadata().ok().map(|found| found.len());
    wait_until("a megabyte is here", || kept() == Some(1 << 20));
    stanza.kill_9(door.pid());
    drop(door);
    assert_eq!(kept(), Some(1 << 20));
    stalls.store(false, Ordering::SeqCst);
    stanza.ok(&["pull", "-q", &name]);
    let ranges: Vec<Option<String>> = registry
        .requests()
        .iter()
        .filter(|request| is_layer(request, &layout))
        .map(|request| request.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, [None, Some(format!("bytes={}-", 1 << 20))]);
    assert_eq!(names(&partials), [""; 0]);
    assert_eq!(names(&stanza.root().join("layers/ingest")), [""; 0]);
    stanza.ok(&["image", "verify"]);
}

#[test]
fn one_process_downloads_what_several_ask_for() {
    let stanza = fixture!(Empty);
    let layout = large();
    let (waits, copy) = (Arc::new(AtomicBool::new(true)), layout.clone());
    let waiting = Arc::clone(&waits);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let registry = FakeRegistry::of(&layout, move |request, good| {
        if is_layer(request, &copy) {
            count.fetch_add(1, Ordering::SeqCst);
            wait_until("both have asked", || !waiting.load(Ordering::SeqCst));
        }
        good
    });
    let name = registry.name("large:1");
    let mut first = stanza.spawn(&["pull", &name]);
    wait_until("the layer is asked for", || asked.load(Ordering::SeqCst) == 1);
    let mut second = stanza.spawn(&["pull", &name]);
    second.expect("Waiting for another process");
    waits.store(false, Ordering::SeqCst);
    for door in [&mut first, &mut second] {
        let output = door.finish();
        assert_eq!(output.code, 0, "{}", output.stderr);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn damage_in_what_was_kept_is_found_and_the_layer_fetched_anew() {
    let stanza = fixture!(Empty);
    let layout = large();
    let copy = layout.clone();
    let registry =
        FakeRegistry::of(
            &layout,
            move |request, good| {
                if is_layer(request, &copy) { good.ranged(request) } else { good }
            },
        );
    // Opens the store.
    stanza.ok(&["images", "-q"]);
    let partial =
        stanza.root().join("images/partial").join(format!("sha256-{}", hex_sha256(&layout.layers[0])));
    let mut wrong = layout.layers[0][..1_000_000].to_vec();
    wrong[700_000] ^= 1;
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, wrong).unwrap();
    stanza.ok(&["pull", "-q", &registry.name("large:1")]);
    stanza.ok(&["image", "verify"]);
    let ranges: Vec<bool> = registry
        .requests()
        .iter()
        .filter(|request| is_layer(request, &layout))
        .map(|request| request.headers.contains_key("range"))
        .collect();
    assert_eq!(ranges, [true, false]);
}

/// Documents of a registry by digest: media type and bytes.
type Documents = BTreeMap<String, (String, Vec<u8>)>;

/// An index of two platforms and an attestation, and everything in it by digest.
fn index(stanza: &stanza_test::Stanza) -> (Vec<u8>, Documents) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let config = json!({ "Cmd": ["sh"] });
    let own = Layout::new(vec![stanza.busybox().to_vec()], &config);
    let other = Tarball::new().file("other", 0o644, "s390x").finish();
    let other = Layout::for_architecture(vec![other], &config, "s390x");
    let statement = br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#.to_vec();
    let empty = b"{}".to_vec();
    let describe = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": format!("sha256:{}", hex_sha256(bytes)), "size": bytes.len() });
    let attestation = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": describe("application/vnd.oci.image.config.v1+json", &empty),
        "layers": [describe("application/vnd.in-toto+json", &statement)],
    }))
    .unwrap();
    let mut entries = Vec::new();
    for (manifest, os, architecture) in [
        (&own.manifest, "linux", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
        (&other.manifest, "linux", "s390x"),
        (&attestation, "unknown", "unknown"),
    ] {
        let mut entry = describe(MANIFEST, manifest);
        entry["platform"] = json!({ "os": os, "architecture": architecture });
        entries.push(entry);
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index =
        serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries })).unwrap();
    let mut all = BTreeMap::new();
    for bytes in [statement, empty].into_iter().chain(own.layers.clone()).chain(other.layers.clone()) {
        all.insert(hex_sha256(&bytes), ("application/octet-stream".to_owned(), bytes));
    }
    for layout in [&own, &other] {
        all.insert(
            hex_sha256(&layout.config),
            ("application/octet-stream".to_owned(), layout.config.clone()),
        );
        all.insert(hex_sha256(&layout.manifest), (MANIFEST.to_owned(), layout.manifest.clone()));
    }
    all.insert(hex_sha256(&attestation), (MANIFEST.to_owned(), attestation));
    all.insert(hex_sha256(&index), (kind.to_owned(), index.clone()));
    (index, all)
}

#[test]
fn all_platforms_come_and_go_as_they_were() {
    let stanza = fixture!(Empty);
    let (index, all) = index(&stanza);
    let digest = format!("sha256:{}", hex_sha256(&index));
    let top = hex_sha256(&index);
    let registry = FakeRegistry::start(move |request| {
        let hex = request.path.rsplit_once("sha256:").map_or(top.as_str(), |(_, hex)| hex);
        match all.get(hex) {
            Some((kind, bytes)) => Answer::ok(kind, bytes.clone()),
            None => Answer::status(404),
        }
    });
    let name = registry.name("many:1");
    stanza.fails(1, &["pull", "--all-platforms", "--platform", "linux/s390x", &name]);
    stanza.ok(&["pull", "-q", "--all-platforms", &name]);
    let run = stanza.ok(&["run", "--rm", "--network", "none", &name, "echo", "own"]);
    assert_eq!(run, "own");
    // Only this machine's layers are unpacked.
    assert_eq!(names(&stanza.root().join("layers/sha256")).len(), 1);
    stanza.ok(&["image", "verify"]);

    let target = match Registry::start() {
        Ok(target) => target,
        Err(reason) => skip!("{reason}"),
    };
    let there = target.name("many:1");
    stanza.ok(&["tag", &name, &there]);
    stanza.ok(&["push", "-q", &there]);
    let raw = tool(&["skopeo", "inspect", "--tls-verify=false", "--raw", &format!("docker://{there}")]);
    assert_eq!(format!("sha256:{}", hex_sha256(raw.stdout.as_bytes())), digest, "{}", raw.stderr);
    let other = tool(&[
        "skopeo",
        "--override-arch",
        "s390x",
        "inspect",
        "--tls-verify=false",
        &format!("docker://{there}"),
    ]);
    let other: Value = serde_json::from_str(&other.stdout).unwrap();
    assert_eq!(other["Architecture"], "s390x");
}

#[test]
fn progress_for_machines_is_an_object_a_line() {
    let stanza = fixture!(Empty);
    let layout = large();
    let registry = FakeRegistry::of(&layout, |_, good| good);
    let text = stanza.ok(&["pull", "--progress", "json", &registry.name("large:1")]);
    let (objects, name) = text.rsplit_once('\n').unwrap();
    assert_eq!(name, registry.name("large:1"));
    let objects: Vec<Value> = objects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let id = &hex_sha256(&layout.layers[0])[..12];
    for status in ["Pulling fs layer", "Downloading", "Pull complete"] {
        assert!(
            objects.iter().any(|object| object["status"] == status && object["id"] == id),
            "{status}: {text}"
        );
    }
    let moving = objects.iter().find(|object| object["status"] == "Downloading").unwrap();
    assert_eq!(moving["progressDetail"]["total"], layout.layers[0].len());
    let error = stanza.fails(1, &["pull", "--progress", "fancy", &registry.name("large:1")]);
    assert!(error.contains("`fancy` is no form of progress"), "{error}");
    assert_eq!(
        stanza.ok(&["pull", "--progress", "quiet", &registry.name("large:1")]),
        registry.name("large:1")
    );
}
