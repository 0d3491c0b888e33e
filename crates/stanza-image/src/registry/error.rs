//! How a registry fails.

use std::io;
use std::time::Duration;

use stanza_spec::{Classify, ErrorKind};

use super::setup::SetupError;

/// Why a registry did not give or take what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke before an answer came.
    #[error("cannot reach registry `{host}`")]
    Connect {
        /// Host and port.
        host: String,
        /// What the network said.
        source: io::Error,
    },
    /// The answer stopped before its end.
    #[error("download of `{what}` broke off")]
    Interrupted {
        /// What was being fetched.
        what: String,
        /// What the network said.
        source: io::Error,
    },
    /// 401, with the credentials there are or without any.
    #[error("registry `{host}` wants other credentials for `{what}`")]
    Unauthorized {
        /// Host and port.
        host: String,
        /// What was being fetched.
        what: String,
    },
    /// 403.
    #[error("registry `{host}` denies access to `{what}`{}", said(says.as_ref()))]
    Denied {
        /// Host and port.
        host: String,
        /// What was being fetched or sent.
        what: String,
        /// The registry's own words.
        says: Option<String>,
    },
    /// 404.
    #[error("registry `{host}` has no `{what}`")]
    NotFound {
        /// Host and port.
        host: String,
        /// What was being fetched.
        what: String,
    },
    /// 429, still after the last try, or with a pause that is too long to wait for.
    #[error("registry `{host}` limits the rate of requests{}", pause(wait.as_ref()))]
    RateLimited {
        /// Host and port.
        host: String,
        /// The pause that the registry asks for.
        wait: Option<Duration>,
    },
    /// Another status that is not a success, still after the last try.
    #[error("registry `{host}` answers with status {status} for `{what}`{}", said(says.as_ref()))]
    Status {
        /// Host and port.
        host: String,
        /// What was being fetched or sent.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words.
        says: Option<String>,
    },
    /// A redirect that is not followed.
    #[error("registry `{host}` redirects to `{target}`, which is not followed: {reason}")]
    Redirect {
        /// Host and port.
        host: String,
        /// Where it leads, control characters escaped.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// An answer that makes no sense.
    #[error("registry `{host}` gives a wrong answer for `{what}`: {reason}")]
    Answer {
        /// Host and port.
        host: String,
        /// What was being fetched.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The registry itself fails, after its mirrors did.
    #[error("{registry}{}; its mirrors before it: {}", causes(registry.as_ref()), list(mirrors))]
    Mirrors {
        /// What the registry says.
        registry: Box<RegistryError>,
        /// What each mirror says.
        mirrors: Vec<RegistryError>,
    },
    /// What the user's files say about registries and credentials cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// The causes of an error, as the end of a line.
fn causes(error: &RegistryError) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

fn list(errors: &[RegistryError]) -> String {
    let texts: Vec<String> = errors.iter().map(|error| format!("{error}{}", causes(error))).collect();
    texts.join("; ")
}

fn pause(wait: Option<&Duration>) -> String {
    wait.map_or_else(String::new, |wait| format!(" and asks to wait {} s", wait.as_secs()))
}

fn said(says: Option<&String>) -> String {
    says.map_or_else(String::new, |says| format!(": {says}"))
}

impl Classify for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            RegistryError::Connect { .. }
            | RegistryError::Interrupted { .. }
            | RegistryError::RateLimited { .. }
            | RegistryError::Status { .. } => ErrorKind::Unavailable,
            RegistryError::Unauthorized { .. } | RegistryError::Denied { .. } => ErrorKind::Unauthorized,
            RegistryError::NotFound { .. } => ErrorKind::NotFound,
            RegistryError::Redirect { .. } => ErrorKind::PermissionDenied,
            RegistryError::Answer { .. } => ErrorKind::Corrupt,
            RegistryError::Mirrors { registry, .. } => registry.kind(),
            RegistryError::Setup(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            // A file of ours, which the text names.
            RegistryError::Connect { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
                return None;
            }
            RegistryError::Connect { host, source } if is_certificate_problem(source) => format!(
                "if `{host}` has a certificate of its own making, put its authority's into \
                 `/etc/containers/certs.d/{host}/ca.crt`, or use `--tls-verify=false`"
            ),
            RegistryError::Connect { .. } => "check the registry's name and the network".to_owned(),
            // Registries hide what is private behind 401 and 403, also when it does not exist.
            RegistryError::Unauthorized { host, .. } | RegistryError::Denied { host, .. } => {
                format!(
                    "check the spelling; if the image is private, `stanza login {host}` with an account that may"
                )
            }
            RegistryError::NotFound { .. } => "check the spelling of the name and the tag".to_owned(),
            RegistryError::RateLimited { .. } => {
                "wait, or use an account: registries give more to who is known".to_owned()
            }
            RegistryError::Mirrors { registry, .. } => return registry.hint(),
            RegistryError::Setup(error) => return error.hint(),
            RegistryError::Interrupted { .. } | RegistryError::Status { status: 500.., .. } => {
                "try again later".to_owned()
            }
            _ => return None,
        })
    }
}

fn is_certificate_problem(source: &io::Error) -> bool {
    let text = source.to_string();
    text.contains("certificate") || text.contains("UnknownIssuer")
}
