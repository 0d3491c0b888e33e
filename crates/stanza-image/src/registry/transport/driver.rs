//! The thread that drives connections, and the hand-over of one request to it.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::body::{CREDIT, Chunks, Upload, read_chunk};
use super::certificates::CertificateDirectories;
use super::connect::{Connector, network};
use super::pipe::{PipeWriter, pipe};
use super::proxy::Proxies;
use super::tls::TlsSettings;
use super::{ANSWER_TIMEOUT, Body, Failure, Method, Request, Response, TransportError, cause_of};

/// What one read from a plain connection brings at most: fewer turns of both threads for the same bytes.
const READ_BUFFER: usize = 512 * 1024;
/// What a server may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 12 * 1024 * 1024;
/// Longest frame that a server may send: fewer of them for the same bytes.
const MAX_FRAME: u32 = 256 * 1024;

/// How often a server that others still wait for is asked whether it is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);

/// What the driver tells the thread that waits for an answer.
pub(super) enum Event {
    /// A chunk of the request's body is on its way.
    Taken,
    /// The head of the answer.
    Answer(Result<Response, TransportError>),
}

/// What must be equal for two requests to share a connection, beside the host.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    secure: bool,
    verify: bool,
    outward_only: bool,
    /// Loopback never goes through a proxy.
    direct: bool,
    /// The host with port, when it has a directory with certificates of its own.
    own_certificates: Option<String>,
}

/// The thread, and the clients that live on it.
pub(super) struct Driver {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    clients: Mutex<HashMap<Kind, Client<Connector, Upload>>>,
    tls: Arc<TlsSettings>,
    proxies: Proxies,
    read_timeout: Duration,
}

impl Driver {
    pub(super) fn start(certificates: CertificateDirectories, read_timeout: Duration) -> io::Result<Driver> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("registry".to_owned()).spawn(move || {
            // Told to stop, or its owner is gone: the same.
            let _ = runtime.block_on(stopped);
            // A name that is still being looked up may take its time without us.
            runtime.shutdown_background();
        })?;
        Ok(Driver {
            handle,
            stop: Some(stop),
            thread: Some(thread),
            clients: Mutex::default(),
            tls: Arc::new(TlsSettings::new(certificates)),
            proxies: Proxies::of_environment(),
            read_timeout,
        })
    }

    /// One exchange; blocks until the head of the answer is there.
    pub(super) fn send(&self, request: &Request<'_>, body: Body<'_>) -> Result<Response, TransportError> {
        let client = self.client(request)?;
        let (events, answers) = mpsc::channel();
        let (upload, mut source) = match body {
            Body::Empty => (Upload::Whole(None), Source::None),
            Body::Bytes(bytes) => (Upload::Whole(Some(Bytes::copy_from_slice(bytes))), Source::None),
            Body::Reader(reader, length) => {
                let (sender, chunks) = tokio::sync::mpsc::unbounded_channel();
                let stream = Upload::Stream { chunks, events: events.clone(), left: length };
                (stream, Source::Reader { reader, left: length, chunks: sender })
            }
        };
        let message = self.message(request, upload)?;
        let read_timeout = self.read_timeout;
        let task = self.handle.spawn(async move {
            let answer = match client.request(message).await {
                Ok(answer) => Ok(received(answer, read_timeout)),
                Err(error) => Err(network(&error)),
            };
            // A caller that went away has no use for it.
            let _ = events.send(Event::Answer(answer));
        });
        let result = self.wait(&answers, &mut source);
        task.abort();
        result
    }

    /// Feeds the body and waits for the answer, which may come before all of the body is gone.
    fn wait(
        &self,
        answers: &mpsc::Receiver<Event>,
        source: &mut Source<'_>,
    ) -> Result<Response, TransportError> {
        let timed_out = |text: &str| TransportError::new(Failure::Passing, io::ErrorKind::TimedOut, text);
        let mut credit = CREDIT;
        let mut deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            while credit > 0 && source.feed()? {
                credit -= 1;
                deadline = Instant::now() + ANSWER_TIMEOUT;
            }
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Taken) => credit += 1,
                Ok(Event::Answer(Ok(mut response))) => {
                    response.body.upload = source.rest();
                    return Ok(response);
                }
                Ok(Event::Answer(Err(error))) => return Err(error),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(timed_out("no answer came in time"));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(timed_out("the thread for the network has ended"));
                }
            }
        }
    }

    /// The client for this kind of request.
    fn client(&self, request: &Request<'_>) -> Result<Client<Connector, Upload>, TransportError> {
        let url = request.url;
        let own_certificates = (url.secure && self.tls.has_own(url)).then(|| url.authority());
        let kind = Kind {
            secure: url.secure,
            verify: request.verify || !url.secure,
            outward_only: request.outward_only,
            direct: url.is_loopback(),
            own_certificates,
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        let tls = if url.secure { Some(self.tls.for_registry(url, request.verify)?) } else { None };
        let proxies = if kind.direct { Proxies::none() } else { self.proxies.clone() };
        let connector = Connector::new(tls, Arc::clone(&self.tls), request.outward_only, proxies);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(READ_BUFFER)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_frame_size(MAX_FRAME)
            // A connection that died without a word would be taken for every new try.
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PING)
            .build(connector);
        clients.insert(kind, client.clone());
        Ok(client)
    }

    fn message(
        &self,
        request: &Request<'_>,
        upload: Upload,
    ) -> Result<hyper::Request<Upload>, TransportError> {
        let invalid = |text: String| TransportError::new(Failure::Fatal, io::ErrorKind::InvalidInput, text);
        let method = match request.method {
            Method::Get => hyper::Method::GET,
            Method::Head => hyper::Method::HEAD,
            Method::Post => hyper::Method::POST,
            Method::Put => hyper::Method::PUT,
            Method::Patch => hyper::Method::PATCH,
            Method::Delete => hyper::Method::DELETE,
        };
        let uri: hyper::Uri = request
            .url
            .to_string()
            .parse()
            .map_err(|error| invalid(format!("`{}`: {error}", request.url)))?;
        let mut builder = hyper::Request::builder()
            .method(method)
            .header(USER_AGENT, concat!("stanza/", env!("CARGO_PKG_VERSION")))
            // Digests are of the bytes as they are.
            .header(ACCEPT_ENCODING, "identity");
        // RFC 9110, 8.6: a method that has a meaning for a body says so when there is none. Some registries answer 411.
        if let (Method::Post | Method::Put | Method::Patch, Upload::Whole(None)) = (request.method, &upload) {
            builder = builder.header(CONTENT_LENGTH, 0);
        }
        if let Upload::Stream { left, .. } = &upload {
            builder = builder.header(CONTENT_LENGTH, *left);
        }
        for (name, value) in request.headers {
            let mut value = HeaderValue::try_from(value.as_str())
                .map_err(|_| invalid(format!("the header `{name}` has characters that none may have")))?;
            // HTTP/2 keeps it out of its tables then.
            value.set_sensitive(*name == "authorization");
            builder = builder.header(*name, value);
        }
        // Plain requests are handed to the proxy itself; others go through a tunnel, which authorises by itself.
        if !request.url.secure
            && !request.url.is_loopback()
            && let Some(value) = self.proxies.authorization(&uri)
        {
            builder = builder.header(PROXY_AUTHORIZATION, value);
        }
        builder.uri(uri).body(upload).map_err(|error| invalid(error.to_string()))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Connections that end well do it on their runtime.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where the body of a request comes from, seen from its caller.
enum Source<'a> {
    None,
    Reader { reader: &'a mut (dyn Read + Send), left: u64, chunks: Chunks },
}

impl Source<'_> {
    /// Hands over one chunk; `false` when there is none left.
    fn feed(&mut self) -> Result<bool, TransportError> {
        let Source::Reader { reader, left, chunks } = self else { return Ok(false) };
        if *left == 0 {
            return Ok(false);
        }
        let chunk = read_chunk(*reader, *left)
            .map_err(|source| TransportError { failure: Failure::Fatal, source })?;
        *left -= u64::try_from(chunk.len()).unwrap_or(*left);
        // A request that ended has its answer on the way.
        Ok(chunks.send(chunk).is_ok())
    }

    /// The open end of a body that the server did not want whole.
    fn rest(&mut self) -> Option<Chunks> {
        match std::mem::replace(self, Source::None) {
            Source::Reader { left, chunks, .. } if left > 0 => Some(chunks),
            _ => None,
        }
    }
}

/// The head of an answer, and a task that passes on its body.
fn received(answer: hyper::Response<Incoming>, read_timeout: Duration) -> Response {
    let (head, incoming) = answer.into_parts();
    let headers = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let (writer, body) = pipe();
    if incoming.is_end_stream() {
        writer.end(Ok(()));
    } else {
        tokio::spawn(pass_on(incoming, writer, read_timeout));
    }
    Response { status: head.status.as_u16(), headers, body }
}

async fn pass_on(mut incoming: Incoming, writer: PipeWriter, read_timeout: Duration) {
    loop {
        let next = std::future::poll_fn(|context| std::pin::Pin::new(&mut incoming).poll_frame(context));
        let frame = match tokio::time::timeout(read_timeout, next).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return writer.end(Err(cause_of(&error))),
            Ok(None) => return writer.end(Ok(())),
            Err(_) => {
                let text = format!("nothing came for {} s", read_timeout.as_secs_f32());
                return writer.end(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
        };
        // Trailers say nothing that a digest does not.
        if let Ok(data) = frame.into_data()
            && !writer.push(data).await
        {
            return;
        }
    }
}
