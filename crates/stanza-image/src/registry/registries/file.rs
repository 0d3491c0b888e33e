//! One file in the form of `registries.conf`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stanza_spec::Reference;
use toml::Spanned;

use crate::registry::setup::SetupError;

const MAX_FILE: u64 = 1024 * 1024;

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) search: Option<Vec<String>>,
}

/// A `[[registry]]`.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// `HOST[/PATH]`, or `*.DOMAIN`.
    pub(super) prefix: String,
    /// What stands for the prefix; empty for a wildcard that leaves names as they are.
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    pub(super) mirror_by_digest_only: bool,
    pub(super) mirrors: Vec<Mirror>,
    /// The file it comes from.
    pub(super) path: PathBuf,
}

/// A `[[registry.mirror]]`.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    pub(super) location: String,
    pub(super) insecure: bool,
    pub(super) from: MirrorUse,
}

/// For which names a mirror is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MirrorUse {
    /// For all, unless the registry says otherwise.
    #[default]
    All,
    /// For names with a digest.
    DigestOnly,
    /// For names without one.
    TagOnly,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<Spanned<RegistryTable>>,
    #[serde(default)]
    aliases: BTreeMap<String, Spanned<String>>,
    /// Of version 1.
    registries: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryTable {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Spanned<MirrorTable>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Option<PullFrom>,
}

/// An empty one says nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum PullFrom {
    Use(MirrorUse),
    Text(String),
}

/// The `*.conf` in a directory, by name.
pub(super) fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, SetupError> {
    let unreadable = |source| SetupError::Unreadable { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "conf") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads a file; `None` when it is absent and may be.
pub(super) fn read(path: &Path, required: bool) -> Result<Option<File>, SetupError> {
    use std::io::Read as _;
    let unreadable = |source| SetupError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if !required && is_absent(&error) => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(text.len()).map_or(true, |length| length > MAX_FILE) {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "it has more than 1 MiB")));
    }
    parse(path, &text).map(Some)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<File, SetupError> {
    let wrong = |at: Option<usize>, reason: String| SetupError::Wrong {
        path: path.to_owned(),
        line: at.map(|at| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1),
        reason,
    };
    let document: Document = toml::from_str(text)
        .map_err(|error| wrong(error.span().map(|span| span.start), error.message().to_owned()))?;
    if let Some(version_1) = document.registries {
        let reason =
            "`[registries]` is of version 1, which is not supported; write `[[registry]]`".to_owned();
        return Err(wrong(Some(version_1.span().start), reason));
    }
    let mut file = File { search: document.unqualified_search_registries, ..File::default() };
    for table in document.registry {
        let at = table.span().start;
        let entry = Entry::new(table.into_inner(), path)
            .map_err(|(inner, reason)| wrong(inner.or(Some(at)), reason))?;
        if file.entries.contains_key(&entry.prefix) {
            return Err(wrong(
                Some(at),
                format!("a second `[[registry]]` has the prefix `{}`", entry.prefix),
            ));
        }
        file.entries.insert(entry.prefix.clone(), entry);
    }
    for (name, full) in document.aliases {
        let at = full.span().start;
        let full = full.into_inner();
        if !full.is_empty() && !names_repository(&full) {
            let reason =
                format!("alias `{name}` has the value `{full}`, which is not `HOST/NAME` without a tag");
            return Err(wrong(Some(at), reason));
        }
        file.aliases.insert(name, full);
    }
    Ok(file)
}

impl Entry {
    /// Checks a table. The error has the place within the text, when it is more exact than the table's.
    fn new(table: RegistryTable, path: &Path) -> Result<Entry, (Option<usize>, String)> {
        let here = |reason: String| (None, reason);
        let location = trimmed(&table.location);
        let prefix = if table.prefix.is_empty() { location.clone() } else { trimmed(&table.prefix) };
        if prefix.is_empty() {
            return Err(here("a `[[registry]]` needs a `prefix` or a `location`".to_owned()));
        }
        let wildcard = prefix.strip_prefix("*.");
        if wildcard.unwrap_or(&prefix).contains('*') {
            return Err(here(format!("prefix `{prefix}` may have `*.` at its beginning only")));
        }
        if wildcard.is_none() && location.is_empty() {
            return Err(here(format!("the registry with the prefix `{prefix}` needs a `location`")));
        }
        if !location.is_empty() && !begins_with_host(&location) {
            return Err(here(format!("location `{location}` does not begin with a host")));
        }
        let mut mirrors = Vec::new();
        for mirror in table.mirror {
            let at = Some(mirror.span().start);
            let mirror = mirror.into_inner();
            let location = trimmed(&mirror.location);
            if location.is_empty() || !begins_with_host(&location) {
                return Err((at, format!("the mirror's location `{location}` does not begin with a host")));
            }
            let from = match mirror.pull_from_mirror {
                None => MirrorUse::All,
                Some(PullFrom::Text(text)) if text.is_empty() => MirrorUse::All,
                Some(PullFrom::Use(from)) => from,
                Some(PullFrom::Text(text)) => {
                    let reason = format!(
                        "`pull-from-mirror` is `all`, `digest-only` or `tag-only`, not `{}`",
                        text.escape_debug()
                    );
                    return Err((at, reason));
                }
            };
            if table.mirror_by_digest_only && from != MirrorUse::All {
                let reason =
                    "`mirror-by-digest-only` and `pull-from-mirror` are not for one registry".to_owned();
                return Err((at, reason));
            }
            mirrors.push(Mirror { location, insecure: mirror.insecure, from });
        }
        Ok(Entry {
            prefix,
            location,
            insecure: table.insecure,
            blocked: table.blocked,
            mirror_by_digest_only: table.mirror_by_digest_only,
            mirrors,
            path: path.to_owned(),
        })
    }

    /// How much of a full name the prefix covers, when it does.
    pub(super) fn matches(&self, name: &str) -> Option<usize> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            // `*.r.io` covers all hosts below r.io.
            let host = name.split('/').next().unwrap_or_default();
            let bare = host.split(':').next().unwrap_or_default();
            if bare.len() > domain.len() && bare.ends_with(domain) {
                return Some(bare.len());
            }
            return (host.len() > domain.len() && host.ends_with(domain)).then_some(host.len());
        }
        let rest = name.strip_prefix(&self.prefix)?;
        (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(self.prefix.len())
    }

    /// The name with `location` in place of what matched.
    pub(super) fn rewrite(
        &self,
        reference: &Reference,
        location: &str,
        matched: usize,
    ) -> Result<Reference, SetupError> {
        let name = reference.to_string();
        let rewritten = format!("{location}{}", &name[matched..]);
        rewritten.parse().map_err(|error: stanza_spec::ReferenceError| SetupError::Wrong {
            path: self.path.clone(),
            line: None,
            reason: format!("location `{location}` makes `{rewritten}` of `{name}`: {error}"),
        })
    }
}

fn trimmed(text: &str) -> String {
    text.trim_end_matches('/').to_owned()
}

/// Whether the part before the first slash cannot be a repository of Docker Hub.
fn begins_with_host(location: &str) -> bool {
    let host = location.split('/').next().unwrap_or_default();
    host == "localhost" || host.contains(['.', ':'])
}

/// `HOST/NAME`, without tag and digest.
fn names_repository(text: &str) -> bool {
    begins_with_host(text) && text.parse::<Reference>().is_ok_and(|reference| reference.repository() == text)
}
