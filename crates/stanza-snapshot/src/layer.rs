//! The layers of the store as they are mounted: which form each has, and whether it may be used.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{self, Mode, OFlags};
use stanza_spec::{Digest, ErofsWay, Layer};

use crate::apply::Hash;
use crate::erofs::format::{BLOCK, Blocks, SUPERBLOCK, told_checksum};
use crate::erofs::{self, INDEX, TAR};
use crate::overlay::is_opaque_at;
use crate::passing::Passing;
use crate::record::{ErofsRecord, LayerRecord};
use crate::store::FILES;
use crate::{LayerStore, PlanError};

impl LayerStore {
    /// A layer in the form that it has.
    ///
    /// # Errors
    /// When it is not there, damaged, or cannot be mounted here.
    pub fn layer(&self, diff_id: &Digest) -> Result<Layer, PlanError> {
        Ok(self.look(diff_id)?.0)
    }

    /// A layer, and whether its root hides everything below it. A directory costs one system call.
    pub(crate) fn look(&self, diff_id: &Digest) -> Result<(Layer, bool), PlanError> {
        let path = self.member(diff_id, FILES);
        match is_opaque_at(&path, self.rootless()) {
            Ok(opaque) => Ok((Layer::Directory(path), opaque)),
            Err(_) => self.erofs_layer(diff_id),
        }
    }

    fn erofs_layer(&self, diff_id: &Digest) -> Result<(Layer, bool), PlanError> {
        let missing = || PlanError::Missing { layer: diff_id.clone() };
        let home = self.home(diff_id);
        let record = LayerRecord::read(&home).map_err(|_| missing())?.erofs.ok_or_else(missing)?;
        let way = self.erofs_way().ok_or_else(|| PlanError::NotMountable { layer: diff_id.clone() })?;
        if !is_intact(&home, &record).unwrap_or(false) {
            return Err(PlanError::Damaged { layer: diff_id.clone() });
        }
        let opaque = record.opaque;
        Ok((Layer::Erofs { index: home.join(INDEX), tar: home.join(TAR), way }, opaque))
    }

    /// Whether a layer is there in a form that this machine can use.
    #[must_use]
    pub fn is_usable(&self, diff_id: &Digest) -> bool {
        self.contains(diff_id) && self.look(diff_id).is_ok()
    }

    /// How this machine mounts erofs images of this store; `None` when it does not. Found out by a trial, once for the
    /// directory that [`LayerStore::with_driver`] was given.
    pub(crate) fn erofs_way(&self) -> Option<ErofsWay> {
        if self.rootless() {
            return None;
        }
        let memory = self.memory().map(|directory| directory.join("erofs"));
        let known = memory.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        match known.as_deref() {
            Some("file") => return Some(ErofsWay::File),
            Some("loop") => return Some(ErofsWay::Loop),
            Some("none") => return None,
            _ => {}
        }
        let way = erofs::probe(&self.ingest()).ok()?;
        if let Some(path) = memory {
            let text = match way {
                Some(ErofsWay::File) => "file",
                Some(ErofsWay::Loop) => "loop",
                None => "none",
            };
            // Whoever cannot remember tries again.
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = std::fs::write(path, text);
        }
        way
    }

    /// Opens the root directory of a layer for reading, whatever form it has.
    ///
    /// # Errors
    /// When it is not there, or cannot be opened or mounted here.
    pub fn open_root(&self, diff_id: &Digest) -> Result<OwnedFd, PlanError> {
        open_layer(&self.layer(diff_id)?).map_err(|source| PlanError::Path {
            path: self.home(diff_id),
            action: "open the layer",
            source,
        })
    }

    /// What is wrong with the image of an erofs layer or its archive, if anything is.
    pub(crate) fn verify_erofs(
        &self,
        diff_id: &Digest,
        record: &ErofsRecord,
    ) -> io::Result<Option<&'static str>> {
        let home = self.home(diff_id);
        if !is_intact(&home, record)? {
            return Ok(Some("its erofs image or its archive has another size or superblock"));
        }
        let index = File::open(home.join(INDEX))?;
        if erofs::digest_of(&index, record.size)? != record.digest {
            return Ok(Some("its erofs image has another digest"));
        }
        let tar = io::Read::take(File::open(home.join(TAR))?, record.tar_size);
        let mut tar = io::BufReader::with_capacity(128 << 10, tar);
        let mut hashing = Passing::new(&mut tar, Hash::like(diff_id));
        io::copy(&mut hashing, &mut io::sink())?;
        let is_right = hashing.into_witness().finish() == *diff_id;
        Ok((!is_right).then_some("its archive has another digest"))
    }
}

/// Whether sizes and the superblock's checksum are those on record: what a torn or foreign file fails.
fn is_intact(home: &Path, record: &ErofsRecord) -> io::Result<bool> {
    let index = File::open(home.join(INDEX))?;
    let mut block = [0; Blocks::LAYER.superblock_length()];
    index.read_exact_at(&mut block, SUPERBLOCK)?;
    Ok(index.metadata()?.len() == record.size
        && std::fs::metadata(home.join(TAR))?.len() == record.tar_size.next_multiple_of(BLOCK)
        && told_checksum(&block) == Some(record.checksum))
}

/// Opens the root directory of a layer for reading. An erofs image is mounted for that, attached nowhere.
pub(crate) fn open_layer(layer: &Layer) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match layer {
        Layer::Directory(path) | Layer::Shifted(path) => Ok(fs::open(path, flags, Mode::empty())?),
        Layer::Erofs { index, tar, way } => {
            let (index, tar) = (File::open(index)?, File::open(tar)?);
            let mount = stanza_sys::mount_erofs(index.as_fd(), tar.as_fd(), *way == ErofsWay::Loop)?;
            Ok(fs::openat(&mount, ".", flags, Mode::empty())?)
        }
    }
}

/// What a layer is found by.
pub(crate) fn place(layer: &Layer) -> &Path {
    match layer {
        Layer::Directory(path) | Layer::Shifted(path) | Layer::Erofs { index: path, .. } => path,
    }
}
