//! A Debian package: an `ar` archive (ar(5)) of `debian-binary`, `control.tar.*` and `data.tar.*` (deb(5)).

use std::io;

/// Why a file is no Debian package.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It does not begin like one.
    #[error("it is not a Debian package: it does not begin with `!<arch>`")]
    NotAnArchive,
    /// A member's header is not one.
    #[error("the header at byte {0} is corrupt")]
    Header(usize),
    /// It has no files.
    #[error("it has no member `data.tar.…`")]
    NoData,
    /// A compression that is not known here.
    #[error("`{0}` is compressed in an unknown way; expected xz, zstd or gzip")]
    Compression(String),
    /// It does not decompress.
    #[error("`{member}` cannot be decompressed")]
    Content {
        /// The member.
        member: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The member with the package's files: its name and content.
pub(super) fn find_data(package: &[u8]) -> Result<(String, &[u8]), DebError> {
    const HEADER: usize = 60;
    let mut at = 8;
    if !package.starts_with(b"!<arch>\n") {
        return Err(DebError::NotAnArchive);
    }
    while at < package.len() {
        let corrupt = || DebError::Header(at);
        let header = package.get(at..at + HEADER).ok_or_else(corrupt)?;
        let text = std::str::from_utf8(header).map_err(|_| corrupt())?;
        if !text.is_ascii() || !text.ends_with("`\n") {
            return Err(corrupt());
        }
        let name = text[..16].trim_end().trim_end_matches('/');
        let size: usize = text[48..58].trim_end().parse().map_err(|_| corrupt())?;
        let start = at + HEADER;
        let content = start.checked_add(size).and_then(|end| package.get(start..end)).ok_or_else(corrupt)?;
        if name == "data.tar" || name.starts_with("data.tar.") {
            return Ok((name.to_owned(), content));
        }
        at = (start + size).next_multiple_of(2);
    }
    Err(DebError::NoData)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn package(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in members {
            let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len());
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }

    #[test]
    fn the_files_are_found_behind_the_other_members() {
        let bytes =
            package(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", b"files")]);
        assert_eq!(find_data(&bytes).unwrap(), ("data.tar.xz".to_owned(), &b"files"[..]));
        let text = |bytes: &[u8]| find_data(bytes).unwrap_err().to_string();
        assert_eq!(text(b"text"), "it is not a Debian package: it does not begin with `!<arch>`");
        assert_eq!(text(&package(&[("debian-binary", b"2.0\n")])), "it has no member `data.tar.…`");
        assert_eq!(text(&bytes[..bytes.len() - 2]), "the header at byte 136 is corrupt");
        for at in 0..bytes.len() {
            let _ = find_data(&[&bytes[..at], &[0xff], &bytes[at + 1..]].concat());
            let _ = find_data(&bytes[..at]);
        }
    }
}
