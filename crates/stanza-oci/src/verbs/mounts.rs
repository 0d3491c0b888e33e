//! `mounts`: adds mounts to a running container and takes them off again, as crun does.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use rustix::process::Pid;
use serde::Deserialize;
use stanza_container::{AddedMount, MountTarget, add_mounts, remove_mounts};
use stanza_spec::oci::runtime::Mount;

use crate::arguments::{Parsed, Verb};
use crate::bundle;
use crate::context::Context;
use crate::failure::{Doing, Failure};
use crate::state::Container;

pub(super) static VERB: Verb = Verb {
    name: "mounts",
    usage: "add|remove ID FILE|-",
    help: "Add mounts to a running container, or remove those that were added; FILE has `mounts` as config.json has it",
    flags: &[],
    own_words: usize::MAX,
    run,
};

/// What was added and not removed yet, in order; beside the container's record.
const ADDED: &str = "mounts.json";

/// A whole configuration, or its list of mounts alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Wanted {
    Configuration { mounts: Vec<Mount> },
    List(Vec<Mount>),
}

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let [action, id, file] = parsed.words.as_slice() else {
        let count = parsed.words.len();
        return Err(Failure::Usage(format!(
            "expected `add` or `remove`, an id and a file, got {count} words"
        )));
    };
    let change = match action.as_str() {
        "add" => add,
        "remove" => remove,
        other => return Err(Failure::Usage(format!("unknown action `{other}`: expected `add` or `remove`"))),
    };
    let container = Container::open_locked(context, id)?;
    let mounts = read(file)?;
    let status = container.status();
    let pidfd = container.init().filter(|_| status.is_alive()).ok_or_else(|| {
        Failure::State(format!("cannot change the mounts of a {} container", status.as_str()))
    })?;
    let pid = Pid::from_raw(container.record.init_process_pid).ok_or(Failure::NoContainer)?;
    let mut spec = container.spec()?;
    spec.set_mounts(Some(mounts));
    bundle::settle(&mut spec, &container.record.bundle);
    let mounts = spec.mounts().clone().unwrap_or_default();
    change(&container, MountTarget { pid, pidfd: pidfd.as_fd(), spec: &spec }, &mounts)?;
    Ok(0)
}

fn read(file: &str) -> Result<Vec<Mount>, Failure> {
    let mut text = Vec::new();
    match file {
        "-" => {
            io::stdin().read_to_end(&mut text).step("read the mounts from standard input")?;
        }
        path => text = fs::read(path).doing("read", path)?,
    }
    match serde_json::from_slice(&text) {
        Ok(Wanted::Configuration { mounts } | Wanted::List(mounts)) => Ok(mounts),
        Err(_) => Err(Failure::Configuration(format!(
            "{file}: expected a JSON list of mounts, or an object with `mounts`"
        ))),
    }
}

fn added(container: &Container) -> Result<Vec<AddedMount>, Failure> {
    let path = container.place.file(ADDED);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => serde_json::from_slice(&other.doing("read", &path)?).map_err(Failure::below),
    }
}

fn write(container: &Container, added: &[AddedMount]) -> Result<(), Failure> {
    container.place.write(ADDED, &serde_json::to_vec(added).map_err(Failure::below)?)
}

fn add(container: &Container, target: MountTarget<'_>, mounts: &[Mount]) -> Result<(), Failure> {
    let mut all = added(container)?;
    let new = add_mounts(target, mounts).map_err(Failure::below)?;
    all.extend_from_slice(&new);
    write(container, &all).inspect_err(|_| {
        // One that nobody knows of could not be removed any more.
        let _ = remove_mounts(target, &new);
    })
}

fn remove(container: &Container, target: MountTarget<'_>, mounts: &[Mount]) -> Result<(), Failure> {
    let mut left = added(container)?;
    let mut going = Vec::with_capacity(mounts.len());
    for destination in mounts.iter().map(Mount::destination) {
        let at = left.iter().rposition(|mount| cleaned(&mount.destination) == cleaned(destination));
        let at = at.ok_or_else(|| {
            Failure::State(format!(
                "no mount was added at `{}` of container {}",
                destination.display(),
                container.record.id
            ))
        })?;
        going.push(left.remove(at));
    }
    // One that is gone already, or lies below another, stays known: what is told is that it could not be removed.
    let mut failure = None;
    for mount in going.into_iter().rev() {
        if let Err(error) = remove_mounts(target, std::slice::from_ref(&mount)) {
            failure.get_or_insert(error);
            left.push(mount);
        }
    }
    write(container, &left)?;
    failure.map_or(Ok(()), |error| Err(Failure::below(error)))
}

/// Without `.` and needless slashes; `..` as the kernel takes it at a root.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_a_list_or_a_configurations() {
        let file = std::env::temp_dir().join(format!("stanza-mounts-{}", std::process::id()));
        let path = file.to_str().unwrap();
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            super::read(path).map(|mounts| mounts.len())
        };
        let one = r#"{"destination": "/x", "type": "tmpfs"}"#;
        assert_eq!(read(&format!("[{one}, {one}]")).unwrap(), 2);
        assert_eq!(read(&format!(r#"{{"ociVersion": "1.0.0", "mounts": [{one}]}}"#)).unwrap(), 1);
        for bad in ["", "{", "7", "{}", r#"[{"type": "tmpfs"}]"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn the_same_place_is_found_however_it_is_written() {
        assert_eq!(cleaned(Path::new("/a/./b//c/..")), Path::new("/a/b"));
        assert_eq!(cleaned(Path::new("/../x/")), Path::new("/x"));
    }
}
