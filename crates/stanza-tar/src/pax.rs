//! Pax records: `LENGTH KEY=VALUE\n`, the length in decimal and counting itself (POSIX `pax`, "pax Extended Header").

use std::collections::BTreeMap;

use crate::Segment;

/// What the records of one pax header say.
#[derive(Clone, Default)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<(i64, u32)>,
    /// By name. libarchive writes each attribute twice; the raw form counts.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Xattr>,
    pub(crate) sparse: SparseRecords,
}

/// An attribute's value, and whether it came in the raw form of star (`SCHILY.xattr`).
#[derive(Clone)]
pub(crate) struct Xattr {
    pub(crate) value: Vec<u8>,
    raw: bool,
}

/// GNU's records of sparse files, formats 0.0, 0.1 and 1.0.
#[derive(Clone, Default)]
pub(crate) struct SparseRecords {
    pub(crate) major: Option<u64>,
    pub(crate) minor: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    /// The number of segments that formats 0.x announce.
    pub(crate) count: Option<u64>,
    /// Format 0.1: the whole map. Format 0.0: what its records add, one segment each.
    pub(crate) map: Option<Vec<Segment>>,
    /// Format 0.0: an offset whose length has not come yet.
    offset: Option<u64>,
}

/// What is wrong with a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Record(&'static str),
    Number(&'static str),
    Nul(&'static str),
}

impl Records {
    /// Adds the records in `data`; later ones win. A global header may not name files, sizes or maps: there is no
    /// meaning in them for more than one file.
    pub(crate) fn read(&mut self, data: &[u8], global: bool) -> Result<(), Fault> {
        let mut rest = data;
        while !rest.is_empty() {
            let (key, value, after) = record(rest)?;
            rest = after;
            if global && is_of_one_file(key) {
                return Err(Fault::Record("a global record names a file, its size or its map"));
            }
            self.set(key, value)?;
        }
        if self.sparse.offset.is_some() {
            return Err(Fault::Record("a sparse offset has no length"));
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        match key {
            b"path" => self.path = name(value, "path")?,
            b"linkpath" => self.link = name(value, "link target")?,
            b"size" => self.size = decimal(value, "size")?,
            b"uid" => self.uid = decimal(value, "uid")?,
            b"gid" => self.gid = decimal(value, "gid")?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or(Fault::Number("mtime"))?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name.to_vec(), value.to_vec(), true)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = base64(value).ok_or(Fault::Record("an attribute is not base64"))?;
                    self.xattr(percent_decode(name), value, false)?;
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>, raw: bool) -> Result<(), Fault> {
        if name.is_empty() || name.contains(&0) {
            return Err(Fault::Nul("extended attribute's name"));
        }
        if raw || self.xattrs.get(&name).is_none_or(|known| !known.raw) {
            self.xattrs.insert(name, Xattr { value, raw });
        }
        Ok(())
    }
}

impl SparseRecords {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        const MAP: Fault = Fault::Number("sparse map");
        match key {
            b"major" => self.major = decimal(value, "sparse version")?,
            b"minor" => self.minor = decimal(value, "sparse version")?,
            b"name" => self.name = name(value, "path")?,
            b"size" | b"realsize" => self.real_size = decimal(value, "sparse size")?,
            b"numblocks" => self.count = decimal(value, "sparse map")?,
            b"offset" => {
                let offset = decimal(value, "sparse map")?.ok_or(MAP)?;
                if self.offset.replace(offset).is_some() {
                    return Err(Fault::Record("a sparse offset has no length"));
                }
            }
            b"numbytes" => {
                let offset = self.offset.take().ok_or(Fault::Record("a sparse length has no offset"))?;
                let length = decimal(value, "sparse map")?.ok_or(MAP)?;
                self.map.get_or_insert_default().push(Segment { offset, length });
            }
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',').filter(|number| !number.is_empty());
                let mut map = Vec::new();
                while let Some(offset) = numbers.next() {
                    let length = numbers.next().ok_or(MAP)?;
                    let number = |text| decimal(text, "sparse map")?.ok_or(MAP);
                    map.push(Segment { offset: number(offset)?, length: number(length)? });
                }
                self.map = Some(map);
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_of_one_file(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.")
}

/// Key, value, and what follows the record.
type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// The first record.
fn record(data: &[u8]) -> Result<Record<'_>, Fault> {
    const LENGTH: Fault = Fault::Record("a record's length is not right");
    // Longer than the 1 MiB that a header may have is not a length.
    let space = data.iter().take(8).position(|byte| *byte == b' ').ok_or(LENGTH)?;
    let length = decimal(&data[..space], "record length")?.ok_or(LENGTH)?;
    let length = usize::try_from(length).map_err(|_| LENGTH)?;
    if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
        return Err(LENGTH);
    }
    let body = &data[space + 1..length - 1];
    let equals = body
        .iter()
        .position(|byte| *byte == b'=')
        .filter(|at| *at > 0)
        .ok_or(Fault::Record("a record has no key"))?;
    Ok((&body[..equals], &body[equals + 1..], &data[length..]))
}

/// A name; empty takes an earlier record back.
fn name(value: &[u8], what: &'static str) -> Result<Option<Vec<u8>>, Fault> {
    if value.contains(&0) {
        return Err(Fault::Nul(what));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// A number without sign; empty takes an earlier record back.
fn decimal(value: &[u8], field: &'static str) -> Result<Option<u64>, Fault> {
    if value.is_empty() {
        return Ok(None);
    }
    digits(value).map(Some).ok_or(Fault::Number(field))
}

pub(crate) fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Seconds with a fraction, as `-1.5`, which is 2 seconds before 1970 and half a second after that. Digits beyond
/// nanoseconds are dropped; seconds that 64 bits do not hold become the nearest that they do.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let point = value.iter().position(|byte| *byte == b'.').unwrap_or(value.len());
    let (whole, fraction) = (&value[..point], value.get(point + 1..).unwrap_or_default());
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits(whole).and_then(|number| i64::try_from(number).ok()).unwrap_or(i64::MAX);
    let nanos = (0..9)
        .fold(0, |nanos, place| nanos * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0')));
    Some(match (negative, nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// libarchive's attribute values: the usual alphabet, padding optional.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    if text.len() - end > 2 || end % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(end / 4 * 3 + 2);
    let (mut bits, mut held) = (0u32, 0);
    for &byte in &text[..end] {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(((bits >> held) & 0xff) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

/// libarchive's attribute names: `%XX` for what is not printable; what is not an escape stays as it is.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let escaped =
            (first == b'%').then(|| Some((digit(after.first()?)?, digit(after.get(1)?)?))).flatten();
        match escaped.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => out.push(first),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Result<Records, Fault> {
        let mut records = Records::default();
        records.read(data, false).map(|()| records)
    }

    #[test]
    fn times_have_signs_and_fractions() {
        for (text, time) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-1", Some((-1, 0))),
            ("-0.000000001", Some((-1, 999_999_999))),
            ("1.0000000019", Some((1, 1))),
            ("1.", Some((1, 0))),
            ("99999999999999999999999", Some((i64::MAX, 0))),
            ("-99999999999999999999999.5", Some((i64::MIN, 500_000_000))),
            ("NaN", None),
            ("", None),
            ("-", None),
            (".5", None),
            ("1e3", None),
            ("+1", None),
            ("1.2.3", None),
        ] {
            assert_eq!(super::time(text.as_bytes()), time, "{text}");
        }
    }

    #[test]
    fn lying_record_lengths_are_refused() {
        for bad in [
            &b"0 a=b\n"[..],
            b"-6 a=b\n",
            b"5 a=b\n",
            b"7 a=b\n",
            b"99999999999999999999 a=b\n",
            b"6 a=b ",
            b"6 ab=\n6 a",
            b"5 =b\n",
            b"4 a\n",
            b"6",
            b" 6 a=b\n",
            b"6 a=b\n\0\0",
        ] {
            assert!(read(bad).is_err(), "{:?}", bad.escape_ascii().to_string());
        }
        assert!(read(b"6 a=b\n").is_ok());
    }

    #[test]
    fn attributes_are_read_in_both_forms_and_the_raw_one_wins() {
        let mut data = Vec::new();
        for (key, value) in [
            ("SCHILY.xattr.user.a", "\0\n1"),
            ("LIBARCHIVE.xattr.user.a", "QUJD"),
            ("LIBARCHIVE.xattr.user%2Eb", "QUJD"),
        ] {
            let length = key.len() + value.len() + 5;
            data.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
        }
        let records = read(&data);
        let xattrs = records.unwrap().xattrs;
        let pairs: Vec<_> = xattrs.iter().map(|(name, xattr)| (&name[..], &xattr.value[..])).collect();
        assert_eq!(pairs, [(&b"user.a"[..], &b"\0\n1"[..]), (b"user.b", b"ABC")]);
        assert_eq!(base64(b"QQ").unwrap(), b"A");
        assert_eq!(base64(b"QQ==").unwrap(), b"A");
        assert_eq!(base64(b"Q"), None);
        assert_eq!(base64(b"Q!=="), None);
    }

    #[test]
    fn names_with_nul_and_global_names_are_refused() {
        assert_eq!(read(b"12 path=a\0b\n").err(), Some(Fault::Nul("path")));
        assert!(Records::default().read(b"10 path=a\n", true).is_err());
        assert!(Records::default().read(b"9 uid=12\n", true).is_ok());
        assert_eq!(read(b"9 uid=-1\n").err(), Some(Fault::Number("uid")));
    }
}
