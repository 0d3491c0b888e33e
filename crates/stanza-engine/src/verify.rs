//! `image verify`: what the stores hold is compared with what it should be, and put right.
//!
//! Blobs have their digest for a name, documents their form, unpacked layers the digest of their tree in their record. What
//! is damaged is fetched again from where the image came, or unpacked again from its blob. A layer that a running container
//! has mounted is not touched.

use std::collections::BTreeSet;
use std::path::PathBuf;

use stanza_image::{
    BlobFault, BlobKind, Image, Progress, PullError, ResolveError, RestoreOptions, StoreReport, StoredEntry,
    restore_blob, restore_layers,
};
use stanza_snapshot::VerifyError;
use stanza_spec::{Digest, Reference, chain};

use crate::container::State;
use crate::engine::Lock;
use crate::{Engine, ImageError, UnpackError};

/// What to look at, and what to do about it.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Names or ids of images; none: everything.
    pub images: Vec<String>,
    /// Damage is repaired.
    pub repair: bool,
    /// Threads that read; 0 is as many as there are processors.
    pub threads: usize,
    /// `false` accepts any certificate, and plain http, from a registry.
    pub tls_verify: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Blobs that were read.
    pub blobs: usize,
    /// Unpacked layers that were read.
    pub layers: usize,
    /// Bytes of blobs that were read.
    pub bytes: u64,
    /// Layers' blobs that are absent on purpose.
    pub dropped: usize,
    /// What is, or was, not as it should be.
    pub problems: Vec<Problem>,
    /// Files that are no part of an image store.
    pub strays: Vec<PathBuf>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `manifest`, `config`, `blob` or `layer`.
    pub kind: &'static str,
    /// Its digest; of an unpacked layer its diff id.
    pub digest: Digest,
    /// The images that it belongs to, as listings show them.
    pub images: Vec<String>,
    /// What is wrong.
    pub what: String,
    /// What became of it.
    pub outcome: Repair,
}

/// What became of damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// It was only looked for.
    NotTried,
    /// It is as it should be.
    Done,
    /// It could not be repaired, and why.
    Failed(String),
}

impl Verification {
    /// Whether everything is as it should be now.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.iter().all(|problem| problem.outcome == Repair::Done)
    }
}

/// Rounds of repair: behind each document that comes again others may be missing.
const ROUNDS: usize = 4;

impl Engine {
    /// Compares everything that is stored of images, or of the given ones, with what it should be; with `repair` damage
    /// is put right. `progress` is told of what must be fetched.
    ///
    /// # Errors
    /// When there is no such image, or the stores cannot be read at all. Damage is no error.
    pub fn verify(
        &mut self,
        options: &VerifyOptions,
        progress: &mut dyn Progress,
    ) -> Result<Verification, ImageError> {
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        };
        let chosen = |entry: &StoredEntry<'_>| {
            options.images.is_empty() || options.images.iter().any(|text| means(text, entry))
        };
        let whole = options.images.is_empty();
        self.check_names(&options.images)?;
        let mut found = Verification::default();
        for round in 1.. {
            let report = self.image_store()?.verify(&chosen, whole, threads)?;
            let StoreReport { blobs, bytes, dropped, faults, strays } = report;
            (found.blobs, found.bytes, found.dropped, found.strays) = (blobs, bytes, dropped, strays);
            let mut news = false;
            for fault in &faults {
                news |= self.meet_fault(fault, options, progress, &mut found.problems)?;
            }
            if !news || round == ROUNDS {
                break;
            }
        }
        self.verify_layers(options, &chosen, threads, progress, &mut found)?;
        Ok(found)
    }

    /// Refuses names that mean nothing.
    fn check_names(&mut self, names: &[String]) -> Result<(), ImageError> {
        for name in names {
            match self.image_store()?.resolve(name) {
                // Damage is what is looked for.
                Ok(_) | Err(ResolveError::Store(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Notes damage to a blob, and repairs it; `true` when there may be more to see behind it now.
    fn meet_fault(
        &mut self,
        fault: &BlobFault,
        options: &VerifyOptions,
        progress: &mut dyn Progress,
        problems: &mut Vec<Problem>,
    ) -> Result<bool, ImageError> {
        let blob = &fault.blob;
        if problems.iter().any(|known| known.digest == blob.digest && known.kind != "layer") {
            return Ok(false);
        }
        let kind = match blob.kind {
            BlobKind::Manifest => "manifest",
            BlobKind::Config => "config",
            BlobKind::Layer | BlobKind::Unreferenced => "blob",
        };
        let outcome = if !options.repair {
            Repair::NotTried
        } else if blob.kind == BlobKind::Unreferenced {
            // Nobody needs it, or it is somebody's who is just bringing an image: those write it again.
            self.image_store()?.prune(&|_| false)?;
            Repair::Done
        } else if blob.sources.is_empty() {
            Repair::Failed("it came from no registry".to_owned())
        } else {
            let mut restore = RestoreOptions { tls_verify: options.tls_verify, progress };
            match restore_blob(self.image_store()?, blob, &mut restore) {
                Ok(()) => Repair::Done,
                Err(error) => Repair::Failed(chain(&error)),
            }
        };
        let news = outcome == Repair::Done && blob.kind == BlobKind::Manifest;
        let (digest, images) = (blob.digest.clone(), blob.images.clone());
        problems.push(Problem { kind, digest, images, what: chain(&fault.error), outcome });
        Ok(news)
    }

    fn verify_layers(
        &mut self,
        options: &VerifyOptions,
        chosen: &dyn Fn(&StoredEntry<'_>) -> bool,
        threads: usize,
        progress: &mut dyn Progress,
        found: &mut Verification,
    ) -> Result<(), ImageError> {
        let images = self.image_store()?.list()?;
        let Ok(mut layers) = self.layer_store().map_err(drop).and_then(|store| store.list().map_err(drop))
        else {
            return Ok(());
        };
        if !options.images.is_empty() {
            let is_chosen = |image: &&Image| {
                let named = |name| StoredEntry { manifest: &image.manifest, name, id: Some(&image.id) };
                image.names.iter().any(|name| chosen(&named(Some(name)))) || chosen(&named(None))
            };
            let wanted: BTreeSet<&Digest> = images
                .iter()
                .filter(is_chosen)
                .flat_map(|image| image.layers.iter().map(|layer| &layer.diff_id))
                .collect();
            layers.retain(|layer| wanted.contains(layer));
        }
        layers.sort();
        found.layers = layers.len();
        let damaged =
            self.layer_store().map_or_else(|_| Vec::new(), |store| store.verify_all(&layers, threads));
        for error in damaged {
            // Removed since the list was made.
            if matches!(error, VerifyError::NotFound(_)) {
                let unnamed = self.layer_store().is_ok_and(|store| store.home(error.layer()).exists());
                if !unnamed {
                    continue;
                }
            }
            let digest = error.layer().clone();
            let has = |image: &&Image| image.layers.iter().any(|layer| layer.diff_id == digest);
            let users: Vec<&Image> = images.iter().filter(has).collect();
            let outcome = if options.repair {
                match self.renew_layer(&digest, users.first().copied(), options, progress) {
                    Ok(()) => Repair::Done,
                    Err(reason) => Repair::Failed(reason),
                }
            } else {
                Repair::NotTried
            };
            let name = |image: &&Image| match image.names.first() {
                Some(name) => name.familiar(),
                None => image.id.short().to_owned(),
            };
            let images = users.iter().map(name).collect();
            found.problems.push(Problem { kind: "layer", digest, images, what: chain(&error), outcome });
        }
        Ok(())
    }

    /// Unpacks a damaged layer again.
    fn renew_layer(
        &mut self,
        diff_id: &Digest,
        image: Option<&Image>,
        options: &VerifyOptions,
        progress: &mut dyn Progress,
    ) -> Result<(), String> {
        let image = image.ok_or("it belongs to no image")?;
        let layer = image.layers.iter().find(|layer| layer.diff_id == *diff_id);
        let layer = layer.ok_or("it belongs to no image")?;
        let mut restore = RestoreOptions { tls_verify: options.tls_verify, progress };
        let told = |error: &dyn std::error::Error| chain(error);
        let store = self.image_store().map_err(|error| told(&error))?;
        restore_layers(store, image, &|digest| *digest == layer.digest, &mut restore)
            .map_err(|error: PullError| told(&error))?;
        self.choose_driver().map_err(|error| told(&error))?;
        // Nobody begins to use it from here on.
        let _alone = self
            .layer_store()
            .and_then(stanza_snapshot::LayerStore::alone)
            .map_err(|error| told(&UnpackError::from(error)))?;
        let _idle = self.idle_users(diff_id)?;
        let stream = self
            .image_store()
            .and_then(|store| store.open_layer(layer))
            .map_err(|error| told(&UnpackError::from(error)))?;
        let mut stream = std::io::BufReader::with_capacity(128 * 1024, stream);
        let store = self.layer_store().map_err(|error| told(&UnpackError::from(error)))?;
        store.renew(diff_id, &mut stream).map(drop).map_err(|error| told(&error))
    }

    /// The locks of all containers that are made of a layer: held, none of them starts. Refused when one runs.
    fn idle_users(&mut self, layer: &Digest) -> Result<Vec<Lock>, String> {
        let mut locks = Vec::new();
        let rows = self.database().and_then(|database| database.rows()).map_err(|error| chain(&error))?;
        for row in rows {
            let Ok(record) = self.database().and_then(|database| database.decode(&row)) else { continue };
            if !record.facts.layers.contains(layer) {
                continue;
            }
            let busy = || format!("container `{}` runs on it: stop that first", record.name);
            let lock =
                self.try_lock(record.id.as_str()).map_err(|error| error.to_string())?.ok_or_else(busy)?;
            if self.inspect(&record.id).is_ok_and(|container| matches!(container.state, State::Running(_))) {
                return Err(busy());
            }
            locks.push(lock);
        }
        if let Some(mount) = self.image_mounts().into_iter().find(|mount| mount.layers.contains(layer)) {
            return Err(format!("it is mounted at `{}`: unmount that first", mount.path.display()));
        }
        Ok(locks)
    }
}

/// Whether a given name means an index entry, by what the entry says itself: its image may be damaged.
fn means(text: &str, entry: &StoredEntry<'_>) -> bool {
    let StoredEntry { manifest, name, id } = *entry;
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let by_id = !prefix.is_empty()
        && (manifest.hex().starts_with(prefix) || id.is_some_and(|id| id.hex().starts_with(prefix)));
    let by_name = text.parse::<Reference>().is_ok_and(|asked| {
        name.is_some_and(|name| *name == asked)
            || (asked.digest() == Some(manifest)
                && name.is_some_and(|name| name.repository() == asked.repository()))
    });
    by_id || by_name
}
