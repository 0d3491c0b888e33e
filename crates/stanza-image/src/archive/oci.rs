//! The form of the OCI: an image layout in a tar file.

use stanza_spec::{Digest, Reference};

use super::error::LoadError;
use super::load::{Assembled, Loader, ManifestPlan, length, parse_name};
use crate::document::{
    Choice, Descriptor, Document, DocumentError, MAX_CONFIG, MAX_INDEX_DEPTH, MAX_MANIFEST, Manifest, choose,
    parse_config,
};
use crate::store::CONTAINERD_NAME;

/// Brings every image of `index.json` into the store.
pub(super) fn assemble(loader: &mut Loader<'_, '_>) -> Result<Vec<Assembled>, LoadError> {
    let bytes = loader.contents.document("index.json", MAX_MANIFEST)?;
    let entries = match Document::parse(&bytes, None) {
        Ok(Document::Index(entries)) => entries,
        Ok(Document::Manifest(_)) => {
            return Err(LoadError::path("index.json", "it is a manifest, not an index"));
        }
        Err(error) => return Err(LoadError::document("index.json", &error)),
    };
    let mut images: Vec<(Digest, Assembled)> = Vec::new();
    for entry in &entries {
        // Build attestations are no images.
        if entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
            continue;
        }
        let name = name_of(entry)?;
        // One image may stand there once for each of its names.
        match images.iter_mut().find(|(digest, _)| *digest == entry.digest) {
            Some((_, image)) => image.names.extend(name),
            None => {
                let mut found = image(loader, entry, 0)?;
                found.names.extend(name);
                images.push((entry.digest.clone(), found));
            }
        }
    }
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

/// The name of an entry. `ref.name` may be a bare tag (`v1`), which names nothing by itself.
fn name_of(entry: &Descriptor) -> Result<Option<Reference>, LoadError> {
    if let Some(name) = entry.annotations.get(CONTAINERD_NAME) {
        return parse_name(name).map(Some);
    }
    match entry.name() {
        Some(name) if name.contains([':', '/']) => parse_name(name).map(Some),
        _ => Ok(None),
    }
}

/// The image that a descriptor leads to.
pub(super) fn image(
    loader: &mut Loader<'_, '_>,
    entry: &Descriptor,
    depth: u32,
) -> Result<Assembled, LoadError> {
    let bytes = loader.contents.blob_bytes(&entry.digest, entry.size, MAX_MANIFEST)?;
    let path = entry.digest.as_str();
    let document = Document::parse(&bytes, Some(&entry.media_type))
        .map_err(|error| LoadError::document(path, &error))?;
    let children = match document {
        Document::Manifest(manifest) => return take(loader, &bytes, Some(&entry.digest), &manifest),
        Document::Index(children) => children,
    };
    choose_image(loader, entry, &children, depth)
}

/// The image for the platform asked for of an index.
pub(super) fn choose_image(
    loader: &mut Loader<'_, '_>,
    index: &Descriptor,
    children: &[Descriptor],
    depth: u32,
) -> Result<Assembled, LoadError> {
    if depth >= MAX_INDEX_DEPTH {
        let error = DocumentError::Shape("its indexes are nested too deeply".to_owned());
        return Err(LoadError::document(index.digest.as_str(), &error));
    }
    let wanted = loader.platform.clone();
    match choose(children, &wanted) {
        Choice::One(child) => image(loader, child, depth + 1),
        Choice::Unnamed(unnamed) => image(loader, unnamed[0], depth + 1),
        Choice::Nothing(available) => {
            let here: Vec<&Descriptor> = children
                .iter()
                .filter(|child| child.platform.as_ref().is_none_or(|platform| platform.os != "unknown"))
                .filter(|child| loader.contents.blob(&child.digest, child.size).is_ok())
                .collect();
            match here[..] {
                // An archive made for one other platform: there is nothing to choose.
                [only] => image(loader, only, depth + 1),
                _ => Err(LoadError::Platform { wanted: wanted.to_string(), available }),
            }
        }
    }
}

/// The image of a manifest in `bytes`.
pub(super) fn take(
    loader: &mut Loader<'_, '_>,
    bytes: &[u8],
    digest: Option<&Digest>,
    manifest: &Manifest,
) -> Result<Assembled, LoadError> {
    let config = &manifest.config;
    let config_bytes = loader.contents.blob_bytes(&config.digest, config.size, MAX_CONFIG)?;
    let (_, diff_ids) = parse_config(&config_bytes, manifest.layers.len())
        .map_err(|error| LoadError::document(config.digest.as_str(), &error))?;
    for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
        let part = loader.contents.blob(&layer.digest, layer.size)?;
        loader.layers.add(part, &layer.digest, diff_id)?;
    }
    loader.keep(Some(&config.digest), &config_bytes)?;
    let digest = loader.keep(digest, bytes)?;
    let descriptor = Descriptor::new(manifest.media_type, digest, length(bytes));
    let manifest = ManifestPlan::Kept(descriptor);
    Ok(Assembled { manifest, id: config.digest.clone(), diff_ids, names: Vec::new() })
}
