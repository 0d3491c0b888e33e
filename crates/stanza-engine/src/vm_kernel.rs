//! Kernels for the guests of virtual machines: what there is, and getting one from the distribution.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stanza_spec::{Classify, ErrorKind};
use stanza_vmm::{InstallError, KernelFiles, Store, StoreError, install_kernel};

use crate::Engine;

/// Debian's package that depends on its newest kernel for virtual machines.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Why a kernel is not installed. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum GuestKernelError {
    /// The package is not one.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The store of virtual machines.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nobody to fetch a package.
    #[error("this machine has no `apt-get` to fetch a kernel with")]
    NoApt,
    /// The package cannot be fetched.
    #[error("cannot fetch the package `{package}`: {reason}")]
    Fetch {
        /// Its name.
        package: String,
        /// What apt says, or the kernel.
        reason: String,
    },
}

impl Classify for GuestKernelError {
    fn kind(&self) -> ErrorKind {
        match self {
            GuestKernelError::Install(_) => ErrorKind::InvalidArgument,
            GuestKernelError::Store(_) => ErrorKind::Internal,
            GuestKernelError::NoApt => ErrorKind::Unsupported,
            GuestKernelError::Fetch { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            GuestKernelError::NoApt => Some(
                "get Debian's package `linux-image-…-cloud-amd64` in another way, and name its file"
                    .to_owned(),
            ),
            GuestKernelError::Fetch { .. } => Some("`apt-get update` may help".to_owned()),
            GuestKernelError::Install(_) | GuestKernelError::Store(_) => None,
        }
    }
}

/// A kernel for guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestKernel {
    /// Its version; of the host's own, its file's.
    pub version: String,
    /// Its file.
    pub image: PathBuf,
}

impl Engine {
    /// Installs a kernel for guests from a Debian package, which is unpacked into stanza's own directory; without a file the
    /// distribution's newest for virtual machines is fetched.
    ///
    /// # Errors
    /// When there is no such package, or it is none.
    pub fn install_guest_kernel(&self, package: Option<&Path>) -> Result<GuestKernel, GuestKernelError> {
        let store = Store::open(&self.options.root)?;
        let (version, files) = match package {
            Some(package) => install_kernel(&store, package)?,
            None => {
                let directory = self.options.root.join("vm/download");
                let installed = fetch(&directory).and_then(|package| Ok(install_kernel(&store, &package)?));
                // What is left is removed by the next one.
                let _ = fs::remove_dir_all(&directory);
                installed?
            }
        };
        Ok(GuestKernel { version, image: files.image })
    }

    /// The kernel that guests get; `None` when there is none.
    ///
    /// # Errors
    /// When the store of virtual machines cannot be opened.
    pub fn guest_kernel(&self) -> Result<Option<GuestKernel>, GuestKernelError> {
        let store = Store::open(&self.options.root)?;
        Ok(KernelFiles::find(&store)
            .ok()
            .map(|files| GuestKernel { version: version(&files), image: files.image }))
    }
}

/// Installed kernels are in directories of their versions, the host's have them in their names.
fn version(files: &KernelFiles) -> String {
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = name(&files.image);
    match file.strip_prefix("vmlinuz-") {
        Some(version) => version.to_owned(),
        None => files.image.parent().map(name).unwrap_or_default(),
    }
}

/// Has apt fetch the distribution's kernel into a directory of its own.
fn fetch(directory: &Path) -> Result<PathBuf, GuestKernelError> {
    let failed =
        |package: &str, reason: String| GuestKernelError::Fetch { package: package.to_owned(), reason };
    let dependencies = run(Path::new("/"), "apt-cache", &["depends", PACKAGE])
        .map_err(|reason| reason.map_or(GuestKernelError::NoApt, |reason| failed(PACKAGE, reason)))?;
    let package = dependencies
        .lines()
        .find_map(|line| {
            line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-"))
        })
        .ok_or_else(|| failed(PACKAGE, "it depends on no kernel".to_owned()))?;
    let io_failed = |error: io::Error| failed(package, error.to_string());
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_failed(error)),
        _ => {}
    }
    fs::create_dir_all(directory).map_err(io_failed)?;
    run(directory, "apt-get", &["download", "--quiet", "-o", "APT::Sandbox::User=", package])
        .map_err(|reason| reason.map_or(GuestKernelError::NoApt, |reason| failed(package, reason)))?;
    let fetched = fs::read_dir(directory).map_err(io_failed)?.flatten().map(|entry| entry.path());
    fetched
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| failed(package, "`apt-get download` left no file".to_owned()))
}

/// Runs a program for its output; `None` when there is no such program.
fn run(directory: &Path, program: &str, words: &[&str]) -> Result<String, Option<String>> {
    let output = stanza_sys::as_helper(
        Command::new(program).args(words).current_dir(directory).stdin(Stdio::null()).env("LC_ALL", "C"),
    )
    .output();
    match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed");
            Err(Some(last.trim().to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(None),
        Err(error) => Err(Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_version_is_where_its_file_has_it() {
        let of = |image: &str| version(&KernelFiles { image: image.into(), modules: "/m".into() });
        assert_eq!(of("/root/vm/kernels/6.12.1-cloud-amd64/vmlinuz"), "6.12.1-cloud-amd64");
        assert_eq!(of("/boot/vmlinuz-6.1.0-cloud-amd64"), "6.1.0-cloud-amd64");
    }
}
