//! One blob, from the registry into the store and to whoever unpacks it, however often the connection breaks.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, Bytes};

use super::error::PullError;
use super::layers::{Layers, Verdict};
use crate::document::Descriptor;
use crate::flow::{BUFFER, FrameWriter};
use crate::progress::{Progress, ProgressEvent};
use crate::registry::{Blob, RegistryError};
use crate::store::{Partial, StoreError};

/// So much new content makes the count of failures start anew.
const GAIN: u64 = 4 * 1024 * 1024;

/// What a thread tells the one that shows it.
pub(super) enum Step {
    /// Another process brings it.
    Waiting,
    Started,
    /// So many bytes are here.
    Bytes(u64),
    Done,
    Retrying(u32, Duration),
}

impl Step {
    pub(super) fn show(&self, blob: &Descriptor, progress: &mut dyn Progress) {
        let Descriptor { digest, size, .. } = blob;
        let size = *size;
        progress.event(match self {
            Step::Waiting => ProgressEvent::LayerWaiting { digest },
            Step::Started => ProgressEvent::LayerStarted { digest, size },
            Step::Bytes(done) => ProgressEvent::LayerBytes { digest, done: *done, size },
            Step::Done => ProgressEvent::LayerDone { digest, size },
            Step::Retrying(attempt, delay) => ProgressEvent::Retrying { attempt: *attempt, delay: *delay },
        });
    }
}

/// How a blob came.
pub(super) enum Received {
    Whole,
    /// What was here cannot be continued; it is gone now.
    Mismatched,
}

/// How one connection ended.
enum End {
    Whole,
    BrokeOff(Option<io::Error>),
    Mismatched,
}

impl Layers<'_> {
    /// Brings the rest of a blob, and gives all of it to `out`, what was here first. `resumed` tells whether it was
    /// put together of several answers. When the stages behind `out` blame the content, it is received to its end, so
    /// that its digest tells whose fault it is, and not kept.
    pub(super) fn receive(
        &self,
        wanted: &Descriptor,
        mut partial: Partial,
        out: Option<FrameWriter>,
        verdict: &Verdict,
        resumed: &mut bool,
        tell: &dyn Fn(Step),
    ) -> Result<Received, PullError> {
        let mut tee = Tee(out);
        match self.receive_into(wanted, &mut partial, &mut tee, verdict, resumed, tell) {
            Ok(Received::Whole) if verdict.blames_content() => {
                partial.check()?;
                Err(PullError::Stopped)
            }
            Ok(Received::Whole) => {
                // The stages behind end before the blob is synced, not after.
                tee.finish();
                partial.commit()?;
                Ok(Received::Whole)
            }
            Ok(Received::Mismatched) => {
                partial.discard();
                Ok(Received::Mismatched)
            }
            Err(error) => {
                if !error.leaves_partial() || verdict.is_final() || verdict.blames_content() {
                    partial.discard();
                }
                Err(error)
            }
        }
    }

    fn receive_into(
        &self,
        wanted: &Descriptor,
        partial: &mut Partial,
        tee: &mut Tee,
        verdict: &Verdict,
        resumed: &mut bool,
        tell: &dyn Fn(Step),
    ) -> Result<Received, PullError> {
        loop {
            let mut buffer = Vec::with_capacity(BUFFER);
            partial.read_kept(&mut buffer, BUFFER)?;
            if buffer.is_empty() {
                break;
            }
            *resumed = true;
            tell(Step::Bytes(partial.done()));
            tee.send(buffer.into());
            self.go_on(verdict)?;
        }
        let policy = *self.registry.retry_policy();
        let mut failures = 0;
        let mut reached = partial.done();
        while !partial.is_whole() || wanted.size == 0 {
            let end = match self.connect(wanted, partial.done(), tell)? {
                Ok(blob) => {
                    *resumed |= partial.done() > 0;
                    self.take(blob, wanted, partial, tee, verdict, tell)?
                }
                Err(end) => end,
            };
            match end {
                End::Whole => break,
                End::Mismatched => return Ok(Received::Mismatched),
                End::BrokeOff(source) => {
                    if partial.done() >= reached + GAIN {
                        failures = 0;
                    }
                    reached = reached.max(partial.done());
                    failures += 1;
                    if failures >= policy.tries {
                        return Err(PullError::Truncated {
                            digest: wanted.digest.clone(),
                            received: reached,
                            expected: wanted.size,
                            source,
                        });
                    }
                    let delay = policy.delay(failures);
                    tell(Step::Retrying(failures + 1, delay));
                    (policy.sleep)(delay);
                }
            }
        }
        Ok(Received::Whole)
    }

    /// Whether there is reason to stop.
    fn go_on(&self, verdict: &Verdict) -> Result<(), PullError> {
        if verdict.is_final() || self.has_failed() { Err(PullError::Stopped) } else { Ok(()) }
    }

    /// Opens the blob at `offset`, or before it.
    fn connect(
        &self,
        wanted: &Descriptor,
        offset: u64,
        tell: &dyn Fn(Step),
    ) -> Result<Result<Blob, End>, PullError> {
        let answer = self.registry.blob(&wanted.digest, offset, &mut |attempt, delay| {
            tell(Step::Retrying(attempt, delay));
        });
        let blob = match answer {
            Ok(blob) => blob,
            // The range does not please: from the start it may.
            Err(RegistryError::Status { status: 416, .. } | RegistryError::Answer { .. }) if offset > 0 => {
                return Ok(Err(End::Mismatched));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(size) = blob.size
            && size != wanted.size
        {
            return Err(PullError::Size {
                digest: wanted.digest.clone(),
                expected: wanted.size,
                actual: size,
            });
        }
        Ok(Ok(blob))
    }

    /// Reads until the blob is whole or the connection ends. One byte too many is an error.
    fn take(
        &self,
        mut blob: Blob,
        wanted: &Descriptor,
        partial: &mut Partial,
        tee: &mut Tee,
        verdict: &Verdict,
        tell: &dyn Fn(Step),
    ) -> Result<End, PullError> {
        // An answer from the start, to one who asked for the rest.
        let mut skip = partial.done() - blob.offset.min(partial.done());
        loop {
            let mut frame = match blob.body.frame() {
                Ok(Some(frame)) => frame,
                Ok(None) if partial.is_whole() => return Ok(End::Whole),
                Ok(None) => return Ok(End::BrokeOff(None)),
                // All of it is here, however the connection ended.
                Err(_) if partial.is_whole() => return Ok(End::Whole),
                Err(error) => return Ok(End::BrokeOff(Some(error))),
            };
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(frame.len());
            frame.advance(known);
            skip -= u64::try_from(known).unwrap_or(skip);
            partial.append(&frame)?;
            tell(Step::Bytes(partial.done()));
            tee.send(frame);
            self.go_on(verdict)?;
            if partial.is_whole() && wanted.size > 0 && blob.size == Some(wanted.size) {
                // The length was told: nothing more comes.
                return Ok(End::Whole);
            }
        }
    }
}

/// Gives frames on, for as long as somebody takes them.
struct Tee(Option<FrameWriter>);

impl Tee {
    fn send(&mut self, frame: Bytes) {
        // Nobody unpacks it any more: because it is done, or because it failed; the verdict tells.
        self.0 = self.0.take().filter(|out| out.send(frame).is_ok());
    }

    fn finish(self) {
        if let Some(out) = self.0 {
            out.finish();
        }
    }
}

impl PullError {
    /// Whether what came so far is good for another try.
    fn leaves_partial(&self) -> bool {
        match self {
            PullError::Registry(_) | PullError::Truncated { .. } | PullError::Stopped => true,
            // A full disk gets its space back.
            PullError::Store(StoreError::Io { .. }) => false,
            _ => false,
        }
    }
}
