//! A registry that misbehaves: each line of the attack list about registries, with the real executable.
//!
//! Whatever comes, `pull` ends in bounded time with Docker's exit code and an error that names the thing, sends credentials to
//! nobody else, and leaves a store in which every blob has its own digest, no image has appeared and nothing half-made lies about.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says at which case"
)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stanza_test::{Answer, FakeRegistry, Layout, Output, Request, Running, Stanza, Tarball, hex_sha256};

mod content;
mod credentials;
mod transfers;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Five tries with pauses of at most eight seconds, and some air for a loaded machine.
const BOUND: Duration = Duration::from_secs(45);

/// Small, so that only what a test does takes time.
fn small() -> Layout {
    Layout::new(
        vec![Tarball::new().file("etc/release", 0o644, "one\n").finish()],
        &json!({ "Cmd": ["true"] }),
    )
}

/// One that runs.
fn runnable(stanza: &Stanza) -> Layout {
    let upper = Tarball::new().file("etc/release", 0o644, "one\n").finish();
    Layout::new(vec![stanza.busybox().to_vec(), upper], &json!({ "Cmd": ["cat", "/etc/release"] }))
}

fn is_manifest(request: &Request) -> bool {
    request.path.contains("/manifests/")
}

fn is_blob(request: &Request) -> bool {
    request.path.contains("/blobs/")
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", hex_sha256(bytes)), "size": bytes.len() })
}

fn entries(directory: &Path) -> Vec<String> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// No image, no layer on its way; a blob under a name is that blob; what is kept of a download that broke off is a part of it.
fn assert_store_is_clean(stanza: &Stanza) {
    assert_eq!(stanza.ok(&["images", "-aq"]), "", "nothing may become visible");
    assert_eq!(entries(&stanza.root().join("layers/ingest")), [""; 0]);
    let blobs = stanza.root().join("images/blobs");
    for name in entries(&blobs.join("sha256")) {
        assert_eq!(hex_sha256(&fs::read(blobs.join("sha256").join(&name)).unwrap()), name);
    }
    for entry in entries(&stanza.root().join("images/ingest")) {
        assert!(entry.contains("partial"), "left in images/ingest: {entry}");
    }
}

fn finish(mut running: Running, words: &[&str], start: Instant, stanza: &Stanza) -> String {
    let Output { code, stdout, stderr, .. } = running.finish();
    assert_eq!(code, 1, "stdout: {stdout}\nstderr: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "no `{word}` in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(
        stderr.lines().filter(|line| !line.starts_with("warning:")).count() <= 3 && stderr.len() < 2000,
        "too many words: {stderr}"
    );
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert_store_is_clean(stanza);
    stderr
}

/// A pull that must fail with these words.
fn refused(stanza: &Stanza, registry: &FakeRegistry, words: &[&str]) -> String {
    let start = Instant::now();
    finish(stanza.spawn(&["pull", &registry.name("room:1")]), words, start, stanza)
}

/// The same, from a registry that has a small image and whose answers are altered.
fn refused_when(
    stanza: &Stanza,
    words: &[&str],
    alter: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
) -> FakeRegistry {
    let registry = FakeRegistry::of(&small(), alter);
    refused(stanza, &registry, words);
    registry
}

fn pulled(stanza: &Stanza, registry: &FakeRegistry) {
    let name = registry.name("room:1");
    stanza.ok(&["pull", &name]);
    assert_eq!(stanza.ok(&["run", "--rm", "--network", "none", &name]), "one");
}
