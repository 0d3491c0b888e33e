//! What virtual machines need, made once for all fixtures: a kernel, the guest's first files, a template.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::{Running, have, tool};

/// Gives a root the files of virtual machines, as second names of those that all tests share.
///
/// # Errors
/// The reason why no machine can run here.
pub(crate) fn provide(binary: &Path, archive: &[u8], root: &Path) -> Result<(), String> {
    if !have("qemu-system-x86_64") {
        return Err("no QEMU (package qemu-system-x86)".to_owned());
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let shared = target.join("test-machines");
    let told = |error: std::io::Error| format!("`{}`: {error}", shared.display());
    fs::create_dir_all(&shared).map_err(told)?;
    let lock = File::create(shared.join("lock")).map_err(told)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| told(error.into()))?;
    let kept = shared.join("root");
    // The agent is in the executable: what another one made is of no use.
    let metadata = fs::metadata(binary).map_err(told)?;
    let key = format!("{} {} {}", metadata.ino(), metadata.mtime(), metadata.len());
    if fs::read_to_string(shared.join("made-by")).is_ok_and(|made_by| made_by == key) {
        return link(&kept, root);
    }
    let _ = fs::remove_dir_all(&kept);
    let package = package(&target.join("kernel-packages"))?;
    let run = |args: &[&str], input: &[u8]| {
        let mut command = Command::new(binary);
        command.arg(format!("--root={}", kept.display()));
        command.arg(format!("--runroot={}", shared.join("run").display())).args(args);
        let mut running = Running::start(command);
        running.send(input);
        let output = running.finish();
        assert_eq!(output.code, 0, "stanza {args:?}: {}", output.stderr);
    };
    run(&["vm", "kernel", "install", &package.display().to_string()], &[]);
    run(&["import", "-", "busybox:latest"], archive);
    run(&["run", "--rm", "--isolation", "vm", "--network", "none", "busybox", "true"], &[]);
    fs::write(shared.join("made-by"), key).map_err(told)?;
    link(&kept, root)
}

/// The newest kernel package.
fn package(directory: &Path) -> Result<PathBuf, String> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .max_by_key(|path| path.to_string_lossy().contains("6.12"))
        .ok_or_else(|| {
            format!("no kernel package in `{}` (`cargo xtask test` gets one)", directory.display())
        })
}

/// Nothing of it is written again in place: what changes is made anew, and renamed.
fn link(kept: &Path, root: &Path) -> Result<(), String> {
    let vm = root.join("vm");
    fs::create_dir_all(&vm).map_err(|error| error.to_string())?;
    let (from, to) = (kept.join("vm"), vm.display().to_string());
    for name in ["kernels", "unpacked", "initramfs", "templates", "accelerator.json", "qemu.json"] {
        let one = from.join(name).display().to_string();
        // Two file systems share no names.
        if tool(&["cp", "-al", &one, &to]).code != 0 {
            let copied = tool(&["cp", "-a", "--sparse=always", &one, &to]);
            if copied.code != 0 {
                return Err(copied.stderr);
            }
        }
    }
    Ok(())
}
