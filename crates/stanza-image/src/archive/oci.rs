//! The form of the OCI: an image layout in a tar file.

use stanza_spec::{Platform, Reference};

use super::load::{Assembled, LoadError, Loader, parse_name};
use super::spool::bounded;
use crate::document::{
    Choice, Descriptor, Document, DocumentError, MAX_CONFIG, MAX_INDEX_DEPTH, MAX_MANIFEST, Manifest, choose,
    parse_config,
};

/// The full name of an image, as containerd and Docker write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

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
    let mut images: Vec<Assembled> = Vec::new();
    for entry in &entries {
        // Build attestations are no images.
        if entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
            continue;
        }
        let name = name_of(entry)?;
        let mut image = image(loader, entry, 0)?;
        match images.iter_mut().find(|other| other.descriptor.digest == image.descriptor.digest) {
            Some(other) => other.names.extend(name),
            None => {
                image.names.extend(name);
                images.push(image);
            }
        }
    }
    Ok(images)
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

/// The image that a descriptor leads to, all its blobs in the store.
fn image(loader: &mut Loader<'_, '_>, entry: &Descriptor, depth: u32) -> Result<Assembled, LoadError> {
    let file = loader.contents.blob(&entry.digest, entry.size)?;
    let path = entry.digest.as_str();
    let bytes = bounded(file, path, MAX_MANIFEST)?;
    let document = Document::parse(&bytes, Some(&entry.media_type))
        .map_err(|error| LoadError::document(path, &error))?;
    let children = match document {
        Document::Manifest(manifest) => return take(loader, entry, &bytes, &manifest),
        Document::Index(children) => children,
    };
    if depth >= MAX_INDEX_DEPTH {
        let error = DocumentError::Shape("its indexes are nested too deeply".to_owned());
        return Err(LoadError::document(path, &error));
    }
    let wanted = Platform::host();
    match choose(&children, &wanted) {
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

fn take(
    loader: &mut Loader<'_, '_>,
    entry: &Descriptor,
    bytes: &[u8],
    manifest: &Manifest,
) -> Result<Assembled, LoadError> {
    let config = &manifest.config;
    let path = config.digest.as_str();
    let config_bytes = bounded(loader.contents.blob(&config.digest, config.size)?, path, MAX_CONFIG)?;
    parse_config(&config_bytes, manifest.layers.len()).map_err(|error| LoadError::document(path, &error))?;
    for layer in &manifest.layers {
        loader.adopt_layer(loader.contents.blob(&layer.digest, layer.size)?)?;
    }
    loader.ingest.store_bytes(&config.digest, &config_bytes)?;
    loader.ingest.store_bytes(&entry.digest, bytes)?;
    let descriptor = Descriptor::new(manifest.media_type, entry.digest.clone(), entry.size);
    Ok(Assembled { descriptor, id: config.digest.clone(), names: Vec::new() })
}
