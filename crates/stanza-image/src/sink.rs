//! Where layers go while they come in: the floor above joins the image store with the layer store.

use std::error::Error;
use std::fmt;
use std::io::BufRead;

use stanza_spec::{Classify, Digest, ErrorKind};

/// Takes layers as they come in; called by several threads at once.
pub trait LayerSink: Sync {
    /// Whether the layer is unpacked already.
    fn contains(&self, diff_id: &Digest) -> bool;

    /// Unpacks a layer from its uncompressed tar stream, which must be the one that `diff_id` names.
    ///
    /// # Errors
    /// When the stream fails, is not that layer, or cannot be unpacked. Nothing of it is left then.
    fn unpack(&self, diff_id: &Digest, tar: &mut dyn BufRead) -> Result<(), SinkError>;

    /// Does what needs all layers of an image, `layers` lowest first, now that all are unpacked.
    ///
    /// # Errors
    /// When they do not fit together. The image is not taken then.
    fn stack(&self, layers: &[Digest]) -> Result<(), SinkError>;
}

/// Why a layer was not unpacked: the layer store's own error, with its kind and hint.
pub struct SinkError {
    kind: ErrorKind,
    hint: Option<String>,
    source: Box<dyn Error + Send + Sync>,
}

impl SinkError {
    /// Wraps the layer store's error.
    pub fn new<E: Classify + Error + Send + Sync + 'static>(error: E) -> SinkError {
        SinkError { kind: error.kind(), hint: error.hint(), source: Box::new(error) }
    }
}

impl fmt::Debug for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl Error for SinkError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}

impl Classify for SinkError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
