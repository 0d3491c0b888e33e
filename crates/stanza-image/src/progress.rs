//! What a caller may show while an image comes in or goes out.

use std::time::Duration;

use stanza_spec::{Digest, Platform, Reference};

/// Takes the events of a pull, push or load; called on the caller's thread, up to a few hundred times per second.
pub trait Progress {
    /// One step forward.
    fn event(&mut self, event: ProgressEvent<'_>);
}

/// A step of a pull, push or load. Sizes are bytes as stored (compressed).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressEvent<'a> {
    /// The reference means this digest (of an index or a manifest) at the registry.
    Resolved {
        /// The digest that the registry's document has.
        digest: &'a Digest,
    },
    /// The image is made for another platform than asked for, and there is no choice.
    PlatformDiffers {
        /// The platform in the image's configuration.
        found: &'a Platform,
        /// The platform asked for.
        wanted: &'a Platform,
    },
    /// The layer is in the store already.
    LayerExists {
        /// The layer's blob.
        digest: &'a Digest,
        /// Its size.
        size: u64,
    },
    /// The layer will be brought.
    LayerPending {
        /// The layer's blob.
        digest: &'a Digest,
        /// Its size.
        size: u64,
    },
    /// Another process brings the layer: this one waits for it.
    LayerWaiting {
        /// The layer's blob.
        digest: &'a Digest,
    },
    /// The layer's download begins.
    LayerStarted {
        /// The layer's blob.
        digest: &'a Digest,
        /// Its size.
        size: u64,
    },
    /// So much of the layer is here; falls back to zero when a download has to start over.
    LayerBytes {
        /// The layer's blob.
        digest: &'a Digest,
        /// Bytes received, out of `size`.
        done: u64,
        /// Its size.
        size: u64,
    },
    /// The layer is whole, verified, stored and unpacked.
    LayerDone {
        /// The layer's blob.
        digest: &'a Digest,
        /// Its size.
        size: u64,
    },
    /// The registry has the layer already.
    LayerPresent {
        /// The layer's blob.
        digest: &'a Digest,
        /// Its size.
        size: u64,
    },
    /// The registry took the layer over from another of its repositories.
    LayerMounted {
        /// The layer's blob.
        digest: &'a Digest,
        /// Its size.
        size: u64,
        /// The other repository.
        from: &'a str,
    },
    /// So much of the layer is on its way to the registry; falls back when something has to be sent again.
    LayerSending {
        /// The layer's blob.
        digest: &'a Digest,
        /// Bytes sent, out of `size`.
        done: u64,
        /// Its size.
        size: u64,
    },
    /// The registry has taken the layer.
    LayerSent {
        /// The layer's blob.
        digest: &'a Digest,
        /// Its size.
        size: u64,
    },
    /// The registry has the image under its name.
    Pushed {
        /// The name.
        name: &'a Reference,
        /// The digest of its manifest or index.
        digest: &'a Digest,
        /// The size of this document.
        size: u64,
    },
    /// Something failed that another try may mend.
    Retrying {
        /// Which try comes next: 2 for the first repetition.
        attempt: u32,
        /// How long the pause is.
        delay: Duration,
    },
    /// The image is in the store under its name.
    Complete {
        /// The image's id.
        image: &'a Digest,
        /// `false` when the name meant this very image before.
        changed: bool,
    },
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _event: ProgressEvent<'_>) {}
}
