//! A store that never lies: damage is found and repaired, what is not needed goes, what is needed stays, sizes are true.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stanza_test::{FakeRegistry, Layout, Registry, Stanza, Tarball, fixture, skip};

fn layout(stanza: &Stanza) -> Layout {
    let upper = Tarball::new().file("etc/release", 0o644, "two\n").file("etc/data", 0o644, vec![7; 90_000]);
    Layout::new(
        vec![stanza.busybox().to_vec(), upper.finish()],
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

/// `image verify --format json` with more words: exit code and report.
fn verify(stanza: &Stanza, words: &[&str]) -> (i32, Value) {
    let output = stanza.output(&[&["image", "verify", "--format", "json"], words].concat());
    (output.code, serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")))
}

/// Kind and status of every problem.
fn problems(report: &Value) -> Vec<(String, String)> {
    let text = |problem: &Value, key: &str| problem[key].as_str().unwrap().to_owned();
    let list = report["Problems"].as_array().unwrap();
    list.iter().map(|problem| (text(problem, "Kind"), text(problem, "Status"))).collect()
}

fn pair(kind: &str, status: &str) -> (String, String) {
    (kind.to_owned(), status.to_owned())
}

fn blob(stanza: &Stanza, digest: &str) -> PathBuf {
    stanza.root().join("images/blobs").join(digest.replace(':', "/"))
}

/// Manifest, configuration and layers of an image by their blobs' paths, and the unpacked layers.
struct Parts {
    manifest: PathBuf,
    config: PathBuf,
    layers: Vec<PathBuf>,
    unpacked: Vec<PathBuf>,
}

fn parts(stanza: &Stanza) -> Parts {
    let index: Value =
        serde_json::from_slice(&fs::read(stanza.root().join("images/index.json")).unwrap()).unwrap();
    let manifest = blob(stanza, index["manifests"][0]["digest"].as_str().unwrap());
    let document: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let config = blob(stanza, document["config"]["digest"].as_str().unwrap());
    let image: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let layers = document["layers"].as_array().unwrap();
    let ids = image["rootfs"]["diff_ids"].as_array().unwrap();
    let home = |id: &Value| stanza.root().join("layers").join(id.as_str().unwrap().replace(':', "/"));
    Parts {
        manifest,
        config,
        layers: layers.iter().map(|layer| blob(stanza, layer["digest"].as_str().unwrap())).collect(),
        unpacked: ids.iter().map(home).collect(),
    }
}

/// Changes a byte in the middle of a file and nothing else.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_damage_is_found_and_repaired_from_the_registry() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let _ = registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    assert_eq!(run(&stanza, &[&name]), "two");
    let (code, report) = verify(&stanza, &[]);
    assert_eq!((code, problems(&report)), (0, vec![]), "{report}");
    assert_eq!((&report["Blobs"], &report["Layers"]), (&json!(4), &json!(2)));
    let part = parts(&stanza);

    let cases: [(&str, &dyn Fn()); 7] = [
        ("manifest", &|| damage(&part.manifest)),
        ("manifest", &|| fs::remove_file(&part.manifest).unwrap()),
        ("config", &|| fs::write(&part.config, "{}").unwrap()),
        ("blob", &|| damage(&part.layers[0])),
        ("blob", &|| fs::remove_file(&part.layers[1]).unwrap()),
        ("layer", &|| damage(&part.unpacked[1].join("fs/etc/release"))),
        ("layer", &|| fs::write(part.unpacked[0].join("record.json"), "").unwrap()),
    ];
    for (kind, harm) in cases {
        harm();
        let (code, report) = verify(&stanza, &[]);
        assert_eq!((code, problems(&report)), (1, vec![pair(kind, "damaged")]), "{report}");
        let (code, report) = verify(&stanza, &["--repair"]);
        assert_eq!((code, problems(&report)), (0, vec![pair(kind, "repaired")]), "{report}");
        let (code, report) = verify(&stanza, &[]);
        assert_eq!((code, problems(&report)), (0, vec![]), "{report}");
        assert_eq!(run(&stanza, &["--pull", "never", &name]), "two");
    }

    // All at once, and by name.
    damage(&part.manifest);
    damage(&part.config);
    damage(&part.layers[0]);
    damage(&part.unpacked[1].join("fs/etc/data"));
    assert_eq!(verify(&stanza, &[&name]).0, 1);
    let (code, report) = verify(&stanza, &["--repair", &name]);
    assert_eq!(code, 0, "{report}");
    let expected = ["manifest", "config", "blob", "layer"].map(|kind| pair(kind, "repaired"));
    assert_eq!(problems(&report), expected, "{report}");
    assert_eq!(problems(&verify(&stanza, &[]).1), []);
    assert!(stanza.fails(1, &["image", "verify", "nosuch"]).contains("nosuch"));
}

#[test]
fn what_cannot_be_repaired_is_named() {
    let stanza = fixture!();
    assert_eq!(run(&stanza, &["busybox", "echo", "here"]), "here");
    fs::write(stanza.root().join("images/blobs/sha256/stranger"), "").unwrap();
    let part = parts(&stanza);
    damage(&part.layers[0]);
    let output = stanza.output(&["image", "verify", "--repair"]);
    assert_eq!(output.code, 1);
    let line = output.stdout.lines().next().unwrap();
    assert!(line.starts_with("damaged: blob sha256:") && line.contains(" of busybox:latest: "), "{line}");
    assert!(line.ends_with("; not repaired: it came from no registry"), "{line}");
    assert!(output.stdout.contains("unknown: ") && output.stdout.contains("/stranger\n"), "{output:?}");
    // The unpacked layer is whole.
    assert_eq!(run(&stanza, &["busybox", "echo", "here"]), "here");
}

#[test]
fn a_layer_that_a_container_runs_on_is_not_touched() {
    let stanza = fixture!();
    let id = stanza.sleeper("c1");
    let part = parts(&stanza);
    let file = part.unpacked[0].join("fs/etc/passwd");
    damage(&file);
    let (code, report) = verify(&stanza, &["--repair"]);
    assert_eq!((code, problems(&report)), (1, vec![pair("layer", "damaged")]));
    assert!(report["Problems"][0]["Reason"].as_str().unwrap().contains("container `c1` runs on it"));
    stanza.ok(&["stop", "-t", "0", &id]);
    assert_eq!(verify(&stanza, &["--repair"]).0, 0);
    stanza.ok(&["start", "c1"]);
    assert_eq!(stanza.ok(&["exec", "c1", "head", "-c5", "/etc/passwd"]), "root:");
}

#[test]
fn an_ordinary_user_verifies_and_repairs_too() {
    let stanza = fixture!(Rootless, Empty);
    let registry = registry!();
    let _ = registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    assert_eq!(run(&stanza, &[&name]), "two");
    assert_eq!(verify(&stanza, &[]).0, 0);
    let part = parts(&stanza);
    damage(&part.unpacked[1].join("fs/etc/release"));
    damage(&part.layers[0]);
    assert_eq!(verify(&stanza, &[]).0, 1);
    let (code, report) = verify(&stanza, &["--repair"]);
    let expected = ["blob", "layer"].map(|kind| pair(kind, "repaired"));
    assert_eq!((code, problems(&report)), (0, expected.to_vec()), "{report}");
    assert_eq!(run(&stanza, &[&name]), "two");
    assert!(stanza.ok(&["system", "df"]).contains("Images"));
}

/// Bytes on disk as `du` counts.
fn du(path: &Path) -> u64 {
    fn walk(path: &Path, seen: &mut std::collections::HashSet<u64>) -> u64 {
        let meta = fs::symlink_metadata(path).unwrap();
        if meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino()) {
            return 0;
        }
        let mut total = meta.blocks() * 512;
        if meta.is_dir() {
            total += fs::read_dir(path).unwrap().map(|entry| walk(&entry.unwrap().path(), seen)).sum::<u64>();
        }
        total
    }
    walk(path, &mut std::collections::HashSet::new())
}

#[test]
fn df_adds_up_to_what_du_says() {
    let stanza = fixture!();
    let registry = registry!();
    let _ = registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    stanza.ok(&["pull", &name]);
    stanza.ok(&[
        "run",
        "--network",
        "none",
        "-v",
        "data:/data",
        "--name",
        "c1",
        &name,
        "sh",
        "-c",
        "head -c 100000 /dev/urandom >/data/f; head -c 50000 /dev/urandom >/g",
    ]);
    fs::create_dir_all(stanza.root().join("images/partial")).unwrap();
    fs::write(stanza.root().join("images/partial/sha256-00"), vec![1; 20_000]).unwrap();
    let lines = stanza.ok(&["system", "df", "--format", "json"]);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bytes = |kind: &str| {
        rows.iter().find(|row| row["Type"] == kind).and_then(|row| row["Bytes"].as_u64()).unwrap()
    };
    let total: u64 = rows.iter().map(|row| row["Bytes"].as_u64().unwrap()).sum();
    let actual = du(stanza.root());
    assert!(total.abs_diff(actual) <= 2 * 4096, "{total} {actual}: {lines}");
    assert!(bytes("Partial Images") >= 20_000 && bytes("Local Volumes") >= 100_000, "{lines}");
    assert!(bytes("Containers") >= 50_000 && bytes("Images") > 1 << 20, "{lines}");
    // Two images share the lower layer: what is shared counts once.
    let text = stanza.ok(&["system", "df", "-v", "--format", "json"]);
    let details: Value = serde_json::from_str(&text).unwrap();
    let images = details["Images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert!(images.iter().all(|image| image["SharedSize"] != "0B" && image["UniqueSize"] != "0B"), "{text}");
    assert_eq!(details["Volumes"][0]["Name"], "data");
    let table = stanza.ok(&["system", "df", "-v"]);
    for part in ["SHARED SIZE", "UNIQUE SIZE", "Local Volumes space usage:", "Build cache usage: 0B"] {
        assert!(table.contains(part), "{table}");
    }
}

#[test]
fn prune_heeds_its_filters() {
    let stanza = fixture!();
    let import = |label: &str, name: &str| {
        let tar = stanza.file(&format!("{label}.tar"), Tarball::new().file(label, 0o644, label).finish());
        stanza.ok(&["import", "-c", &format!("LABEL kind={label}"), &tar, name]);
    };
    import("a", "room:a");
    import("b", "room:b");
    import("c", "room:a");
    let names = || {
        let mut names: Vec<String> = stanza
            .ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
            .lines()
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["<none>:<none>", "busybox:latest", "room:a", "room:b"]);
    stanza.ok(&["image", "prune", "-f", "--filter", "label!=kind=a"]);
    assert_eq!(names().len(), 4);
    stanza.ok(&["image", "prune", "-af", "--filter", "label=kind=b"]);
    assert_eq!(names(), ["<none>:<none>", "busybox:latest", "room:a"]);
    stanza.ok(&["image", "prune", "-af", "--filter", "until=10m", "--filter", "label=kind"]);
    assert_eq!(names(), ["<none>:<none>", "busybox:latest", "room:a"]);
    let output = stanza.ok(&["image", "prune", "-f"]);
    assert!(output.contains("Deleted Images:\ndeleted: sha256:"), "{output}");
    assert!(output.contains("Total reclaimed space: "), "{output}");
    assert_eq!(names(), ["busybox:latest", "room:a"]);
    stanza.ok(&["image", "prune", "-f", "--filter", "dangling=false", "--filter", "label=kind=c"]);
    assert_eq!(names(), ["busybox:latest"]);
    assert!(stanza.fails(1, &["image", "prune", "-f", "--filter", "colour=red"]).contains("colour"));
}

#[test]
fn over_the_budget_blobs_of_registries_go_first_and_come_again_when_they_are_needed() {
    let stanza = fixture!(Empty);
    let layout = layout(&stanza);
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let registry = FakeRegistry::of(&layout, move |request, answer| {
        if request.method == "GET" && request.path.contains("/blobs/") {
            count.fetch_add(1, Ordering::Relaxed);
        }
        answer
    });
    let name = registry.name("room:1");
    let config = format!("--config={}", stanza.file("tight.toml", "[images]\nbudget = \"1k\"\n"));
    assert_eq!(run(&stanza, &[&name]), "two");
    let part = parts(&stanza);
    assert!(part.layers.iter().all(|path| path.exists()));
    stanza.ok(&[&config, "image", "prune", "-f"]);
    assert!(part.layers.iter().all(|path| !path.exists()) && part.config.exists() && part.manifest.exists());
    let (code, report) = verify(&stanza, &[]);
    assert_eq!((code, &report["Dropped"], problems(&report)), (0, &json!(2), vec![]), "{report}");
    // It runs as before, and a pull brings nothing.
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(run(&stanza, &[&name]), "two");
    stanza.ok(&["pull", &name]);
    assert_eq!(asked.load(Ordering::Relaxed), before);
    // A layer that is damaged needs its blob.
    damage(&part.unpacked[1].join("fs/etc/release"));
    let (code, report) = verify(&stanza, &["--repair"]);
    assert_eq!((code, problems(&report)), (0, vec![pair("layer", "repaired")]), "{report}");
    assert!(part.layers[1].exists() && !part.layers[0].exists());
    assert_eq!(asked.load(Ordering::Relaxed), before + 1);
    // So does one that is gone.
    fs::remove_dir_all(&part.unpacked[0]).unwrap();
    assert_eq!(run(&stanza, &[&name]), "two");
    assert_eq!(verify(&stanza, &[]).1["Dropped"], 0);
    // What came from no registry stays; with `evict`, all that no container uses goes.
    stanza.ok(&["tag", &name, "kept"]);
    let evict = stanza.file("evict.toml", "[images]\nbudget = \"1k\"\nevict = true\n");
    let _ = stanza.ok(&["create", "--network", "none", "--name", "c1", &name]);
    stanza.ok(&[&format!("--config={evict}"), "image", "prune", "-f"]);
    assert_ne!(stanza.ok(&["images", "-q"]), "");
    stanza.ok(&["start", "-a", "c1"]);
    stanza.ok(&["rm", "c1"]);
    stanza.ok(&[&format!("--config={evict}"), "image", "prune", "-f"]);
    assert_eq!(stanza.ok(&["images", "-q"]), "");
    assert!(part.unpacked.iter().all(|path| !path.exists()));
    assert_eq!(fs::read_dir(stanza.root().join("images/dropped")).unwrap().count(), 0);
}

#[test]
fn a_wrong_configuration_is_told_by_those_who_read_it_and_only_by_them() {
    let stanza = fixture!();
    let config = format!("--config={}", stanza.file("wrong.toml", "[images]\n\nbudgte = \"1g\"\n"));
    let error = stanza.fails(1, &[&config, "image", "prune", "-f"]);
    assert!(
        error.contains("wrong.toml`, line 3: unknown field `budgte`, expected one of `budget`"),
        "{error}"
    );
    stanza.ok(&["create", "--network", "none", "--name", "there", "busybox", "echo", "here"]);
    assert_eq!(stanza.ok(&[&config, "start", "-a", "there"]), "here");
    assert_eq!(stanza.ok(&[&config, "ps", "-a", "--format", "{{.Names}}"]), "there");
    // A new container asks for the storage driver, unless it is given.
    let words = ["run", "--rm", "--network", "none", "busybox", "echo", "here"];
    let error = stanza.fails(125, &[&[config.as_str()], &words[..]].concat());
    assert!(error.contains("wrong.toml`, line 3: "), "{error}");
    let given = [&[config.as_str(), "--storage-driver", "overlay"], &words[..]].concat();
    assert_eq!(stanza.ok(&given), "here");
    assert!(stanza.fails(1, &["--config=/nonexistent", "image", "prune", "-f"]).contains("/nonexistent"));
}

#[test]
fn old_partial_downloads_are_aged_out() {
    let stanza = fixture!();
    let directory = stanza.root().join("images/partial");
    fs::create_dir_all(&directory).unwrap();
    let old = directory.join("sha256-aa");
    let held = directory.join("sha256-cc");
    for path in [&old, &directory.join("sha256-bb"), &held] {
        fs::write(path, vec![1; 5000]).unwrap();
    }
    let day = Duration::from_secs(25 * 60 * 60);
    for path in [&old, &held] {
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(std::time::SystemTime::now() - day)
            .unwrap();
    }
    let lock = fs::File::open(&held).unwrap();
    lock.lock().unwrap();
    stanza.ok(&["image", "prune", "-f"]);
    assert!(!old.exists() && held.exists() && directory.join("sha256-bb").exists());
    drop(lock);
    let config = format!("--config={}", stanza.file("now.toml", "[images]\npartial-age = \"0s\"\n"));
    stanza.ok(&[&config, "image", "prune", "-f"]);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn runs_pulls_removals_and_prunes_at_once_never_break_an_image() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let _ = registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    let name = name.as_str();
    let archive = stanza.file("archive.tar", layout(&stanza).archive("docker.io/library/loaded:1"));
    let seconds = std::env::var("STANZA_STRESS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let end = Instant::now() + Duration::from_secs(seconds);
    let failed = AtomicBool::new(false);
    let stanza = &stanza;
    let failed = &failed;
    let work = |words: &[&'static str], last: &str, expected: &'static [&'static str]| {
        let words: Vec<String> = words.iter().copied().chain([last]).map(str::to_owned).collect();
        move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let mut done = 0;
            while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                let output = stanza.output(&words);
                if output.code != 0 && !expected.iter().any(|text| output.stderr.contains(text)) {
                    failed.store(true, Ordering::Relaxed);
                    panic!("{words:?}: {output:?}");
                }
                done += usize::from(output.code == 0);
            }
            done
        }
    };
    // What may be told when an image goes in the middle of it.
    const GONE: &[&str] = &["no such image", "the image was removed meanwhile"];
    const USED: &[&str] = &["no such image", "is using its referenced image", "running container"];
    let run = ["run", "--rm", "--network", "none"];
    let kept = ["run", "--rm", "--network", "none", "--pull", "never"];
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let workers = [
            scope.spawn(work(&run, name, GONE)),
            scope.spawn(work(&kept, name, GONE)),
            scope.spawn(work(&kept, "loaded:1", GONE)),
            scope.spawn(work(&["pull", "-q"], name, &[])),
            scope.spawn(work(&["load", "-q", "-i"], &archive, &[])),
            scope.spawn(work(&["rmi"], name, USED)),
            scope.spawn(work(&["rmi", "-f"], "loaded:1", USED)),
            scope.spawn(work(&["image", "prune"], "-af", &[])),
        ];
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    let (code, report) = verify(stanza, &[]);
    assert_eq!((code, problems(&report)), (0, vec![]), "{report}");
    assert_eq!(stanza.ok(&["run", "--rm", "--network", "none", name]), "two");
}
