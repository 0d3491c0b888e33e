//! The blobs of a push: asked for all at once, then mounted or sent, a few at a time. One that the store has dropped to
//! save space is fetched again first, when it cannot be mounted.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use stanza_spec::{Digest, Reference};

use super::error::PushError;
use crate::document::Descriptor;
use crate::progress::{Progress, ProgressEvent};
use crate::pull::{RestoreOptions, Surroundings, restore_from};
use crate::registry::{Mount, OutgoingBlob, Registry};
use crate::store::{BlobKind, ImageStore, KnownBlob};

/// How many questions are under way at once: over HTTP/2 they share a connection.
const QUESTIONS: usize = 8;
/// How many blobs are sent at once: more compete for the same line.
const UPLOADS: usize = 4;
/// How many repositories are tried to mount a blob from.
const MOUNTS: usize = 2;

/// What a thread tells the one that shows it.
enum Told {
    Present(usize),
    Fetching(usize, u64),
    Mounted(usize, String),
    Sending(usize, u64),
    Sent(usize),
    Retrying(u32, Duration),
}

/// What is done for the blob of a number.
type Work<'w> = &'w (dyn Fn(usize, &Sender<Told>) -> Result<(), PushError> + Sync);

/// What is needed to bring blobs to a registry.
pub(super) struct Bringing<'a> {
    pub(super) store: &'a ImageStore,
    pub(super) registry: &'a Registry<'a>,
    pub(super) name: &'a Reference,
    /// Repositories of the same registry that are known to have a blob.
    pub(super) elsewhere: &'a HashMap<Digest, Vec<String>>,
    /// What dropped blobs are fetched by.
    pub(super) surroundings: &'a Surroundings<'a>,
    pub(super) tls_verify: bool,
    /// Whether a blob is shown.
    pub(super) is_shown: &'a (dyn Fn(&Digest) -> bool + Sync),
}

impl Bringing<'_> {
    /// Sees to it that the registry has all `blobs`.
    pub(super) fn bring(&self, blobs: &[Descriptor], progress: &mut dyn Progress) -> Result<(), PushError> {
        let absent = Mutex::new(Vec::new());
        self.each(blobs, QUESTIONS, progress, &|at, tell| {
            if self.registry.has_blob(&blobs[at].digest, &mut retrying(tell))? {
                // Who listens no more has an error to show.
                let _ = tell.send(Told::Present(at));
            } else {
                absent.lock().expect("no thread panics with the list").push(at);
            }
            Ok(())
        })?;
        let mut absent = absent.into_inner().expect("no thread panics with the list");
        // The largest first: the last one to end is a short one.
        absent.sort_by_key(|at| (std::cmp::Reverse(blobs[*at].size), *at));
        let order: Vec<Descriptor> = absent.iter().map(|at| blobs[*at].clone()).collect();
        self.each(&order, UPLOADS, progress, &|at, tell| self.bring_one(&order[at], at, tell))
    }

    /// Does `work` for every blob on several threads, and shows on this one what they tell. The first error ends it.
    fn each(
        &self,
        blobs: &[Descriptor],
        most: usize,
        progress: &mut dyn Progress,
        work: Work<'_>,
    ) -> Result<(), PushError> {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let failure = Mutex::new(None);
        let (tell, told) = channel();
        std::thread::scope(|scope| {
            for _ in 0..most.min(blobs.len()) {
                let tell = tell.clone();
                let (next, failed, failure) = (&next, &failed, &failure);
                scope.spawn(move || {
                    while !failed.load(Ordering::Relaxed) {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= blobs.len() {
                            return;
                        }
                        if let Err(error) = work(at, &tell) {
                            failed.store(true, Ordering::Relaxed);
                            failure.lock().expect("no thread panics with the error").get_or_insert(error);
                        }
                    }
                });
            }
            drop(tell);
            for told in told {
                self.show(blobs, told, progress);
            }
        });
        match failure.into_inner().expect("no thread panics with the error") {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Mounts a blob that the registry does not have in this repository, or sends it.
    fn bring_one(&self, blob: &Descriptor, at: usize, tell: &Sender<Told>) -> Result<(), PushError> {
        let mut upload = None;
        for from in self.elsewhere.get(&blob.digest).into_iter().flatten().take(MOUNTS) {
            match self.registry.mount(&blob.digest, from, &mut retrying(tell))? {
                Mount::Done => {
                    if let Some(unused) = upload {
                        self.registry.cancel_upload(&unused);
                    }
                    let _ = tell.send(Told::Mounted(at, from.clone()));
                    return Ok(());
                }
                Mount::Upload(opened) => {
                    if let Some(unused) = upload.replace(opened) {
                        self.registry.cancel_upload(&unused);
                    }
                }
                Mount::Refused => {}
            }
        }
        let file = match self.open(blob) {
            Err(PushError::Missing { .. }) if self.fetch(blob, at, tell)? => self.open(blob)?,
            result => result?,
        };
        let _ = tell.send(Told::Sending(at, 0));
        let on_sent = |position| {
            let _ = tell.send(Told::Sending(at, position));
        };
        let outgoing = OutgoingBlob { digest: &blob.digest, size: blob.size, file: &file, on_sent: &on_sent };
        self.registry.send_blob(&outgoing, upload, &mut retrying(tell))?;
        let _ = tell.send(Told::Sent(at));
        Ok(())
    }

    /// Brings a blob that is not in the store from where it came from; `false` when nobody knows where.
    fn fetch(&self, blob: &Descriptor, at: usize, tell: &Sender<Told>) -> Result<bool, PushError> {
        let sources = sources(self.store, &blob.digest)?;
        let known = KnownBlob {
            digest: blob.digest.clone(),
            size: blob.size,
            kind: BlobKind::Layer,
            images: Vec::new(),
            sources: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
        };
        let mut failure = None;
        for source in &sources {
            let mut progress = Fetching(at, tell);
            let mut options = RestoreOptions { tls_verify: self.tls_verify, progress: &mut progress };
            match restore_from(self.store, &known, source, &mut options, self.surroundings) {
                Ok(()) => return Ok(true),
                Err(source) => failure = Some(source),
            }
        }
        match failure {
            Some(source) => Err(PushError::Fetch { digest: blob.digest.clone(), source: Box::new(source) }),
            None => Ok(false),
        }
    }

    /// Opens a blob's file. One of another size than its descriptor says is damaged and counts as absent.
    fn open(&self, blob: &Descriptor) -> Result<File, PushError> {
        let missing = || PushError::Missing { name: self.name.familiar(), digest: blob.digest.clone() };
        let opened = File::open(self.store.blob_path(&blob.digest))
            .and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((length, file)) if length == blob.size => Ok(file),
            Ok(_) => Err(missing()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
            Err(source) => Err(PushError::Open { digest: blob.digest.clone(), source }),
        }
    }

    fn show(&self, blobs: &[Descriptor], told: Told, progress: &mut dyn Progress) {
        let event = match &told {
            Told::Retrying(attempt, delay) => ProgressEvent::Retrying { attempt: *attempt, delay: *delay },
            Told::Present(at)
            | Told::Fetching(at, _)
            | Told::Mounted(at, _)
            | Told::Sending(at, _)
            | Told::Sent(at) => {
                let Descriptor { digest, size, .. } = &blobs[*at];
                if !(self.is_shown)(digest) {
                    return;
                }
                match &told {
                    Told::Present(_) => ProgressEvent::LayerPresent { digest, size: *size },
                    Told::Fetching(_, done) => ProgressEvent::LayerBytes { digest, done: *done, size: *size },
                    Told::Mounted(_, from) => ProgressEvent::LayerMounted { digest, size: *size, from },
                    Told::Sending(_, done) => {
                        ProgressEvent::LayerSending { digest, done: *done, size: *size }
                    }
                    _ => ProgressEvent::LayerSent { digest, size: *size },
                }
            }
        };
        progress.event(event);
    }
}

/// Passes on how much of a blob was fetched again.
struct Fetching<'a>(usize, &'a Sender<Told>);

impl Progress for Fetching<'_> {
    fn event(&mut self, event: ProgressEvent<'_>) {
        let told = match event {
            ProgressEvent::LayerBytes { done, .. } => Told::Fetching(self.0, done),
            ProgressEvent::Retrying { attempt, delay } => Told::Retrying(attempt, delay),
            _ => return,
        };
        let _ = self.1.send(told);
    }
}

/// The names at registries whose images have a blob, by digest.
fn sources(store: &ImageStore, digest: &Digest) -> Result<Vec<Reference>, PushError> {
    let mut sources = Vec::new();
    for entry in store.read_index()?.manifests {
        let Some(name) = entry.reference() else { continue };
        let Some(source) = name.digest().cloned().or_else(|| entry.source_digest()) else { continue };
        if super::blobs_of(store, &entry).iter().any(|blob| blob == digest) {
            sources.push(name.with_digest(source));
        }
    }
    Ok(sources)
}

/// Tells of repetitions.
fn retrying(tell: &Sender<Told>) -> impl FnMut(u32, Duration) + '_ {
    move |attempt, delay| {
        let _ = tell.send(Told::Retrying(attempt, delay));
    }
}
