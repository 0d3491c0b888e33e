//! Bad input and faults: a clear error that names the thing, Docker's exit code, nothing left behind.

use std::fs;
use std::net::TcpListener;

use serde_json::json;
use stanza_test::{Answer, FakeRegistry, Layout, Request, Stanza, Tarball, fixture, skip, tool};

/// A failing command whose error has these words and that leaves everything as it was.
fn refused(stanza: &Stanza, code: i32, args: &[&str], words: &[&str]) -> String {
    let before = stanza.leftovers();
    let error = stanza.fails(code, args);
    for word in words {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
    assert!(
        error.lines().filter(|line| !line.starts_with("warning:")).count() <= 3,
        "too many words: {error}"
    );
    assert!(!error.contains("panicked"), "{error}");
    stanza.assert_clean(&before);
    error
}

const RUN: [&str; 4] = ["run", "--rm", "--network", "none"];

fn run<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&RUN, args].concat()
}

fn layout(stanza: &Stanza) -> Layout {
    Layout::new(vec![stanza.busybox().to_vec()], &json!({ "Cmd": ["true"] }))
}

/// Pulls from a registry whose answers are altered; the error.
fn pull(
    alter: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    words: &[&str],
    stanza: &Stanza,
) -> FakeRegistry {
    let registry = FakeRegistry::of(&layout(stanza), alter);
    refused(stanza, 1, &["pull", &registry.name("room:1")], words);
    assert_eq!(stanza.ok(&["images", "-aq"]), "", "nothing may become visible");
    registry
}

#[test]
fn an_unknown_image_is_named() {
    let stanza = fixture!(Empty);
    refused(&stanza, 125, &run(&["--pull", "never", "no-such-image", "true"]), &["no-such-image"]);
    for args in [["rmi", "no-such-image"], ["image", "inspect"]] {
        let args: Vec<&str> =
            if args[0] == "image" { vec!["image", "inspect", "no-such-image"] } else { args.to_vec() };
        refused(&stanza, 1, &args, &["no-such-image"]);
    }
}

#[test]
fn a_reference_that_is_none_is_named() {
    let stanza = fixture!(Empty);
    for name in ["room/UPPER", "a@sha256:12", "a:b:c:d", "-x-", "a//b", &"x".repeat(300)] {
        refused(&stanza, 125, &run(&["--", name, "true"]), &[name]);
    }
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let stanza = fixture!(Empty);
    let name = format!("127.0.0.1:{}/room:1", stanza_test::free_port());
    refused(&stanza, 1, &["pull", &name], &["127.0.0.1"]);
}

#[test]
fn a_registrys_refusals_are_told() {
    let stanza = fixture!(Empty);
    for (status, word) in
        [(401, "credentials"), (403, "denies"), (404, "room"), (429, "rate"), (500, "500"), (503, "503")]
    {
        pull(
            move |request, good| {
                if request.path.contains("/manifests/") {
                    Answer::status(status).header("Retry-After", "0")
                } else {
                    good
                }
            },
            &["127.0.0.1", word],
            &stanza,
        );
    }
}

#[test]
fn an_absurd_pause_of_the_registry_is_not_waited_for() {
    let stanza = fixture!(Empty);
    let start = std::time::Instant::now();
    pull(|_, _| Answer::status(429).header("Retry-After", "86400"), &["rate"], &stanza);
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn a_blob_with_another_digest_is_refused() {
    let stanza = fixture!(Empty);
    pull(
        |request, mut good| {
            if request.path.contains("/blobs/") && good.body.len() > 100_000 {
                good.body[70_000] ^= 1;
            }
            good
        },
        &["digest", "sha256:"],
        &stanza,
    );
}

#[test]
fn a_manifest_with_another_digest_is_refused() {
    let stanza = fixture!(Empty);
    let registry = FakeRegistry::of(&layout(&stanza), |_: &Request, good: Answer| good);
    let name = registry.name(&format!("room@sha256:{}", "1".repeat(64)));
    refused(&stanza, 1, &["pull", &name], &["digest"]);
}

#[test]
fn a_truncated_blob_is_refused_and_what_came_is_kept_for_the_next_pull() {
    let stanza = fixture!(Empty);
    let before = stanza.leftovers();
    let cut = |request: &Request, mut good: Answer| {
        if request.path.contains("/blobs/") && good.body.len() > 100_000 {
            good.length = Some(good.body.len());
            good.body.truncate(50_000);
        }
        good
    };
    let registry = FakeRegistry::of(&layout(&stanza), cut);
    let error = stanza.fails(1, &["pull", &registry.name("room:1")]);
    assert!(error.contains("breaks off"), "{error}");
    assert_eq!(stanza.ok(&["images", "-aq"]), "", "nothing may become visible");
    let partials = stanza.root().join("images/partial");
    let kept: Vec<u64> =
        fs::read_dir(&partials).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(kept, [50_000]);
    let whole = FakeRegistry::of(&layout(&stanza), |_: &Request, good: Answer| good);
    stanza.ok(&["pull", &whole.name("room:1")]);
    assert_eq!(fs::read_dir(&partials).unwrap().count(), 0);
    stanza.ok(&["rmi", &whole.name("room:1")]);
    stanza.assert_clean(&before);
}

#[test]
fn a_document_that_is_no_manifest_is_refused() {
    let stanza = fixture!(Empty);
    for body in ["", "{", "[]", r#"{"schemaVersion":1}"#, "<html>"] {
        pull(
            move |request, good| {
                if request.path.contains("/manifests/") {
                    Answer::ok("application/vnd.oci.image.manifest.v1+json", body)
                } else {
                    good
                }
            },
            &["room"],
            &stanza,
        );
    }
}

#[test]
fn an_index_without_this_platform_is_refused() {
    let stanza = fixture!(Empty);
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", "2".repeat(64)), "size": 3,
        "platform": { "os": "linux", "architecture": "s390x" } }] });
    pull(
        move |request, good| {
            let body = serde_json::to_vec(&index).unwrap();
            if request.path.contains("/manifests/") {
                Answer::ok("application/vnd.oci.image.index.v1+json", body)
            } else {
                good
            }
        },
        &["linux/", "s390x"],
        &stanza,
    );
}

#[test]
fn an_archive_that_attacks_is_refused_and_touches_nothing() {
    let stanza = fixture!();
    let outside = stanza.directory().join("outside");
    let climbing = format!("{}{}", "../".repeat(20), outside.strip_prefix("/").unwrap().display());
    let absolute = outside.display().to_string();
    for (name, tarball) in [
        ("climbs", Tarball::new().file(&climbing, 0o644, "x")),
        ("absolute", Tarball::new().file(&absolute, 0o644, "x")),
        (
            "through a link",
            Tarball::new().symlink("d", stanza.directory().to_str().unwrap()).file("d/outside", 0o644, "x"),
        ),
        (
            "hard link",
            Tarball::new().entry(
                "h",
                0o644,
                (0, 0),
                &stanza_test::Kind::Hardlink("../../../../../../etc/passwd".into()),
            ),
        ),
    ] {
        let archive = tarball.directory("bin/", 0o755).finish();
        let output = stanza.output_with_input(&["import", "-", "attack:1"], &archive);
        let ran = stanza.output(&run(&["attack:1", "/bin/none"]));
        assert!(
            output.code == 1 || [125, 127].contains(&ran.code),
            "{name}: {} {} {}",
            output.code,
            ran.code,
            ran.stderr
        );
        assert!(!outside.exists(), "{name}");
        stanza.output(&["rmi", "-f", "attack:1"]);
    }
}

#[test]
fn broken_archives_are_refused() {
    let stanza = fixture!(Empty);
    let good = layout(&stanza).archive("room:1");
    let half = &good[..good.len() / 2];
    for (bytes, verb) in [
        (&b"no archive at all"[..], "load"),
        (half, "load"),
        (&b""[..], "load"),
        (&b"\x1f\x8b\x08garbage"[..], "load"),
    ] {
        let before = stanza.leftovers();
        let output = stanza.output_with_input(&[verb], bytes);
        assert_eq!(output.code, 1, "{} bytes: {}", bytes.len(), output.stderr);
        assert!(output.stderr.contains("archive") || output.stderr.contains("blob"), "{}", output.stderr);
        stanza.assert_clean(&before);
    }
    refused(&stanza, 1, &["load", "-i", "/no/such/file"], &["/no/such/file"]);
    refused(&stanza, 1, &["import", "/no/such/file", "x"], &["/no/such/file"]);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let stanza = fixture!(Empty);
    let disk = stanza.directory().join("disk");
    fs::create_dir(&disk).unwrap();
    // The mount lives in a name space of its own, which ends with the commands.
    let script = r#"
        mount -t tmpfs -o size=1m tmpfs "$1" || exit 99
        cat > "$1/../busybox.tar"
        "$2" --root "$1/root" --runroot "$1/run" import "$1/../busybox.tar" busybox; echo "code $?"
        "$2" --root "$1/root" --runroot "$1/run" images -q; echo "code $?"
        find "$1/root" -type f -size +0 | grep -v stanza.db | grep -v index.json | grep -v oci-layout"#;
    let mut command = std::process::Command::new("unshare");
    let binary = stanza.binary().display().to_string();
    command.args([
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        disk.to_str().unwrap(),
        &binary,
    ]);
    let mut running = stanza_test::Running::start(command);
    running.send(stanza.busybox());
    let output = running.finish();
    if output.stdout.is_empty() {
        skip!("no tmpfs may be mounted here: {}", output.stderr);
    }
    assert_eq!(output.stdout, "code 1\ncode 0\n", "{}", output.stderr);
    assert!(output.stderr.contains("No space left on device"), "{}", output.stderr);
}

#[test]
fn a_full_disk_stops_a_run_with_125() {
    let stanza = fixture!(Empty);
    let disk = stanza.directory().join("disk");
    fs::create_dir(&disk).unwrap();
    let script = r#"
        mount -t tmpfs -o size=16m tmpfs "$1" || exit 99
        s="$2 --root $1/root --runroot $1/run"
        cat > "$1/../busybox.tar"
        $s import "$1/../busybox.tar" busybox >/dev/null && $s run --rm --network none busybox echo fits
        dd if=/dev/zero of="$1/fill" bs=4k 2>/dev/null
        $s run --rm --network none busybox true; echo "code $?"
        rm "$1/fill"
        $s ps -aq
        $s run --rm --network none busybox echo fits again"#;
    let mut command = std::process::Command::new("unshare");
    let binary = stanza.binary().display().to_string();
    command.args([
        "-m",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        disk.to_str().unwrap(),
        &binary,
    ]);
    let mut running = stanza_test::Running::start(command);
    running.send(stanza.busybox());
    let output = running.finish();
    if output.stdout.is_empty() {
        skip!("no tmpfs may be mounted here: {}", output.stderr);
    }
    assert_eq!(output.stdout, "fits\ncode 125\nfits again\n", "{}", output.stderr);
    assert!(output.stderr.contains("No space left") || output.stderr.contains("full"), "{}", output.stderr);
}

#[test]
fn an_unknown_user_is_named() {
    let stanza = fixture!();
    refused(&stanza, 125, &run(&["-u", "nosuch", "busybox", "true"]), &["nosuch"]);
    refused(&stanza, 125, &run(&["-u", "user:nosuch", "busybox", "true"]), &["nosuch"]);
}

#[test]
fn a_working_directory_that_cannot_be_is_named() {
    let stanza = fixture!();
    refused(&stanza, 125, &run(&["-w", "relative", "busybox", "true"]), &["relative"]);
    let error = stanza.output(&run(&["-w", "/etc/passwd", "busybox", "true"]));
    assert!([125, 126, 127].contains(&error.code), "{}", error.code);
    assert!(error.stderr.contains("/etc/passwd"), "{}", error.stderr);
}

#[test]
fn a_bad_mount_is_named() {
    let stanza = fixture!();
    refused(
        &stanza,
        125,
        &run(&["--mount", "type=bind,source=/no/such/dir,target=/x", "busybox", "true"]),
        &["/no/such/dir"],
    );
    refused(&stanza, 125, &run(&["-v", "relative/dir:/x", "busybox", "true"]), &["relative/dir"]);
    refused(&stanza, 125, &run(&["-v", "/tmp:relative", "busybox", "true"]), &["relative"]);
    refused(&stanza, 125, &run(&["-v", "/tmp:/x:nonsense", "busybox", "true"]), &["nonsense"]);
    refused(&stanza, 125, &run(&["-v", "/tmp:/", "busybox", "true"]), &["/"]);
    refused(&stanza, 125, &run(&["-v", "/tmp:/x", "-v", "/var:/x", "busybox", "true"]), &["/x"]);
    refused(&stanza, 125, &run(&["--mount", "type=nonsense,target=/x", "busybox", "true"]), &["nonsense"]);
    let file = stanza.file("plain", "x");
    let error = stanza.output(&run(&["-v", &format!("{file}:/etc"), "busybox", "true"]));
    assert!([125, 126, 127].contains(&error.code));
    assert!(error.stderr.contains("/etc"), "{}", error.stderr);
}

#[test]
fn a_taken_name_is_named() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    let id = stanza.inspect("c1")["Id"].as_str().unwrap().to_owned();
    refused(
        &stanza,
        125,
        &["run", "-d", "--network", "none", "--name", "c1", "busybox", "true"],
        &["\"/c1\"", &id[..12]],
    );
    refused(&stanza, 1, &["create", "--name", "c1", "busybox", "true"], &["/c1"]);
}

#[test]
fn a_taken_port_is_named() {
    let stanza = fixture!(PrivateNetwork);
    let listener = stanza.network().unwrap().enter(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let port = listener.local_addr().unwrap().port().to_string();
    let published = format!("{port}:80");
    refused(&stanza, 125, &["run", "--rm", "-p", &published, "busybox", "true"], &[&port]);
    stanza.ok(&["run", "-d", "--name", "c1", "-p", "8080:80", "busybox", "sleep", "1000"]);
    refused(&stanza, 125, &["run", "--rm", "-p", "8080:80", "busybox", "true"], &["8080"]);
    stanza.ok(&["rm", "-f", "c1"]);
    drop(listener);
    assert_eq!(
        stanza.ok(&["run", "--rm", "-p", &published, "-p", "8080:80", "busybox", "echo", "free"]),
        "free"
    );
}

#[test]
fn limits_that_cannot_be_are_named() {
    let stanza = fixture!();
    refused(&stanza, 125, &run(&["--memory", "1m", "busybox", "true"]), &["6MB"]);
    refused(&stanza, 125, &run(&["--memory", "nonsense", "busybox", "true"]), &["nonsense"]);
    refused(&stanza, 125, &run(&["--memory", "64m", "--memory-swap", "32m", "busybox", "true"]), &["wap"]);
    refused(&stanza, 125, &run(&["--cpus", "1000000", "busybox", "true"]), &["CPUs"]);
    refused(&stanza, 125, &run(&["--cpuset-cpus", "9999", "busybox", "true"]), &["9999"]);
    refused(&stanza, 125, &run(&["--ulimit", "nonsense=1", "busybox", "true"]), &["nonsense"]);
    refused(&stanza, 125, &run(&["--ulimit", "nofile=9:3", "busybox", "true"]), &["nofile"]);
    refused(&stanza, 125, &run(&["--cap-add", "nonsense", "busybox", "true"]), &["nonsense"]);
    refused(&stanza, 125, &run(&["--security-opt", "seccomp=/no/such", "busybox", "true"]), &["/no/such"]);
    refused(&stanza, 125, &run(&["--security-opt", "nonsense", "busybox", "true"]), &["nonsense"]);
    refused(&stanza, 125, &["run", "--rm", "--network", "nonsense", "busybox", "true"], &["nonsense"]);
    refused(&stanza, 125, &run(&["--env-file", "/no/such", "busybox", "true"]), &["/no/such"]);
}

#[test]
fn a_limit_above_the_machines_is_lowered_with_a_warning() {
    let stanza = fixture!();
    let own = tool(&["sh", "-c", "ulimit -Hn"]).stdout.trim().to_owned();
    let Ok(hard) = own.parse::<u64>() else { skip!("the hard limit is `{own}`") };
    let more = format!("nofile={}:{}", hard * 2, hard * 2);
    let capable = tool(&["sh", "-c", &format!("ulimit -Hn {}", hard * 2)]).code == 0;
    let output = stanza.shell(&["--ulimit", &more], "ulimit -Hn");
    assert_eq!(output.code, 0, "{}", output.stderr);
    if capable {
        assert_eq!(output.stdout.trim(), (hard * 2).to_string());
    } else {
        assert_eq!(output.stdout.trim(), own);
        assert!(
            output.stderr.to_lowercase().contains("warn") && output.stderr.contains("nofile"),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let stanza = fixture!();
    for name in ["..", "a/b", "-a", "a b", "ä", ""] {
        let option = format!("--name={name}");
        let output = stanza.output(&run(&[&option, "busybox", "true"]));
        if name.is_empty() {
            continue; // Docker takes the empty name as none.
        }
        assert_eq!(output.code, 125, "`{name}`: {}", output.stderr);
        assert!(output.stderr.contains(name), "{}", output.stderr);
    }
}

#[test]
fn a_corrupt_database_is_named() {
    let stanza = fixture!();
    stanza.ok(&["create", "--name", "c1", "--network", "none", "busybox", "true"]);
    let database = stanza.root().join("stanza.db");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(stanza.root().join(format!("stanza.db{suffix}")));
    }
    fs::write(&database, vec![0xa5; 8192]).unwrap();
    for (code, args) in [(1, vec!["ps", "-a"]), (125, run(&["busybox", "true"]))] {
        let error = stanza.fails(code, &args);
        assert!(error.contains("stanza.db"), "{error}");
        assert!(error.contains("hint"), "{error}");
    }
}

#[test]
fn a_corrupt_exit_record_is_survived() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    let id = stanza.ok(&["run", "-d", "--network", "none", "--name", "c1", "busybox", "true"]);
    stanza.wait_state("c1", "exited");
    fs::write(stanza.root().join("containers").join(&id).join("exit.json"), "{\"code\":").unwrap();
    let listed = stanza.output(&["ps", "-a"]);
    assert!(listed.stdout.contains(&id[..12]) || listed.stderr.contains("exit.json"), "{listed:?}");
    stanza.ok(&["rm", "-f", "c1"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_container_directory_that_is_gone_is_told_and_removed() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    let id = stanza.ok(&["create", "--name", "c1", "--network", "none", "busybox", "true"]);
    fs::remove_dir_all(stanza.root().join("containers").join(&id)).unwrap();
    let output = stanza.output(&["start", "c1"]);
    if output.code != 0 {
        assert!(output.stderr.contains(&id) || output.stderr.contains("c1"), "{}", output.stderr);
    }
    stanza.ok(&["rm", "-f", "c1"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_missing_layer_is_unpacked_again_or_named() {
    let stanza = fixture!();
    stanza.shell_ok(&[], "true");
    let layers = stanza.root().join("layers/sha256");
    for entry in fs::read_dir(&layers).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    assert_eq!(stanza.shell_ok(&[], "echo there"), "there");
}

#[test]
fn a_database_of_a_later_version_is_left_alone() {
    let stanza = fixture!();
    stanza.ok(&["ps", "-a"]);
    if !stanza_test::have("sqlite3") && tool(&["python3", "-c", "import sqlite3"]).code != 0 {
        skip!("no `sqlite3` and no Python to change the database with");
    }
    let database = stanza.root().join("stanza.db");
    stanza.ok(&["create", "--name", "c1", "--network", "none", "busybox", "true"]);
    let script = format!(
        "import sqlite3; c=sqlite3.connect('{}'); c.execute('PRAGMA user_version=999'); c.commit()",
        database.display()
    );
    if tool(&["python3", "-c", &script]).code != 0 {
        skip!("the database cannot be changed from Python");
    }
    let error = stanza.fails(1, &["ps", "-a"]);
    assert!(error.contains("999"), "{error}");
}

#[test]
fn commands_and_containers_that_do_not_exist_are_named() {
    let stanza = fixture!(Empty);
    assert!(stanza.output(&["nonsense"]).stderr.contains("nonsense"));
    for args in [
        &["start", "nosuch"][..],
        &["stop", "nosuch"],
        &["kill", "nosuch"],
        &["rm", "nosuch"],
        &["logs", "nosuch"],
        &["wait", "nosuch"],
        &["inspect", "nosuch"],
        &["attach", "nosuch"],
        &["diff", "nosuch"],
        &["exec", "nosuch", "true"],
    ] {
        refused(&stanza, 1, args, &["nosuch"]);
    }
}

#[test]
fn several_containers_are_treated_each_and_the_bad_one_is_named() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    stanza.sleeper("c2");
    let output = stanza.output(&["rm", "-f", "c1", "nosuch", "c2"]);
    assert_eq!(output.stdout, "c1\nc2\n", "{}", output.stderr);
    assert_eq!(stanza.output(&["kill", "nosuch", "c2"]).code, 1);
    assert_eq!(stanza.ok(&["ps", "-aq"]), "");
}
