//! The table of contents of a zstd:chunked layer: what tools that fetch single files of a layer go by.
//!
//! ```text
//!  blob:  zstd frames of the tar … | skippable frame: the table, compressed | skippable frame: footer
//!                                    ^ offset, length                         (not looked at)
//!  annotations of the layer:  …zstd-chunked.manifest-position = offset:length:uncompressed:1
//!                             …zstd-chunked.manifest-checksum = digest of the compressed table
//! ```
//!
//! stanza takes such a layer whole, and what it unpacks is verified by the diff id. A tool that goes by the table sees what the
//! table says: an image whose table says something else than its tar is two images under one digest. [`check`] compares the
//! two. eStargz tables, which stand in a gzip member of their own, are not read.
//!
//! Nothing of it is believed before it is within bounds: places within the blob, lengths, the number of entries.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use stanza_spec::Digest;
use stanza_tar::{Archive, EntryKind, Limits};

use crate::compression::decompress;
use crate::hash::{Hasher, digest_like, sha256};
use crate::range::FileRange;

/// The annotations, under today's prefix and that of Podman before 4.4.
const PREFIXES: [&str; 2] = ["io.github.containers.zstd-chunked", "io.containers.zstd-chunked"];
/// Longest table in bytes, compressed and not: what c/storage takes.
const MAX_TABLE: u64 = 50 << 20;
/// Most entries of a table.
const MAX_ENTRIES: usize = 1 << 20;
/// The only kind of table there is.
const KIND: &str = "1";

/// Why a table is not one to go by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChunkedError {
    #[error("its annotations name no place: `{0}`, expected `offset:length:uncompressed:1` within the layer")]
    Place(String),
    #[error("its annotations name no checksum: `{0}`")]
    Checksum(String),
    #[error("it has the digest `{actual}`, and the annotations say `{expected}`")]
    Corrupt { expected: Digest, actual: Digest },
    #[error("it has more than {0} bytes, or other than the annotations say")]
    Length(u64),
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it is not the JSON of a table")]
    Json(#[source] serde_json::Error),
    #[error("its entry `{name}` has {what}")]
    Entry { name: String, what: &'static str },
    #[error("the layer's archive cannot be read")]
    Tar(#[from] stanza_tar::TarError),
    #[error("`{name}` {what}")]
    Differs { name: String, what: &'static str },
}

/// Where a layer's table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    offset: u64,
    length: u64,
    uncompressed: u64,
    checksum: Digest,
}

impl Place {
    /// What the annotations of a layer of `size` bytes say; `None` of one that has no table.
    pub(crate) fn of(
        annotations: &BTreeMap<String, String>,
        size: u64,
    ) -> Option<Result<Place, ChunkedError>> {
        let annotation = |prefix: &str, name: &str| annotations.get(&format!("{prefix}.{name}"));
        PREFIXES.iter().find_map(|prefix| {
            let place = annotation(prefix, "manifest-position")?;
            let checksum = annotation(prefix, "manifest-checksum").map_or("", String::as_str);
            Some(Place::parse(place, checksum, size))
        })
    }

    fn parse(place: &str, checksum: &str, size: u64) -> Result<Place, ChunkedError> {
        let wrong = || ChunkedError::Place(place.to_owned());
        let mut fields = place.split(':');
        let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok());
        let (offset, length, uncompressed) =
            (number().ok_or_else(wrong)?, number().ok_or_else(wrong)?, number().ok_or_else(wrong)?);
        let fits = offset.checked_add(length).is_some_and(|end| end <= size);
        if fields.next() != Some(KIND) || fields.next().is_some() || !fits || length == 0 {
            return Err(wrong());
        }
        if length > MAX_TABLE || uncompressed > MAX_TABLE {
            return Err(ChunkedError::Length(MAX_TABLE));
        }
        let checksum = checksum.parse().map_err(|_| ChunkedError::Checksum(checksum.to_owned()))?;
        Ok(Place { offset, length, uncompressed, checksum })
    }
}

/// What a table says of one file, or of a further piece of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    link_name: String,
    size: u64,
    digest: String,
    offset: u64,
    end_offset: u64,
}

/// A table.
#[derive(Debug, Deserialize)]
pub(crate) struct Table {
    #[serde(deserialize_with = "entries")]
    entries: Vec<Entry>,
}

/// The entries, and not more than there may be.
fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    struct Bounded;
    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<Entry>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the entries of a table")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<Entry>, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = sequence.next_element()? {
                if entries.len() == MAX_ENTRIES {
                    return Err(A::Error::custom(format!("more than {MAX_ENTRIES} entries")));
                }
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_seq(Bounded)
}

impl Table {
    /// Reads the table at `place` of a layer.
    pub(crate) fn read(blob: &File, place: &Place) -> Result<Table, ChunkedError> {
        let too_long = |_| ChunkedError::Length(MAX_TABLE);
        let mut compressed = vec![0; usize::try_from(place.length).map_err(too_long)?];
        blob.read_exact_at(&mut compressed, place.offset)?;
        Table::unpack(&compressed, place)
    }

    fn unpack(compressed: &[u8], place: &Place) -> Result<Table, ChunkedError> {
        let actual = digest_like(&place.checksum, compressed);
        if actual != place.checksum {
            return Err(ChunkedError::Corrupt { expected: place.checksum.clone(), actual });
        }
        let mut json = Vec::new();
        decompress(compressed)?.take(place.uncompressed + 1).read_to_end(&mut json)?;
        if u64::try_from(json.len()).ok() != Some(place.uncompressed) {
            return Err(ChunkedError::Length(place.uncompressed));
        }
        Table::parse(&json, place.offset)
    }

    /// Reads a table whose layer's tar ends before `end`.
    fn parse(json: &[u8], end: u64) -> Result<Table, ChunkedError> {
        let table: Table = serde_json::from_slice(json).map_err(ChunkedError::Json)?;
        let mut file = None;
        for entry in &table.entries {
            let wrong = |what| ChunkedError::Entry { name: entry.name.clone(), what };
            let is_content = matches!(entry.kind.as_str(), "reg" | "chunk");
            if !is_content && kind_of(&entry.kind).is_none() {
                return Err(wrong("an unknown type"));
            }
            if entry.name.contains('\0') || entry.link_name.contains('\0') {
                return Err(wrong("a NUL in its name"));
            }
            if entry.kind == "chunk" && file != Some(&entry.name) {
                return Err(wrong("a piece that follows no file of its name"));
            }
            if is_content && (entry.offset > entry.end_offset || entry.end_offset > end) {
                return Err(wrong("a place outside of the layer"));
            }
            if entry.kind == "reg" && !entry.digest.is_empty() && entry.digest.parse::<Digest>().is_err() {
                return Err(wrong("no digest"));
            }
            file = is_content.then_some(&entry.name);
        }
        Ok(table)
    }

    /// The number of files, directories and other things.
    pub(crate) fn len(&self) -> usize {
        self.things().count()
    }

    fn things(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.kind != "chunk")
    }

    /// Compares it with the layer's archive, which is read from its beginning: names, kinds, sizes, links and contents, in order.
    pub(crate) fn agrees_with(&self, tar: impl Read) -> Result<(), ChunkedError> {
        let mut archive = Archive::new(BufReader::new(decompress(tar)?), Limits::default());
        let mut things = self.things();
        while let Some(entry) = archive.next_entry()? {
            let (header, _, mut content) = entry.into_parts();
            let name = plain(&header.path).to_owned();
            let differs =
                |what| ChunkedError::Differs { name: String::from_utf8_lossy(&name).into_owned(), what };
            let told = things.next().ok_or_else(|| differs("is in the archive, and not in the table"))?;
            if plain(told.name.as_bytes()) != name {
                return Err(differs("is in the archive where the table has something else"));
            }
            if kind_of(&told.kind) != Some(header.kind) {
                return Err(differs("is of another kind in the table"));
            }
            if plain(told.link_name.as_bytes()) != plain(&header.link) {
                return Err(differs("leads somewhere else in the table"));
            }
            if header.kind != EntryKind::File {
                continue;
            }
            if told.size != header.size {
                return Err(differs("has another size in the table"));
            }
            let mut hash = match told.digest.parse::<Digest>() {
                Ok(digest) => Hasher::like(&digest),
                Err(_) => Hasher::sha256(),
            };
            io::copy(&mut content, &mut hash)?;
            let actual = hash.finish();
            // An empty file needs no digest.
            let same = told.digest == actual.as_str() || (told.digest.is_empty() && actual == sha256(b""));
            if !same {
                return Err(differs("has another content in the table"));
            }
        }
        match things.next() {
            Some(more) => Err(ChunkedError::Differs {
                name: more.name.clone(),
                what: "is in the table, and not in the archive",
            }),
            None => Ok(()),
        }
    }
}

/// Compares the table of a layer that has one with its archive; gives the number of its entries.
pub(crate) fn check(blob: &File, place: &Place) -> Result<usize, ChunkedError> {
    let table = Table::read(blob, place)?;
    // The frames of the tar end where the table's frame begins, eight bytes before the table.
    let tar = FileRange::new(blob, 0, place.offset.saturating_sub(8));
    table.agrees_with(tar)?;
    Ok(table.len())
}

/// A name without what archives put before and behind it.
fn plain(name: &[u8]) -> &[u8] {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    name.strip_suffix(b"/").unwrap_or(name)
}

fn kind_of(word: &str) -> Option<EntryKind> {
    Some(match word {
        "reg" => EntryKind::File,
        "hardlink" => EntryKind::HardLink,
        "symlink" => EntryKind::Symlink,
        "dir" => EntryKind::Directory,
        "char" => EntryKind::CharacterDevice,
        "block" => EntryKind::BlockDevice,
        "fifo" => EntryKind::Fifo,
        _ => return None,
    })
}

/// What the fuzz target does with a table and a place as text: whether both were taken.
///
/// # Errors
/// When what was taken is not within the bounds.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(json: &[u8], place: &str, size: u64) -> Result<bool, String> {
    if let Ok(place) = Place::parse(place, &sha256(json).to_string(), size)
        && (place.offset + place.length > size || place.length.max(place.uncompressed) > MAX_TABLE)
    {
        return Err(format!("{place:?} is not within {size} bytes"));
    }
    let compressed = zstd::encode_all(json, 1).map_err(|error| error.to_string())?;
    let whole = Place {
        offset: 1 << 20,
        length: compressed.len() as u64,
        uncompressed: json.len() as u64,
        checksum: sha256(&compressed),
    };
    match Table::unpack(&compressed, &whole) {
        Ok(table) => {
            let outside = |entry: &&Entry| entry.kind == "reg" && entry.end_offset > whole.offset;
            if let Some(entry) = table.entries.iter().find(outside) {
                return Err(format!("{entry:?} is outside of the layer"));
            }
            // Whatever it says, it is not what is in an archive of nothing.
            match table.agrees_with(&[0; 1024][..]) {
                Ok(()) if table.len() > 0 => Err("it agrees with an empty archive".to_owned()),
                Ok(()) => Ok(true),
                Err(error) => {
                    drop(error.to_string());
                    Ok(true)
                }
            }
        }
        Err(error) => {
            drop(error.to_string());
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A layer with a directory, a file and a link as zstd:chunked, and its table as `change` left it.
    fn layer(change: impl FnOnce(&mut Vec<serde_json::Value>)) -> (File, BTreeMap<String, String>, u64) {
        let mut builder = stanza_tar::Builder::new(Vec::new());
        let header = |path: &str, kind| stanza_tar::Header {
            path: path.as_bytes().to_vec(),
            kind,
            mode: 0o755,
            ..stanza_tar::Header::default()
        };
        builder.append(&header("etc/", EntryKind::Directory), &mut &b""[..]).unwrap();
        let file = stanza_tar::Header { size: 4, ..header("etc/release", EntryKind::File) };
        builder.append(&file, &mut &b"one\n"[..]).unwrap();
        let link = stanza_tar::Header { link: b"release".to_vec(), ..header("etc/os", EntryKind::Symlink) };
        builder.append(&link, &mut &b""[..]).unwrap();
        let tar = zstd::encode_all(&builder.finish().unwrap()[..], 3).unwrap();
        let mut entries = vec![
            serde_json::json!({ "type": "dir", "name": "etc/", "mode": 493 }),
            serde_json::json!({
                "type": "reg", "name": "etc/release", "size": 4, "digest": sha256(b"one\n").to_string(),
                "offset": 0, "endOffset": 20,
            }),
            serde_json::json!({ "type": "symlink", "name": "etc/os", "linkName": "release" }),
        ];
        change(&mut entries);
        let json = serde_json::json!({ "version": 1, "entries": entries }).to_string();
        let table = zstd::encode_all(json.as_bytes(), 3).unwrap();
        let mut blob = tar.clone();
        blob.extend(0x184d_2a50_u32.to_le_bytes());
        blob.extend(u32::try_from(table.len()).unwrap().to_le_bytes());
        let offset = blob.len();
        blob.extend(&table);
        let mut file = tempfile();
        file.write_all(&blob).unwrap();
        let prefix = "io.github.containers.zstd-chunked";
        let place = format!("{offset}:{}:{}:1", table.len(), json.len());
        let annotations = BTreeMap::from([
            (format!("{prefix}.manifest-position"), place),
            (format!("{prefix}.manifest-checksum"), sha256(&table).to_string()),
        ]);
        (file, annotations, blob.len() as u64)
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("stanza-chunked-{:?}", std::thread::current().id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    fn checked(change: impl FnOnce(&mut Vec<serde_json::Value>)) -> Result<usize, String> {
        let (blob, annotations, size) = layer(change);
        let place = Place::of(&annotations, size).unwrap().unwrap();
        check(&blob, &place).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_that_says_what_the_archive_says_passes_and_a_lie_is_named() {
        assert_eq!(checked(|_| {}), Ok(3));
        let lie = |change: fn(&mut Vec<serde_json::Value>)| checked(change).unwrap_err();
        assert_eq!(lie(|e| e[1]["size"] = 5.into()), "`etc/release` has another size in the table");
        let other = |e: &mut Vec<serde_json::Value>| e[1]["digest"] = sha256(b"two\n").to_string().into();
        assert_eq!(lie(other), "`etc/release` has another content in the table");
        assert_eq!(lie(|e| e[2]["linkName"] = "x".into()), "`etc/os` leads somewhere else in the table");
        assert_eq!(lie(|e| e[0]["type"] = "fifo".into()), "`etc` is of another kind in the table");
        assert_eq!(lie(|e| drop(e.pop())), "`etc/os` is in the archive, and not in the table");
        assert_eq!(
            lie(|e| e.swap(1, 2)),
            "`etc/release` is in the archive where the table has something else"
        );
        let more =
            |e: &mut Vec<serde_json::Value>| e.push(serde_json::json!({ "type": "dir", "name": "root" }));
        assert_eq!(lie(more), "`root` is in the table, and not in the archive");
    }

    #[test]
    fn what_is_no_table_is_refused_before_it_is_believed() {
        let lie = |change: fn(&mut Vec<serde_json::Value>)| checked(change).unwrap_err();
        assert_eq!(lie(|e| e[0]["type"] = "door".into()), "its entry `etc/` has an unknown type");
        let outside = |e: &mut Vec<serde_json::Value>| e[1]["endOffset"] = (1_u64 << 60).into();
        assert_eq!(lie(outside), "its entry `etc/release` has a place outside of the layer");
        assert_eq!(lie(|e| e[1]["digest"] = "x".into()), "its entry `etc/release` has no digest");
        let stray =
            |e: &mut Vec<serde_json::Value>| e[0] = serde_json::json!({ "type": "chunk", "name": "x" });
        assert_eq!(lie(stray), "its entry `x` has a piece that follows no file of its name");
        assert!(lie(|e| e[1]["size"] = "4".into()).starts_with("it is not the JSON of a table"));

        let sum = sha256(b"").to_string();
        for place in [
            "",
            "1:2:3",
            "1:2:3:2",
            "1:2:3:1:1",
            "-1:2:3:1",
            "90:20:3:1",
            "18446744073709551615:2:3:1",
            "1:0:3:1",
        ] {
            let error = Place::parse(place, &sum, 100).unwrap_err();
            assert!(matches!(error, ChunkedError::Place(_)), "{place}: {error}");
        }
        let bomb = Place::parse("1:20:99999999999:1", &sum, 100).unwrap_err();
        assert!(matches!(bomb, ChunkedError::Length(_)), "{bomb}");
        assert!(matches!(Place::parse("1:20:30:1", "md5:x", 100), Err(ChunkedError::Checksum(_))));
    }

    #[test]
    fn a_table_is_checked_against_its_checksum_and_length_first() {
        let (blob, mut annotations, size) = layer(|_| {});
        let place = |annotations: &BTreeMap<String, String>| Place::of(annotations, size).unwrap().unwrap();
        let good = place(&annotations);
        let longer = Place { uncompressed: good.uncompressed + 1, ..good.clone() };
        assert!(matches!(Table::read(&blob, &longer), Err(ChunkedError::Length(_))));
        let shorter = Place { uncompressed: good.uncompressed - 1, ..good.clone() };
        assert!(matches!(Table::read(&blob, &shorter), Err(ChunkedError::Length(_))));
        annotations.insert(
            "io.github.containers.zstd-chunked.manifest-checksum".to_owned(),
            sha256(b"other").to_string(),
        );
        assert!(matches!(Table::read(&blob, &place(&annotations)), Err(ChunkedError::Corrupt { .. })));
        assert!(Place::of(&BTreeMap::new(), size).is_none());
    }
}
