//! Running the machine's programs.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Whether a program is installed.
pub(crate) fn have(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is; directories of administrators too. A path is looked at as it is.
pub(crate) fn find(program: &str) -> Option<String> {
    if program.starts_with('/') {
        return std::path::Path::new(program).is_file().then(|| program.to_owned());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin"]);
    directories
        .map(|directory| format!("{directory}/{program}"))
        .find(|path| std::path::Path::new(path).is_file())
}

/// Says the command, runs it; whether it succeeded.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<bool, String> {
    println!("==> {name}");
    let status = command.status().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if !status.success() {
        println!("==> {name}: failed ({status})");
    }
    Ok(status.success())
}

/// The standard output of a command that succeeds.
pub(crate) fn output(words: &[&str]) -> Result<String, String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{}`: {error}", words.join(" ")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}` failed: {}", words.join(" "), error.trim()))
}

/// A process that clears up when this task has ended, in whatever way: it reads a pipe that only this task has the other end
/// of, and is out of reach of the terminal's signals.
#[derive(Debug)]
pub(crate) struct Janitor {
    process: Child,
}

impl Janitor {
    /// Starts it; at the end it runs `script`, a shell's, with `paths` as its arguments.
    pub(crate) fn engage(script: &str, paths: &[PathBuf]) -> Result<Janitor, String> {
        let process = Command::new("setsid")
            .args(["sh", "-c", &format!("cat >/dev/null; {script}"), "sh"])
            .args(paths)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run `setsid`: {error}"))?;
        Ok(Janitor { process })
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // Its end of the pipe goes first.
        let _ = self.process.wait();
    }
}
