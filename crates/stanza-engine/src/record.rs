//! What was found out about a container when it was created, kept beside what was asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stanza_spec::Digest;

/// The answers that a start needs, so that it asks no image store: an image may be retagged or removed meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Facts {
    /// The image's id; `None` for the reserved image `host`.
    pub(crate) image: Option<Digest>,
    /// Diff ids of the image's layers, the lowest first.
    pub(crate) layers: Vec<Digest>,
    /// Entry point and command.
    pub(crate) argv: Vec<String>,
    /// The environment without `HOSTNAME`, `HOME` and `TERM`.
    pub(crate) env: Vec<String>,
    /// The working directory.
    pub(crate) workdir: String,
    /// `user[:group]`; empty is root.
    pub(crate) user: String,
    /// The image's labels with the user's over them.
    pub(crate) labels: BTreeMap<String, String>,
    /// Ports that the image names, as `80/tcp`.
    pub(crate) exposed: Vec<String>,
    /// The signal that asks the container to stop.
    pub(crate) stop_signal: i32,
    /// Volumes, named, anonymous and the image's own.
    pub(crate) volumes: Vec<VolumeUse>,
    /// Its root file system is a copy of the layers in place of an overlay.
    pub(crate) copied: bool,
    /// The first id of this container's range in the machine, with `--userns private`.
    pub(crate) id_base: Option<u32>,
}

/// One volume in one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeUse {
    /// The volume's name.
    pub(crate) name: String,
    /// Absolute path in the container.
    pub(crate) destination: String,
    /// No writes through it.
    pub(crate) read_only: bool,
    /// Made for this container, removed with it.
    pub(crate) anonymous: bool,
    /// Not filled from the image.
    pub(crate) no_copy: bool,
}
