//! `cp`: files between this machine, containers, and a stream.
//!
//! ```text
//!   plan.rs    what is copied under which name into which directory: Docker's rules, from what both paths are
//!   side.rs    this machine, or a process among a container's files: stat, pack, unpack
//! ```
//!
//! A container that runs is seen with all that is mounted in it; one that does not, with its volumes and bind mounts. What
//! comes out of a container is not trusted: see [`stanza_snapshot::Bounds`].

mod error;
mod plan;
mod side;

use std::io::{Read, Write};

use stanza_snapshot::{Bounds, Found, Ownership, UnpackOptions, Unpacked};
use stanza_spec::ContainerId;

pub use error::CopyError;

use self::plan::Placement;
use self::side::{Side, Visits};
use crate::Engine;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// A path of this machine, absolute, not otherwise changed: what it ends in counts.
    Host(String),
    /// A path in a container.
    Container {
        /// The container.
        id: ContainerId,
        /// What the user calls it.
        name: String,
        /// The path, as it was given.
        path: String,
    },
    /// An archive, on the stream that is given; one that comes in may be compressed with gzip or zstd.
    Stream,
}

/// How to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Copy what a link at the end of the source leads to.
    pub follow_link: bool,
    /// Owners stay as they are, and devices are copied out.
    pub archive: bool,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of files.
    pub bytes: u64,
    /// Devices that were left out.
    pub skipped_devices: u64,
}

impl Engine {
    /// Copies from one end to the other. `input` and `output` are the streams of [`CopyEnd::Stream`].
    ///
    /// The caller must be single-threaded. Without root this process may be in a user namespace afterwards.
    ///
    /// # Errors
    /// When an end is not there or not what it must be, or when something cannot be read or written. What was copied before
    /// that stays.
    pub fn copy(
        &mut self,
        from: &CopyEnd,
        to: &CopyEnd,
        options: CopyOptions,
        input: &mut dyn Read,
        output: &mut dyn Write,
    ) -> Result<Copied, CopyError> {
        if matches!((from, to), (CopyEnd::Host(_) | CopyEnd::Stream, CopyEnd::Host(_) | CopyEnd::Stream)) {
            return Err(CopyError::NoContainer);
        }
        if let (CopyEnd::Container { id, path, .. }, CopyEnd::Container { id: other, path: target, .. }) =
            (from, to)
            && id == other
            && plan::is_within(target, path)
        {
            return Err(CopyError::IntoItself);
        }
        let visits = Visits::of(self, &[from, to])?;
        let target = visits.side(to)?;
        let source = visits.side(from)?;
        match (source, target) {
            (Some((source, from)), None) => {
                let (path, _, name) = plan::source(&source, from, options.follow_link)?;
                source.pack_to(&path, &name, output)
            }
            (None, Some((target, to))) => {
                let to = plan::follow(&target, to)?;
                if to.found != Some(Found::Directory) {
                    return Err(CopyError::StreamTarget(target.show(&to.asked)));
                }
                let mut input = stanza_image::decompress(input)
                    .map_err(|source| CopyError::Prepare { action: "read the archive", source })?;
                let options = into_container(Ownership::Archive, self);
                let unpacked = target.unpack_from(&to.path, &options, &mut input)?;
                Ok(copied(unpacked))
            }
            (Some((source, from)), Some((target, to))) => {
                let (path, found, name) = plan::source(&source, from, options.follow_link)?;
                let to = plan::target(&target, to)?;
                let placement = plan::place(&target, found == Found::Directory, name, &to)?;
                let unpack = match &target {
                    Side::Container { .. } => {
                        let owner = if options.archive { Ownership::Archive } else { Ownership::Root };
                        into_container(owner, self)
                    }
                    // What a container gives away may be anything.
                    Side::Host(_) => {
                        let keeps = options.archive && rustix::process::geteuid().is_root();
                        UnpackOptions {
                            bounds: Bounds::Below,
                            ownership: if keeps { Ownership::Archive } else { Ownership::Caller },
                            devices: keeps && !self.options.rootless,
                        }
                    }
                };
                let Placement { directory, name } = placement;
                let spool = &self.options.root;
                side::transfer(&source, &path, &name, &target, &directory, &unpack, spool).map(copied)
            }
            (None, None) => Err(CopyError::NoContainer),
        }
    }
}

fn copied(unpacked: Unpacked) -> Copied {
    Copied { bytes: unpacked.bytes, skipped_devices: unpacked.skipped_devices }
}

/// The caller may do to a container what it likes, and a path means there what it means to its programs.
fn into_container(ownership: Ownership, engine: &Engine) -> UnpackOptions {
    UnpackOptions { bounds: Bounds::Root, ownership, devices: !engine.options.rootless }
}
