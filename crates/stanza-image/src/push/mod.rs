//! Pushing: from a name in the store to the same name at its registry.
//!
//! ```text
//! HEAD the tag: is it this digest? -> nothing to do
//!      -> HEAD all blobs at once -> mount or send what is absent -> documents, children first -> the tag
//! ```
//!
//! Everything goes byte for byte as it is in the store: nothing is compressed again, so all digests stay. The tag
//! comes last, so that it never means an image that is not there as a whole.

mod blobs;
mod error;
mod plan;

use std::collections::{HashMap, HashSet};

use stanza_spec::{Digest, Platform, Reference};

pub use error::PushError;

use crate::document::Descriptor;
use crate::outline::Outline;
use crate::progress::{Progress, ProgressEvent};
use crate::pull::Surroundings;
use crate::registry::{OutgoingDocument, Referrer, RegistriesConfig, Registry};
use crate::remote::Connections;
use crate::store::{ImageStore, NewEntry};
use blobs::Bringing;
use plan::{Plan, PlannedDocument};

/// What a push is to send, and how.
pub struct PushOptions<'a> {
    /// All tags of the repository.
    pub all_tags: bool,
    /// Of an index, the manifest for this platform alone.
    pub platform: Option<Platform>,
    /// `false` accepts any certificate, and plain http, from a registry.
    pub tls_verify: bool,
    /// Is told what happens.
    pub progress: &'a mut dyn Progress,
}

/// A name that the registry has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The name.
    pub name: Reference,
    /// What it means there.
    pub digest: Digest,
}

/// Sends an image, or all images of a repository, to the registry of its name.
///
/// # Errors
/// When nothing has the name, a blob is neither in the store nor at the registry, or the registry cannot be reached
/// or refuses. What was sent before stays there, without a name.
pub fn push(
    store: &ImageStore,
    name: &Reference,
    options: &mut PushOptions<'_>,
) -> Result<Vec<Pushed>, PushError> {
    let connections = Connections::load()?;
    push_with(store, name, options, &connections.surroundings())
}

/// [`push`], with the network given.
pub(crate) fn push_with(
    store: &ImageStore,
    name: &Reference,
    options: &mut PushOptions<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<Pushed>, PushError> {
    if name.digest().is_some() {
        return Err(PushError::ByDigest { name: name.familiar() });
    }
    let entries = entries(store, name, options.all_tags)?;
    let registry = surroundings.registry(name, options.tls_verify)?;
    let mut push = Push {
        store,
        surroundings,
        tls_verify: options.tls_verify,
        registry: registry.for_push(),
        platform: options.platform.as_ref(),
        progress: options.progress,
        brought: HashSet::new(),
        elsewhere: None,
    };
    entries.iter().map(|(name, entry)| push.push(name, entry)).collect()
}

/// The index entries to push, with their names, sorted.
fn entries(
    store: &ImageStore,
    name: &Reference,
    all_tags: bool,
) -> Result<Vec<(Reference, Descriptor)>, PushError> {
    let index = store.read_index()?;
    let repository = name.repository();
    let mut entries: Vec<(Reference, Descriptor)> = index
        .manifests
        .into_iter()
        .filter_map(|entry| Some((entry.reference()?, entry)))
        .filter(|(other, _)| other.repository() == repository && other.digest().is_none())
        .collect();
    if entries.is_empty() {
        return Err(PushError::NoRepository { repository: name.familiar_repository() });
    }
    entries.retain(|(other, _)| all_tags || other.tag() == name.tag());
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    if entries.is_empty() {
        return Err(PushError::NoTag { name: name.familiar() });
    }
    Ok(entries)
}

struct Push<'a> {
    store: &'a ImageStore,
    surroundings: &'a Surroundings<'a>,
    tls_verify: bool,
    registry: Registry<'a>,
    platform: Option<&'a Platform>,
    progress: &'a mut dyn Progress,
    /// Blobs that the repository is known to have, from the names before.
    brought: HashSet<Digest>,
    elsewhere: Option<HashMap<Digest, Vec<String>>>,
}

impl Push<'_> {
    fn push(&mut self, name: &Reference, entry: &Descriptor) -> Result<Pushed, PushError> {
        let plan = Plan::of(self.store, name, entry, self.platform)?;
        let tag = name.tag().unwrap_or("latest");
        let top = plan.top();
        let there = self.registry.head_manifest(tag, &mut retrying(self.progress))?;
        if there.and_then(|head| head.digest).as_ref() == Some(&top.digest) {
            for layer in plan.blobs.iter().filter(|blob| plan.layers.contains(&blob.digest)) {
                self.progress.event(ProgressEvent::LayerPresent { digest: &layer.digest, size: layer.size });
            }
        } else {
            self.bring_blobs(name, &plan)?;
            for document in &plan.documents {
                let is_top = document.digest == top.digest;
                self.put(document, if is_top { tag } else { document.digest.as_str() })?;
            }
        }
        if top.digest == entry.digest && entry.source_digest().as_ref() != Some(&top.digest) {
            self.record(name, entry)?;
        }
        let size = u64::try_from(top.bytes.len()).unwrap_or(u64::MAX);
        self.progress.event(ProgressEvent::Pushed { name, digest: &top.digest, size });
        Ok(Pushed { name: name.clone(), digest: top.digest.clone() })
    }

    /// Notes that the registry has the entry under its name: `repository@digest` finds it from now on.
    fn record(&self, name: &Reference, entry: &Descriptor) -> Result<(), PushError> {
        self.store.update_index(|index| {
            // The name may mean something else by now.
            let found = index.manifests.iter().find(|other| *other == entry).cloned();
            if let Some((descriptor, id)) = found.and_then(|own| Some((own.clone(), own.image_id()?))) {
                let source = Some(descriptor.digest.clone());
                index.set(NewEntry { descriptor, name: Some(name.clone()), id, source });
            }
            Ok(())
        })
    }

    fn bring_blobs(&mut self, name: &Reference, plan: &Plan) -> Result<(), PushError> {
        let (known, open): (Vec<Descriptor>, Vec<Descriptor>) =
            plan.blobs.iter().cloned().partition(|blob| self.brought.contains(&blob.digest));
        for blob in known.iter().filter(|blob| plan.layers.contains(&blob.digest)) {
            self.progress.event(ProgressEvent::LayerPresent { digest: &blob.digest, size: blob.size });
        }
        let elsewhere = match self.elsewhere.take() {
            Some(elsewhere) => elsewhere,
            None => repositories_by_blob(self.store, self.surroundings.registries, name)?,
        };
        let bringing = Bringing {
            store: self.store,
            registry: &self.registry,
            name,
            elsewhere: &elsewhere,
            surroundings: self.surroundings,
            tls_verify: self.tls_verify,
            is_shown: &|digest| plan.layers.contains(digest),
        };
        bringing.bring(&open, self.progress)?;
        self.elsewhere = Some(elsewhere);
        self.brought.extend(open.into_iter().map(|blob| blob.digest));
        Ok(())
    }

    /// Gives a document its name at the registry.
    fn put(&mut self, document: &PlannedDocument, name: &str) -> Result<(), PushError> {
        let PlannedDocument { digest, media_type, bytes, outline } = document;
        let outgoing = OutgoingDocument { digest, media_type, bytes };
        let accepted = self.registry.put_manifest(name, &outgoing, &mut retrying(self.progress))?;
        if let (Some(subject), false) = (&outline.subject, accepted.subject) {
            let referrer = Referrer {
                media_type: media_type.clone(),
                digest: digest.clone(),
                size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                artifact_type: outline.artifact_type.clone(),
                annotations: outline.annotations.clone(),
            };
            self.registry.add_referrer(subject, &referrer, &mut retrying(self.progress))?;
        }
        Ok(())
    }
}

/// Tells of repetitions.
fn retrying(progress: &mut dyn Progress) -> impl FnMut(u32, std::time::Duration) + '_ {
    move |attempt, delay| progress.event(ProgressEvent::Retrying { attempt, delay })
}

/// For every blob in the store the other repositories of the same registry whose images have it: by their names they
/// came from there, or went there.
fn repositories_by_blob(
    store: &ImageStore,
    registries: &RegistriesConfig,
    name: &Reference,
) -> Result<HashMap<Digest, Vec<String>>, PushError> {
    let mut repositories: HashMap<Digest, Vec<String>> = HashMap::new();
    // Where a name really is, by the settings of registries.
    let place = |name: &Reference| Some(registries.endpoints(name).ok()?.pop()?.reference);
    let Some(name) = place(name) else { return Ok(repositories) };
    for entry in store.read_index()?.manifests {
        let Some(other) = entry.reference().as_ref().and_then(place) else { continue };
        if other.domain() != name.domain() || other.path() == name.path() {
            continue;
        }
        for digest in blobs_of(store, &entry) {
            let known = repositories.entry(digest).or_default();
            if !known.iter().any(|path| path == other.path()) {
                known.push(other.path().to_owned());
            }
        }
    }
    Ok(repositories)
}

/// All blobs that an entry leads to. Without a readable document there are only fewer.
fn blobs_of(store: &ImageStore, entry: &Descriptor) -> Vec<Digest> {
    let mut blobs = Vec::new();
    let mut open = vec![entry.digest.clone()];
    let mut left = plan::MAX_DOCUMENTS;
    while let Some(digest) = open.pop() {
        let bytes = store.read_blob(&digest, crate::document::MAX_MANIFEST);
        let outline = bytes.ok().and_then(|bytes| Outline::parse(&bytes).ok());
        let Some(outline) = outline.filter(|_| left > 0) else { continue };
        left -= 1;
        open.extend(outline.documents.into_iter().map(|child| child.digest));
        blobs.extend(outline.blobs.into_iter().map(|blob| blob.digest));
    }
    blobs
}

#[cfg(test)]
mod tests;
