//! What a registry wants to see before it does something, and getting it (distribution, "Token Authentication").
//!
//! ```text
//! 401 + challenge -- Basic ------------------------------------------> user and password with every request
//!                 -- Bearer -- registry token ------------------------> as it is, with every request
//!                           -- user and password: GET realm, or POST --.
//!                           -- identity token: POST realm -------------+-> a token per set of scopes, until it expires
//!                           -- nothing: GET realm --------------------'
//! ```
//!
//! Threads that want the same token wait for the one that fetches it. After the first challenge the next token is
//! fetched before it is asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::challenge::{self, Challenge};
use super::client::{Access, Ask, Content, Final, Registry, Target, refused_redirect};
use super::credentials::Credentials;
use super::error::RegistryError;
use super::token::{self, Token};
use super::transport::{Method, TransportError};
use super::url::Url;

/// Who we say we are where tokens are given by OAuth 2.
const CLIENT: &str = "stanza";

/// What is known about how to get in.
#[derive(Default)]
pub(super) struct Keys {
    known: Mutex<Option<Arc<Credentials>>>,
    scheme: Mutex<Option<Scheme>>,
    /// By the scopes that a token was asked for.
    tokens: Mutex<HashMap<String, Slot>>,
}

type Slot = Arc<Mutex<Option<Token>>>;

#[cfg(test)]
impl Keys {
    /// Takes these credentials for those of the user.
    pub(super) fn know(&self, credentials: Credentials) {
        *locked(&self.known) = Some(Arc::new(credentials));
    }
}

/// How the registry wants to be asked, from its last challenge.
#[derive(Clone)]
enum Scheme {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        /// What the challenge named beyond what we would ask for.
        scopes: Vec<String>,
    },
}

/// The end of an attempt to authorise.
pub(super) enum Authorised {
    /// The header to send, if any.
    With(Option<String>),
    /// What the token server answers instead of a token.
    Instead(Result<Final, TransportError>),
}

/// The content of a mutex; what a thread that panicked left is whole, as every change is one assignment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry<'_> {
    /// The header to send with the first try, from what earlier challenges taught.
    pub(super) fn key(&self, ask: &Ask<'_>) -> Result<Authorised, RegistryError> {
        let scheme = locked(&self.keys.scheme).clone();
        match (scheme, ask.target) {
            (None, _) => Ok(Authorised::With(None)),
            (_, Target::Location(url)) if !url.same_origin(&self.origin()) => Ok(Authorised::With(None)),
            (Some(Scheme::Basic), _) => Ok(Authorised::With(self.basic()?)),
            (Some(Scheme::Bearer { realm, service, scopes }), _) => {
                self.token(ask, &realm, service.as_deref(), &scopes, None)
            }
        }
    }

    /// Answers the challenge in `refused`, which came although (or because) `sent` was sent.
    pub(super) fn authorise(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        mut refused: Final,
        sent: Option<&str>,
    ) -> Result<Authorised, RegistryError> {
        refused.finish();
        let headers: Vec<String> = refused
            .response
            .headers
            .iter()
            .filter(|(name, _)| name == "www-authenticate")
            .map(|(_, value)| value.clone())
            .collect();
        // Bearer comes first when there are several.
        match challenge::parse(&headers).into_iter().next() {
            None => Err(self.unauthorized(ask)),
            Some(Challenge::Basic) => {
                let basic = self.basic()?;
                // The same credentials again would be refused again.
                if basic.is_none() || basic.as_deref() == sent {
                    return Err(self.unauthorized(ask));
                }
                *locked(&self.keys.scheme) = Some(Scheme::Basic);
                Ok(Authorised::With(basic))
            }
            Some(Challenge::Bearer { realm, service, scope }) => {
                let refuse = |reason| refused_redirect(&self.origin(), &realm, reason);
                let server = Url::parse(&realm).map_err(refuse)?;
                let local = url.is_loopback() && server.is_loopback();
                if !server.secure && !local {
                    return Err(refuse("its tokens would come over plain http"));
                }
                url.check_redirect(&server, &self.origin()).map_err(refuse)?;
                let scopes: Vec<String> =
                    scope.iter().flat_map(|scope| scope.split(' ')).map(str::to_owned).collect();
                *locked(&self.keys.scheme) = Some(Scheme::Bearer {
                    realm: realm.clone(),
                    service: service.clone(),
                    scopes: scopes.clone(),
                });
                self.token(ask, &realm, service.as_deref(), &scopes, sent)
            }
        }
    }

    /// A token for what `ask` does: the one that there is, unless it was `refused`, or a new one.
    fn token(
        &self,
        ask: &Ask<'_>,
        realm: &str,
        service: Option<&str>,
        challenged: &[String],
        refused: Option<&str>,
    ) -> Result<Authorised, RegistryError> {
        if let Credentials::RegistryToken(token) = &*self.known()? {
            let header = format!("Bearer {token}");
            // There is no other one.
            return if refused == Some(header.as_str()) {
                Err(self.unauthorized(ask))
            } else {
                Ok(Authorised::With(Some(header)))
            };
        }
        let own = scopes(&self.repository, ask.access);
        let slot = Arc::clone(locked(&self.keys.tokens).entry(own.join(" ")).or_default());
        let mut slot = locked(&slot);
        if let Some(token) = &*slot
            && token.is_fresh()
        {
            let header = format!("Bearer {}", token.value);
            if refused != Some(header.as_str()) {
                return Ok(Authorised::With(Some(header)));
            }
        }
        *slot = None;
        let scopes = token::merge_scopes(&own, challenged);
        let server = TokenServer { realm, service, scopes: &scopes };
        let asked = Instant::now();
        let mut answer = match self.ask_for_token(ask, &server)? {
            Ok(answer) if answer.response.status == 200 => answer,
            other => return Ok(Authorised::Instead(other)),
        };
        let token = token::read_token(&mut answer.response.body, asked)
            .map_err(|reason| self.answer(ask.what, reason))?;
        let header = format!("Bearer {}", token.value);
        *slot = Some(token);
        Ok(Authorised::With(Some(header)))
    }

    /// One question to the token server, in the form that the credentials want.
    fn ask_for_token(
        &self,
        ask: &Ask<'_>,
        server: &TokenServer<'_>,
    ) -> Result<Result<Final, TransportError>, RegistryError> {
        let known = self.known()?;
        if let Credentials::IdentityToken(token) = &*known {
            return self.ask_by_grant(
                ask,
                server,
                &[("grant_type", "refresh_token"), ("refresh_token", token)],
            );
        }
        let refuse = |reason| refused_redirect(&self.origin(), server.realm, reason);
        let url = token::token_url(server.realm, server.service, server.scopes).map_err(refuse)?;
        let question = Ask {
            method: Method::Get,
            target: Target::Location(&url),
            headers: &[],
            content: Content::Empty,
            ..*ask
        };
        let basic = basic(&known);
        let answer = self.follow(&question, &url, basic.as_deref(), self.verifies())?;
        match (&answer, &*known) {
            // A server that gives tokens by OAuth 2 alone.
            (Ok(Final { response, .. }), Credentials::Basic { user, secret })
                if matches!(response.status, 404 | 405) =>
            {
                let grant = [("grant_type", "password"), ("username", user), ("password", secret)];
                self.ask_by_grant(ask, server, &grant)
            }
            _ => Ok(answer),
        }
    }

    /// One question to the token server by OAuth 2 (distribution, "OAuth2 Token Authentication").
    fn ask_by_grant(
        &self,
        ask: &Ask<'_>,
        server: &TokenServer<'_>,
        grant: &[(&str, &str)],
    ) -> Result<Result<Final, TransportError>, RegistryError> {
        let refuse = |reason| refused_redirect(&self.origin(), server.realm, reason);
        let url = Url::parse(server.realm).map_err(refuse)?;
        let scope = server.scopes.join(" ");
        let mut fields = grant.to_vec();
        fields.extend([("client_id", CLIENT), ("scope", scope.as_str())]);
        fields.extend(server.service.map(|service| ("service", service)));
        let form = token::form(&fields);
        let question = Ask {
            method: Method::Post,
            target: Target::Location(&url),
            headers: &[("content-type", "application/x-www-form-urlencoded".to_owned())],
            content: Content::Secret(form.as_bytes()),
            ..*ask
        };
        let answer = self.follow(&question, &url, None, self.verifies())?;
        match answer {
            // OAuth 2 says so when it does not like the credentials (RFC 6749, section 5.2).
            Ok(Final { response, .. }) if response.status == 400 => Err(self.unauthorized(ask)),
            answer => Ok(answer),
        }
    }

    fn unauthorized(&self, ask: &Ask<'_>) -> RegistryError {
        RegistryError::Unauthorized { host: self.authority.clone(), what: ask.what.to_owned() }
    }

    /// The header with the user's name and password.
    fn basic(&self) -> Result<Option<String>, RegistryError> {
        Ok(basic(&*self.known()?))
    }

    /// The credentials for this registry; the files are read once.
    fn known(&self) -> Result<Arc<Credentials>, RegistryError> {
        let mut known = locked(&self.keys.known);
        if let Some(known) = &*known {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(self.files.lookup(&self.domain, &self.repository)?);
        *known = Some(Arc::clone(&found));
        Ok(found)
    }
}

/// Where a token is given, and for what.
struct TokenServer<'r> {
    realm: &'r str,
    service: Option<&'r str>,
    scopes: &'r [String],
}

/// The scopes that a token needs for `access`.
fn scopes(repository: &str, access: Access<'_>) -> Vec<String> {
    match access {
        Access::Pull => vec![format!("repository:{repository}:pull")],
        Access::Push => vec![format!("repository:{repository}:pull,push")],
        Access::Mount(from) => {
            vec![format!("repository:{repository}:pull,push"), format!("repository:{from}:pull")]
        }
        Access::Delete => vec![format!("repository:{repository}:pull,delete")],
    }
}

/// The header with user name and password.
fn basic(credentials: &Credentials) -> Option<String> {
    credentials.basic().map(|basic| format!("Basic {basic}"))
}
