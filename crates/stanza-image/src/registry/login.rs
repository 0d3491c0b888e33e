//! `login` and `logout`: credentials are tried at the registry before they are kept.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stanza_spec::{Classify, ErrorKind};

use super::challenge::{self, Challenge};
use super::client::schemes;
pub use super::credentials::Place;
use super::credentials::{CredentialFile, CredentialFiles, Credentials, default_file};
use super::error::RegistryError;
use super::setup::SetupError;
use super::token::escape;
use super::transport::{Body, Http, Method, Request, Response, Transport, TransportError};
use super::url::Url;

const MAX_ANSWER: u64 = 1024 * 1024;
const HUB: &str = "docker.io";

/// How to log in or out.
#[derive(Clone, Debug)]
pub struct LoginOptions {
    /// The file of credentials; absent: `$REGISTRY_AUTH_FILE`, or Docker's.
    pub authfile: Option<PathBuf>,
    /// `false` accepts any certificate, and plain http.
    pub tls_verify: bool,
}

/// Credentials that were accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// Where they are kept.
    pub place: Place,
}

/// What a logout found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedOut {
    /// Whether there were credentials.
    pub found: bool,
    /// Other files that still have some.
    pub elsewhere: Vec<PathBuf>,
}

/// Why a login or logout failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The name is none of a registry.
    #[error("`{name}` is not the name of a registry: {reason}")]
    Name {
        /// What was given, control characters escaped.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A user name with a colon, which separates it from the password.
    #[error("user name `{user}` has a colon, and nothing could be told from the password then")]
    User {
        /// The name.
        user: String,
    },
    /// The registry does not take them.
    #[error("registry `{host}` refuses this user name and password")]
    Refused {
        /// Host and port.
        host: String,
    },
    /// The registry cannot be asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// They cannot be kept, or forgotten.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl Classify for LoginError {
    fn kind(&self) -> ErrorKind {
        match self {
            LoginError::Name { .. } | LoginError::User { .. } => ErrorKind::InvalidArgument,
            LoginError::Refused { .. } => ErrorKind::Unauthorized,
            LoginError::Registry(error) => error.kind(),
            LoginError::Setup(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            LoginError::Name { .. } => Some("a registry is `HOST[:PORT]`".to_owned()),
            LoginError::User { .. } => None,
            LoginError::Refused { .. } => Some(
                "with two-factor authentication, registries want an access token for the password".to_owned(),
            ),
            LoginError::Registry(error) => error.hint(),
            LoginError::Setup(error) => error.hint(),
        }
    }
}

/// A registry, or a repository on it, as an argument of `login`.
struct Target {
    domain: String,
    /// The repository; usually empty.
    path: String,
}

impl Target {
    /// Docker's meaning: a URL counts as its host, and all names of Docker Hub are one.
    fn parse(text: &str) -> Result<Target, LoginError> {
        let wrong = |reason| LoginError::Name { name: text.escape_debug().to_string(), reason };
        let url = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let rest = url.unwrap_or(text).trim_end_matches('/');
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        Url::of_registry(true, domain, String::new()).map_err(wrong)?;
        let hub = matches!(domain, "docker.io" | "index.docker.io" | "registry-1.docker.io");
        let domain = if hub { HUB.to_owned() } else { domain.to_ascii_lowercase() };
        // `https://index.docker.io/v1/` is a host too.
        let path = if url.is_some() || matches!(path, "v1" | "v2") { String::new() } else { path.to_owned() };
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b);
        if !path.bytes().all(legal) {
            return Err(wrong("what follows the host is not a repository"));
        }
        Ok(Target { domain, path })
    }

    fn authority(&self) -> &str {
        if self.domain == HUB { "registry-1.docker.io" } else { &self.domain }
    }
}

/// Tries a user's name and secret at a registry (`HOST[:PORT][/REPOSITORY]`, or a URL), and keeps them when they are accepted.
/// A registry that gives an identity token for them has that kept instead.
///
/// # Errors
/// When the registry refuses them or cannot be asked, or they cannot be kept.
pub fn login(
    registry: &str,
    user: &str,
    secret: &str,
    options: &LoginOptions,
) -> Result<LoggedIn, LoginError> {
    let target = Target::parse(registry)?;
    if user.contains(':') {
        return Err(LoginError::User { user: user.escape_debug().to_string() });
    }
    let given = Credentials::Basic { user: user.to_owned(), secret: secret.to_owned() };
    let token = check(&target, user, &given, options.tls_verify, &Http::default())?;
    let kept = token.map_or(given, Credentials::IdentityToken);
    let files = CredentialFiles::of_user();
    let mut file = CredentialFile::open(file_of(options, &files)?)?;
    let place = file.store(&target.domain, &target.path, user, &kept)?;
    Ok(LoggedIn { place })
}

/// The user's name and secret that are kept for a registry, to log in with them again.
///
/// # Errors
/// When the name is wrong, or what is kept cannot be read.
pub fn stored_login(registry: &str, options: &LoginOptions) -> Result<Option<(String, String)>, LoginError> {
    let target = Target::parse(registry)?;
    let files = match &options.authfile {
        Some(path) => CredentialFiles::at(vec![path.clone()]),
        None => CredentialFiles::of_user(),
    };
    Ok(match files.lookup(&target.domain, &target.path)? {
        Credentials::Basic { user, secret } => Some((user, secret)),
        _ => None,
    })
}

/// Forgets the credentials for a registry.
///
/// # Errors
/// When the name is wrong, or they cannot be forgotten.
pub fn logout(registry: &str, options: &LoginOptions) -> Result<LoggedOut, LoginError> {
    let target = Target::parse(registry)?;
    let files = CredentialFiles::of_user();
    let path = file_of(options, &files)?;
    let found = CredentialFile::open(path)?.remove(&target.domain, &target.path)?;
    let mut elsewhere = Vec::new();
    // With a file named, the others are nobody's question.
    for other in files.paths().iter().filter(|other| options.authfile.is_none() && other.as_path() != path) {
        let known = CredentialFiles::at(vec![other.clone()]).lookup(&target.domain, &target.path)?;
        if known != Credentials::Anonymous {
            elsewhere.push(other.clone());
        }
    }
    Ok(LoggedOut { found, elsewhere })
}

/// Forgets the credentials for all registries.
///
/// # Errors
/// When they cannot be forgotten.
pub fn logout_all(options: &LoginOptions) -> Result<(), LoginError> {
    let files = CredentialFiles::of_user();
    Ok(CredentialFile::open(file_of(options, &files)?)?.remove_all()?)
}

fn file_of<'a>(options: &'a LoginOptions, files: &'a CredentialFiles) -> Result<&'a Path, SetupError> {
    options.authfile.as_deref().map_or_else(|| default_file(files), Ok)
}

/// Shows the credentials to the registry; gives the identity token that it may give for them.
fn check(
    target: &Target,
    user: &str,
    credentials: &Credentials,
    tls_verify: bool,
    transport: &dyn Transport,
) -> Result<Option<String>, LoginError> {
    let host = target.authority();
    let mut schemes = schemes(host, tls_verify).into_iter().peekable();
    while let Some((secure, verify)) = schemes.next() {
        let url = Url::of_registry(secure, host, "/v2/".to_owned())
            .map_err(|reason| LoginError::Name { name: host.to_owned(), reason })?;
        let visit = Visit { url: &url, host, user, credentials, verify, transport };
        match visit.get(&url, None) {
            Err(error) if schemes.peek().is_none() => return Err(visit.unreachable(error)),
            Err(_) => {}
            // What a TLS server answers to plain http.
            Ok(answer) if answer.status == 400 && schemes.peek().is_some() => {}
            Ok(answer) => return visit.answer(&answer),
        }
    }
    unreachable!("the last scheme returns from the loop")
}

/// One login at one URL.
struct Visit<'a> {
    url: &'a Url,
    host: &'a str,
    user: &'a str,
    credentials: &'a Credentials,
    verify: bool,
    transport: &'a dyn Transport,
}

impl Visit<'_> {
    fn get(&self, url: &Url, authorization: Option<String>) -> Result<Response, TransportError> {
        let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
        let outward_only = !self.url.is_loopback() && url.host != self.url.host;
        let request =
            Request { method: Method::Get, url, headers: &headers, verify: self.verify, outward_only };
        self.transport.send(&request, Body::Empty)
    }

    fn unreachable(&self, error: TransportError) -> LoginError {
        RegistryError::Connect { host: self.host.to_owned(), source: error.source }.into()
    }

    /// The verdict of an answer to a request that carried the credentials.
    fn judge(&self, answer: &Response) -> Result<(), LoginError> {
        let (host, what) = (self.host.to_owned(), "/v2/".to_owned());
        Err(match answer.status {
            200 => return Ok(()),
            401 | 403 => LoginError::Refused { host },
            404 => RegistryError::NotFound { host, what }.into(),
            status => RegistryError::Status { host, what, status, says: None }.into(),
        })
    }

    fn answer(&self, first: &Response) -> Result<Option<String>, LoginError> {
        if first.status != 401 {
            // A registry that everybody may use takes any name.
            return self.judge(first).map(|()| None);
        }
        let headers: Vec<String> = first
            .headers
            .iter()
            .filter(|(name, _)| name == "www-authenticate")
            .map(|(_, value)| value.clone())
            .collect();
        let basic = self.credentials.basic().map(|basic| format!("Basic {basic}"));
        match challenge::parse(&headers).into_iter().next() {
            None => Err(self.wrong("it asks for a login of no known kind")),
            Some(Challenge::Basic) => {
                let answer = self.get(self.url, basic).map_err(|error| self.unreachable(error))?;
                self.judge(&answer).map(|()| None)
            }
            Some(Challenge::Bearer { realm, service, .. }) => {
                self.by_token(&realm, service.as_deref(), basic)
            }
        }
    }

    fn wrong(&self, reason: &str) -> LoginError {
        let (host, what) = (self.host.to_owned(), "/v2/".to_owned());
        RegistryError::Answer { host, what, reason: reason.to_owned() }.into()
    }

    /// Gets a token for the credentials, and shows it to the registry.
    fn by_token(
        &self,
        realm: &str,
        service: Option<&str>,
        basic: Option<String>,
    ) -> Result<Option<String>, LoginError> {
        let refuse = |reason| RegistryError::Redirect {
            host: self.host.to_owned(),
            target: realm.escape_debug().to_string(),
            reason,
        };
        let mut url = Url::parse(realm).map_err(refuse)?;
        let local = self.url.is_loopback() && url.is_loopback();
        if !url.secure && !local {
            return Err(refuse("the password would go over plain http").into());
        }
        self.url.check_redirect(&url, self.url).map_err(refuse)?;
        let fields =
            [("account", Some(self.user)), ("client_id", Some("stanza")), ("offline_token", Some("true"))];
        for (name, value) in fields.into_iter().chain([("service", service)]) {
            let Some(value) = value else { continue };
            url.target.push(if url.target.contains('?') { '&' } else { '?' });
            url.target.push_str(name);
            url.target.push('=');
            escape(value, &mut url.target);
        }
        let answer = self.get(&url, basic).map_err(|error| self.unreachable(error))?;
        self.judge(&answer)?;
        #[derive(Deserialize)]
        struct Tokens {
            token: Option<String>,
            access_token: Option<String>,
            refresh_token: Option<String>,
        }
        let mut bytes = Vec::new();
        answer
            .body
            .take(MAX_ANSWER)
            .read_to_end(&mut bytes)
            .map_err(|source| RegistryError::Interrupted { what: "token".to_owned(), source })?;
        let tokens: Tokens =
            serde_json::from_slice(&bytes).map_err(|_| self.wrong("its token server's answer is no JSON"))?;
        let usable = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let token = tokens
            .token
            .filter(usable)
            .or(tokens.access_token.filter(usable))
            .ok_or_else(|| self.wrong("its token server's answer has no token"))?;
        let answer =
            self.get(self.url, Some(format!("Bearer {token}"))).map_err(|error| self.unreachable(error))?;
        self.judge(&answer)?;
        Ok(tokens.refresh_token.filter(usable))
    }
}
