//! The directory of one bench: the image, the programs of `benches/`, and everything the contenders keep.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Timer;
use crate::shell::{Janitor, output};

/// A private directory; removed when dropped.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(super) directory: PathBuf,
    /// The executable under test.
    pub(super) stanza: PathBuf,
    /// The unpacked image.
    pub(super) rootfs: PathBuf,
    /// The same as an archive.
    pub(super) archive: PathBuf,
    pub(super) floor: PathBuf,
    pub(super) timer: Timer,
    /// Removes the directory when this task is ended before it does.
    _janitor: Janitor,
}

fn compile(source: &str, target: &Path) -> Result<(), String> {
    compile_with(&["-Wno-unused-result"], source, target)
}

/// Makes a static program of one C source.
pub(super) fn compile_with(options: &[&str], source: &str, target: &Path) -> Result<(), String> {
    let target = target.display().to_string();
    let words = [&["cc", "-O2", "-static", "-no-pie"], options, &["-o", &target, source]].concat();
    output(&words).map(|_| ())
}

/// Unpacks `busybox-static` into a root file system with a command for each of its applets.
pub(crate) fn make_rootfs(rootfs: &Path) -> Result<(), String> {
    let tell = |error: std::io::Error| format!("cannot make the image: {error}");
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(rootfs.join(name)).map_err(tell)?;
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox"))
        .map_err(|error| format!("no `/bin/busybox` (package busybox-static): {error}"))?;
    for applet in output(&["/bin/busybox", "--list"])?.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", rootfs.join("bin").join(applet)).map_err(tell)?;
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").map_err(tell)?;
    fs::write(rootfs.join("etc/group"), "root:x:0:\n").map_err(tell)
}

impl Workshop {
    /// Makes the directory and what every bench needs.
    pub(super) fn open(stanza: PathBuf) -> Result<Workshop, String> {
        let directory = std::env::temp_dir().join(format!("stanza-bench-{}", std::process::id()));
        let (rootfs, archive) = (directory.join("rootfs"), directory.join("busybox.tar"));
        let (floor, program) = (directory.join("floor"), directory.join("measure"));
        fs::create_dir_all(&rootfs)
            .map_err(|error| format!("cannot make `{}`: {error}", rootfs.display()))?;
        let janitor = Janitor::engage(
            "for try in 1 2 3 4 5; do rm -rf \"$@\" && break; sleep 1; done",
            std::slice::from_ref(&directory),
        )?;
        let timer = Timer { program };
        let workshop = Workshop { directory, stanza, rootfs, archive, floor, timer, _janitor: janitor };
        make_rootfs(&workshop.rootfs)?;
        workshop.pack()?;
        compile("benches/floor/floor.c", &workshop.floor)?;
        compile("benches/measure/measure.c", &workshop.timer.program)?;
        Ok(workshop)
    }

    /// Makes the archive of the unpacked image, again when it was changed.
    pub(super) fn pack(&self) -> Result<(), String> {
        let (from, to) = (self.rootfs.display().to_string(), self.archive.display().to_string());
        output(&["tar", "--numeric-owner", "--owner=0", "--group=0", "-C", &from, "-cf", &to, "."])
            .map(|_| ())
    }

    /// The machine in one line, for the table's caption.
    pub(super) fn describe(&self) -> String {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let models: Vec<&str> = information
            .lines()
            .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map(|(_, name)| name)
            .collect();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        let size = fs::metadata(&self.stanza).map(|data| data.len() / 1024).unwrap_or_default();
        format!(
            "Linux {}, {} x {}, load {load}; stanza of {size} KiB",
            kernel.trim(),
            models.len(),
            models.first().unwrap_or(&"an unnamed processor")
        )
    }

    /// A directory inside.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).map_err(|error| format!("cannot make `{}`: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Peers leave trees that only a patient `rm` removes.
        let _ = Command::new("rm").arg("-rf").arg(&self.directory).status();
    }
}
