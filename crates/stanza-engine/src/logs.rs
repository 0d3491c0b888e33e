//! `logs`: what a container wrote, from the files that its monitor keeps in Docker's json-file form.
//!
//! ```text
//!  container.log.4 … container.log.1   container.log        the oldest first
//!  {"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}
//! ```
//!
//! Following waits for the kernel's word (inotify) about the log directory and the state directory, where the exit
//! record appears; a file that was rotated away is read to its end through the descriptor that is open.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde::Deserialize;
use stanza_sandbox::Status;
use stanza_spec::{Classify, ContainerId, ErrorKind, Instant, LogDriver, TimeError};

use crate::Engine;
use crate::engine::make_directory;
use crate::find::FindError;

/// Which lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only lines of that time or later: RFC 3339, seconds since 1970, or a duration before now, as `10m`.
    pub since: Option<String>,
    /// Only lines of that time or earlier, in the same forms.
    pub until: Option<String>,
    /// Only so many of the last lines; `None` is all.
    pub tail: Option<usize>,
    /// The caller shows times; kept for doors, changes nothing here: every line has its time.
    pub timestamps: bool,
}

/// Where a line went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output; everything, with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or a part of a very long one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LogLine {
    /// The text, with its newline when it has one.
    #[serde(rename = "log")]
    pub text: String,
    /// Where it went.
    pub stream: LogStream,
    /// When, RFC 3339 with nanoseconds.
    pub time: String,
}

/// Why logs cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Nothing is kept.
    #[error("configured logging driver does not support reading")]
    NotKept,
    /// `since` or `until`.
    #[error("invalid value for \"{option}\"")]
    Time {
        /// Which.
        option: &'static str,
        /// Why.
        #[source]
        source: TimeError,
    },
    /// A file cannot be read.
    #[error("cannot read the log `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its state cannot be read.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
}

impl Classify for LogsError {
    fn kind(&self) -> ErrorKind {
        match self {
            LogsError::Find(error) => error.kind(),
            LogsError::NotKept => ErrorKind::Unsupported,
            LogsError::Time { .. } => ErrorKind::InvalidArgument,
            LogsError::Read { source, .. } => ErrorKind::of_io(source),
            LogsError::Status(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            LogsError::Find(error) => error.hint(),
            LogsError::NotKept => Some("it was created with `--log-driver none`".to_owned()),
            _ => None,
        }
    }
}

/// Nanoseconds of the first and last line wanted.
#[derive(Clone, Copy)]
struct Window {
    since: Instant,
    until: Instant,
}

impl Engine {
    /// Gives every line that the query wants to `sink`, the oldest first.
    ///
    /// # Errors
    /// When there is no such container, its output is not kept, a time is wrong, or a file cannot be read.
    pub fn logs(
        &mut self,
        id: &ContainerId,
        query: &LogQuery,
        sink: &mut dyn FnMut(LogLine),
    ) -> Result<(), LogsError> {
        let record = self.record(id)?;
        if record.config.log.driver == LogDriver::None {
            return Err(LogsError::NotKept);
        }
        let window = window(query)?;
        let state_dir = self.options.container_dir(id.as_str());
        let run_dir = self.options.run_dir(id.as_str());
        let runs = || Ok(matches!(stanza_sandbox::status(&run_dir, &state_dir)?, Status::Running(_)));
        let directory = state_dir.join("log");
        if query.follow {
            // What does not exist cannot be watched.
            make_directory(&directory, 0o700)
                .map_err(|source| LogsError::Read { path: directory.clone(), source })?;
        }
        let follower = Follower { directory: &directory, state_dir: &state_dir, window };
        follower.run(query, &runs, sink)
    }

    /// The newest log file of a container; `None` when nothing is kept.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn logs_path(&mut self, id: &ContainerId) -> Result<Option<PathBuf>, FindError> {
        let record = self.record(id)?;
        Ok((record.config.log.driver == LogDriver::JsonFile)
            .then(|| self.options.container_dir(id.as_str()).join("log/container.log")))
    }
}

fn window(query: &LogQuery) -> Result<Window, LogsError> {
    let now = Instant::now();
    let parse = |option, text: &Option<String>, default| match text {
        None => Ok(default),
        Some(text) => Instant::parse(text, now).map_err(|source| LogsError::Time { option, source }),
    };
    Ok(Window {
        since: parse("since", &query.since, Instant(i128::MIN))?,
        until: parse("until", &query.until, Instant(i128::MAX))?,
    })
}

struct Follower<'a> {
    directory: &'a Path,
    state_dir: &'a Path,
    window: Window,
}

/// The newest file, open, with what was read of a line that is not whole yet.
struct Current {
    reader: BufReader<File>,
    identity: (u64, u64),
    partial: Vec<u8>,
}

impl Follower<'_> {
    fn run(
        &self,
        query: &LogQuery,
        runs: &dyn Fn() -> Result<bool, LogsError>,
        sink: &mut dyn FnMut(LogLine),
    ) -> Result<(), LogsError> {
        // Watched before the first read: what is written in between is not missed.
        let watch = if query.follow { Some(self.watch()?) } else { None };
        let mut last: VecDeque<LogLine> = VecDeque::new();
        let mut current = None;
        {
            let mut keep = |line: LogLine| match query.tail {
                None => sink(line),
                Some(count) => {
                    last.push_back(line);
                    if last.len() > count {
                        last.pop_front();
                    }
                }
            };
            for path in self.rotated() {
                if let Some(mut file) = open(&path)? {
                    self.read(&mut file, &path, &mut keep)?;
                }
            }
            let path = self.newest();
            if let Some(mut file) = open(&path)? {
                self.read(&mut file, &path, &mut keep)?;
                current = Some(file);
            }
        }
        last.into_iter().for_each(&mut *sink);
        let Some(watch) = watch else { return Ok(()) };
        while Instant::now() <= self.window.until {
            // Asked before reading: what is written up to the end is read after it.
            let running = runs()?;
            self.advance(&mut current, sink)?;
            if !running {
                return Ok(());
            }
            self.wait(&watch)?;
        }
        Ok(())
    }

    fn newest(&self) -> PathBuf {
        self.directory.join("container.log")
    }

    /// Files that were rotated away, the oldest first.
    fn rotated(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = (1u32..)
            .map(|n| self.directory.join(format!("container.log.{n}")))
            .take_while(|path| path.exists())
            .collect();
        files.reverse();
        files
    }

    /// Reads on, over a rotation when there was one.
    fn advance(&self, current: &mut Option<Current>, sink: &mut dyn FnMut(LogLine)) -> Result<(), LogsError> {
        let path = self.newest();
        loop {
            if let Some(file) = current {
                self.read(file, &path, sink)?;
            }
            let newest = std::fs::metadata(&path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
            let same = match (&*current, newest) {
                (_, None) => true,
                (Some(file), Some(newest)) => file.identity == newest,
                (None, Some(_)) => false,
            };
            if same {
                return Ok(());
            }
            // Nothing is written to a file after it was rotated away, so the last read saw its end. Whole files may
            // have come and gone in between.
            let old = current.as_ref().map(|file| file.identity);
            let missed = self.rotated().into_iter().skip_while(|path| old.is_some() && identity(path) != old);
            for path in missed.skip(usize::from(old.is_some())) {
                if let Some(mut file) = open(&path)? {
                    self.read(&mut file, &path, sink)?;
                }
            }
            *current = open(&path)?;
            if current.is_none() {
                return Ok(());
            }
        }
    }

    fn read(&self, file: &mut Current, path: &Path, sink: &mut dyn FnMut(LogLine)) -> Result<(), LogsError> {
        loop {
            file.reader
                .read_until(b'\n', &mut file.partial)
                .map_err(|source| LogsError::Read { path: path.to_path_buf(), source })?;
            if file.partial.last() != Some(&b'\n') {
                return Ok(());
            }
            // A line cut by a crash of the machine is passed over.
            if let Ok(line) = serde_json::from_slice::<LogLine>(&file.partial) {
                let time = Instant::parse_rfc3339(&line.time).unwrap_or(self.window.since);
                if time >= self.window.since && time <= self.window.until {
                    sink(line);
                }
            }
            file.partial.clear();
        }
    }

    fn watch(&self) -> Result<rustix::fd::OwnedFd, LogsError> {
        let failed = |source: rustix::io::Errno| LogsError::Read {
            path: self.directory.to_path_buf(),
            source: source.into(),
        };
        let watch =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
        let names = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        for (directory, flags) in
            [(self.directory, names | inotify::WatchFlags::MODIFY), (self.state_dir, names)]
        {
            match inotify::add_watch(&watch, directory, flags) {
                // Not started yet: the log directory comes with the start, which the state directory shows.
                Ok(_) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(watch)
    }

    /// Waits until something happened, at most a second: a monitor that is killed tells nobody.
    fn wait(&self, watch: &rustix::fd::OwnedFd) -> Result<(), LogsError> {
        let mut descriptors = [PollFd::new(watch, PollFlags::IN)];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut descriptors, Some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(LogsError::Read { path: self.directory.to_path_buf(), source: error.into() });
            }
        }
        let mut events = [0u8; 4096];
        // Which file it was does not matter, only that something happened.
        while rustix::io::read(watch.as_fd(), &mut events).is_ok_and(|count| count > 0) {}
        Ok(())
    }
}

fn open(path: &Path) -> Result<Option<Current>, LogsError> {
    let failed = |source| LogsError::Read { path: path.to_path_buf(), source };
    match File::open(path) {
        Ok(file) => {
            let metadata = file.metadata().map_err(failed)?;
            let identity = (metadata.dev(), metadata.ino());
            Ok(Some(Current { reader: BufReader::new(file), identity, partial: Vec::new() }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::fs;
    use std::io::Write;

    use super::*;

    fn line(n: u32) -> String {
        format!(
            "{{\"log\":\"{n}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:{n:02}.000000000Z\"}}\n"
        )
    }

    fn collect(dir: &Path, query: &LogQuery, runs: &dyn Fn() -> Result<bool, LogsError>) -> Vec<String> {
        let follower =
            Follower { directory: &dir.join("log"), state_dir: dir, window: window(query).unwrap() };
        let mut lines = Vec::new();
        follower.run(query, runs, &mut |line| lines.push(line.text.trim_end().to_owned())).unwrap();
        lines
    }

    fn files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        for (name, numbers) in [("container.log.2", 0..2), ("container.log.1", 2..4), ("container.log", 4..6)]
        {
            fs::write(dir.path().join("log").join(name), numbers.map(line).collect::<String>()).unwrap();
        }
        dir
    }

    #[test]
    fn lines_come_from_all_files_in_order_and_within_the_window() {
        let dir = files();
        let stopped = || Ok(false);
        let all = LogQuery::default();
        assert_eq!(collect(dir.path(), &all, &stopped), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(
            collect(dir.path(), &LogQuery { tail: Some(3), ..all.clone() }, &stopped),
            ["3", "4", "5"]
        );
        assert_eq!(
            collect(dir.path(), &LogQuery { tail: Some(0), ..all.clone() }, &stopped),
            Vec::<String>::new()
        );
        let window = LogQuery {
            since: Some("2026-01-01T00:00:01Z".into()),
            until: Some("2026-01-01T00:00:04Z".into()),
            ..all
        };
        assert_eq!(collect(dir.path(), &window, &stopped), ["1", "2", "3", "4"]);
    }

    #[test]
    fn a_broken_line_is_passed_over_and_a_cut_one_left_for_later() {
        let dir = files();
        let path = dir.path().join("log/container.log");
        fs::write(&path, format!("{}junk\n{}{{\"log\":", line(4), line(5))).unwrap();
        assert_eq!(collect(dir.path(), &LogQuery::default(), &|| Ok(false)).len(), 6);
    }

    #[test]
    fn following_goes_over_rotations_and_ends_with_the_container() {
        let dir = files();
        let log = dir.path().join("log");
        let step = Cell::new(0);
        let seen = RefCell::new(());
        let runs = || {
            let _ = seen.borrow();
            step.set(step.get() + 1);
            match step.get() {
                1 => {
                    fs::OpenOptions::new()
                        .append(true)
                        .open(log.join("container.log"))
                        .unwrap()
                        .write_all(line(6).as_bytes())
                        .unwrap();
                    Ok(true)
                }
                2 => {
                    fs::remove_file(log.join("container.log.2")).unwrap();
                    fs::rename(log.join("container.log.1"), log.join("container.log.3")).unwrap();
                    fs::rename(log.join("container.log"), log.join("container.log.2")).unwrap();
                    fs::write(log.join("container.log.1"), line(7)).unwrap();
                    fs::write(log.join("container.log"), line(8)).unwrap();
                    Ok(true)
                }
                _ => Ok(false),
            }
        };
        let query = LogQuery { follow: true, tail: Some(1), ..LogQuery::default() };
        assert_eq!(collect(dir.path(), &query, &runs), ["5", "6", "7", "8"]);
    }
}
