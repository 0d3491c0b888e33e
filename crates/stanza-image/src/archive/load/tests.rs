//! Archives as other engines write them, and as attackers do.

use std::io::{Cursor, Read, Seek, Write};

use stanza_tar::{Builder, EntryKind, Header};

use super::*;
use crate::document::{OCI_CONFIG, OCI_LAYER};
use crate::hash::sha256;
use crate::progress::Silent;

/// An archive under construction.
pub(crate) struct Fixture(Builder<Vec<u8>>);

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture(Builder::new(Vec::new()))
    }

    pub(crate) fn file(mut self, path: &str, content: &[u8]) -> Fixture {
        let size = u64::try_from(content.len()).unwrap();
        let header = Header { path: path.into(), mode: 0o644, size, ..Header::default() };
        self.0.append(&header, &mut &content[..]).unwrap();
        self
    }

    pub(crate) fn link(mut self, kind: EntryKind, path: &str, target: &str) -> Fixture {
        let header = Header { path: path.into(), kind, link: target.into(), ..Header::default() };
        self.0.append(&header, &mut std::io::empty()).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

fn layer(text: &str) -> Vec<u8> {
    Fixture::new().file("file", text.as_bytes()).bytes()
}

fn config(layers: &[&[u8]]) -> String {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| sha256(layer)).collect();
    serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
}

fn docker_manifest(config: &str, tags: &[&str], layers: &[&str]) -> Vec<u8> {
    serde_json::json!([{"Config": config, "RepoTags": tags, "Layers": layers}]).to_string().into_bytes()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", sha256(bytes).hex())
}

/// A layout of one image.
fn oci(name: Option<&str>, layer: &[u8]) -> (Fixture, Digest) {
    let config = config(&[layer]);
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config.as_bytes()), "layers": [descriptor(OCI_LAYER, layer)]})
    .to_string();
    let mut entry = descriptor(OCI_MANIFEST, manifest.as_bytes());
    if let Some(name) = name {
        entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let fixture = Fixture::new()
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.as_bytes())
        .file(&blob_path(manifest.as_bytes()), manifest.as_bytes())
        .file(&blob_path(config.as_bytes()), config.as_bytes())
        .file(&blob_path(layer), layer);
    (fixture, sha256(manifest.as_bytes()))
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&directory.path().join("images")).unwrap();
    (directory, store)
}

fn load_source(store: &ImageStore, source: Source) -> Result<Vec<Loaded>, LoadError> {
    let mut options = LoadOptions {
        platform: Platform::host(),
        admission: Admission::default(),
        sink: None,
        progress: &mut Silent,
    };
    load_through(&Gate::open(), store, source, &mut options)
}

/// Loads it as a stream, and in place into another store: both must come to the same end.
fn load_bytes(store: &ImageStore, bytes: Vec<u8>) -> Result<Vec<Loaded>, LoadError> {
    let (_keep, other) = self::store();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"passed over").unwrap();
    file.write_all(&bytes).unwrap();
    file.seek(std::io::SeekFrom::Start(11)).unwrap();
    let in_place = load_source(&other, Source::File(file));
    let streamed = load_source(store, Source::Stream(Box::new(Cursor::new(bytes))));
    match (&in_place, &streamed) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(a), Err(b)) => {
            assert_eq!(std::mem::discriminant(a), std::mem::discriminant(b), "{a} {b}");
            assert_empty(&other);
        }
        _ => panic!("{in_place:?} {streamed:?}"),
    }
    streamed
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn content(store: &ImageStore, name: &str) -> Vec<Vec<u8>> {
    let image = store.resolve(name).unwrap();
    let read = |layer: &crate::image::Layer| {
        let mut bytes = Vec::new();
        store.open_layer(layer).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(sha256(&bytes), layer.diff_id);
        bytes
    };
    image.layers.iter().map(read).collect()
}

fn assert_empty(store: &ImageStore) {
    assert!(store.list().unwrap().is_empty());
    assert_eq!(store.disk_usage().unwrap(), crate::store::DiskUsage::default());
}

#[test]
fn a_docker_archive_is_loaded_plain_and_compressed() {
    let (one, two) = (layer("one"), layer("two"));
    let archive = Fixture::new()
        .file("1/layer.tar", &one)
        .file("1/VERSION", b"1.0")
        .link(EntryKind::Symlink, "2/layer.tar", "../1/layer.tar")
        .file("./3.tar", &gzip(&two))
        .file("c.json", config(&[&one, &one, &two]).as_bytes())
        .file("repositories", b"{\"lies\": {}}")
        .file(
            "manifest.json",
            &docker_manifest("c.json", &["a:1", "q.io/b:2"], &["1/layer.tar", "2/layer.tar", "3.tar"]),
        )
        .bytes();
    for bytes in [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()] {
        let (_keep, store) = store();
        let loaded = load_bytes(&store, bytes).unwrap();
        let names: Vec<String> = loaded.iter().map(|image| image.name.as_ref().unwrap().familiar()).collect();
        assert_eq!(names, ["a:1", "q.io/b:2"]);
        assert_eq!(content(&store, "q.io/b:2"), [one.clone(), one.clone(), two.clone()]);
        assert_eq!(store.disk_usage().unwrap().unreferenced, 0);
        assert_eq!(store.disk_usage().unwrap().partial, 0);
    }
}

#[test]
fn an_oci_archive_keeps_its_digests() {
    let layer = layer("x");
    let (fixture, manifest) = oci(Some("localhost/app:v1"), &layer);
    let (_keep, store) = store();
    let loaded = load_bytes(&store, fixture.bytes()).unwrap();
    assert_eq!(loaded.len(), 1);
    let image = store.resolve("localhost/app:v1").unwrap();
    assert_eq!((image.manifest, &image.id), (manifest, &loaded[0].image));
    assert_eq!(content(&store, "localhost/app:v1"), [layer]);
}

#[test]
fn a_bare_tag_names_nothing_and_both_forms_together_share_their_names() {
    let layer = layer("x");
    let (_keep, store) = store();
    let (fixture, _) = oci(Some("v1"), &layer);
    let loaded = load_bytes(&store, fixture.bytes()).unwrap();
    assert_eq!(loaded[0].name, None);
    let (fixture, manifest) = oci(Some("v1"), &layer);
    let config = config(&[&layer]);
    let both = docker_manifest(&blob_path(config.as_bytes()), &["app:v1"], &[&blob_path(&layer)]);
    load_bytes(&store, fixture.file("manifest.json", &both).bytes()).unwrap();
    assert_eq!(store.resolve("app:v1").unwrap().manifest, manifest);
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn paths_and_links_that_lead_outside_are_refused() {
    let one = layer("one");
    let config = config(&[&one]);
    for path in ["../../etc/passwd", "/etc/passwd", "absent", ".."] {
        let (_keep, store) = store();
        let archive = Fixture::new()
            .file("c.json", config.as_bytes())
            .file("manifest.json", &docker_manifest("c.json", &["a:1"], &[path]))
            .bytes();
        assert!(matches!(load_bytes(&store, archive), Err(LoadError::Path { .. })), "{path}");
        assert_empty(&store);
    }
    for (kind, target) in [
        (EntryKind::Symlink, "../../etc/passwd"),
        (EntryKind::Symlink, "/etc/passwd"),
        (EntryKind::HardLink, "../etc/passwd"),
        (EntryKind::Symlink, "layer.tar"),
    ] {
        let (_keep, store) = store();
        let archive = Fixture::new()
            .link(kind, "1/layer.tar", target)
            .file("c.json", config.as_bytes())
            .file("manifest.json", &docker_manifest("c.json", &["a:1"], &["1/layer.tar"]))
            .bytes();
        assert!(matches!(load_bytes(&store, archive), Err(LoadError::Path { .. })), "{target}");
        assert_empty(&store);
    }
}

#[test]
fn wrong_layers_tags_and_blobs_are_refused_and_leave_nothing() {
    let (one, two) = (layer("one"), layer("two"));
    let docker = |layer: &[u8], tag: &str| {
        Fixture::new()
            .file("l.tar", layer)
            .file("c.json", config(&[&one]).as_bytes())
            .file("manifest.json", &docker_manifest("c.json", &[tag], &["l.tar"]))
            .bytes()
    };
    let (_keep, store) = store();
    assert!(matches!(load_bytes(&store, docker(&two, "a:1")), Err(LoadError::Digest { .. })));
    assert!(matches!(load_bytes(&store, docker(&gzip(&two), "a:1")), Err(LoadError::Digest { .. })));
    for tag in ["Upper", "a:1 b", "../a", "\u{1b}[31m", ""] {
        assert!(matches!(load_bytes(&store, docker(&one, tag)), Err(LoadError::Name { .. })), "{tag}");
    }
    // A blob whose content is another: the digest of the path is not believed.
    let (fixture, _) = oci(None, &one);
    let bytes = fixture.file(&blob_path(&one), &two).bytes();
    assert!(matches!(load_bytes(&store, bytes), Err(LoadError::Digest { .. })));
    assert!(matches!(
        load_bytes(&store, Fixture::new().file("etc/passwd", b"").bytes()),
        Err(LoadError::NotAnImage)
    ));
    assert!(matches!(load_bytes(&store, b"no tar".repeat(200)), Err(LoadError::Tar(_))));
    let whole = docker(&one, "a:1");
    assert!(load_bytes(&store, whole[..700].to_vec()).is_err());
    let packed = gzip(&whole);
    assert!(load_bytes(&store, packed[..packed.len() - 20].to_vec()).is_err());
    assert_empty(&store);
}

#[test]
fn a_blob_with_two_diff_ids_is_taken_once() {
    let (one, two) = (layer("one"), layer("two"));
    let lie = config(&[&one, &two]);
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, lie.as_bytes()),
        "layers": [descriptor(OCI_LAYER, &one), descriptor(OCI_LAYER, &one)]})
    .to_string();
    let index =
        serde_json::json!({"schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST, manifest.as_bytes())]});
    let archive = Fixture::new()
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.to_string().as_bytes())
        .file(&blob_path(manifest.as_bytes()), manifest.as_bytes())
        .file(&blob_path(lie.as_bytes()), lie.as_bytes())
        .file(&blob_path(&one), &one)
        .bytes();
    let (_keep, store) = self::store();
    // Without a sink nothing is unpacked, so that nothing is found: a container of it is refused.
    assert_eq!(load_bytes(&store, archive).unwrap().len(), 1);
    let image = store.list().unwrap().remove(0);
    assert_eq!((image.layers.len(), &image.layers[0].digest), (2, &image.layers[1].digest));
}

#[test]
fn archives_of_the_peers_are_loaded() {
    let (_keep, store) = store();
    let (fixture, manifest) = oci(Some("q.io/peer:1"), &layer("x"));
    load_bytes(&store, fixture.bytes()).unwrap();
    let source = format!("oci:{}:q.io/peer:1", store.root().display());
    for (form, name, option) in
        [("docker-archive", "q.io/peer:2", "--quiet"), ("oci-archive", "q.io/peer:3", "--preserve-digests")]
    {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        let target = format!("{form}:{}:{name}", path.display());
        let status = std::process::Command::new("skopeo")
            .args(["--insecure-policy", "copy", option, &source, &target])
            .output();
        match status {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => return skip(&format!("skopeo cannot be run here: {error}")),
        }
        load_source(&store, Source::File(std::fs::File::open(&path).unwrap())).unwrap();
        assert_eq!(content(&store, name), content(&store, "q.io/peer:1"));
    }
    assert_eq!(store.resolve("q.io/peer:3").unwrap().manifest, manifest);
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}
