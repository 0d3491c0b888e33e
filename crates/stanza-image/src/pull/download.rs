//! One blob, from the registry into the store, however often the connection breaks.

use std::io::{self, Read};

use super::error::PullError;
use crate::document::Descriptor;
use crate::progress::{Progress, ProgressEvent};
use crate::registry::{Blob, RegistryError, Source};
use crate::store::{BlobWriter, Ingest, StoreError};

/// Hashed while it is in the processor's cache.
const CHUNK: usize = 128 * 1024;
/// So much new content makes the count of failures start anew.
const GAIN: u64 = 4 * 1024 * 1024;

/// How one connection ended.
enum End {
    Whole,
    BrokeOff(Option<io::Error>),
}

/// Fetches `wanted` into the store. Its digest must be protected by `ingest`.
pub(super) fn fetch_blob(
    registry: &Source<'_>,
    ingest: &Ingest<'_>,
    wanted: &Descriptor,
    progress: &mut dyn Progress,
) -> Result<(), PullError> {
    let policy = *registry.retry_policy();
    let mut writer = ingest.writer(&wanted.digest, wanted.size)?;
    let mut failures = 0;
    let mut resumed = false;
    let mut reached = 0;
    loop {
        let end = match connect(registry, wanted, &mut writer, progress)? {
            Ok(blob) => {
                resumed |= blob.offset > 0;
                receive(blob, wanted, &mut writer, progress)?
            }
            Err(error) => End::BrokeOff(Some(error)),
        };
        match end {
            End::Whole => match ingest.commit(writer) {
                // Two halves of different content: once more from the start.
                Err(StoreError::Corrupt { .. }) if resumed => {
                    resumed = false;
                    writer = ingest.writer(&wanted.digest, wanted.size)?;
                }
                result => return Ok(result?),
            },
            End::BrokeOff(source) => {
                if writer.written() >= reached + GAIN {
                    failures = 0;
                }
                reached = reached.max(writer.written());
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
                progress.event(ProgressEvent::Retrying { attempt: failures + 1, delay });
                (policy.sleep)(delay);
            }
        }
    }
}

/// Opens the blob where the writer stands. The inner error counts as a connection that broke.
fn connect(
    registry: &Source<'_>,
    wanted: &Descriptor,
    writer: &mut BlobWriter,
    progress: &mut dyn Progress,
) -> Result<Result<Blob, io::Error>, PullError> {
    let offset = writer.written();
    let answer = registry.blob(&wanted.digest, offset, &mut |attempt, delay| {
        progress.event(ProgressEvent::Retrying { attempt, delay });
    });
    let restart = |writer: &mut BlobWriter, reason: &str| {
        writer.restart()?;
        Ok(Err(io::Error::other(reason.to_owned())))
    };
    let blob = match answer {
        Ok(blob) => blob,
        // The range does not please: the next try asks for the whole.
        Err(RegistryError::Status { status: 416, .. }) if offset > 0 => {
            return restart(writer, "the range was refused");
        }
        Err(RegistryError::Answer { reason, .. }) if offset > 0 => return restart(writer, &reason),
        Err(error) => return Err(error.into()),
    };
    if let Some(size) = blob.size
        && size != wanted.size
    {
        return Err(PullError::Size { digest: wanted.digest.clone(), expected: wanted.size, actual: size });
    }
    if blob.offset != offset {
        writer.restart()?;
    }
    Ok(Ok(blob))
}

/// Reads until the blob is whole or the connection ends. One byte too many is an error.
fn receive(
    mut blob: Blob,
    wanted: &Descriptor,
    writer: &mut BlobWriter,
    progress: &mut dyn Progress,
) -> Result<End, PullError> {
    let Descriptor { digest, size, .. } = wanted;
    let mut buffer = vec![0_u8; CHUNK];
    loop {
        match blob.body.read(&mut buffer) {
            Ok(0) if writer.written() == *size => return Ok(End::Whole),
            Ok(0) => return Ok(End::BrokeOff(None)),
            Ok(count) => {
                writer.append(&buffer[..count])?;
                progress.event(ProgressEvent::LayerBytes { digest, done: writer.written(), size: *size });
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // All of it is here, however the connection ended.
            Err(_) if writer.written() == *size => return Ok(End::Whole),
            Err(error) => return Ok(End::BrokeOff(Some(error))),
        }
    }
}
