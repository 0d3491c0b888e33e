//! The commands: one file each, and the table that finds them by their words.

use std::ffi::OsString;

use clap::{ArgMatches, Command};

use stanza_engine::Filters;

use crate::arguments::Given as _;
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

mod attach;
mod commit;
mod compare;
mod container_options;
mod cp;
mod create;
mod diff;
mod exec;
mod export;
mod help;
mod history;
mod image_diff;
mod image_inspect;
mod image_mount;
mod image_prune;
mod image_referrers;
mod image_squash;
mod image_tags;
mod image_tree;
mod image_unmount;
mod image_verify;
mod images;
mod import;
mod inspect;
mod kill;
mod load;
mod login;
mod logout;
mod logs;
mod manifest_inspect;
mod network_connect;
mod network_create;
mod network_disconnect;
mod network_exists;
mod network_graph;
mod network_inspect;
mod network_ls;
mod network_prune;
mod network_reload;
mod network_rm;
mod network_update;
mod port;
mod ps;
mod pull;
mod push;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod session;
mod start;
mod stats;
mod stop;
mod system_check;
mod system_df;
mod system_info;
mod system_prune;
mod system_reap;
mod tag;
mod version;
mod vm_kernel_install;
mod vm_kernel_show;
mod wait;

/// What must be there before a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: it tells of stanza itself.
    Nothing,
    /// What the engine remembers and the running containers: no files of other owners, so no user namespace.
    Records,
    /// The engine's directories with files of all owners, so a user namespace without root.
    Engine,
    /// A monitor, started before all else.
    Monitor,
    /// A process that can enter a container, started before all else: it joins the container's own user namespace.
    Entering,
}

/// How a failure becomes an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// 125, 126 and 127: apart from the codes of the command inside.
    Run,
    /// 126 and 127, otherwise 1, as `docker exec`.
    Exec,
    /// 1.
    Plain,
}

/// Where a command stands in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// What everybody uses.
    Common,
    /// The rest.
    Other,
    /// Of images.
    Image,
    /// Of networks.
    Network,
    /// Of stanza itself.
    System,
    /// Not shown.
    Hidden,
}

/// A command.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its words; the first are its own, the others other ways to say it.
    pub(crate) paths: &'static [&'static str],
    pub(crate) group: Group,
    pub(crate) about: &'static str,
    pub(crate) needs: Needs,
    pub(crate) faults: Faults,
    pub(crate) build: fn() -> Command,
    pub(crate) run: fn(&mut Door, &ArgMatches) -> Outcome,
}

/// All commands, in the order of the help.
pub(crate) static ENTRIES: &[&Entry] = &[
    run::ENTRY,
    exec::ENTRY,
    ps::ENTRY,
    pull::ENTRY,
    push::ENTRY,
    images::ENTRY,
    logs::ENTRY,
    stop::ENTRY,
    rm::ENTRY,
    version::ENTRY,
    system_info::ENTRY,
    attach::ENTRY,
    commit::ENTRY,
    compare::ENTRY,
    cp::ENTRY,
    create::ENTRY,
    diff::ENTRY,
    export::ENTRY,
    inspect::ENTRY,
    kill::ENTRY,
    rename::ENTRY,
    restart::ENTRY,
    start::ENTRY,
    stats::ENTRY,
    port::ENTRY,
    wait::ENTRY,
    history::ENTRY,
    image_diff::ENTRY,
    image_inspect::ENTRY,
    image_mount::ENTRY,
    image_prune::ENTRY,
    image_referrers::ENTRY,
    image_squash::ENTRY,
    image_tags::ENTRY,
    image_tree::ENTRY,
    image_unmount::ENTRY,
    image_verify::ENTRY,
    import::ENTRY,
    load::ENTRY,
    login::ENTRY,
    logout::ENTRY,
    manifest_inspect::ENTRY,
    rmi::ENTRY,
    save::ENTRY,
    tag::ENTRY,
    network_create::ENTRY,
    network_ls::ENTRY,
    network_inspect::ENTRY,
    network_rm::ENTRY,
    network_prune::ENTRY,
    network_connect::ENTRY,
    network_disconnect::ENTRY,
    network_update::ENTRY,
    network_reload::ENTRY,
    network_exists::ENTRY,
    network_graph::ENTRY,
    system_check::ENTRY,
    system_df::ENTRY,
    system_prune::ENTRY,
    system_reap::ENTRY,
    vm_kernel_install::ENTRY,
    vm_kernel_show::ENTRY,
    help::ENTRY,
];

/// Words that stand before a command of their kind.
const FAMILIES: [&str; 6] = ["container", "image", "manifest", "network", "system", "vm"];

/// The command that `words` start with, and how many of them are its own.
///
/// # Errors
/// When there is none.
pub(crate) fn find(words: &[OsString]) -> Result<(&'static Entry, usize), Failure> {
    let word = |at: usize| words.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let first = word(0);
    if !FAMILIES.contains(&first) {
        return match ENTRIES.iter().find(|entry| entry.paths.contains(&first)) {
            Some(entry) => Ok((entry, 1)),
            None => Err(unknown(first)),
        };
    }
    let path = format!("{first} {}", word(1));
    let longer = format!("{path} {}", word(2));
    let found = [(&longer, 3), (&path, 2)].into_iter().find_map(|(path, count)| {
        Some((*ENTRIES.iter().find(|entry| entry.paths.contains(&path.as_str()))?, count))
    });
    match found {
        Some(found) => Ok(found),
        None if matches!(word(1), "" | "--help" | "-h") => {
            Err(Failure::usage(format!("`{first}` needs a command")).with_hint(verbs(first)))
        }
        None => Err(Failure::usage(format!("`{path}` is not a stanza command")).with_hint(verbs(first))),
    }
}

/// The commands of a family.
fn verbs(family: &str) -> String {
    let mut verbs: Vec<&str> = ENTRIES
        .iter()
        .filter(|entry| entry.group != Group::Hidden)
        .flat_map(|entry| entry.paths)
        .filter_map(|path| path.strip_prefix(family)?.strip_prefix(' '))
        .collect();
    verbs.sort_unstable();
    format!("its commands are {}", verbs.join(", "))
}

/// Commands of Docker that are refused as not built rather than unknown.
const NOT_BUILT: &[&str] = &[
    "build", "builder", "buildx", "compose", "config", "context", "events", "node", "pause", "plugin",
    "search", "secret", "service", "stack", "swarm", "top", "trust", "unpause", "update", "volume",
];

fn unknown(word: &str) -> Failure {
    if NOT_BUILT.contains(&word) {
        return Failure::new(
            stanza_spec::ErrorKind::Unsupported,
            format!("command `{word}` is not built yet"),
        )
        .with_hint("`stanza --help` lists the commands there are");
    }
    let close = ENTRIES
        .iter()
        .filter(|entry| entry.group != Group::Hidden)
        .flat_map(|entry| entry.paths)
        .filter(|path| !path.contains(' '))
        .map(|path| (distance(word, path), path))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let failure = Failure::usage(format!("`{word}` is not a stanza command"));
    match close {
        Some((_, path)) => failure.with_hint(format!("did you mean `{path}`?")),
        None => failure.with_hint("`stanza --help` lists the commands there are"),
    }
}

/// How many letters must be added, left out, replaced or swapped with a neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

/// What `--filter` says.
fn filters(given: &ArgMatches) -> Result<Filters, Failure> {
    let words: Vec<&str> = given.texts("filter").collect();
    Ok(Filters::parse(&words)?)
}

/// Makes the image store as small as the configuration wants it. What was asked for is done by then, so that a failure is
/// no more than a warning.
fn keep_budget(engine: &mut stanza_engine::Engine) {
    if let Err(error) = engine.enforce_budget() {
        output::warning(&Failure::from(error).to_string());
    }
}

/// Does `action` for every name and goes on after a failure, which it prints; 1 when there was one.
fn for_each<'a>(
    names: impl Iterator<Item = &'a str>,
    mut action: impl FnMut(&'a str) -> Result<(), Failure>,
) -> Outcome {
    let mut code = 0;
    for name in names {
        match action(name) {
            Ok(()) => {}
            Err(failure) if failure.is_silent() => return Err(failure),
            Err(failure) => {
                output::failure(&failure);
                code = 1;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &[&str]) -> Result<(&'static str, usize), String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        find(&words).map(|(entry, used)| (entry.paths[0], used)).map_err(|failure| failure.to_string())
    }

    #[test]
    fn commands_are_found_by_every_path() {
        assert_eq!(found(&["run", "x"]), Ok(("run", 1)));
        assert_eq!(found(&["container", "ls", "-a"]), Ok(("ps", 2)));
        assert_eq!(found(&["image", "ls"]), Ok(("images", 2)));
        assert_eq!(found(&["system", "df"]), Ok(("system df", 2)));
        assert_eq!(found(&["rnu"]), Err("`rnu` is not a stanza command".to_owned()));
        assert_eq!(found(&["build", "."]), Err("command `build` is not built yet".to_owned()));
        assert_eq!(found(&["image", "x"]), Err("`image x` is not a stanza command".to_owned()));
        assert_eq!(found(&["system"]), Err("`system` needs a command".to_owned()));
        assert_eq!(find(&["rnu".into()]).unwrap_err().hint(), Some("did you mean `run`?"));
    }

    #[test]
    fn no_two_commands_have_the_same_words_and_all_can_be_built() {
        let mut seen = std::collections::BTreeSet::new();
        for entry in ENTRIES {
            assert!(entry.paths.iter().all(|path| seen.insert(path)), "{:?}", entry.paths);
            let command = (entry.build)();
            assert_eq!(command.get_name(), entry.paths[0]);
            command.debug_assert();
        }
    }

    #[test]
    fn the_distance_counts_changes() {
        assert_eq!((distance("run", "run"), distance("rnu", "run"), distance("", "ps")), (0, 1, 2));
    }
}
