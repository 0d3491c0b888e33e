//! Where the engine keeps its things.

use std::path::{Path, PathBuf};

use stanza_snapshot::{StorageDriver, UnknownDriver};

/// The two directories of an engine, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What survives a reboot: images, layers, containers, volumes, the database. Absolute.
    pub root: PathBuf,
    /// What does not: locks, state and sockets of running containers. Absolute.
    pub runroot: PathBuf,
    /// The caller is not the machine's root: a user namespace is needed, or entered already.
    pub rootless: bool,
    /// The configuration file, when another than the usual one is asked for.
    pub config: Option<PathBuf>,
    /// How root file systems are put together; without it, as the configuration file says or the file system allows.
    pub storage_driver: Option<StorageDriver>,
}

impl Options {
    /// The directories for what was given on the command line, `STANZA_ROOT`, and the defaults of this user.
    ///
    /// `uid` is the calling user on the host, before any user namespace. As root: `/var/lib/stanza` and
    /// `/run/stanza`. Otherwise `$XDG_DATA_HOME/stanza` (or `~/.local/share/stanza`) and `$XDG_RUNTIME_DIR/stanza`
    /// (or `/tmp/stanza-UID`). With `STANZA_ROOT` and no run root given, the run root is its `run` directory, so that
    /// two engines never share one.
    #[must_use]
    pub fn resolve(root: Option<PathBuf>, runroot: Option<PathBuf>, uid: u32) -> Options {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        resolve_with(root, runroot, uid, &variable)
    }

    /// The same with the storage driver that was given, or `STANZA_STORAGE_DRIVER`.
    ///
    /// # Errors
    /// When there is no such driver.
    pub fn with_storage_driver(mut self, given: Option<&str>) -> Result<Options, UnknownDriver> {
        let variable = std::env::var("STANZA_STORAGE_DRIVER").ok().filter(|name| !name.is_empty());
        if let Some(name) = given.map(str::to_owned).or(variable) {
            self.storage_driver = Some(name.parse()?);
        }
        Ok(self)
    }

    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.containers_dir().join(id)
    }

    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn run_dir(&self, id: &str) -> PathBuf {
        self.run_dirs().join(id)
    }

    pub(crate) fn run_dirs(&self) -> PathBuf {
        self.runroot.join("containers")
    }

    /// What a network's containers are called: gone with the machine's memory, as they are.
    pub(crate) fn network_dir(&self, id: &str) -> PathBuf {
        self.network_dirs().join(id)
    }

    pub(crate) fn network_dirs(&self) -> PathBuf {
        self.runroot.join("networks")
    }

    /// The network name space that a user's containers share.
    pub(crate) fn shared_network_dir(&self) -> PathBuf {
        self.runroot.join("rootless-netns")
    }

    pub(crate) fn volumes_dir(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("stanza.db")
    }

    pub(crate) fn seccomp_dir(&self) -> PathBuf {
        self.root.join("cache/seccomp")
    }
}

fn resolve_with(
    root: Option<PathBuf>,
    runroot: Option<PathBuf>,
    uid: u32,
    variable: &dyn Fn(&str) -> Option<PathBuf>,
) -> Options {
    let rootless = uid != 0;
    let given = root.or_else(|| variable("STANZA_ROOT"));
    let runroot = runroot.or_else(|| given.as_ref().map(|root| root.join("run")));
    let root = given.unwrap_or_else(|| {
        if !rootless {
            return PathBuf::from("/var/lib/stanza");
        }
        variable("XDG_DATA_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
            .map_or_else(|| PathBuf::from(format!("/tmp/stanza-data-{uid}")), |data| data.join("stanza"))
    });
    let runroot = runroot.unwrap_or_else(|| {
        if !rootless {
            return PathBuf::from("/run/stanza");
        }
        variable("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from(format!("/tmp/stanza-{uid}")), |run| run.join("stanza"))
    });
    Options {
        root: absolute(&root),
        runroot: absolute(&runroot),
        rootless,
        config: None,
        storage_driver: None,
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        root: Option<&str>,
        runroot: Option<&str>,
        uid: u32,
        env: &[(&str, &str)],
    ) -> (String, String) {
        let variable =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
        let options = resolve_with(root.map(PathBuf::from), runroot.map(PathBuf::from), uid, &variable);
        (options.root.display().to_string(), options.runroot.display().to_string())
    }

    #[test]
    fn root_and_users_have_their_own_places() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(resolve(None, None, 0, &[]), pair("/var/lib/stanza", "/run/stanza"));
        let user = [("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/7")];
        assert_eq!(resolve(None, None, 7, &user), pair("/home/a/.local/share/stanza", "/run/user/7/stanza"));
        assert_eq!(resolve(None, None, 7, &[("XDG_DATA_HOME", "/d")]), pair("/d/stanza", "/tmp/stanza-7"));
        assert_eq!(resolve(Some("/x"), None, 0, &[("STANZA_ROOT", "/y")]), pair("/x", "/x/run"));
        assert_eq!(resolve(None, Some("/r"), 0, &[("STANZA_ROOT", "/y")]), pair("/y", "/r"));
    }
}
