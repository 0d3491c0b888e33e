//! The store with the real file system below it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::document::{Descriptor, NewManifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::hash::sha256;
use crate::image::Image;

/// Enters an image of one layer with the content `layer`.
fn enter(store: &ImageStore, layer: &[u8], name: Option<&str>) -> Digest {
    let ingest = store.ingest().unwrap();
    let describe = |media_type: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        ingest.store_bytes(&digest, bytes).unwrap();
        Descriptor::new(media_type, digest, u64::try_from(bytes.len()).unwrap())
    };
    let layers = [describe(OCI_LAYER, layer)];
    let config = serde_json::json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layers[0].digest]}});
    let config = describe(OCI_CONFIG, config.to_string().as_bytes());
    let manifest =
        NewManifest { schema_version: 2, media_type: OCI_MANIFEST, config: &config, layers: &layers };
    let descriptor = describe(OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap());
    let name = name.map(|name| name.parse().unwrap());
    let id = config.digest.clone();
    store
        .update_index(|index| {
            Ok::<_, StoreError>(index.set(NewEntry { descriptor, name, id: id.clone(), source: None }))
        })
        .unwrap();
    id
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&directory.path().join("images")).unwrap();
    (directory, store)
}

fn blob_count(store: &ImageStore) -> usize {
    fs::read_dir(store.root.join("blobs/sha256")).unwrap().count()
}

fn rooms(store: &ImageStore) -> usize {
    fs::read_dir(store.root.join("ingest")).unwrap().count()
}

fn tag(store: &ImageStore, source: &str, target: &str) {
    store.tag(source, &target.parse().unwrap()).unwrap();
}

#[test]
fn an_image_is_found_by_every_form_of_its_name_and_id() {
    let (_keep, store) = store();
    let id = enter(&store, b"layer", Some("busybox"));
    let manifest = store.resolve("busybox").unwrap().manifest;
    let by_digest = format!("busybox@{manifest}");
    let prefixed = format!("sha256:{}", &id.hex()[..7]);
    for name in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "index.docker.io/library/busybox:latest",
        &by_digest,
        id.as_str(),
        id.hex(),
        id.short(),
        &prefixed,
        manifest.as_str(),
    ] {
        assert_eq!(store.resolve(name).unwrap().id, id, "{name}");
    }
    for name in ["busybox:1", "alpine", "localhost/busybox", &format!("alpine@{manifest}"), "0000000000000"] {
        assert!(matches!(store.resolve(name), Err(ResolveError::NotFound { .. })), "{name}");
    }
    assert!(matches!(store.resolve("Not/A/Name"), Err(ResolveError::Name(_))));
    assert!(matches!(store.resolve(""), Err(ResolveError::Name(_))));
}

#[test]
fn a_name_wins_over_the_beginning_of_an_id_and_a_whole_id_wins_over_a_name() {
    let (_keep, store) = store();
    let first = enter(&store, b"one", Some("one"));
    let second = enter(&store, b"two", Some(first.short()));
    assert_eq!(store.resolve(first.short()).unwrap().id, second);
    assert_eq!(store.resolve(first.hex()).unwrap().id, first);
}

#[test]
fn an_ambiguous_beginning_is_refused() {
    let (_keep, store) = store();
    let ids: Vec<Digest> = (0_u8..40).map(|fill| enter(&store, &[fill], None)).collect();
    let first = |digit: char| ids.iter().filter(|id| id.hex().starts_with(digit)).count();
    let digit = "0123456789abcdef".chars().find(|digit| first(*digit) > 1).unwrap();
    assert!(matches!(store.resolve(&digit.to_string()), Err(ResolveError::Ambiguous { .. })));
}

#[test]
fn a_moved_name_leaves_a_dangling_image_that_a_prune_takes() {
    let (_keep, store) = store();
    let old = enter(&store, b"old", Some("app"));
    let new = enter(&store, b"new", Some("app"));
    assert_eq!(store.resolve("app").unwrap().id, new);
    assert!(store.resolve(old.as_str()).unwrap().is_dangling());
    assert_eq!(store.list().unwrap().len(), 2);
    let pruned = store.prune(&Image::is_dangling).unwrap();
    assert_eq!((pruned.deleted[0].clone(), pruned.deleted.len(), pruned.untagged), (old, 3, vec![]));
    assert_eq!((store.list().unwrap().len(), blob_count(&store)), (1, 3));
}

#[test]
fn a_second_manifest_of_one_image_does_not_stay_behind() {
    let (_keep, store) = store();
    let id = enter(&store, b"layer", Some("app"));
    // The same configuration, the layer compressed.
    let ingest = store.ingest().unwrap();
    let packed = zstd::encode_all(&b"layer"[..], 1).unwrap();
    ingest.store_bytes(&sha256(&packed), &packed).unwrap();
    let size = u64::try_from(packed.len()).unwrap();
    let layers = [Descriptor::new(&format!("{OCI_LAYER}+zstd"), sha256(&packed), size)];
    let config = Descriptor::new(OCI_CONFIG, id.clone(), fs::metadata(store.blob_path(&id)).unwrap().len());
    let manifest =
        NewManifest { schema_version: 2, media_type: OCI_MANIFEST, config: &config, layers: &layers };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    ingest.store_bytes(&sha256(&bytes), &bytes).unwrap();
    let descriptor = Descriptor::new(OCI_MANIFEST, sha256(&bytes), u64::try_from(bytes.len()).unwrap());
    let enter_as = |name: &str| {
        let entry = NewEntry {
            descriptor: descriptor.clone(),
            name: Some(name.parse().unwrap()),
            id: id.clone(),
            source: None,
        };
        store.update_index(|index| Ok::<_, StoreError>(index.set(entry))).unwrap();
    };
    enter_as("other");
    assert_eq!(store.resolve("other").unwrap().names.len(), 2);
    assert_eq!(store.list().unwrap().len(), 1);
    enter_as("app");
    drop(ingest);
    assert_eq!(store.prune(&Image::is_dangling).unwrap().deleted.len(), 2);
    assert_eq!((blob_count(&store), store.list().unwrap().len()), (3, 1));
    let mut content = String::new();
    let layer = &store.resolve("app").unwrap().layers[0];
    store.open_layer(layer).unwrap().read_to_string(&mut content).unwrap();
    assert_eq!(content, "layer");
}

#[test]
fn by_name_the_image_goes_with_its_last_name() {
    let (_keep, store) = store();
    let id = enter(&store, b"layer", Some("a"));
    tag(&store, "a", "quay.io/b:2");
    let removed = store.remove("a", false).unwrap();
    assert_eq!(removed, Removed { untagged: vec!["a:latest".into()], deleted: vec![] });
    let removed = store.remove("quay.io/b:2", false).unwrap();
    assert_eq!(removed.untagged, ["quay.io/b:2"]);
    assert_eq!((removed.deleted[0].clone(), removed.deleted.len()), (id, 3));
    assert_eq!(blob_count(&store), 0);
    assert!(matches!(store.remove("a", false), Err(RemoveError::Resolve(ResolveError::NotFound { .. }))));
}

#[test]
fn by_id_several_names_need_force() {
    let (_keep, store) = store();
    let id = enter(&store, b"layer", Some("a"));
    tag(&store, "a", "b");
    assert!(matches!(store.remove(id.short(), false), Err(RemoveError::SeveralNames { count: 2, .. })));
    let mut removed = store.remove(id.short(), true).unwrap();
    removed.untagged.sort();
    assert_eq!(removed.untagged, ["a:latest", "b:latest"]);
    assert_eq!((removed.deleted[0].clone(), blob_count(&store)), (id, 0));
}

#[test]
fn shared_layers_outlive_one_of_their_images() {
    let (_keep, store) = store();
    enter(&store, b"shared", Some("a"));
    let bytes = b"shared";
    let other = {
        // The same layer under another configuration.
        let ingest = store.ingest().unwrap();
        let config = serde_json::json!({"architecture": "arm64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha256(bytes)]}})
        .to_string();
        let id = sha256(config.as_bytes());
        ingest.store_bytes(&id, config.as_bytes()).unwrap();
        let config = Descriptor::new(OCI_CONFIG, id.clone(), u64::try_from(config.len()).unwrap());
        let layers = [Descriptor::new(OCI_LAYER, sha256(bytes), 6)];
        let manifest = serde_json::to_vec(&NewManifest {
            schema_version: 2,
            media_type: OCI_MANIFEST,
            config: &config,
            layers: &layers,
        })
        .unwrap();
        ingest.store_bytes(&sha256(&manifest), &manifest).unwrap();
        let descriptor =
            Descriptor::new(OCI_MANIFEST, sha256(&manifest), u64::try_from(manifest.len()).unwrap());
        let name = Some("b".parse().unwrap());
        store
            .update_index(|index| {
                Ok::<_, StoreError>(index.set(NewEntry { descriptor, name, id, source: None }))
            })
            .unwrap();
        store.resolve("b").unwrap()
    };
    assert_eq!(store.remove("a", false).unwrap().deleted.len(), 2);
    let mut text = String::new();
    store.open_layer(&other.layers[0]).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "shared");
}

#[test]
fn a_wrong_or_partial_blob_leaves_nothing() {
    let (_keep, store) = store();
    {
        let ingest = store.ingest().unwrap();
        let digest = sha256(b"right");
        let mut writer = ingest.writer(&digest, 5).unwrap();
        writer.append(b"wrong").unwrap();
        assert!(matches!(ingest.commit(writer), Err(StoreError::Corrupt { .. })));
        let mut writer = ingest.writer(&digest, 5).unwrap();
        writer.append(b"rig").unwrap();
        assert!(matches!(ingest.commit(writer), Err(StoreError::Size { actual: 3, .. })));
        let mut writer = ingest.writer(&digest, 5).unwrap();
        assert!(matches!(writer.append(b"right!"), Err(StoreError::Size { actual: 6, .. })));
        drop(writer);
        let mut writer = ingest.writer(&digest, 5).unwrap();
        writer.append(b"right").unwrap();
        ingest.commit(writer).unwrap();
        let sha512: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
        let mut writer = ingest.writer(&sha512, 1).unwrap();
        writer.append(b"x").unwrap();
        assert!(matches!(ingest.commit(writer), Err(StoreError::Corrupt { .. })));
    }
    assert_eq!((blob_count(&store), rooms(&store)), (1, 0));
}

#[test]
fn a_partial_blob_outlives_its_owner_and_is_hashed_again() {
    let (_keep, store) = store();
    let digest = sha256(b"a whole blob");
    let take = |waited: &mut bool| match store.partial(&digest, 12, &mut || *waited = true).unwrap() {
        Wanted::Ours(partial) => *partial,
        Wanted::There => panic!("the blob is there"),
    };
    let mut waited = false;
    let mut partial = take(&mut waited);
    partial.append(b"a who").unwrap();
    assert!(matches!(partial.append(b"le blob!"), Err(StoreError::Size { actual: 13, .. })));
    drop(partial);

    let mut partial = take(&mut waited);
    let mut kept = Vec::new();
    partial.read_kept(&mut kept, 3).unwrap();
    partial.read_kept(&mut kept, 3).unwrap();
    partial.read_kept(&mut kept, 3).unwrap();
    assert_eq!((kept.as_slice(), partial.done(), waited), (&b"a who"[..], 5, false));
    // Another process wants it, and waits.
    std::thread::scope(|scope| {
        let (asked, waits) = std::sync::mpsc::channel();
        let (store, digest) = (&store, &digest);
        let other = scope.spawn(move || {
            let wanted = store.partial(digest, 12, &mut || asked.send(()).unwrap()).unwrap();
            matches!(wanted, Wanted::There)
        });
        waits.recv().unwrap();
        partial.append(b"le blob").unwrap();
        assert!(partial.is_whole());
        partial.commit().unwrap();
        assert!(other.join().unwrap());
    });
    assert!(store.has_blob(&digest, 12));
    assert_eq!(std::fs::read_dir(store.root().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_partial_blob_that_is_wrong_does_not_stay() {
    let (_keep, store) = store();
    let digest = sha256(b"right");
    let directory = store.root().join("partial");
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join(format!("sha256-{}", digest.hex()));
    // Longer than the blob: no beginning of it.
    std::fs::write(&file, b"too long").unwrap();
    let take = || match store.partial(&digest, 5, &mut || ()).unwrap() {
        Wanted::Ours(partial) => *partial,
        Wanted::There => panic!("the blob is there"),
    };
    let mut partial = take();
    let mut kept = Vec::new();
    partial.read_kept(&mut kept, 100).unwrap();
    assert!(kept.is_empty());
    partial.append(b"wrong").unwrap();
    assert!(matches!(partial.commit(), Err(StoreError::Corrupt { .. })));
    assert!(!file.exists() && !store.has_blob(&digest, 5));
    let mut partial = take();
    partial.append(b"right").unwrap();
    partial.check().unwrap();
    assert!(!file.exists() && !store.has_blob(&digest, 5));
}

#[test]
fn the_collector_spares_leases_and_clears_dead_rooms() {
    let (_keep, store) = store();
    let ingest = store.ingest().unwrap();
    ingest.store_bytes(&sha256(b"leased"), b"leased").unwrap();
    let mut partial = ingest.writer(&sha256(b"later"), 5).unwrap();
    partial.append(b"la").unwrap();
    // A writer that was killed: its room is there, nobody holds the lock.
    let dead = store.root.join("ingest/dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("lease"), sha256(b"dead").as_str()).unwrap();
    fs::write(dead.join("0"), b"half a blob").unwrap();
    fs::write(store.blob_path(&sha256(b"dead")), b"dead").unwrap();
    assert_eq!(store.disk_usage().unwrap().unreferenced, 10);
    let pruned = store.prune(&|_| false).unwrap();
    assert_eq!(pruned.deleted, [sha256(b"dead")]);
    assert!(pruned.reclaimed >= 4 + 11);
    assert_eq!((blob_count(&store), rooms(&store)), (1, 1));
    partial.append(b"ter").unwrap();
    ingest.commit(partial).unwrap();
    drop(ingest);
    assert_eq!(store.prune(&|_| false).unwrap().deleted.len(), 2);
    assert_eq!((blob_count(&store), rooms(&store)), (0, 0));
}

#[test]
fn damage_is_told_by_name_and_does_not_hide_the_rest() {
    let (_keep, store) = store();
    let id = enter(&store, b"one", Some("one"));
    enter(&store, b"two", Some("two"));
    fs::write(store.blob_path(&id), b"{}").unwrap();
    assert!(matches!(store.resolve("one"), Err(ResolveError::Store(StoreError::Corrupt { .. }))));
    assert_eq!(store.list().unwrap().len(), 1);
    fs::remove_file(store.blob_path(&id)).unwrap();
    assert!(matches!(store.resolve("one"), Err(ResolveError::Store(StoreError::Missing { .. }))));
    store.remove("one", false).unwrap();
    assert!(matches!(store.resolve("one"), Err(ResolveError::NotFound { .. })));
    fs::write(store.root.join("index.json"), b"{").unwrap();
    assert!(matches!(store.list(), Err(StoreError::Index { .. })));
}

#[test]
fn another_layout_version_is_refused() {
    let (_keep, store) = store();
    fs::write(store.root.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(ImageStore::open(&store.root), Err(StoreError::Layout { .. })));
}

#[test]
fn readers_and_writers_and_the_collector_do_not_break_each_other() {
    let (_keep, store) = store();
    enter(&store, b"kept", Some("kept"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    enter(store, b"flickering", Some("flickering"));
                    enter(store, &[number], Some(&format!("own{number}")));
                    store.resolve(&format!("own{number}")).unwrap();
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store
                    .prune(&|image| !image.names.iter().any(|name| name.path() != "library/flickering"))
                    .unwrap();
            }
        });
        for _ in 0..300 {
            store.resolve("kept").unwrap();
            match store.resolve("flickering") {
                Ok(image) => assert_eq!(image.layers.len(), 1),
                Err(ResolveError::NotFound { .. }) => {}
                Err(error) => panic!("a reader saw a broken image: {error:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    store.resolve("kept").unwrap();
    assert_eq!(rooms(&store), 0);
}

#[test]
fn other_tools_can_read_the_store() {
    let (_keep, store) = store();
    enter(&store, b"", Some("quay.io/team/app:v1"));
    let source = format!("oci:{}:quay.io/team/app:v1", store.root.display());
    match std::process::Command::new("skopeo").args(["inspect", "--raw", &source]).output() {
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{stderr}");
            let manifest = store.resolve("quay.io/team/app:v1").unwrap().manifest;
            assert_eq!(sha256(&output.stdout), manifest);
        }
        Err(error) => skip(&format!("skopeo cannot be run here: {error}")),
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

#[test]
fn opening_is_idempotent() {
    let (_keep, store) = store();
    let id = enter(&store, b"x", Some("x"));
    let again = ImageStore::open(Path::new(&store.root)).unwrap();
    assert_eq!(again.resolve("x").unwrap().id, id);
}

/// Enters an index of two images, ours and another machine's, and an attestation about ours; gives its digest.
fn enter_index(store: &ImageStore, name: &str) -> Digest {
    let ingest = store.ingest().unwrap();
    let describe = |media_type: &str, text: &str| {
        let digest = sha256(text.as_bytes());
        ingest.store_bytes(&digest, text.as_bytes()).unwrap();
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": text.len()})
    };
    let host = stanza_spec::Platform::host().architecture;
    let image = |architecture: &str, layer_type: &str| {
        let layer = describe(layer_type, architecture);
        let config = serde_json::json!({"architecture": architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}});
        let config = describe(OCI_CONFIG, &config.to_string());
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": config, "layers": [layer]});
        let mut entry = describe(OCI_MANIFEST, &manifest.to_string());
        entry["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
        (entry, config["digest"].as_str().unwrap().parse::<Digest>().unwrap())
    };
    let (ours, id) = image(&host, OCI_LAYER);
    let (other, _) = image("other", OCI_LAYER);
    let (mut about, _) = image("unknown", "application/vnd.in-toto+json");
    about["platform"]["os"] = "unknown".into();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": crate::document::OCI_INDEX,
        "manifests": [about, other, ours]});
    let entry = describe(crate::document::OCI_INDEX, &index.to_string());
    let descriptor: Descriptor = serde_json::from_value(entry).unwrap();
    let digest = descriptor.digest.clone();
    let new = NewEntry { descriptor, name: Some(name.parse().unwrap()), id, source: Some(digest.clone()) };
    store.update_index(|index| Ok::<_, StoreError>(index.set(new))).unwrap();
    digest
}

#[test]
fn an_index_is_one_image_to_its_users_and_whole_to_the_collector() {
    let (_keep, store) = store();
    let digest = enter_index(&store, "room:all");
    assert_eq!(blob_count(&store), 10);
    let image = store.resolve("room:all").unwrap();
    assert_eq!(image.digests, ["room:all".parse::<Reference>().unwrap().with_digest(digest.clone())]);
    assert_eq!(image.layers.len(), 1);
    for name in [format!("room@{digest}"), image.id.to_string(), image.id.short().to_owned()] {
        assert_eq!(store.resolve(&name).unwrap().id, image.id, "{name}");
    }
    store.prune(&|_| false).unwrap();
    assert_eq!(blob_count(&store), 10);
    assert_eq!(store.list().unwrap().len(), 1);
    let report = store.verify(&|_| true, true, 1).unwrap();
    assert_eq!((report.blobs, report.faults.len()), (10, 0));

    tag(&store, "room:all", "attic:1");
    store.remove("room:all", false).unwrap();
    assert_eq!(blob_count(&store), 10);
    assert_eq!(store.read_index().unwrap().manifests[0].digest, digest);
    assert_eq!(store.resolve("attic:1").unwrap().id, image.id);
    store.remove("attic:1", false).unwrap();
    assert_eq!(blob_count(&store), 0);
}
