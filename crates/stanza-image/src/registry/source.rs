//! Where one image comes from: the mirrors of its registry, then the registry itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use stanza_spec::{Digest, Reference};

use super::blobs::Blob;
use super::client::{OnRetry, Registry};
use super::credentials::CredentialFiles;
use super::error::RegistryError;
use super::manifests::RawDocument;
use super::registries::RegistriesConfig;
use super::retry::RetryPolicy;
use super::transport::Transport;

/// Tries at a mirror: the next place is better than a long wait.
const MIRROR_TRIES: u32 = 2;

/// The places for one image, asked in their order until one answers. What a mirror says instead is kept for the error,
/// should the registry itself fail too.
pub(crate) struct Source<'a> {
    /// At least one; the last is the registry itself.
    places: Vec<Registry<'a>>,
    /// The place that gave the last manifest, and so likely has the rest.
    current: AtomicUsize,
    /// How often each blob was asked for: again only when what came of it broke off.
    asked: Mutex<HashMap<Digest, u32>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(
        reference: &Reference,
        tls_verify: bool,
        registries: &RegistriesConfig,
        transport: &'a dyn Transport,
        retry: RetryPolicy,
        files: &'a CredentialFiles,
    ) -> Result<Source<'a>, RegistryError> {
        let places = registries
            .endpoints(reference)?
            .into_iter()
            .map(|endpoint| {
                let tries = if endpoint.is_mirror { retry.tries.min(MIRROR_TRIES) } else { retry.tries };
                let verify = tls_verify && !endpoint.insecure;
                Registry::new(&endpoint.reference, verify, transport, RetryPolicy { tries, ..retry }, files)
            })
            .collect();
        Ok(Source { places, current: AtomicUsize::new(0), asked: Mutex::default() })
    }

    /// The place that gave the last manifest.
    pub(crate) fn current(&self) -> &Registry<'a> {
        &self.places[self.current.load(Ordering::Relaxed)]
    }

    /// Leaves a mirror whose content is wrong; `false` when it was the registry itself.
    pub(crate) fn leave(&self) -> bool {
        let next = self.current.load(Ordering::Relaxed) + 1;
        // Several threads may leave one place: going on by more than one does no harm, the last one stays.
        next < self.places.len() && {
            self.current.store(next, Ordering::Relaxed);
            true
        }
    }

    pub(crate) fn retry_policy(&self) -> &RetryPolicy {
        self.places[self.places.len() - 1].retry_policy()
    }

    /// Fetches a manifest or index, by tag or digest, whole.
    pub(crate) fn manifest(&self, name: &str, on_retry: OnRetry<'_>) -> Result<RawDocument, RegistryError> {
        let start = self.current.load(Ordering::Relaxed);
        let (at, answer) = self.first(start, |place| place.manifest(name, &mut *on_retry))?;
        self.current.store(at, Ordering::Relaxed);
        Ok(answer)
    }

    /// Starts to fetch a blob from `offset` on; the answer may begin earlier, at zero.
    pub(crate) fn blob(
        &self,
        digest: &Digest,
        offset: u64,
        on_retry: OnRetry<'_>,
    ) -> Result<Blob, RegistryError> {
        let asked = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let count = asked.entry(digest.clone()).or_default();
            *count += 1;
            *count
        };
        // A mirror that stops halfway each time is no better than one that has nothing.
        let skipped = usize::try_from((asked - 1) / MIRROR_TRIES).unwrap_or(usize::MAX);
        let start = self.current.load(Ordering::Relaxed).saturating_add(skipped);
        let start = start.min(self.places.len() - 1);
        self.first(start, |place| place.blob(digest, offset, &mut *on_retry)).map(|(_, answer)| answer)
    }

    /// The first answer, from place number `start` on, and the number of the place that gave it.
    fn first<T>(
        &self,
        start: usize,
        mut ask: impl FnMut(&Registry<'a>) -> Result<T, RegistryError>,
    ) -> Result<(usize, T), RegistryError> {
        let mut refusals = Vec::new();
        let last = self.places.len() - 1;
        for (at, place) in self.places.iter().enumerate().skip(start) {
            match ask(place) {
                Ok(answer) => return Ok((at, answer)),
                Err(error) if at < last => refusals.push(error),
                Err(error) if refusals.is_empty() => return Err(error),
                Err(error) => {
                    return Err(RegistryError::Mirrors { registry: Box::new(error), mirrors: refusals });
                }
            }
        }
        unreachable!("the last place returns from the loop")
    }
}
