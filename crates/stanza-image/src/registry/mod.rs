//! The distribution protocol, as far as pulling needs it.
//!
//! ```text
//! Registry::get ── candidates (http, https) ── retry ── authorise ── redirects ── Transport (hyper)
//! ```
//!
//! * Schemes: a loopback registry is asked over plain http first, and over https when it does not speak http there;
//!   any other one over https only, or, with `tls_verify` off, over https without verification and then http.
//! * Credentials go to the registry itself and to the token realm it names, never to where a redirect leads.
//! * Every loop has a bound: redirects, repetitions, rounds of authorisation, bytes of every answer.

mod challenge;
mod client;
mod credentials;
mod error;
mod retry;
mod token;
mod transport;
mod url;

pub(crate) use client::{Blob, Registry};
pub(crate) use credentials::CredentialFiles;
pub use error::RegistryError;
pub(crate) use retry::RetryPolicy;
pub(crate) use transport::{Http, Transport};
