//! Docker's form: `manifest.json`, which names configurations, layers and tags by path.
//!
//! Its layers are mostly tars without compression, so the digests that a registry gave are lost: the image gets a
//! manifest made here. Every layer is checked against the diff id in the configuration.

use serde::Deserialize;

use super::error::LoadError;
use super::load::{Assembled, Loader, ManifestPlan, length, parse_name};
use crate::document::{
    Descriptor, DocumentError, MAX_CONFIG, MAX_LAYERS, MAX_MANIFEST, OCI_CONFIG, parse_config,
};
use crate::hash::sha256;

const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Brings every image of `manifest.json` into the store.
pub(super) fn assemble(loader: &mut Loader<'_, '_>) -> Result<Vec<Assembled>, LoadError> {
    read_entries(loader)?.iter().map(|entry| image(loader, entry)).collect()
}

/// Adds the tags of `manifest.json` to images that came out of the layout in the same archive.
pub(super) fn add_names(
    loader: &Loader<'_, '_>,
    mut images: Vec<Assembled>,
) -> Result<Vec<Assembled>, LoadError> {
    for entry in read_entries(loader)? {
        let Ok(config) = loader.contents.document(&entry.config, MAX_CONFIG) else { continue };
        let id = sha256(&config);
        let Some(image) = images.iter_mut().find(|image| image.id == id) else { continue };
        for tag in entry.repo_tags.iter().flatten() {
            let name = parse_name(tag)?;
            if !image.names.contains(&name) {
                image.names.push(name);
            }
        }
    }
    Ok(images)
}

fn read_entries(loader: &Loader<'_, '_>) -> Result<Vec<Entry>, LoadError> {
    let bytes = loader.contents.document(MANIFEST, MAX_MANIFEST)?;
    serde_json::from_slice(&bytes).map_err(|error| LoadError::document(MANIFEST, &DocumentError::Json(error)))
}

fn image(loader: &mut Loader<'_, '_>, entry: &Entry) -> Result<Assembled, LoadError> {
    let paths = entry.layers.as_deref().unwrap_or_default();
    if paths.len() > MAX_LAYERS {
        let error = DocumentError::Shape(format!("an image has {} layers", paths.len()));
        return Err(LoadError::document(MANIFEST, &error));
    }
    // Names first: they cost nothing to refuse.
    let names = entry.repo_tags.iter().flatten().map(|tag| parse_name(tag)).collect::<Result<Vec<_>, _>>()?;
    let config = loader.contents.document(&entry.config, MAX_CONFIG)?;
    let (_, diff_ids) =
        parse_config(&config, paths.len()).map_err(|error| LoadError::document(&entry.config, &error))?;
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(&diff_ids) {
        let part = loader.contents.file(path)?;
        layers.push(loader.layers.add_unknown(part, path, diff_id)?);
    }
    let id = loader.keep(None, &config)?;
    let config = Descriptor::new(OCI_CONFIG, id.clone(), length(&config));
    Ok(Assembled { manifest: ManifestPlan::New { config, layers }, id, diff_ids, names })
}
