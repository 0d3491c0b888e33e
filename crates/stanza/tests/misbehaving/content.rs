//! What comes: sizes, digests, media types, documents of any shape and size.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use stanza_test::{Answer, FakeRegistry, Layout, Output, Tarball, fixture, good_answers, hex_sha256};

use super::{
    CONFIG, INDEX, LAYER, MANIFEST, descriptor, entries, is_blob, is_manifest, pulled, refused, refused_when,
    runnable, small,
};

/// A registry that answers for tags and digests with this document.
fn document(media_type: &'static str, bytes: Vec<u8>) -> FakeRegistry {
    FakeRegistry::start(move |request| {
        if is_manifest(request) { Answer::ok(media_type, bytes.clone()) } else { Answer::status(404) }
    })
}

#[test]
fn lengths_that_lie_are_refused() {
    let stanza = fixture!(Empty);
    // More than comes, less than comes, more than anybody has; of a blob, then of a manifest.
    for claimed in [1_000_000, 10, usize::MAX / 2] {
        refused_when(&stanza, &["sha256:", "bytes"], move |request, mut good| {
            if is_blob(request) {
                good.length = Some(claimed);
            }
            good
        });
        refused_when(&stanza, &["room"], move |request, mut good| {
            if is_manifest(request) {
                good.length = Some(claimed);
            }
            good
        });
    }
}

#[test]
fn sizes_and_digests_that_lie_are_refused() {
    let stanza = fixture!(Empty);
    let layout = small();
    let manifest: Value = serde_json::from_slice(&layout.manifest).unwrap();
    let altered = |path: &str, value: Value| {
        let mut manifest = manifest.clone();
        *manifest.pointer_mut(path).unwrap() = value;
        Layout { manifest: serde_json::to_vec(&manifest).unwrap(), ..layout.clone() }
    };
    let size = layout.layers[0].len();
    let real = hex_sha256(&layout.layers[0]);
    for (path, value, words) in [
        ("/layers/0/size", json!(size - 1), ["sha256:", "bytes"]),
        ("/layers/0/size", json!(size + 1), ["sha256:", "bytes"]),
        ("/layers/0/size", json!(-1), ["manifest", ""]),
        ("/layers/0/size", json!(u64::MAX), ["bytes", ""]),
        ("/config/size", json!(1_u64 << 40), ["bytes", ""]),
        ("/config/size", json!(1), ["bytes", ""]),
        ("/layers/0/digest", json!(format!("md5:{}", &real[..32])), ["manifest", ""]),
        ("/layers/0/digest", json!(format!("sha256:{}", &real[..63])), ["manifest", ""]),
        ("/layers/0/digest", json!(format!("sha256:{}", real.to_uppercase())), ["manifest", ""]),
        ("/layers/0/digest", json!("sha256:../../../../etc/passwd"), ["manifest", ""]),
        ("/layers/0/mediaType", json!("application/vnd.erofs.layer.v1"), ["layer", "erofs"]),
        (
            "/layers/0/mediaType",
            json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            ["foreign", ""],
        ),
        ("/layers/0/mediaType", json!("\u{1b}[31mred"), ["layer", "\\u{1b}"]),
        ("/config/mediaType", json!("application/vnd.cncf.helm.config.v1+json"), ["", ""]),
        // The layer is the configuration: no archive, and not what the configuration says.
        ("/layers/0/digest", manifest["config"]["digest"].clone(), ["", ""]),
        ("/config/digest", manifest["layers"][0]["digest"].clone(), ["", ""]),
    ] {
        let registry = FakeRegistry::of(&altered(path, value.clone()), |_, good| good);
        println!("{path} {value}");
        refused(&stanza, &registry, &words);
    }
}

#[test]
fn a_layer_that_is_not_the_one_of_its_configuration_never_runs() {
    let stanza = fixture!(Empty);
    let mut layout = runnable(&stanza);
    let text = String::from_utf8(layout.config.clone()).unwrap();
    let other = hex_sha256(b"another layer");
    layout.config = text.replace(&hex_sha256(&layout.layers[1]), &other).into_bytes();
    let mut manifest: Value = serde_json::from_slice(&layout.manifest).unwrap();
    manifest["config"] = descriptor(CONFIG, &layout.config);
    layout.manifest = serde_json::to_vec(&manifest).unwrap();
    let registry = FakeRegistry::of(&layout, |_, good| good);
    // Whether it is found when the image comes in or when it is unpacked, it is found by its name.
    let error = match stanza.output(&["pull", &registry.name("room:1")]) {
        Output { code: 1, stderr, .. } => stderr,
        _ => stanza.fails(125, &["run", "--rm", "--network", "none", &registry.name("room:1")]),
    };
    assert!(error.contains(&other), "{error}");
    assert!(!stanza.root().join("layers/sha256").join(&other).exists());
    assert_eq!(entries(&stanza.root().join("layers/ingest")), [""; 0]);
}

#[test]
fn digests_of_sha512_are_taken() {
    let stanza = fixture!(Empty);
    let layout = runnable(&stanza);
    let file = stanza.file("layer", &layout.layers[1]);
    let sum = stanza_test::tool(&["sha512sum", &file]).stdout;
    let digest = format!("sha512:{}", sum.split(' ').next().unwrap());
    let mut manifest: Value = serde_json::from_slice(&layout.manifest).unwrap();
    manifest["layers"][1]["digest"] = json!(digest);
    let (layer, bytes) = (layout.layers[1].clone(), serde_json::to_vec(&manifest).unwrap());
    let registry = FakeRegistry::of(&layout, move |request, good| {
        if is_manifest(request) {
            Answer::ok(MANIFEST, bytes.clone())
        } else if request.path.contains("/blobs/sha512:") {
            Answer::ok("application/octet-stream", layer.clone())
        } else {
            good
        }
    });
    pulled(&stanza, &registry);
}

#[test]
fn content_types_that_lie_are_refused_or_of_no_weight() {
    let stanza = fixture!(Empty);
    for lie in [INDEX, "application/vnd.docker.distribution.manifest.v2+json", "text/html", "image/png"] {
        refused_when(&stanza, &["127.0.0.1"], move |request, mut good| {
            if is_manifest(request) {
                good.headers[0].1 = lie.to_owned();
            }
            good
        });
    }
    // A blob is what its digest says.
    let registry = FakeRegistry::of(&runnable(&stanza), |request, mut good| {
        if is_blob(request) {
            good.headers[0].1 = "text/html".to_owned();
        }
        good
    });
    pulled(&stanza, &registry);
}

#[test]
fn documents_without_measure_are_refused() {
    let stanza = fixture!(Empty);
    let mut large = br#"{"schemaVersion":2,"annotations":{"a":""#.to_vec();
    large.resize(100 << 20, b'x');
    large.extend_from_slice(b"\"}}");
    refused(&stanza, &document(MANIFEST, large.clone()), &["bytes"]);
    refused(&stanza, &document(INDEX, large), &["bytes"]);
    let layer = descriptor(LAYER, b"x");
    let many = json!({ "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, b"{}"), "layers": vec![layer; 10_000] });
    refused(&stanza, &document(MANIFEST, serde_json::to_vec(&many).unwrap()), &["layers", "10000"]);
    let entry = json!({ "mediaType": MANIFEST, "digest": format!("sha256:{}", "1".repeat(64)), "size": 100 });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": vec![entry; 15_000] });
    let registry = document(INDEX, serde_json::to_vec(&index).unwrap());
    refused(&stanza, &registry, &["127.0.0.1"]);
    assert!(registry.requests().len() <= 40, "{}", registry.requests().len());
    let deep = [b"[".repeat(1 << 20), b"]".repeat(1 << 20)].concat();
    refused(&stanza, &document(MANIFEST, deep), &["manifest"]);
    let twice = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","mediaType":"{MANIFEST}","manifests":[],"layers":[]}}"#
    );
    for text in [
        "",
        "{}",
        "null",
        "[]",
        "\u{feff}{}",
        "<html>",
        r#"{"schemaVersion":1}"#,
        r#"{"schemaVersion":3}"#,
        &twice,
    ] {
        refused(&stanza, &document(MANIFEST, text.as_bytes().to_vec()), &["127.0.0.1"]);
    }
}

#[test]
fn a_configuration_without_measure_is_refused() {
    let stanza = fixture!(Empty);
    let layout = small();
    let whole = String::from_utf8(layout.config.clone()).unwrap();
    let wide = format!("{},\"x\":\"{}\"}}", &whole[..whole.len() - 1], "x".repeat(20 << 20));
    for config in [wide, "{}".to_owned(), "[".repeat(100_000), whole.replace("diff_ids", "diff_jds")] {
        let config = config.into_bytes();
        let mut manifest: Value = serde_json::from_slice(&layout.manifest).unwrap();
        manifest["config"] = descriptor(CONFIG, &config);
        let layout = Layout { config, manifest: serde_json::to_vec(&manifest).unwrap(), ..layout.clone() };
        refused(&stanza, &FakeRegistry::of(&layout, |_, good| good), &["configuration"]);
    }
}

#[test]
fn indexes_that_lead_in_circles_or_down_for_ever_are_refused() {
    let stanza = fixture!(Empty);
    // A circle needs a digest that lies.
    let fake = format!("sha256:{}", "0".repeat(64));
    let entry = json!({ "mediaType": INDEX, "digest": fake, "size": 100 });
    let circle = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    let registry = document(INDEX, serde_json::to_vec(&circle).unwrap());
    refused(&stanza, &registry, &["digest"]);
    assert!(registry.requests().len() <= 4);
    let mut documents = vec![small().manifest];
    for _ in 0..100 {
        let kind = if documents.len() == 1 { MANIFEST } else { INDEX };
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [descriptor(kind, documents.last().unwrap())] });
        documents.push(serde_json::to_vec(&index).unwrap());
    }
    let registry = FakeRegistry::start(move |request| {
        let hex = request.path.rsplit(':').next().unwrap_or_default();
        let found = documents.iter().find(|document| hex_sha256(document) == hex);
        let document = found.or(documents.last()).filter(|_| is_manifest(request));
        document.map_or_else(|| Answer::status(404), |bytes| Answer::ok(INDEX, bytes.clone()))
    });
    refused(&stanza, &registry, &["index"]);
    assert!(registry.requests().len() <= 20, "{}", registry.requests().len());
}

#[test]
fn a_tag_that_moves_gives_one_image_or_the_other() {
    let stanza = fixture!(Empty);
    let image = |text: &str| {
        let upper = Tarball::new().file("etc/release", 0o644, text).finish();
        Layout::new(vec![stanza.busybox().to_vec(), upper], &json!({ "Cmd": ["cat", "/etc/release"] }))
    };
    let layouts = [image("one\n"), image("two\n")];
    let manifests: Vec<Vec<u8>> = layouts.iter().map(|layout| layout.manifest.clone()).collect();
    let answers: Vec<_> = layouts.iter().map(good_answers).collect();
    let turn = AtomicUsize::new(0);
    let registry = FakeRegistry::start(move |request| {
        if is_manifest(request) {
            let hex = request.path.rsplit(':').next().unwrap_or_default();
            let known = manifests.iter().position(|manifest| hex_sha256(manifest) == hex);
            return answers[known.unwrap_or_else(|| turn.fetch_add(1, Ordering::Relaxed) % 2)](request);
        }
        answers
            .iter()
            .map(|good| good(request))
            .find(|answer| answer.status == 200)
            .unwrap_or(Answer::status(404))
    });
    let name = registry.name("room:1");
    for _ in 0..4 {
        stanza.ok(&["pull", &name]);
        let told = stanza.ok(&["run", "--rm", "--network", "none", "--pull", "never", &name]);
        assert!(["one", "two"].contains(&told.as_str()), "{told}");
        let inspected: Value = serde_json::from_str(&stanza.ok(&["image", "inspect", &name])).unwrap();
        let expected = &layouts[usize::from(told == "two")];
        assert_eq!(inspected[0]["Id"], json!(format!("sha256:{}", hex_sha256(&expected.config))));
    }
}

#[test]
fn names_that_are_no_references_are_refused() {
    let stanza = fixture!(Empty);
    let long = "x".repeat(300);
    let digest = format!("room@sha256:{}", "G".repeat(64));
    for name in [
        "Room",
        "room:",
        ":1",
        "room@sha256:12",
        "room@",
        &digest,
        "a:b:c:d",
        "a//b",
        "-a",
        "a-",
        "a..b",
        "a/./b",
        "../a",
        "/a",
        "a/",
        "r\u{f6}om",
        "room:\u{f6}",
        "room\u{0}x",
        "room:\u{1b}[31m",
        "room\n1",
        "host:99999999/a",
        "[::1/a",
        "user@host/a",
        "http://host/a",
        &long,
        "",
    ] {
        if name.contains('\0') {
            continue; // No argument can have one.
        }
        println!("{name:?}");
        for verb in ["pull", "run"] {
            let args = if verb == "run" {
                vec!["run", "--network", "none", "--", name]
            } else {
                vec!["pull", "--", name]
            };
            let output = stanza.output(&args);
            assert!(matches!(output.code, 1 | 125), "{verb} {name:?}: {output:?}");
            assert!(
                !output.stderr.contains('\u{1b}') && !output.stderr.contains("panicked"),
                "{:?}",
                output.stderr
            );
        }
    }
    assert_eq!(stanza.ok(&["images", "-aq"]), "");
}
