//! The same as an ordinary user with subordinate ids.

use std::fs;

use stanza_test::{Account, fixture};

#[test]
fn an_ordinary_user_runs_the_image_host() {
    let stanza = fixture!(Rootless, Empty);
    let before = stanza.leftovers();
    let output = stanza.output(&[
        "run",
        "--rm",
        "--network",
        "none",
        "host",
        "sh",
        "-c",
        "echo hello from $(hostname), pid $$; id -u",
    ]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(
        output.stdout.starts_with("hello from ") && output.stdout.ends_with(", pid 1\n0\n"),
        "{}",
        output.stdout
    );
    stanza.assert_clean(&before);
}

#[test]
fn an_ordinary_user_runs_an_image() {
    let stanza = fixture!(Rootless);
    let before = stanza.leftovers();
    assert_eq!(stanza.shell_ok(&[], "id -u; echo x > /etc/x; cat /etc/x"), "0\nx");
    assert_eq!(stanza.shell(&[], "exit 42").code, 42);
    stanza.fails(127, &["run", "--rm", "--network", "none", "busybox", "no-such"]);
    stanza.fails(126, &["run", "--rm", "--network", "none", "busybox", "/etc/not-executable"]);
    stanza.assert_clean(&before);
}

#[test]
fn root_inside_is_the_caller_outside() {
    let stanza = fixture!(Rootless);
    let account = Account::ordinary().unwrap();
    let map = stanza.shell_ok(&[], "cat /proc/self/uid_map");
    let first: Vec<&str> = map.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first[0], "0");
    stanza.sleeper("c1");
    let status = fs::read_to_string(format!("/proc/{}/status", stanza.pid("c1"))).unwrap();
    let uid =
        status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap();
    assert_eq!(uid, account.uid.to_string());
}

#[test]
fn other_users_inside_are_subordinate_ids() {
    let stanza = fixture!(Rootless);
    assert_eq!(stanza.shell_ok(&["-u", "user"], "id -u; touch /tmp/x && stat -c %u /tmp/x"), "1000\n1000");
    assert_eq!(stanza.shell_ok(&[], "chown 1000:2000 /etc/passwd && stat -c %u:%g /etc/passwd"), "1000:2000");
}

#[test]
fn keep_id_is_the_callers_number_inside() {
    let stanza = fixture!(Rootless);
    let account = Account::ordinary().unwrap();
    assert_eq!(
        stanza.shell_ok(&["--userns", "keep-id"], "id -u; id -g"),
        format!("{}\n{}", account.uid, account.gid)
    );
}

#[test]
fn the_life_of_a_container_is_the_same_without_root() {
    let stanza = fixture!(Rootless);
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    assert_eq!(stanza.ok(&["ps", "--format", "{{.Names}} {{.State}}"]), "c1 running");
    assert_eq!(stanza.ok(&["exec", "c1", "sh", "-c", "id -u; echo x > /new"]), "0");
    assert_eq!(stanza.ok(&["exec", "-u", "user", "c1", "id", "-u"]), "1000");
    assert!(stanza.ok(&["diff", "c1"]).contains("A /new"));
    stanza.ok(&["stop", "-t", "0", "c1"]);
    assert_eq!(stanza.ok(&["start", "c1"]), "c1");
    stanza.kill_9(stanza.monitor("c1"));
    stanza.wait_state("c1", "exited");
    stanza.ok(&["rm", "-f", "c1"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_directory_of_the_user_is_mounted_and_written_as_the_user() {
    let stanza = fixture!(Rootless);
    let account = Account::ordinary().unwrap();
    let home = stanza.directory().join("home");
    stanza.shell_ok(&["-v", &format!("{}:/data", home.display())], "echo x > /data/file");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(home.join("file")).unwrap());
    assert_eq!(owner, account.uid);
}

#[test]
fn the_cgroup_tree_is_not_writable_inside() {
    let stanza = fixture!(Rootless);
    let output = stanza.shell(&[], "mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; for d in /sys/fs/cgroup/*/; do mkdir $d/x 2>/dev/null && echo made $d; done; true");
    assert_eq!(output.stdout, "");
}

#[test]
fn a_limit_that_an_ordinary_user_cannot_set_is_named() {
    let stanza = fixture!(Rootless);
    let before = stanza.leftovers();
    let output = stanza.shell(&["--memory", "64m"], "echo runs");
    // Where memory is delegated to the user, it is simply set.
    if output.code == 0 {
        assert_eq!(output.stdout, "runs\n");
    } else {
        assert_eq!(output.code, 125);
        assert!(output.stderr.contains("memory") && output.stderr.contains("hint"), "{}", output.stderr);
    }
    stanza.assert_clean(&before);
}

#[test]
fn a_container_without_root_on_the_bridge_says_what_it_gets() {
    let stanza = fixture!(Rootless);
    let output = stanza.output(&["run", "--rm", "busybox", "true"]);
    assert!(output.code == 0 || (output.code == 125 && output.stderr.contains("network")), "{output:?}");
}
