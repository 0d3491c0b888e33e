//! One HTTP exchange, no more: no redirect, no retry, no authorisation. The only place that knows the HTTP crates.
//!
//! ```text
//!  caller's thread                          the driver's thread (tokio, one thread)
//!  Http::send ── task ────────────────────▶ Client (pool) ── Connector ── proxy? ── TCP ── TLS? ── HTTP/1.1 or 2
//!      ▲  chunks of the body ─────────────▶ Upload
//!      '── head of the answer ─────────────'
//!  ResponseBody ◀── Pipe: frames as they were read from the socket, at most `PIPE` bytes ──'
//! ```
//!
//! HTTP/2 needs somebody who reads the connection whoever waits for it, so there is one thread that does, started with
//! the first request and ended with the [`Http`]. Nothing asynchronous leaves this folder: callers block, from as
//! many threads as they like. What a slow caller has not taken stays in the kernel, not in memory.

mod body;
mod certificates;
mod connect;
mod driver;
mod pipe;
mod proxy;
mod tls;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::Duration;

pub(crate) use self::certificates::CertificateDirectories;
use self::driver::Driver;
pub(crate) use self::pipe::ResponseBody;
use super::url::Url;

/// Longest silence of a connection before it counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for name, connection, proxy and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time from the whole request to the head of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

/// What goes with a request.
pub(crate) enum Body<'a> {
    Empty,
    Bytes(&'a [u8]),
    /// Exactly so many bytes of a stream.
    Reader(&'a mut (dyn Read + Send), u64),
}

/// One request.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a [(&'static str, String)],
    /// Whether the server's certificate must be valid.
    pub(crate) verify: bool,
    /// Refuses to connect to loopback and link-local addresses, also when a name leads there.
    pub(crate) outward_only: bool,
}

/// An answer whose body is still to be read.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: ResponseBody,
}

impl Response {
    /// The first header of this (lower-case) name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// No answer.
#[derive(Debug)]
pub(crate) struct TransportError {
    pub(crate) failure: Failure,
    pub(crate) source: io::Error,
}

impl TransportError {
    fn new(failure: Failure, kind: io::ErrorKind, text: impl Into<String>) -> TransportError {
        TransportError { failure, source: io::Error::new(kind, text.into()) }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// The connector hands it through the HTTP crate as one of these.
impl std::error::Error for TransportError {}

/// What sort of no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listens there.
    Refused,
    /// The name has no address.
    Unresolved,
    /// The other side does not speak TLS, or has no valid certificate; the address is not allowed; or the settings
    /// for this host are wrong.
    Fatal,
    /// Anything that may be better next time.
    Passing,
}

/// Does one exchange, from any thread.
pub(crate) trait Transport: Sync {
    /// Sends a request and reads the head of the answer, whatever its status.
    fn send(&self, request: &Request<'_>, body: Body<'_>) -> Result<Response, TransportError>;
}

/// HTTP/1.1 and HTTP/2 by the crate `hyper`, TLS by `rustls`. Connections are kept and used again.
pub(crate) struct Http {
    /// Started with the first request; a failure to start is kept too.
    driver: OnceLock<Result<Driver, String>>,
    certificates: CertificateDirectories,
    read_timeout: Duration,
}

impl Default for Http {
    fn default() -> Http {
        Http::new(READ_TIMEOUT)
    }
}

impl Http {
    /// With this longest silence of a connection.
    pub(crate) fn new(read_timeout: Duration) -> Http {
        Http { driver: OnceLock::new(), certificates: CertificateDirectories::of_user(), read_timeout }
    }

    fn driver(&self) -> Result<&Driver, TransportError> {
        let start = || {
            Driver::start(self.certificates.clone(), self.read_timeout)
                .map_err(|error| format!("cannot start the thread for the network: {error}"))
        };
        self.driver
            .get_or_init(start)
            .as_ref()
            .map_err(|text| TransportError::new(Failure::Fatal, io::ErrorKind::Other, text.clone()))
    }
}

impl Transport for Http {
    fn send(&self, request: &Request<'_>, body: Body<'_>) -> Result<Response, TransportError> {
        self.driver()?.send(request, body)
    }
}

/// The innermost cause that there are words for, with the kind of the innermost error of the system.
fn cause_of(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut innermost = error;
    let mut kind = error.downcast_ref().map_or(io::ErrorKind::Other, io::Error::kind);
    while let Some(cause) = innermost.source() {
        innermost = cause;
        kind = cause.downcast_ref().map_or(kind, io::Error::kind);
    }
    io::Error::new(kind, innermost.to_string())
}
