//! An archive through the reader; what is read through is compared with what GNU tar lists.

use std::io::{BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use stanza_tar::{Archive, EntryKind, Header, Limits};

use crate::Outcome;

/// A line of a listing: type, size of a file, path and link without trailing slashes.
type Line = (char, u64, Vec<u8>, Vec<u8>);

pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let Ok(lines) = read(bytes)? else { return Ok(false) };
    match gnu(bytes)? {
        Some(expected) if expected != lines => {
            let at = lines.iter().zip(&expected).take_while(|(own, other)| own == other).count();
            let tell = |lines: &[Line]| {
                lines.get(at).map(|(kind, size, path, link)| {
                    format!("{kind} {size} {} {}", path.escape_ascii(), link.escape_ascii())
                })
            };
            let (own, other) = (tell(&lines), tell(&expected));
            Err(format!(
                "{} entries, GNU tar has {}; entry {at}: {own:?}, {other:?}",
                lines.len(),
                expected.len()
            ))
        }
        _ => Ok(true),
    }
}

fn line(header: &Header) -> Line {
    let kind = match header.kind {
        // GNU tar takes a file whose name ends in a slash for a directory; Go does not, nor does this project.
        EntryKind::File if header.path.ends_with(b"/") => return ('d', 0, trimmed(&header.path), Vec::new()),
        EntryKind::File => '-',
        EntryKind::HardLink => 'h',
        EntryKind::Symlink => 'l',
        EntryKind::CharacterDevice => 'c',
        EntryKind::BlockDevice => 'b',
        EntryKind::Directory => 'd',
        EntryKind::Fifo => 'p',
    };
    (kind, header.size, trimmed(&header.path), header.link.clone())
}

fn trimmed(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    path[..end].to_vec()
}

/// The entries, or why not; an error is a broken promise.
fn read(bytes: &[u8]) -> Result<Result<Vec<Line>, ()>, String> {
    let limits = Limits::default();
    let mut archive = Archive::new(BufReader::new(bytes), limits);
    let mut lines = Vec::new();
    loop {
        let mut entry = match archive.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => {
                drop(error.to_string());
                return Ok(Err(()));
            }
        };
        let header = entry.header().clone();
        if header.path.contains(&0)
            || header.path.len() > limits.path
            || header.mode > 0o7777
            || header.mtime.1 > 999_999_999
        {
            return Err(format!("an entry that cannot be: {header:?}"));
        }
        if let Some(segments) = entry.sparse() {
            let ordered = segments.windows(2).all(|two| two[0].offset + two[0].length <= two[1].offset);
            let inside = segments.iter().all(|one| {
                one.length > 0 && one.offset.checked_add(one.length).is_some_and(|end| end <= header.size)
            });
            if !ordered || !inside {
                return Err(format!("segments that cannot be: {segments:?} of {}", header.size));
            }
        }
        let mut left = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut buffer = [0; 4096];
        loop {
            match entry.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    left = left
                        .checked_sub(u64::try_from(count).unwrap_or(0))
                        .ok_or("more content than there is")?
                }
                Err(_) => return Ok(Err(())),
            }
        }
        lines.push(line(&header));
        if lines.len() > bytes.len() / 512 {
            return Err("more entries than blocks".into());
        }
    }
    Ok(archive.finish().map(|_| lines).map_err(|_| ()))
}

/// What GNU tar lists; `None` when it complains of anything.
fn gnu(bytes: &[u8]) -> Result<Option<Vec<Line>>, String> {
    let mut child = Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--full-time", "--quoting-style=c", "--file=-"])
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("tar: {error}"))?;
    let mut stdin = child.stdin.take().ok_or("no input")?;
    let input = bytes.to_vec();
    // It may end without reading all of it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().map_err(|error| format!("tar: {error}"))?;
    let _ = writer.join();
    if !output.status.success() || !output.stderr.is_empty() {
        return Ok(None);
    }
    // The label of a volume is no entry to us.
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'V');
    Ok(lines.map(|line| parse(&String::from_utf8_lossy(line))).collect())
}

/// `-rw-r--r-- 0/0 5 2023-11-14 22:13:20 "name"`, with ` -> "target"` or ` link to "target"`.
fn parse(line: &str) -> Option<Line> {
    let kind = line.chars().next()?;
    let quote = line.find('"')?;
    let size = line[..quote].split_whitespace().nth(2)?;
    let (path, rest) = unquoted(&line[quote..])?;
    let link = rest.find('"').and_then(|at| unquoted(&rest[at..])).map(|(link, _)| link).unwrap_or_default();
    let kind = match kind {
        '-' | 'C' if path.ends_with(b"/") => 'd',
        'C' => '-',
        other => other,
    };
    let size = if kind == '-' { size.parse().ok()? } else { 0 };
    Some((kind, size, trimmed(&path), link))
}

/// A string of C at the start, and what follows.
fn unquoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut letters = text.char_indices().skip(1);
    let mut bytes = Vec::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((bytes, &text[at + 1..])),
            '\\' => {
                let (_, letter) = letters.next()?;
                bytes.push(match letter {
                    'n' => b'\n',
                    't' => b'\t',
                    'r' => b'\r',
                    'b' => 8,
                    'a' => 7,
                    'f' => 12,
                    'v' => 11,
                    '0'..='3' => {
                        let more = letters.by_ref().take(2).filter_map(|(_, digit)| digit.to_digit(8));
                        let value = more.fold(letter.to_digit(8)?, |value, digit| value * 8 + digit);
                        u8::try_from(value).ok()?
                    }
                    other => u8::try_from(other).ok()?,
                });
            }
            other => bytes.push(u8::try_from(other).ok()?),
        }
    }
    None
}
