//! `ps`: the processes of a container, as the host's `ps` shows them.

use std::io::Write;
use std::process::Command;

use crate::arguments::{Parsed, Verb, option};
use crate::context::Context;
use crate::failure::{Doing, Failure};
use crate::state::{Container, Status};

pub(super) static VERB: Verb = Verb {
    name: "ps",
    usage: "ID [OPTION-OF-PS...]",
    help: "Show the processes of a container",
    flags: &[option(&["format", "f"], "FORMAT", "`table` (the default) or `json`: an array of pids")],
    own_words: 1,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = parsed.words.first().ok_or_else(|| Failure::Usage("ps needs the container's id".to_owned()))?;
    let (format, options) = format_of(parsed)?;
    let container = Container::open(context, id)?;
    let mut pids = match container.status() {
        Status::Stopped => Vec::new(),
        _ => container.cgroup().pids().map_err(Failure::below)?,
    };
    if pids.is_empty() && container.cgroup().is_empty() {
        // Without cgroups of its own there is nothing to find the others by.
        pids.extend(container.init().and_then(|_| u32::try_from(container.record.init_process_pid).ok()));
    }
    let text = if format == "json" {
        serde_json::to_string(&pids).map_err(Failure::below)? + "\n"
    } else {
        table(&pids, options)?
    };
    std::io::stdout().write_all(text.as_bytes()).step("write to standard output")?;
    Ok(0)
}

/// The format, also where it stands after the id as containerd's callers write it; and what is for `ps`.
fn format_of(parsed: &Parsed) -> Result<(String, &[String]), Failure> {
    let mut format = parsed.value("format").unwrap_or("table").to_owned();
    let mut options = parsed.words.get(1..).unwrap_or_default();
    match options {
        [flag, value, rest @ ..] if flag == "--format" => (format, options) = (value.clone(), rest),
        [flag, rest @ ..] if flag.starts_with("--format=") => {
            (format, options) = (flag.trim_start_matches("--format=").to_owned(), rest);
        }
        _ => {}
    }
    match format.as_str() {
        "table" | "json" => Ok((format, options)),
        _ => Err(Failure::Usage("invalid format option".to_owned())),
    }
}

/// The lines of `ps` that are about these processes.
fn table(pids: &[u32], options: &[String]) -> Result<String, Failure> {
    let mut command = Command::new("ps");
    if options.is_empty() {
        command.arg("-ef")
    } else {
        command.args(options)
    };
    let output = command.output().step("run ps")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::State(format!("ps: {}: {}", output.status, said.trim_end())));
    }
    choose(&String::from_utf8_lossy(&output.stdout), pids)
}

fn choose(text: &str, pids: &[u32]) -> Result<String, Failure> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Failure::Usage("couldn't find PID field in ps output".to_owned()))?;
    let about_them = |line: &&str| {
        let field = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        field.is_some_and(|pid| pids.contains(&pid))
    };
    let chosen = std::iter::once(head).chain(lines.filter(about_them));
    Ok(chosen.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_their_pid() {
        let text = "UID PID CMD\nroot 1 init\nroot 12 sh\nroot 2 12\n";
        assert_eq!(choose(text, &[12]).unwrap(), "UID PID CMD\nroot 12 sh\n");
        assert!(choose("UID CMD\n", &[1]).is_err());
    }
}
