//! `stanza login`.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use clap::{ArgMatches, Command};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use stanza_image::{LoginError, LoginOptions, Place};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, optional_word, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["login"],
    group: Group::Common,
    about: "Log in to a registry",
    needs: Needs::Nothing,
    faults: Faults::Plain,
    build,
    run,
};

/// The registry when none is named.
pub(super) const HUB: &str = "https://index.docker.io/v1/";
/// Longest password: no registry has longer tokens, and a file without an end is none.
const MAX_SECRET: u64 = 1024 * 1024;

fn build() -> Command {
    command(
        "login",
        "stanza login [OPTIONS] [REGISTRY]",
        ENTRY.about,
        "Example:\n  stanza login -u ann --password-stdin registry.example.com < token",
    )
    .arg(value("username", 'u', "NAME", "The user's name"))
    .arg(value("password", 'p', "PASSWORD", "Password or token (others see it in the list of processes)"))
    .arg(switch("password-stdin", None, "Take the password from standard input"))
    .arg(value(
        "authfile",
        None,
        "FILE",
        "Keep it there (default $REGISTRY_AUTH_FILE or ~/.docker/config.json)",
    ))
    .arg(switch("tls-verify", None, "Ask for HTTPS with a known certificate (default true)"))
    .arg(optional_word("REGISTRY"))
}

/// What `--authfile` says.
pub(super) fn authfile(given: &ArgMatches) -> Result<Option<PathBuf>, Failure> {
    match given.text("authfile") {
        Some("") => Err(Failure::usage("option `--authfile` needs a file")),
        path => Ok(path.map(PathBuf::from)),
    }
}

fn run(_: &mut Door, given: &ArgMatches) -> Outcome {
    let registry = given.text("REGISTRY").unwrap_or(HUB);
    let options =
        LoginOptions { authfile: authfile(given)?, tls_verify: given.choice("tls-verify").unwrap_or(true) };
    let mut password = given.text("password").map(str::to_owned);
    let mut user = given.text("username").filter(|user| !user.is_empty()).map(str::to_owned);
    if password.is_some() {
        output::talk("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if given.on("password-stdin") {
        if password.is_some() {
            return Err(Failure::usage("--password and --password-stdin are mutually exclusive"));
        }
        if user.is_none() {
            return Err(Failure::usage("Must provide --username with --password-stdin"));
        }
        password = Some(secret_from(io::stdin().lock())?);
    }
    if user.is_none() && password.is_none() {
        if let Some((known, secret)) = stanza_image::stored_login(registry, &options)? {
            output::line("Authenticating with existing credentials...")?;
            match stanza_image::login(registry, &known, &secret, &options) {
                Ok(done) => return finish(&done.place),
                Err(error @ LoginError::Refused { .. }) => {
                    output::talk(&format!("Login did not succeed, error: {error}"));
                    user = ask("Username", Some(&known))?;
                }
                Err(error) => return Err(error.into()),
            }
        } else {
            if registry == HUB {
                output::line("Login with your Docker ID to push and pull images from Docker Hub.")?;
            }
            user = ask("Username", None)?;
        }
    }
    let user = match user {
        Some(user) => user,
        None => ask("Username", None)?.ok_or_else(|| Failure::usage("Error: Non-null Username Required"))?,
    };
    let password = match password {
        Some(password) => password,
        None => ask_secret()?,
    };
    if password.is_empty() {
        return Err(Failure::usage("Error: Password Required"));
    }
    let done = stanza_image::login(registry, &user, &password, &options)?;
    finish(&done.place)
}

fn finish(place: &Place) -> Outcome {
    if let Place::File(path) = place {
        output::talk(&format!(
            "WARNING! Your password will be stored unencrypted in {}.\n\
             Configure a credential helper to remove this warning: `credsStore` in that file.",
            path.display()
        ));
    }
    output::line("Login Succeeded").map(|()| 0)
}

/// All of standard input but the end of its line.
fn secret_from(input: impl io::Read) -> Result<String, Failure> {
    let mut text = String::new();
    input
        .take(MAX_SECRET)
        .read_to_string(&mut text)
        .map_err(|error| Failure::io("cannot read the password from standard input", &error))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn needs_terminal() -> Result<(), Failure> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage("Error: Cannot perform an interactive login from a non TTY device")
        .with_hint("give the name with `-u` and the password with `--password-stdin`"))
}

fn prompt(text: &str) {
    // Without an output to show it on, the question is still a question.
    let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
}

/// Asks for a line; an empty one means `known`.
fn ask(what: &str, known: Option<&str>) -> Result<Option<String>, Failure> {
    needs_terminal()?;
    prompt(&known.map_or_else(|| format!("{what}: "), |known| format!("{what} ({known}): ")));
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::io("cannot read from the terminal", &error))?;
    let line = line.trim();
    Ok(if line.is_empty() { known } else { Some(line) }.map(str::to_owned))
}

/// A terminal that does not show what is typed; as it was when dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> rustix::io::Result<Silence> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        // Signals are keys here, so that nothing ends this process before the terminal is as it was.
        silent.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that went away shows nothing anyway.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Asks for a password, which is not shown.
fn ask_secret() -> Result<String, Failure> {
    needs_terminal()?;
    let failed = |error: &io::Error| Failure::io("cannot read the password from the terminal", error);
    let silence = Silence::begin().map_err(|error| failed(&error.into()))?;
    prompt("Password: ");
    let mut typed = Vec::new();
    let mut key = [0];
    // Not through the buffer of `stdin`, which could keep what follows.
    loop {
        match rustix::io::read(io::stdin(), &mut key) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(failed(&error.into())),
        }
        match key[0] {
            b'\r' | b'\n' | 0x04 => break,
            0x03 => {
                drop(silence);
                prompt("\n");
                return Err(Failure::usage("interrupted"));
            }
            0x08 | 0x7f => {
                // A character may have several bytes.
                while typed.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            0x15 => typed.clear(),
            other => typed.push(other),
        }
    }
    drop(silence);
    prompt("\n");
    String::from_utf8(typed).map_err(|_| Failure::usage("the password is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::secret_from;

    #[test]
    fn one_end_of_line_is_not_part_of_the_password() {
        for (input, secret) in [("a b\n", "a b"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a", " a"), ("", "")] {
            assert_eq!(secret_from(input.as_bytes()).unwrap(), secret);
        }
    }
}
