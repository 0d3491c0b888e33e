//! GNU and pax archives to files, with nothing but names, contents and links.

use std::fs::{self, File};
use std::io::{self, BufRead, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn octal(field: &[u8]) -> u64 {
    let digits = field.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |value, digit| value * 8 + u64::from(digit - b'0'))
}

fn below(directory: &Path, name: &[u8]) -> PathBuf {
    let name = name.strip_prefix(b"/").unwrap_or(name);
    directory.join(std::ffi::OsStr::from_bytes(name))
}

/// `path` and `linkpath` of a pax header.
fn pax(records: &[u8], path: &mut Option<Vec<u8>>, link: &mut Option<Vec<u8>>) {
    for record in records.split(|byte| *byte == b'\n') {
        let record = record.splitn(2, |byte| *byte == b' ').nth(1).unwrap_or_default();
        if let Some(value) = record.strip_prefix(b"path=") {
            *path = Some(value.to_vec());
        } else if let Some(value) = record.strip_prefix(b"linkpath=") {
            *link = Some(value.to_vec());
        }
    }
}

/// Straight out of the reader's buffer.
fn write(content: &mut impl BufRead, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    loop {
        let buffer = content.fill_buf()?;
        let length = buffer.len();
        if length == 0 {
            return Ok(());
        }
        file.write_all(buffer)?;
        content.consume(length);
    }
}

/// Writes every entry of `tar` below `directory`.
pub(crate) fn untar(tar: &mut impl BufRead, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let (mut path, mut link) = (None, None);
    let mut header = [0; 512];
    loop {
        tar.read_exact(&mut header)?;
        if header[0] == 0 {
            return Ok(());
        }
        let size = octal(&header[124..136]);
        let padding = size.next_multiple_of(512) - size;
        let mut content = tar.by_ref().take(size);
        match header[156] {
            kind @ (b'x' | b'L' | b'K') => {
                let mut records = Vec::new();
                content.read_to_end(&mut records)?;
                match kind {
                    b'x' => pax(&records, &mut path, &mut link),
                    b'L' => path = Some(text(&records).to_vec()),
                    _ => link = Some(text(&records).to_vec()),
                }
            }
            kind => {
                let name = path.take().unwrap_or_else(|| text(&header[..100]).to_vec());
                let target = link.take().unwrap_or_else(|| text(&header[157..257]).to_vec());
                let to = below(directory, &name);
                match kind {
                    b'5' => fs::create_dir_all(&to)?,
                    b'2' => symlink(std::ffi::OsStr::from_bytes(&target), &to)?,
                    b'1' => fs::hard_link(below(directory, &target), &to)?,
                    b'0' | 0 => write(&mut content, &to)?,
                    _ => {}
                }
            }
        }
        io::copy(&mut tar.by_ref().take(padding), &mut io::sink())?;
    }
}
