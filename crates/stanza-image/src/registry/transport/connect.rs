//! From a URL to a stream: name, address, proxy, TLS.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::proxy::Proxies;
use super::tls::TlsSettings;
use super::{CONNECT_TIMEOUT, Failure, TransportError, cause_of};
use crate::registry::url::is_inward_address;

/// `rustls` reads 4 KiB at a time; this makes one system call of many.
const TLS_BUFFER: usize = 64 * 1024;
/// RFC 1928, 3.
const SOCKS_PORT: u16 = 1080;

type Pending<T> = Pin<Box<dyn Future<Output = Result<T, TransportError>> + Send>>;

/// Makes connections of one kind.
#[derive(Clone)]
pub(super) struct Connector {
    dial: Dial,
    /// To proxies: they may well be on this machine.
    dial_proxy: Dial,
    tls: Option<Arc<ClientConfig>>,
    settings: Arc<TlsSettings>,
    proxies: Proxies,
}

impl Connector {
    /// `tls` is for the registry, `settings` for a proxy that speaks TLS itself.
    pub(super) fn new(
        tls: Option<Arc<ClientConfig>>,
        settings: Arc<TlsSettings>,
        outward_only: bool,
        proxies: Proxies,
    ) -> Connector {
        Connector { dial: Dial::new(outward_only), dial_proxy: Dial::new(false), tls, settings, proxies }
    }

    async fn connect(mut self, target: Uri) -> Result<Stream, TransportError> {
        let secure = target.scheme_str() == Some("https");
        let intercept = self.proxies.intercept(&target);
        let proxied = intercept.is_some() && !secure;
        let socket = match intercept {
            None => self.dial.call(target.clone()).await?,
            Some(proxy) => {
                if proxy.uri().scheme_str() == Some("https") {
                    self.dial_proxy.tls = Some(self.settings.for_proxy()?);
                }
                through_proxy(&proxy, self.dial_proxy, target.clone(), secure).await.map_err(|error| {
                    let place = proxy.uri().authority().map_or("", |authority| authority.as_str());
                    let text = format!("proxy `{place}`: {error}");
                    TransportError::new(error.failure, error.source.kind(), text)
                })?
            }
        };
        match self.tls {
            Some(config) if secure => {
                let (socket, http2) = secured(config, &target, socket.into_inner()).await?;
                Ok(Stream { socket, http2, proxied: false })
            }
            _ => Ok(Stream { socket, http2: false, proxied }),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = TransportError;
    type Future = Pending<Stream>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Pending<Stream> {
        let connecting = self.clone().connect(target);
        Box::pin(async move {
            tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| {
                let text = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
                Err(TransportError::new(Failure::Passing, io::ErrorKind::TimedOut, text))
            })
        })
    }
}

/// A connection to the proxy, or through it to the target when that is https or the proxy speaks SOCKS.
async fn through_proxy(
    proxy: &Intercept,
    dial: Dial,
    target: Uri,
    secure: bool,
) -> Result<Socket, TransportError> {
    let scheme = proxy.uri().scheme_str().unwrap_or("http");
    let mut dial = dial;
    match scheme {
        "http" | "https" if secure => {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), dial);
            if let Some(value) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(value.clone());
            }
            tunnel.call(target).await.map_err(|error| network(&error))
        }
        "http" | "https" => dial.call(proxy.uri().clone()).await,
        "socks4" | "socks4a" => SocksV4::new(with_socks_port(proxy.uri()), dial)
            .local_dns(scheme == "socks4")
            .call(target)
            .await
            .map_err(|error| network(&error)),
        _ => {
            let mut socks = SocksV5::new(with_socks_port(proxy.uri()), dial).local_dns(scheme == "socks5");
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            socks.call(target).await.map_err(|error| network(&error))
        }
    }
}

fn with_socks_port(proxy: &Uri) -> Uri {
    let host = proxy.host().unwrap_or_default();
    match proxy.port_u16() {
        Some(_) => proxy.clone(),
        None => format!("http://{host}:{SOCKS_PORT}/").parse().unwrap_or_else(|_| proxy.clone()),
    }
}

async fn secured(
    config: Arc<ClientConfig>,
    target: &Uri,
    socket: Box<dyn Raw>,
) -> Result<(Socket, bool), TransportError> {
    let host = target.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        let text = format!("`{host}` is no name that a certificate could have");
        TransportError::new(Failure::Fatal, io::ErrorKind::InvalidInput, text)
    })?;
    let stream = TlsConnector::from(config)
        .connect(name, BufReader::with_capacity(TLS_BUFFER, socket))
        .await
        .map_err(|error| network(&error))?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((TokioIo::new(Box::new(stream)), http2))
}

/// What an error of the network means.
pub(super) fn network(error: &(dyn Error + 'static)) -> TransportError {
    let mut next = Some(error);
    let mut failure = Failure::Passing;
    while let Some(cause) = next {
        if let Some(own) = cause.downcast_ref::<TransportError>() {
            let source = io::Error::new(own.source.kind(), own.source.to_string());
            return TransportError { failure: own.failure, source };
        }
        if cause.is::<rustls::Error>() {
            failure = Failure::Fatal;
        }
        next = match cause.downcast_ref::<io::Error>() {
            Some(io) => {
                match io.kind() {
                    io::ErrorKind::ConnectionRefused => failure = Failure::Refused,
                    // What rustls makes of an answer that is not TLS.
                    io::ErrorKind::InvalidData => failure = Failure::Fatal,
                    _ => {}
                }
                io.get_ref().map(|inner| inner as &(dyn Error + 'static))
            }
            None => cause.source(),
        };
    }
    TransportError { failure, source: cause_of(error) }
}

/// What carries bytes.
pub(super) trait Raw: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Raw for T {}

type Socket = TokioIo<Box<dyn Raw>>;

/// Connects to a host.
#[derive(Clone)]
struct Dial {
    http: HttpConnector<Resolver>,
    outward_only: bool,
    /// For https; without it the connection is plain, and its user's concern.
    tls: Option<Arc<ClientConfig>>,
}

impl Dial {
    fn new(outward_only: bool) -> Dial {
        let mut http = HttpConnector::new_with_resolver(Resolver { outward_only });
        http.enforce_http(false);
        http.set_nodelay(true);
        // Shared among the addresses of a name.
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Dial { http, outward_only, tls: None }
    }
}

impl Service<Uri> for Dial {
    type Response = Socket;
    type Error = TransportError;
    type Future = Pending<Socket>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Pending<Socket> {
        let Dial { mut http, outward_only, tls } = self.clone();
        Box::pin(async move {
            let host = target.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            // An address is not resolved, so that nobody looks at it there.
            if let (true, Ok(address)) = (outward_only, host.parse::<IpAddr>()) {
                check_outward(address)?;
            }
            let stream = http.call(target.clone()).await.map_err(|error| network(&error))?;
            let stream: Box<dyn Raw> = Box::new(stream.into_inner());
            match tls {
                Some(config) if target.scheme_str() == Some("https") => {
                    secured(config, &target, stream).await.map(|(socket, _)| socket)
                }
                _ => Ok(TokioIo::new(stream)),
            }
        })
    }
}

/// Resolves names, and, for where a registry sent us, refuses those that lead to this machine or its link.
#[derive(Clone)]
struct Resolver {
    outward_only: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = TransportError;
    type Future = Pending<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let outward_only = self.outward_only;
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map_err(|source| TransportError { failure: Failure::Unresolved, source })?;
            let addresses: Vec<SocketAddr> = addresses.collect();
            if outward_only {
                addresses.iter().try_for_each(|address| check_outward(address.ip()))?;
            }
            Ok(addresses.into_iter())
        })
    }
}

fn check_outward(address: IpAddr) -> Result<(), TransportError> {
    if !is_inward_address(address) {
        return Ok(());
    }
    let text = "the name leads to a loopback or link-local address, where no redirect may go";
    Err(TransportError::new(Failure::Fatal, io::ErrorKind::PermissionDenied, text))
}

/// A connection, ready for HTTP.
pub(super) struct Stream {
    socket: Socket,
    http2: bool,
    /// Requests name the whole URL.
    proxied: bool,
}

/// A server may answer before it has read all, and close. Writing fails then while the answer waits to be read: so the end is
/// left to the reading side, which the kernel wakes for it, and which is polled by the same task.
fn until_read<T>(written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    match written {
        Poll::Ready(Err(error))
            if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
        {
            Poll::Pending
        }
        other => other,
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.proxied);
        if self.http2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        until_read(Pin::new(&mut self.socket).poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        until_read(Pin::new(&mut self.socket).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        until_read(Pin::new(&mut self.socket).poll_write_vectored(context, slices))
    }
}
