//! Modules and disks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::system::finit_module;

/// Where the initramfs has its modules, and the lists of them.
const MODULES: &str = "/modules";

/// How long a device may take to appear once its driver is there.
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Loads the modules that are listed; a list that is not there is empty. What is loaded already stays.
pub(super) fn load_modules(list: &str) -> Result<(), String> {
    let list = Path::new(MODULES).join(list);
    let names = match fs::read_to_string(&list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| format!("cannot read `{}`: {error}", list.display()))?,
    };
    for name in names.lines().filter(|line| !line.is_empty()) {
        let path = Path::new(MODULES).join(name);
        let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("cannot open the module `{}`: {error}", path.display()))?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => {
                return Err(format!(
                    "cannot load the module `{name}`: it needs another one before it in `{}`",
                    list.display()
                ));
            }
            Err(error) => return Err(format!("cannot load the module `{name}`: {error}")),
        }
    }
    Ok(())
}

/// Looks until there is something; `None` after [`PATIENCE`].
pub(super) fn wait_for<T>(look: impl Fn() -> Result<Option<T>, String>) -> Result<Option<T>, String> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if start.elapsed() > PATIENCE {
            return Ok(None);
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The device file of the disk with that serial number.
pub(super) fn disk(serial: &str) -> Result<PathBuf, String> {
    let look = || -> io::Result<Option<PathBuf>> {
        for entry in fs::read_dir("/sys/block")? {
            let entry = entry?;
            let path = Path::new("/dev").join(entry.file_name());
            // What is no virtio disk has no such file.
            let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            if found.trim_end() == serial && path.exists() {
                return Ok(Some(path));
            }
        }
        Ok(None)
    };
    wait_for(|| look().map_err(|error| format!("cannot look for disks: {error}")))?
        .ok_or_else(|| format!("the machine has no disk with the serial number `{serial}`"))
}
