//! One file of credentials: `config.json` or `auth.json`.
//!
//! It belongs to Docker and Podman as well, so that what is not ours to change stays as it is. A change is one rename of a
//! file of mode 600 that was synced; a symbolic link is followed, as `docker login` does.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::{Credentials, HUB_KEY, HUB_NAMES, helper, host_keys, is_absent, servers};
use crate::registry::setup::SetupError;

const MAX_FILE: u64 = 1024 * 1024;

/// A file's content. The fields that stanza knows have the right types.
#[derive(Debug)]
pub(in crate::registry) struct CredentialFile {
    path: PathBuf,
    fields: Map<String, Value>,
}

/// Where credentials are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, readable for its owner.
    File(PathBuf),
    /// By `docker-credential-NAME`.
    Helper(String),
}

impl CredentialFile {
    /// Reads it; `None` when there is none that this user may read.
    pub(in crate::registry) fn read(path: &Path) -> Result<Option<CredentialFile>, SetupError> {
        let wrong = |source| SetupError::Credentials { path: path.to_owned(), source };
        let bytes = match read_bounded(path) {
            Ok(bytes) => bytes,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(wrong(error)),
        };
        let fields = parse(&bytes).map_err(wrong)?;
        Ok(Some(CredentialFile { path: path.to_owned(), fields }))
    }

    /// Reads it to change it; an empty one when there is none.
    pub(in crate::registry) fn open(path: &Path) -> Result<CredentialFile, SetupError> {
        match read_bounded(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(CredentialFile { path: path.to_owned(), fields: Map::new() })
            }
            Err(source) => Err(SetupError::Credentials { path: path.to_owned(), source }),
            Ok(bytes) => parse(&bytes)
                .map(|fields| CredentialFile { path: path.to_owned(), fields })
                .map_err(|source| SetupError::Credentials { path: path.to_owned(), source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The entry of `auths` with exactly this key.
    pub(super) fn entry(&self, key: &str) -> Option<&Value> {
        self.fields.get("auths")?.get(key)
    }

    /// The helper that keeps what concerns a registry.
    pub(super) fn helper(&self, domain: &str) -> Option<&str> {
        let helpers = self.fields.get("credHelpers");
        let own = host_keys(domain).into_iter().find_map(|key| helpers?.get(key)?.as_str());
        own.or_else(|| self.fields.get("credsStore")?.as_str()).filter(|name| !name.is_empty())
    }

    /// Keeps credentials for `key`: a registry, or a repository on it.
    pub(in crate::registry) fn store(
        &mut self,
        domain: &str,
        path: &str,
        user: &str,
        credentials: &Credentials,
    ) -> Result<Place, SetupError> {
        let key = match path {
            "" if domain == HUB_NAMES[0] => HUB_KEY.to_owned(),
            "" => domain.to_owned(),
            path => format!("{domain}/{path}"),
        };
        let helper = self.helper(domain).map(str::to_owned);
        let entry = match (&helper, credentials) {
            (Some(name), _) => {
                helper::store(name, &key, credentials)?;
                json!({})
            }
            (None, Credentials::Basic { user, secret }) => {
                json!({"auth": STANDARD.encode(format!("{user}:{secret}"))})
            }
            (None, Credentials::IdentityToken(token)) => {
                json!({"auth": STANDARD.encode(format!("{user}:")), "identitytoken": token})
            }
            (None, Credentials::RegistryToken(token)) => json!({"registrytoken": token}),
            (None, Credentials::Anonymous) => json!({}),
        };
        self.auths().insert(key, entry);
        self.write()?;
        Ok(helper.map_or_else(|| Place::File(self.path.clone()), Place::Helper))
    }

    /// Forgets a registry, or a repository on it; `false` when nothing was known.
    pub(in crate::registry) fn remove(&mut self, domain: &str, path: &str) -> Result<bool, SetupError> {
        let mut found = false;
        let keys = if path.is_empty() { host_keys(domain) } else { vec![format!("{domain}/{path}")] };
        if let Some(name) = self.helper(domain).map(str::to_owned) {
            let servers: Vec<String> = match path {
                "" => servers(domain).into_iter().map(str::to_owned).collect(),
                _ => keys.clone(),
            };
            for server in &servers {
                found |= helper::erase(&name, server)?;
            }
        }
        let before = self.auths().len();
        self.auths().retain(|key, _| !keys.contains(key));
        if self.auths().len() != before {
            found = true;
            self.write()?;
        }
        Ok(found)
    }

    /// Forgets every registry.
    pub(in crate::registry) fn remove_all(&mut self) -> Result<(), SetupError> {
        if let Some(name) = self.fields.get("credsStore").and_then(Value::as_str).map(str::to_owned) {
            for server in helper::list(&name)? {
                helper::erase(&name, &server)?;
            }
        }
        let named: Vec<(String, String)> = self
            .fields
            .get("credHelpers")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(server, name)| Some((server.clone(), name.as_str()?.to_owned())))
            .collect();
        for (server, name) in named {
            helper::erase(&name, &server)?;
        }
        if !self.auths().is_empty() {
            self.auths().clear();
            self.write()?;
        }
        Ok(())
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.fields.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths.as_object_mut().expect("it was just made one")
    }

    fn write(&self) -> Result<(), SetupError> {
        self.replace().map_err(|source| SetupError::Store { path: self.path.clone(), source })
    }

    fn replace(&self) -> io::Result<()> {
        let target = match self.path.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link to nothing yet leads to where the file is to be.
                std::fs::read_link(&self.path).map_or_else(
                    |_| self.path.clone(),
                    |link| self.path.parent().unwrap_or(Path::new(".")).join(link),
                )
            }
            Err(error) => return Err(error),
        };
        let directory = target.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut bytes = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.fields.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, format))?;
        bytes.push(b'\n');
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let draft = directory.join(format!(".{name}.{}.tmp", std::process::id()));
        let written = write_new(&draft, &bytes).and_then(|()| std::fs::rename(&draft, &target));
        if written.is_err() {
            // The error that counts is the first.
            let _ = std::fs::remove_file(&draft);
        }
        written?;
        File::open(directory)?.sync_all()
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Of this process's number, so left by a dead one.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_FILE) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has more than 1 MiB"));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> io::Result<Map<String, Value>> {
    // Podman makes empty files.
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    Ok(serde_json::from_slice(bytes)?)
}
