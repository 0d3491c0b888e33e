//! Cgroups of the tests' own: below `stanza-test-<pid>`, gone when the test is.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use stanza_cgroup::{Cgroup, CgroupPlan, Layout, apply, open, plan};
use stanza_spec::oci::runtime::LinuxResources;

/// A name below which one test makes its cgroups.
pub(crate) struct Place {
    pub(crate) layout: Layout,
    pub(crate) parent: String,
}

impl Place {
    pub(crate) fn new(layout: Layout, name: &str) -> Place {
        Place { layout, parent: format!("stanza-test-{}-{name}", std::process::id()) }
    }

    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        match &self.layout {
            Layout::V1(hierarchies) => hierarchies.iter().map(|hierarchy| hierarchy.root.clone()).collect(),
            Layout::V2 { root, .. } => vec![root.clone()],
            Layout::Absent => vec![],
        }
    }

    pub(crate) fn plan(&self, name: &str, resources: serde_json::Value) -> CgroupPlan {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        plan(&self.layout, &format!("{}/{name}", self.parent), &resources, false).unwrap().0
    }

    pub(crate) fn make(&self, name: &str, resources: serde_json::Value) -> Cgroup {
        apply(&self.plan(name, resources)).unwrap()
    }

    /// The text of a file of a cgroup made here.
    pub(crate) fn read(&self, controller: &str, name: &str, file: &str) -> String {
        let roots = self.roots();
        let root = roots.iter().find(|root| root.ends_with(controller)).unwrap_or(&roots[0]);
        let path = root.join(&self.parent).join(name).join(file);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in stanza_cgroup::leftovers(&self.layout, &self.parent) {
            drop(open(&self.plan(&name, serde_json::json!({"pids": {"limit": 1}}))).remove());
        }
        for root in self.roots() {
            for name in std::fs::read_dir(root.join(&self.parent)).into_iter().flatten().flatten() {
                drop(std::fs::remove_dir(name.path()));
            }
            drop(std::fs::remove_dir(root.join(&self.parent)));
        }
    }
}

/// A process that waits for its end, with a child that does too.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    pub(crate) fn new() -> Sleeper {
        let mut command = Command::new("sleep");
        Sleeper(command.arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The signal that ended it.
    pub(crate) fn signal(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.0.wait().unwrap().signal()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
