//! A container's log: one JSON object a line, as Docker's `json-file` driver writes it, rotated by size.
//!
//! ```text
//!  {"log":"hello\n","stream":"stdout","time":"2026-11-20T21:52:48.123456789Z"}
//! ```
//!
//! A line longer than [`MAX_LINE`] is kept in pieces, of which only the last ends in a newline. The file is opened at
//! the first byte of output. A failure to write (a full disk) loses output from the log, never from clients, and is told
//! once, in the exit record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use stanza_spec::LogDriver;

use crate::plan::LogPlan;

/// Docker's length of a piece.
const MAX_LINE: usize = 16 << 10;

/// Which stream output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, and everything on a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Writes a container's log.
#[derive(Debug)]
pub(crate) struct Log {
    plan: LogPlan,
    file: Option<File>,
    size: u64,
    /// Bytes of each stream that have no newline yet.
    pending: [Vec<u8>; 2],
    /// The first failure.
    failure: Option<io::Error>,
}

impl Log {
    pub(crate) fn new(plan: LogPlan) -> Log {
        Log { plan, file: None, size: 0, pending: [Vec::new(), Vec::new()], failure: None }
    }

    /// Takes output as it comes.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], now: &str) {
        if self.plan.driver == LogDriver::None {
            return;
        }
        let mut lines = Vec::with_capacity(bytes.len() + 96);
        let pending = &mut self.pending[stream as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut piece = piece;
            while !piece.is_empty() {
                let (now_taken, later) = piece.split_at(piece.len().min(MAX_LINE - pending.len()));
                pending.extend_from_slice(now_taken);
                piece = later;
                if pending.ends_with(b"\n") || pending.len() == MAX_LINE {
                    append_line(&mut lines, stream, pending, now);
                    pending.clear();
                }
            }
        }
        self.append(&lines);
    }

    /// Writes what has no newline, at the end of output.
    pub(crate) fn finish(&mut self, now: &str) {
        let mut lines = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(&mut self.pending[stream as usize]);
            if !pending.is_empty() {
                append_line(&mut lines, stream, &pending, now);
            }
        }
        self.append(&lines);
    }

    /// Why output was lost, if it was.
    pub(crate) fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    fn append(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if let Err(error) = self.try_append(lines) {
            self.failure.get_or_insert(error);
        }
    }

    fn try_append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let file = self.open()?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let room = usize::try_from(self.plan.max_size.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let fitting = whole_lines(rest, room);
            // A single line longer than a whole file gets a file of its own.
            let count = if fitting == 0 && self.size == 0 { first_line(rest) } else { fitting };
            if count == 0 {
                self.rotate()?;
                continue;
            }
            let Some(file) = &mut self.file else { return Ok(()) };
            file.write_all(&rest[..count])?;
            self.size += count as u64;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        let options = || {
            let mut options = OpenOptions::new();
            options.create(true).append(true).mode(0o640);
            options
        };
        match options().open(&self.plan.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = self.plan.path.parent().unwrap_or(&self.plan.path);
                match fs::DirBuilder::new().mode(0o700).create(directory) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                options().open(&self.plan.path)
            }
            other => other,
        }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.plan.path.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name.into()
    }

    /// Renames every file to the next number, the last one away, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (0..self.plan.max_files.saturating_sub(1)).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.plan.max_files <= 1 {
            fs::remove_file(&self.plan.path)?;
        }
        self.file = Some(self.open()?);
        self.size = 0;
        Ok(())
    }
}

/// How many bytes of whole lines fit into `room`.
fn whole_lines(lines: &[u8], room: usize) -> usize {
    lines[..lines.len().min(room)].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

/// The length of the first line.
fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1)
}

fn append_line(lines: &mut Vec<u8>, stream: Stream, text: &[u8], now: &str) {
    let name = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    lines.extend_from_slice(b"{\"log\":");
    // Writing into memory cannot fail.
    let _ = serde_json::to_writer(&mut *lines, &String::from_utf8_lossy(text));
    lines.extend_from_slice(format!(",\"stream\":\"{name}\",\"time\":\"{now}\"}}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str, max_size: u64, max_files: u32) -> (PathBuf, Log) {
        let directory = std::env::temp_dir().join(format!("stanza-log-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        let path = directory.join("log/container.log");
        (directory, Log::new(LogPlan { driver: LogDriver::JsonFile, path, max_size, max_files }))
    }

    #[test]
    fn lines_are_whole_and_the_last_one_needs_no_newline() {
        let (directory, mut log) = scratch("lines", 1 << 20, 1);
        log.write(Stream::Stdout, b"one\ntw", "T1");
        log.write(Stream::Stderr, b"\"err\"\n", "T2");
        log.write(Stream::Stdout, b"o\nrest", "T3");
        log.finish("T4");
        let text = fs::read_to_string(directory.join("log/container.log")).unwrap();
        assert_eq!(
            text,
            "{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"T1\"}\n\
             {\"log\":\"\\\"err\\\"\\n\",\"stream\":\"stderr\",\"time\":\"T2\"}\n\
             {\"log\":\"two\\n\",\"stream\":\"stdout\",\"time\":\"T3\"}\n\
             {\"log\":\"rest\",\"stream\":\"stdout\",\"time\":\"T4\"}\n"
        );
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_line_without_end_is_kept_in_bounded_pieces() {
        let (directory, mut log) = scratch("pieces", 1 << 30, 1);
        log.write(Stream::Stdout, &vec![b'x'; MAX_LINE * 2 + 5], "T");
        log.finish("T");
        let text = fs::read_to_string(directory.join("log/container.log")).unwrap();
        let lengths: Vec<usize> = text.lines().map(|line| line.matches('x').count()).collect();
        assert_eq!(lengths, [MAX_LINE, MAX_LINE, 5]);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn files_are_rotated_and_only_so_many_kept() {
        let (directory, mut log) = scratch("rotate", 150, 3);
        // In one write: a file's limit holds for its lines, not for what came at once.
        let lines: String = (0..10).map(|number| format!("line {number}\n")).collect();
        log.write(Stream::Stdout, lines.as_bytes(), "T");
        let mut names: Vec<_> = fs::read_dir(directory.join("log"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["container.log", "container.log.1", "container.log.2"]);
        let newest = fs::read_to_string(directory.join("log/container.log")).unwrap();
        assert!(newest.contains("line 9") && newest.len() <= 150);
        fs::remove_dir_all(directory).unwrap();
    }
}
