//! What of images may go: unused layers, what is over the budget.
//!
//! Layers are removed by whoever is alone with the layer store ([`stanza_snapshot::LayerStore::alone`]), looks what
//! records and images need, and takes the rest away. A `create` holds the store from its look at the layers until its
//! record names them, so that no layer goes between the two. What a pull unpacked before its image has a name is
//! protected by its lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stanza_image::Image;
use stanza_snapshot::{LayersHeld, TakenLayers};
use stanza_spec::Digest;

use crate::{Engine, ImageError};

/// What takes the store's space.
struct Stored {
    /// Bytes of all blobs and unpacked layers.
    total: u64,
    layers: BTreeSet<Digest>,
}

impl Engine {
    /// Keeps everybody else from removing layers and from making containers of them. `None` when there is no layer store
    /// to be had: then there is nothing to remove either.
    pub(crate) fn alone_with_layers(&mut self) -> Option<LayersHeld> {
        self.layer_store().ok()?.alone().ok()
    }

    /// Takes away the unpacked layers that belong to no image, mounted or not, no container and no pull; with the bytes they have. The
    /// caller is alone with the layers.
    pub(crate) fn take_unused_layers(&mut self) -> Result<Option<(TakenLayers, u64)>, ImageError> {
        // Layers first: one that is unpacked after this look is not in the list. Leases second: who lets go after this
        // has an image by then. Images third.
        let Ok(mut layers) = self.layer_store().map_err(drop).and_then(|store| store.list().map_err(drop))
        else {
            return Ok(None);
        };
        let mut needed: BTreeSet<Digest> = self.image_store()?.leases()?.into_iter().collect();
        let images = self.image_store()?.list()?.into_iter();
        let mut stacks: Vec<Vec<Digest>> =
            images.map(|image| image.layers.into_iter().map(|layer| layer.diff_id).collect()).collect();
        stacks.extend(self.records()?.into_iter().map(|record| record.facts.layers));
        needed.extend(stacks.iter().flatten().cloned());
        needed.extend(self.image_mounts().into_iter().flat_map(|mount| mount.layers));
        layers.retain(|layer| !needed.contains(layer));
        let bytes: u64 = layers.iter().map(|layer| self.layer_size(layer)).sum();
        // A disk that cannot be removed now is removed by the next who looks.
        let bytes = bytes + self.prune_disks(&stacks).unwrap_or(0);
        let Ok(store) = self.layer_store() else { return Ok(None) };
        Ok(store.take(&layers).ok().map(|taken| (taken, bytes)))
    }

    /// Bytes that an unpacked layer takes on disk, as its record says.
    pub(crate) fn layer_size(&mut self, layer: &Digest) -> u64 {
        self.layer_store().map_or(0, |store| {
            store
                .record(layer)
                .map_or_else(|_| crate::size::on_disk(&store.home(layer)), |record| record.allocated)
        })
    }

    fn stored(&mut self) -> Result<Stored, ImageError> {
        let usage = self.image_store()?.disk_usage()?;
        let layers: BTreeSet<Digest> = self
            .layer_store()
            .map_err(drop)
            .and_then(|store| store.list().map_err(drop))
            .unwrap_or_default()
            .into_iter()
            .collect();
        let unpacked: u64 = layers.iter().map(|layer| self.layer_size(layer)).sum();
        Ok(Stored { total: usage.size + usage.partial + usage.kept + unpacked, layers })
    }

    /// Makes the store as small as the configuration file wants it, as far as nothing in use has to go; gives the bytes
    /// reclaimed. First go partial downloads, old ones in any case, then the blobs of layers that a registry has and that are unpacked, then,
    /// if that is wanted, images without a container; the least recently used first.
    ///
    /// # Errors
    /// When the configuration file is wrong, or the stores cannot be read or changed.
    pub fn enforce_budget(&mut self) -> Result<u64, ImageError> {
        let settings = self.settings()?.images.clone();
        let mut reclaimed = self.image_store()?.clear_partials(settings.partial_age)?;
        let Some(budget) = settings.budget else { return Ok(reclaimed) };
        let stored = self.stored()?;
        let Some(over) = stored.total.checked_sub(budget).filter(|over| *over > 0) else {
            return Ok(reclaimed);
        };
        // What was kept of downloads costs time only.
        let mut freed = self.image_store()?.clear_partials(Duration::ZERO)?;
        let mut images = self.image_store()?.list()?;
        let store = self.image_store()?;
        images.sort_by_key(|image| store.last_use(image));
        let left = over.saturating_sub(freed);
        freed += store.drop_blobs(&droppable(&images, &stored.layers, left))?;
        reclaimed += freed;
        if !settings.evict {
            return Ok(reclaimed);
        }
        for image in &images {
            if freed >= over {
                break;
            }
            let alone = self.alone_with_layers();
            if self.used_images()?.contains_key(&image.id) {
                continue;
            }
            let pruned = self.image_store()?.prune(&|other| other.id == image.id)?;
            let taken = self.take_unused_layers()?;
            drop(alone);
            let bytes = pruned.reclaimed + finish(taken);
            freed += bytes;
            reclaimed += bytes;
        }
        Ok(reclaimed)
    }
}

/// Takes apart what was taken away; gives the bytes.
pub(crate) fn finish(taken: Option<(TakenLayers, u64)>) -> u64 {
    // What cannot be taken apart is a leftover, which `system check` tells of.
    taken.map_or(0, |(layers, bytes)| layers.remove().map_or(0, |_| bytes))
}

/// Blobs of layers that may go, until `over` bytes are free; `images` are in the order of their last use.
fn droppable(images: &[Image], unpacked: &BTreeSet<Digest>, over: u64) -> Vec<Digest> {
    // A blob is as old as the youngest image that has it.
    let mut blobs: BTreeMap<&Digest, (usize, u64)> = BTreeMap::new();
    for (age, image) in images.iter().enumerate() {
        for layer in &image.layers {
            if !image.digests.is_empty() && unpacked.contains(&layer.diff_id) {
                blobs.insert(&layer.digest, (age, layer.size));
            }
        }
    }
    let mut order: Vec<_> = blobs.into_iter().collect();
    order.sort_by_key(|(_, (age, size))| (*age, std::cmp::Reverse(*size)));
    let mut freed = 0;
    let needed = order.into_iter().take_while(|(_, (_, size))| {
        let more = freed < over;
        freed += size;
        more
    });
    needed.map(|(digest, _)| digest.clone()).collect()
}
