//! `kill -9` at random moments of everything that writes to the stores: afterwards they are whole, the next pull succeeds,
//! and nothing grows. `STANZA_KILLS` sets how many kills, `STANZA_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use stanza_test::{Layout, Random, Registry, Stanza, Tarball, fixture, skip};

/// An image of three layers, two of them its own: one large file, and many small ones.
fn image(stanza: &Stanza, random: &mut Random, text: &str) -> Layout {
    let large = Tarball::new().file("large", 0o644, random.bytes(3 << 20)).file("text", 0o644, text).finish();
    let mut small = Tarball::new();
    for index in 0..400 {
        small = small.file(&format!("small/{}/{index}", index % 20), 0o644, random.bytes(700));
    }
    Layout::new(
        vec![stanza.busybox().to_vec(), large, small.file("last", 0o644, text).finish()],
        &json!({ "Cmd": ["cat", "/text", "/last"], "Env": ["PATH=/bin"] }),
    )
}

/// Bytes on disk of what belongs to images.
fn disk(stanza: &Stanza) -> u64 {
    fn walk(path: &Path) -> u64 {
        let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
        let children = if meta.is_dir() { fs::read_dir(path).ok() } else { None };
        meta.blocks() * 512
            + children.into_iter().flatten().map(|entry| walk(&entry.unwrap().path())).sum::<u64>()
    }
    ["images", "layers", "containers"].iter().map(|name| walk(&stanza.root().join(name))).sum()
}

/// Files and directories of the stores that are there only while something is going on.
fn unfinished(stanza: &Stanza) -> Vec<String> {
    let mut names = Vec::new();
    for directory in ["images/ingest", "images/partial", "layers/ingest"] {
        let entries = fs::read_dir(stanza.root().join(directory)).into_iter().flatten();
        names.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
    }
    names
}

#[test]
fn a_kill_at_any_moment_leaves_whole_stores_and_nothing_else() {
    let stanza = fixture!();
    // What is committed: it runs all the time, so that no prune takes it.
    stanza.sleeper("worker");
    stanza.ok(&["exec", "worker", "sh", "-c", "head -c 2000000 /dev/urandom >/work; echo committed >/text"]);
    let registry = match Registry::start() {
        Ok(registry) => registry,
        Err(reason) => skip!("{reason}"),
    };
    let kills: u64 = std::env::var("STANZA_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let mut random = Random::new();
    let seed = random.seed();
    let _ = registry.push(&image(&stanza, &mut random, "pulled"), "room:1");
    let pulled = registry.name("room:1");
    let archive = stanza
        .file("archive.tar", image(&stanza, &mut random, "loaded").archive("docker.io/library/loaded:1"));
    let config = format!("--config={}", stanza.file("now.toml", "[images]\npartial-age = \"0s\"\n"));
    let tight = format!(
        "--config={}",
        stanza.file("tight.toml", "[images]\npartial-age = \"0s\"\nbudget = \"1k\"\n")
    );

    let run_pulled = ["run", "--rm", "--network", "none", &pulled];
    let run_loaded = ["run", "--rm", "--network", "none", "loaded:1"];
    let works: [&[&str]; 11] = [
        &["pull", "-q", &pulled],
        &["load", "-q", "-i", &archive],
        &run_pulled,
        &run_loaded,
        &["commit", "worker", "committed:1"],
        &["rmi", "-f", &pulled],
        &["rmi", "-f", "loaded:1"],
        &["rmi", "-f", "committed:1"],
        &[&config, "image", "prune", "-af"],
        &[&tight, "image", "prune", "-f"],
        &["image", "verify", "--repair"],
    ];
    let clean = |stanza: &Stanza| {
        stanza.ok(&["system", "prune", "-f"]);
        stanza.ok(&[&config, "image", "prune", "-af"]);
    };
    // How long each takes, and what is there afterwards.
    let mut lengths = [Duration::from_millis(20); 11];
    for (work, length) in works.iter().zip(&mut lengths) {
        let start = Instant::now();
        let output = stanza.output(work);
        assert!(output.code == 0 || work.contains(&"loaded:1"), "{work:?}: {output:?}");
        *length = start.elapsed();
    }
    clean(&stanza);
    let before = disk(&stanza);
    assert_eq!(unfinished(&stanza), [""; 0]);

    for kill in 0..kills {
        let at = usize::try_from(random.below(11)).unwrap();
        // Twice as often what takes long: there are more moments in it.
        let at = if random.below(2) == 0 { at % 5 } else { at };
        let work = works[at];
        let mut command = stanza.command(work);
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let micros = u64::try_from(lengths[at].as_micros()).unwrap() * 11 / 10;
        std::thread::sleep(Duration::from_micros(random.below(micros)));
        let _ = child.kill();
        child.wait().unwrap();
        if kill % 5 == 4 {
            let output = stanza.output(&["image", "verify"]);
            assert_eq!(output.code, 0, "seed {seed}, kill {kill}, after {work:?}: {output:?}");
        }
    }
    let told = format!("seed {seed}");
    assert_eq!(stanza.output(&["image", "verify"]).code, 0, "{told}");
    stanza.ok(&["pull", "-q", &pulled]);
    assert_eq!(stanza.ok(&run_pulled), "pulledpulled", "{told}");
    stanza.ok(&["load", "-q", "-i", &archive]);
    assert_eq!(stanza.ok(&run_loaded), "loadedloaded", "{told}");
    stanza.ok(&["commit", "worker", "committed:1"]);
    let run_committed = ["run", "--rm", "--network", "none", "committed:1", "cat", "/text"];
    assert_eq!(stanza.ok(&run_committed), "committed", "{told}");
    assert_eq!(stanza.output(&["image", "verify"]).code, 0, "{told}");
    // A monitor that is not killed with its door ends by itself.
    stanza_test::wait_until("nothing runs", || stanza.ok(&["ps", "-q"]).lines().count() == 1);
    clean(&stanza);
    assert_eq!(unfinished(&stanza), [""; 0], "{told}");
    let after = disk(&stanza);
    // Directories keep the size that their entries once needed.
    assert!(after <= before + 128 * 1024, "{told}: {before} bytes became {after}");
}
