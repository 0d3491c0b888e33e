//! The files of an archive, spooled into the store's ingest directory, found again by path and by digest.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};

use stanza_spec::Digest;
use stanza_tar::{Archive, Entry, EntryKind, Limits};

use super::load::LoadError;
use crate::compression::Decoder;
use crate::store::{Ingest, Spooled};

/// Most entries of an image archive: several thousand times what any tool writes.
const MAX_ENTRIES: u32 = 65_536;
const MAX_LINKS: u32 = 16;
const CHUNK: usize = 128 * 1024;

/// All regular files and links of an archive.
pub(super) struct Contents {
    files: HashMap<String, Spooled>,
    links: HashMap<String, String>,
    by_digest: HashMap<Digest, String>,
}

impl Contents {
    /// Reads an archive to its end.
    pub(super) fn read(ingest: &Ingest<'_>, archive: Box<dyn Read>) -> Result<Contents, LoadError> {
        let archive = BufReader::with_capacity(CHUNK, archive);
        let decoder = Decoder::new(archive).map_err(|source| LoadError::Read { source })?;
        let mut archive = Archive::new(BufReader::with_capacity(CHUNK, decoder), Limits::default());
        let mut contents =
            Contents { files: HashMap::new(), links: HashMap::new(), by_digest: HashMap::new() };
        let mut entries = 0;
        while let Some(mut entry) = archive.next_entry()? {
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(LoadError::Document {
                    path: "archive".to_owned(),
                    reason: format!("it has more than {MAX_ENTRIES} entries"),
                });
            }
            contents.take(ingest, &mut entry)?;
        }
        // The sender on the other end of a pipe wants to be read to the end.
        archive.finish()?;
        Ok(contents)
    }

    fn take<R: BufRead>(&mut self, ingest: &Ingest<'_>, entry: &mut Entry<'_, R>) -> Result<(), LoadError> {
        let header = entry.header();
        // A name that leads outside, or is no text, names nothing that a manifest can ask for.
        let Some(path) = std::str::from_utf8(&header.path).ok().and_then(|path| normal("", path)) else {
            return Ok(());
        };
        let link = String::from_utf8_lossy(&header.link);
        match header.kind {
            EntryKind::File if !is_needless(&path) => {
                if entry.sparse().is_some() {
                    return Err(LoadError::path(&path, "it is sparse, which no image archive uses"));
                }
                let file = spool(ingest, entry, &path)?;
                self.links.remove(&path);
                self.by_digest.insert(file.digest.clone(), path.clone());
                self.files.insert(path, file);
            }
            EntryKind::Symlink => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                let target = normal(directory, &link)
                    .ok_or_else(|| LoadError::path(&path, "it is a link that leads outside the archive"))?;
                self.links.insert(path, target);
            }
            EntryKind::HardLink => {
                let target = normal("", &link)
                    .ok_or_else(|| LoadError::path(&path, "it is a link that leads outside the archive"))?;
                self.links.insert(path, target);
            }
            _ => {}
        }
        Ok(())
    }

    /// The file under a path that the archive's own documents name.
    pub(super) fn file(&self, path: &str) -> Result<&Spooled, LoadError> {
        let mut current =
            normal("", path).ok_or_else(|| LoadError::path(path, "it leads outside the archive"))?;
        for _ in 0..MAX_LINKS {
            if let Some(file) = self.files.get(&current) {
                return Ok(file);
            }
            current = match self.links.get(&current) {
                Some(target) => target.clone(),
                None => return Err(LoadError::path(path, "it is not in the archive")),
            };
        }
        Err(LoadError::path(path, "it is a link that leads in a circle"))
    }

    /// Whether the path is there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.file(path).is_ok()
    }

    /// The blob of an OCI layout with this digest and size.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<&Spooled, LoadError> {
        let found = self.by_digest.get(digest).and_then(|path| self.files.get(path));
        // A later entry of the same path may have taken its place.
        if let Some(file) = found.filter(|file| file.digest == *digest) {
            if file.size == size {
                return Ok(file);
            }
            let reason = format!("it has {} bytes, expected {size}", file.size);
            return Err(LoadError::path(digest.as_str(), &reason));
        }
        let path = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
        let file = self.file(&path)?;
        Err(LoadError::Digest { path, expected: digest.clone(), actual: file.digest.clone() })
    }

    /// A document under a path, bounded.
    pub(super) fn document(&self, path: &str, limit: u64) -> Result<Vec<u8>, LoadError> {
        bounded(self.file(path)?, path, limit)
    }
}

/// The content of a spooled document.
pub(super) fn bounded(file: &Spooled, path: &str, limit: u64) -> Result<Vec<u8>, LoadError> {
    file.read(limit)?.ok_or_else(|| LoadError::path(path, &format!("it has more than {limit} bytes")))
}

fn spool<R: BufRead>(
    ingest: &Ingest<'_>,
    entry: &mut Entry<'_, R>,
    path: &str,
) -> Result<Spooled, LoadError> {
    // A blob of a layout is hashed by the algorithm of its path, so that it can be found by its digest.
    let claimed = path
        .strip_prefix("blobs/")
        .and_then(|blob| blob.split_once('/'))
        .and_then(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().ok());
    let mut writer = ingest.spool(claimed.as_ref())?;
    let mut buffer = vec![0_u8; CHUNK];
    loop {
        match entry.read(&mut buffer) {
            Ok(0) => return Ok(ingest.finish(writer)?),
            Ok(count) => writer.append(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(LoadError::Read { source }),
        }
    }
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
