//! Hostile images through the executable: lines of the attack list about archives, compressed streams and configurations that
//! `crates/stanza-snapshot/tests/attacks.rs` and `crates/stanza-tar/tests/hostile.rs` do not hold (docs/threat-model.md has the table).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stanza_test::{FakeRegistry, Kind, Layout, Output, Stanza, Tarball, fixture, hex_sha256, skip, tool};

const RUN: [&str; 4] = ["run", "--rm", "--network", "none"];

/// An image whose layers are sent as `packed` says, with diff ids of what they are.
fn image(layers: Vec<Vec<u8>>, packed: &[(usize, Vec<u8>)], config: &Value) -> Layout {
    let mut layout = Layout::new(layers, config);
    let mut manifest: Value = serde_json::from_slice(&layout.manifest).unwrap();
    for (number, bytes) in packed {
        manifest["layers"][number]["digest"] = json!(format!("sha256:{}", hex_sha256(bytes)));
        manifest["layers"][number]["size"] = json!(bytes.len());
        layout.layers[*number].clone_from(bytes);
    }
    layout.manifest = serde_json::to_vec(&manifest).unwrap();
    layout
}

/// Busybox and a second layer that is sent as `packed`.
fn packed(stanza: &Stanza, layer: Vec<u8>, packed: Vec<u8>) -> Layout {
    image(vec![stanza.busybox().to_vec(), layer], &[(1, packed)], &json!({ "Cmd": ["cat", "/etc/release"] }))
}

fn release() -> Vec<u8> {
    Tarball::new().file("etc/release", 0o644, "one\n").finish()
}

/// Pulls it and runs it, when it can be pulled: what a layer says is looked at in one of the two.
fn try_out(stanza: &Stanza, layout: &Layout) -> Output {
    let registry = FakeRegistry::of(layout, |_, good| good);
    let name = registry.name("room:1");
    let pulled = stanza.output(&["pull", "-q", &name]);
    if pulled.code != 0 {
        return pulled;
    }
    let ran = stanza.output(&[&RUN[..], &[&name]].concat());
    stanza.ok(&["rmi", "-f", &name]);
    ran
}

fn refused(stanza: &Stanza, layout: &Layout, words: &[&str]) {
    let start = Instant::now();
    let output = try_out(stanza, layout);
    assert!(matches!(output.code, 1 | 125), "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "no `{word}` in: {}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked") && !output.stderr.contains('\u{1b}'), "{:?}", output.stderr);
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    let layers = stanza.root().join("layers");
    assert_eq!(fs::read_dir(layers.join("ingest")).unwrap().count(), 0);
}

fn taken(stanza: &Stanza, layout: &Layout) {
    let output = try_out(stanza, layout);
    assert_eq!((output.code, output.stdout.as_str()), (0, "one\n"), "{}", output.stderr);
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A member of gzip that stores and does not compress.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    let mut blocks = bytes.chunks(65_535).peekable();
    if bytes.is_empty() {
        out.extend_from_slice(b"\x01\0\0\xff\xff");
    }
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap();
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32(bytes).to_le_bytes());
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    out
}

/// A frame of zstd that stores and does not compress; its window is 2 to the power of `window`.
fn zstd(bytes: &[u8], window: u8) -> Vec<u8> {
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window - 10) << 3];
    let mut blocks = bytes.chunks(100_000).peekable();
    while let Some(block) = blocks.next() {
        let head = u32::try_from(block.len()).unwrap() << 3 | u32::from(blocks.peek().is_none());
        out.extend_from_slice(&head.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

#[test]
fn gzip_that_is_damaged_is_refused_and_many_members_are_read() {
    let stanza = fixture!(Empty);
    let layer = release();
    let good = gzip(&layer);
    taken(&stanza, &packed(&stanza, layer.clone(), good.clone()));
    let (first, second) = layer.split_at(700);
    let empty = gzip(b"");
    let members = [gzip(first), empty.repeat(100_000), gzip(second)].concat();
    taken(&stanza, &packed(&stanza, layer.clone(), members));
    let mut wrong_sum = good.clone();
    let at = wrong_sum.len() - 8;
    wrong_sum[at] ^= 1;
    let mut wrong_length = good.clone();
    *wrong_length.last_mut().unwrap() ^= 1;
    for damaged in [
        wrong_sum,
        wrong_length,
        good[..good.len() - 9].to_vec(),
        good[..30].to_vec(),
        [&good[..], b"\x1f\x8b"].concat(),
        [&good[..], b"garbage behind the end"].concat(),
        [&good[..], &gzip(b"more than the configuration says")].concat(),
    ] {
        refused(&stanza, &packed(&stanza, layer.clone(), damaged), &["sha256:"]);
    }
}

#[test]
fn zstd_with_windows_without_measure_and_dictionaries_is_refused() {
    let stanza = fixture!(Empty);
    let layer = release();
    taken(&stanza, &packed(&stanza, layer.clone(), zstd(&layer, 21)));
    let skipped = |length: u32| {
        [&[0x50, 0x2a, 0x4d, 0x18][..], &length.to_le_bytes(), &vec![7; length as usize]].concat()
    };
    let (first, second) = layer.split_at(700);
    let frames = [skipped(100_000), zstd(first, 20), skipped(0), zstd(second, 22), skipped(3)].concat();
    taken(&stanza, &packed(&stanza, layer.clone(), frames));
    let mut dictionary = zstd(&layer, 21);
    dictionary[4] = 1;
    dictionary.insert(6, 77);
    let whole = zstd(&layer, 21);
    for damaged in [
        zstd(&layer, 31),
        zstd(&layer, 41),
        dictionary,
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"garbage"].concat(),
        [&skipped(0)[..4], &u32::MAX.to_le_bytes()].concat(),
    ] {
        refused(&stanza, &packed(&stanza, layer.clone(), damaged), &["sha256:"]);
    }
}

/// Tools that fetch single files go by the table: one that lies shows them another image under the same digest.
#[test]
fn a_chunked_layer_whose_table_lies_is_taken_by_its_archive_and_named_by_verify() {
    let stanza = fixture!(Empty);
    let layer = release();
    let image_with = |content: &str| {
        let entry = json!({
            "type": "reg", "name": "etc/release", "size": content.len(), "offset": 0, "endOffset": 10,
            "digest": format!("sha256:{}", hex_sha256(content.as_bytes())),
        });
        let json = json!({ "version": 1, "entries": [entry] }).to_string().into_bytes();
        let (frame, table) = (zstd(&layer, 21), zstd(&json, 21));
        let length = u32::try_from(table.len()).unwrap().to_le_bytes();
        let blob = [&frame[..], &[0x50, 0x2a, 0x4d, 0x18], &length, &table].concat();
        let mut layout = packed(&stanza, layer.clone(), blob);
        let mut manifest: Value = serde_json::from_slice(&layout.manifest).unwrap();
        manifest["layers"][1]["annotations"] = json!({
            "io.github.containers.zstd-chunked.manifest-position":
                format!("{}:{}:{}:1", frame.len() + 8, table.len(), json.len()),
            "io.github.containers.zstd-chunked.manifest-checksum": format!("sha256:{}", hex_sha256(&table)),
        });
        layout.manifest = serde_json::to_vec(&manifest).unwrap();
        layout
    };
    for (content, code) in [("one\n", 0), ("two\n", 1), ("longer\n", 1)] {
        let registry = FakeRegistry::of(&image_with(content), |_, good| good);
        let name = registry.name("room:1");
        assert_eq!(stanza.ok(&[&RUN[..], &[&name]].concat()), "one");
        let output = stanza.output(&["image", "verify", &name]);
        let text = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(output.code, code, "{text}");
        assert_eq!(text.contains("`etc/release` has another"), code == 1, "{text}");
        stanza.ok(&["rmi", "-f", &name]);
    }
}

#[test]
fn other_compressions_and_what_is_no_archive_are_refused() {
    let stanza = fixture!(Empty);
    for bytes in [
        &b"\xfd7zXZ\0............................"[..],
        b"BZh91AY&SY............................",
        b"no archive at all, but as long as one might be.....",
        b"\0\0\0",
        &[0x55; 4096],
    ] {
        let layout = image(vec![bytes.to_vec()], &[], &json!({ "Cmd": ["true"] }));
        refused(&stanza, &layout, &["sha256"]);
    }
}

/// Runs a script in a mount name space of its own with a small memory file system at `$D`, and stanza in it as `s`.
fn on_a_small_disk(stanza: &Stanza, size: &str, script: &str) -> Option<Output> {
    let disk = stanza.directory().join("disk");
    fs::create_dir_all(&disk).unwrap();
    let prelude = r#"D=$1 S=$2; mount -t tmpfs -o "size=$3" tmpfs "$D" || exit 99
        s() { "$S" --root "$D/root" --runroot "$D/run" "$@"; }
        used() { df --output=used -k "$D" | tail -n 1 | tr -d ' '; }
        left() { find "$D"/root/images/ingest "$D"/root/layers/ingest -mindepth 1 2>/dev/null | grep -v partial; }"#;
    let (disk, binary) = (disk.display().to_string(), stanza.binary().display().to_string());
    let script = format!("{prelude}\n{script}");
    let words =
        ["unshare", "-m", "--propagation", "private", "sh", "-c", &script, "sh", &disk, &binary, size];
    let output = tool(&words);
    (output.code != 99).then_some(output)
}

#[test]
fn a_bomb_takes_no_more_than_the_disk_has_and_gives_it_back() {
    let stanza = fixture!(Empty);
    // A file of 4 GiB of zeros, as a member for its header and members of 64 MiB of zeros.
    let size = 4_u64 << 30;
    let mut header = Tarball::new().file("bomb", 0o644, "").finish()[..512].to_vec();
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let zeros = stanza.directory().join("zeros.gz");
    let made = tool(&["sh", "-c", "head -c 67108864 /dev/zero | gzip -9 >$1", "sh", zeros.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let blob = [gzip(&header), fs::read(&zeros).unwrap().repeat(64)].concat();
    // Nobody will get as far as its digest.
    let layout = packed(&stanza, b"what it claims to be".to_vec(), blob);
    let registry = FakeRegistry::of(&layout, |_, good| good);
    let good = FakeRegistry::of(&packed(&stanza, release(), gzip(&release())), |_, good| good);
    let (bomb, good) = (registry.name("bomb:1"), good.name("room:1"));
    let script = format!(
        "s pull -q {bomb} && s create --network none {bomb}; echo code $?; left; s rmi -f {bomb} >/dev/null 2>&1
         [ $(used) -lt 40000 ] || echo $(used) KiB stay
         s pull -q {good} >/dev/null; echo code $?"
    );
    let Some(output) = on_a_small_disk(&stanza, "96m", &script) else {
        skip!("no tmpfs may be mounted here")
    };
    let lines: Vec<&str> =
        output.stdout.lines().filter(|line| line.starts_with("code") || line.contains("stay")).collect();
    assert!(lines == ["code 1", "code 0"] || lines == ["code 125", "code 0"], "{output:?}");
    assert!(output.stderr.contains("No space left on device"), "{}", output.stderr);
}

#[test]
fn a_full_disk_is_named_and_the_next_pull_succeeds() {
    let stanza = fixture!(Empty);
    // Files that are not compressed, so that blobs and layers both want room; many of them, so that inodes end too.
    let mut tarball = Tarball::new();
    for number in 0..300 {
        let text: String =
            (0..200).map(|line| format!("{number} {line} {}\n", number * line % 977)).collect();
        tarball = tarball.file(&format!("data/{number}"), 0o644, text);
    }
    let layout = packed(&stanza, tarball.clone().finish(), gzip(&tarball.finish()));
    let registry = FakeRegistry::of(&layout, |_, good| good);
    let (name, archive) = (registry.name("room:1"), stanza.file("archive.tar", layout.archive("room:2")));
    for (verb, image) in
        [(format!("pull -q {name}"), name.as_str()), (format!("load -q -i {archive}"), "room:2")]
    {
        for size in ["1m", "2m", "3m", "4m", "5m", "6m", "8m", "32m,nr_inodes=60", "32m,nr_inodes=300"] {
            let script = format!(
                "s {verb} >/dev/null && s create --network none {image} true >/dev/null; echo code $?; left
                 mount -o remount,size=64m,nr_inodes=100000 \"$D\"
                 s {verb} >/dev/null; echo code $?; left
                 s create --network none {image} true >/dev/null; echo code $?
                 s rmi -f {image} >/dev/null 2>&1"
            );
            let Some(output) = on_a_small_disk(&stanza, size, &script) else {
                skip!("no tmpfs may be mounted here")
            };
            let rest =
                output.stdout.strip_prefix("code 1\n").or_else(|| output.stdout.strip_prefix("code 125\n"));
            if output.stdout == "code 0\ncode 0\ncode 0\n" {
                continue; // It fits.
            }
            assert_eq!(rest, Some("code 0\ncode 0\n"), "{verb} on {size}: {output:?}");
            let words = ["No space left on device", "no storage space", "disk is full"];
            let named = words.iter().any(|words| output.stderr.contains(words));
            assert!(named && output.stderr.contains('/'), "{verb} on {size}: {}", output.stderr);
        }
    }
}

/// What both tests below do on their disk: an image and a container of it with a file of 3 MB, and `full KIB`, which leaves
/// that much room.
const FILLED: &str = r#"
    full() {
        head -c 64m /dev/zero >"$D/fill" 2>/dev/null; truncate -s $(($(stat -c %b "$D/fill") / 2 - $1))K "$D/fill"
    }
    prepared() {
        s load -q -i $A >/dev/null && id=$(s create --network none room:1 true) || echo cannot prepare
        s cp "$D/blob" $id:/blob
    }
    stored() { du -sk "$D/root/images" "$D/root/layers" | awk '{n += $1} END {print n}'; }
    sound() { s image verify >/dev/null || echo "$1: not sound"; left; }
    head -c 3m /dev/urandom >"$D/blob"; prepared"#;

#[test]
fn a_commit_on_a_full_disk_leaves_a_whole_image_or_none() {
    let stanza = fixture!(Empty);
    let layout = image(vec![stanza.busybox().to_vec()], &[], &json!({ "Cmd": ["true"] }));
    let archive = stanza.file("archive.tar", layout.archive("room:1"));
    let script = format!(
        r#"A={archive}{FILLED}
        before=$(stored)
        for free in 0 4 16 64 256 1024 2048 3072 3200 3300 3500 6400 8192; do
            full $free; s commit $id made:1 >/dev/null; code=$?; rm "$D/fill"; sound "commit, $free KiB"
            case $code in 0) failed=$failed;; 1) failed="$failed $free";; *) echo "$free KiB: code $code";; esac
            [ $code = 0 ] || s image inspect made:1 >/dev/null 2>&1 && [ $code = 1 ] && echo "$free KiB: a name"
            s rmi -f made:1 >/dev/null 2>&1; now=$(stored)
            [ $now -le $((before + 24)) ] || echo "$free KiB: from $before to $now"
            s commit $id made:1 >/dev/null && s run --rm --network none made:1 true || echo "$free KiB: not again"
            s rmi -f made:1 >/dev/null
        done
        echo "failed:$failed""#
    );
    let Some(output) = on_a_small_disk(&stanza, "64m", &script) else {
        skip!("no tmpfs may be mounted here")
    };
    let failed = output.stdout.strip_prefix("failed: 0 4 16").unwrap_or_else(|| panic!("{output:?}"));
    assert!(!failed.contains("8192"), "{output:?}");
    assert!(output.stderr.contains("No space left on device"), "{}", output.stderr);
    // Somewhere between the blob and its unpacked form the image is whole, and says so.
    assert!(output.stderr.contains("is not unpacked yet"), "{}", output.stderr);
}

#[test]
fn a_full_disk_is_made_room_on_by_what_is_made_for_that() {
    let stanza = fixture!(Empty);
    let layout = image(vec![stanza.busybox().to_vec()], &[], &json!({ "Cmd": ["true"] }));
    let archive = stanza.file("archive.tar", layout.archive("room:1"));
    let script = format!(
        r#"A={archive}{FILLED}
        for verb in "image prune -a -f" "system prune -a -f" "rmi made:1"; do
            for free in 0 4 8 16 64 256 1024; do
                s commit $id made:1 >/dev/null || echo cannot commit
                full $free; before=$(used); s $verb >/dev/null || echo "$verb with $free KiB: code $?"
                [ $(used) -lt $((before - 3000)) ] || echo "$verb with $free KiB: from $before to $(used)"
                rm "$D/fill"; sound "$verb, $free KiB"
                s image prune -a -f >/dev/null || echo "not again"
                s inspect $id >/dev/null 2>&1 || prepared
            done
        done
        s rm $id >/dev/null; s image prune -a -f >/dev/null; rm "$D/blob"
        [ $(used) -lt 700 ] || echo "$(used) KiB stay""#
    );
    let Some(output) = on_a_small_disk(&stanza, "64m", &script) else {
        skip!("no tmpfs may be mounted here")
    };
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
}

#[test]
fn a_database_made_on_a_full_disk_is_whole_or_not_there() {
    let stanza = fixture!(Empty);
    // With a few dozen KiB its pages fit into the log and not into the file.
    let script = r#"
        for free in $(seq 0 8 160); do
            rm -rf "$D/root" "$D/run"; mkdir -p "$D/root"
            head -c 10m /dev/zero >"$D/fill" 2>/dev/null; truncate -s $((3072 - free))K "$D/fill"
            s ps -aq; [ $? = 0 ] && went=yes || failed=yes
            rm "$D/fill"
            s ps -aq || echo "damaged with $free KiB"
        done; echo "$went $failed""#;
    let Some(output) = on_a_small_disk(&stanza, "3m", script) else { skip!("no tmpfs may be mounted here") };
    assert_eq!(output.stdout, "yes yes\n", "{}", output.stderr);
}

#[test]
fn documents_of_an_archive_are_bounded() {
    let stanza = fixture!(Empty);
    let zeros = vec![b' '; 80 << 20];
    for name in ["manifest.json", "index.json", "oci-layout", "repositories"] {
        let file = stanza.file("large.tar", Tarball::new().file(name, 0o644, &zeros).finish());
        let made = tool(&["gzip", "-1", "-f", &file]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        let start = Instant::now();
        let error = stanza.fails(1, &["load", "-i", &format!("{file}.gz")]);
        assert!(start.elapsed() < Duration::from_secs(20) && !error.contains("panicked"), "{error}");
        assert_eq!(stanza.ok(&["images", "-aq"]), "");
    }
}

#[test]
fn a_hundred_thousand_entries_of_one_path_are_one_file() {
    let stanza = fixture!(Empty);
    let one = Tarball::new().file("etc/release", 0o644, "").finish()[..512].to_vec();
    let mut layer = one.repeat(100_000);
    layer.extend(release());
    taken(
        &stanza,
        &image(vec![stanza.busybox().to_vec(), layer], &[], &json!({ "Cmd": ["cat", "/etc/release"] })),
    );
    // No command of a test may take longer than a minute.
}

#[test]
fn directories_deeper_than_any_path_can_be_removed() {
    let stanza = fixture!(Empty);
    // Each link leads to the bottom of what was made through the link before it.
    let step = "d/".repeat(40);
    let mut tarball = Tarball::new().directory(&step, 0o755).symlink("l0", &step);
    for number in 1..30 {
        let path = format!("l{}/{step}", number - 1);
        tarball = tarball.directory(&path, 0o755).symlink(&format!("l{number}"), &path);
    }
    let layout = image(vec![stanza.busybox().to_vec(), tarball.finish()], &[], &json!({ "Cmd": ["true"] }));
    let output = try_out(&stanza, &layout);
    assert!(matches!(output.code, 0 | 1 | 125) && !output.stderr.contains("panicked"), "{output:?}");
    stanza.ok(&["system", "prune", "-a", "-f"]);
    let layers = stanza.root().join("layers");
    let diff_id = hex_sha256(&layout.layers[1]);
    assert!(!layers.join("sha256").join(diff_id).exists());
    assert_eq!(fs::read_dir(layers.join("ingest")).unwrap().count(), 0);
}

#[test]
fn links_of_a_lower_layer_lead_nowhere_outside() {
    let stanza = fixture!(Empty);
    let outside = stanza.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "safe").unwrap();
    let text = outside.to_str().unwrap();
    let lower = Tarball::new().symlink("d", text).symlink("etc2", "/etc").finish();
    let upper = Tarball::new()
        .file("d/victim", 0o644, "overwritten")
        .file("etc2/passwd", 0o644, "overwritten")
        .entry("e/device", 0o666, (0, 0), &Kind::CharacterDevice(1, 3))
        .entry("e/setuid", 0o6755, (0, 0), &Kind::File(b"x".to_vec()))
        .file("d/.wh.victim", 0o644, "")
        .file(".wh.etc2", 0o644, "")
        .finish();
    let passwd = fs::read("/etc/passwd").unwrap();
    let layout =
        image(vec![stanza.busybox().to_vec(), lower, upper], &[], &json!({ "Cmd": ["cat", "/d/victim"] }));
    let output = try_out(&stanza, &layout);
    // The layer's own directory `d` stands in the place of the link below it.
    assert_eq!((output.code, output.stdout.as_str()), (0, "overwritten"), "{}", output.stderr);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"safe");
    assert_eq!(fs::read("/etc/passwd").unwrap(), passwd);
}

#[test]
fn users_of_an_image_are_exact_or_refused() {
    let stanza = fixture!(Empty);
    for (user, expected) in [
        ("0:0", Some("0 0")),
        ("user", Some("1000 1000")),
        ("7:8", Some("7 8")),
        ("nosuch", None),
        ("1000:nosuch", None),
        ("4294967296", None),
        ("-1", None),
        ("4294967295", None),
        ("user:", None),
        ("\u{1b}[31mred", None),
        ("user\n0:0", None),
    ] {
        let config = json!({ "User": user, "Cmd": ["sh", "-c", "echo $(id -u) $(id -g)"] });
        let output = try_out(&stanza, &image(vec![stanza.busybox().to_vec()], &[], &config));
        match expected {
            Some(expected) => assert_eq!(output.stdout.trim(), expected, "{user}: {}", output.stderr),
            None => assert!(output.code == 125 || output.stdout.starts_with("1000 "), "{user:?}: {output:?}"),
        }
        assert!(!output.stderr.contains('\u{1b}'), "{:?}", output.stderr);
    }
}

#[test]
fn configurations_that_ask_for_what_cannot_be_are_refused_or_bounded() {
    let stanza = fixture!(Empty);
    let labels: serde_json::Map<String, Value> =
        (0..10_000).map(|number| (format!("l{number}"), json!("v"))).collect();
    let upper = Tarball::new().symlink("link", "/etc").file("etc/release", 0o644, "one\n").finish();
    let release = json!(["cat", "/etc/release"]);
    for (config, codes) in [
        (json!({ "Cmd": release, "Labels": labels }), &[0][..]),
        (json!({ "Cmd": ["cat", "release"], "WorkingDir": "/link" }), &[0]),
        (json!({ "Cmd": ["cat", "/etc/release"], "WorkingDir": "../../.." }), &[0, 125]),
        (json!({ "Cmd": release, "Volumes": { "/": {} } }), &[0, 125]),
        (json!({ "Cmd": release, "Volumes": { "../..": {} } }), &[0, 125]),
        (json!({ "Cmd": release, "ExposedPorts": { "99999/tcp": {}, "-1": {}, "x/y": {} } }), &[0, 125]),
        (json!({ "Entrypoint": ["/etc/not-executable-at-all"] }), &[127]),
        (json!({ "Entrypoint": ["/etc/passwd"] }), &[126]),
        (json!({ "Entrypoint": ["/etc"] }), &[126]),
        (json!({ "Entrypoint": [""] }), &[125, 126, 127]),
        (json!({ "Cmd": ["/\u{1b}[31mred"] }), &[127]),
        (json!({ "Cmd": release, "Env": ["=x", "", "A", "PATH=/bin", "B\u{1b}=c"] }), &[0, 125]),
        (json!({ "Cmd": release, "StopSignal": "SIGNOTHING" }), &[0, 125]),
        (json!({}), &[125]),
    ] {
        let layers = vec![stanza.busybox().to_vec(), upper.clone()];
        let output = try_out(&stanza, &image(layers, &[], &config));
        let told: String = config.to_string().chars().take(100).collect();
        assert!(codes.contains(&output.code), "{told}: {output:?}");
        assert!(
            !output.stderr.contains('\u{1b}') && !output.stderr.contains("panicked"),
            "{told}: {:?}",
            output.stderr
        );
    }
}

#[test]
fn escape_sequences_of_an_image_do_not_reach_the_terminal() {
    let stanza = fixture!(Empty);
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[31mred";
    let config = json!({ "Cmd": ["true", evil], "Labels": { evil: evil }, "Env": [format!("A={evil}")] });
    let mut layout = Layout::new(vec![stanza.busybox().to_vec()], &config);
    let mut document: Value = serde_json::from_slice(&layout.config).unwrap();
    document["author"] = json!(evil);
    document["history"][0]["created_by"] = json!(evil);
    layout.config = serde_json::to_vec(&document).unwrap();
    let mut manifest: Value = serde_json::from_slice(&layout.manifest).unwrap();
    manifest["config"]["digest"] = json!(format!("sha256:{}", hex_sha256(&layout.config)));
    manifest["config"]["size"] = json!(layout.config.len());
    manifest["annotations"] = json!({ evil: evil });
    layout.manifest = serde_json::to_vec(&manifest).unwrap();
    let registry = FakeRegistry::of(&layout, |_, good| good);
    let name = registry.name("room:1");
    stanza.ok(&["pull", "-q", &name]);
    stanza.ok(&["create", "--network", "none", "--name", "c1", &name]);
    for args in [
        vec!["images"],
        vec!["images", "--no-trunc"],
        vec!["image", "inspect", &name],
        vec!["inspect", "c1"],
        vec!["ps", "-a"],
        vec!["ps", "-a", "--no-trunc"],
        vec!["history", &name],
        vec!["history", "--no-trunc", &name],
    ] {
        if args[0] == "history" && stanza.output(&["history", "--help"]).code != 0 {
            continue; // Not built.
        }
        let (code, text) = stanza.terminal(&args).rest();
        assert_eq!(code, 0, "{args:?}: {text}");
        assert!(
            !text.contains("\u{1b}]0") && !text.contains("\u{1b}[31m") && !text.contains('\u{7}'),
            "{args:?}: {text:?}"
        );
    }
}

#[test]
fn an_image_is_whole_or_not_there_whatever_others_do() {
    let stanza = fixture!(Empty);
    let layout = packed(&stanza, release(), gzip(&release()));
    let registry = FakeRegistry::of(&layout, |_, good| good);
    let (name, archive) = (registry.name("room:1"), stanza.file("archive.tar", layout.archive("room:2")));
    let (whole, absent) = (AtomicU32::new(0), AtomicU32::new(0));
    let end = Instant::now() + Duration::from_secs(8);
    std::thread::scope(|scope| {
        let verbs: [Vec<&str>; 5] = [
            vec!["pull", "-q", &name],
            vec!["load", "-q", "-i", &archive],
            vec!["rmi", "-f", &name],
            vec!["rmi", "-f", "room:2"],
            vec!["image", "prune", "-a", "-f"],
        ];
        for verb in verbs {
            let stanza = &stanza;
            scope.spawn(move || {
                while Instant::now() < end {
                    let output = stanza.output(&verb);
                    // Removed by another as soon as it was there, or used by a container, is also an answer.
                    let text = output.stderr.to_lowercase();
                    let told = text.contains("no such image") || text.contains("is being used by");
                    assert!(output.code == 0 || (output.code == 1 && told), "{verb:?}: {output:?}");
                }
            });
        }
        for image in [name.as_str(), "room:2"] {
            let (stanza, whole, absent) = (&stanza, &whole, &absent);
            scope.spawn(move || {
                while Instant::now() < end {
                    let output = stanza.output(&[&RUN[..], &["--pull", "never", image]].concat());
                    match output.code {
                        0 => {
                            assert_eq!(output.stdout, "one\n");
                            whole.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {
                            let text = output.stderr.to_lowercase();
                            let told = text.contains("no such image")
                                || text.contains("the image was removed meanwhile");
                            assert!(output.code == 125 && told, "{output:?}");
                            absent.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    assert!(whole.into_inner() + absent.into_inner() > 4);
    stanza.ok(&["pull", "-q", &name]);
    assert_eq!(stanza.ok(&[&RUN[..], &["--pull", "never", &name]].concat()), "one");
    stanza.ok(&["rmi", "-f", &name]);
    stanza.ok(&["image", "prune", "-a", "-f"]);
    let blobs: &Path = &stanza.root().join("images/blobs/sha256");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0, "nothing grows");
}
