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
mod login;
mod registries;
mod retry;
mod setup;
mod source;
mod token;
mod transport;
mod url;

pub(crate) use client::Blob;
pub(crate) use credentials::CredentialFiles;
pub use error::RegistryError;
pub use login::{
    LoggedIn, LoggedOut, LoginError, LoginOptions, Place, login, logout, logout_all, stored_login,
};
pub use registries::{Endpoint, RegistriesConfig, expand_alias};
pub(crate) use retry::RetryPolicy;
pub use setup::SetupError;
pub(crate) use source::Source;
pub(crate) use transport::{Http, Transport};
