//! Credentials, from the files that Docker and Podman keep.
//!
//! Files are read only when a registry asks, in this order; the first entry that fits wins: `$REGISTRY_AUTH_FILE`,
//! `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, `$XDG_RUNTIME_DIR/containers/auth.json`,
//! `$XDG_CONFIG_HOME/containers/auth.json` or `~/.config/containers/auth.json`. Credential helpers are not asked;
//! their names are told.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::RegistryError;

const MAX_FILE: usize = 1024 * 1024;

/// Where credentials may lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct CredentialFiles {
    paths: Vec<PathBuf>,
}

/// What the files say about a registry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lookup {
    /// `user:password` in base64, as a Basic header wants it.
    pub(super) basic: Option<String>,
    /// A credential helper named for this registry.
    pub(super) helper: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
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
    #[cfg(test)]
    pub(crate) fn at(paths: Vec<PathBuf>) -> CredentialFiles {
        CredentialFiles { paths }
    }

    /// What is known about the registry `domain` (as users name it) and the repository `path` on it.
    pub(super) fn lookup(&self, domain: &str, path: &str) -> Result<Lookup, RegistryError> {
        let mut lookup = Lookup::default();
        for file in &self.paths {
            let wrong = |source| RegistryError::Credentials { path: file.clone(), source };
            let Some(config) = read(file).map_err(wrong)? else { continue };
            for key in keys(domain, path) {
                if let Some(basic) = config.auths.get(&key).and_then(Entry::basic) {
                    return Ok(Lookup { basic: Some(basic), helper: None });
                }
                let helper = config.cred_helpers.get(&key);
                lookup.helper = lookup.helper.or_else(|| helper.cloned());
            }
            lookup.helper = lookup.helper.or(config.creds_store).filter(|name| !name.is_empty());
        }
        Ok(lookup)
    }
}

impl Entry {
    fn basic(&self) -> Option<String> {
        let is_base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        match (&self.auth, &self.username, &self.password) {
            (Some(auth), _, _) if !auth.is_empty() && auth.bytes().all(is_base64) => Some(auth.clone()),
            (_, Some(user), Some(password)) => Some(base64(format!("{user}:{password}").as_bytes())),
            _ => None,
        }
    }
}

fn read(path: &Path) -> io::Result<Option<ConfigFile>> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.len() > MAX_FILE => Err(io::Error::other("it has more than 1 MiB")),
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::from)?)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        // Another user's file, as under sudo: the registry is asked without.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

/// The keys under which a registry's entry may stand, the closest first.
fn keys(domain: &str, path: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut whole = format!("{domain}/{path}");
    while let Some(at) = whole.rfind('/') {
        keys.push(whole.clone());
        whole.truncate(at);
    }
    let names: &[&str] = if domain == "docker.io" {
        &["docker.io", "index.docker.io", "registry-1.docker.io"]
    } else {
        &[domain]
    };
    for name in names {
        keys.push((*name).to_owned());
        for form in ["https://N", "https://N/", "https://N/v1/", "https://N/v2/", "http://N", "http://N/"] {
            keys.push(form.replace('N', name));
        }
    }
    keys
}

pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| usize::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            if at <= chunk.len() {
                text.push(char::from(ALPHABET[bits >> (18 - 6 * at) & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, CredentialFiles) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        (directory, CredentialFiles::at(vec!["/nonexistent/x".into(), path]))
    }

    #[test]
    fn base64_is_as_the_rfc_says() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn entries_are_found_under_every_common_key() {
        let (_keep, files) = file(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"},
                "r.io:5000":{"username":"u","password":"p"},"r.io:5000/team":{"auth":"dGVhbTpwdw=="},
                "q.io":{}},"credHelpers":{"q.io":"vault"}}"#,
        );
        let basic = |domain, path| files.lookup(domain, path).unwrap().basic;
        assert_eq!(basic("docker.io", "library/a").as_deref(), Some("aHViOnB3"));
        assert_eq!(basic("r.io:5000", "a").as_deref(), Some("dTpw"));
        assert_eq!(basic("r.io:5000", "team/a").as_deref(), Some("dGVhbTpwdw=="));
        assert_eq!(basic("r.io", "a"), None);
        let lookup = files.lookup("q.io", "a").unwrap();
        assert_eq!(lookup, Lookup { basic: None, helper: Some("vault".into()) });
    }

    #[test]
    fn a_damaged_file_is_named() {
        let (_keep, files) = file("{");
        assert!(matches!(files.lookup("r.io", "a"), Err(RegistryError::Credentials { .. })));
    }
}
