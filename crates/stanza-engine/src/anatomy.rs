//! What images are made of: their history, their layers, what one has that another has not.

use std::collections::{BTreeMap, HashMap};

use stanza_image::{Image, Layer, ResolveError, StoreError};
use stanza_snapshot::{Change, DiffError, LayerSummary};
use stanza_spec::{Classify, Digest, ErrorKind, Layer as Lower, Reference, Rootfs};

use crate::Engine;
use crate::create::UnpackError;

/// A step of an image's making.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    /// When it was done, RFC 3339.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// A remark.
    pub comment: String,
    /// Bytes of the files that it added; 0 of one that made no layer.
    pub size: u64,
}

/// A layer of an image, looked into.
#[derive(Clone, Debug)]
pub struct LayerRow {
    /// The layer.
    pub layer: Layer,
    /// The instruction that made it, when the history tells.
    pub created_by: String,
    /// Names, or ids, of other images that have it.
    pub shared_with: Vec<String>,
    /// What is in it.
    pub summary: LayerSummary,
}

/// Why an image cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum AnatomyError {
    /// A name leads to no image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A layer cannot be read.
    #[error(transparent)]
    Read(#[from] DiffError),
}

impl Classify for AnatomyError {
    fn kind(&self) -> ErrorKind {
        match self {
            AnatomyError::Resolve(error) => error.kind(),
            AnatomyError::Store(error) => error.kind(),
            AnatomyError::Unpack(error) => error.kind(),
            AnatomyError::Read(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            AnatomyError::Resolve(error) => error.hint(),
            AnatomyError::Store(error) => error.hint(),
            AnatomyError::Unpack(error) => error.hint(),
            AnatomyError::Read(_) => None,
        }
    }
}

/// How many of a layer's largest files are told.
const LARGEST: usize = 5;

impl Engine {
    /// How an image came to be, the last step first, and its id. Layers that are not unpacked are.
    ///
    /// # Errors
    /// When there is no such image, or a layer cannot be read.
    pub fn history(&mut self, name: &str) -> Result<(Digest, Vec<HistoryRow>), AnatomyError> {
        let image = self.image_store()?.resolve(name)?;
        let mut sizes = Vec::new();
        for layer in &image.layers {
            sizes.push(self.summary(&image, &layer.diff_id, 0)?.size);
        }
        let mut sizes = sizes.into_iter();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut rows: Vec<HistoryRow> = image
            .config
            .history()
            .iter()
            .flatten()
            .map(|step| HistoryRow {
                created: step.created().clone(),
                created_by: text(step.created_by()),
                comment: text(step.comment()),
                size: if step.empty_layer() == Some(true) { 0 } else { sizes.next().unwrap_or(0) },
            })
            .collect();
        // Layers that the history does not know are there all the same.
        rows.extend(sizes.map(|size| HistoryRow {
            created: None,
            created_by: String::new(),
            comment: String::new(),
            size,
        }));
        rows.reverse();
        Ok((image.id, rows))
    }

    /// The layers of an image, the topmost first. Those that are not unpacked are.
    ///
    /// # Errors
    /// When there is no such image, or a layer cannot be read.
    pub fn image_tree(&mut self, name: &str) -> Result<(Image, Vec<LayerRow>), AnatomyError> {
        let image = self.image_store()?.resolve(name)?;
        let mut users: HashMap<Digest, Vec<String>> = HashMap::new();
        for other in self.image_store()?.list()? {
            if other.id != image.id {
                let mut names: Vec<String> = other.names.iter().map(Reference::familiar).collect();
                if names.is_empty() {
                    names.push(other.id.short().to_owned());
                }
                for layer in &other.layers {
                    users.entry(layer.diff_id.clone()).or_default().extend_from_slice(&names);
                }
            }
        }
        let mut steps = image
            .config
            .history()
            .iter()
            .flatten()
            .filter(|step| step.empty_layer() != Some(true))
            .map(|step| step.created_by().clone().unwrap_or_default());
        let mut rows = Vec::new();
        for layer in &image.layers {
            let mut shared_with = users.get(&layer.diff_id).cloned().unwrap_or_default();
            shared_with.sort();
            shared_with.dedup();
            rows.push(LayerRow {
                layer: layer.clone(),
                created_by: steps.next().unwrap_or_default(),
                shared_with,
                summary: self.summary(&image, &layer.diff_id, LARGEST)?,
            });
        }
        drop(steps);
        rows.reverse();
        Ok((image, rows))
    }

    /// What makes the files of the image `after` different from those of `before`.
    ///
    /// # Errors
    /// When there is no such image, or a layer cannot be read.
    pub fn image_diff(&mut self, before: &str, after: &str) -> Result<Vec<Change>, AnatomyError> {
        let mut layers = Vec::new();
        for name in [before, after] {
            let image = self.image_store()?.resolve(name)?;
            self.unpack(&image, &mut stanza_image::Silent)?;
            layers.push(self.lowers(&image)?);
        }
        let rootless = self.options.rootless;
        Ok(stanza_snapshot::compare(&layers[0], &layers[1], rootless)?)
    }

    /// Bytes that images take unpacked, by diff id; layers that are not unpacked are left out.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn unpacked_sizes(&mut self, images: &[&Image]) -> Result<BTreeMap<Digest, u64>, AnatomyError> {
        let rootless = self.options.rootless;
        let layers = self.layer_store().map_err(UnpackError::from)?;
        let mut sizes = BTreeMap::new();
        for layer in images.iter().flat_map(|image| &image.layers) {
            let diff_id = &layer.diff_id;
            if !sizes.contains_key(diff_id) && layers.is_usable(diff_id) {
                let root = layers.open_root(diff_id).map_err(UnpackError::from)?;
                let summary = stanza_snapshot::summarize(&root, rootless, 0)?;
                sizes.insert(diff_id.clone(), summary.size);
            }
        }
        Ok(sizes)
    }

    fn summary(
        &mut self,
        image: &Image,
        layer: &Digest,
        largest: usize,
    ) -> Result<LayerSummary, AnatomyError> {
        if !self.layer_store().map_err(UnpackError::from)?.is_usable(layer) {
            self.unpack(image, &mut stanza_image::Silent)?;
        }
        let rootless = self.options.rootless;
        let root = self.layer_store().map_err(UnpackError::from)?.open_root(layer);
        Ok(stanza_snapshot::summarize(&root.map_err(UnpackError::from)?, rootless, largest)?)
    }

    /// The layers of an unpacked image, as a container would stack them, the topmost first.
    fn lowers(&mut self, image: &Image) -> Result<Vec<Lower>, UnpackError> {
        let layers: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let layers = self.layer_store()?.with_links(&layers)?;
        let nowhere = self.options.containers_dir();
        match self.plan_image_rootfs(&layers, &nowhere, false, None)? {
            Rootfs::Layered { root, .. } => Ok(root.lower),
            Rootfs::Copied { layers, .. } => Ok(layers),
            Rootfs::Directory(path) => Ok(vec![Lower::Directory(path)]),
        }
    }
}
