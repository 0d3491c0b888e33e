//! The words that every floor of stanza shares: what a user asks for ([`ContainerConfig`]), names of things
//! ([`Reference`], [`Digest`], [`ContainerId`]), quantities ([`units`]), plans that travel between floors
//! ([`Rootfs`]) and the kinds of failure ([`ErrorKind`]).
//!
//! Plain data only: nothing here opens a file, calls the kernel or decides a policy. The OCI types are those of
//! the crate `oci-spec`, under [`oci`].

#![forbid(unsafe_code)]

mod config;
mod digest;
mod error;
mod id;
mod platform;
mod reference;
mod rootfs;
pub mod signal;
mod time;
pub mod units;

pub use config::{
    ContainerConfig, EndpointRequest, ExposedPort, ExtraHost, Isolation, LogConfig, LogDriver, MountKind,
    MountRequest, NamespaceMode, NetworkMode, PortRequest, Protocol, PullPolicy, Resources, SeccompChoice,
    Security, Ulimit, UsernsMode,
};
pub use digest::{Digest, DigestError};
pub use error::{Classify, ErrorKind, chain};
pub use id::{ContainerId, IdError, is_valid_container_name};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
pub use rootfs::{ErofsWay, Layer, OverlayLayers, Rootfs, RootfsPart};
pub use time::{Instant, TimeError};

/// The OCI runtime and image types, as the crate `oci-spec` gives them.
pub mod oci {
    pub use oci_spec::{image, runtime};
}
