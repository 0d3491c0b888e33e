//! Docker's form: `manifest.json`, which names configurations, layers and tags by path.
//!
//! Its layers are tars without compression, so the digests that a registry gave are lost: the image gets a manifest
//! made here. Every layer is checked against the diff id in the configuration.

use std::io::{BufReader, Read};

use serde::Deserialize;
use stanza_spec::Digest;

use super::load::{Assembled, LoadError, Loader, parse_name};
use super::spool::bounded;
use crate::compression::{Compression, Decoder};
use crate::document::{
    Descriptor, DocumentError, MAX_CONFIG, MAX_LAYERS, MAX_MANIFEST, NewManifest, OCI_CONFIG, OCI_LAYER,
    OCI_MANIFEST, parse_config,
};
use crate::hash::{Hasher, sha256};
use crate::store::Spooled;

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
        let Ok(config) = loader.contents.file(&entry.config) else { continue };
        let Some(image) = images.iter_mut().find(|image| image.id == config.digest) else { continue };
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
    let config = bounded(loader.contents.file(&entry.config)?, &entry.config, MAX_CONFIG)?;
    let (_, diff_ids) =
        parse_config(&config, paths.len()).map_err(|error| LoadError::document(&entry.config, &error))?;
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(&diff_ids) {
        let file = loader.contents.file(path)?;
        let compression = check_layer(loader, file, path, diff_id)?;
        loader.adopt_layer(file)?;
        let suffix = match compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        layers.push(Descriptor::new(&format!("{OCI_LAYER}{suffix}"), file.digest.clone(), file.size));
    }
    let id = sha256(&config);
    loader.ingest.store_bytes(&id, &config)?;
    let config = Descriptor::new(OCI_CONFIG, id.clone(), length(&config));
    let manifest =
        NewManifest { schema_version: 2, media_type: OCI_MANIFEST, config: &config, layers: &layers };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|error| LoadError::document(MANIFEST, &DocumentError::Json(error)))?;
    let digest = sha256(&bytes);
    loader.ingest.store_bytes(&digest, &bytes)?;
    Ok(Assembled { descriptor: Descriptor::new(OCI_MANIFEST, digest, length(&bytes)), id, names })
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Compares the uncompressed layer with the diff id, and tells how it is compressed.
fn check_layer(
    loader: &Loader<'_, '_>,
    file: &Spooled,
    path: &str,
    diff_id: &Digest,
) -> Result<Compression, LoadError> {
    let read = |source| LoadError::Read { source };
    // The file has moved when the same layer was adopted before.
    let mut decoder =
        Decoder::new(BufReader::with_capacity(128 * 1024, loader.ingest.open(file)?)).map_err(read)?;
    let compression = decoder.compression();
    let plain = compression == Compression::None && file.digest.algorithm() == diff_id.algorithm();
    let actual = if plain {
        file.digest.clone()
    } else {
        let mut hasher = Hasher::like(diff_id);
        let mut buffer = vec![0_u8; 128 * 1024];
        loop {
            match decoder.read(&mut buffer).map_err(read)? {
                0 => break hasher.finish(),
                count => hasher.update(&buffer[..count]),
            }
        }
    };
    if actual != *diff_id {
        return Err(LoadError::Digest { path: path.to_owned(), expected: diff_id.clone(), actual });
    }
    Ok(compression)
}
