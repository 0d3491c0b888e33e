//! `cp`: Docker's rules, in containers that run and that do not, and what a hostile container cannot do with it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use stanza_test::{Kind, Stanza, Tarball, Wish, fixture, skip};

/// A directory of the host to copy from and to.
fn workshop(stanza: &Stanza) -> PathBuf {
    let path = stanza.directory().join("workshop");
    fs::create_dir_all(path.join("dir/sub")).unwrap();
    fs::write(path.join("file"), "file\n").unwrap();
    fs::write(path.join("dir/a"), "a\n").unwrap();
    fs::write(path.join("dir/sub/b"), "b\n").unwrap();
    symlink("file", path.join("link")).unwrap();
    symlink("dir", path.join("dirlink")).unwrap();
    symlink("nowhere", path.join("dangling")).unwrap();
    fs::create_dir(path.join("out")).unwrap();
    path
}

/// A container that was never started, and one that runs, each with the same files at `/x`.
fn containers(stanza: &Stanza) -> [&'static str; 2] {
    stanza.ok(&["create", "--network", "none", "--name", "standing", "busybox", "sleep", "1000"]);
    stanza.sleeper("running");
    let tar = Tarball::new()
        .directory("x/", 0o755)
        .directory("x/dir/", 0o750)
        .file("x/dir/old", 0o644, "old\n")
        .file("x/file", 0o640, "inside\n")
        .symlink("x/to-file", "file")
        .symlink("x/to-dir", "/x/dir")
        .symlink("x/to-nothing", "new-target")
        .finish();
    for name in ["standing", "running"] {
        let output = stanza.output_with_input(&["cp", "-", &format!("{name}:/")], &tar);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    }
    ["standing", "running"]
}

/// The paths of an archive that `cp … -` writes, sorted, with the content of files.
fn listing(stanza: &Stanza, container: &str, path: &str) -> Vec<String> {
    let file = stanza.directory().join("listing.tar");
    let mut command = stanza.command(&["cp", &format!("{container}:{path}"), "-"]);
    let status = command.stdout(fs::File::create(&file).unwrap()).status().unwrap();
    assert!(status.success(), "cp {container}:{path} -");
    let listed = stanza_test::tool(&["tar", "-tf", &file.display().to_string()]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let mut lines: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What is in a file of a container.
fn content(stanza: &Stanza, container: &str, path: &str) -> String {
    let target = stanza.directory().join("content");
    let _ = fs::remove_file(&target);
    stanza.ok(&["cp", "-L", &format!("{container}:{path}"), &target.display().to_string()]);
    fs::read_to_string(&target).unwrap()
}

#[test]
fn into_a_container_as_docker_does() {
    let stanza = fixture!();
    let shop = workshop(&stanza);
    let here = |name: &str| shop.join(name).display().to_string();
    for name in containers(&stanza) {
        let cp = |options: &[&str], source: &str, target: &str| {
            let target = format!("{name}:{target}");
            let output = stanza.output(&[&["cp"], options, &[source, target.as_str()]].concat());
            let text = output.stderr.lines().next().unwrap_or_default().to_owned();
            assert_eq!(output.stdout, "");
            if output.code == 0 { Ok(()) } else { Err(text) }
        };
        // A file: into a directory, over a file, to a new name; not to a name that says it is a directory.
        cp(&[], &here("file"), "/x/dir").unwrap();
        cp(&[], &here("file"), "/x/dir/other").unwrap();
        cp(&[], &here("file"), "/x/dir/old").unwrap();
        cp(&[], &here("file"), "/x/to-dir/").unwrap();
        cp(&[], &here("file"), "x/relative").unwrap();
        assert_eq!(content(&stanza, name, "/x/dir/old"), "file\n", "{name}");
        assert_eq!(content(&stanza, name, "/x/relative"), "file\n");
        let error = cp(&[], &here("file"), "/x/new/").unwrap_err();
        assert_eq!(error, format!("stanza: `{name}:/x/new/`: no such directory"));
        let error = cp(&[], &here("file"), "/x/no/such/file").unwrap_err();
        assert_eq!(
            error,
            format!("stanza: invalid output path: directory `{name}:/x/no/such` does not exist")
        );

        // A directory: into one, to a new name, what is in it; not over a file.
        cp(&[], &here("dir"), "/x/dir").unwrap();
        cp(&[], &here("dir"), "/x/copy").unwrap();
        cp(&[], &here("dir/."), "/x/copy2").unwrap();
        cp(&[], &here("dir/."), "/x/copy").unwrap();
        cp(&[], &here("dirlink/"), "/x/copy3").unwrap();
        let error = cp(&[], &here("dir"), "/x/file").unwrap_err();
        assert_eq!(error, format!("stanza: `{name}:/x/file`: cannot copy directory"));
        for copy in ["copy", "copy2", "copy3", "dir/dir"] {
            let base = copy.rsplit('/').next().unwrap();
            let expected = ["", "a", "sub/", "sub/b"].map(|path| format!("{base}/{path}"));
            assert_eq!(listing(&stanza, name, &format!("/x/{copy}")), expected, "{copy}");
        }

        // A link: as a link, or what it leads to under the link's name; of the target it is followed.
        cp(&[], &here("link"), "/x/dir").unwrap();
        cp(&["-L"], &here("link"), "/x/followed").unwrap();
        cp(&[], &here("dangling"), "/x/dir").unwrap();
        assert!(cp(&["-L"], &here("dangling"), "/x/dir").is_err());
        cp(&["-L"], &here("dirlink"), "/x").unwrap();
        assert_eq!(listing(&stanza, name, "/x/dirlink").len(), 4);
        cp(&[], &here("file"), "/x/to-file").unwrap();
        cp(&[], &here("file"), "/x/to-nothing").unwrap();
        assert_eq!(content(&stanza, name, "/x/file"), "file\n");
        assert_eq!(content(&stanza, name, "/x/new-target"), "file\n");

        // Kinds that exclude each other.
        fs::create_dir_all(shop.join("clash/dir/old")).unwrap();
        let error = cp(&[], &here("clash/."), "/x").unwrap_err();
        assert_eq!(error, "stanza: cannot overwrite non-directory `./dir/old` with directory");
        fs::remove_dir_all(shop.join("clash")).unwrap();
        fs::create_dir(shop.join("clash")).unwrap();
        fs::write(shop.join("clash/dir"), "").unwrap();
        let error = cp(&[], &here("clash/."), "/x").unwrap_err();
        assert_eq!(error, "stanza: cannot overwrite directory `./dir` with non-directory");
        fs::remove_dir_all(shop.join("clash")).unwrap();

        let error = cp(&[], &here("nothing"), "/x").unwrap_err();
        assert_eq!(error, format!("stanza: lstat {}: no such file or directory", here("nothing")));
        if name == "running" {
            let error = cp(&[], &here("file"), "/dev/null").unwrap_err();
            let expected = "destination `running:/dev/null` must be a directory or a regular file";
            assert_eq!(error, format!("stanza: {expected}"));
        }
    }
    // What was copied into the one that did not run is there when it does.
    stanza.ok(&["start", "standing"]);
    let seen = stanza.ok(&[
        "exec",
        "standing",
        "sh",
        "-c",
        "cat /x/new-target; readlink /x/dir/link; stat -c %a /x/dir",
    ]);
    assert_eq!(seen, "file\nfile\n750");
}

#[test]
fn out_of_a_container_as_docker_does() {
    let stanza = fixture!();
    let shop = workshop(&stanza);
    let out = shop.join("out");
    for name in containers(&stanza) {
        fs::remove_dir_all(&out).unwrap();
        fs::create_dir(&out).unwrap();
        let cp = |options: &[&str], source: &str, target: &str| {
            let source = format!("{name}:{source}");
            let target =
                out.join(target).display().to_string() + if target.ends_with('/') { "/" } else { "" };
            let output = stanza.output(&[&["cp"], options, &[source.as_str(), target.as_str()]].concat());
            let text = output.stderr.lines().next().unwrap_or_default().to_owned();
            if output.code == 0 { Ok(()) } else { Err(text) }
        };
        let read = |path: &str| fs::read_to_string(out.join(path)).unwrap();
        cp(&[], "/x/file", "").unwrap();
        cp(&[], "/x/file", "named").unwrap();
        assert_eq!((read("file").as_str(), read("named").as_str()), ("inside\n", "inside\n"));
        cp(&[], "/x/dir", "").unwrap();
        cp(&[], "/x/dir", "renamed").unwrap();
        cp(&[], "/x/dir/.", "contents").unwrap();
        cp(&[], "x/to-dir/", "by-slash").unwrap();
        for directory in ["dir", "renamed", "contents", "by-slash"] {
            assert_eq!(read(&format!("{directory}/old")), "old\n", "{directory}");
            assert_eq!(out.join(directory).metadata().unwrap().mode() & 0o7777, 0o750, "{directory}");
        }
        cp(&[], "/x/to-file", "").unwrap();
        assert_eq!(fs::read_link(out.join("to-file")).unwrap(), Path::new("file"));
        cp(&["-L"], "/x/to-file", "followed").unwrap();
        assert_eq!(read("followed"), "inside\n");
        cp(&["--follow-link"], "/x/to-dir", "").unwrap();
        assert_eq!(read("to-dir/old"), "old\n");
        symlink("named", out.join("host-link")).unwrap();
        fs::write(out.join("named"), "").unwrap();
        cp(&[], "/x/file", "host-link").unwrap();
        assert_eq!(read("named"), "inside\n");
        // A link leads within the container, not on this machine.
        assert_eq!(content(&stanza, name, "/x/to-dir/old"), "old\n");

        assert_eq!(
            cp(&[], "/x/dir", "file").unwrap_err(),
            format!("stanza: `{}`: cannot copy directory", out.join("file").display())
        );
        assert!(cp(&[], "/x/file", "nothing/").unwrap_err().ends_with("no such directory"));
        assert!(cp(&[], "/x/file", "no/such").unwrap_err().contains("does not exist"));
        assert_eq!(
            cp(&[], "/x/nope", "").unwrap_err(),
            format!("stanza: No such container:path: {name}:/x/nope")
        );
        assert!(cp(&[], "/x/file/", "").is_err());
    }
}

#[test]
fn streams_are_archives() {
    let stanza = fixture!();
    for name in containers(&stanza) {
        assert_eq!(listing(&stanza, name, "/x/file"), ["file"]);
        assert_eq!(listing(&stanza, name, "/x/dir"), ["dir/", "dir/old"]);
        assert_eq!(listing(&stanza, name, "/x/dir/."), ["./", "./old"]);
        assert_eq!(listing(&stanza, name, "/x/to-dir"), ["to-dir"]);
        let tar = Tarball::new().entry("deep/er/file", 0o600, (7, 8), &Kind::File(b"1".to_vec())).finish();
        let send = |target: &str| stanza.output_with_input(&["cp", "-", &format!("{name}:{target}")], &tar);
        assert_eq!(send("/x/to-dir").code, 0);
        assert_eq!(content(&stanza, name, "/x/dir/deep/er/file"), "1");
        for target in ["/x/file", "/x/nothing"] {
            let output = send(target);
            let expected = format!("stanza: destination `{name}:{target}` must be a directory\n");
            assert_eq!((output.code, output.stderr), (1, expected));
        }
        let output = stanza.output_with_input(&["cp", "-", &format!("{name}:/x")], b"no archive at all");
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains("archive"), "{}", output.stderr);
    }
    // One that comes in may be compressed.
    let plain = stanza.file("plain.tar", Tarball::new().file("zipped", 0o644, "2").finish());
    assert_eq!(stanza_test::tool(&["gzip", "-k", &plain]).code, 0);
    let gzip = fs::read(format!("{plain}.gz")).unwrap();
    assert_eq!(stanza.output_with_input(&["cp", "-", "running:/x"], &gzip).code, 0);
    assert_eq!(content(&stanza, "running", "/x/zipped"), "2");
    // Closing the output early is no failure of its own.
    let command = format!(
        "{} --root={} --runroot={} cp running:/bin - | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}",
        stanza.binary().display(),
        stanza.root().display(),
        stanza.runroot().display()
    );
    let output = stanza_test::tool(&["bash", "-c", &command]);
    assert_eq!((output.code, output.stderr.as_str()), (141, ""));
}

#[test]
fn between_containers() {
    let stanza = fixture!();
    let [standing, running] = containers(&stanza);
    for (from, to) in [(standing, running), (running, standing), (running, running), (standing, standing)] {
        stanza.ok(&["cp", &format!("{from}:/x/dir"), &format!("{to}:/opt")]);
        assert_eq!(listing(&stanza, to, "/opt/dir"), ["dir/", "dir/old"]);
        stanza.ok(&["cp", &format!("{from}:/x/file"), &format!("{to}:/opt/dir/old")]);
        assert_eq!(content(&stanza, to, "/opt/dir/old"), "inside\n");
        let error = stanza.fails(1, &["cp", &format!("{from}:/x/nope"), &format!("{to}:/opt")]);
        assert_eq!(error, format!("stanza: No such container:path: {from}:/x/nope\n"));
        if to == running {
            stanza.ok(&["exec", running, "rm", "-r", "/opt/dir"]);
        }
    }
    let error = stanza.fails(1, &["cp", "running:/x", "running:/x/dir"]);
    assert_eq!(error, "stanza: cannot copy a directory into itself\n");
}

#[test]
fn words_are_read_as_docker_reads_them() {
    let stanza = fixture!();
    let shop = workshop(&stanza);
    stanza.sleeper("running");
    let error = stanza.fails(1, &["cp", "/a", "/b"]);
    assert_eq!(error.lines().next().unwrap(), "stanza: must specify at least one container source");
    let error = stanza.fails(1, &["cp", "nobody:/a", "/b"]);
    assert_eq!(error.lines().next().unwrap(), "stanza: No such container: nobody");
    // A path may have a colon, when it begins with a dot or a slash.
    fs::write(shop.join("running:x"), "colon").unwrap();
    let status =
        stanza.command(&["cp", "./running:x", "running:/tmp/y"]).current_dir(&shop).status().unwrap();
    assert!(status.success());
    assert_eq!(content(&stanza, "running", "/tmp/y"), "colon");
    let status =
        stanza.command(&["cp", "running:/tmp/y", "."]).current_dir(shop.join("out")).status().unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(shop.join("out/y")).unwrap(), "colon");
}

#[test]
fn owners_are_roots_inside_and_the_users_outside_unless_kept() {
    let stanza = fixture!();
    let shop = workshop(&stanza);
    std::os::unix::fs::chown(shop.join("file"), Some(1000), Some(2000)).unwrap();
    fs::set_permissions(shop.join("file"), fs::Permissions::from_mode(0o4711)).unwrap();
    let (file, out) = (shop.join("file").display().to_string(), shop.join("out"));
    for name in containers(&stanza) {
        for (option, inside, outside) in
            [("--archive=false", (0, 0), (0, 0, 0o711)), ("-a", (1000, 2000), (1000, 2000, 0o4711))]
        {
            let target = format!("{name}:/tmp/owned");
            stanza.ok(&["cp", option, &file, &target]);
            let archived = out.join(format!("{name}{option}"));
            stanza.ok(&["cp", "-a", &target, &archived.display().to_string()]);
            let meta = archived.metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (inside.0, inside.1, 0o4711));
            let plain = out.join(format!("{name}{option}-plain"));
            stanza.ok(&["cp", option, &target, &plain.display().to_string()]);
            let meta = plain.metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), outside, "{name} {option}");
        }
        // A stream says itself whose its files are.
        let tar = Tarball::new().entry("streamed", 0o600, (7, 8), &Kind::File(Vec::new())).finish();
        assert_eq!(stanza.output_with_input(&["cp", "-", &format!("{name}:/tmp")], &tar).code, 0);
        stanza.ok(&["cp", "-a", &format!("{name}:/tmp/streamed"), &out.display().to_string()]);
        let meta = out.join("streamed").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (7, 8));
    }
}

#[test]
fn volumes_are_seen_whether_it_runs_or_not() {
    let stanza = fixture!();
    let shop = workshop(&stanza);
    let bind = format!("{}:/bind", shop.display());
    let read_only = format!("{}:/fixed:ro", shop.display());
    let file = shop.join("file").display().to_string();
    stanza.ok(&[
        "create",
        "--network",
        "none",
        "--name",
        "room",
        "-v",
        "data:/etc/data",
        "-v",
        "/anonymous",
        "-v",
        &bind,
        "-v",
        &read_only,
        "busybox",
        "sleep",
        "1000",
    ]);
    for _ in 0..2 {
        stanza.ok(&["cp", &file, "room:/etc/data/one"]);
        stanza.ok(&["cp", &file, "room:/anonymous/two"]);
        stanza.ok(&["cp", &file, "room:/bind/three"]);
        assert_eq!(listing(&stanza, "room", "/etc/data"), ["data/", "data/one"]);
        assert_eq!(fs::read_to_string(stanza.root().join("volumes/data/_data/one")).unwrap(), "file\n");
        assert_eq!(fs::read_to_string(shop.join("three")).unwrap(), "file\n");
        let error = stanza.fails(1, &["cp", &file, "room:/fixed/four"]);
        assert_eq!(error, "stanza: mounted volume is marked read-only\n");
        fs::remove_file(shop.join("three")).unwrap();
        stanza.ok(&["start", "room"]);
        assert_eq!(stanza.ok(&["exec", "room", "cat", "/etc/data/one", "/anonymous/two"]), "file\nfile");
    }
    // A tmpfs is there while it runs only.
    stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "memory",
        "--tmpfs",
        "/t",
        "busybox",
        "sleep",
        "1000",
    ]);
    stanza.ok(&["cp", &file, "memory:/t/five"]);
    assert_eq!(stanza.ok(&["exec", "memory", "cat", "/t/five"]), "file");
}

#[test]
fn a_read_only_root_refuses_and_its_volumes_do_not() {
    let stanza = fixture!();
    let shop = workshop(&stanza);
    let file = shop.join("file").display().to_string();
    stanza.ok(&[
        "create",
        "--read-only",
        "--network",
        "none",
        "--name",
        "fixed",
        "-v",
        "/data",
        "busybox",
        "sleep",
        "1000",
    ]);
    for _ in 0..2 {
        let error = stanza.fails(1, &["cp", &file, "fixed:/tmp"]);
        assert_eq!(error, "stanza: container rootfs is marked read-only\n");
        stanza.ok(&["cp", &file, "fixed:/data"]);
        assert_eq!(content(&stanza, "fixed", "/data/file"), "file\n");
        stanza.ok(&["start", "fixed"]);
    }
}

#[test]
fn what_comes_out_follows_no_link_that_comes_with_it() {
    let stanza = fixture!();
    let victim = stanza.directory().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret"), "safe").unwrap();
    let out = stanza.directory().join("out");
    fs::create_dir(&out).unwrap();
    // What was there before leads out as well: nothing is written through it.
    symlink(&victim, out.join("there")).unwrap();
    let [standing, running] = containers(&stanza);
    let script = format!(
        "mkdir -p /evil/there; ln -s {0} /evil/abs; ln -s ../victim /evil/rel; echo x > /evil/there/secret; \
         mknod /evil/device c 1 3; mkfifo /evil/pipe; ln /evil/there/secret /evil/hard; chmod 4755 /evil/hard",
        victim.display()
    );
    stanza.ok(&["exec", running, "sh", "-c", &script]);
    let error = stanza.fails(1, &["cp", &format!("{running}:/evil/."), &out.display().to_string()]);
    assert_eq!(error, "stanza: cannot overwrite non-directory `./there` with directory\n");
    fs::remove_file(out.join("there")).unwrap();
    let output = stanza.output(&["cp", &format!("{running}:/evil/."), &out.display().to_string()]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stderr.contains("1 device files were left out"), "{}", output.stderr);
    assert_eq!(fs::read_link(out.join("abs")).unwrap(), victim);
    assert!(out.join("pipe").symlink_metadata().unwrap().file_type().is_fifo());
    assert!(!out.join("device").exists());
    let (hard, secret) = (out.join("hard").metadata().unwrap(), out.join("there/secret").metadata().unwrap());
    assert_eq!((hard.ino(), hard.mode() & 0o7777), (secret.ino(), 0o755));
    stanza.ok(&["cp", "-a", &format!("{running}:/evil/device"), &out.display().to_string()]);
    assert!(out.join("device").symlink_metadata().unwrap().file_type().is_char_device());
    // Once more, over the links that are there now.
    stanza.output(&["cp", &format!("{running}:/evil/."), &out.display().to_string()]);
    assert_eq!(fs::read_to_string(victim.join("secret")).unwrap(), "safe");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    // Into a container a link leads where it leads there.
    stanza.ok(&["cp", &out.join("abs").display().to_string(), &format!("{standing}:/x/abs")]);
    let error = stanza
        .fails(1, &["cp", &victim.join("secret").display().to_string(), &format!("{standing}:/x/abs/y")]);
    assert!(error.contains("does not exist"), "{error}");
}

#[test]
fn a_container_that_swaps_a_link_in_gets_nothing_of_the_host() {
    let stanza = fixture!();
    let victim = stanza.directory().join("host-only");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "host").unwrap();
    let shop = workshop(&stanza);
    // The same path inside holds a directory, and for half of the time a link to the host's path of it.
    let script = format!(
        "mkdir -p /swap/d; echo inside > /swap/d/file; ln -s {} /swap/l; cd /swap; \
         while :; do mv d e; mv l d; mv d l; mv e d; done",
        victim.display()
    );
    stanza.ok(&["run", "-d", "--network", "none", "--name", "swapper", "busybox", "sh", "-c", &script]);
    let (file, out) = (shop.join("file").display().to_string(), shop.join("out"));
    let end = Instant::now() + Duration::from_secs(6);
    let (mut copies, mut refusals) = (0, 0);
    while Instant::now() < end {
        let target = out.join("file");
        let _ = fs::remove_file(&target);
        for words in [
            ["cp", "swapper:/swap/d/file", target.to_str().unwrap()].as_slice(),
            &["cp", &file, "swapper:/swap/d/planted"],
            &["cp", "-L", "swapper:/swap/d", out.to_str().unwrap()],
        ] {
            let output = stanza.output(words);
            if output.code == 0 { copies += 1 } else { refusals += 1 }
        }
        if let Ok(text) = fs::read_to_string(&target) {
            assert_eq!(text, "inside\n");
        }
    }
    assert!(copies > 10, "{copies} copies, {refusals} refusals");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "host");
}

#[test]
fn a_file_that_shrinks_and_grows_is_copied_whole() {
    let stanza = fixture!();
    let out = stanza.directory().join("out");
    let script = "while :; do dd if=/dev/zero of=/tmp/f bs=1M count=8 2>/dev/null; : > /tmp/f; done";
    stanza.ok(&["run", "-d", "--network", "none", "--name", "breather", "busybox", "sh", "-c", script]);
    for _ in 0..20 {
        let output = stanza.output(&["cp", "breather:/tmp/f", &out.display().to_string()]);
        // It may not be there yet.
        assert!(output.code == 0 || output.stderr.contains("No such container:path"), "{}", output.stderr);
    }
    assert!(out.metadata().unwrap().len() <= 8 << 20);
}

#[test]
fn a_file_of_holes_does_not_fill_the_disk() {
    let stanza = fixture!();
    stanza.sleeper("hollow");
    let script = "truncate -s 300M /tmp/f; echo end >> /tmp/f; dd if=/dev/zero of=/tmp/f bs=1 seek=5000000 count=1 conv=notrunc";
    stanza.ok(&["exec", "hollow", "sh", "-c", script]);
    let out = stanza.directory().join("out");
    for target in [out.display().to_string(), "hollow:/tmp/g".to_owned()] {
        stanza.ok(&["cp", "hollow:/tmp/f", &target]);
    }
    let meta = out.metadata().unwrap();
    assert_eq!(meta.len(), (300 << 20) + 4);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    assert_eq!(stanza.ok(&["exec", "hollow", "cmp", "/tmp/f", "/tmp/g"]), "");
}

#[test]
fn the_image_host_is_a_container_as_any() {
    let stanza = fixture!();
    let shop = workshop(&stanza);
    let dir = shop.join("dir").display().to_string();
    stanza.ok(&["create", "--network", "none", "--name", "machine", "host", "sleep", "1000"]);
    let name = "stanza-test-copied";
    for round in ["standing", "running"] {
        stanza.ok(&["cp", &dir, &format!("machine:/usr/{name}-{round}")]);
        assert!(!Path::new("/usr").join(format!("{name}-{round}")).exists());
        let host = fs::read_to_string("/etc/passwd").unwrap();
        assert_eq!(content(&stanza, "machine", "/etc/passwd"), host);
        stanza.ok(&["start", "machine"]);
        let seen = stanza.ok(&["exec", "machine", "cat", &format!("/usr/{name}-{round}/sub/b")]);
        assert_eq!(seen, "b");
    }
}

#[test]
fn archives_that_attack_are_refused_or_stay_inside() {
    let stanza = fixture!();
    let victim = stanza.directory().join("victim");
    fs::create_dir(&victim).unwrap();
    let [standing, running] = containers(&stanza);
    for name in [standing, running] {
        for (tar, words) in [
            (Tarball::new().file("../up", 0o644, "x"), "leads upwards"),
            (Tarball::new().file("a/../../up", 0o644, "x"), "leads upwards"),
            (
                Tarball::new().entry("l", 0o644, (0, 0), &Kind::Hardlink("../../etc/passwd".to_owned())),
                "leads upwards",
            ),
            (Tarball::new().entry("l", 0o644, (0, 0), &Kind::Hardlink("nothing".to_owned())), "no such file"),
            (Tarball::new().file(".", 0o644, "x"), "everything goes to"),
            (Tarball::new().entry("f", 0o644, (4_294_967, 0), &Kind::File(Vec::new())), ""),
        ] {
            let output = stanza.output_with_input(&["cp", "-", &format!("{name}:/x")], &tar.finish());
            assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
            assert_eq!(output.code, i32::from(!words.is_empty()), "{words}");
        }
        let inside = victim.display().to_string();
        let tar = Tarball::new().symlink("out", &inside).file("out/file", 0o644, "x").finish();
        let output = stanza.output_with_input(&["cp", "-", &format!("{name}:/x")], &tar);
        // The link leads to what the container has there, which is nothing.
        assert_eq!(output.code, 1, "{}", output.stderr);
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    }
}

#[test]
fn long_names_and_deep_trees_are_copied_or_refused() {
    let stanza = fixture!();
    stanza.sleeper("deep");
    let shop = workshop(&stanza);
    let name = "n".repeat(250);
    let script = format!(
        "cd /tmp; for i in 1 2 3 4 5 6 7 8 9 10; do mkdir {name}; cd {name}; done; echo end > {name}; \
         cd /tmp; d=d; for i in 1 2 3 4 5 6 7 8 9 10; do d=$d/$d; done; mkdir -p e/$d f/$d g/$d; \
         mv f/d e/$d; mv g/d f; cd e/$d; mv /tmp/f/d $d"
    );
    stanza.ok(&["exec", "deep", "sh", "-c", &script]);
    let out = shop.join("out");
    stanza.ok(&["cp", &format!("deep:/tmp/{name}"), &out.display().to_string()]);
    let mut path = out.clone();
    (0..11).for_each(|_| path.push(&name));
    assert_eq!(fs::read_to_string(path).unwrap(), "end\n");
    let error = stanza.fails(1, &["cp", "deep:/tmp/e", &out.display().to_string()]);
    assert!(error.contains("File name too long"), "{}", &error[error.len().saturating_sub(200)..]);
}

#[test]
fn nothing_is_left_of_a_copy_whatever_ends_it() {
    let stanza = fixture!();
    let [standing, running] = containers(&stanza);
    stanza.ok(&["exec", running, "sh", "-c", "dd if=/dev/zero of=/tmp/big bs=1M count=64 2>/dev/null"]);
    let before = stanza.leftovers();
    for name in [standing, running] {
        for _ in 0..5 {
            let copy = stanza.spawn(&["cp", &format!("{name}:/bin"), "-"]);
            copy.signal(Signal::KILL);
            drop(copy);
            let mut send = stanza.spawn(&["cp", "-", &format!("{name}:/tmp")]);
            send.send(&Tarball::new().file("part", 0o644, vec![0; 200_000]).finish()[..100_000]);
            send.signal(Signal::KILL);
            drop(send);
        }
    }
    // The part of the file that came in stays; nothing else does.
    stanza_test::wait_until("all processes of the copies have ended", || {
        let after = stanza.leftovers();
        (after.mounts, after.processes) == (before.mounts.clone(), before.processes.clone())
    });
    stanza.ok(&["start", standing]);
    assert_eq!(stanza.state(standing), "running");
}

#[test]
fn containers_with_user_namespaces_have_their_own_owners() {
    let stanza = fixture!();
    let shop = workshop(&stanza);
    std::os::unix::fs::chown(shop.join("file"), Some(5), Some(6)).unwrap();
    let (file, out) = (shop.join("file").display().to_string(), shop.join("out"));
    stanza.ok(&[
        "create",
        "--userns",
        "private",
        "--network",
        "none",
        "--name",
        "apart",
        "busybox",
        "sleep",
        "1000",
    ]);
    for round in ["standing", "running"] {
        stanza.ok(&["cp", &file, &format!("apart:/tmp/{round}")]);
        stanza.ok(&["cp", "-a", &file, &format!("apart:/tmp/{round}-kept")]);
        stanza.ok(&["cp", "-a", &format!("apart:/tmp/{round}-kept"), &out.display().to_string()]);
        let meta = out.join(format!("{round}-kept")).metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (5, 6), "{round}");
        stanza.ok(&["start", "apart"]);
    }
    let script = "stat -c '%u:%g' /tmp/standing /tmp/standing-kept /tmp/running /tmp/running-kept";
    assert_eq!(stanza.ok(&["exec", "apart", "sh", "-c", script]), "0:0\n5:6\n0:0\n5:6");
}

#[test]
fn without_root_copies_go_both_ways() {
    let stanza = match Stanza::new(env!("CARGO_BIN_EXE_stanza"), &[Wish::Rootless]) {
        Ok(stanza) => stanza,
        Err(reason) => skip!("{reason}"),
    };
    stanza.ok(&["create", "--network", "none", "--name", "standing", "busybox", "sleep", "1000"]);
    stanza.ok(&["run", "-d", "--network", "none", "--name", "running", "busybox", "sleep", "1000"]);
    let home = stanza.directory().join("home");
    for name in ["standing", "running"] {
        let tar = Tarball::new().entry("f", 0o600, (1000, 1000), &Kind::File(b"1".to_vec())).finish();
        let output = stanza.output_with_input(&["cp", "-", &format!("{name}:/tmp")], &tar);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let target = home.join(name);
        stanza.ok(&["cp", &format!("{name}:/tmp/f"), &target.display().to_string()]);
        let meta = target.metadata().unwrap();
        assert_eq!(meta.uid(), home.metadata().unwrap().uid());
        stanza.ok(&["cp", &target.display().to_string(), &format!("{name}:/tmp/back")]);
    }
    stanza.ok(&["cp", "running:/tmp/back", "standing:/tmp/other"]);
    stanza.ok(&["start", "standing"]);
    // A user namespace below the user's own.
    stanza.ok(&[
        "create",
        "--userns",
        "keep-id",
        "--network",
        "none",
        "--name",
        "kept",
        "busybox",
        "sleep",
        "1000",
    ]);
    let file = home.join("standing").display().to_string();
    for round in ["before", "after"] {
        stanza.ok(&["cp", &file, &format!("kept:/tmp/{round}")]);
        stanza.ok(&["cp", &format!("kept:/tmp/{round}"), &home.join(round).display().to_string()]);
        stanza.ok(&["start", "kept"]);
    }
    let seen = stanza.ok(&["exec", "-u", "0", "kept", "stat", "-c", "%u", "/tmp/before", "/tmp/after"]);
    assert_eq!(seen, "0\n0");
    for name in ["standing", "running"] {
        let seen = stanza.ok(&["exec", name, "stat", "-c", "%u", "/tmp/f", "/tmp/back"]);
        assert_eq!(seen, "1000\n0", "{name}");
    }
}
