//! Templates: a guest that has booted up to its waiting agent, kept, and gone on from by every machine of its kind.
//!
//! ```text
//!  make:  boot, memory in a file, no disk, no network ─ agent's first byte ─ stop ─ save devices ─▶ ram, state
//!  use:   Memory::Template(ram) maps it privately ─ Qmp::restore(state) ─ cont ─▶ the agent goes on where it waited
//! ```
//!
//! Invariants
//! * A template holds nobody's data: it never had a disk, a network, or anything but the agent.
//! * It belongs to one QEMU, kernel, initramfs, accelerator, processor, memory size and number of processors: its key.
//! * It appears whole, by one rename. Its memory is not read when it is opened, only its size is compared; its state, which
//!   QEMU parses, has a digest.
//! * What must not be alike in two machines (random numbers, clocks, names, addresses) is the agent's to renew.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use serde::{Deserialize, Serialize};

use crate::boot::Boot;
use crate::bounded;
use crate::qemu::{BootError, Process, Qemu};
use crate::qmp::{Qmp, QmpError};
use crate::spec::{Accelerator, Memory, VmSpec};
use crate::store::{self, Store, StoreError};

/// Changes with what a template's directory holds, or with the machine that it was taken of.
const FORMAT: u32 = 1;
/// The longest device state: one of this shape has 0.1 MB.
const STATE_LIMIT: u64 = 16 << 20;
/// What is given back to the file system when it is zero.
const PAGE: usize = 4096;
/// How much of the memory is looked at at once.
const WINDOW: usize = 1 << 20;
/// How long QEMU may take for a command.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// What machines of one kind have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Who runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
}

/// A template on the disk, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The memory: give it as [`Memory::Template`].
    pub ram: PathBuf,
    /// The devices' state: load it with [`Template::restore`].
    pub state: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    key: String,
    ram_bytes: u64,
    state_bytes: u64,
    state_digest: String,
}

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The machine did not come up.
    #[error("cannot make a template")]
    Boot(#[from] BootError),
    /// QEMU did not do what it was told.
    #[error("cannot make a template")]
    Qmp(#[from] QmpError),
    /// Its files cannot be written.
    #[error("cannot write the template `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Template {
    /// The template of this kind, if there is one and it is whole. It makes nothing.
    #[must_use]
    pub fn find(store: &Store, qemu: &Qemu, boot: &Boot, shape: Shape) -> Option<Template> {
        let key = key(qemu, boot, shape);
        open(&store.path("templates").join(&key), &key, shape)
    }

    /// The template of this kind, made if there is none or a broken one. Whoever comes meanwhile waits and takes it.
    ///
    /// # Errors
    /// When the guest is not ready within `limit`, or its state cannot be kept.
    pub fn ensure(
        store: &Store,
        qemu: &Qemu,
        boot: &Boot,
        shape: Shape,
        limit: Duration,
    ) -> Result<Template, TemplateError> {
        let key = key(qemu, boot, shape);
        let directory = store.path("templates").join(&key);
        if let Some(template) = open(&directory, &key, shape) {
            return Ok(template);
        }
        let making = store.lock()?;
        if let Some(template) = open(&directory, &key, shape) {
            return Ok(template);
        }
        let made = making.directory()?;
        make(&made, qemu, boot, shape, limit, key)?;
        making.publish(&made, &directory)?;
        Ok(Template { ram: directory.join("ram"), state: directory.join("state") })
    }

    /// Loads the devices' state into a machine that was started with [`VmSpec::restore`], and lets it run.
    ///
    /// # Errors
    /// When the state cannot be read, or is not taken within `limit`.
    pub fn restore(&self, qmp: &mut Qmp, limit: Duration) -> Result<(), QmpError> {
        let state = File::open(&self.state).map_err(QmpError::Socket)?;
        qmp.restore(state.as_fd(), limit)?;
        qmp.cont(limit)
    }
}

/// Removes the templates that are not of these kinds: of another kernel, agent or QEMU. Gives how many went.
///
/// # Errors
/// When one cannot be removed.
pub fn remove_templates_but(store: &Store, kept: &[Template]) -> Result<usize, StoreError> {
    let _alone = store.lock()?;
    let directory = store.path("templates");
    let failed = |error| StoreError::new("read", &directory, error);
    let mut removed = 0;
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if kept.iter().all(|template| template.ram.parent() != Some(&path)) {
            store::remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The machine of which a template is taken, and of which those that go on from it differ only in devices added.
pub(crate) fn plain_machine(boot: &Boot, shape: Shape, memory: Memory) -> VmSpec {
    VmSpec {
        kernel: boot.kernel.vmlinux.clone(),
        initramfs: boot.initramfs.clone(),
        accelerator: shape.accelerator,
        memory_mib: shape.memory_mib,
        memory,
        cpus: shape.cpus,
        disks: Vec::new(),
        nics: Vec::new(),
        shares: Vec::new(),
        agent: 0,
        qmp: 0,
        console: None,
        restore: false,
    }
}

fn key(qemu: &Qemu, boot: &Boot, shape: Shape) -> String {
    let Shape { accelerator, memory_mib, cpus } = shape;
    // With KVM the guest has seen this host's processor.
    let processor = match accelerator {
        Accelerator::Kvm => processor(&stanza_sys::read_proc("/proc/cpuinfo").unwrap_or_default()),
        Accelerator::Tcg => String::new(),
    };
    let accelerator = accelerator.as_str();
    let parts = [FORMAT.to_string(), qemu.identity.clone(), boot.key.clone(), processor];
    store::digest(format!("{parts:?} {accelerator} {memory_mib} {cpus}").as_bytes())
}

/// The lines of the first processor that stay the same while it runs.
fn processor(cpuinfo: &str) -> String {
    let first = cpuinfo.lines().take_while(|line| !line.is_empty());
    let constant = ["vendor_id", "cpu family", "model", "stepping", "microcode", "flags"];
    first.filter(|line| constant.iter().any(|word| line.starts_with(word))).collect()
}

/// The template in `directory`, if it is whole and of this kind.
fn open(directory: &Path, key: &str, shape: Shape) -> Option<Template> {
    let text = bounded::read_file(&directory.join("manifest.json"), PAGE as u64).ok()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    let template = Template { ram: directory.join("ram"), state: directory.join("state") };
    let state = bounded::read_file(&template.state, STATE_LIMIT).ok()?;
    let ram = fs::symlink_metadata(&template.ram).ok()?;
    let found = Manifest {
        format: FORMAT,
        key: key.to_owned(),
        ram_bytes: ram.size(),
        state_bytes: state.len() as u64,
        state_digest: store::digest(&state),
    };
    (manifest == found && ram.is_file() && ram.size() == ram_bytes(shape)).then_some(template)
}

fn ram_bytes(shape: Shape) -> u64 {
    u64::from(shape.memory_mib) << 20
}

fn make(
    directory: &Path,
    qemu: &Qemu,
    boot: &Boot,
    shape: Shape,
    limit: Duration,
    key: String,
) -> Result<(), TemplateError> {
    let create = |name: &str| {
        let path = directory.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        // A confined QEMU has a user of its own, and sees no other file of the store.
        let file = file.and_then(|file| {
            file.set_permissions(PermissionsExt::from_mode(0o644))?;
            Ok(file)
        });
        file.map_err(|source| TemplateError::Write { path, source })
    };
    let (ram, state) = (create("ram")?, create("state")?);
    let path = directory.join("ram");
    let failed = |source| TemplateError::Write { path: path.clone(), source };
    ram.set_len(ram_bytes(shape)).map_err(failed)?;
    let spec = plain_machine(boot, shape, Memory::File(path.clone()));
    let mut machine = Process::start(qemu, spec, COMMAND_LIMIT)?;
    machine.wait_ready(&boot.greeting, limit)?;
    machine.qmp.stop(COMMAND_LIMIT)?;
    machine.qmp.save(state.as_fd(), COMMAND_LIMIT)?;
    machine.quit(COMMAND_LIMIT)?;
    punch_zero_pages(&ram).map_err(failed)?;
    for file in [&ram, &state] {
        file.sync_all().map_err(failed)?;
    }
    let content = bounded::read_file(&directory.join("state"), STATE_LIMIT).map_err(failed)?;
    let manifest = Manifest {
        format: FORMAT,
        key,
        ram_bytes: ram_bytes(shape),
        state_bytes: content.len() as u64,
        state_digest: store::digest(&content),
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(error.into()))?;
    Ok(store::write_synced(&directory.join("manifest.json"), &text)?)
}

/// Gives the pages back that hold nothing but zeros: a hole reads the same.
fn punch_zero_pages(ram: &File) -> io::Result<()> {
    let length = ram.metadata()?.len();
    let mut window = vec![0; WINDOW];
    let mut at = 0;
    while at < length {
        at = match seek(ram, SeekFrom::Data(at)) {
            Ok(data) => data / PAGE as u64 * PAGE as u64,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let read = ram.read_at(&mut window, at)?;
        if read == 0 {
            return Ok(());
        }
        let pages = window[..read].chunks(PAGE).map(|page| page.iter().all(|byte| *byte == 0));
        let mut hole = None;
        for (index, zero) in pages.chain([false]).enumerate() {
            let offset = at + (index * PAGE) as u64;
            if zero {
                hole.get_or_insert(offset);
            } else if let Some(start) = hole.take() {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(ram, flags, start, offset.min(length) - start)?;
            }
        }
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { accelerator: Accelerator::Tcg, memory_mib: 1, cpus: 1 };

    fn written(directory: &Path) {
        File::create(directory.join("ram")).unwrap().set_len(1 << 20).unwrap();
        fs::write(directory.join("state"), "state").unwrap();
        let manifest = Manifest {
            format: FORMAT,
            key: "key".into(),
            ram_bytes: 1 << 20,
            state_bytes: 5,
            state_digest: store::digest(b"state"),
        };
        fs::write(directory.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    }

    #[test]
    fn a_template_that_is_broken_or_of_another_kind_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let found = |key: &str| open(path, key, SHAPE).is_some();
        assert!(!found("key"));
        written(path);
        assert!(found("key"));
        assert!(!found("another"));
        assert!(open(path, "key", Shape { memory_mib: 2, ..SHAPE }).is_none());
        for (name, content) in
            [("state", "stale"), ("state", "long state"), ("ram", ""), ("manifest.json", "{")]
        {
            written(path);
            fs::write(path.join(name), content).unwrap();
            assert!(!found("key"), "{name}");
        }
        written(path);
        let text = fs::read_to_string(path.join("manifest.json")).unwrap();
        fs::write(path.join("manifest.json"), text.replace("\"format\":1", "\"format\":2")).unwrap();
        assert!(!found("key"));
    }

    #[test]
    fn zero_pages_become_holes_and_the_content_stays() {
        let file = tempfile::tempfile().unwrap();
        let mut content = vec![0; 3 * WINDOW + PAGE + 100];
        for at in [5, WINDOW - 1, 2 * WINDOW, 3 * WINDOW + PAGE + 50] {
            content[at] = 1;
        }
        file.write_all_at(&content, 0).unwrap();
        let before = file.metadata().unwrap().blocks();
        punch_zero_pages(&file).unwrap();
        let after = file.metadata().unwrap();
        let mut read = vec![1; content.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == content);
        assert_eq!(after.len(), content.len() as u64);
        assert!(after.blocks() * 10 < before, "{} of {before}", after.blocks());
    }
}
