//! The layers of an image: several at once, and each in stages that run at once.
//!
//! ```text
//!   socket -> hash, partial blob  -->  decompress  -->  layer sink: hash of the diff id, unpack
//!   this layer's thread         flow   a thread   flow  a thread
//! ```
//!
//! Nothing is written but the blob and the unpacked files; between the stages lie a fixed number of small buffers, so
//! memory does not grow with the image. Layers do not wait for each other. A stage that fails tells the others to stop;
//! the first failure is the one that is told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

use stanza_spec::{Classify as _, Digest, ErrorKind};

use super::download::{Received, Step};
use super::error::PullError;
use crate::document::Descriptor;
use crate::flow::{flow, frames};
use crate::progress::{Progress, ProgressEvent};
use crate::registry::Source;
use crate::sink::LayerSink;
use crate::store::{ImageStore, Partial, Wanted};
use crate::unpack::{InflateError, inflate, unpack_blob};

/// How often a blob is begun anew, when what is there cannot be continued.
const RESTARTS: u32 = 3;

/// A layer to be brought: its blob, and what it is when it is decompressed; without that it is stored only.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) blob: &'a Descriptor,
    pub(super) diff_id: Option<&'a Digest>,
}

/// Where blobs come from and layers go.
pub(super) struct Layers<'a> {
    pub(super) registry: &'a Source<'a>,
    pub(super) store: &'a ImageStore,
    pub(super) sink: Option<&'a dyn LayerSink>,
    /// Layers that come in at once, at least one.
    pub(super) concurrency: usize,
    /// The first failure: whoever sees one stops.
    failure: Mutex<Option<PullError>>,
}

/// What the stages behind the download tell it.
#[derive(Default)]
pub(super) struct Verdict(AtomicU8);

impl Verdict {
    const STOP: u8 = 1;
    const CONTENT: u8 = 2;

    /// They have failed: whatever comes is of no use.
    pub(super) fn is_final(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::STOP
    }

    /// The content cannot be used. Only its digest tells whether it was made so or damaged on the way.
    pub(super) fn blames_content(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::CONTENT
    }

    fn set(&self, kind: ErrorKind) {
        let verdict = if kind == ErrorKind::Corrupt { Self::CONTENT } else { Self::STOP };
        // The first one counts: others follow from it.
        let _ = self.0.compare_exchange(0, verdict, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl<'a> Layers<'a> {
    pub(super) fn new(
        registry: &'a Source<'a>,
        store: &'a ImageStore,
        sink: Option<&'a dyn LayerSink>,
        concurrency: usize,
    ) -> Layers<'a> {
        Layers { registry, store, sink, concurrency, failure: Mutex::new(None) }
    }

    /// Brings all layers; blobs and layers that are there are left as they are.
    pub(super) fn fetch(&self, wishes: &[Wish<'_>], progress: &mut dyn Progress) -> Result<(), PullError> {
        let mut open: Vec<Wish<'_>> = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let Descriptor { digest, size, .. } = wish.blob;
            // One that was dropped on purpose is not needed: whoever needs it fetches it.
            let has_blob = self.store.has_blob(digest, *size) || self.store.is_dropped(digest);
            if has_blob && self.missing(*wish).is_none() {
                progress.event(ProgressEvent::LayerExists { digest, size: *size });
            } else {
                progress.event(ProgressEvent::LayerPending { digest, size: *size });
                open.push(*wish);
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let (sender, steps) = channel();
        scope(|scope| {
            for _ in 0..self.concurrency.clamp(1, open.len()) {
                let (sender, next, open) = (sender.clone(), &next, &open);
                let work = move || {
                    while !self.has_failed() {
                        let layer = next.fetch_add(1, Ordering::Relaxed);
                        let Some(wish) = open.get(layer) else { break };
                        // Whoever shows the steps outlives the threads that make them.
                        let tell = |step| drop(sender.send((layer, step)));
                        if let Err(error) = self.layer(*wish, &tell) {
                            self.fail(error);
                        }
                    }
                };
                if let Err(error) = start(scope, work) {
                    self.fail(error);
                    break;
                }
            }
            drop(sender);
            for (layer, step) in steps {
                step.show(open[layer].blob, progress);
            }
        });
        let failure = self.failure.lock().map(|mut failure| failure.take());
        failure.unwrap_or(Some(PullError::Stopped)).map_or(Ok(()), Err)
    }

    /// Brings a blob that is no layer; nothing when it is there.
    pub(super) fn blob(&self, blob: &Descriptor, tell: &dyn Fn(Step)) -> Result<(), PullError> {
        self.bring(blob, tell, &|partial, resumed| {
            self.receive(blob, partial, None, &Verdict::default(), resumed, tell)
        })
    }

    /// The sink, when it lacks the layer, and what the layer is.
    fn missing<'w>(&self, wish: Wish<'w>) -> Option<(&'a dyn LayerSink, &'w Digest)> {
        self.sink.zip(wish.diff_id).filter(|(sink, diff_id)| !sink.contains(diff_id))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.lock().map_or(true, |failure| failure.is_some())
    }

    fn fail(&self, error: PullError) {
        if let Ok(mut failure) = self.failure.lock() {
            failure.get_or_insert(error);
        }
    }

    /// Brings one layer.
    fn layer(&self, wish: Wish<'_>, tell: &dyn Fn(Step)) -> Result<(), PullError> {
        self.bring(wish.blob, tell, &|partial, resumed| match self.missing(wish) {
            None => self.receive(wish.blob, partial, None, &Verdict::default(), resumed, tell),
            Some((sink, diff_id)) => {
                self.receive_and_unpack(wish.blob, (sink, diff_id), partial, resumed, tell)
            }
        })?;
        // The blob was there, or another process brought it, or what came was another process's layer, too.
        if let Some((sink, diff_id)) = self.missing(wish) {
            let digest = &wish.blob.digest;
            unpack_blob(self.store, sink, digest, diff_id)
                .map_err(|error| PullError::unpack(digest, error))?;
        }
        tell(Step::Done);
        Ok(())
    }

    /// Sees to it that a blob is there: by `receive`, or because another process brings it.
    fn bring(
        &self,
        blob: &Descriptor,
        tell: &dyn Fn(Step),
        receive: &dyn Fn(Partial, &mut bool) -> Result<Received, PullError>,
    ) -> Result<(), PullError> {
        let mut restarts = 0;
        while !self.store.has_blob(&blob.digest, blob.size) {
            let wanted = self.store.partial(&blob.digest, blob.size, &mut || tell(Step::Waiting))?;
            let Wanted::Ours(partial) = wanted else { break };
            tell(Step::Started);
            let mut resumed = false;
            match receive(*partial, &mut resumed) {
                Ok(Received::Whole) => {}
                // Half of it is of another content, or cannot be continued: once more from the start.
                Ok(Received::Mismatched) if restarts < RESTARTS => restarts += 1,
                Err(PullError::Digest { .. }) if resumed && restarts < RESTARTS => restarts += 1,
                Ok(Received::Mismatched) => {
                    let (digest, expected) = (blob.digest.clone(), blob.size);
                    return Err(PullError::Truncated { digest, received: 0, expected, source: None });
                }
                // A mirror with other content than the registry: the next place may be better.
                Err(PullError::Digest { .. } | PullError::Size { .. }) if self.registry.leave() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives a blob, and unpacks it while it comes.
    fn receive_and_unpack(
        &self,
        blob: &Descriptor,
        (sink, diff_id): (&dyn LayerSink, &Digest),
        partial: Partial,
        resumed: &mut bool,
        tell: &dyn Fn(Step),
    ) -> Result<Received, PullError> {
        let verdict = Verdict::default();
        let digest = &blob.digest;
        let (compressed, to_inflate) = frames();
        let (plain, to_unpack) = flow();
        let (received, inflated, unpacked) = scope(|scope| {
            let inflating = start(scope, || {
                let mut stream = to_inflate;
                let result = inflate(&mut stream, plain);
                if let Err(InflateError::Content(_)) = result {
                    verdict.set(ErrorKind::Corrupt);
                }
                // Only now may the download see that nobody reads any more.
                drop(stream);
                result
            })?;
            let unpacking = start(scope, || {
                let mut stream = to_unpack;
                let result = sink.unpack(diff_id, &mut stream);
                if let Err(error) = &result {
                    verdict.set(error.kind());
                }
                drop(stream);
                result
            })?;
            let received = self.receive(blob, partial, Some(compressed), &verdict, resumed, tell);
            Ok::<_, PullError>((received, join(inflating), join(unpacking)))
        })?;
        match (received, inflated, unpacked) {
            // What came later failed because of this.
            (Err(error), ..) if !matches!(error, PullError::Stopped) => Err(error),
            (Ok(Received::Mismatched), ..) => Ok(Received::Mismatched),
            // When the sink has failed first, the stream was cut off because of that.
            (_, Some(Err(InflateError::Content(source))), _) if !verdict.is_final() => {
                Err(PullError::unpack(digest, InflateError::Content(source).into()))
            }
            (_, _, Some(Err(error))) => Err(PullError::unpack(digest, error.into())),
            (Err(error), ..) => Err(error),
            (Ok(received), _, Some(Ok(()))) => Ok(received),
            (_, _, None) => Err(PullError::Stopped),
        }
    }
}

/// Starts a thread that ends before the scope does.
fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, PullError> {
    Builder::new().spawn_scoped(scope, work).map_err(|source| PullError::Thread { source })
}

/// What the thread gave; `None` when it panicked, which aborts in a release.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> Option<T> {
    thread.join().ok()
}
