//! What the kernel and the disk hold of one fixture: must be the same before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Network, Stanza};

/// A picture of everything that stanza makes outside of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Lines of this process's mountinfo that name the fixture's directory.
    pub mounts: BTreeSet<String>,
    /// Cgroups of the fixture's containers.
    pub cgroups: BTreeSet<PathBuf>,
    /// Links of the fixture's private network, but for the bridge.
    pub links: BTreeSet<String>,
    /// What the nft tables know of containers in the fixture's private network.
    pub port_maps: BTreeSet<String>,
    /// Files below the root and the run root, but for the database, caches, images and unpacked layers.
    pub files: BTreeSet<PathBuf>,
    /// Processes that hold one of the fixture's files open or are in a container's cgroup.
    pub processes: BTreeSet<String>,
}

fn walk(directory: &Path, skip: &dyn Fn(&Path) -> bool, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if skip(&path) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, skip, found);
        }
        found.insert(path);
    }
}

/// The directories that hold stanza's cgroups, one per hierarchy.
fn cgroup_parents() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut parents = vec![top.join("stanza")];
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        parents.push(entry.path().join("stanza"));
        for line in own.lines() {
            let path = line.rsplit(':').next().unwrap_or_default().trim_start_matches('/');
            parents.push(entry.path().join(path).join("stanza"));
        }
    }
    parents.sort();
    parents.dedup();
    parents
}

pub(crate) fn cgroups(ids: &BTreeSet<String>) -> BTreeSet<PathBuf> {
    let parents = cgroup_parents();
    let all = parents.iter().flat_map(|parent| ids.iter().map(|id| parent.join(id)));
    all.filter(|path| path.exists()).collect()
}

/// Process ids with their names.
pub(crate) fn processes(directory: &Path, ids: &BTreeSet<String>) -> Vec<(i32, String)> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<i32>() else { continue };
        if name == own {
            continue;
        }
        let path = entry.path();
        let inside = || {
            let cgroup = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
            ids.iter().any(|id| cgroup.contains(id.as_str()))
        };
        let holds = || {
            fs::read_dir(path.join("fd"))
                .into_iter()
                .flatten()
                .flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(directory)))
        };
        if inside() || holds() {
            let words = fs::read(path.join("cmdline")).unwrap_or_default();
            if words.is_empty() {
                continue; // A zombie: it is dead, only its parent has not looked yet.
            }
            found.push((pid, String::from_utf8_lossy(&words).replace('\0', " ")));
        }
    }
    found
}

fn links(network: &Network) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("/proc/{}/net/dev", network.pid())).unwrap_or_default();
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
    names.filter(|name| !name.starts_with("stanza")).collect()
}

fn port_maps(network: &Network) -> BTreeSet<String> {
    if !crate::have("nft") {
        return BTreeSet::new();
    }
    let mut found = BTreeSet::new();
    // The host's table has also sets of what stays, the networks; that of frames has sets of containers only.
    let stays = ["bridges", "internal", "within", "guarded", "subnets", "masqueraded"];
    for (family, kind) in [("inet", "map"), ("inet", "set"), ("bridge", "set")] {
        let listed = network.run(&["nft", "-j", "list", "table", family, "stanza"]);
        let Ok(document) = serde_json::from_str::<serde_json::Value>(&listed.stdout) else { continue };
        for object in document["nftables"].as_array().into_iter().flatten() {
            let set = &object[kind];
            let name = set["name"].as_str().unwrap_or_default();
            if family == "inet" && stays.contains(&name.trim_end_matches(['4', '6'])) {
                continue;
            }
            for element in set["elem"].as_array().into_iter().flatten() {
                found.insert(format!("{family} {} {element}", set["name"]));
            }
        }
    }
    found
}

impl Leftovers {
    /// Looks now.
    pub(crate) fn of(stanza: &Stanza) -> Leftovers {
        let ids = stanza.ids();
        let directory = stanza.directory();
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let text = directory.to_string_lossy().into_owned();
        let root = stanza.root();
        // Made once and shared by all containers, or the frame that holds what is looked for.
        let kept = ["layers/sha256", "layers/sha512", "layers/base", "images/blobs", "cache", "vm"]
            .map(|name| root.join(name));
        let skip = |path: &Path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // Notes of dead processes are whoever's that looks next.
            let notes = stanza.runroot().join("userns");
            let is_kept = path == notes || kept.iter().any(|kept| path == kept);
            name.starts_with("stanza.db") || name.ends_with("lock") || is_kept
        };
        let mut files = BTreeSet::new();
        walk(root, &skip, &mut files);
        walk(stanza.runroot(), &skip, &mut files);
        let frame = ["containers", "images", "images/ingest", "layers", "layers/ingest", "volumes"]
            .map(|name| root.join(name));
        let frame_at_run =
            ["containers", "networks", "rootless-netns"].map(|name| stanza.runroot().join(name));
        files.retain(|path| !frame.contains(path) && !frame_at_run.contains(path));
        Leftovers {
            mounts: mountinfo.lines().filter(|line| line.contains(&text)).map(str::to_owned).collect(),
            cgroups: cgroups(&ids),
            links: stanza.network().map(links).unwrap_or_default(),
            port_maps: stanza.network().map(port_maps).unwrap_or_default(),
            files,
            processes: processes(directory, &ids)
                .into_iter()
                .map(|(pid, name)| format!("{pid} {name}"))
                .collect(),
        }
    }
}
