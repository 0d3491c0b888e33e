//! Compiled system call filters, kept in `<root>/cache/seccomp`: a filter is compiled once per profile, capabilities
//! and version of stanza, never per start.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use stanza_container::ALL_CAPABILITIES;
use stanza_container::seccomp;
use stanza_spec::{Classify, ContainerConfig, ErrorKind, SeccompChoice};

use crate::engine::make_directory;
use crate::{Engine, names};

/// Raised when the same profile compiles to another filter within one version of stanza.
const REVISION: u32 = 1;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The user's profile is not one.
    #[error("cannot read the seccomp profile")]
    Profile(#[source] seccomp::ProfileError),
    /// It cannot be compiled.
    #[error("cannot compile the seccomp profile")]
    Compile(#[source] seccomp::CompileError),
    /// The filter cannot be kept.
    #[error("cannot write the seccomp filter `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Classify for SeccompError {
    fn kind(&self) -> ErrorKind {
        match self {
            SeccompError::Profile(_) | SeccompError::Compile(_) => ErrorKind::InvalidArgument,
            SeccompError::Write { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            SeccompError::Profile(_) | SeccompError::Compile(_) => Some(
                "the profile is JSON as Docker documents it; `--security-opt seccomp=unconfined` runs without one".to_owned(),
            ),
            SeccompError::Write { .. } => None,
        }
    }
}

impl Engine {
    /// The file with the container's filter, compiled when it is not there; `None` when it has none.
    pub(crate) fn ensure_filter(
        &self,
        config: &ContainerConfig,
        granted: &BTreeSet<&'static str>,
    ) -> Result<Option<PathBuf>, SeccompError> {
        let profile = match &config.security.seccomp {
            SeccompChoice::Unconfined => return Ok(None),
            SeccompChoice::Default if config.security.privileged => return Ok(None),
            SeccompChoice::Default => None,
            SeccompChoice::Profile(text) => Some(text.as_str()),
        };
        let directory = self.options.seccomp_dir();
        let path = directory.join(key(profile, granted));
        if rustix::fs::access(&path, rustix::fs::Access::READ_OK).is_ok() {
            return Ok(Some(path));
        }
        let names: Vec<&str> = granted.iter().copied().collect();
        let profile = match profile {
            None => Some(seccomp::default_profile(&names)),
            Some(text) => seccomp::parse_docker_profile(text, &names, std::env::consts::ARCH)
                .map_err(SeccompError::Profile)?,
        };
        let Some(profile) = profile else { return Ok(None) };
        let filter = seccomp::compile(&profile).map_err(SeccompError::Compile)?;
        write(&directory, &path, &filter.to_bytes())
            .map_err(|source| SeccompError::Write { path: path.clone(), source })?;
        Ok(Some(path))
    }
}

/// `<default or hash of the profile>-<capability bits>-<architecture>-<version>.bpf`.
fn key(profile: Option<&str>, granted: &BTreeSet<&'static str>) -> String {
    let bits = ALL_CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(_, name)| granted.contains(*name))
        .fold(0u64, |bits, (number, _)| bits | 1 << number);
    let name = profile.map_or_else(
        || "default".to_owned(),
        |text| stanza_spec::Digest::from_hash(&Sha256::digest(text)).hex().to_owned(),
    );
    format!("{name}-{bits:x}-{}-{}.{REVISION}.bpf", std::env::consts::ARCH, env!("CARGO_PKG_VERSION"))
}

fn write(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_directory(directory, 0o700)?;
    let draft = directory.join(format!(".{}", names::container_id()?.short()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let result = file.write_all(bytes).and_then(|()| fs::rename(&draft, path));
    if result.is_err() {
        let _ = fs::remove_file(&draft);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_a_name_for_everything_it_depends_on() {
        let some = BTreeSet::from(["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        let name = key(None, &some);
        assert!(name.starts_with("default-3-") && name.ends_with(".1.bpf"), "{name}");
        assert_ne!(key(None, &BTreeSet::new()), name);
        assert_ne!(key(Some("{}"), &some), key(Some("[]"), &some));
    }
}
