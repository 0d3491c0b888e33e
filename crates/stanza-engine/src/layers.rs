//! The layer store as the place where layers go while they come in.

use std::io::BufRead;

use stanza_image::{LayerSink, SinkError};
use stanza_snapshot::LayerStore;
use stanza_spec::Digest;

/// Unpacks into the engine's layer store.
#[derive(Debug)]
pub(crate) struct Unpacking<'a>(pub(crate) &'a LayerStore);

impl LayerSink for Unpacking<'_> {
    fn contains(&self, diff_id: &Digest) -> bool {
        self.0.is_usable(diff_id)
    }

    fn unpack(&self, diff_id: &Digest, tar: &mut dyn BufRead) -> Result<(), SinkError> {
        self.0.apply(diff_id, tar).map(drop).map_err(SinkError::new)
    }

    fn stack(&self, layers: &[Digest]) -> Result<(), SinkError> {
        self.0.with_links(layers).map(drop).map_err(SinkError::new)
    }
}
