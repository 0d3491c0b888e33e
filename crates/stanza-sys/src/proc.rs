//! Files of /proc, read with as few calls as the kernel allows.

use std::fs::File;
use std::io::{self, Read};

/// Nearly all are smaller.
const ROOM: usize = 8 << 10;

/// The whole of a file whose size is not known beforehand, up to a mebibyte. Bytes that are no UTF-8 are replaced.
///
/// # Errors
/// When it cannot be opened or read.
pub fn read_proc(path: &str) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; ROOM];
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..])? {
            0 => break,
            count => length += count,
        }
        if length == bytes.len() {
            if length >= 1 << 20 {
                break;
            }
            bytes.resize(2 * length, 0);
        }
    }
    bytes.truncate(length);
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
