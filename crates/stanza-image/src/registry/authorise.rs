//! What a registry wants to see before it does something, and getting it (distribution, "Token Authentication").
//!
//! ```text
//! 401 + challenge -- Basic ------------------------------------------> user and password with every request
//!                 -- Bearer -- registry token ------------------------> as it is
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
use super::credentials::Lookup;
use super::error::RegistryError;
use super::token::{self, Token};
use super::transport::{Method, TransportError};
use super::url::Url;

/// What is known about how to get in.
#[derive(Default)]
pub(super) struct Keys {
    lookup: Mutex<Option<Arc<Lookup>>>,
    scheme: Mutex<Option<Scheme>>,
    /// By the scopes that a token was asked for.
    tokens: Mutex<HashMap<String, Slot>>,
}

type Slot = Arc<Mutex<Option<Token>>>;

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
        // A challenge may name what we did not think of, but one for another request says nothing about this one.
        let scopes = token::merge_scopes(&own, challenged);
        let url = token::token_url(realm, service, &scopes)
            .map_err(|reason| refused_redirect(&self.origin(), realm, reason))?;
        let question = Ask {
            method: Method::Get,
            target: Target::Location(&url),
            headers: &[],
            content: Content::Empty,
            success: &[200],
            repeat: false,
            ..*ask
        };
        let basic = self.basic()?;
        let asked = Instant::now();
        let mut answer = match self.follow(&question, &url, basic.as_deref(), self.verifies())? {
            Ok(answer) if answer.response.status == 200 => answer,
            other => return Ok(Authorised::Instead(other)),
        };
        let token = token::read_token(&mut answer.response.body, asked)
            .map_err(|reason| self.answer(ask.what, reason))?;
        let header = format!("Bearer {}", token.value);
        *slot = Some(token);
        Ok(Authorised::With(Some(header)))
    }

    fn unauthorized(&self, ask: &Ask<'_>) -> RegistryError {
        RegistryError::Unauthorized {
            host: self.authority.clone(),
            what: ask.what.to_owned(),
            helper: self.helper(),
        }
    }

    /// The header with the user's name and password.
    fn basic(&self) -> Result<Option<String>, RegistryError> {
        Ok(self.lookup()?.basic.as_ref().map(|basic| format!("Basic {basic}")))
    }

    /// The credential helper that may know more.
    pub(super) fn helper(&self) -> Option<String> {
        self.lookup().ok()?.helper.clone()
    }

    /// The credentials for this registry; the files are read once.
    fn lookup(&self) -> Result<Arc<Lookup>, RegistryError> {
        let mut known = locked(&self.keys.lookup);
        if let Some(lookup) = &*known {
            return Ok(Arc::clone(lookup));
        }
        let lookup = Arc::new(self.files.lookup(&self.domain, &self.repository)?);
        *known = Some(Arc::clone(&lookup));
        Ok(lookup)
    }
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
