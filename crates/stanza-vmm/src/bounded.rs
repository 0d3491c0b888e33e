//! Reading what may be of any size.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a regular file of at most `limit` bytes. A longer one, or anything that is not a file, is an error.
pub(crate) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    read(file, limit)
}

/// Reads to the end, which must come after at most `limit` bytes.
pub(crate) fn read(reader: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_longest_that_is_read() {
        assert_eq!(read(&b"four"[..], 4).unwrap(), b"four");
        assert_eq!(read(&b"fives"[..], 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
