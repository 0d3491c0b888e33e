//! Running the machine's programs.

use std::process::{Command, Stdio};

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Whether a program is installed.
pub(crate) fn have(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is; directories of administrators too.
pub(crate) fn find(program: &str) -> Option<String> {
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
