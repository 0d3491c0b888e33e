//! `import`: a root file system becomes an image of one layer.

use std::io::{self, BufRead, BufReader, Read};

use stanza_spec::oci::image::{Arch, HistoryBuilder, Os, RootFsBuilder};
use stanza_spec::oci::image::{Config, ImageConfiguration, ImageConfigurationBuilder};
use stanza_spec::{Classify, Digest, ErrorKind, Instant, Platform, Reference};
use stanza_tar::{Archive, Limits, TarError};

use crate::changes;
use crate::compression::{Compression, Decoder};
use crate::document::{Descriptor, NewManifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::hash::{Hasher, sha256};
use crate::image::Image;
use crate::store::{BlobWriter, ImageStore, NewEntry, ResolveError, Spooled, StoreError};

/// Read and hashed at once.
const CHUNK: usize = 128 * 1024;

/// What an imported image says besides its files.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Instructions as in a Dockerfile: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`, `STOPSIGNAL`, `USER`, `VOLUME`,
    /// `WORKDIR`.
    pub changes: Vec<String>,
    /// The comment in the image's history.
    pub message: Option<String>,
    /// What the files are made for.
    pub platform: Platform,
}

impl Default for ImportOptions {
    /// No changes, no message, this machine's platform.
    fn default() -> ImportOptions {
        ImportOptions { changes: Vec::new(), message: None, platform: Platform::host() }
    }
}

/// Why a tarball was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The stream fails or does not decompress.
    #[error("cannot read the archive")]
    Read {
        /// What it said.
        source: io::Error,
    },
    /// It is no tar archive, or a damaged one.
    #[error("cannot read the archive")]
    Tar(#[from] TarError),
    /// An instruction that cannot be used.
    #[error("cannot apply the change `{change}`: {reason}")]
    Change {
        /// The instruction, control characters escaped.
        change: String,
        /// What is wrong.
        reason: String,
    },
    /// The image's configuration cannot be made of what was given.
    #[error("cannot write the image's configuration")]
    Config {
        /// Why.
        source: serde_json::Error,
    },
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image vanished as soon as it was there.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl Classify for ImportError {
    fn kind(&self) -> ErrorKind {
        match self {
            ImportError::Read { source } => match ErrorKind::of_io(source) {
                ErrorKind::Internal => ErrorKind::Corrupt,
                kind => kind,
            },
            ImportError::Tar(_) => ErrorKind::Corrupt,
            ImportError::Change { .. } => ErrorKind::InvalidArgument,
            ImportError::Config { .. } => ErrorKind::Internal,
            ImportError::Store(error) => error.kind(),
            ImportError::Resolve(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ImportError::Store(error) => error.hint(),
            ImportError::Resolve(error) => error.hint(),
            _ => None,
        }
    }
}

/// Makes an image of a root file system's tar archive (plain, or compressed with gzip or zstd), and names it
/// `reference` when given.
///
/// # Errors
/// When a change cannot be used, the archive cannot be read, or the store cannot take it.
pub fn import(
    store: &ImageStore,
    archive: Box<dyn Read>,
    reference: Option<&Reference>,
    options: &ImportOptions,
) -> Result<Image, ImportError> {
    if let Some(reference) = reference
        && reference.digest().is_some()
    {
        return Err(StoreError::TagDigest { name: reference.familiar() }.into());
    }
    let mut config = Config::default();
    for change in &options.changes {
        changes::apply(&mut config, change)
            .map_err(|reason| ImportError::Change { change: change.escape_debug().to_string(), reason })?;
    }
    let ingest = store.ingest()?;
    let (writer, diff_id, compression) = read_layer(archive, ingest.spool(None)?)?;
    let layer: Spooled = ingest.finish(writer)?;
    ingest.protect([&layer.digest])?;
    ingest.adopt(&layer)?;
    let suffix = match compression {
        Compression::None => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    let layers = [Descriptor::new(&format!("{OCI_LAYER}{suffix}"), layer.digest.clone(), layer.size)];
    let json = |source| ImportError::Config { source };
    let bytes = serde_json::to_vec(&configuration(config, &diff_id, options)).map_err(json)?;
    let id = sha256(&bytes);
    ingest.store_bytes(&id, &bytes)?;
    let size = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let config = Descriptor::new(OCI_CONFIG, id.clone(), size(&bytes));
    let manifest =
        NewManifest { schema_version: 2, media_type: OCI_MANIFEST, config: &config, layers: &layers };
    let bytes = serde_json::to_vec(&manifest).map_err(json)?;
    let digest = sha256(&bytes);
    ingest.store_bytes(&digest, &bytes)?;
    ingest.sync()?;
    let descriptor = Descriptor::new(OCI_MANIFEST, digest, size(&bytes));
    let entry = NewEntry { descriptor, name: reference.cloned(), id, source: None };
    let (image, _) = store.enter(entry)?;
    drop(ingest);
    Ok(image)
}

fn configuration(config: Config, diff_id: &Digest, options: &ImportOptions) -> ImageConfiguration {
    let now = Instant::now().rfc3339();
    let history = HistoryBuilder::default()
        .created(now.clone())
        .comment(options.message.clone().unwrap_or_else(|| "imported".to_owned()))
        .build()
        .expect("every field of a history entry has a default");
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(vec![diff_id.to_string()])
        .build()
        .expect("both fields are given");
    let mut image = ImageConfigurationBuilder::default()
        .created(now)
        .architecture(Arch::from(options.platform.architecture.as_str()))
        .os(Os::from(options.platform.os.as_str()))
        .config(config)
        .rootfs(rootfs)
        .history(vec![history])
        .build()
        .expect("every field of a configuration has a default");
    image.set_variant(options.platform.variant.clone());
    image
}

/// Reads the archive to its end, as an archive, and stores its bytes as they come. Gives the writer back, and the
/// digest of what it is when decompressed.
fn read_layer(
    archive: Box<dyn Read>,
    writer: BlobWriter,
) -> Result<(BlobWriter, Digest, Compression), ImportError> {
    let read = |source| ImportError::Read { source };
    let mut stored = Stored { archive, writer, failure: None };
    let result = (|| {
        let decoder = Decoder::new(BufReader::with_capacity(CHUNK, &mut stored)).map_err(read)?;
        let compression = decoder.compression();
        let hashed = Hashed { decoder, hasher: Hasher::sha256() };
        let mut archive = Archive::new(BufReader::with_capacity(CHUNK, hashed), Limits::default());
        while archive.next_entry()?.is_some() {}
        let hashed = archive.finish()?.into_inner();
        Ok::<_, ImportError>((hashed.hasher.finish(), compression))
    })();
    if let Some(error) = stored.failure.take() {
        return Err(error.into());
    }
    let (diff_id, compression) = result?;
    // What a decoder leaves behind its last frame belongs to the blob.
    io::copy(&mut stored, &mut io::sink()).map_err(read)?;
    Ok((stored.writer, diff_id, compression))
}

/// Gives what it reads also to the blob.
struct Stored {
    archive: Box<dyn Read>,
    writer: BlobWriter,
    /// The store's own failure, which would be hidden in the reader's.
    failure: Option<StoreError>,
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        if let Err(error) = self.writer.append(&buffer[..count]) {
            self.failure = Some(error);
            return Err(io::Error::other("the blob cannot be written"));
        }
        Ok(count)
    }
}

/// Hashes what it reads.
struct Hashed<R: BufRead> {
    decoder: Decoder<R>,
    hasher: Hasher,
}

impl<R: BufRead> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
