//! Blobs: written through a hash, read back against their digest.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use stanza_spec::Digest;

use super::ImageStore;
use super::error::{IoContext, StoreError};
use crate::hash::{Hasher, digest_like};

/// A blob on its way in: hashed while it is written, bounded by its descriptor, nameless until it is whole.
///
/// Dropping it removes the partial file.
pub(crate) struct BlobWriter {
    path: PathBuf,
    file: Option<File>,
    hasher: Hasher,
    expected: Option<(Digest, u64)>,
    written: u64,
}

impl BlobWriter {
    /// Starts a blob in the new file `path`. With `expected`, content of another size or digest is refused.
    pub(super) fn create(path: PathBuf, expected: Option<(Digest, u64)>) -> Result<BlobWriter, StoreError> {
        let file =
            File::options().create_new(true).read(true).write(true).open(&path).context("create", &path)?;
        let hasher = expected.as_ref().map_or_else(Hasher::sha256, |(digest, _)| Hasher::like(digest));
        Ok(BlobWriter { path, file: Some(file), hasher, expected, written: 0 })
    }

    /// Hashes with the algorithm of `digest` from now on; for a blob whose digest is claimed, not known.
    pub(super) fn hash_like(mut self, digest: &Digest) -> BlobWriter {
        self.hasher = Hasher::like(digest);
        self
    }

    /// Bytes taken so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When there are more than the descriptor says (found at the first byte too many), or the disk is full.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let after = self.written.saturating_add(length);
        if let Some((digest, size)) = &self.expected
            && after > *size
        {
            return Err(StoreError::Size { digest: digest.clone(), expected: *size, actual: after });
        }
        let file = self.file.as_mut().expect("the file is open until the writer is finished");
        file.write_all(bytes).context("write", &self.path)?;
        self.hasher.update(bytes);
        self.written = after;
        Ok(())
    }

    /// Checks size and digest, and gives the temporary name of the file, with what it holds.
    pub(super) fn finish(mut self) -> Result<(PathBuf, Digest, u64), StoreError> {
        let actual = std::mem::replace(&mut self.hasher, Hasher::sha256()).finish();
        if let Some((digest, size)) = &self.expected {
            if self.written != *size {
                return Err(StoreError::Size {
                    digest: digest.clone(),
                    expected: *size,
                    actual: self.written,
                });
            }
            if actual != *digest {
                return Err(StoreError::Corrupt { expected: digest.clone(), actual });
            }
        }
        self.file = None;
        Ok((std::mem::take(&mut self.path), actual, self.written))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.file.is_some() {
            // The partial file is removed with its ingest directory at the latest.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ImageStore {
    /// Reads a small blob whole, and checks it against its digest.
    ///
    /// # Errors
    /// When it is not there, longer than `limit`, or has other content than its name says.
    pub(crate) fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let bytes = match read_bounded(&path, limit) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { digest: digest.clone() });
            }
            Err(error) => return Err(error).context("read", &path),
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length > limit {
            return Err(StoreError::Document {
                digest: digest.clone(),
                reason: format!("it has more than {limit} bytes"),
            });
        }
        let actual = digest_like(digest, &bytes);
        if actual != *digest {
            return Err(StoreError::Corrupt { expected: digest.clone(), actual });
        }
        Ok(bytes)
    }
}

/// Reads at most `limit` + 1 bytes of a file.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len().min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
