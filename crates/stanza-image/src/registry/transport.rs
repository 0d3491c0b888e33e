//! One HTTP exchange, no more: no redirect, no retry, no authorisation. The only place that knows the HTTP crate.

use std::fmt;
use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error, SendBody, http};

use super::url::{Url, is_inward_address};

const READ_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where distributions keep the certificates of authorities, all in one file.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

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
    pub(crate) body: Box<dyn Read + Send>,
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

/// What sort of no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listens there.
    Refused,
    /// The name has no address.
    Unresolved,
    /// The other side does not speak TLS, or has no valid certificate; or the address is not allowed.
    Fatal,
    /// Anything that may be better next time.
    Passing,
}

/// Does one exchange.
pub(crate) trait Transport: Sync {
    /// Sends a request and reads the head of the answer, whatever its status.
    fn send(&self, request: &Request<'_>, body: Body<'_>) -> Result<Response, TransportError>;
}

/// HTTP/1.1 by the crate `ureq`, TLS by `rustls`. Connections are kept and used again.
pub(crate) struct Http {
    /// By [`slot`]; made when first needed, because reading the certificates takes time.
    agents: [OnceLock<Agent>; 8],
    /// Longest silence of a connection before it counts as broken.
    read_timeout: Duration,
}

impl Default for Http {
    fn default() -> Http {
        Http::new(READ_TIMEOUT)
    }
}

fn slot(secure: bool, verify: bool, outward_only: bool) -> usize {
    usize::from(secure) | usize::from(verify) << 1 | usize::from(outward_only) << 2
}

impl Http {
    /// With this longest silence of a connection.
    pub(crate) fn new(read_timeout: Duration) -> Http {
        Http { agents: Default::default(), read_timeout }
    }

    fn agent(&self, request: &Request<'_>) -> &Agent {
        let secure = request.url.secure;
        self.agents[slot(secure, request.verify, request.outward_only)].get_or_init(|| {
            let mut builder = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("stanza/", env!("CARGO_PKG_VERSION")))
                .accept_encoding("identity")
                .timeout_per_read(Some(self.read_timeout))
                .timeout_per_write(Some(self.read_timeout))
                .timeout_resolve(Some(CONNECT_TIMEOUT))
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .timeout_recv_response(Some(ANSWER_TIMEOUT));
            if request.url.is_loopback() {
                builder = builder.proxy(None);
            }
            if secure {
                let tls = TlsConfig::builder().disable_verification(!request.verify);
                builder = builder.tls_config(match system_roots() {
                    Some(roots) if request.verify => tls.root_certs(roots).build(),
                    // Without a bundle on the system, Mozilla's authorities that the crate brings.
                    _ => tls.build(),
                });
            }
            let config = builder.build();
            if request.outward_only {
                Agent::with_parts(config, DefaultConnector::default(), OutwardResolver::default())
            } else {
                Agent::new_with_config(config)
            }
        })
    }
}

impl Transport for Http {
    fn send(&self, request: &Request<'_>, body: Body<'_>) -> Result<Response, TransportError> {
        let method = match request.method {
            Method::Get => http::Method::GET,
            Method::Head => http::Method::HEAD,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::Patch => http::Method::PATCH,
            Method::Delete => http::Method::DELETE,
        };
        let mut builder = http::Request::builder().method(method).uri(request.url.to_string());
        for (name, value) in request.headers {
            builder = builder.header(*name, value);
        }
        let agent = self.agent(request);
        let invalid = |error: http::Error| classify(error.into());
        let result = match body {
            // With a length of zero: servers do not all take an empty body without one.
            Body::Empty if matches!(request.method, Method::Post | Method::Put | Method::Patch) => {
                agent.run(builder.body(&[][..]).map_err(invalid)?)
            }
            Body::Empty => agent.run(builder.body(()).map_err(invalid)?),
            Body::Bytes(bytes) => agent.run(builder.body(bytes).map_err(invalid)?),
            Body::Reader(reader, length) => {
                builder = builder.header("content-length", length);
                let mut exactly = reader.take(length);
                agent.run(builder.body(SendBody::from_reader(&mut exactly)).map_err(invalid)?)
            }
        };
        let response = result.map_err(classify)?;
        let headers = response
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let status = response.status().as_u16();
        let body = Box::new(response.into_body().into_with_config().limit(u64::MAX).reader());
        Ok(Response { status, headers, body })
    }
}

fn classify(error: Error) -> TransportError {
    let failure = match &error {
        Error::HostNotFound => Failure::Unresolved,
        // The standard library has no kind for a failing `getaddrinfo`.
        Error::Io(source) if source.to_string().contains("lookup address") => Failure::Unresolved,
        Error::Io(source) => match source.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            // rustls speaks of bad certificates and of servers without TLS so.
            io::ErrorKind::InvalidData | io::ErrorKind::PermissionDenied => Failure::Fatal,
            _ => Failure::Passing,
        },
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) | Error::BadUri(_) | Error::Http(_) => {
            Failure::Fatal
        }
        _ => Failure::Passing,
    };
    TransportError { failure, source: error.into_io() }
}

/// The authorities that the system trusts, when it has a list.
fn system_roots() -> Option<RootCerts> {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let usual = BUNDLES.iter().map(std::path::PathBuf::from);
    let bytes = named.into_iter().chain(usual).find_map(|path| std::fs::read(path).ok())?;
    let roots: Vec<Certificate<'static>> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!roots.is_empty()).then(|| roots.into())
}

/// Resolves names, and refuses those that lead to this machine or its link.
#[derive(Default)]
struct OutwardResolver(DefaultResolver);

impl fmt::Debug for OutwardResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutwardResolver")
    }
}

impl Resolver for OutwardResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let addresses = self.0.resolve(uri, config, timeout)?;
        if addresses.iter().any(|address| is_inward_address(address.ip())) {
            return Err(Error::Io(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the name leads to a loopback or link-local address, where no redirect may go",
            )));
        }
        Ok(addresses)
    }
}
