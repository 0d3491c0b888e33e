//! Running programs with a deadline.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use std::os::unix::process::ExitStatusExt as _;

/// No single command of a test takes longer, unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 128 + the signal that ended it, as a shell tells it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Its standard output, byte for byte.
    pub bytes: Vec<u8>,
}

/// A command that runs, with pipes to its three streams. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    so_far: Vec<u8>,
    what: String,
}

fn drain(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    if let Some(mut stream) = stream {
        thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// All that comes until the stream is closed.
fn rest(receiver: &Receiver<Vec<u8>>, what: &str, end: Instant) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left) {
            Ok(bytes) => all.extend(bytes),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return all,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                panic!(
                    "`{what}` ended, but something still holds its output open after {:?}",
                    String::from_utf8_lossy(&all)
                )
            }
        }
    }
}

pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

impl Running {
    /// Starts `command`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Running {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        let stdin = child.stdin.take();
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        Running { child, stdin, stdout, stderr, so_far: Vec::new(), what }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// When that is closed.
    pub fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).expect("the command reads its input");
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until its output so far contains `text`.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn expect(&mut self, text: &str) {
        let what = format!("`{text}` in the output of {}", self.what);
        crate::wait_until(&what, || {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            self.so_far.extend(self.stdout.try_iter().flatten());
            let found = String::from_utf8_lossy(&self.so_far).contains(text);
            if ended && !found {
                let output = self.finish();
                assert!(output.stdout.contains(text), "it ended without {what}: {output:?}");
                self.so_far = output.bytes;
                return true;
            }
            found
        });
    }

    /// Whether its output so far contains `text`.
    pub fn has_said(&mut self, text: &str) -> bool {
        self.so_far.extend(self.stdout.try_iter().flatten());
        String::from_utf8_lossy(&self.so_far).contains(text)
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait works").is_none()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal).expect("the signal is sent");
    }

    /// Closes its input and waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn finish(&mut self) -> Output {
        self.stdin = None;
        let end = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait works") {
                break status;
            }
            if Instant::now() >= end {
                let _ = self.child.kill();
                let stderr: Vec<u8> = self.stderr.try_iter().flatten().collect();
                panic!("{} did not end within {DEADLINE:?}: {}", self.what, String::from_utf8_lossy(&stderr));
            }
            thread::sleep(Duration::from_millis(1));
        };
        let end = Instant::now() + Duration::from_secs(10);
        let mut bytes = std::mem::take(&mut self.so_far);
        bytes.extend(rest(&self.stdout, &self.what, end));
        let stderr = rest(&self.stderr, &self.what, end);
        Output {
            code: code(status),
            stdout: String::from_utf8_lossy(&bytes).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            bytes,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the program is installed.
#[must_use]
pub fn have(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| PathBuf::from(dir).join(program).is_file())
}

/// Runs another program of this machine to its end; its output.
///
/// # Panics
/// When it cannot be started or does not end.
#[must_use]
pub fn tool(words: &[&str]) -> Output {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    Running::start(command).finish()
}

/// A port of 127.0.0.1 that was free a moment ago.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}
