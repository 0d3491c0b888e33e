//! `df`: what takes how much disk, and how much of it could go.

use std::collections::BTreeSet;

use stanza_spec::Digest;

use super::SystemError;
use crate::container::State;
use crate::list::ListQuery;
use crate::{Engine, ImageError, size};

/// Disk usage by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images: blobs and unpacked layers.
    pub images: Part,
    /// Containers' writable layers.
    pub containers: Part,
    /// Volumes.
    pub volumes: Part,
}

/// One kind's usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How many there are.
    pub total: usize,
    /// How many are in use.
    pub active: usize,
    /// Bytes in all.
    pub size: u64,
    /// Bytes of those not in use.
    pub reclaimable: u64,
}

impl Engine {
    /// How much disk is taken, and how much of that `prune` could free. Reads every file.
    ///
    /// # Errors
    /// When the database or the image store cannot be read.
    pub fn df(&mut self) -> Result<Usage, SystemError> {
        let mut usage = Usage::default();
        for container in self.list(&ListQuery { all: true, ..ListQuery::default() })? {
            let bytes = size::of_tree(&self.options.container_dir(container.id.as_str()));
            usage.containers.total += 1;
            usage.containers.size += bytes;
            if matches!(container.state, State::Running(_)) {
                usage.containers.active += 1;
            } else {
                usage.containers.reclaimable += bytes;
            }
        }
        for volume in self.volumes()? {
            let bytes = size::of_tree(&volume.path);
            usage.volumes.total += 1;
            usage.volumes.size += bytes;
            if volume.used_by.is_empty() {
                usage.volumes.reclaimable += bytes;
            } else {
                usage.volumes.active += 1;
            }
        }
        usage.images = self.image_usage()?;
        Ok(usage)
    }

    fn image_usage(&mut self) -> Result<Part, SystemError> {
        let used = self.used_images()?;
        let images = self.image_store().map_err(ImageError::from)?.list().map_err(ImageError::from)?;
        let blobs = self.image_store().map_err(ImageError::from)?.disk_usage().map_err(ImageError::from)?;
        let mut row = Part { total: images.len(), size: blobs.size, ..Part::default() };
        let mut needed: BTreeSet<Digest> = BTreeSet::new();
        let mut needed_blobs: BTreeSet<Digest> = BTreeSet::new();
        let mut needed_bytes = 0;
        for image in images.iter().filter(|image| used.contains_key(&image.id)) {
            row.active += 1;
            for layer in &image.layers {
                needed.insert(layer.diff_id.clone());
                if needed_blobs.insert(layer.digest.clone()) {
                    needed_bytes += layer.size;
                }
            }
        }
        row.reclaimable = blobs.size.saturating_sub(needed_bytes);
        if let Ok(layers) = self.layer_store().map_err(drop).and_then(|store| store.list().map_err(drop)) {
            for layer in layers {
                let bytes = self.layer_store().map_or(0, |store| size::of_tree(&store.home(&layer)));
                row.size += bytes;
                if !needed.contains(&layer) {
                    row.reclaimable += bytes;
                }
            }
        }
        Ok(row)
    }
}
