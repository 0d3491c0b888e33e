//! From what a container may use (OCI) to what is written where (plain data).

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use stanza_spec::oci::runtime::LinuxResources;
use stanza_spec::{Classify, ErrorKind};

use crate::detect::Layout;
use crate::device::{self, DeviceRule};
use crate::location::Location;
use crate::{v1, v2};

/// All that [`apply`](crate::apply()) does, as data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// The version of the groups.
    pub version: Version,
    /// The groups: none, one per hierarchy (version 1), or one (version 2).
    pub groups: Vec<Group>,
    /// Version 2: the rules of the program that decides about devices; `None` to leave them
    /// as they are.
    pub devices: Option<Vec<DeviceRule>>,
    /// Whether the path is named for this container alone, so that what is left there without processes, cgroups below it
    /// included, may be taken away before its cgroups are made.
    #[serde(default)]
    pub exclusive: bool,
    /// Limits of memory at or below what is in use are refused before anything is written
    /// (OCI `memory.checkBeforeUpdate`; version 2, since version 1 refuses by itself).
    #[serde(default)]
    pub check_memory: Option<MemoryCheck>,
}

/// The limits to compare with what is in use, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryCheck {
    /// The limit of memory; `None` for none.
    pub limit: Option<u64>,
    /// The limit of memory and swap together; `None` for none.
    pub with_swap: Option<u64>,
}

/// The version of the control groups in a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// The container has no cgroups of its own.
    #[default]
    None,
    /// One directory per hierarchy.
    V1,
    /// One directory.
    V2,
}

/// One directory to make, and what to write in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Where the hierarchy is mounted.
    pub root: PathBuf,
    /// The cgroup, relative to `root`; never empty, no `..`.
    pub path: PathBuf,
    /// The controllers: all of the hierarchy (version 1), those needed (version 2).
    pub controllers: Vec<String>,
    /// Version 1: files that a new directory has empty and must take over from its parent, top-down.
    pub inherit: Vec<String>,
    /// Version 2: controllers that all parents must hand down.
    pub enable: Vec<Enable>,
    /// The limits, in order.
    pub writes: Vec<Write>,
}

impl Group {
    /// The directory of the cgroup.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.root.join(&self.path)
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|other| other == controller)
    }
}

/// A controller to be handed down from the root to the cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enable {
    /// Its name.
    pub controller: String,
    /// Whether a limit needs it; without, it is only good for statistics and may be missing.
    pub required: bool,
}

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The file, relative to the cgroup.
    pub file: String,
    /// What is written.
    pub value: String,
    /// What to write where the kernel does not have that file: (file, value).
    pub otherwise: Option<(String, String)>,
    /// A missing file is no failure.
    pub optional: bool,
}

impl Write {
    pub(crate) fn new(file: impl Into<String>, value: impl ToString) -> Write {
        Write { file: file.into(), value: value.to_string(), otherwise: None, optional: false }
    }

    pub(crate) fn or(mut self, file: &str, value: impl ToString) -> Write {
        self.otherwise = Some((file.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn optional(mut self) -> Write {
        self.optional = true;
        self
    }

    /// The controller that the file belongs to: what is before the first dot.
    #[must_use]
    pub fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}

/// Something that was asked for and has no meaning here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` is passed over: {reason}")]
pub struct Warning {
    /// The OCI name of the option, as `memory.swappiness`.
    pub option: &'static str,
    /// Why it has no meaning.
    pub reason: &'static str,
}

/// Why limits cannot be planned.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Not a path below a hierarchy's root.
    #[error("`{0}` is not a cgroup path: expected names separated by `/`, without `..`")]
    Path(String),
    /// The machine has no such controller, or this user may not use it.
    #[error("set `{option}`: the cgroup controller `{controller}` is {why}")]
    Unsupported {
        /// The OCI name of the option.
        option: String,
        /// The controller.
        controller: String,
        /// `not available` or `not delegated to this user`.
        why: &'static str,
    },
    /// A value that no kernel takes.
    #[error("`{value}` is not a value for `{option}`: {reason}")]
    Value {
        /// The OCI name of the option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A device rule that no kernel can express.
    #[error(
        "`{rule}` is not a device rule: expected type `a`, `b` or `c`, numbers from 0, access out of `rwm`"
    )]
    Device {
        /// The rule.
        rule: String,
    },
    /// A name in `unified` that is no file of a cgroup.
    #[error("`{0}` in `unified` is not the name of a cgroup file: expected `<controller>.<name>`")]
    UnifiedName(String),
    /// Version 1 has no such files.
    #[error("set `{0}` by `unified`: this machine has cgroups of version 1")]
    UnifiedOnV1(String),
}

impl Classify for PlanError {
    fn kind(&self) -> ErrorKind {
        match self {
            PlanError::Unsupported { .. } | PlanError::UnifiedOnV1(_) => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PlanError::Unsupported { why: NOT_DELEGATED, .. } => {
                Some("run as root, or have cgroups of version 2 delegated to this user".into())
            }
            PlanError::Unsupported { controller, .. } => Some(format!(
                "run without this limit, or boot a kernel that has the cgroup controller {controller}"
            )),
            _ => None,
        }
    }
}

pub(crate) const NOT_AVAILABLE: &str = "not available";
pub(crate) const NOT_DELEGATED: &str = "not delegated to this user";

/// Plans the cgroups of a container at `path`: `stanza/<id>`, or absolute as an OCI `cgroupsPath`; both mean below each
/// hierarchy's root.
///
/// Without root (`rootless`) a hierarchy that this user may not write to is left out, unless a limit needs it; when
/// no limit is asked for, the plan may be empty, and the container runs where its creator is.
///
/// # Errors
/// [`PlanError`] names the option that cannot be had.
pub fn plan(
    layout: &Layout,
    path: &str,
    resources: &LinuxResources,
    rootless: bool,
) -> Result<(CgroupPlan, Vec<Warning>), PlanError> {
    let location = Location::same(relative(path)?);
    let options = PlanOptions { rootless, every_hierarchy: false, exclusive: true };
    plan_at(layout, &location, resources, options)
}

/// How cgroups are planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// A hierarchy that this user may not write to is left out, unless a limit needs it.
    pub rootless: bool,
    /// Version 1: a cgroup in every hierarchy, as runc makes them; else only where one is of use.
    pub every_hierarchy: bool,
    /// The path is named for this container alone: see [`CgroupPlan::exclusive`].
    pub exclusive: bool,
}

/// Plans the cgroups of a container at `location`. Without root, when no limit is asked for, the plan may be empty, and the
/// container runs where its creator is.
///
/// # Errors
/// [`PlanError`] names the option that cannot be had.
pub fn plan_at(
    layout: &Layout,
    location: &Location,
    resources: &LinuxResources,
    options: PlanOptions,
) -> Result<(CgroupPlan, Vec<Warning>), PlanError> {
    let may_write = |root: &Path, path: &Path| !options.rootless || is_writable(root, path);
    let (mut plan, warnings) = match layout {
        Layout::V1(hierarchies) => {
            v1::plan(hierarchies, location, resources, options.every_hierarchy, &may_write)?
        }
        Layout::V2 { root, controllers } => {
            let path = location.below(root).ok_or_else(|| PlanError::Path(String::new()))?;
            v2::plan(root, controllers, path, resources, &may_write)?
        }
        Layout::Absent => {
            without(resources, options.rootless)?;
            Default::default()
        }
    };
    plan.exclusive = options.exclusive && !plan.groups.is_empty();
    if options.rootless {
        // The kernel loads no program for it, and it can neither make nor open what its creator cannot.
        plan.devices = None;
    }
    Ok((plan, warnings))
}

/// No control groups at all: nothing may be asked for. Device rules of a container without root are no loss, since
/// it can neither make nor open what its creator cannot.
fn without(resources: &LinuxResources, rootless: bool) -> Result<(), PlanError> {
    let devices = device::normalize(resources.devices().as_deref().unwrap_or_default())?;
    let shut = resources.devices().is_some() && !device::allows_all(&devices);
    if shut && !rootless {
        return Err(unsupported("devices", "devices", NOT_AVAILABLE));
    }
    match v1::limits(resources)?.writes.into_iter().next() {
        Some(limit) => Err(unsupported(limit.controller, &limit.option, NOT_AVAILABLE)),
        None => Ok(()),
    }
}

pub(crate) fn unsupported(controller: &str, option: &str, why: &'static str) -> PlanError {
    PlanError::Unsupported { option: option.to_owned(), controller: controller.to_owned(), why }
}

/// The limits that were asked for, one write each, and what has no meaning on this version.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) writes: Vec<Limit>,
    pub(crate) warnings: Vec<Warning>,
}

/// One limit.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) controller: &'static str,
    pub(crate) option: String,
    pub(crate) write: Write,
}

impl Limits {
    pub(crate) fn push(&mut self, controller: &'static str, option: &str, write: Write) {
        self.writes.push(Limit { controller, option: option.to_owned(), write });
    }

    pub(crate) fn warn(&mut self, option: &'static str, reason: &'static str) {
        self.warnings.push(Warning { option, reason });
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.writes.iter().any(|limit| limit.controller == controller)
    }
}

/// What to look at before the limits are written, if anything.
pub(crate) fn memory_check(resources: &LinuxResources) -> Option<MemoryCheck> {
    let memory = resources.memory().as_ref()?;
    let set =
        |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value != 0);
    let (limit, with_swap) = (set(memory.limit()), set(memory.swap()));
    let asked = memory.check_before_update() == Some(true) && (limit.is_some() || with_swap.is_some());
    asked.then_some(MemoryCheck { limit, with_swap })
}

fn relative(path: &str) -> Result<PathBuf, PlanError> {
    let bad = || PlanError::Path(path.to_owned());
    let relative = path.trim_start_matches('/');
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_));
    let parts = Path::new(relative).components();
    if relative.is_empty() || relative.contains(['\0', '\n']) || !parts.clone().all(normal) {
        return Err(bad());
    }
    Ok(parts.collect())
}

/// Whether this process may make directories where `path` will be: in its deepest parent that is there.
fn is_writable(root: &Path, path: &Path) -> bool {
    use rustix::fs::Access;
    let parents = path.ancestors().skip(1).map(|parent| root.join(parent));
    for parent in parents {
        match rustix::fs::access(&parent, Access::WRITE_OK) {
            Ok(()) => return true,
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        assert_eq!(relative("stanza/a"), Ok("stanza/a".into()));
        assert_eq!(relative("/docker/b//c/"), Ok("docker/b/c".into()));
        for bad in ["", "/", "../x", "a/../b", "./a", "a\nb"] {
            assert_eq!(relative(bad), Err(PlanError::Path(bad.into())), "{bad}");
        }
    }

    #[test]
    fn without_root_version_2_has_no_device_program() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::V2 { root: root.path().to_owned(), controllers: vec![] };
        let shut: LinuxResources =
            serde_json::from_value(serde_json::json!({"devices": [{"allow": false}]})).unwrap();
        let devices = |rootless| plan(&layout, "a/b", &shut, rootless).unwrap().0.devices;
        assert_eq!(devices(true), None);
        assert_eq!(devices(false).map(|rules| rules.len()), Some(1));
    }

    #[test]
    fn without_control_groups_there_is_no_plan_and_no_limit() {
        let resources = LinuxResources::default();
        assert_eq!(plan(&Layout::Absent, "a/b", &resources, false), Ok((CgroupPlan::default(), vec![])));
        let limited: LinuxResources =
            serde_json::from_value(serde_json::json!({"pids": {"limit": 5}})).unwrap();
        let error = plan(&Layout::Absent, "a/b", &limited, false).unwrap_err();
        assert_eq!(error.to_string(), "set `pids.limit`: the cgroup controller `pids` is not available");
    }
}
