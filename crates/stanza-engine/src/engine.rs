//! The engine's handle: directories, and the stores behind it, each opened when it is first needed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use stanza_image::{ImageStore, SinkError, StoreError};
use stanza_snapshot::LayerStore;
use stanza_spec::{Classify, ErrorKind, Rootfs};

use crate::database::{Database, DatabaseError, Record};
use crate::{Options, Settings, SettingsError};

/// One engine: what any number of processes do to one root directory. Cheap to make; not shared between threads.
#[derive(Debug)]
pub struct Engine {
    pub(crate) options: Options,
    database: Option<Database>,
    images: Option<ImageStore>,
    layers: Option<LayerStore>,
    pub(crate) settings: Option<Settings>,
    /// What `create` found out last, so that a `start` right after it asks nobody again.
    pub(crate) fresh: Option<Fresh>,
}

/// A container that this engine has just created.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) record: Record,
    pub(crate) rootfs: Rootfs,
    pub(crate) planned: crate::spec::Planned,
    /// Held from creation on by [`Engine::create_to_start`].
    pub(crate) lock: Option<Lock>,
}

/// Why the engine's directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A path of it is relative.
    #[error("the directory `{0}` is not an absolute path")]
    Relative(PathBuf),
}

impl Classify for OpenError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// An exclusive lock on one container, for the time of an operation on it. Ends with its owner, however that dies.
///
/// It is a lock on the container's state directory itself: nothing is left to clean up.
#[derive(Debug)]
pub(crate) struct Lock(OwnedFd);

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Lock {
    /// Waits for the lock on a container's directory; `None` when it is gone.
    pub(crate) fn take(directory: &Path) -> io::Result<Option<Lock>> {
        take_lock(directory, FlockOperation::LockExclusive)
    }
}

impl Engine {
    /// An engine on the given directories. Nothing is opened or made before it is needed.
    ///
    /// # Errors
    /// When a directory is not given as an absolute path.
    pub fn open(options: Options) -> Result<Engine, OpenError> {
        for path in [&options.root, &options.runroot] {
            if !path.is_absolute() {
                return Err(OpenError::Relative(path.clone()));
            }
        }
        Ok(Engine { options, database: None, images: None, layers: None, settings: None, fresh: None })
    }

    /// Where this engine keeps its things.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn database(&mut self) -> Result<&mut Database, DatabaseError> {
        match self.database {
            Some(ref mut database) => Ok(database),
            None => {
                let database =
                    Database::open(&self.options.database(), || ensure_directories(&self.options))?;
                Ok(self.database.insert(database))
            }
        }
    }

    /// Whether there is a database; without one there are no containers and no volumes.
    pub(crate) fn has_database(&self) -> bool {
        self.database.is_some() || self.options.database().exists()
    }

    /// Every container's record. Where no database is, none is made for the question: on a full disk it could not be, and
    /// whoever asks what images may go would be refused. For whoever is alone with the layers the answer stays true.
    pub(crate) fn records(&mut self) -> Result<Vec<Record>, DatabaseError> {
        if !self.has_database() {
            return Ok(Vec::new());
        }
        let database = self.database()?;
        database.rows()?.iter().map(|row| database.decode(row)).collect()
    }

    pub(crate) fn image_store(&mut self) -> Result<&ImageStore, StoreError> {
        if self.images.is_none() {
            // A failure is told by the store itself.
            let _ = make_directory(&self.options.root, 0o711);
            self.images = Some(ImageStore::open(&self.options.root.join("images"))?);
        }
        Ok(self.images.as_ref().expect("it was opened above"))
    }

    /// Decides which form layers get that are unpacked from now on, and whether containers are copies of them: as the command
    /// line or the environment says, else the configuration file, else by the file system.
    ///
    /// Costs the attempt to open the configuration file, and no more where there is none: so it is asked by whoever unpacks
    /// or creates, and by nobody who uses what is there.
    pub(crate) fn choose_driver(&mut self) -> Result<(), SettingsError> {
        if self.options.storage_driver.is_none()
            && let Some(driver) = self.settings()?.storage.driver
        {
            self.options.storage_driver = Some(driver);
            let layers = self.layers.take();
            self.layers = layers.map(|store| store.with_driver(Some(driver), &self.options.runroot));
        }
        Ok(())
    }

    /// Both stores at once, ready to take an image: what processes that died left half unpacked is cleared first.
    pub(crate) fn stores<E>(&mut self) -> Result<(&ImageStore, &LayerStore), E>
    where
        E: From<StoreError> + From<SinkError>,
    {
        self.image_store()?;
        self.choose_driver().map_err(SinkError::new)?;
        // One look, before work that takes much longer. A failure is shown by `system check`.
        let _ = self.layer_store().map_err(SinkError::new)?.clear_leftovers();
        Ok(self.images.as_ref().zip(self.layers.as_ref()).expect("both were opened above"))
    }

    pub(crate) fn layer_store(&mut self) -> Result<&LayerStore, stanza_snapshot::OpenError> {
        if self.layers.is_none() {
            let _ = make_directory(&self.options.root, 0o711);
            let store = LayerStore::open(&self.options.root.join("layers"), self.options.rootless)?;
            self.layers = Some(store.with_driver(self.options.storage_driver, &self.options.runroot));
        }
        Ok(self.layers.as_ref().expect("it was opened above"))
    }

    /// Waits for the container's lock; `None` when its directory is gone.
    pub(crate) fn lock(&self, id: &str) -> io::Result<Option<Lock>> {
        Lock::take(&self.options.container_dir(id))
    }

    /// The container's lock if nobody has it; `None` when somebody does or its directory is gone.
    pub(crate) fn try_lock(&self, id: &str) -> io::Result<Option<Lock>> {
        take_lock(&self.options.container_dir(id), FlockOperation::NonBlockingLockExclusive)
    }
}

fn take_lock(directory: &Path, operation: FlockOperation) -> io::Result<Option<Lock>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptor = match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    loop {
        match rustix::fs::flock(&descriptor, operation) {
            Ok(()) => return Ok(Some(Lock(descriptor))),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Makes a directory and those above it; one that is there is fine and keeps its mode.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// The directories that the engine itself needs below its roots. A user namespace's root must be able to walk to its
/// layers and volumes, so the ones on the way may be walked through (0711) but not listed.
fn ensure_directories(options: &Options) -> io::Result<()> {
    make_directory(&options.root, 0o711)?;
    for directory in [options.containers_dir(), options.volumes_dir()] {
        make_directory(&directory, 0o711)?;
    }
    make_directory(&options.seccomp_dir(), 0o700)?;
    make_directory(&options.run_dirs(), 0o711)
}
