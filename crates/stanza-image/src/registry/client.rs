//! One repository on one registry: exchanges with their schemes, redirects and repetitions. The verbs are beside it.
//!
//! A [`Registry`] may be used by many threads at once. They share what was learnt: the scheme, the credentials, the
//! tokens.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;
use stanza_spec::Reference;

use super::authorise::{Authorised, Keys};
use super::credentials::CredentialFiles;
use super::error::RegistryError;
use super::retry::{RetryPolicy, retry_after};
use super::transport::{Body, Failure, Method, Request, Response, Transport, TransportError};
use super::url::Url;

const MAX_REDIRECTS: u32 = 5;
/// One round to get a token, one to see it refused.
const MAX_AUTHORISATIONS: u32 = 2;
/// So much of an answer's body that nobody wants is read, so that its connection can be used again.
const MAX_REST: u64 = 64 * 1024;
/// Longest text of a registry that an error repeats, in characters.
const MAX_SAYS: usize = 300;

/// Called before every repetition: the number of the next try, and the pause before it.
pub(crate) type OnRetry<'a> = &'a mut dyn FnMut(u32, Duration);

/// One repository on one registry.
pub(crate) struct Registry<'a> {
    /// Host and port to connect to.
    pub(super) authority: String,
    /// The registry as users name it.
    pub(super) domain: String,
    pub(super) repository: String,
    has_port: bool,
    /// (https, verified), in the order to try.
    candidates: Vec<(bool, bool)>,
    candidate: AtomicUsize,
    /// Whether the registry ever answered: then failures are passing.
    answered: AtomicBool,
    transport: &'a dyn Transport,
    pub(super) retry: RetryPolicy,
    pub(super) files: &'a CredentialFiles,
    pub(super) keys: Keys,
    /// What ordinary requests do.
    pub(super) access: Access<'a>,
}

/// A request to the registry, whatever scheme, redirects and authorisation it takes.
pub(super) struct Ask<'r> {
    pub(super) method: Method,
    pub(super) target: Target<'r>,
    pub(super) headers: &'r [(&'static str, String)],
    pub(super) content: Content<'r>,
    /// What the request does to the repository: asked for in a token.
    pub(super) access: Access<'r>,
    /// The statuses of success.
    pub(super) success: &'r [u16],
    /// What is asked for, as errors name it.
    pub(super) what: &'r str,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub(super) enum Target<'r> {
    /// A path below the repository.
    Path(&'r str),
    /// Where the registry sent us. Credentials go there only when it is the registry itself.
    Location(&'r Url),
}

/// What a request does to the repository.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'r> {
    Pull,
    Push,
    /// Push here, and pull from another repository of the registry.
    Mount(&'r str),
    Delete,
}

/// What goes with a request; made anew for every try.
#[derive(Clone, Copy)]
pub(super) enum Content<'r> {
    Empty,
    Bytes(&'r [u8]),
    /// Goes to nobody but whom it is for, whatever redirects say.
    Secret(&'r [u8]),
    File(&'r FilePart<'r>),
}

/// A part of a file, sent as it is.
pub(crate) struct FilePart<'r> {
    pub(crate) file: &'r File,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Is told the position in the file up to which everything was handed on.
    pub(crate) on_sent: &'r (dyn Fn(u64) + Sync),
}

/// The answer of one exchange with all its redirects.
pub(super) struct Final {
    pub(super) response: Response,
    /// Who gave it.
    pub(super) url: Url,
}

/// An attempt without success.
pub(super) struct Trouble {
    pub(super) error: RegistryError,
    /// Whether another try may succeed.
    pub(super) passing: bool,
    /// The pause that the registry asks for.
    pub(super) wait: Option<Duration>,
}

impl From<RegistryError> for Trouble {
    fn from(error: RegistryError) -> Trouble {
        Trouble { error, passing: false, wait: None }
    }
}

impl Final {
    /// Where the answer's `Location` leads: checked like a redirect.
    pub(super) fn location(&self, registry: &Url) -> Option<Result<Url, RegistryError>> {
        let location = self.response.header("location")?;
        let next = self.url.join(location).and_then(|next| {
            self.url.check_redirect(&next, registry)?;
            Ok(next)
        });
        Some(next.map_err(|reason| refused_redirect(&self.url, location, reason)))
    }

    /// Reads what is left of a short answer.
    pub(super) fn finish(&mut self) {
        // Only for the connection's sake: a failure shows when it is used next.
        let _ = io::copy(&mut self.response.body.by_ref().take(MAX_REST), &mut io::sink());
    }
}

impl<'a> Registry<'a> {
    pub(crate) fn new(
        reference: &Reference,
        tls_verify: bool,
        transport: &'a dyn Transport,
        retry: RetryPolicy,
        files: &'a CredentialFiles,
    ) -> Registry<'a> {
        let authority = reference.registry_host().to_owned();
        let candidates = schemes(&authority, tls_verify);
        let has_port = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        Registry {
            domain: reference.domain().to_owned(),
            repository: reference.path().to_owned(),
            has_port,
            authority,
            candidates,
            candidate: AtomicUsize::new(0),
            answered: AtomicBool::new(false),
            transport,
            retry,
            files,
            keys: Keys::default(),
            access: Access::Pull,
        }
    }

    /// The same, to push to: the first token serves for everything.
    pub(crate) fn for_push(self) -> Registry<'a> {
        Registry { access: Access::Push, ..self }
    }

    pub(crate) fn retry_policy(&self) -> &RetryPolicy {
        &self.retry
    }

    pub(super) fn answer(&self, what: &str, reason: String) -> RegistryError {
        RegistryError::Answer { host: self.authority.clone(), what: what.to_owned(), reason }
    }

    pub(super) fn pause(&self, attempt: u32, asked: Option<Duration>, on_retry: OnRetry<'_>) {
        let delay = self.retry.delay(attempt);
        let delay = asked.map_or(delay, |asked| asked.max(delay));
        on_retry(attempt + 1, delay);
        (self.retry.sleep)(delay);
    }

    /// Asks until there is an answer of success, or a reason to give up.
    pub(super) fn ask(&self, ask: &Ask<'_>, on_retry: OnRetry<'_>) -> Result<Final, RegistryError> {
        let mut attempt = 1;
        loop {
            match self.ask_once(ask) {
                Err(trouble) if trouble.passing && attempt < self.retry.tries => {
                    self.pause(attempt, trouble.wait, on_retry);
                    attempt += 1;
                }
                result => return result.map_err(|trouble| trouble.error),
            }
        }
    }

    /// Asks once. For requests whose repetition needs more thought.
    pub(super) fn ask_once(&self, ask: &Ask<'_>) -> Result<Final, Trouble> {
        match self.exchange(ask)? {
            Ok(answer) if ask.success.contains(&answer.response.status) => Ok(answer),
            Ok(answer) => Err(self.judge(answer, ask.what)),
            Err(error) => {
                // A registry that never answered is most likely misspelt or down.
                let hopeless = match error.failure {
                    Failure::Refused | Failure::Unresolved => !self.answered.load(Ordering::Relaxed),
                    Failure::Fatal => true,
                    Failure::Passing => false,
                };
                let error = RegistryError::Connect { host: self.authority.clone(), source: error.source };
                Err(Trouble { error, passing: !hopeless, wait: None })
            }
        }
    }

    /// What an answer without success means.
    fn judge(&self, mut answer: Final, what: &str) -> Trouble {
        let says = says(&mut answer);
        let response = &answer.response;
        let wait = retry_after(|name| response.header(name));
        let too_long = wait.is_some_and(|wait| wait > self.retry.longest_asked);
        let (host, what) = (self.authority.clone(), what.to_owned());
        let (error, passing) = match response.status {
            401 => (RegistryError::Unauthorized { host, what }, false),
            403 => (RegistryError::Denied { host, what, says }, false),
            404 => (RegistryError::NotFound { host, what }, false),
            429 => (RegistryError::RateLimited { host, wait }, !too_long),
            status @ (408 | 500 | 502 | 503 | 504) => {
                (RegistryError::Status { host, what, status, says }, true)
            }
            status => (RegistryError::Status { host, what, status, says }, false),
        };
        Trouble { error, passing, wait: wait.filter(|_| !too_long) }
    }

    /// One exchange: finds the scheme, authorises. The inner error is one of the connection.
    fn exchange(&self, ask: &Ask<'_>) -> Result<Result<Final, TransportError>, RegistryError> {
        let mut key = match self.key(ask)? {
            Authorised::With(key) => key,
            Authorised::Instead(answer) => return Ok(answer),
        };
        let mut authorisations = 0;
        loop {
            let tried = self.candidate.load(Ordering::Acquire);
            let (secure, verify) = self.candidates[tried];
            let (url, fixed) = match ask.target {
                Target::Path(path) => {
                    let target = format!("/v2/{}/{path}", self.repository);
                    let url = Url::of_registry(secure, &self.authority, target);
                    (url.map_err(|reason| self.answer(ask.what, reason.to_owned()))?, false)
                }
                Target::Location(url) => (url.clone(), true),
            };
            let home = url.same_origin(&self.origin());
            let authorization = key.clone().filter(|_| home);
            let answer = match self.follow(ask, &url, authorization.as_deref(), verify)? {
                Err(error) if !fixed && self.next_candidate(tried, Some(error.failure)) => {
                    drop(error);
                    continue;
                }
                // What a TLS server answers to plain http.
                Ok(Final { response, .. })
                    if !fixed && response.status == 400 && self.next_candidate(tried, None) =>
                {
                    continue;
                }
                Err(error) => return Ok(Err(error)),
                Ok(answer) => answer,
            };
            self.answered.store(true, Ordering::Relaxed);
            let from_registry = home && answer.url.same_origin(&url);
            if answer.response.status != 401 || !from_registry || authorisations == MAX_AUTHORISATIONS {
                return Ok(Ok(answer));
            }
            authorisations += 1;
            key = match self.authorise(ask, &url, answer, authorization.as_deref())? {
                Authorised::With(key) => key,
                Authorised::Instead(answer) => return Ok(answer),
            };
        }
    }

    /// Goes on from the scheme that was `tried` to the next one, when the registry has not answered yet and there is
    /// one, or another thread went on already.
    fn next_candidate(&self, tried: usize, failure: Option<Failure>) -> bool {
        if self.candidate.load(Ordering::Acquire) != tried {
            return true;
        }
        // With the port given, a refusal is the same for every scheme.
        let pointless =
            failure == Some(Failure::Unresolved) || (failure == Some(Failure::Refused) && self.has_port);
        if self.answered.load(Ordering::Relaxed) || pointless || tried + 1 >= self.candidates.len() {
            return false;
        }
        // Who comes second finds it done.
        let _ = self.candidate.compare_exchange(tried, tried + 1, Ordering::AcqRel, Ordering::Acquire);
        true
    }

    /// Sends a request and follows redirects; `authorization` goes to the first host alone.
    pub(super) fn follow(
        &self,
        ask: &Ask<'_>,
        first: &Url,
        authorization: Option<&str>,
        verify: bool,
    ) -> Result<Result<Final, TransportError>, RegistryError> {
        let mut url = first.clone();
        let registry = self.origin();
        let mut hops = 0;
        loop {
            let mut headers = ask.headers.to_vec();
            if url.same_origin(first)
                && let Some(authorization) = authorization
            {
                headers.push(("authorization", authorization.to_owned()));
            }
            let outward_only = !registry.is_loopback() && url.host != registry.host;
            let request = Request { method: ask.method, url: &url, headers: &headers, verify, outward_only };
            let response = match self.send(&request, ask.content) {
                Ok(response) => response,
                Err(error) => return Ok(Err(error)),
            };
            let redirected = matches!(response.status, 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.header("location").filter(|_| redirected) else {
                return Ok(Ok(Final { response, url }));
            };
            let refuse = |reason| refused_redirect(&url, location, reason);
            // The others turn the request into a GET, which is not what was wanted.
            let kept = matches!(ask.method, Method::Get | Method::Head);
            if !kept && !matches!(response.status, 307 | 308) {
                return Err(refuse("a request that changes something goes on only with status 307 or 308"));
            }
            hops += 1;
            if hops > MAX_REDIRECTS {
                return Err(refuse("there were five redirects before it"));
            }
            let next = url.join(location).map_err(refuse)?;
            url.check_redirect(&next, &registry).map_err(refuse)?;
            if matches!(ask.content, Content::Secret(_)) && !next.same_origin(first) {
                return Err(refuse("it would take credentials to another host"));
            }
            url = next;
        }
    }

    fn send(&self, request: &Request<'_>, content: Content<'_>) -> Result<Response, TransportError> {
        match content {
            Content::Empty => self.transport.send(request, Body::Empty),
            Content::Bytes(bytes) | Content::Secret(bytes) => {
                self.transport.send(request, Body::Bytes(bytes))
            }
            Content::File(part) => {
                let mut reader = PartReader { part, done: 0 };
                self.transport.send(request, Body::Reader(&mut reader, part.length))
            }
        }
    }

    /// The registry itself.
    pub(super) fn origin(&self) -> Url {
        let (secure, _) = self.candidates[self.candidate.load(Ordering::Acquire)];
        Url::of_registry(secure, &self.authority, "/".to_owned())
            .expect("a reference's registry is a host with an optional port")
    }

    /// Whether certificates must be valid, with the scheme in use.
    pub(super) fn verifies(&self) -> bool {
        self.candidates[self.candidate.load(Ordering::Acquire)].1
    }
}

/// How a registry may be asked: (https, verified), in the order to try.
pub(super) fn schemes(authority: &str, tls_verify: bool) -> Vec<(bool, bool)> {
    let loopback = Url::of_registry(false, authority, String::new()).is_ok_and(|url| url.is_loopback());
    match (loopback, tls_verify) {
        (true, verify) => vec![(false, true), (true, verify)],
        (false, true) => vec![(true, true)],
        (false, false) => vec![(true, false), (false, true)],
    }
}

/// The first error in the body of an answer (distribution-spec, "Error Codes"), readable and short.
fn says(answer: &mut Final) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        code: Option<String>,
        message: Option<String>,
    }
    let mut bytes = Vec::new();
    let body = &mut answer.response.body;
    // What cannot be read says nothing.
    let _ = body.take(MAX_REST).read_to_end(&mut bytes);
    let answer: Answer = serde_json::from_slice(&bytes).ok()?;
    let one = answer.errors.into_iter().next()?;
    let text = [one.code, one.message].into_iter().flatten().filter(|text| !text.is_empty());
    let text = text.collect::<Vec<_>>().join(": ");
    let short: String = text.chars().take(MAX_SAYS).flat_map(char::escape_debug).collect();
    (!short.is_empty()).then_some(short)
}

/// The error of a redirect (or of another header with a URL) that is not followed.
pub(super) fn refused_redirect(from: &Url, target: &str, reason: &'static str) -> RegistryError {
    RegistryError::Redirect { host: from.authority(), target: target.escape_debug().to_string(), reason }
}

/// Reads a part of a file without moving the file's own position, which other tries share.
struct PartReader<'r> {
    part: &'r FilePart<'r>,
    done: u64,
}

impl Read for PartReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.part.length - self.done).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let at = self.part.offset + self.done;
        let count = self.part.file.read_at(&mut buffer[..wanted], at)?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
        }
        let count_64 = u64::try_from(count).unwrap_or(u64::MAX);
        self.done += count_64;
        (self.part.on_sent)(at + count_64);
        Ok(count)
    }
}
