//! A file system that is soon full.

use std::fs;

use crate::{Output, Stanza, tool};

/// Runs a script in a mount name space of its own with a small memory file system at `$D`, of that size as `mount` takes it, and
/// stanza in it as `s`. `None`: none may be mounted here.
///
/// The script has `used` (KiB of the file system), `left` (what of image stores is there only while something is going on) and
/// `full KIB`, which leaves that much room beside the file `$D/fill`.
///
/// # Panics
/// When the directory for it cannot be made.
pub fn on_a_small_disk(stanza: &Stanza, size: &str, script: &str) -> Option<Output> {
    let disk = stanza.directory().join("disk");
    fs::create_dir_all(&disk).expect("the directory is made");
    let prelude = r#"D=$1 S=$2; mount -t tmpfs -o "size=$3" tmpfs "$D" || exit 99
        s() { "$S" --root "$D/root" --runroot "$D/run" "$@"; }
        used() { df --output=used -k "$D" | tail -n 1 | tr -d ' '; }
        left() { find "$D"/root/images/ingest "$D"/root/layers/ingest -mindepth 1 2>/dev/null | grep -v partial; }
        full() {
            head -c 64m /dev/zero >"$D/fill" 2>/dev/null
            truncate -s $(($(stat -c %b "$D/fill") / 2 - $1))K "$D/fill"
        }"#;
    let (disk, binary) = (disk.display().to_string(), stanza.binary().display().to_string());
    let script = format!("{prelude}\n{script}");
    let words =
        ["unshare", "-m", "--propagation", "private", "sh", "-c", &script, "sh", &disk, &binary, size];
    let output = tool(&words);
    (output.code != 99).then_some(output)
}
