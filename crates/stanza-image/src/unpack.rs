//! From a layer's blob to the layer sink.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, scope};

use stanza_spec::{Classify, Digest, ErrorKind};

use crate::compression::Decoder;
use crate::flow::{BUFFER, FlowWriter, flow};
use crate::image::Layer;
use crate::sink::{LayerSink, SinkError};
use crate::store::{ImageStore, StoreError};

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The blob is not there, or cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its data does not decompress.
    #[error("cannot decompress it")]
    Decompress {
        /// Where it fails.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// The layer store refuses it.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl Classify for UnpackError {
    fn kind(&self) -> ErrorKind {
        match self {
            UnpackError::Store(error) => error.kind(),
            UnpackError::Decompress { .. } => ErrorKind::Corrupt,
            UnpackError::Thread { source } => ErrorKind::of_io(source),
            UnpackError::Sink(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            UnpackError::Store(error) => error.hint(),
            UnpackError::Sink(error) => error.hint(),
            UnpackError::Decompress { .. } | UnpackError::Thread { .. } => None,
        }
    }
}

/// How decompressing ends without success.
pub(crate) enum InflateError {
    /// The data is no good, or is cut off.
    Content(io::Error),
    /// Nobody reads what it makes.
    Gone,
}

impl From<InflateError> for UnpackError {
    fn from(error: InflateError) -> UnpackError {
        match error {
            InflateError::Content(source) => UnpackError::Decompress { source },
            InflateError::Gone => UnpackError::Decompress { source: io::ErrorKind::BrokenPipe.into() },
        }
    }
}

/// Decompresses a stream into a flow.
pub(crate) fn inflate(stream: impl BufRead, plain: FlowWriter) -> Result<(), InflateError> {
    let mut decoder = Decoder::new(stream).map_err(InflateError::Content)?;
    pour(&mut decoder, plain)
}

/// Reads a stream to its end into a flow.
pub(crate) fn pour(stream: &mut dyn Read, mut plain: FlowWriter) -> Result<(), InflateError> {
    loop {
        let mut buffer = plain.buffer().map_err(|_| InflateError::Gone)?;
        let mut filled = 0;
        let mut ended = false;
        while filled < BUFFER && !ended {
            match stream.read(&mut buffer.room()[filled..]) {
                Ok(0) => ended = true,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(InflateError::Content(error)),
            }
        }
        buffer.fill(filled);
        plain.send(buffer).map_err(|_| InflateError::Gone)?;
        if ended {
            plain.finish();
            return Ok(());
        }
    }
}

/// Unpacks a layer whose blob is in the store: one thread decompresses, this one unpacks.
pub(crate) fn unpack_blob(
    store: &ImageStore,
    sink: &dyn LayerSink,
    digest: &Digest,
    diff_id: &Digest,
) -> Result<(), UnpackError> {
    let blob = BufReader::with_capacity(BUFFER, store.open_blob(digest)?);
    let (plain, mut to_unpack) = flow();
    let (inflated, unpacked) = scope(|scope| {
        let inflating = Builder::new()
            .spawn_scoped(scope, || inflate(blob, plain))
            .map_err(|source| UnpackError::Thread { source })?;
        let unpacked = sink.unpack(diff_id, &mut to_unpack);
        drop(to_unpack);
        Ok::<_, UnpackError>((inflating.join(), unpacked))
    })?;
    match (inflated, unpacked) {
        (Ok(Err(error @ InflateError::Content(_))), Err(_)) => Err(error.into()),
        (_, unpacked) => Ok(unpacked?),
    }
}

impl ImageStore {
    /// Unpacks the layers of an image that the sink lacks, several at once.
    ///
    /// # Errors
    /// The first failure, with the layer it belongs to.
    pub fn unpack(
        &self,
        layers: &[Layer],
        sink: &dyn LayerSink,
        concurrency: usize,
    ) -> Result<(), (Digest, UnpackError)> {
        let open: Vec<&Layer> = layers.iter().filter(|layer| !sink.contains(&layer.diff_id)).collect();
        let one = |layer: &Layer| {
            unpack_blob(self, sink, &layer.digest, &layer.diff_id)
                .map_err(|error| (layer.diff_id.clone(), error))
        };
        if let [layer] = open[..] {
            return one(layer);
        }
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let work = || {
            while let Some(layer) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = one(layer) {
                    next.store(open.len(), Ordering::Relaxed);
                    if let Ok(mut failure) = failure.lock() {
                        failure.get_or_insert(error);
                    }
                }
            }
        };
        scope(|scope| {
            for _ in 1..concurrency.clamp(1, open.len().max(1)) {
                // With fewer threads it takes longer, no more.
                let _ = Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        failure.into_inner().ok().flatten().map_or(Ok(()), Err)
    }

    /// Opens a blob for reading, as it is.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        use crate::store::IoContext as _;
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing { digest: digest.clone() })
            }
            Err(error) => Err(error).context("open", &path),
        }
    }
}
