//! Hostile archives for `load`: refused by name or made harmless, nothing outside touched, nothing left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use stanza_test::{Kind, Layout, Stanza, Tarball, fixture, hex_sha256, tool};

/// Every file below the store's changing directories.
fn left(stanza: &Stanza) -> Vec<String> {
    let mut left = Vec::new();
    for directory in
        ["images/blobs/sha256", "images/blobs/sha512", "images/ingest", "layers/sha256", "layers/ingest"]
    {
        for entry in fs::read_dir(stanza.root().join(directory)).into_iter().flatten() {
            left.push(format!("{directory}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    left
}

/// Loads from standard input, from a file and compressed: each is refused with `expected`, and leaves nothing.
fn refused(stanza: &Stanza, archive: &[u8], expected: &str) {
    let file = stanza.file("hostile.tar", archive);
    let packed = format!("{file}.gz");
    assert_eq!(tool(&["sh", "-c", &format!("gzip -1c {file} >{packed}")]).code, 0);
    for (how, output) in [
        ("stream", stanza.output_with_input(&["load"], archive)),
        ("file", stanza.output(&["load", "-i", &file])),
        ("compressed", stanza.output(&["load", "-i", &packed])),
    ] {
        assert_eq!(output.code, 1, "{how}: {} {}", output.stdout, output.stderr);
        assert!(output.stderr.contains(expected), "{how}: `{expected}` is not in: {}", output.stderr);
        assert!(!output.stderr.contains('\u{1b}'), "{how}: {}", output.stderr);
        assert_eq!(left(stanza), Vec::<String>::new(), "{how}");
    }
    assert_eq!(stanza.ok(&["images", "-q"]), "");
}

fn layer() -> Vec<u8> {
    Tarball::new().file("file", 0o644, "x").finish()
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex_sha256(layer))).collect();
    let document =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": ids } });
    serde_json::to_vec(&document).unwrap()
}

/// A docker-archive of one layer, whose manifest says what it is told.
fn docker(manifest: &Value) -> Tarball {
    Tarball::new().file("layer.tar", 0o644, layer()).file("config.json", 0o644, config(&[&layer()])).file(
        "manifest.json",
        0o644,
        serde_json::to_vec(manifest).unwrap(),
    )
}

fn manifest(config: &str, tags: &[&str], layers: &[&str]) -> Value {
    json!([{ "Config": config, "RepoTags": tags, "Layers": layers }])
}

#[test]
fn a_manifest_reaches_nothing_outside_its_archive() {
    let stanza = fixture!(Empty);
    for path in ["../../etc/passwd", "/etc/passwd", "/proc/self/environ", "a/../../layer.tar"] {
        refused(&stanza, &docker(&manifest("config.json", &["a:1"], &[path])).finish(), "of the archive");
        refused(&stanza, &docker(&manifest(path, &["a:1"], &["layer.tar"])).finish(), "of the archive");
    }
    for target in ["../../../etc/passwd", "/etc/passwd", "/proc/self/environ"] {
        for kind in [Kind::Symlink(target.to_owned()), Kind::Hardlink(target.to_owned())] {
            let archive =
                docker(&manifest("config.json", &["a:1"], &["evil"])).entry("evil", 0o777, (0, 0), &kind);
            refused(&stanza, &archive.finish(), "of the archive");
        }
    }
}

#[test]
fn entries_with_names_outside_write_nothing_outside() {
    let stanza = fixture!(Empty);
    let victim = stanza.file("victim", "safe");
    let up = format!("../../../../../..{victim}");
    let archive = docker(&manifest("config.json", &["a:1"], &["layer.tar"]))
        .symlink("out", "victim")
        .file("out/x", 0o644, "evil")
        .file(&up, 0o644, "evil")
        .file(&victim, 0o644, "evil")
        .entry("device", 0o666, (0, 0), &Kind::CharacterDevice(1, 3))
        .finish();
    for output in [
        stanza.output_with_input(&["load"], &archive),
        stanza.output(&["load", "-i", &stanza.file("a.tar", &archive)]),
    ] {
        assert_eq!((output.code, output.stdout.as_str()), (0, "Loaded image: a:1\n"), "{}", output.stderr);
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
    stanza.ok(&["rmi", "a:1"]);
    assert_eq!(left(&stanza), Vec::<String>::new());
}

#[test]
fn links_in_a_circle_end() {
    let stanza = fixture!(Empty);
    let mut archive = docker(&manifest("config.json", &["a:1"], &["l0"]));
    for at in 0..40 {
        archive = archive.symlink(&format!("l{at}"), &format!("l{}", (at + 1) % 40));
    }
    refused(&stanza, &archive.finish(), "leads in a circle");
    let own = docker(&manifest("config.json", &["a:1"], &["own"])).symlink("own", "own");
    refused(&stanza, &own.finish(), "leads in a circle");
}

#[test]
fn a_layer_that_is_named_twice_is_loaded_once() {
    let stanza = fixture!(Empty);
    let layer = layer();
    let archive = Tarball::new()
        .file("l.tar", 0o644, &layer)
        .symlink("again.tar", "l.tar")
        .file("config.json", 0o644, config(&[&layer, &layer]))
        .file(
            "manifest.json",
            0o644,
            serde_json::to_vec(&manifest("config.json", &["a:1"], &["l.tar", "again.tar"])).unwrap(),
        )
        .finish();
    let file = stanza.file("a.tar", &archive);
    assert_eq!(stanza.ok(&["load", "-q", "-i", &file]), "Loaded image: a:1");
    let image: Value = serde_json::from_str(&stanza.ok(&["image", "inspect", "a:1"])).unwrap();
    assert_eq!(image[0]["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let names = left(&stanza);
    assert_eq!(names.iter().filter(|name| name.starts_with("layers/")).count(), 1, "{names:?}");
    // A configuration that has another number of layers than the manifest.
    stanza.ok(&["rmi", "a:1"]);
    let archive = docker(&manifest("config.json", &["a:1"], &["layer.tar", "layer.tar"]));
    refused(&stanza, &archive.finish(), "it names 1 layers, but the manifest has 2");
}

#[test]
fn tags_that_are_no_references_are_refused() {
    let stanza = fixture!(Empty);
    for tag in
        ["Upper:1", "a b", "../a:1", "a:1:2", "\u{1b}[31mred", "a:\u{202e}x", "", "a:", &"x".repeat(300)]
    {
        refused(
            &stanza,
            &docker(&manifest("config.json", &["a:1", tag], &["layer.tar"])).finish(),
            "names an image",
        );
    }
}

#[test]
fn documents_have_bounds() {
    let stanza = fixture!(Empty);
    let huge = format!("[{}]", " ".repeat(100 << 20));
    let archive = Tarball::new().file("manifest.json", 0o644, huge).finish();
    refused(&stanza, &archive, "it has more than 4194304 bytes");
    let deep = "[".repeat(1 << 20);
    refused(&stanza, &Tarball::new().file("manifest.json", 0o644, deep).finish(), "cannot use the document");
    let many: Vec<&str> = vec!["layer.tar"; 10_000];
    refused(
        &stanza,
        &docker(&manifest("config.json", &["a:1"], &many)).finish(),
        "an image has 10000 layers",
    );
    let config = vec![b' '; 9 << 20];
    let archive =
        docker(&manifest("big.json", &["a:1"], &["layer.tar"])).file("big.json", 0o644, config).finish();
    refused(&stanza, &archive, "it has more than 8388608 bytes");
}

/// An OCI layout with these documents as blobs, of which the last is in the index.
fn oci(blobs: &[Vec<u8>], media_type: &str) -> Vec<u8> {
    let top = blobs.last().unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": media_type, "digest": format!("sha256:{}", hex_sha256(top)), "size": top.len() } ] });
    let mut archive = Tarball::new().file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#).file(
        "index.json",
        0o644,
        serde_json::to_vec(&index).unwrap(),
    );
    for blob in blobs {
        archive = archive.file(&format!("blobs/sha256/{}", hex_sha256(blob)), 0o644, blob);
    }
    archive.finish()
}

#[test]
fn indexes_that_nest_without_end_are_refused() {
    let stanza = fixture!(Empty);
    let index = "application/vnd.oci.image.index.v1+json";
    let mut blobs = vec![json!({ "schemaVersion": 2, "manifests": [] }).to_string().into_bytes()];
    for _ in 0..20 {
        let last = blobs.last().unwrap();
        let entry = json!({ "mediaType": index, "digest": format!("sha256:{}", hex_sha256(last)), "size": last.len() });
        blobs.push(json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes());
    }
    refused(&stanza, &oci(&blobs, index), "nested too deeply");
    let itself = format!("sha256:{}", "0".repeat(64));
    let entry = json!({ "mediaType": index, "digest": itself, "size": 1 });
    let circle = json!({ "schemaVersion": 2, "manifests": [entry, entry] }).to_string().into_bytes();
    refused(&stanza, &oci(&[circle], index), "of the archive");
    let both = json!({ "schemaVersion": 2, "manifests": [], "layers": [], "config": entry })
        .to_string()
        .into_bytes();
    refused(&stanza, &oci(&[both], index), "both layers and manifests");
}

#[test]
fn what_a_digest_does_not_fit_is_refused() {
    let stanza = fixture!(Empty);
    let image = Layout::new(vec![layer()], &json!({}));
    for (digest, bytes) in image.blobs() {
        let name = format!("blobs/sha256/{digest}");
        let mut wrong = bytes.clone();
        *wrong.last_mut().unwrap() ^= 1;
        for damaged in [wrong, bytes[..bytes.len() - 1].to_vec(), [&bytes[..], b"x"].concat()] {
            let mut archive = image.archive("a:1");
            // Before its end: the later entry of one name counts.
            archive.truncate(archive.len() - 1024);
            archive.extend(Tarball::new().file(&name, 0o644, damaged).finish());
            refused(&stanza, &archive, "of the archive");
        }
    }
    // The layer is what its digest says, but not what the configuration says.
    let other = Tarball::new().file("other", 0o644, "x").finish();
    let mut lie = Layout::new(vec![layer()], &json!({}));
    let text = String::from_utf8(lie.manifest).unwrap();
    lie.manifest = text.replace(&hex_sha256(&layer()), &hex_sha256(&other)).into_bytes();
    lie.layers = vec![other.clone()];
    refused(&stanza, &lie.archive("a:1"), "cannot unpack the layer");
    let archive = docker(&manifest("config.json", &["a:1"], &["layer.tar"])).file("layer.tar", 0o644, &other);
    refused(&stanza, &archive.finish(), "of the archive has the digest");
    // An image of which one layer is fine leaves nothing of it.
    let half = Tarball::new()
        .file("1.tar", 0o644, layer())
        .file("2.tar", 0o644, "no archive at all")
        .file("config.json", 0o644, config(&[&layer(), b"something else"]))
        .file(
            "manifest.json",
            0o644,
            serde_json::to_vec(&manifest("config.json", &[], &["1.tar", "2.tar"])).unwrap(),
        )
        .finish();
    let file = stanza.file("half.tar", &half);
    stanza.fails(1, &["load", "-i", &file]);
    let blobs: Vec<String> =
        left(&stanza).into_iter().filter(|name| !name.starts_with("layers/sha256")).collect();
    assert_eq!(blobs, Vec::<String>::new());
}

#[test]
fn an_archive_cut_anywhere_leaves_nothing() {
    let stanza = fixture!(Empty);
    let whole = docker(&manifest("config.json", &["a:1"], &["layer.tar"])).finish();
    // The last entry's padding and the two blocks behind it may be missing, as for GNU tar.
    let last = whole.len() - 1024 - 512;
    for length in (0..last).step_by(331) {
        let file = stanza.file("cut.tar", &whole[..length]);
        for output in
            [stanza.output(&["load", "-i", &file]), stanza.output_with_input(&["load"], &whole[..length])]
        {
            assert_eq!(output.code, 1, "{length}: {}", output.stdout);
        }
        assert_eq!(left(&stanza), Vec::<String>::new(), "{length}");
    }
}

/// `sh -c SCRIPT`, with `$STANZA` for the executable and its directories.
fn shell(stanza: &Stanza, script: &str) -> stanza_test::Output {
    let command: &Command = &stanza.command(&[]);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    tool(&["sh", "-c", &format!("STANZA='{}'; {script}", words.join(" "))])
}

#[test]
fn a_stream_without_an_end_ends() {
    let stanza = fixture!(Empty);
    let archive = docker(&manifest("config.json", &["a:1"], &["layer.tar"])).finish();
    let file = stanza.file("a.tar", &archive);
    let output = shell(&stanza, &format!("cat {file} /dev/zero | $STANZA load"));
    assert_eq!(output.code, 1, "{}", output.stdout);
    assert!(output.stderr.contains("its end is followed by more than 16777216 bytes"), "{}", output.stderr);
    let output = shell(&stanza, &format!("(cat {file} /dev/zero | gzip -1) 2>/dev/null | $STANZA load"));
    assert_eq!(output.code, 1, "{}", output.stdout);
    // A file that claims more than any disk has, and one entry after the other without end.
    let mut claim = Tarball::new().file("layer.tar", 0o644, "").finish();
    claim.truncate(512);
    claim[124..136].copy_from_slice(b"100000000000");
    claim[124] = 0x80;
    claim[125..136].copy_from_slice(&[0, 0, 0, 0, 0, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff]);
    claim[148..156].fill(b' ');
    let sum: u64 = claim[..512].iter().map(|byte| u64::from(*byte)).sum();
    claim[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let file = stanza.file("claim.tar", &claim);
    let output = shell(&stanza, &format!("cat {file} /dev/zero | $STANZA load"));
    assert_eq!(output.code, 1, "{}", output.stdout);
    assert!(output.stderr.contains("find room in"), "{}", output.stderr);
    let mut links = Tarball::new();
    for _ in 0..4096 {
        links = links.symlink("x", "y");
    }
    let links = links.finish();
    let file = stanza.file("links.tar", &links[..links.len() - 1024]);
    let output = shell(&stanza, &format!("while cat {file}; do :; done 2>/dev/null | $STANZA load"));
    assert_eq!(output.code, 1, "{}", output.stdout);
    assert!(output.stderr.contains("more than 65536 entries"), "{}", output.stderr);
    assert_eq!(left(&stanza), Vec::<String>::new());
}

#[test]
fn a_directory_leads_nowhere_else() {
    let stanza = fixture!(Empty);
    let image = Layout::new(vec![layer()], &json!({}));
    let secret = stanza.directory().join("secret");
    image.write(&secret, "a:1").unwrap();
    let layout = stanza.directory().join("layout");
    let text = layout.display().to_string();
    let attempt = |change: &dyn Fn()| {
        let _ = fs::remove_dir_all(&layout);
        image.write(&layout, "a:1").unwrap();
        change();
        let error = stanza.fails(1, &["load", "-i", &text]);
        assert_eq!(left(&stanza), Vec::<String>::new());
        error
    };
    let blob = layout.join("blobs/sha256").join(hex_sha256(&image.layers[0]));
    let link = |target: &std::path::Path| {
        fs::remove_file(&blob).unwrap();
        std::os::unix::fs::symlink(target, &blob).unwrap();
    };
    let original = secret.join("blobs/sha256").join(hex_sha256(&image.layers[0]));
    assert!(attempt(&|| link(&original)).contains("leads outside the archive"));
    assert!(
        attempt(&|| link(std::path::Path::new("../../../secret/index.json")))
            .contains("leads outside the archive")
    );
    assert!(
        attempt(&|| link(std::path::Path::new("/proc/self/environ"))).contains("leads outside the archive")
    );
    assert!(attempt(&|| link(&blob)).contains("leads outside the archive"));
    let pipe = || {
        fs::remove_file(&blob).unwrap();
        assert_eq!(tool(&["mkfifo", &blob.display().to_string()]).code, 0);
    };
    assert!(attempt(&pipe).contains("it is not a regular file"));
    // A link that stays inside is fine.
    let _ = fs::remove_dir_all(&layout);
    image.write(&layout, "a:1").unwrap();
    fs::rename(&blob, layout.join("layer")).unwrap();
    std::os::unix::fs::symlink("../../layer", &blob).unwrap();
    assert_eq!(stanza.ok(&["load", "-q", "-i", &text]), "Loaded image: a:1");
}
