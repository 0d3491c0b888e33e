//! `image mount` and `image unmount`: in a mount name space of the fixture's own.

use std::process::Command;

use serde_json::{Value, json};
use stanza_test::{Kind, Layout, Stanza, Tarball, fixture};

fn load(stanza: &Stanza, name: &str) {
    let top = Tarball::new()
        .entry("etc", 0o755, (0, 0), &Kind::Directory)
        .file("etc/mine", 0o644, "mine")
        .file("bin/.wh.true", 0o644, "")
        .file("setuid", 0o4755, "x");
    let layers = vec![stanza.busybox().to_vec(), top.finish()];
    let archive = Layout::new(layers, &json!({ "Cmd": ["sh"] })).archive(name);
    assert_eq!(stanza.output_with_input(&["load"], &archive).code, 0);
}

/// A command in the fixture's mount name space: its output, or its error.
fn shell(stanza: &Stanza, script: &str) -> String {
    let mut words = stanza.network().expect("it was wished for").prefix();
    words.extend(["sh", "-c", script].map(str::to_owned));
    let output = Command::new(&words[0]).args(&words[1..]).output().expect("it starts");
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).trim_end().to_owned()
}

fn id(stanza: &Stanza, name: &str) -> String {
    let text = stanza.ok(&["image", "inspect", "--format", "{{.Id}}", name]);
    text.trim_start_matches("sha256:").to_owned()
}

#[test]
fn an_image_is_mounted_read_only_and_protected_until_it_is_unmounted() {
    let stanza = fixture!(Empty, PrivateNetwork);
    load(&stanza, "some:1");
    let (id, before) = (id(&stanza, "some:1"), stanza.leftovers());
    let path = stanza.ok(&["image", "mount", "some:1"]);
    assert_eq!(path, format!("{}/mounts/{id}", stanza.runroot().display()));
    assert_eq!(stanza.ok(&["image", "mount", &id[..12]]), path);
    assert_eq!(
        shell(
            &stanza,
            &format!("cat {path}/etc/mine; ls {path}/bin/true {path}/etc/hosts; ls {path}/bin/sh")
        ),
        {
            format!(
                "mine{path}/bin/sh\nls: cannot access '{path}/bin/true': No such file or directory\n\
             ls: cannot access '{path}/etc/hosts': No such file or directory"
            )
        }
    );
    assert!(shell(&stanza, &format!("touch {path}/x")).contains("Read-only file system"));
    let options = shell(&stanza, &format!("grep ' {path} ' /proc/self/mountinfo | cut -d' ' -f6"));
    assert!(options.starts_with("ro,nosuid,nodev"), "{options}");

    let row: Value = serde_json::from_str(&stanza.ok(&["image", "mount", "--format", "json"])).expect("JSON");
    assert_eq!(
        row,
        json!({ "ID": &id[..12], "Repositories": "docker.io/library/some:1", "Mountpoint": path })
    );
    let refused = stanza.fails(1, &["rmi", "-f", "some:1"]);
    assert!(refused.contains(&format!("image is mounted at `{path}`")), "{refused}");
    stanza.ok(&["image", "prune", "-a", "-f"]);
    assert_eq!(stanza.ok(&["images", "-q"]), &id[..12]);
    let elsewhere = stanza.fails(1, &["image", "mount", "some:1", "/mnt"]);
    assert!(elsewhere.contains(&format!("is mounted at `{path}` already")), "{elsewhere}");

    assert_eq!(stanza.ok(&["image", "unmount", "some:1"]), id);
    assert_eq!(stanza.leftovers().mounts, before.mounts);
    let again = stanza.fails(1, &["image", "umount", "some:1"]);
    assert!(again.contains("is not mounted"), "{again}");
    stanza.ok(&["rmi", "some:1"]);
}

#[test]
fn an_image_is_mounted_where_it_is_wanted_and_a_lost_mount_is_found() {
    let stanza = fixture!(Empty, PrivateNetwork);
    load(&stanza, "some:1");
    let place = stanza.directory().join("bin").display().to_string();
    assert_eq!(stanza.ok(&["image", "mount", "some:1", &place]), place);
    assert_eq!(shell(&stanza, &format!("cat {place}/etc/mine")), "mine");
    // In use: refused without force.
    let script = format!("cd {place}; exec sleep 100");
    let mut words = stanza.network().expect("it was wished for").prefix();
    words.extend(["sh", "-c", &script].map(str::to_owned));
    let mut user = Command::new(&words[0]).args(&words[1..]).spawn().expect("it starts");
    stanza_test::wait_until("somebody is in it", || {
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", user.id()));
        cwd.is_ok_and(|cwd| cwd.ends_with("bin"))
    });
    let busy = stanza.fails(1, &["image", "unmount", "some:1"]);
    assert!(busy.contains("busy") && busy.contains("--force"), "{busy}");
    assert_eq!(stanza.ok(&["image", "unmount", "-f", "-a"]), id(&stanza, "some:1"));
    user.kill().expect("it lives");
    user.wait().expect("it ends");
    assert_eq!(stanza.ok(&["image", "mount", "--format", "{{.ID}}"]), "");

    stanza.ok(&["image", "mount", "some:1", &place]);
    shell(&stanza, &format!("umount {place}"));
    assert_eq!(stanza.ok(&["image", "mount", "--format", "{{.ID}}"]), "");
    let told = stanza.ok(&["system", "check", "--repair", "--format", "{{.What}}"]);
    assert!(told.contains(&format!("is not mounted at `{place}` any more")), "{told}");
    let told = stanza.output(&["system", "check", "--format", "{{.What}}"]).stdout;
    assert!(!told.contains("any more"), "{told}");
    let wrong = stanza.fails(1, &["image", "mount", "some:1", "/no/such/place"]);
    assert!(wrong.contains("cannot mount an image at `/no/such/place`"), "{wrong}");
    stanza.ok(&["rmi", "some:1"]);
}

#[test]
fn without_root_nothing_is_mounted_on_the_machine() {
    let stanza = fixture!(Rootless);
    let refused = stanza.fails(1, &["image", "mount", "busybox"]);
    assert!(refused.contains("cannot mount an image without root"), "{refused}");
    assert!(refused.contains("hint: run it as root"), "{refused}");
}
