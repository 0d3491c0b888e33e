//! Reading everything back: each blob against its digest, each document against its meaning.
//!
//! Blobs are whole or absent, so a writer at work is no trouble; what is removed while this reads is told apart from
//! damage by a second look at the index.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use stanza_spec::{Digest, Reference};

use super::error::{IoContext, StoreError};
use super::{
    ALGORITHMS, BLOBS, COLLECT_LOCK, DROPPED, INDEX, INDEX_LOCK, INDEX_RESERVE, INGEST, ImageStore, LAYOUT,
    PARTIAL,
};
use crate::chunked::{self, Place};
use crate::document::{Descriptor, Document, MAX_CONFIG, MAX_INDEX_DEPTH, MAX_MANIFEST, parse_config};
use crate::hash::Hasher;
use crate::outline::Outline;

/// Hashed while it is in the processor's cache.
const CHUNK: usize = 128 * 1024;

/// What a blob is to its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlobKind {
    /// An index or a manifest.
    Manifest,
    /// A configuration.
    Config,
    /// A layer.
    Layer,
    /// Nothing leads to it.
    Unreferenced,
}

/// A blob that should be there.
#[derive(Clone, Debug)]
pub struct KnownBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is.
    pub kind: BlobKind,
    /// Names of the images that it belongs to, as listings show them; a dangling image's id.
    pub images: Vec<String>,
    /// Where it came from: names that were pulled from a registry.
    pub sources: Vec<Reference>,
    /// What its descriptor says besides: of a zstd:chunked layer, where its table is.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What an entry of the index says of its image.
#[derive(Clone, Copy, Debug)]
pub struct StoredEntry<'a> {
    /// The digest of its manifest, or of an index.
    pub manifest: &'a Digest,
    /// Its name, when it has one.
    pub name: Option<&'a Reference>,
    /// Its image's id, when the entry was made by stanza.
    pub id: Option<&'a Digest>,
}

/// A blob that is not what it should be.
#[derive(Debug)]
pub struct BlobFault {
    /// Which one.
    pub blob: KnownBlob,
    /// What is wrong with it.
    pub error: StoreError,
}

/// What reading the store back has shown.
#[derive(Debug, Default)]
pub struct StoreReport {
    /// Blobs read.
    pub blobs: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Layers that were dropped to save space, and can be fetched again.
    pub dropped: usize,
    /// Blobs that are not what they should be, by digest.
    pub faults: Vec<BlobFault>,
    /// Files that are no part of a store, by path.
    pub strays: Vec<PathBuf>,
}

/// Blobs by digest.
type KnownBlobs = BTreeMap<Digest, KnownBlob>;

impl ImageStore {
    /// Reads everything back that leads from the index entries which `chosen` says yes to, on `threads` threads; for
    /// the whole store (`whole`) also the blobs that nothing leads to, and names files that do not belong here.
    ///
    /// # Errors
    /// When the index or a directory cannot be read. Damage is no error.
    pub fn verify(
        &self,
        chosen: &dyn Fn(&StoredEntry<'_>) -> bool,
        whole: bool,
        threads: usize,
    ) -> Result<StoreReport, StoreError> {
        let mut report = StoreReport::default();
        let mut wanted = self.wanted(chosen)?;
        if whole {
            for (digest, size) in self.blobs()? {
                wanted.entry(digest.clone()).or_insert_with(|| KnownBlob {
                    digest,
                    size,
                    kind: BlobKind::Unreferenced,
                    images: Vec::new(),
                    sources: Vec::new(),
                    annotations: BTreeMap::new(),
                });
            }
            report.strays = self.strays()?;
        }
        let blobs: Vec<&KnownBlob> = wanted.values().collect();
        let (next, bytes, read) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicUsize::new(0));
        let found = Mutex::new((Vec::new(), 0));
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, blobs.len().max(1)) {
                scope.spawn(|| {
                    let mut buffer = vec![0; CHUNK];
                    while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = self.check_blob(blob, &mut buffer);
                        let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        match result {
                            Ok(length) => {
                                bytes.fetch_add(length, Ordering::Relaxed);
                                read.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(StoreError::Missing { .. }) if self.is_dropped(&blob.digest) => found.1 += 1,
                            Err(error) => found.0.push(BlobFault { blob: (*blob).clone(), error }),
                        }
                    }
                });
            }
        });
        let (mut faults, dropped) = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !faults.is_empty() {
            // What was removed meanwhile is missing by right.
            let still = self.wanted(chosen)?;
            faults.retain(|fault| match fault.error {
                StoreError::Missing { .. } => still.contains_key(&fault.blob.digest),
                _ => true,
            });
            faults.sort_by(|a, b| a.blob.digest.cmp(&b.blob.digest));
        }
        report.faults = faults;
        report.dropped = dropped;
        report.blobs = read.into_inner();
        report.bytes = bytes.into_inner();
        Ok(report)
    }

    /// Every blob that the chosen index entries lead to. What a damaged document leads to is not known.
    fn wanted(&self, chosen: &dyn Fn(&StoredEntry<'_>) -> bool) -> Result<KnownBlobs, StoreError> {
        let mut wanted = KnownBlobs::new();
        for entry in &self.read_index()?.manifests {
            let reference = entry.reference();
            let id = entry.image_id();
            if !chosen(&StoredEntry { manifest: &entry.digest, name: reference.as_ref(), id: id.as_ref() }) {
                continue;
            }
            let name = match (&reference, &id) {
                (Some(reference), _) => reference.familiar(),
                (None, Some(id)) => id.short().to_owned(),
                (None, None) => entry.digest.short().to_owned(),
            };
            let source = reference.filter(|_| entry.source_digest().is_some());
            self.add_document(&mut wanted, entry, &name, source.as_ref(), 0);
        }
        Ok(wanted)
    }

    fn add_document(
        &self,
        wanted: &mut KnownBlobs,
        entry: &Descriptor,
        name: &str,
        source: Option<&Reference>,
        depth: u32,
    ) {
        add(wanted, entry, BlobKind::Manifest, name, source);
        let Ok(bytes) = self.read_blob(&entry.digest, MAX_MANIFEST) else { return };
        match Document::parse(&bytes, Some(&entry.media_type)).ok() {
            Some(Document::Manifest(manifest)) => {
                add(wanted, &manifest.config, BlobKind::Config, name, source);
                for layer in &manifest.layers {
                    add(wanted, layer, BlobKind::Layer, name, source);
                }
            }
            Some(Document::Index(children)) if depth < MAX_INDEX_DEPTH => {
                // Of an index only the platforms that were asked for are here.
                for child in children.iter().filter(|child| self.blob_path(&child.digest).exists()) {
                    self.add_document(wanted, child, name, source, depth + 1);
                }
            }
            Some(Document::Index(_)) => {}
            // An attestation or another thing beside the images of an index: its blobs are bytes to us.
            None => {
                let blobs = Outline::parse(&bytes).map(|outline| outline.blobs);
                for blob in blobs.unwrap_or_default() {
                    add(wanted, &blob, BlobKind::Layer, name, source);
                }
            }
        }
    }

    /// Reads a blob; gives its length.
    fn check_blob(&self, wanted: &KnownBlob, buffer: &mut [u8]) -> Result<u64, StoreError> {
        let KnownBlob { digest, size, .. } = wanted;
        let path = self.blob_path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { digest: digest.clone() });
            }
            Err(error) => return Err(error).context("open", &path),
        };
        let mut hash = Hasher::like(digest);
        let mut length = 0;
        loop {
            match file.read(buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    length += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read", &path),
            }
        }
        if length != *size {
            return Err(StoreError::Size { digest: digest.clone(), expected: *size, actual: length });
        }
        let actual = hash.finish();
        if actual != *digest {
            return Err(StoreError::Corrupt { expected: digest.clone(), actual });
        }
        match wanted.kind {
            BlobKind::Manifest => {
                let bytes = self.read_blob(digest, MAX_MANIFEST)?;
                Outline::parse(&bytes)
                    .map_err(|reason| StoreError::Document { digest: digest.clone(), reason })?;
            }
            BlobKind::Config => {
                let bytes = self.read_blob(digest, MAX_CONFIG)?;
                let layers = serde_json::from_slice::<serde_json::Value>(&bytes)
                    .ok()
                    .and_then(|config| config.pointer("/rootfs/diff_ids")?.as_array().map(Vec::len));
                parse_config(&bytes, layers.unwrap_or(0))
                    .map_err(|error| StoreError::document(digest, &error))?;
            }
            BlobKind::Layer => check_table(&file, wanted)?,
            BlobKind::Unreferenced => {}
        }
        Ok(length)
    }

    /// The digests of all blobs there are.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn blob_list(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(self.blobs()?.into_iter().map(|(digest, _)| digest).collect())
    }

    /// All blobs there are, with their sizes.
    fn blobs(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let mut blobs = Vec::new();
        self.each_blob(|digest, size| {
            blobs.push((digest, size));
            Ok(())
        })?;
        Ok(blobs)
    }

    /// Files that are no part of a store.
    fn strays(&self) -> Result<Vec<PathBuf>, StoreError> {
        let temporary = [format!(".{INDEX}.new"), format!(".{LAYOUT}.new")];
        let own = [LAYOUT, INDEX, INDEX_LOCK, INDEX_RESERVE, COLLECT_LOCK, INGEST, BLOBS, DROPPED, PARTIAL];
        let mut strays = Vec::new();
        let mut look = |directory: PathBuf, is_own: &dyn Fn(&str) -> bool| -> Result<(), StoreError> {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error).context("list", &directory),
            };
            for entry in entries {
                let name = entry.context("list", &directory)?.file_name();
                if !name.to_str().is_some_and(is_own) {
                    strays.push(directory.join(name));
                }
            }
            Ok(())
        };
        look(self.root.clone(), &|name| own.contains(&name) || temporary.iter().any(|own| own == name))?;
        look(self.root.join(BLOBS), &|name| ALGORITHMS.contains(&name))?;
        for algorithm in ALGORITHMS {
            let is_blob = |name: &str| format!("{algorithm}:{name}").parse::<Digest>().is_ok();
            look(self.root.join(BLOBS).join(algorithm), &is_blob)?;
        }
        strays.sort();
        Ok(strays)
    }
}

/// Compares the table of a zstd:chunked layer, which other tools go by, with what is in the layer.
fn check_table(blob: &File, wanted: &KnownBlob) -> Result<(), StoreError> {
    let Some(place) = Place::of(&wanted.annotations, wanted.size) else { return Ok(()) };
    let checked = place.and_then(|place| chunked::check(blob, &place));
    checked
        .map(drop)
        .map_err(|source| StoreError::Table { digest: wanted.digest.clone(), source: Box::new(source) })
}

fn add(
    wanted: &mut KnownBlobs,
    descriptor: &Descriptor,
    kind: BlobKind,
    name: &str,
    source: Option<&Reference>,
) {
    let blob = wanted.entry(descriptor.digest.clone()).or_insert_with(|| KnownBlob {
        digest: descriptor.digest.clone(),
        size: descriptor.size,
        kind,
        images: Vec::new(),
        sources: Vec::new(),
        annotations: descriptor.annotations.clone(),
    });
    if !blob.images.iter().any(|known| known == name) {
        blob.images.push(name.to_owned());
    }
    if let Some(source) = source
        && !blob.sources.contains(source)
    {
        blob.sources.push(source.clone());
    }
}
