//! OpenPGP signatures, verified by the program `gpgv` of GnuPG.
//!
//! What a signed message of strangers is parsed by runs in a process of its own, which is made for this, comes with
//! every distribution (Debian's `apt` needs it) and gets its security updates from there. The libraries for it are
//! under the LGPL, which a static executable cannot keep, or bring a second set of ciphers.
//!
//! ```text
//! memfd keyring, memfd message ── /proc/<pid>/fd/N ──▶ gpgv ── stdout ──▶ the signed bytes, bounded
//!                                                       '── fd 0 ─────▶ what gpgv found, for machines
//! ```
//!
//! What it found comes through a pipe of its own: mixed with other words, a signed file's name could pretend to be a
//! finding (CVE-2018-12020).

use std::fs::File;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};

use super::error::PolicyError;
use super::source::MAX_SIGNATURE;

/// Longest time for one signature.
const DEADLINE: Duration = Duration::from_secs(30);
const ARMOR_BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const ARMOR_END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// Public keys, all of them trusted.
pub(super) struct Keyring(File);

impl Keyring {
    /// Keys as `gpg --export` writes them, armoured or not.
    pub(super) fn new(bytes: &[u8]) -> Result<Keyring, String> {
        let armoured = std::str::from_utf8(bytes).ok().filter(|text| text.contains(ARMOR_BEGIN));
        let decoded = armoured.map(dearmour).transpose()?;
        let bytes = decoded.as_deref().unwrap_or(bytes);
        if bytes.is_empty() {
            return Err("it is empty".to_owned());
        }
        in_memory(bytes).map(Keyring).map_err(|error| error.to_string())
    }
}

/// The bytes of all armoured blocks (RFC 9580, section 6.2), one after the other.
fn dearmour(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while lines.any(|line| line == ARMOR_BEGIN) {
        let mut body = String::new();
        let mut headers = true;
        let mut ended = false;
        for line in lines.by_ref() {
            if line == ARMOR_END {
                ended = true;
                break;
            }
            match line {
                "" => headers = false,
                _ if headers && line.contains(": ") => {}
                // The checksum, which is optional to check.
                _ if line.starts_with('=') => {}
                line => {
                    headers = false;
                    body.push_str(line);
                }
            }
        }
        if !ended {
            return Err("its armour has no end".to_owned());
        }
        bytes.extend(STANDARD.decode(&body).map_err(|error| format!("its armour is damaged: {error}"))?);
    }
    Ok(bytes)
}

fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("stanza-openpgp", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// The name by which another process of this user opens a file of ours.
fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// What came of one signature: the bytes that were signed, or why it counts for nothing.
pub(super) type Verdict = Result<Vec<u8>, String>;

/// Verifies a signed message by any of the keys.
pub(super) fn verify(keyrings: &[Keyring], message: &[u8]) -> Result<Verdict, PolicyError> {
    // Binary OpenPGP packets alone: neither armour nor clear text.
    if message.first().is_none_or(|first| first & 0x80 == 0) {
        return Ok(Err("it is no OpenPGP message".to_owned()));
    }
    run(keyrings, message).map_err(|source| PolicyError::Gpgv { source })
}

fn run(keyrings: &[Keyring], message: &[u8]) -> io::Result<Verdict> {
    let message = in_memory(message)?;
    let (findings, write) = io::pipe()?;
    let mut command = Command::new("gpgv");
    command.args(["--homedir", "/dev/null", "--quiet", "--status-fd", "0", "--output", "-"]);
    for keyring in keyrings {
        command.arg("--keyring").arg(path_of(&keyring.0));
    }
    command.arg(path_of(&message)).env_clear().stdin(write).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let mut child = command.spawn()?;
    // The command holds the pipe's other end open.
    drop(command);
    let answer = read_answer(&mut child, findings);
    let complete = matches!(answer, Ok(Some(_)));
    if !complete {
        // Already ended is as good.
        drop(child.kill());
    }
    let status = child.wait()?;
    let Some((payload, findings)) = answer? else {
        return Ok(Err("it takes too long to verify, or holds too much".to_owned()));
    };
    Ok(judge(&findings, status.success()).map(|()| payload))
}

/// Reads both pipes to their ends. `None` when one brings too much or the time is over.
fn read_answer(child: &mut Child, findings: PipeReader) -> io::Result<Option<(Vec<u8>, String)>> {
    let end = Instant::now() + DEADLINE;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("it has no standard output"))?;
    let mut pipes = [Incoming::new(Pipe::Payload(stdout)), Incoming::new(Pipe::Findings(findings))];
    while pipes.iter().any(|pipe| pipe.open) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || pipes.iter().any(|pipe| pipe.bytes.len() > MAX_SIGNATURE) {
            return Ok(None);
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let ready: Vec<bool> = {
            let mut polled: Vec<PollFd<'_>> = pipes
                .iter()
                .filter(|pipe| pipe.open)
                .map(|pipe| PollFd::from_borrowed_fd(pipe.pipe.as_fd(), PollFlags::IN))
                .collect();
            match poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            polled.iter().map(|one| !one.revents().is_empty()).collect()
        };
        for (pipe, _) in pipes.iter_mut().filter(|pipe| pipe.open).zip(ready).filter(|(_, ready)| *ready) {
            pipe.read()?;
        }
    }
    let [payload, findings] = pipes;
    Ok(Some((payload.bytes, String::from_utf8_lossy(&findings.bytes).into_owned())))
}

enum Pipe {
    Payload(ChildStdout),
    Findings(PipeReader),
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Pipe::Payload(pipe) => pipe.as_fd(),
            Pipe::Findings(pipe) => pipe.as_fd(),
        }
    }
}

struct Incoming {
    pipe: Pipe,
    bytes: Vec<u8>,
    open: bool,
}

impl Incoming {
    fn new(pipe: Pipe) -> Incoming {
        Incoming { pipe, bytes: Vec::new(), open: true }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let count = match &mut self.pipe {
            Pipe::Payload(pipe) => pipe.read(&mut buffer)?,
            Pipe::Findings(pipe) => pipe.read(&mut buffer)?,
        };
        self.open = count > 0;
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

/// Whether the findings (GnuPG's doc/DETAILS, "Format of the status output") are those of one message with one good
/// signature. `gpgv` ends with success also for keys that expired or were revoked.
fn judge(findings: &str, success: bool) -> Result<(), String> {
    let mut counts = [("NEWSIG", 0), ("GOODSIG", 0), ("VALIDSIG", 0), ("PLAINTEXT", 0)];
    for line in findings.lines() {
        let Some(line) = line.strip_prefix("[GNUPG:] ") else { continue };
        let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
        let key = rest.split(' ').next().unwrap_or_default().escape_debug();
        let bad = match keyword {
            "BADSIG" => format!("its signature by the key `{key}` is wrong"),
            "EXPSIG" => format!("its signature by the key `{key}` has expired"),
            "EXPKEYSIG" => format!("its key `{key}` has expired"),
            "REVKEYSIG" => format!("its key `{key}` was revoked"),
            "NO_PUBKEY" => format!("its key `{key}` is none of the policy's"),
            "NODATA" => "it is no signed message".to_owned(),
            _ => {
                if let Some((_, count)) = counts.iter_mut().find(|(name, _)| *name == keyword) {
                    *count += 1;
                }
                continue;
            }
        };
        return Err(bad);
    }
    if !success || counts.iter().any(|(_, count)| *count != 1) {
        return Err("it is not one message with one good signature".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
