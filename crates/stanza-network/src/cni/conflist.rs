//! Network configurations in directories: `NAME.conflist`, `.conf` and `.json`.
//!
//! Directories are looked through in their order, files in that of their names. A file that is wrong hides no other one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use stanza_spec::{Classify, ErrorKind};

use super::plan::{CniNetwork, CniVersion};

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Why there is no such network configuration.
#[derive(Debug, thiserror::Error)]
pub enum CniConfigError {
    /// No file has it.
    #[error("no CNI network `{name}` in {}", in_dirs(.dirs))]
    NotFound {
        /// The network.
        name: String,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
        /// The networks that are there.
        known: Vec<String>,
        /// A file that is wrong, and may be the one that was meant.
        #[source]
        wrong: Option<Box<CniConfigError>>,
    },
    /// A file or directory cannot be read.
    #[error("cannot read the CNI configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file says something that cannot be.
    #[error("the CNI configuration `{}` is wrong: {reason}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file is of a version that is not spoken here.
    #[error("the CNI configuration `{}` is of version {version}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version.
        version: String,
    },
}

fn in_dirs(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| format!("`{}`", dir.display())).collect::<Vec<_>>().join(", ")
}

impl Classify for CniConfigError {
    fn kind(&self) -> ErrorKind {
        match self {
            CniConfigError::NotFound { .. } => ErrorKind::NotFound,
            CniConfigError::Read { source, .. } => ErrorKind::of_io(source),
            CniConfigError::Wrong { .. } => ErrorKind::InvalidArgument,
            CniConfigError::Version { .. } => ErrorKind::Unsupported,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CniConfigError::NotFound { known, .. } if known.is_empty() => Some(
                "put a file `NAME.conflist` there; docs/configuration.md tells of the directories".to_owned(),
            ),
            CniConfigError::NotFound { known, .. } => Some(format!("there are: {}", known.join(", "))),
            CniConfigError::Version { .. } => {
                let versions = CniVersion::ALL.map(CniVersion::as_str).join(", ");
                Some(format!("`cniVersion` may be one of {versions}"))
            }
            CniConfigError::Read { .. } | CniConfigError::Wrong { .. } => None,
        }
    }
}

/// The network configurations in the directories, and what is wrong with the other files. Of several with one name the first
/// counts.
#[must_use]
pub fn list(dirs: &[PathBuf]) -> (Vec<CniNetwork>, Vec<CniConfigError>) {
    let mut networks: Vec<CniNetwork> = Vec::new();
    let mut errors = Vec::new();
    for dir in dirs {
        let files = match files_in(dir) {
            Ok(files) => files,
            Err(source) => {
                errors.push(CniConfigError::Read { path: dir.clone(), source });
                continue;
            }
        };
        for file in files {
            match read(&file) {
                Ok(network) if networks.iter().any(|known| known.name == network.name) => {}
                Ok(network) => networks.push(network),
                Err(error) => errors.push(error),
            }
        }
    }
    (networks, errors)
}

/// The network configuration with that name.
///
/// # Errors
/// When no file has it, with the names that there are and the first file that is wrong.
pub fn find(dirs: &[PathBuf], name: &str) -> Result<CniNetwork, CniConfigError> {
    let (networks, errors) = list(dirs);
    let known = networks.iter().map(|network| network.name.clone()).collect();
    let found = networks.into_iter().find(|network| network.name == name);
    found.ok_or_else(|| CniConfigError::NotFound {
        name: name.to_owned(),
        dirs: dirs.to_vec(),
        known,
        wrong: errors.into_iter().next().map(Box::new),
    })
}

/// The files of a directory that are configurations by their names, sorted; none when there is no directory.
fn files_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("conflist" | "conf" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<CniNetwork, CniConfigError> {
    let failed = |source| CniConfigError::Read { path: path.to_owned(), source };
    // Not a pipe that nobody writes to.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_SIZE {
        let reason = "it is no file of at most 1 MiB".to_owned();
        return Err(CniConfigError::Wrong { path: path.to_owned(), reason });
    }
    parse(path, &fs::read(path).map_err(failed)?)
}

/// Reads one configuration; a single plugin is a chain of one.
fn parse(path: &Path, text: &[u8]) -> Result<CniNetwork, CniConfigError> {
    let wrong = |reason: String| CniConfigError::Wrong { path: path.to_owned(), reason };
    let mut config: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    let name = match config.get("name").and_then(Value::as_str) {
        Some(name) if is_network_name(name) => name.to_owned(),
        Some(name) => return Err(wrong(format!("`{}` is no name of a network", name.escape_debug()))),
        None => return Err(wrong("it has no `name`".to_owned())),
    };
    let version = version(path, &config)?;
    let flag = |key: &str| match config.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        // The specification says that it is a string, its examples that it is not.
        Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
        Some(_) => Err(wrong(format!("`{key}` is neither true nor false"))),
    };
    let (disable_check, disable_gc) = (flag("disableCheck")?, flag("disableGC")?);
    let plugins = match config.remove("plugins") {
        Some(Value::Array(plugins)) => plugins
            .into_iter()
            .map(|plugin| match plugin {
                Value::Object(plugin) => Ok(plugin),
                _ => Err(wrong("a plugin is no object".to_owned())),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong("`plugins` is no list".to_owned())),
        None => vec![config],
    };
    if plugins.is_empty() {
        return Err(wrong("`plugins` is empty".to_owned()));
    }
    for plugin in &plugins {
        match plugin.get("type").and_then(Value::as_str) {
            Some(kind) if is_plugin_name(kind) => {}
            Some(kind) => return Err(wrong(format!("`{}` is no name of a plugin", kind.escape_debug()))),
            None => return Err(wrong("a plugin has no `type`".to_owned())),
        }
    }
    Ok(CniNetwork { name, version, file: path.to_owned(), disable_check, disable_gc, plugins })
}

/// The highest version that the configuration names and that is spoken here.
fn version(path: &Path, config: &Map<String, Value>) -> Result<CniVersion, CniConfigError> {
    let wrong = |what: &str| CniConfigError::Wrong { path: path.to_owned(), reason: what.to_owned() };
    let one = match config.get("cniVersion") {
        Some(Value::String(text)) => Some(text.as_str()),
        None => None,
        Some(_) => return Err(wrong("`cniVersion` is no text")),
    };
    let mut named: Vec<&str> = one.into_iter().collect();
    match config.get("cniVersions") {
        Some(Value::Array(several)) => named.extend(several.iter().filter_map(Value::as_str)),
        None => {}
        Some(_) => return Err(wrong("`cniVersions` is no list")),
    }
    let known = named.iter().filter_map(|text| CniVersion::of(text)).max();
    // Without a version it is 0.1.0.
    let version = if named.is_empty() { "0.1.0".to_owned() } else { named.join(", ") };
    known.ok_or_else(|| CniConfigError::Version { path: path.to_owned(), version })
}

/// A letter or digit, then letters, digits, `_`, `.` and `-`.
fn is_network_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// A file name, so that a plugin is only ever found in the configured directories.
pub(super) fn is_plugin_name(kind: &str) -> bool {
    !matches!(kind, "" | "." | "..") && !kind.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<CniNetwork, String> {
        parse(Path::new("/d/n.conflist"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_and_a_single_plugin_are_chains() {
        let list = parsed(
            r#"{"cniVersion": "0.4.0", "name": "db-net.1", "disableCheck": "true", "disableGC": true,
                "plugins": [{"type": "bridge", "bridge": "cni0"}, {"type": "portmap"}]}"#,
        )
        .unwrap();
        assert_eq!((list.name.as_str(), list.version), ("db-net.1", CniVersion::V0_4_0));
        assert!(list.disable_check && list.disable_gc);
        let types: Vec<_> = list.plugins.iter().map(|plugin| plugin["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["bridge", "portmap"]);
        let one = parsed(r#"{"cniVersion": "0.3.1", "name": "n", "type": "ptp", "ipMasq": true}"#).unwrap();
        assert_eq!(one.plugins.len(), 1);
        assert_eq!(one.plugins[0]["ipMasq"], true);
        assert!(!one.disable_check && !one.disable_gc);
    }

    #[test]
    fn the_highest_version_that_both_speak_counts() {
        let versions = |text: &str| {
            parsed(&format!(r#"{{"name": "n", {text} "plugins": [{{"type": "a"}}]}}"#))
                .map(|network| network.version)
        };
        assert_eq!(
            versions(r#""cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0", "9.0.0"],"#),
            Ok(CniVersion::V1_1_0)
        );
        assert_eq!(versions(r#""cniVersions": ["0.1.0", "0.3.1"],"#), Ok(CniVersion::V0_3_1));
        for text in [r#""cniVersion": "2.0.0","#, r#""cniVersion": "0.2.0","#, ""] {
            let error = versions(text).unwrap_err();
            assert!(error.contains("is of version"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told() {
        for (text, word) in [
            ("", "EOF"),
            ("[]", "map"),
            (r#"{"cniVersion": "1.0.0", "type": "a"}"#, "`name`"),
            (r#"{"cniVersion": "1.0.0", "name": "../n", "type": "a"}"#, "../n"),
            (r#"{"cniVersion": 1, "name": "n", "type": "a"}"#, "cniVersion"),
            (r#"{"cniVersion": "1.0.0", "name": "n"}"#, "`type`"),
            (r#"{"cniVersion": "1.0.0", "name": "n", "type": "../../bin/sh"}"#, "../../bin/sh"),
            (r#"{"cniVersion": "1.0.0", "name": "n", "type": ".."}"#, "`..`"),
            (r#"{"cniVersion": "1.0.0", "name": "n", "plugins": []}"#, "empty"),
            (r#"{"cniVersion": "1.0.0", "name": "n", "plugins": {}}"#, "list"),
            (r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [3]}"#, "object"),
            (r#"{"cniVersion": "1.0.0", "name": "n", "disableCheck": 3, "type": "a"}"#, "disableCheck"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains("/d/n.conflist") && error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn directories_count_in_their_order_and_a_wrong_file_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let config = |name: &str, kind: &str| {
            format!(r#"{{"cniVersion": "1.0.0", "name": "{name}", "type": "{kind}"}}"#)
        };
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        fs::write(one.join("10-wrong.conflist"), "{").unwrap();
        fs::write(one.join("20-a.conf"), config("a", "first")).unwrap();
        fs::write(one.join("30-a.json"), config("a", "second")).unwrap();
        fs::write(one.join("40-b.txt"), config("b", "first")).unwrap();
        fs::write(two.join("a.conflist"), config("a", "third")).unwrap();
        fs::write(two.join("b.conflist"), config("b", "third")).unwrap();
        let dirs = [dir.path().join("missing"), one, two];
        assert_eq!(find(&dirs, "a").unwrap().plugins[0]["type"], "first");
        assert_eq!(find(&dirs, "b").unwrap().plugins[0]["type"], "third");
        let error = find(&dirs, "c").unwrap_err();
        assert_eq!((error.kind(), error.hint().as_deref()), (ErrorKind::NotFound, Some("there are: a, b")));
        let wrong = std::error::Error::source(&error).unwrap().to_string();
        assert!(wrong.contains("10-wrong.conflist"), "{wrong}");
    }
}
