//! Credential helpers: programs `docker-credential-NAME` that keep secrets (docker-credential-helpers, its protocol).
//!
//! ```text
//! get    < SERVER   > {"ServerURL","Username","Secret"}, or `credentials not found in native keychain` and exit code 1
//! store  < {"ServerURL","Username","Secret"}
//! erase  < SERVER
//! list              > {"SERVER": "USER", …}
//! ```
//!
//! The user name `<token>` says that the secret is an identity token. A helper has a minute, since it may ask its user;
//! what it says on standard error goes to ours.

use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Credentials;
use crate::registry::setup::SetupError;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer; a longer one is not credentials.
const MAX_ANSWER: u64 = 1024 * 1024;
const NOT_FOUND: &str = "credentials not found in native keychain";
const TOKEN_USER: &str = "<token>";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// What the helper keeps for a server.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credentials>, SetupError> {
    let failed = |source| SetupError::Helper { helper: name.to_owned(), action: "get", source };
    let Some(bytes) = run(name, "get", server.as_bytes()).map_err(failed)? else { return Ok(None) };
    // What does not parse is not shown: it may be a secret all the same.
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| {
        failed(io::Error::new(io::ErrorKind::InvalidData, "its answer is not the JSON agreed on"))
    })?;
    Ok(match answer {
        Answer { secret, .. } if secret.is_empty() => None,
        Answer { username, secret, .. } if username == TOKEN_USER => Some(Credentials::IdentityToken(secret)),
        Answer { username, secret, .. } => Some(Credentials::Basic { user: username, secret }),
    })
}

/// Gives credentials to the helper.
pub(super) fn store(name: &str, server: &str, credentials: &Credentials) -> Result<(), SetupError> {
    let failed = |source| SetupError::Helper { helper: name.to_owned(), action: "store", source };
    let (username, secret) = match credentials {
        Credentials::Basic { user, secret } => (user.as_str(), secret),
        Credentials::IdentityToken(token) => (TOKEN_USER, token),
        Credentials::Anonymous | Credentials::RegistryToken(_) => return Ok(()),
    };
    let answer =
        Answer { server_url: server.to_owned(), username: username.to_owned(), secret: secret.clone() };
    let bytes = serde_json::to_vec(&answer).map_err(|error| failed(error.into()))?;
    run(name, "store", &bytes).map(drop).map_err(failed)
}

/// Makes the helper forget a server; `false` when it did not know it.
pub(super) fn erase(name: &str, server: &str) -> Result<bool, SetupError> {
    // Some erase what is not there without a word, so it is asked first.
    if get(name, server)?.is_none() {
        return Ok(false);
    }
    run(name, "erase", server.as_bytes()).map(|_| true).map_err(|source| SetupError::Helper {
        helper: name.to_owned(),
        action: "erase",
        source,
    })
}

/// The servers that the helper knows.
pub(super) fn list(name: &str) -> Result<Vec<String>, SetupError> {
    let failed = |source| SetupError::Helper { helper: name.to_owned(), action: "list", source };
    let bytes = run(name, "list", b"").map_err(failed)?.unwrap_or_default();
    let known: std::collections::BTreeMap<String, String> =
        serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
    Ok(known.into_keys().collect())
}

/// Runs a helper; `None` when it knows nothing.
fn run(name: &str, verb: &str, input: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || !name.bytes().all(legal) {
        let text = "the name of a helper has letters, digits, `.`, `_` and `-` only";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let result = converse(&mut child, input);
    if result.is_err() {
        // It may have ended already.
        let _ = child.kill();
    }
    let code = child.wait();
    let (output, status) = (result?, code?);
    if status.success() {
        return Ok(Some(output));
    }
    let said = String::from_utf8_lossy(&output);
    match said.trim() {
        NOT_FOUND => Ok(None),
        "" => Err(io::Error::other(format!("it ends with {status}"))),
        said => Err(io::Error::other(said.escape_debug().to_string())),
    }
}

/// Writes the input and reads all output, and waits for the end of both.
fn converse(child: &mut Child, input: &[u8]) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + TIMEOUT;
    let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (sender, receiver) = mpsc::channel();
    let input = input.to_vec();
    std::thread::Builder::new().name("credentials".to_owned()).spawn(move || {
        let mut output = Vec::new();
        // A helper that does not read its input answers all the same.
        let _ = stdin.take().map(|mut stdin| stdin.write_all(&input));
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(MAX_ANSWER + 1).read_to_end(&mut output));
        // Nobody listens when the time is up.
        let _ = sender.send(read.map(|_| output));
    })?;
    let late =
        || io::Error::new(io::ErrorKind::TimedOut, format!("it takes more than {} s", TIMEOUT.as_secs()));
    let output = receiver.recv_timeout(TIMEOUT).map_err(|_| late())??;
    if u64::try_from(output.len()).map_or(true, |length| length > MAX_ANSWER) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer has more than 1 MiB"));
    }
    // Its output is closed, so it ends at once, or never.
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            return Err(late());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(output)
}
