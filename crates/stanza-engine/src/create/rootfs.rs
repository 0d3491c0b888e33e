//! The root file system of a container: the layers of its image, unpacked, held, stacked or copied.

use std::fs;
use std::io;
use std::path::Path;

use stanza_image::{Image, Progress, PullOptions, RestoreOptions, restore_layers};
use stanza_snapshot::{
    LayersHeld, PlanError, StorageDriver, plan_copy, plan_host, plan_layers, shift_layers,
};
use stanza_spec::{Digest, Rootfs};

use super::{CreateError, HOST_IMAGE, UnpackError};
use crate::Engine;
use crate::database::Record;
use crate::engine::make_directory;
use crate::layers::Unpacking;

/// An image's layers, ready to be mounted.
pub(crate) struct Stack {
    pub(crate) rootfs: Rootfs,
    /// Those of the image, and those that its hard links need.
    pub(crate) layers: Vec<Digest>,
    pub(crate) held: LayersHeld,
}

impl Engine {
    /// The root file system's plan and its layers, held; those that are not unpacked yet are.
    pub(crate) fn ensure_rootfs(
        &mut self,
        image: &Image,
        name: &str,
        state_dir: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Stack, CreateError> {
        let failed = |source| CreateError::Unpack { image: name.to_owned(), source };
        let images = self.image_store().map_err(|error| failed(error.into()))?.clone();
        images.touch(image);
        self.choose_driver().map_err(|error| failed(error.into()))?;
        match self.stack(image, state_dir) {
            Err(error) if error.is_of_layers() => {}
            result => return result.map_err(failed),
        }
        // From here on neither blobs nor layers go, also when the image is removed meanwhile.
        let digests = image.layers.iter().flat_map(|layer| [&layer.digest, &layer.diff_id]);
        let lease = images.lease(digests).map_err(|error| failed(error.into()))?;
        self.unpack(image, progress).map_err(failed)?;
        let stack = self.stack(image, state_dir).map_err(failed)?;
        drop(lease);
        Ok(stack)
    }

    /// The root file system of layers that are all there, and what keeps them there.
    fn stack(&mut self, image: &Image, state_dir: &Path) -> Result<Stack, UnpackError> {
        let held = self.layer_store()?.hold()?;
        let layers: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let layers = self.layer_store()?.with_links(&layers)?;
        let copied = self.layer_store()?.driver() == StorageDriver::Copy;
        Ok(Stack { rootfs: self.plan_image_rootfs(&layers, state_dir, copied, None)?, layers, held })
    }

    /// The root file system of a container on record.
    pub(crate) fn plan_rootfs(&mut self, record: &Record) -> Result<Rootfs, UnpackError> {
        let state_dir = self.options.container_dir(record.id.as_str());
        if record.config.image == HOST_IMAGE {
            return Ok(self.plan_host_rootfs(&state_dir)?);
        }
        let facts = &record.facts;
        let rootfs = self.plan_image_rootfs(&facts.layers, &state_dir, facts.copied, facts.id_base)?;
        self.shift(rootfs, facts.id_base).map_err(UnpackError::Shift)
    }

    /// Layers with the owners of a user namespace whose ids begin at `id_base`, where the kernel cannot translate them.
    pub(super) fn shift(&self, rootfs: Rootfs, id_base: Option<u32>) -> io::Result<Rootfs> {
        match id_base {
            Some(base) if !self.maps_owners() => shift_layers(rootfs, base),
            _ => Ok(rootfs),
        }
    }

    /// Whether mounts of the layers' file system can be id-mapped: tried once per boot.
    fn maps_owners(&self) -> bool {
        let memory = self.options.runroot.join("idmap");
        match fs::read_to_string(&memory).as_deref() {
            Ok("yes") => return true,
            Ok("no") => return false,
            _ => {}
        }
        // What cannot be tried is left to the launch, which tells what is wrong.
        let Ok(maps) = stanza_container::maps_owners(&self.options.root.join("layers")) else { return true };
        let _ = make_directory(&self.options.runroot, 0o711);
        let _ = fs::write(&memory, if maps { "yes" } else { "no" });
        maps
    }

    pub(crate) fn plan_image_rootfs(
        &mut self,
        layers: &[Digest],
        state_dir: &Path,
        copied: bool,
        id_base: Option<u32>,
    ) -> Result<Rootfs, UnpackError> {
        let rootless = self.options.rootless;
        if copied {
            return Ok(plan_copy(self.layer_store()?, layers, state_dir, id_base.unwrap_or(0))?);
        }
        Ok(plan_layers(self.layer_store()?, layers, state_dir, rootless)?)
    }

    pub(crate) fn plan_host_rootfs(&self, state_dir: &Path) -> Result<Rootfs, PlanError> {
        let exclude = [self.options.root.clone(), self.options.runroot.clone()];
        plan_host(state_dir, &exclude, self.options.rootless)
    }

    /// Unpacks the layers of an image that are not on disk. Processes that do the same at once help each other.
    pub(crate) fn unpack(&mut self, image: &Image, progress: &mut dyn Progress) -> Result<(), UnpackError> {
        let (images, layers) = self.stores::<UnpackError>()?;
        let missing: Vec<&Digest> = image
            .layers
            .iter()
            .filter(|layer| !layers.is_usable(&layer.diff_id))
            .map(|layer| &layer.digest)
            .collect();
        let is_needed = |digest: &Digest| missing.contains(&digest) && images.is_dropped(digest);
        restore_layers(images, image, &is_needed, &mut RestoreOptions { tls_verify: true, progress })
            .map_err(|error| UnpackError::Fetch(Box::new(error)))?;
        images
            .unpack(&image.layers, &Unpacking(layers), PullOptions::CONCURRENCY)
            .map_err(|(layer, source)| UnpackError::Layer { layer, source })
    }
}
