//! The distribution protocol: one repository on one registry, a file for each sort of verb.
//!
//! ```text
//! Registry::ask ── candidates (http, https) ── retry ── authorise ── redirects ── Transport (hyper)
//! ```
//!
//! * Schemes: a loopback registry is asked over plain http first, and over https when it does not speak http there;
//!   any other one over https only, or, with `tls_verify` off, over https without verification and then http.
//! * Credentials go to the registry itself and to the token realm it names, never to where a redirect leads.
//! * Every loop has a bound: redirects, repetitions, rounds of authorisation, bytes of every answer.

mod authorise;
mod blobs;
mod challenge;
mod client;
mod credentials;
mod error;
mod links;
mod login;
mod manifests;
mod referrers;
mod registries;
mod retry;
mod setup;
mod source;
mod tags;
#[cfg(test)]
pub(crate) mod testing;
mod token;
mod transport;
mod uploads;
mod url;

pub(crate) use blobs::Blob;
pub(crate) use client::Registry;
pub(crate) use credentials::CredentialFiles;
pub use error::RegistryError;
pub use login::{
    LoggedIn, LoggedOut, LoginError, LoginOptions, Place, login, logout, logout_all, stored_login,
};
pub(crate) use manifests::{OutgoingDocument, RawDocument};
pub use referrers::Referrer;
pub use registries::{Endpoint, RegistriesConfig, expand_alias};
pub(crate) use retry::RetryPolicy;
pub use setup::SetupError;
pub(crate) use source::Source;
pub(crate) use transport::{Body, Http, Method, Request, Transport};
pub(crate) use uploads::{Mount, OutgoingBlob};
pub(crate) use url::Url;

#[cfg(test)]
mod tests;
