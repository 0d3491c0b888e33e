//! `df`: what takes how much disk, and how much of it could go.
//!
//! Sizes are what the files take on disk, and all parts together are what `du` says of the root. Unpacked layers are not
//! walked: their records tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use stanza_image::Image;
use stanza_spec::Digest;

use super::SystemError;
use crate::container::State;
use crate::list::ListQuery;
use crate::size::on_disk;
use crate::{Engine, ImageError};

/// Disk usage by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images: blobs and unpacked layers.
    pub images: Part,
    /// Containers' directories.
    pub containers: Part,
    /// Volumes.
    pub volumes: Part,
    /// Downloads that were cut, and what is just coming in or going.
    pub partial: Part,
    /// The database, caches, and the root's own directories.
    pub other: Part,
}

/// One kind's usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How many there are.
    pub total: usize,
    /// How many are in use.
    pub active: usize,
    /// Bytes on disk in all.
    pub size: u64,
    /// Bytes of those not in use.
    pub reclaimable: u64,
}

/// What one image takes.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: Image,
    /// Bytes on disk of its blobs and unpacked layers.
    pub size: u64,
    /// Bytes of those that other images have too.
    pub shared: u64,
    /// How many containers are made of it.
    pub containers: usize,
}

impl ImageUsage {
    /// Bytes that are nobody else's.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.size - self.shared
    }
}

/// A volume with its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Its name.
    pub name: String,
    /// How many containers have it.
    pub links: usize,
    /// Bytes on disk.
    pub size: u64,
}

impl Engine {
    /// How much disk is taken, and how much of that `prune` could free.
    ///
    /// # Errors
    /// When the database or the image store cannot be read.
    pub fn df(&mut self) -> Result<Usage, SystemError> {
        let mut usage = Usage::default();
        for container in self.list(&ListQuery { all: true, ..ListQuery::default() })? {
            let bytes = on_disk(&self.options.container_dir(container.id.as_str()));
            usage.containers.total += 1;
            usage.containers.size += bytes;
            if matches!(container.state, State::Running(_)) {
                usage.containers.active += 1;
            } else {
                usage.containers.reclaimable += bytes;
            }
        }
        for volume in self.volume_usage()? {
            usage.volumes.total += 1;
            usage.volumes.size += volume.size;
            if volume.links == 0 {
                usage.volumes.reclaimable += volume.size;
            } else {
                usage.volumes.active += 1;
            }
        }
        (usage.images, usage.partial) = self.image_usage()?;
        // What is left of the root is what no other part has.
        let known = usage.images.size + usage.containers.size + usage.volumes.size + usage.partial.size;
        usage.other.size = self.whole().saturating_sub(known);
        Ok(usage)
    }

    /// Each volume with its size.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn volume_usage(&mut self) -> Result<Vec<VolumeUsage>, SystemError> {
        let directory = self.options.volumes_dir();
        let usage = |volume: crate::Volume| VolumeUsage {
            size: on_disk(&directory.join(&volume.name)),
            links: volume.used_by.len(),
            name: volume.name,
        };
        Ok(self.volumes()?.into_iter().map(usage).collect())
    }

    /// Each image with what it takes, and what of that it shares.
    ///
    /// # Errors
    /// When the database or the image store cannot be read.
    pub fn usage_by_image(&mut self) -> Result<Vec<ImageUsage>, SystemError> {
        let used = self.used_images()?;
        let images = self.image_store().map_err(ImageError::from)?.list().map_err(ImageError::from)?;
        let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
        for image in &images {
            for digest in pieces(image) {
                *users.entry(digest).or_default() += 1;
            }
        }
        let sizes: BTreeMap<Digest, u64> =
            users.keys().map(|digest| (digest.clone(), self.piece_size(digest))).collect();
        let size_of = |digest: &Digest| sizes.get(digest).copied().unwrap_or(0);
        let usage = |image: Image| {
            let own = pieces(&image);
            let is_shared = |digest: &&Digest| users.get(*digest).is_some_and(|users| *users > 1);
            ImageUsage {
                size: own.iter().map(size_of).sum(),
                shared: own.iter().filter(is_shared).map(size_of).sum(),
                containers: used.get(&image.id).map_or(0, Vec::len),
                image,
            }
        };
        Ok(images.into_iter().map(usage).collect())
    }

    /// Bytes on disk of a blob, or of an unpacked layer with its record: whichever of the two a digest is, or both.
    fn piece_size(&mut self, digest: &Digest) -> u64 {
        let blob = self.image_store().map_or(0, |store| on_disk(&store.blob_path(digest)));
        blob + self.layer_home_size(digest)
    }

    fn image_usage(&mut self) -> Result<(Part, Part), SystemError> {
        let mut row = Part::default();
        let mut active: BTreeSet<Digest> = BTreeSet::new();
        let mut every: BTreeSet<Digest> = BTreeSet::new();
        for usage in self.usage_by_image()? {
            row.total += 1;
            let own = pieces(&usage.image);
            if usage.containers > 0 {
                row.active += 1;
                active.extend(own.iter().cloned());
            }
            every.extend(own);
        }
        // Layers and blobs without an image take space too, until somebody prunes.
        if let Ok(store) = self.layer_store() {
            every.extend(store.list().unwrap_or_default());
        }
        every.extend(self.image_store().map_err(ImageError::from)?.blob_list().map_err(ImageError::from)?);
        for digest in &every {
            let bytes = self.piece_size(digest);
            row.size += bytes;
            if !active.contains(digest) {
                row.reclaimable += bytes;
            }
        }
        let root = self.options.root.clone();
        let mut partial = Part::default();
        for directory in ["images/partial", "images/ingest", "layers/ingest"] {
            let entries = std::fs::read_dir(root.join(directory)).into_iter().flatten().flatten();
            for entry in entries {
                partial.total += 1;
                partial.size += on_disk(&entry.path());
            }
        }
        partial.reclaimable = partial.size;
        Ok((row, partial))
    }

    /// Bytes on disk of the whole root. Layers count as their records say.
    fn whole(&mut self) -> u64 {
        let root = self.options.root.clone();
        let layers = root.join("layers");
        let mut total = shallow(&root);
        for path in children(&root).filter(|path| *path != layers) {
            total += on_disk(&path);
        }
        if !layers.exists() {
            return total;
        }
        total += shallow(&layers);
        for path in children(&layers) {
            let algorithm = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if !matches!(algorithm.as_str(), "sha256" | "sha512") {
                total += on_disk(&path);
                continue;
            }
            total += shallow(&path);
            for home in children(&path) {
                let hex = home.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                total += match format!("{algorithm}:{hex}").parse::<Digest>() {
                    Ok(digest) => self.layer_home_size(&digest),
                    Err(_) => on_disk(&home),
                };
            }
        }
        total
    }

    fn layer_home_size(&mut self, digest: &Digest) -> u64 {
        self.layer_store().map_or(0, |store| match store.record(digest) {
            Ok(record) => record.allocated + store.around(digest) + shifted_copies(&store.home(digest)),
            Err(_) => on_disk(&store.home(digest)),
        })
    }
}

/// Everything that is stored for an image: its documents, its layers' blobs, its unpacked layers. A layer that was never
/// compressed has one digest for both.
fn pieces(image: &Image) -> BTreeSet<Digest> {
    let layers = image.layers.iter().flat_map(|layer| [layer.digest.clone(), layer.diff_id.clone()]);
    layers.chain([image.id.clone(), image.manifest.clone()]).collect()
}

/// Bytes on disk of a layer's copies for user namespaces: there only where mounts cannot be id-mapped.
fn shifted_copies(home: &Path) -> u64 {
    let is_copy = |path: &std::path::PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("fs-"))
    };
    children(home).filter(is_copy).map(|path| on_disk(&path)).sum()
}

/// What an entry takes without what is in it.
fn shallow(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

fn children(path: &Path) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
}
