//! Asking one registry about one repository.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::time::Duration;

use stanza_spec::{Digest, Reference};

use super::challenge::{self, Challenge};
use super::credentials::{CredentialFiles, Credentials};
use super::error::RegistryError;
use super::retry::RetryPolicy;
use super::token::{read_token, token_url};
use super::transport::{Body, Failure, Method, Request, Response, ResponseBody, Transport, TransportError};
use super::url::Url;
use crate::document::{DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST};

const MAX_REDIRECTS: u32 = 5;
/// One round to get a token, one to see it refused.
const MAX_AUTHORISATIONS: u32 = 2;

/// Called before every repetition: the number of the next try, and the pause before it.
pub(crate) type OnRetry<'a> = &'a mut dyn FnMut(u32, Duration);

/// One repository on one registry.
pub(crate) struct Registry<'a> {
    /// Host and port to connect to.
    authority: String,
    /// The registry as users name it.
    domain: String,
    repository: String,
    has_port: bool,
    /// (https, verified), in the order to try.
    candidates: Vec<(bool, bool)>,
    candidate: Cell<usize>,
    /// Whether the registry ever answered: then failures are passing.
    answered: Cell<bool>,
    transport: &'a dyn Transport,
    retry: RetryPolicy,
    files: &'a CredentialFiles,
    lookup: RefCell<Option<Credentials>>,
    /// The `Authorization` header in use.
    authorization: RefCell<Option<String>>,
}

/// A document and what the registry said about it.
pub(crate) struct RawDocument {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: Option<String>,
    /// `Docker-Content-Digest`.
    pub(crate) digest: Option<Digest>,
}

/// A blob that is coming in.
pub(crate) struct Blob {
    /// The position of the first byte that comes.
    pub(crate) offset: u64,
    /// The size of the whole blob, when the answer tells.
    pub(crate) size: Option<u64>,
    pub(crate) body: ResponseBody,
}

/// The answer of one exchange with all its redirects.
struct Final {
    response: Response,
    url: Url,
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
            candidate: Cell::new(0),
            answered: Cell::new(false),
            transport,
            retry,
            files,
            lookup: RefCell::new(None),
            authorization: RefCell::new(None),
        }
    }

    pub(crate) fn retry_policy(&self) -> &RetryPolicy {
        &self.retry
    }

    /// Fetches a manifest or index, by tag or digest, whole.
    pub(crate) fn manifest(&self, name: &str, on_retry: OnRetry<'_>) -> Result<RawDocument, RegistryError> {
        let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
        let headers = [("accept", accept)];
        let mark = if name.contains(':') { '@' } else { ':' };
        let what = format!("{}{mark}{name}", self.repository);
        let mut attempt = 1;
        loop {
            let response = self.get(&format!("manifests/{name}"), &headers, &what, on_retry)?;
            let content_type = response.header("content-type").map(str::to_owned);
            let digest = response.header("docker-content-digest").and_then(|text| text.parse().ok());
            let mut bytes = Vec::new();
            match response.body.take(MAX_MANIFEST + 1).read_to_end(&mut bytes) {
                Ok(_) if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_MANIFEST) => {
                    let reason = format!("the manifest has more than {MAX_MANIFEST} bytes");
                    return Err(self.answer(&what, reason));
                }
                Ok(_) => return Ok(RawDocument { bytes, content_type, digest }),
                Err(_) if attempt < self.retry.tries => {
                    self.pause(attempt, None, on_retry);
                    attempt += 1;
                }
                Err(source) => return Err(RegistryError::Interrupted { what, source }),
            }
        }
    }

    /// Starts to fetch a blob from `offset` on; the answer may begin earlier, at zero.
    pub(crate) fn blob(
        &self,
        digest: &Digest,
        offset: u64,
        on_retry: OnRetry<'_>,
    ) -> Result<Blob, RegistryError> {
        let mut headers = Vec::new();
        if offset > 0 {
            headers.push(("range", format!("bytes={offset}-")));
        }
        let response = self.get(&format!("blobs/{digest}"), &headers, digest.as_str(), on_retry)?;
        if response.status != 206 {
            let size = response.header("content-length").and_then(|text| text.trim().parse().ok());
            return Ok(Blob { offset: 0, size, body: response.body });
        }
        let range = response.header("content-range").and_then(parse_content_range);
        match range {
            Some((start, size)) if start == offset => Ok(Blob { offset, size, body: response.body }),
            _ => Err(self.answer(digest.as_str(), "it sends another range than it was asked for".to_owned())),
        }
    }

    fn answer(&self, what: &str, reason: String) -> RegistryError {
        RegistryError::Answer { host: self.authority.clone(), what: what.to_owned(), reason }
    }

    fn pause(&self, attempt: u32, asked: Option<Duration>, on_retry: OnRetry<'_>) {
        let delay = self.retry.delay(attempt);
        let delay = asked.map_or(delay, |asked| asked.max(delay));
        on_retry(attempt + 1, delay);
        (self.retry.sleep)(delay);
    }

    /// Asks until there is an answer of success, or a reason to give up.
    fn get(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        what: &str,
        on_retry: OnRetry<'_>,
    ) -> Result<Response, RegistryError> {
        let mut attempt = 1;
        loop {
            let last = attempt >= self.retry.tries;
            let asked = match self.exchange(path, headers, what)? {
                Ok(Final { response, .. }) if matches!(response.status, 200 | 206) => return Ok(response),
                Ok(Final { response, .. }) => self.judge(&response, what, last)?,
                Err(error) => {
                    // A registry that never answered is most likely misspelt or down.
                    let hopeless = match error.failure {
                        Failure::Refused | Failure::Unresolved => !self.answered.get(),
                        Failure::Fatal => true,
                        Failure::Passing => false,
                    };
                    if last || hopeless {
                        return Err(RegistryError::Connect {
                            host: self.authority.clone(),
                            source: error.source,
                        });
                    }
                    None
                }
            };
            self.pause(attempt, asked, on_retry);
            attempt += 1;
        }
    }

    /// Whether an answer without success is worth another try, and after which pause.
    fn judge(&self, response: &Response, what: &str, last: bool) -> Result<Option<Duration>, RegistryError> {
        let (host, what) = (self.authority.clone(), what.to_owned());
        match response.status {
            401 => Err(RegistryError::Unauthorized { host, what }),
            403 => Err(RegistryError::Denied { host, what }),
            404 => Err(RegistryError::NotFound { host, what }),
            429 => {
                let asked = retry_after(response);
                if last || asked.is_some_and(|asked| asked > self.retry.longest_asked) {
                    return Err(RegistryError::RateLimited { host, wait: asked });
                }
                Ok(asked)
            }
            408 | 500 | 502 | 503 | 504 if !last => {
                Ok(retry_after(response).filter(|asked| *asked <= self.retry.longest_asked))
            }
            status => Err(RegistryError::Status { host, what, status }),
        }
    }

    /// One exchange: finds the scheme, authorises. The inner error is one of the connection.
    fn exchange(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        what: &str,
    ) -> Result<Result<Final, TransportError>, RegistryError> {
        let target = format!("/v2/{}/{path}", self.repository);
        let mut authorisations = 0;
        loop {
            let (secure, verify) = self.candidates[self.candidate.get()];
            let url = Url::of_registry(secure, &self.authority, target.clone())
                .map_err(|reason| self.answer(what, reason.to_owned()))?;
            let answer = match self.follow(&url, headers, self.authorization.borrow().clone(), verify)? {
                Err(error) if self.next_candidate(Some(error.failure)) => {
                    drop(error);
                    continue;
                }
                // What a TLS server answers to plain http.
                Ok(Final { response, .. }) if response.status == 400 && self.next_candidate(None) => continue,
                Err(error) => return Ok(Err(error)),
                Ok(answer) => answer,
            };
            self.answered.set(true);
            let from_registry = answer.url.same_origin(&url);
            if answer.response.status != 401 || !from_registry || authorisations == MAX_AUTHORISATIONS {
                return Ok(Ok(answer));
            }
            authorisations += 1;
            if let Some(other) = self.authorise(&url, &answer, verify, authorisations, what)? {
                return Ok(other);
            }
        }
    }

    /// Goes on to the next scheme, when the registry has not answered yet and there is one.
    fn next_candidate(&self, failure: Option<Failure>) -> bool {
        // With the port given, a refusal is the same for every scheme.
        let pointless =
            failure == Some(Failure::Unresolved) || (failure == Some(Failure::Refused) && self.has_port);
        if self.answered.get() || pointless || self.candidate.get() + 1 >= self.candidates.len() {
            return false;
        }
        self.candidate.set(self.candidate.get() + 1);
        true
    }

    /// Sends a request and follows redirects; `authorization` goes to the first host alone.
    fn follow(
        &self,
        first: &Url,
        headers: &[(&'static str, String)],
        authorization: Option<String>,
        verify: bool,
    ) -> Result<Result<Final, TransportError>, RegistryError> {
        let mut url = first.clone();
        let registry = self.origin();
        let mut hops = 0;
        loop {
            let mut headers = headers.to_vec();
            if url.same_origin(first)
                && let Some(authorization) = &authorization
            {
                headers.push(("authorization", authorization.clone()));
            }
            let outward_only = !registry.is_loopback() && url.host != registry.host;
            let request = Request { method: Method::Get, url: &url, headers: &headers, verify, outward_only };
            let response = match self.transport.send(&request, Body::Empty) {
                Ok(response) => response,
                Err(error) => return Ok(Err(error)),
            };
            let redirected = matches!(response.status, 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.header("location").filter(|_| redirected) else {
                return Ok(Ok(Final { response, url }));
            };
            let refuse = |reason| RegistryError::Redirect {
                host: url.authority(),
                target: location.escape_debug().to_string(),
                reason,
            };
            hops += 1;
            if hops > MAX_REDIRECTS {
                return Err(refuse("there were five redirects before it"));
            }
            let next = url.join(location).map_err(refuse)?;
            url.check_redirect(&next, &registry).map_err(refuse)?;
            url = next;
        }
    }

    fn origin(&self) -> Url {
        let (secure, _) = self.candidates[self.candidate.get()];
        Url::of_registry(secure, &self.authority, "/".to_owned())
            .expect("a reference's registry is a host with an optional port")
    }

    /// Answers a challenge. Gives what the token server says when it gives no token, or `None` to go on.
    fn authorise(
        &self,
        url: &Url,
        refused: &Final,
        verify: bool,
        round: u32,
        what: &str,
    ) -> Result<Option<Result<Final, TransportError>>, RegistryError> {
        let headers: Vec<String> = refused
            .response
            .headers
            .iter()
            .filter(|(name, _)| name == "www-authenticate")
            .map(|(_, value)| value.clone())
            .collect();
        let basic = self.credentials()?.basic();
        let unauthorized =
            || RegistryError::Unauthorized { host: self.authority.clone(), what: what.to_owned() };
        if let (Credentials::RegistryToken(token), 1) = (self.credentials()?, round) {
            *self.authorization.borrow_mut() = Some(format!("Bearer {token}"));
            return Ok(None);
        }
        // Bearer comes first when there are several.
        let (realm, service, scope) = match challenge::parse(&headers).into_iter().next() {
            None => return Err(unauthorized()),
            Some(Challenge::Basic) => {
                // The same credentials again would be refused again.
                let Some(basic) = basic.filter(|_| round == 1) else { return Err(unauthorized()) };
                *self.authorization.borrow_mut() = Some(format!("Basic {basic}"));
                return Ok(None);
            }
            Some(Challenge::Bearer { realm, service, scope }) => (realm, service, scope),
        };
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let refuse = |reason| RegistryError::Redirect {
            host: self.authority.clone(),
            target: realm.escape_debug().to_string(),
            reason,
        };
        let token = token_url(&realm, service.as_deref(), &scope).map_err(refuse)?;
        let local = url.is_loopback() && token.is_loopback();
        if !token.secure && !local {
            return Err(refuse("its tokens would come over plain http"));
        }
        url.check_redirect(&token, &self.origin()).map_err(refuse)?;
        let authorization = basic.map(|basic| format!("Basic {basic}"));
        let mut answer = match self.follow(&token, &[], authorization, verify)? {
            Ok(answer) if answer.response.status == 200 => answer,
            other => return Ok(Some(other)),
        };
        let token = read_token(&mut answer.response.body).map_err(|reason| self.answer(what, reason))?;
        *self.authorization.borrow_mut() = Some(format!("Bearer {token}"));
        Ok(None)
    }

    /// The credentials for this registry; the files are read once.
    fn credentials(&self) -> Result<Credentials, RegistryError> {
        if let Some(known) = &*self.lookup.borrow() {
            return Ok(known.clone());
        }
        let found = self.files.lookup(&self.domain, &self.repository)?;
        *self.lookup.borrow_mut() = Some(found.clone());
        Ok(found)
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

/// `Retry-After` in seconds. A date would need clocks that agree; it counts as absent.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.header("retry-after")?.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

/// `bytes 5-9/10` or `bytes 5-9/*`: the first position and the whole size.
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let size = match size {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    (start <= end && size.is_none_or(|size: u64| end < size)).then_some((start, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_and_nonsense_is_not() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes 9-5/10", "bytes 5-10/10", "bytes */10", "5-9/10", "bytes -1-9/10"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
