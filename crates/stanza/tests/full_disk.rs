//! What a user does on a full disk: remove containers and images. That must not need room (`database/room.rs` and the reserve of
//! `index.json`). Commits and pulls on a full disk are in `attacks_images.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;
use stanza_test::{Layout, Stanza, fixture, on_a_small_disk, skip};

/// Loads an image of busybox as `room:1`; `made NUMBER` creates so many containers of it.
fn prelude(stanza: &Stanza) -> String {
    let layout = Layout::new(vec![stanza.busybox().to_vec()], &json!({ "Cmd": ["true"] }));
    let archive = stanza.file("archive.tar", layout.archive("room:1"));
    format!(
        r#"s load -q -i {archive} >/dev/null || echo cannot load
        made() {{ for n in $(seq $1); do s create --name c$n --network none room:1 true >/dev/null; done; }}
        sound() {{ s image verify >/dev/null || echo "$1: not sound"; left; }}"#
    )
}

#[test]
fn containers_are_removed_on_a_full_disk_one_by_one_and_all_at_once() {
    let stanza = fixture!(Empty);
    // Twenty removals write more than what is kept beyond the log's end: it has to begin again. One has run, so that its end is
    // noted first.
    let script = format!(
        r#"{}
        for free in 0 4 8 16 32 64 128 256 512 1024; do
            for verb in "rm $(seq -s ' ' -f 'c%g' 20)" "system prune -f"; do
                made 20; s start c20 >/dev/null && s wait c20 >/dev/null
                full $free; s $verb >/dev/null || echo "$verb with $free KiB: code $?"
                s ps -aq; rm "$D/fill"; sound "$verb, $free KiB"
                [ -z "$(ls "$D/root/containers")" ] || echo "$verb, $free KiB: files stay"
            done
            now=$(used); [ $now -le $((${{first:=$now}} + 600)) ] || echo "$free KiB: from $first to $now"
        done"#,
        prelude(&stanza)
    );
    let Some(output) = on_a_small_disk(&stanza, "64m", &script) else {
        skip!("no tmpfs may be mounted here")
    };
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
}

#[test]
fn images_are_removed_on_a_full_disk_where_no_container_ever_was() {
    let stanza = fixture!(Empty);
    // The database is not there, and could not be made.
    let script = format!(
        r#"for free in 0 4 16 64; do
            for verb in "image prune -a -f" "system prune -a -f" "system prune -a -f --volumes" "rmi room:1"; do
                rm -rf "$D/root"
                {}
                rm -f "$D/root/stanza.db"*
                full $free; before=$(used); s $verb >/dev/null || echo "$verb with $free KiB: code $?"
                [ $(used) -lt $((before - 1000)) ] || echo "$verb with $free KiB: from $before to $(used)"
                rm "$D/fill"; sound "$verb, $free KiB"
            done
        done"#,
        prelude(&stanza)
    );
    let Some(output) = on_a_small_disk(&stanza, "64m", &script) else {
        skip!("no tmpfs may be mounted here")
    };
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
}

#[test]
fn a_running_container_is_removed_by_force_on_a_full_disk() {
    let stanza = fixture!(Empty);
    let script = format!(
        r#"{}
        for free in 0 4 16 64; do
            s run -d --name c1 --network none room:1 sleep 1000 >/dev/null
            full $free; s rm -f c1 >/dev/null || echo "$free KiB: code $?"
            s ps -aq; rm "$D/fill"; sound "$free KiB"
            [ -z "$(ls "$D/root/containers" "$D/run/containers" | grep -v :$)" ] || echo "$free KiB: files stay"
        done"#,
        prelude(&stanza)
    );
    let Some(output) = on_a_small_disk(&stanza, "64m", &script) else {
        skip!("no tmpfs may be mounted here")
    };
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
}

#[test]
fn a_removal_killed_on_a_full_disk_is_done_by_the_next_one() {
    let stanza = fixture!(Empty);
    let script = format!(
        r#"{}
        for try in 1 2 3 4 5 6 7 8 9 10; do
            made 20; full 0
            "$S" --root "$D/root" --runroot "$D/run" rm $(seq -s ' ' -f 'c%g' 20) >/dev/null 2>&1 & victim=$!
            sleep $(printf 0.%03d $((2 * try))); kill -9 $victim 2>/dev/null
            {{ wait $victim; [ $? -ne 137 ] || killed=yes; }} 2>/dev/null
            # What the removal gave back is somebody else's by now.
            head -c 64m /dev/zero 2>/dev/null >>"$D/fill"
            s system prune -f >/dev/null || echo "try $try: code $?"
            s ps -aq; rm "$D/fill"; sound "try $try"
            [ -z "$(ls "$D/root/containers")" ] || echo "try $try: files stay"
        done
        [ "$killed" ] || echo none was killed"#,
        prelude(&stanza)
    );
    let Some(output) = on_a_small_disk(&stanza, "64m", &script) else {
        skip!("no tmpfs may be mounted here")
    };
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
}
