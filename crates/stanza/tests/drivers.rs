//! Storage drivers: the same image gives the same container, whichever puts its root file system together.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use stanza_test::{Kind, Layout, Stanza, Tarball, fixture, skip};

const DRIVERS: [&str; 3] = ["overlay", "erofs", "copy"];

/// busybox, a layer with something of everything, and one that hides part of it.
fn image(stanza: &Stanza) -> Vec<u8> {
    let middle = Tarball::new()
        .entry("opt", 0o755, (0, 0), &Kind::Directory)
        .entry("opt/keep", 0o2775, (1000, 2000), &Kind::Directory)
        .file("opt/keep/one", 0o644, "one")
        .entry("opt/keep/two", 0o644, (0, 0), &Kind::Hardlink("opt/keep/one".to_owned()))
        .entry("opt/keep/link", 0o777, (0, 0), &Kind::Symlink("one".to_owned()))
        .file("opt/keep/gone", 0o644, "gone")
        .entry("opt/pair", 0o755, (0, 0), &Kind::Directory)
        .file("opt/pair/a", 0o644, "pair")
        .entry("opt/pair/b", 0o644, (0, 0), &Kind::Hardlink("opt/pair/a".to_owned()))
        .file("opt/hidden/inside", 0o644, "inside")
        .file("opt/large", 0o4711, vec![b'x'; 300_000])
        .entry("opt/null", 0o666, (0, 0), &Kind::CharacterDevice(1, 3));
    let top = Tarball::new()
        .entry("opt", 0o755, (0, 0), &Kind::Directory)
        .entry("opt/keep", 0o2775, (1000, 2000), &Kind::Directory)
        .file("opt/keep/.wh.gone", 0o644, "")
        .entry("opt/hidden", 0o700, (5, 5), &Kind::Directory)
        .file("opt/hidden/.wh..wh..opq", 0o644, "")
        .file("opt/hidden/new", 0o600, "new")
        .file("opt/keep/one", 0o640, "changed");
    let layers = vec![stanza.busybox().to_vec(), middle.finish(), top.finish()];
    Layout::new(layers, &json!({ "Cmd": ["sh"] })).archive("layered:1")
}

fn with<'a>(driver: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["--storage-driver", driver], args].concat()
}

/// The fixture's `output` puts `--cidfile` behind the first word, so the driver comes by the environment.
fn output(stanza: &Stanza, driver: &str, args: &[&str]) -> (i32, String, String) {
    let mut command: Command = stanza.command(args);
    let output = command.env("STANZA_STORAGE_DRIVER", driver).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn ok(stanza: &Stanza, driver: &str, args: &[&str]) -> String {
    let (code, stdout, stderr) = output(stanza, driver, args);
    assert_eq!(code, 0, "{driver} {args:?}\nstdout: {stdout}\nstderr: {stderr}");
    stdout.trim_end().to_owned()
}

/// Brings an image in, whose layers are unpacked by `driver`.
fn load(stanza: &Stanza, driver: &str, archive: &[u8]) {
    ok(stanza, driver, &["load", "-q", "-i", &stanza.file("archive.tar", archive)]);
}

/// Files in the home of a layer, of all layers, sorted.
fn forms(stanza: &Stanza) -> Vec<String> {
    let layers = fs::read_dir(stanza.root().join("layers/sha256")).into_iter().flatten().flatten();
    let mut forms: Vec<String> = layers
        .map(|layer| {
            let names = fs::read_dir(layer.path()).into_iter().flatten().flatten();
            let mut names: Vec<_> =
                names.map(|name| name.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names.join(" ")
        })
        .collect();
    forms.sort();
    forms
}

fn has_erofs() -> bool {
    fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\terofs\n"))
}

const DIRECTORY: &str = "fs record.json";
const IMAGE: &str = "index.erofs layer.tar record.json";

#[test]
fn every_driver_shows_the_same_tree_and_tells_the_same_changes() {
    let mut seen: Vec<(String, String, String)> = Vec::new();
    for driver in DRIVERS {
        if driver == "erofs" && !has_erofs() {
            stanza_test::skipped("the kernel has no erofs");
            continue;
        }
        let stanza = fixture!(Empty);
        load(&stanza, driver, &image(&stanza));
        // Sizes of directories, and links of a file that is partly hidden, are each file system's own affair.
        let list = "cd /opt; find . | sort | while read f; do stat -c '%N %f %u %g %y %t %T' $f; \
                    [ -d $f -a ! -L $f ] || stat -c %s $f; done; cat keep/one keep/two; \
                    cat hidden/*; md5sum large /bin/busybox; stat -c %h pair/*";
        let run = ["run", "--rm", "--network", "none", "layered:1", "sh", "-c", list];
        let tree = ok(&stanza, driver, &run);
        assert!(!tree.contains("gone") && !tree.contains("inside"), "{tree}");
        let before = stanza.leftovers();
        let change = "echo more >> /opt/keep/one; rm /opt/large; mkdir /new; echo x > /new/file; chmod 700 /opt/hidden/new; \
                      rm -r /opt/hidden; mkdir /opt/hidden; touch /opt/hidden/again; ln -s /x /opt/keep/other; \
                      mkfifo /opt/pipe; cat /opt/keep/two";
        let run = ["run", "--network", "none", "--name", "c1", "layered:1", "sh", "-c", change];
        let printed = ok(&stanza, driver, &run);
        let mut changes: Vec<String> =
            ok(&stanza, driver, &["diff", "c1"]).lines().map(str::to_owned).collect();
        changes.sort();
        assert_eq!(ok(&stanza, driver, &["diff", "c1"]).lines().count(), changes.len());
        // A start finds the container as it was, whatever the driver is by then.
        assert_eq!(ok(&stanza, "overlay", &["start", "-a", "c1"]), printed);
        let expected = if driver == "copy" { "copy" } else { "overlay" };
        assert_eq!(stanza.inspect("c1")["Driver"], expected);
        ok(&stanza, driver, &["rm", "c1"]);
        stanza.assert_clean(&before);
        let form = if driver == "erofs" { IMAGE } else { DIRECTORY };
        assert_eq!(forms(&stanza), [form; 3]);
        ok(&stanza, driver, &["rmi", "layered:1"]);
        assert_eq!(forms(&stanza), [""; 0]);
        assert_eq!(fs::read_dir(stanza.root().join("layers/ingest")).expect("it is there").count(), 0);
        seen.push((tree, printed, changes.join("\n")));
    }
    for other in &seen[1..] {
        assert_eq!(*other, seen[0]);
    }
    assert!(seen[0].2.contains("D /opt/large") && seen[0].2.contains("C /opt/keep/one"), "{}", seen[0].2);
}

#[test]
fn layers_of_several_drivers_make_one_container() {
    let stanza = fixture!(Empty);
    if !has_erofs() {
        skip!("the kernel has no erofs");
    }
    let base = Layout::new(vec![stanza.busybox().to_vec()], &json!({ "Cmd": ["sh"] })).archive("base:1");
    load(&stanza, "overlay", &base);
    assert_eq!(forms(&stanza), [DIRECTORY]);
    load(&stanza, "erofs", &image(&stanza));
    let script = "cat /opt/keep/one; ls /opt/hidden /opt/keep";
    let run = ["run", "--rm", "--network", "none", "layered:1", "sh", "-c", script];
    let mixed = ok(&stanza, "erofs", &run);
    assert_eq!(forms(&stanza), [DIRECTORY, IMAGE, IMAGE]);
    assert_eq!(mixed, "changed/opt/hidden:\nnew\n\n/opt/keep:\nlink\none\ntwo");
    for driver in DRIVERS {
        assert_eq!(ok(&stanza, driver, &run), mixed, "{driver}");
    }
    assert_eq!(forms(&stanza), [DIRECTORY, IMAGE, IMAGE]);
}

#[test]
fn in_a_user_namespace_files_of_the_image_are_its_roots() {
    for driver in DRIVERS {
        if driver == "erofs" && !has_erofs() {
            continue;
        }
        let stanza = fixture!(Empty);
        load(&stanza, driver, &image(&stanza));
        let script = "stat -c '%u %g %a' /bin/busybox /opt/keep /opt/hidden; echo 1 > /opt/keep/one; cat /opt/keep/one; \
                      cat /proc/self/uid_map | tr -s ' '";
        let options = [
            "run",
            "--network",
            "none",
            "--userns",
            "private",
            "--name",
            "c1",
            "layered:1",
            "sh",
            "-c",
            script,
        ];
        let printed = ok(&stanza, driver, &options);
        let mut lines = printed.lines();
        let found: Vec<&str> = lines.by_ref().take(4).collect();
        assert_eq!(found, ["0 0 755", "1000 2000 2775", "5 5 700", "1"], "{driver}");
        let base: u32 =
            lines.next().unwrap_or_default().split(' ').nth(2).unwrap_or("").parse().expect("a map");
        assert_ne!(base, 0);
        let written: PathBuf = ["upper", "rootfs"]
            .iter()
            .map(|name| {
                stanza.root().join("containers").join(stanza.ids().first().expect("an id")).join(name)
            })
            .find(|path| path.join("opt/keep/one").exists())
            .expect("the file that was written");
        assert_eq!(fs::metadata(written.join("opt/keep/one")).expect("it is there").uid(), base);
        let mut changes: Vec<String> =
            ok(&stanza, driver, &["diff", "c1"]).lines().map(str::to_owned).collect();
        changes.sort();
        assert_eq!(changes, ["C /opt", "C /opt/keep", "C /opt/keep/one"], "{driver}");
    }
}

#[test]
fn without_root_images_are_refused_and_copies_work() {
    let stanza = fixture!(Rootless);
    let run = |driver| {
        output(
            &stanza,
            driver,
            &["run", "--rm", "busybox", "sh", "-c", "echo in; echo 1 > /x; stat -c %u /bin/busybox"],
        )
    };
    let (code, _, stderr) = run("erofs");
    assert_eq!(code, 125, "{stderr}");
    assert!(stderr.contains("does not mount erofs images"), "{stderr}");
    assert!(stderr.contains("hint: it needs root"), "{stderr}");
    assert_eq!(run("copy").1, "in\n0\n", "{}", run("copy").2);
    assert_eq!(run("overlay").1, "in\n0\n");
}

/// A stanza whose root is on a file system that is mounted in a name space of the fixture's own.
struct Elsewhere {
    stanza: Stanza,
    root: String,
}

impl Elsewhere {
    /// Mounts by `script`, in the fixture's directory, on `there`; `None` when that is not possible.
    fn new(stanza: Stanza, script: &str) -> Option<Elsewhere> {
        let directory = stanza.directory().display();
        let script = format!("cd {directory} && mkdir low up work there && {script}");
        let mut words = stanza.network()?.prefix();
        words.extend(["sh", "-c", &script].map(str::to_owned));
        let mounted = Command::new(&words[0]).args(&words[1..]).status().expect("it starts");
        let root = format!("{directory}/there/root");
        mounted.success().then_some(Elsewhere { stanza, root })
    }

    fn run(&self, args: &[&str], input: Option<&[u8]>) -> String {
        let mut words = self.stanza.network().expect("it was wished for").prefix();
        words.push(self.stanza.binary().display().to_string());
        words.extend(["--root", &self.root].map(str::to_owned));
        words.extend(args.iter().map(|word| (*word).to_owned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if let Some(input) = input {
            command.stdin(fs::File::open(self.stanza.file("archive.tar", input)).expect("it was written"));
        }
        let output = command.output().expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The names in a directory below the root, as only the name space sees it.
    fn names(&self, path: &str) -> Vec<String> {
        let mut words = self.stanza.network().expect("it was wished for").prefix();
        words.extend(["sh".to_owned(), "-c".to_owned(), format!("ls {}/{path}", self.root)]);
        let output = Command::new(&words[0]).args(&words[1..]).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

#[test]
fn where_overlayfs_refuses_the_file_system_the_driver_is_copy() {
    let stanza = fixture!(Empty, PrivateNetwork);
    // An overlay is no upper layer of another: as in a container whose storage is its own root file system.
    let mount = "mount -t overlay over -o lowerdir=low,upperdir=up,workdir=work there";
    let Some(over) = Elsewhere::new(stanza, mount) else { skip!("an overlay cannot be mounted here") };
    over.run(&["import", "-", "busybox:latest"], Some(over.stanza.busybox()));
    assert_eq!(over.run(&["info", "--format", "{{.Driver}}"], None), "copy");
    let script = "echo 1 > /x; cat /x; stat -c %u /bin/busybox";
    let run = ["run", "--network", "none", "--name", "c1", "busybox", "sh", "-c", script];
    assert_eq!(over.run(&run, None), "1\n0");
    assert_eq!(over.run(&["diff", "c1"], None), "A /x");
    over.run(&["rm", "c1"], None);
    over.run(&["rmi", "busybox"], None);
    assert_eq!(over.run(&["image", "ls", "-q"], None), "");
    assert_eq!(over.names("layers/sha256"), [""; 0]);
}

#[test]
fn where_mounts_cannot_be_id_mapped_a_shifted_copy_of_the_layer_is_used() {
    let stanza = fixture!(Empty, PrivateNetwork);
    // A ramfs holds overlays and knows no id-mapped mounts.
    let Some(ram) = Elsewhere::new(stanza, "mount -t ramfs ram there") else { skip!("no ramfs") };
    ram.run(&["import", "-", "busybox:latest"], Some(ram.stanza.busybox()));
    let script = "stat -c '%u %g' /bin/busybox /bin; echo 1 > /x; cat /x";
    for _ in 0..2 {
        let run = [
            "run",
            "--network",
            "none",
            "--userns",
            "private",
            "--name",
            "c1",
            "busybox",
            "sh",
            "-c",
            script,
        ];
        assert_eq!(ram.run(&run, None), "0 0\n0 0\n1");
        assert_eq!(ram.run(&["diff", "c1"], None), "A /x");
        assert_eq!(ram.run(&["start", "-a", "c1"], None), "0 0\n0 0\n1");
        ram.run(&["rm", "c1"], None);
        let layer = ram.names("layers/sha256").remove(0);
        let names = ram.names(&format!("layers/sha256/{layer}"));
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0] == "fs" && names[1].starts_with("fs-") && names[2] == "record.json", "{names:?}");
    }
    ram.run(&["rmi", "busybox"], None);
    assert_eq!(ram.names("layers/sha256"), [""; 0]);
}

/// Paths in an archive with what their entries are; `fields` are columns of `tar -tv`.
fn entries(archive: &std::path::Path) -> Vec<String> {
    let output = Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(archive).output().expect("tar");
    assert!(output.status.success());
    let mut entries: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        // Without the times, which are those of the run.
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [&words[..3], &words[5..]].concat().join(" ")
        })
        .collect();
    entries.sort();
    entries
}

#[test]
fn whatever_looks_into_layers_finds_the_same_by_every_driver() {
    let mut seen: Vec<Vec<String>> = Vec::new();
    for driver in DRIVERS {
        if driver == "erofs" && !has_erofs() {
            continue;
        }
        let stanza = fixture!(Empty);
        load(&stanza, driver, &image(&stanza));
        let base = Layout::new(vec![stanza.busybox().to_vec()], &json!({ "Cmd": ["sh"] })).archive("base:1");
        load(&stanza, driver, &base);
        // A hard link to a file that only a lower layer has.
        let links = Tarball::new()
            .entry("opt/linked", 0o644, (0, 0), &Kind::Hardlink("opt/large".to_owned()))
            .finish();
        let middle = Tarball::new().file("opt/large", 0o4711, vec![b'x'; 300_000]).finish();
        let layers = vec![stanza.busybox().to_vec(), middle, links];
        load(&stanza, driver, &Layout::new(layers, &json!({ "Cmd": ["sh"] })).archive("linked:1"));
        let mut told = Vec::new();
        let mut tell = |args: &[&str]| told.push(format!("{args:?}\n{}", ok(&stanza, driver, args)));
        tell(&["image", "diff", "base:1", "layered:1"]);
        tell(&["image", "diff", "linked:1", "layered:1"]);
        tell(&["run", "--rm", "--network", "none", "linked:1", "stat", "-c", "%a %s", "/opt/linked"]);
        tell(&["history", "--format", "{{.Size}}", "layered:1"]);

        let change = "echo more >> /opt/keep/one; rm /opt/large; mkdir /new; echo x > /new/file; chmod 600 /opt/hidden/new; \
                      ln /new/file /new/same; rm -r /opt/pair; mkdir /opt/pair; touch /opt/pair/again; chown 7:8 /new/file";
        let options = [
            "run",
            "--network",
            "none",
            "--userns",
            "private",
            "--name",
            "box",
            "layered:1",
            "sh",
            "-c",
            change,
        ];
        ok(&stanza, driver, &options);
        let text = stanza.directory().join("one");
        ok(&stanza, driver, &["cp", "box:/opt/keep/one", &text.display().to_string()]);
        assert_eq!(fs::read_to_string(&text).expect("it was copied"), "changedmore\n", "{driver}");
        ok(&stanza, driver, &["cp", &text.display().to_string(), "box:/opt/keep/brought"]);
        let archive = stanza.directory().join("box.tar");
        ok(&stanza, driver, &["export", "-o", &archive.display().to_string(), "box"]);
        let exported = entries(&archive);
        assert!(
            exported.iter().any(|entry| entry.contains("7/8") && entry.contains("new/file")),
            "{exported:?}"
        );
        assert!(exported.iter().any(|entry| entry.contains("0/0") && entry.ends_with("bin/busybox")));

        ok(&stanza, driver, &["commit", "box", "made:1"]);
        ok(&stanza, driver, &["commit", "--squash", "box", "flat:1"]);
        ok(&stanza, driver, &["image", "squash", "-t", "linked:flat", "linked:1"]);
        for image in ["made:1", "flat:1"] {
            let list = "cd /; find opt new bin/busybox | sort | while read f; do stat -c '%N %f %u %g' $f; done; \
                        cat new/* opt/keep/*; stat -c %h new/file";
            told.push(ok(&stanza, driver, &["run", "--rm", "--network", "none", image, "sh", "-c", list]));
        }
        let show = ["run", "--rm", "--network", "none", "linked:flat", "stat", "-c", "%a %s", "/opt/linked"];
        told.push(ok(&stanza, driver, &show));
        // In the copy, what the two images have in common is the same to the last attribute.
        told.push(ok(&stanza, driver, &["image", "diff", "made:1", "flat:1"]));
        let verified = ok(&stanza, driver, &["image", "verify"]);
        assert!(!verified.contains("damaged"), "{verified}");
        told.extend(exported);
        seen.push(told);
    }
    for other in &seen[1..] {
        for (mine, others) in seen[0].iter().zip(other) {
            assert_eq!(mine, others);
        }
        assert_eq!(other.len(), seen[0].len());
    }
}

#[test]
fn a_damaged_image_of_a_layer_is_found_and_repaired() {
    let stanza = fixture!(Empty);
    if !has_erofs() {
        skip!("the kernel has no erofs");
    }
    load(&stanza, "erofs", &image(&stanza));
    ok(&stanza, "erofs", &["image", "verify"]);
    let layers = fs::read_dir(stanza.root().join("layers/sha256")).expect("layers").flatten();
    for (number, layer) in layers.enumerate() {
        let (name, at) = [("index.erofs", 4200), ("layer.tar", 600), ("index.erofs", 1100)][number];
        let file = fs::File::options().write(true).open(layer.path().join(name)).expect("it is there");
        std::os::unix::fs::FileExt::write_all_at(&file, b"\xfe", at).expect("it is writable");
    }
    let (code, stdout, stderr) = output(&stanza, "erofs", &["image", "verify"]);
    assert_eq!(code, 1, "{stdout}{stderr}");
    for difference in
        ["its erofs image has another digest", "its archive has another digest", "another size or superblock"]
    {
        assert!(stdout.contains(difference) || stderr.contains(difference), "{stdout}{stderr}");
    }
    ok(&stanza, "erofs", &["image", "verify", "--repair"]);
    assert_eq!(forms(&stanza), [IMAGE; 3]);
    ok(&stanza, "erofs", &["image", "verify"]);
    let script = "cat /opt/keep/one";
    assert_eq!(
        ok(&stanza, "erofs", &["run", "--rm", "--network", "none", "layered:1", "sh", "-c", script]),
        "changed"
    );
}

/// Bytes that a tree takes on disk.
fn on_disk(path: &std::path::Path) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(path).output().expect("du");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("a number")
}

#[test]
fn disk_usage_is_what_is_on_the_disk() {
    for driver in DRIVERS {
        if driver == "erofs" && !has_erofs() {
            continue;
        }
        let stanza = fixture!(Empty);
        load(&stanza, driver, &image(&stanza));
        ok(&stanza, driver, &["run", "--network", "none", "layered:1", "sh", "-c", "echo 1 >/x"]);
        let lines = ok(&stanza, driver, &["system", "df", "--format", "json"]);
        let rows = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let total: u64 = rows.map(|row| row["Bytes"].as_u64().expect("a number")).sum();
        let actual = on_disk(stanza.root());
        assert!(total.abs_diff(actual) <= 2 * 4096, "{driver}: {total} {actual}: {lines}");
    }
}

#[test]
fn the_configuration_file_names_the_driver_when_nobody_else_does() {
    let stanza = fixture!(Empty);
    let config = stanza.file("config.toml", b"[storage]\ndriver = \"copy\"\n");
    load(&stanza, "overlay", &image(&stanza));
    let driver = |words: &[&str], variable: &str| {
        let mut command = stanza.command(words);
        command.env("STANZA_CONFIG", &config).env("STANZA_STORAGE_DRIVER", variable);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    };
    let info = ["info", "--format", "{{.Driver}}"];
    assert_eq!(driver(&info, ""), "copy");
    assert_eq!(driver(&info, "overlay"), "overlay");
    assert_eq!(driver(&with("erofs", &info), "overlay"), "erofs");
    driver(&["create", "--name", "one", "layered:1"], "");
    driver(&["create", "--name", "two", "layered:1"], "overlay");
    assert_eq!(stanza.inspect("one")["Driver"], "copy");
    assert_eq!(stanza.inspect("two")["Driver"], "overlay");
}

#[test]
fn an_unknown_driver_is_named() {
    let stanza = fixture!();
    let stderr = stanza.fails(1, &with("zfs", &["images"]));
    assert!(stderr.contains("unknown storage driver `zfs`"), "{stderr}");
    assert!(stderr.contains("`overlay`, `erofs` and `copy`"), "{stderr}");
    assert_eq!(stanza.ok(&with("copy", &["info", "--format", "{{.Driver}}"])), "copy");
    assert_eq!(stanza.ok(&["info", "--format", "{{.Driver}}"]), "overlay");
}
