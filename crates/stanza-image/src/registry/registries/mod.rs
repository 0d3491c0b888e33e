//! `registries.conf`: where registries really are (containers-registries.conf(5), version 2).
//!
//! ```text
//! $CONTAINERS_REGISTRIES_CONF, else ~/.config/containers/registries.conf, else /etc/containers/registries.conf
//! then the drop-ins, by name: /etc/containers/registries.conf.d/*.conf (not beside a file of the user's own),
//!                             ~/.config/containers/registries.conf.d/*.conf
//! ```
//!
//! A later file replaces a `[[registry]]` of the same prefix, and single aliases; `$XDG_CONFIG_HOME` stands for `~/.config`.
//!
//! What differs from Podman: a short name without an alias is one of Docker Hub, as in Docker, whatever
//! `unqualified-search-registries` says, so that a name means the same image on every machine; `short-name-mode` has
//! nothing to decide then; `credential-helpers` is Podman's own, helpers are named in the files of credentials.

mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use stanza_spec::Reference;

use self::file::{Entry, MirrorUse};
use super::setup::SetupError;

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConfig {
    /// By prefix.
    entries: BTreeMap<String, Entry>,
    /// By short name; an empty one was taken back.
    aliases: BTreeMap<String, String>,
    /// Registries that Podman asks for short names.
    search: Vec<String>,
}

/// One place where an image may be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The image's name there.
    pub reference: Reference,
    /// Plain http and any certificate will do.
    pub insecure: bool,
    /// Not the registry itself: what it has not is asked elsewhere.
    pub is_mirror: bool,
}

impl RegistriesConfig {
    /// The files of the calling user and of the system.
    ///
    /// # Errors
    /// When one cannot be read or is wrong; it is named, with its line.
    pub fn load() -> Result<RegistriesConfig, SetupError> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = variable("XDG_CONFIG_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".config")))
            .map(|directory| directory.join("containers"));
        RegistriesConfig::load_from(
            variable("CONTAINERS_REGISTRIES_CONF"),
            user,
            PathBuf::from("/etc/containers"),
        )
    }

    fn load_from(
        named: Option<PathBuf>,
        user: Option<PathBuf>,
        system: PathBuf,
    ) -> Result<RegistriesConfig, SetupError> {
        let mut config = RegistriesConfig::default();
        let mut directories = vec![system.join("registries.conf.d")];
        let of_user = user.as_ref().map(|user| user.join("registries.conf")).filter(|path| path.exists());
        match (named, of_user) {
            (Some(path), _) => config.read(&path, true)?,
            (None, Some(path)) => {
                config.read(&path, true)?;
                directories.clear();
            }
            (None, None) => config.read(&system.join("registries.conf"), false)?,
        }
        directories.extend(user.map(|user| user.join("registries.conf.d")));
        for directory in directories {
            for path in file::drop_ins(&directory)? {
                config.read(&path, true)?;
            }
        }
        Ok(config)
    }

    fn read(&mut self, path: &std::path::Path, required: bool) -> Result<(), SetupError> {
        let Some(read) = file::read(path, required)? else { return Ok(()) };
        self.entries.extend(read.entries);
        self.aliases.extend(read.aliases);
        if let Some(search) = read.search {
            self.search = search;
        }
        Ok(())
    }

    /// The full name that an alias gives to a short one (without registry, tag and digest).
    #[must_use]
    pub fn resolve_alias(&self, name: &str) -> Option<String> {
        self.aliases.get(name).filter(|full| !full.is_empty()).cloned()
    }

    /// The registries that Podman asks for a short name; stanza asks Docker Hub.
    #[must_use]
    pub fn unqualified_search_registries(&self) -> &[String] {
        &self.search
    }

    /// Where an image is to be asked for: the mirrors in their order, then the registry itself.
    ///
    /// # Errors
    /// When the registry is blocked, or what a location makes of the name is none.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, SetupError> {
        let Some((entry, matched)) = self.entry(reference) else {
            return Ok(vec![Endpoint { reference: reference.clone(), insecure: false, is_mirror: false }]);
        };
        if entry.blocked {
            return Err(SetupError::Blocked {
                prefix: entry.prefix.clone(),
                path: entry.path.clone(),
                reference: reference.to_string(),
            });
        }
        let by_digest = reference.digest().is_some();
        let mut endpoints = Vec::new();
        for mirror in &entry.mirrors {
            let wanted = match mirror.from {
                MirrorUse::All => !entry.mirror_by_digest_only || by_digest,
                MirrorUse::DigestOnly => by_digest,
                MirrorUse::TagOnly => !by_digest,
            };
            if wanted {
                endpoints.push(Endpoint {
                    reference: entry.rewrite(reference, &mirror.location, matched)?,
                    insecure: mirror.insecure,
                    is_mirror: true,
                });
            }
        }
        let own = match entry.location.as_str() {
            "" => reference.clone(),
            location => entry.rewrite(reference, location, matched)?,
        };
        endpoints.push(Endpoint { reference: own, insecure: entry.insecure, is_mirror: false });
        Ok(endpoints)
    }

    /// The entry with the longest match, and how much of the name matched.
    fn entry(&self, reference: &Reference) -> Option<(&Entry, usize)> {
        let name = reference.to_string();
        self.entries
            .values()
            .filter_map(|entry| Some((entry, entry.matches(&name)?)))
            .max_by_key(|(entry, matched)| (*matched, entry.prefix.len()))
    }
}

/// What `text` means with the aliases of [`RegistriesConfig`]: the full name, with its tag or digest. `None` when it names a
/// registry, or there is no alias: then it means what it says.
///
/// # Errors
/// When a file of settings is wrong.
pub fn expand_alias(text: &str) -> Result<Option<String>, SetupError> {
    let name = short_name(text);
    if name.is_empty() || text.parse::<Reference>().map_or(true, |reference| has_domain(&reference, name)) {
        return Ok(None);
    }
    let alias = RegistriesConfig::load()?.resolve_alias(name);
    Ok(alias.map(|full| format!("{full}{}", &text[name.len()..])))
}

/// The part before tag and digest.
fn short_name(text: &str) -> &str {
    let name = text.split('@').next().unwrap_or_default();
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

fn has_domain(reference: &Reference, name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    name.contains('/') && reference.domain() == first || reference.domain() != "docker.io"
}

#[cfg(test)]
mod tests;
