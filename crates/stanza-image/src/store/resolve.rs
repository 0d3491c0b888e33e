//! From a name or an id to an image.
//!
//! The order is Docker's: a whole id, then a reference, then the beginning of an id. By name, this opens
//! `index.json`, one manifest and one configuration, and nothing else: it is on the start path of every `run`.

use std::collections::BTreeMap;

use stanza_spec::oci::image::ImageConfiguration;
use stanza_spec::{Digest, Platform, Reference};

use super::ImageStore;
use super::error::{ResolveError, StoreError};
use super::index::Index;
use crate::document::{
    Choice, Descriptor, Document, DocumentError, MAX_CONFIG, MAX_INDEX_DEPTH, MAX_MANIFEST, Manifest, choose,
    parse_config,
};
use crate::image::{Image, Layer};

/// How often a reader goes back to the index when a blob has vanished under it.
const READ_ATTEMPTS: u32 = 4;

impl ImageStore {
    /// Finds the image with this name (`busybox`, `docker.io/library/busybox:latest`, `name@sha256:…`), id, or
    /// beginning of an id (with or without `sha256:`).
    ///
    /// # Errors
    /// When there is none or more than one, `name` is neither a reference nor an id, or the store is damaged.
    pub fn resolve(&self, name: &str) -> Result<Image, ResolveError> {
        let mut attempt = 1;
        loop {
            let index = self.read_index()?;
            let entry = self.find(&index, name)?;
            match self.read_image(&index, entry) {
                // Removed between the two reads: the next index tells.
                Err(StoreError::Missing { .. }) if attempt < READ_ATTEMPTS => attempt += 1,
                result => return Ok(result?),
            }
        }
    }

    /// Every image, once each, whatever number of names it has. One whose blobs are damaged or missing is left out:
    /// asking for it by name tells why.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let index = self.read_index()?;
        let mut images: BTreeMap<Digest, Image> = BTreeMap::new();
        let mut seen: Vec<&Digest> = Vec::new();
        for entry in &index.manifests {
            if seen.contains(&&entry.digest) || entry.image_id().is_some_and(|id| images.contains_key(&id)) {
                continue;
            }
            seen.push(&entry.digest);
            if let Ok(image) = self.read_image(&index, entry) {
                images.entry(image.id.clone()).or_insert(image);
            }
        }
        Ok(images.into_values().collect())
    }

    /// The index entry that `name` means.
    pub(super) fn find<'i>(&self, index: &'i Index, name: &str) -> Result<&'i Descriptor, ResolveError> {
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex = !prefix.is_empty() && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex
            && prefix.len() == 64
            && let Some(entry) = self.find_by_id(index, name, prefix)?
        {
            return Ok(entry);
        }
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference
            && let Some(entry) = find_by_reference(index, reference)
        {
            return Ok(entry);
        }
        if is_hex
            && prefix.len() <= 64
            && let Some(entry) = self.find_by_id(index, name, prefix)?
        {
            return Ok(entry);
        }
        match reference {
            Err(error) if !is_hex => Err(error.into()),
            _ => Err(ResolveError::NotFound { name: name.escape_debug().to_string() }),
        }
    }

    /// The entry whose image id (or manifest digest) begins with `prefix`.
    fn find_by_id<'i>(
        &self,
        index: &'i Index,
        name: &str,
        prefix: &str,
    ) -> Result<Option<&'i Descriptor>, ResolveError> {
        let mut found: BTreeMap<Digest, &Descriptor> = BTreeMap::new();
        for entry in &index.manifests {
            let id = match entry.image_id() {
                Some(id) => id,
                None => match self.read_manifest(entry, &Platform::host(), 0) {
                    Ok((_, manifest)) => manifest.config.digest,
                    Err(_) => continue,
                },
            };
            if id.hex().starts_with(prefix) || entry.digest.hex().starts_with(prefix) {
                found.entry(id).or_insert(entry);
            }
        }
        match found.len() {
            0 => Ok(None),
            1 => Ok(found.into_values().next()),
            count => Err(ResolveError::Ambiguous { name: name.to_owned(), count }),
        }
    }

    /// The image of an index entry.
    pub(super) fn read_image(&self, index: &Index, entry: &Descriptor) -> Result<Image, StoreError> {
        let (descriptor, manifest) = self.read_manifest(entry, &Platform::host(), 0)?;
        let (config, diff_ids) = self.read_config(&manifest)?;
        let id = manifest.config.digest.clone();
        let mut names = Vec::new();
        let mut digests = Vec::new();
        for other in &index.manifests {
            if other.digest != entry.digest && other.image_id().as_ref() != Some(&id) {
                continue;
            }
            let Some(name) = other.reference() else { continue };
            if let Some(digest) = name.digest().cloned().or_else(|| other.source_digest()) {
                digests.push(name.with_digest(digest));
            }
            names.push(name);
        }
        names.sort();
        names.dedup();
        digests.sort();
        digests.dedup();
        let layers_size: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
        let size = layers_size.saturating_add(manifest.config.size).saturating_add(descriptor.size);
        let layers = manifest
            .layers
            .into_iter()
            .zip(diff_ids)
            .map(|(layer, diff_id)| Layer {
                digest: layer.digest,
                size: layer.size,
                media_type: layer.media_type,
                diff_id,
            })
            .collect();
        let created = config.created().clone();
        Ok(Image {
            id,
            manifest: descriptor.digest,
            manifest_type: manifest.media_type.to_owned(),
            manifest_size: descriptor.size,
            names,
            digests,
            config,
            layers,
            size,
            created,
        })
    }

    /// The manifest that an entry leads to: itself, or the one for `platform` in the index it is.
    pub(crate) fn read_manifest(
        &self,
        entry: &Descriptor,
        platform: &Platform,
        depth: u32,
    ) -> Result<(Descriptor, Manifest), StoreError> {
        let bytes = self.read_blob(&entry.digest, MAX_MANIFEST)?;
        let document = Document::parse(&bytes, Some(&entry.media_type))
            .map_err(|error| StoreError::document(&entry.digest, &error))?;
        let children = match document {
            Document::Manifest(manifest) => return Ok((entry.clone(), manifest)),
            Document::Index(children) => children,
        };
        let refuse =
            |text: &str| Err(StoreError::document(&entry.digest, &DocumentError::Shape(text.to_owned())));
        if depth >= MAX_INDEX_DEPTH {
            return refuse("its indexes are nested too deeply");
        }
        match choose(&children, platform) {
            Choice::One(child) => self.read_manifest(child, platform, depth + 1),
            Choice::Unnamed(unnamed) => self.read_manifest(unnamed[0], platform, depth + 1),
            Choice::Nothing(_) => refuse(&format!("it has nothing for `{platform}`")),
        }
    }

    pub(crate) fn read_config(
        &self,
        manifest: &Manifest,
    ) -> Result<(ImageConfiguration, Vec<Digest>), StoreError> {
        let digest = &manifest.config.digest;
        let bytes = self.read_blob(digest, MAX_CONFIG)?;
        parse_config(&bytes, manifest.layers.len()).map_err(|error| StoreError::document(digest, &error))
    }
}

fn find_by_reference<'i>(index: &'i Index, reference: &Reference) -> Option<&'i Descriptor> {
    let full = reference.to_string();
    if let Some(entry) = index.manifests.iter().find(|entry| entry.name() == Some(&full)) {
        return Some(entry);
    }
    if let Some(digest) = reference.digest() {
        let repository = reference.repository();
        return index.manifests.iter().find(|entry| {
            (entry.digest == *digest || entry.source_digest().as_ref() == Some(digest))
                && entry.reference().is_some_and(|name| name.repository() == repository)
        });
    }
    // Another tool may have written the name in a shorter form.
    index.manifests.iter().find(|entry| entry.reference().as_ref() == Some(reference))
}
