//! criu, the program that writes processes into files and makes processes of them again: what it is told, and why it failed.
//!
//! It is called by its command line. Its own log has the reason of a failure; the first error in it is passed on, because
//! the later ones follow from it.
//!
//! Not here: what makes a container of the processes (records, cgroups); that is the verbs' part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stanza_spec::oci::runtime::{LinuxNamespaceType, Spec};

use crate::arguments::{Flag, Parsed, option, switch};
use crate::context::Context;
use crate::failure::{Doing, Failure};

/// The options that `checkpoint` and `restore` share.
pub(crate) const FLAGS: [Flag; 12] = [
    option(&["image-path"], "DIR", "the images (default: `checkpoint` in the working directory)"),
    option(&["work-path"], "DIR", "where criu works and logs (default: the images' directory)"),
    switch(&["tcp-established"], "keep open TCP connections"),
    switch(&["tcp-close"], "close open TCP connections"),
    switch(&["tcp-skip-in-flight"], "pass over TCP connections that are being made"),
    switch(&["ext-unix-sk"], "allow Unix sockets whose other end is outside"),
    switch(&["shell-job"], "allow a terminal that is the caller's"),
    switch(&["lazy-pages"], "move memory when it is used"),
    switch(&["file-locks"], "keep file locks"),
    option(&["manage-cgroups-mode"], "MODE", "`soft` (default), `full`, `strict` or `ignore`"),
    option(&["empty-ns"], "NAME", "leave what is in this namespace aside; `network` is the only one"),
    switch(&["auto-dedup"], "drop memory pages that a later image has, too"),
];

/// What criu calls a network namespace that is not the container's own.
pub(crate) const NETWORK: &str = "extRootNetNS";

/// Beside the images, where runc has it, too: what the first process's standard descriptors were.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";

/// Where a run reads, writes and logs.
#[derive(Debug)]
pub(crate) struct Places {
    /// Absolute.
    pub(crate) images: PathBuf,
    /// Absolute.
    pub(crate) work: PathBuf,
}

impl Places {
    /// By the words of the command line; nothing is made.
    pub(crate) fn of(parsed: &Parsed) -> Result<Places, Failure> {
        let path = |name, default: &Path| {
            let given = parsed.value(name).filter(|path| !path.is_empty()).map_or(default, Path::new);
            std::path::absolute(given).doing("find", given)
        };
        let images = path("image-path", Path::new("checkpoint"))?;
        let work = path("work-path", &images)?;
        Ok(Places { images, work })
    }
}

/// The words for the options that are shared.
pub(crate) fn shared_words(parsed: &Parsed) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    for (name, word) in [
        ("tcp-established", "--tcp-established"),
        ("tcp-close", "--tcp-close"),
        ("tcp-skip-in-flight", "--skip-in-flight"),
        ("ext-unix-sk", "--ext-unix-sk"),
        ("shell-job", "--shell-job"),
        ("lazy-pages", "--lazy-pages"),
        ("file-locks", "--file-locks"),
        ("auto-dedup", "--auto-dedup"),
    ] {
        if parsed.is_on(name) {
            words.push(word.to_owned());
        }
    }
    let mode = match parsed.value("manage-cgroups-mode").unwrap_or("") {
        "" | "soft" => "soft",
        known @ ("full" | "strict" | "ignore") => known,
        _ => return Err(Failure::Usage("Invalid manage-cgroups-mode value".to_owned())),
    };
    words.push(format!("--manage-cgroups={mode}"));
    for name in parsed.values("empty-ns") {
        match name {
            "network" => words.extend(["--empty-ns".to_owned(), "net".to_owned()]),
            other => {
                return Err(Failure::Usage(format!(
                    "namespace {other:?} cannot be left empty: expected network"
                )));
            }
        }
    }
    Ok(words)
}

/// The bind mounts, which stay the host's: where they are in the container.
pub(crate) fn external_mounts(spec: &Spec) -> impl Iterator<Item = &Path> {
    spec.mounts().iter().flatten().filter_map(|mount| {
        let bound = mount.typ().as_deref() == Some("bind")
            || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
        bound.then(|| mount.destination().as_path())
    })
}

/// The path of the network namespace when it is not the container's own.
pub(crate) fn external_network(spec: &Spec) -> Option<&Path> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    let network = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network)?;
    network.path().as_deref()
}

/// Refuses what criu's command line cannot do.
pub(crate) fn check(spec: &Spec) -> Result<(), Failure> {
    match spec.process().as_ref().and_then(|process| process.terminal()) {
        Some(true) => Err(Failure::State(
            "CRIU cannot take over the terminal of a container: its other end is outside".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Whose standard descriptors criu has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Descriptors {
    /// None of the caller's.
    None,
    /// The caller's: those of the processes that are restored.
    Callers,
}

/// Runs criu; `kind` is what its protocol calls the request, as runc's texts have it.
pub(crate) fn run(
    context: &Context,
    kind: &str,
    words: &[String],
    places: &Places,
    log: &str,
    descriptors: Descriptors,
) -> Result<(), Failure> {
    let program = &context.criu;
    let mut command = Command::new(program);
    match descriptors {
        Descriptors::None => command.stdin(Stdio::null()),
        Descriptors::Callers => {
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit())
        }
    };
    let output = command
        .args(words)
        .arg("--images-dir")
        .arg(&places.images)
        .arg("--work-dir")
        .arg(&places.work)
        .args(["--log-file", log, "-v4"])
        .output()
        .map_err(|source| Failure::Step {
            step: format!("cannot {}: run CRIU, the program `{}`", kind.to_lowercase(), program.display()),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    let log = places.work.join(log);
    let logged = fs::read(&log).unwrap_or_default();
    let reason = first_error(&String::from_utf8_lossy(&logged))
        .or_else(|| first_error(&String::from_utf8_lossy(&output.stderr)))
        .unwrap_or_else(|| output.status.to_string());
    Err(Failure::State(format!("criu failed: type {kind}: {reason}\nlog file: {}", log.display())))
}

/// The first error of a log, without the time and the place in criu's source.
fn first_error(log: &str) -> Option<String> {
    let line = log.lines().find_map(|line| line.split_once("Error (").map(|(_, rest)| rest))?;
    Some(line.split_once("): ").map_or(line, |(_, text)| text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_first_error_of_the_log() {
        let log = "(00.08) vdso: DT_SYMENT: 18\n(00.08) Error (criu/vdso.c:381): vdso: Unexpected bounds\n\
                   (00.09) Error (criu/vdso.c:613): later\n";
        assert_eq!(first_error(log).as_deref(), Some("vdso: Unexpected bounds"));
        assert_eq!(first_error("(00.08) all well\n"), None);
    }
}
