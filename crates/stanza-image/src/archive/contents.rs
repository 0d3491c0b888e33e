//! The files of an archive, found by path and by digest.
//!
//! | the archive is | its files |
//! |---|---|
//! | a stream, or compressed | are spooled into the store's ingest directory, hashed on the way; a blob that the store has already is passed over |
//! | a regular file | stay where they are: only the headers are read |
//! | a directory | are opened when they are asked for, beneath the directory |
//!
//! What the archive's names say leads nowhere but to other files of the same archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use stanza_spec::Digest;
use stanza_tar::{Archive, Entry, EntryKind, Limits};

use super::error::LoadError;
use crate::compression::{Compression, Decoder};
use crate::hash::digest_like;
use crate::range::FileRange;
use crate::store::{ImageStore, Ingest, Spooled};

/// Most entries of an image archive: several thousand times what any tool writes.
const MAX_ENTRIES: u32 = 65_536;
const MAX_LINKS: u32 = 16;
const CHUNK: usize = 128 * 1024;
/// What may follow the end of an archive on a stream: many times what tar pads.
const MAX_TRAILING: u64 = 16 << 20;

/// Where an archive is read from.
pub enum Source {
    /// A stream: a pipe, or anything that cannot be read twice.
    Stream(Box<dyn Read>),
    /// An open file. A regular one without compression is read in place, from its position; any other as a stream.
    File(File),
    /// A directory with the files of an OCI layout, or of skopeo's `dir`.
    Directory(File),
}

/// All regular files and links of an archive.
pub(super) struct Contents {
    place: Place,
    /// Spooled files by what they hold.
    by_digest: HashMap<Digest, String>,
}

enum Place {
    Archive { files: HashMap<String, Part>, links: HashMap<String, String> },
    Directory(OwnedFd),
}

/// A file of the archive.
#[derive(Clone, Debug)]
pub(super) struct Part {
    place: PartPlace,
    offset: u64,
    pub(super) size: u64,
    pub(super) kept: Kept,
}

#[derive(Clone, Debug)]
enum PartPlace {
    Open(Arc<File>),
    /// A file of the store, opened when it is read: an archive may have thousands.
    Path(PathBuf),
}

/// What the store has of a file of the archive.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// Nothing: it was not read yet.
    No,
    /// All of it, in the ingest directory.
    Spooled(Arc<Spooled>),
    /// The blob of this digest, from before.
    Blob(Digest),
}

impl Kept {
    /// The digest, when it is known.
    pub(super) fn digest(&self) -> Option<&Digest> {
        match self {
            Kept::No => None,
            Kept::Spooled(spooled) => Some(&spooled.digest),
            Kept::Blob(digest) => Some(digest),
        }
    }
}

/// A part as a stream.
pub(super) type PartReader = FileRange<Arc<File>>;

impl Part {
    /// Reads it from its start.
    pub(super) fn reader(&self) -> Result<PartReader, LoadError> {
        let file = match &self.place {
            PartPlace::Open(file) => Arc::clone(file),
            PartPlace::Path(path) => Arc::new(File::open(path).map_err(|source| LoadError::Read { source })?),
        };
        Ok(FileRange::new(file, self.offset, self.size))
    }

    /// All of it, when it has at most `limit` bytes.
    pub(super) fn document(&self, path: &str, limit: u64) -> Result<Vec<u8>, LoadError> {
        if self.size > limit {
            return Err(LoadError::path(path, &format!("it has more than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        self.reader()?.read_to_end(&mut bytes).map_err(|source| LoadError::Read { source })?;
        Ok(bytes)
    }
}

impl Contents {
    /// Reads an archive to its end, or looks at it where it lies.
    pub(super) fn read(
        store: &ImageStore,
        ingest: &Ingest<'_>,
        source: Source,
    ) -> Result<Contents, LoadError> {
        let read = |source| LoadError::Read { source };
        let stream: Box<dyn Read> = match source {
            Source::Stream(stream) => stream,
            Source::Directory(directory) => {
                let place = Place::Directory(directory.into());
                return Ok(Contents { place, by_digest: HashMap::new() });
            }
            Source::File(mut file) => {
                let metadata = file.metadata().map_err(read)?;
                if metadata.is_file() {
                    let start = file.stream_position().map_err(read)?;
                    let mut head = [0; 6];
                    let count = file.read_at(&mut head, start).map_err(read)?;
                    if Decoder::new(&head[..count])
                        .is_ok_and(|decoder| decoder.compression() == Compression::None)
                    {
                        return Contents::in_place(file, start, metadata.len());
                    }
                }
                Box::new(file)
            }
        };
        Contents::spool(store, ingest, stream)
    }

    /// Reads the headers of an archive in a regular file.
    fn in_place(file: File, start: u64, length: u64) -> Result<Contents, LoadError> {
        let shared = Arc::new(file.try_clone().map_err(|source| LoadError::Read { source })?);
        let mut archive = Archive::new(BufReader::with_capacity(CHUNK, file), Limits::default());
        let mut entries = Entries::default();
        while let Some(entry) = archive.next_entry()? {
            let found = entries.next(&entry)?;
            let size = entry.header().size;
            let offset = start.saturating_add(archive.offset());
            if offset.saturating_add(size) > length {
                return Err(LoadError::Tar(stanza_tar::TarError::Truncated {
                    offset: length - start.min(length),
                }));
            }
            if let Some(path) = found {
                let part = Part { place: PartPlace::Open(Arc::clone(&shared)), offset, size, kept: Kept::No };
                entries.links.remove(&path);
                entries.files.insert(path, part);
            }
            archive.skip()?;
        }
        Ok(entries.contents(HashMap::new()))
    }

    /// Reads an archive that passes by.
    fn spool(store: &ImageStore, ingest: &Ingest<'_>, stream: Box<dyn Read>) -> Result<Contents, LoadError> {
        let stream = BufReader::with_capacity(CHUNK, stream);
        let decoder = Decoder::new(stream).map_err(|source| LoadError::Read { source })?;
        let mut archive = Archive::new(BufReader::with_capacity(CHUNK, decoder), Limits::default());
        let mut entries = Entries::default();
        let mut by_digest = HashMap::new();
        while let Some(entry) = archive.next_entry()? {
            let Some(path) = entries.next(&entry)? else { continue };
            let part = take(store, ingest, entry, &path)?;
            entries.links.remove(&path);
            if let Some(digest) = part.kept.digest() {
                by_digest.insert(digest.clone(), path.clone());
            }
            entries.files.insert(path, part);
        }
        drain(archive)?;
        Ok(entries.contents(by_digest))
    }

    /// The file under a path that the archive's own documents name.
    pub(super) fn file(&self, path: &str) -> Result<Part, LoadError> {
        let mut current =
            normal("", path).ok_or_else(|| LoadError::path(path, "it leads outside the archive"))?;
        let (files, links) = match &self.place {
            Place::Archive { files, links } => (files, links),
            Place::Directory(directory) => return open_beneath(directory, &current),
        };
        for _ in 0..MAX_LINKS {
            if let Some(part) = files.get(&current) {
                return Ok(part.clone());
            }
            current = match links.get(&current) {
                Some(target) => target.clone(),
                None => return Err(LoadError::path(path, "it is not in the archive")),
            };
        }
        Err(LoadError::path(path, "it is a link that leads in a circle"))
    }

    /// Whether it is read from a directory, and no archive.
    pub(super) fn is_directory(&self) -> bool {
        matches!(self.place, Place::Directory(_))
    }

    /// Whether the path is there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.file(path).is_ok()
    }

    /// The blob with this digest and size: of an OCI layout, or of skopeo's `dir`. Unless it was spooled, what it holds
    /// is still to be checked.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<Part, LoadError> {
        let spooled = self.by_digest.get(digest).and_then(|path| self.file(path).ok());
        // A later entry of the same path may have taken its place.
        let part = match spooled.filter(|part| part.kept.digest() == Some(digest)) {
            Some(part) => part,
            None => {
                let path = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
                let part = self.file(&path).or_else(|error| {
                    let manifest = format!("{}.manifest.json", digest.hex());
                    self.file(digest.hex()).or_else(|_| self.file(&manifest)).map_err(|_| error)
                })?;
                if let Some(actual) = part.kept.digest().filter(|actual| *actual != digest) {
                    return Err(LoadError::Digest { path, expected: digest.clone(), actual: actual.clone() });
                }
                part
            }
        };
        if part.size == size {
            return Ok(part);
        }
        let reason = format!("it has {} bytes, expected {size}", part.size);
        Err(LoadError::path(digest.as_str(), &reason))
    }

    /// A small blob, checked.
    pub(super) fn blob_bytes(&self, digest: &Digest, size: u64, limit: u64) -> Result<Vec<u8>, LoadError> {
        let bytes = self.blob(digest, size)?.document(digest.as_str(), limit)?;
        let actual = digest_like(digest, &bytes);
        if actual == *digest {
            return Ok(bytes);
        }
        Err(LoadError::Digest { path: digest.to_string(), expected: digest.clone(), actual })
    }

    /// A document under a path, bounded.
    pub(super) fn document(&self, path: &str, limit: u64) -> Result<Vec<u8>, LoadError> {
        self.file(path)?.document(path, limit)
    }
}

/// What was found in an archive so far.
#[derive(Default)]
struct Entries {
    count: u32,
    files: HashMap<String, Part>,
    links: HashMap<String, String>,
}

impl Entries {
    /// Looks at the next entry: the path of a file to be taken, `None` when there is nothing to take.
    fn next<R: BufRead>(&mut self, entry: &Entry<'_, R>) -> Result<Option<String>, LoadError> {
        self.count += 1;
        if self.count > MAX_ENTRIES {
            return Err(LoadError::Document {
                path: "archive".to_owned(),
                reason: format!("it has more than {MAX_ENTRIES} entries"),
            });
        }
        let header = entry.header();
        // A name that leads outside, or is no text, names nothing that a manifest can ask for.
        let Some(path) = std::str::from_utf8(&header.path).ok().and_then(|path| normal("", path)) else {
            return Ok(None);
        };
        let from = match header.kind {
            EntryKind::File if is_needless(&path) => return Ok(None),
            EntryKind::File if entry.sparse().is_some() => {
                return Err(LoadError::path(&path, "it is sparse, which no image archive uses"));
            }
            EntryKind::File => return Ok(Some(path)),
            EntryKind::Symlink => path.rsplit_once('/').map_or("", |(directory, _)| directory),
            EntryKind::HardLink => "",
            _ => return Ok(None),
        };
        let target = normal(from, &String::from_utf8_lossy(&header.link))
            .ok_or_else(|| LoadError::path(&path, "it is a link that leads outside the archive"))?;
        self.links.insert(path, target);
        Ok(None)
    }

    fn contents(self, by_digest: HashMap<Digest, String>) -> Contents {
        Contents { place: Place::Archive { files: self.files, links: self.links }, by_digest }
    }
}

/// Takes a file out of a stream.
fn take<R: BufRead>(
    store: &ImageStore,
    ingest: &Ingest<'_>,
    entry: Entry<'_, R>,
    path: &str,
) -> Result<Part, LoadError> {
    let (header, _, mut content) = entry.into_parts();
    let size = header.size;
    // A blob of a layout is hashed by the algorithm of its path, so that it can be found by its digest.
    let claimed = path
        .strip_prefix("blobs/")
        .and_then(|blob| blob.split_once('/'))
        .and_then(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().ok());
    if let Some(digest) = &claimed
        && store.has_blob(digest, size)
    {
        ingest.protect([digest])?;
        // Looked at again: from now on it stays.
        if store.has_blob(digest, size) {
            let place = PartPlace::Path(store.blob_path(digest));
            return Ok(Part { place, offset: 0, size, kept: Kept::Blob(digest.clone()) });
        }
    }
    ingest.check_room(size)?;
    let mut writer = ingest.spool(claimed.as_ref())?;
    loop {
        let count = match content.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                writer.append(bytes)?;
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(content.failure(error).into());
            }
            Err(source) => return Err(LoadError::Read { source }),
        };
        content.consume(count);
    }
    let spooled = ingest.finish(writer)?;
    let place = PartPlace::Path(spooled.path().to_owned());
    Ok(Part { place, offset: 0, size: spooled.size, kept: Kept::Spooled(Arc::new(spooled)) })
}

/// Reads what follows the archive: the sender at the other end of a pipe wants to be read to the end, and the checksum of
/// a compressed stream stands there. A stream that has no end is not read.
fn drain<R: BufRead>(archive: Archive<R>) -> Result<(), LoadError> {
    let rest = archive.into_inner();
    let read = io::copy(&mut rest.take(MAX_TRAILING + 1), &mut io::sink());
    if read.map_err(|source| LoadError::Read { source })? > MAX_TRAILING {
        return Err(LoadError::Document {
            path: "archive".to_owned(),
            reason: format!("its end is followed by more than {MAX_TRAILING} bytes"),
        });
    }
    Ok(())
}

/// A file of a directory that may hold anything: links are followed as far as they stay in it, and nothing but a regular
/// file is read.
fn open_beneath(directory: &OwnedFd, path: &str) -> Result<Part, LoadError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(directory, Path::new(path), flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            return Err(LoadError::path(path, "it is not in the archive"));
        }
        Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => {
            return Err(LoadError::path(path, "it is a link that leads outside the archive"));
        }
        Err(error) => return Err(LoadError::Read { source: error.into() }),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| LoadError::Read { source: error.into() })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(LoadError::path(path, "it is not a regular file"));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Part { place: PartPlace::Open(Arc::new(File::from(file))), offset: 0, size, kept: Kept::No })
}

/// Files of Docker's old format that say nothing `manifest.json` does not say.
fn is_needless(path: &str) -> bool {
    path == "repositories" || path.ends_with("/VERSION") || path.ends_with("/json")
}

/// `path`, seen from `directory`, without `.` and `..`; `None` when it leaves the archive. A leading slash means the
/// archive's own root.
fn normal(directory: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = if path.starts_with('/') {
        Vec::new()
    } else {
        directory.split('/').filter(|part| !part.is_empty()).collect()
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_archive() {
        for (directory, path, expected) in [
            ("", "./a//b/.", Some("a/b")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("x", "../../etc/passwd", None),
            ("x", "/etc/passwd", Some("etc/passwd")),
            ("", "..", None),
            ("", "a/../../b", None),
        ] {
            assert_eq!(normal(directory, path).as_deref(), expected, "{directory} {path}");
        }
    }
}
