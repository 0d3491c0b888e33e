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
        self.0.contains(diff_id)
    }

    fn unpack(&self, diff_id: &Digest, tar: &mut dyn BufRead) -> Result<(), SinkError> {
        self.0.apply(diff_id, &[], tar).map(drop).map_err(SinkError::new)
    }

    fn stack(&self, _layers: &[Digest]) -> Result<(), SinkError> {
        // Each layer stands alone: a hard link into a lower one was refused when it was unpacked.
        Ok(())
    }
}
