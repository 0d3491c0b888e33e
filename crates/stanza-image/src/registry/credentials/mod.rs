//! Credentials, from the files that Docker and Podman keep, and from the programs that those name.
//!
//! Files are read only when a registry asks, in this order: `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json` or
//! `~/.docker/config.json`, `$XDG_RUNTIME_DIR/containers/auth.json`, `$XDG_CONFIG_HOME/containers/auth.json` or
//! `~/.config/containers/auth.json`. In each, as in Docker: the helper for this registry (`credHelpers`), the helper for
//! all (`credsStore`), the entry (`auths`), of the repository before its parents before the host. The first that knows
//! something wins.

mod file;
mod helper;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub(super) use self::file::CredentialFile;
pub use self::file::Place;
use super::error::RegistryError;
use super::setup::SetupError;

/// Docker Hub, as Docker's own files and helpers name it.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB_NAMES: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// What proves to a registry who we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Nothing is known.
    Anonymous,
    /// A user's name with a password or access token.
    Basic {
        /// The name.
        user: String,
        /// The password or access token.
        secret: String,
    },
    /// A refresh token: for the token server only, which gives access tokens for it (OAuth2).
    IdentityToken(String),
    /// An access token: for the registry itself, as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Anonymous => "Anonymous",
            Credentials::Basic { .. } => "Basic",
            Credentials::IdentityToken(_) => "IdentityToken",
            Credentials::RegistryToken(_) => "RegistryToken",
        })
    }
}

impl Credentials {
    /// `user:secret` in base64, as a Basic header wants it.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Credentials::Basic { user, secret } => Some(STANDARD.encode(format!("{user}:{secret}"))),
            _ => None,
        }
    }
}

/// Where credentials may lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct CredentialFiles {
    paths: Vec<PathBuf>,
}

impl CredentialFiles {
    /// The files of the calling user.
    pub(crate) fn of_user() -> CredentialFiles {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = variable("HOME");
        let under_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let paths = [
            variable("REGISTRY_AUTH_FILE"),
            variable("DOCKER_CONFIG").or_else(|| under_home(".docker")).map(|path| path.join("config.json")),
            variable("XDG_RUNTIME_DIR").map(|path| path.join("containers/auth.json")),
            variable("XDG_CONFIG_HOME")
                .or_else(|| under_home(".config"))
                .map(|path| path.join("containers/auth.json")),
        ];
        CredentialFiles { paths: paths.into_iter().flatten().collect() }
    }

    /// These files.
    pub(crate) fn at(paths: Vec<PathBuf>) -> CredentialFiles {
        CredentialFiles { paths }
    }

    /// The files, the first that is asked first.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// What is known about the registry `domain` (as users name it) and the repository `path` on it.
    pub(crate) fn lookup(&self, domain: &str, path: &str) -> Result<Credentials, RegistryError> {
        for file in &self.paths {
            let Some(file) = CredentialFile::read(file)? else { continue };
            match lookup_in(&file, domain, path)? {
                Credentials::Anonymous => {}
                found => return Ok(found),
            }
        }
        Ok(Credentials::Anonymous)
    }
}

fn lookup_in(file: &CredentialFile, domain: &str, path: &str) -> Result<Credentials, SetupError> {
    if let Some(name) = file.helper(domain) {
        for server in servers(domain) {
            if let Some(found) = helper::get(name, server)? {
                return Ok(found);
            }
        }
    }
    for key in keys(domain, path) {
        let Some(entry) = file.entry(&key) else { continue };
        match credentials(entry) {
            Ok(Credentials::Anonymous) => {}
            Ok(found) => return Ok(found),
            Err(reason) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, format!("`{key}`: {reason}"));
                return Err(SetupError::Credentials { path: file.path().to_owned(), source });
            }
        }
    }
    Ok(Credentials::Anonymous)
}

/// What an entry of `auths` says; Docker leaves empty ones for what its helpers keep.
fn credentials(entry: &Value) -> Result<Credentials, &'static str> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Ok(Credentials::RegistryToken(token.to_owned()));
    }
    if let Some(token) = text("identitytoken") {
        return Ok(Credentials::IdentityToken(token.to_owned()));
    }
    if let Some(auth) = text("auth") {
        let bytes = STANDARD.decode(auth).map_err(|_| "its `auth` is not base64")?;
        let decoded = String::from_utf8(bytes).map_err(|_| "its `auth` is not text")?;
        let (user, secret) = decoded.split_once(':').ok_or("its `auth` is not `USER:PASSWORD`")?;
        // Old versions of Docker padded with zeros.
        let secret = secret.trim_end_matches('\0');
        return Ok(Credentials::Basic { user: user.to_owned(), secret: secret.to_owned() });
    }
    Ok(match (text("username"), text("password")) {
        (Some(user), Some(secret)) => Credentials::Basic { user: user.to_owned(), secret: secret.to_owned() },
        _ => Credentials::Anonymous,
    })
}

/// How helpers are asked for a registry, the likeliest name first.
fn servers(domain: &str) -> Vec<&str> {
    if domain == HUB_NAMES[0] { vec![HUB_KEY, domain] } else { vec![domain] }
}

/// The keys under which a registry's entry may stand, the closest first.
fn keys(domain: &str, path: &str) -> Vec<String> {
    let mut keys = Vec::new();
    if !path.is_empty() {
        let mut whole = format!("{domain}/{path}");
        while let Some(at) = whole.rfind('/') {
            keys.push(whole.clone());
            whole.truncate(at);
        }
    }
    keys.extend(host_keys(domain));
    keys
}

/// The ways to write a registry's host as a key.
fn host_keys(domain: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let names: &[&str] = if domain == HUB_NAMES[0] { &HUB_NAMES } else { &[domain] };
    for name in names {
        keys.push((*name).to_owned());
        for form in ["https://N", "https://N/", "https://N/v1/", "https://N/v2/", "http://N", "http://N/"] {
            keys.push(form.replace('N', name));
        }
    }
    keys
}

/// Whether `path` exists as far as this user may know.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        // Another user's file, as under sudo: the registry is asked without.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

/// Where `login` puts credentials when nothing else is said: `$REGISTRY_AUTH_FILE`, or Docker's file.
pub(super) fn default_file(files: &CredentialFiles) -> Result<&Path, SetupError> {
    files.paths.first().map(PathBuf::as_path).ok_or_else(|| SetupError::Credentials {
        path: PathBuf::from("~/.docker/config.json"),
        source: io::Error::new(io::ErrorKind::NotFound, "`HOME` is not set"),
    })
}

#[cfg(test)]
mod tests;
