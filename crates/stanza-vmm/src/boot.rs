//! What a guest boots from: a kernel, and an initramfs with the agent and the modules that this kernel needs.

use std::path::PathBuf;

use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::modules::{Modules, ModulesError};
use crate::store::{self, Store, StoreError};

/// Changes with the content of an initramfs made of the same parts.
const FORMAT: u32 = 1;

/// What every guest needs before it can hear, and what needs no device to be loaded: drivers find their devices when these
/// appear, so loading them once, before the template is taken, is enough.
const EARLY: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "erofs",
    "overlay",
    "ext4",
    "fuse",
    "virtiofs",
];

/// What few guests need.
const LATE: &[&str] = &["virtio_balloon"];

/// A kernel and its initramfs, ready on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The kernel.
    pub kernel: Kernel,
    /// The file with its initramfs.
    pub initramfs: PathBuf,
    /// Tells it from every other pair, in hexadecimal digits.
    pub key: String,
    /// What the agent answers.
    pub(crate) greeting: Vec<u8>,
}

/// The first process of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Agent<'a> {
    /// Its executable.
    pub program: &'a [u8],
    /// The first bytes that it is sent over its channel: with its answer it is ready. None are sent to one that speaks first.
    pub greeting: &'a [u8],
}

/// Why there is nothing to boot from.
#[derive(Debug, thiserror::Error)]
pub enum BootFilesError {
    /// The kernel lacks something, or its modules cannot be read.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Boot {
    /// Makes the initramfs of `kernel` with the agent's executable, unless that was done before.
    ///
    /// # Errors
    /// When the kernel does not have what a guest needs: all of it is named.
    pub fn prepare(store: &Store, kernel: Kernel, agent: Agent<'_>) -> Result<Boot, BootFilesError> {
        let parts = format!("{FORMAT} {} {} {EARLY:?} {LATE:?}", kernel.digest, store::digest(agent.program));
        let key = store::digest(parts.as_bytes());
        let initramfs = store.path("initramfs").join(&key);
        if !initramfs.is_file() {
            let modules = Modules::open(&kernel.modules)?;
            let early = modules.closure(EARLY, &[])?;
            let late = modules.closure(LATE, &early)?;
            let archive = Initramfs { init: agent.program, early: &early, late: &late }.archive();
            store::write_whole(&store.lock()?, &initramfs, &archive)?;
        }
        Ok(Boot { kernel, initramfs, key, greeting: agent.greeting.to_vec() })
    }
}
