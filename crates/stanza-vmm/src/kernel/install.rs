//! A Debian kernel package is unpacked for guests, without being installed on the host: nothing of it runs, and only its
//! kernel, configuration and modules are kept.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use stanza_tar::{Archive, EntryKind, Limits, TarError};

use super::KernelFiles;
use super::deb::{DebError, find_data};
use crate::bounded;
use crate::compression::Compression;
use crate::store::{Store, StoreError};

/// Debian's cloud kernel packages have 26 to 35 MB, its general ones 100.
const PACKAGE_LIMIT: u64 = 512 << 20;
/// What is unpacked from one, at most: a general kernel with its modules has 400 MB.
const UNPACKED_LIMIT: u64 = 2 << 30;

/// Why a package was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The package cannot be read.
    #[error("cannot read the package `{path}`")]
    Read {
        /// The package.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no Debian package.
    #[error("cannot unpack `{path}`")]
    Package {
        /// The package.
        path: PathBuf,
        /// Why not.
        #[source]
        source: DebError,
    },
    /// The archive in it is corrupt.
    #[error("cannot unpack the files of `{path}`")]
    Archive {
        /// The package.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TarError,
    },
    /// It is a package of something else.
    #[error(
        "`{0}` is no kernel package: expected one file `boot/vmlinuz-VERSION` and its `lib/modules/VERSION`"
    )]
    NoKernel(PathBuf),
    /// It is larger than any kernel.
    #[error("`{0}` unpacks to more than {UNPACKED_LIMIT} bytes")]
    Large(PathBuf),
    /// A file cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Unpacks the kernel in the Debian package `path` into the store; there, it comes before the host's own. Gives its version.
///
/// # Errors
/// When `path` is no kernel package. Nothing is changed then.
pub fn install_kernel(store: &Store, path: &Path) -> Result<(String, KernelFiles), InstallError> {
    let package = bounded::read_file(path, PACKAGE_LIMIT)
        .map_err(|source| InstallError::Read { path: path.to_owned(), source })?;
    let broken = |source| InstallError::Package { path: path.to_owned(), source };
    let (member, data) = find_data(&package).map_err(broken)?;
    let reader: Box<dyn Read + '_> = match Compression::of(data) {
        Some(compression) => compression
            .reader(data)
            .map_err(|source| broken(DebError::Content { member: member.clone(), source }))?,
        None if member == "data.tar" => Box::new(data),
        None => return Err(broken(DebError::Compression(member))),
    };
    let making = store.lock()?;
    let directory = making.directory()?;
    let version = unpack(path, reader, &directory)?;
    let name = store.path("kernels").join(&version);
    making.publish(&directory, &name)?;
    Ok((version, KernelFiles { image: name.join("vmlinuz"), modules: name.join("modules") }))
}

fn unpack(package: &Path, reader: Box<dyn Read + '_>, directory: &Path) -> Result<String, InstallError> {
    let broken = |source| InstallError::Archive { path: package.to_owned(), source };
    let mut archive = Archive::new(BufReader::new(reader), Limits::default());
    let (mut version, mut modules, mut unpacked) = (None, None, 0);
    while let Some(entry) = archive.next_entry().map_err(broken)? {
        let (header, _, mut content) = entry.into_parts();
        if header.kind != EntryKind::File {
            continue;
        }
        let Some(wanted) = std::str::from_utf8(&header.path).ok().and_then(place) else { continue };
        unpacked += header.size;
        if unpacked > UNPACKED_LIMIT {
            return Err(InstallError::Large(package.to_owned()));
        }
        if wanted.path.as_os_str() == "vmlinuz" && version.replace(wanted.version.to_owned()).is_some() {
            return Err(InstallError::NoKernel(package.to_owned()));
        }
        if wanted.path == Path::new("modules/modules.builtin") {
            modules = Some(wanted.version.to_owned());
        }
        let path = directory.join(&wanted.path);
        let failed = |source| InstallError::Write { path: path.clone(), source };
        fs::create_dir_all(path.parent().unwrap_or(directory)).map_err(failed)?;
        io::copy(&mut content, &mut File::create(&path).map_err(failed)?).map_err(failed)?;
    }
    version
        .filter(|version| Some(version) == modules.as_ref())
        .ok_or_else(|| InstallError::NoKernel(package.to_owned()))
}

struct Place<'a> {
    version: &'a str,
    path: PathBuf,
}

/// Where a file of the package goes; `None` for what is not needed. No result leads out of its directory.
fn place(path: &str) -> Option<Place<'_>> {
    let path = path.trim_start_matches("./");
    if Path::new(path).components().any(|part| !matches!(part, Component::Normal(_))) {
        return None;
    }
    let path = path.strip_prefix("usr/").unwrap_or(path);
    if let Some((file, version)) = path.strip_prefix("boot/").and_then(|name| name.split_once('-')) {
        let file = ["vmlinuz", "config"].into_iter().find(|known| *known == file)?;
        return (is_version(version)).then(|| Place { version, path: file.into() });
    }
    let (version, rest) = path.strip_prefix("lib/modules/")?.split_once('/')?;
    is_version(version).then(|| Place { version, path: Path::new("modules").join(rest) })
}

fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+~_".contains(&byte);
    text.len() <= 128
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
        && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use stanza_tar::{Builder, Header};

    use super::super::deb::tests::package;
    use super::*;

    fn tar(files: &[&str]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for file in files {
            let header = Header { path: file.as_bytes().to_vec(), mode: 0o644, size: 4, ..Header::default() };
            builder.append(&header, &mut &b"data"[..]).unwrap();
        }
        builder.finish().unwrap()
    }

    fn install(files: &[&str]) -> (tempfile::TempDir, Result<(String, KernelFiles), InstallError>) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let path = root.path().join("linux.deb");
        let data = zstd::encode_all(&tar(files)[..], 1).unwrap();
        fs::write(&path, package(&[("debian-binary", b"2.0\n"), ("data.tar.zst", &data)])).unwrap();
        let result = install_kernel(&store, &path);
        (root, result)
    }

    #[test]
    fn only_kernel_configuration_and_modules_are_unpacked() {
        let (root, result) = install(&[
            "./boot/vmlinuz-6.1.0-1-cloud-amd64",
            "./boot/config-6.1.0-1-cloud-amd64",
            "./boot/System.map-6.1.0-1-cloud-amd64",
            "./usr/lib/modules/6.1.0-1-cloud-amd64/modules.builtin",
            "./usr/lib/modules/6.1.0-1-cloud-amd64/kernel/fs/erofs/erofs.ko",
            "./usr/lib/modules/../../../../escape",
            "./etc/kernel/postinst.d/run-me",
        ]);
        let (version, files) = result.unwrap();
        assert_eq!(version, "6.1.0-1-cloud-amd64");
        assert!(files.image.is_file() && files.modules.join("kernel/fs/erofs/erofs.ko").is_file());
        let mut names: Vec<_> = fs::read_dir(files.image.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["config", "modules", "vmlinuz"]);
        assert!(!root.path().join("escape").exists());
    }

    #[test]
    fn another_package_is_refused_and_leaves_nothing() {
        for files in [
            &["./usr/bin/true"][..],
            &["./boot/vmlinuz-6.1", "./lib/modules/6.2/modules.builtin"],
            &["./boot/vmlinuz-../../x", "./lib/modules/6.2/modules.builtin"],
        ] {
            let (root, result) = install(files);
            assert!(matches!(result, Err(InstallError::NoKernel(_))), "{files:?}");
            assert_eq!(fs::read_dir(root.path().join("vm/kernels")).unwrap().count(), 0);
        }
    }
}
