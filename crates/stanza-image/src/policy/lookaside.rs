//! Where signatures lie that no registry holds: `registries.d` (containers-registries.d(5)).
//!
//! ```text
//! <lookaside>/<repository>@sha256=<hex>/signature-1, -2 ...
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stanza_spec::{Digest, Reference};

use super::error::PolicyError;
use super::identity::docker_scopes;
use super::{Places, read_bounded};

const MAX_FILE: u64 = 1024 * 1024;
const MAX_FILES: usize = 1024;

/// One file; what is not about reading is left alone, as containers/image does.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Configuration {
    #[serde(default)]
    default_docker: Option<Namespace>,
    #[serde(default)]
    docker: Option<BTreeMap<String, Namespace>>,
}

#[derive(Clone, Default, Deserialize)]
struct Namespace {
    #[serde(default)]
    lookaside: Option<String>,
    /// The older name.
    #[serde(default)]
    sigstore: Option<String>,
}

impl Namespace {
    fn base(&self) -> Option<&str> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty()).is_some();
        if given(&self.lookaside) { self.lookaside.as_deref() } else { self.sigstore.as_deref() }
            .filter(|base| !base.is_empty())
    }
}

/// Where the signatures of one image are kept.
pub(super) struct Lookaside(String);

impl Lookaside {
    /// What the configuration says about `image`, or the directory that all tools of the family share.
    pub(super) fn of(image: &Reference, places: &Places) -> Result<Lookaside, PolicyError> {
        let configured = merged(&places.registries_d())?;
        let named = docker_scopes(image)
            .iter()
            .filter_map(|scope| configured.docker.as_ref()?.get(scope)?.base().map(str::to_owned))
            .next();
        let base = named
            .or_else(|| configured.default_docker.as_ref()?.base().map(str::to_owned))
            .unwrap_or_else(|| format!("file://{}", places.sigstore.display()));
        Ok(Lookaside(format!("{base}/{}", image.path())))
    }

    /// The place of the signature `number`, counted from 1.
    pub(super) fn location(&self, manifest: &Digest, number: usize) -> String {
        format!("{}@{}={}/signature-{number}", self.0, manifest.algorithm(), manifest.hex())
    }
}

/// All files of the directory together; what two of them say is an error.
fn merged(directory: &Path) -> Result<Configuration, PolicyError> {
    let mut merged = Configuration::default();
    let mut docker: BTreeMap<String, Namespace> = BTreeMap::new();
    for path in files(directory)? {
        let wrong = |reason: String| PolicyError::File { path: path.clone(), reason };
        let bytes = read_bounded(&path, MAX_FILE)?;
        let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        let read: Option<Configuration> =
            serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let Some(read) = read else { continue };
        if read.default_docker.is_some() {
            if merged.default_docker.is_some() {
                return Err(wrong("`default-docker` is in another file too".to_owned()));
            }
            merged.default_docker = read.default_docker;
        }
        for (scope, namespace) in read.docker.unwrap_or_default() {
            if docker.insert(scope.clone(), namespace).is_some() {
                return Err(wrong(format!("`{}` is in another file too", scope.escape_debug())));
            }
        }
    }
    merged.docker = Some(docker);
    Ok(merged)
}

/// The `*.yaml` of a directory, in the order of their names.
fn files(directory: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let wrong = |source| PolicyError::Read { path: directory.to_path_buf(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(wrong)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(wrong(io::Error::other("it has too many files")));
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(directory: &Path) -> Places {
        Places { user: None, system: directory.to_path_buf(), sigstore: PathBuf::from("/sigstore") }
    }

    fn located(places: &Places, image: &str) -> String {
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let lookaside = Lookaside::of(&image.parse().unwrap(), places).unwrap();
        let location = lookaside.location(&digest, 2);
        location.strip_suffix(&format!("@sha256={}/signature-2", "0".repeat(64))).unwrap().to_owned()
    }

    #[test]
    fn the_most_specific_place_wins() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        assert_eq!(located(&places, "r.io/ns/a:1"), "file:///sigstore/ns/a");
        let registries = directory.path().join("registries.d");
        fs::create_dir(&registries).unwrap();
        fs::write(
            registries.join("a.yaml"),
            "default-docker:\n  lookaside: file:///default\ndocker:\n  r.io:\n    sigstore: https://s.io/x\n    \
             use-sigstore-attachments: true\n",
        )
        .unwrap();
        fs::write(
            registries.join("b.yaml"),
            "docker:\n  r.io/ns:\n    lookaside: file:///ns\n    sigstore: file:///old\n  \"*.example.com\": {}\n",
        )
        .unwrap();
        fs::write(registries.join("empty.yaml"), "# nothing\n").unwrap();
        fs::write(registries.join("c.txt"), "not: [read").unwrap();
        for (image, base) in [
            ("r.io/ns/a:1", "file:///ns/ns/a"),
            ("r.io/b:1", "https://s.io/x/b"),
            ("other.io/c", "file:///default/c"),
            ("a.example.com/c", "file:///default/c"),
        ] {
            assert_eq!(located(&places, image), base);
        }
        fs::write(registries.join("d.yaml"), "docker:\n  r.io:\n    lookaside: file:///y\n").unwrap();
        let image = "r.io/b:1".parse().unwrap();
        assert!(matches!(Lookaside::of(&image, &places), Err(PolicyError::File { .. })));
        fs::write(registries.join("d.yaml"), "docker: [\n").unwrap();
        assert!(matches!(Lookaside::of(&image, &places), Err(PolicyError::File { .. })));
    }
}
