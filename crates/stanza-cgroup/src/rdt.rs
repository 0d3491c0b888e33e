//! Intel's resource director (`Documentation/arch/x86/resctrl.rst`): shares of the last cache and of memory bandwidth.
//!
//! ```text
//!  /sys/fs/resctrl/                 mounted by the system, or not at all
//!  ├── info/{L3,MB,L3_MON}/         what the processor can do
//!  └── <closID or container id>/    one class of service: schemata, tasks
//!      └── mon_groups/<id>/         one container in it that is measured by itself: tasks, mon_data/
//! ```
//!
//! Invariants
//! * A class that was there before (`closID` shared by containers) is neither changed without schemata nor removed.
//! * Without the hardware or the mount, what is asked for is refused by name.
//!
//! Not done here: mounting resctrl, and the processor's other features (L2, pseudo-locking).

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stanza_spec::{Classify, ErrorKind};

use crate::file;

const ROOT: &str = "/sys/fs/resctrl";

/// `linux/magic.h`: `RDTGROUP_SUPER_MAGIC`.
const MAGIC: u64 = 0x0765_5821;

/// What an OCI configuration asks for (`linux.intelRdt`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RdtRequest {
    /// The class of service; absent for one of the container's own, named by its id; `/` for the one at the root, which all
    /// tasks are in by default.
    #[serde(rename = "closID")]
    pub clos_id: Option<String>,
    /// Lines of schemata, in order; written after the two below.
    pub schemata: Vec<String>,
    /// The schema of the last cache, as `L3:0=ffff0;1=ff`.
    pub l3_cache_schema: Option<String>,
    /// The schema of memory bandwidth, as `MB:0=20;1=70`.
    pub mem_bw_schema: Option<String>,
    /// Whether the container is measured by itself.
    pub enable_monitoring: bool,
}

/// The groups of one container, to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdtPlan {
    /// The class of service: below resctrl's root, or the root itself.
    pub class: PathBuf,
    /// Whether the class must be there already: one is named, and nothing is said to put in it.
    pub must_exist: bool,
    /// What to write to `schemata`; empty for nothing.
    pub schemata: String,
    /// The group that measures the container.
    pub monitor: Option<PathBuf>,
}

/// The groups of one container, made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rdt {
    class: PathBuf,
    monitor: Option<PathBuf>,
    /// Whether the class was made for this container, and goes with it.
    own: bool,
}

/// Why the shares cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RdtError {
    /// No such hardware, or resctrl is not mounted.
    #[error("intelRdt is specified in config, but Intel RDT is not supported or enabled")]
    Absent,
    /// The processor, or the kernel, has not this part.
    #[error("{option} is specified in config, but {feature} is not enabled")]
    Unsupported {
        /// `intelRdt.l3CacheSchema`, `intelRdt.memBwSchema` or `intelRdt.enableMonitoring`.
        option: &'static str,
        /// Intel's name of the part.
        feature: &'static str,
    },
    /// Not a name of a class.
    #[error("invalid intelRdt.ClosID {0:?}")]
    Name(String),
    /// A class is named that is not there, and nothing says what to put in it.
    #[error("if closID is set, but neither schemata, l3CacheSchema nor memBwSchema is, the group `{}` must exist", .0.display())]
    NoClass(PathBuf),
    /// The kernel refuses.
    #[error("{action} `{}`{}", path.display(), if status.is_empty() { String::new() } else { format!(" ({status})") })]
    File {
        /// `make`, `write` or `remove`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's own words, from `info/last_cmd_status`; empty when it has none.
        status: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Classify for RdtError {
    fn kind(&self) -> ErrorKind {
        match self {
            RdtError::Absent | RdtError::Unsupported { .. } => ErrorKind::Unsupported,
            RdtError::Name(_) => ErrorKind::InvalidArgument,
            RdtError::NoClass(_) => ErrorKind::NotFound,
            RdtError::File { source, .. } => ErrorKind::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        matches!(self, RdtError::Absent)
            .then(|| "mount it with `mount -t resctrl resctrl /sys/fs/resctrl`".into())
    }
}

/// The part `intel_rdt` of `events --stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RdtStats {
    /// The schema of the last cache at the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema_root: Option<String>,
    /// The schema of the container's class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    /// The schema of memory bandwidth at the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema_root: Option<String>,
    /// The schema of the container's class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    /// Bandwidth of each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<Bandwidth>>,
    /// Use of the last cache of each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<Occupancy>>,
}

/// Bytes moved by one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bandwidth {
    /// From and to all memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_total_bytes: Option<u64>,
    /// From and to its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_local_bytes: Option<u64>,
}

/// Use of one node's last cache, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// In use.
    pub llc_occupancy: u64,
}

/// Where resctrl is mounted; `None` without the hardware or the mount.
#[must_use]
pub fn detect_rdt() -> Option<PathBuf> {
    let magic = rustix::fs::statfs(ROOT).ok()?.f_type;
    (u64::try_from(magic) == Ok(MAGIC)).then(|| PathBuf::from(ROOT))
}

/// Plans the groups of the container `id`; `root` is what [`detect_rdt`] found.
///
/// # Errors
/// [`RdtError`] names what cannot be had.
pub fn plan_rdt(root: Option<&Path>, request: &RdtRequest, id: &str) -> Result<RdtPlan, RdtError> {
    let name = request.clos_id.as_deref().filter(|name| !name.is_empty());
    if let Some(bad) =
        name.filter(|name| matches!(*name, "." | "..") || (*name != "/" && name.contains(['/', '\n', '\0'])))
    {
        return Err(RdtError::Name(bad.to_owned()));
    }
    let root = root.ok_or(RdtError::Absent)?;
    let has = |feature: &str| root.join("info").join(feature).exists();
    let l3 = request.l3_cache_schema.as_deref().filter(|schema| !schema.is_empty());
    let bandwidth = request.mem_bw_schema.as_deref().filter(|schema| !schema.is_empty());
    if l3.is_some() && !has("L3") && !has("L3CODE") {
        return Err(RdtError::Unsupported { option: "intelRdt.l3CacheSchema", feature: "Intel RDT/CAT" });
    }
    if bandwidth.is_some() && !has("MB") {
        return Err(RdtError::Unsupported { option: "intelRdt.memBwSchema", feature: "Intel RDT/MBA" });
    }
    if request.enable_monitoring && !has("L3_MON") {
        let option = "intelRdt.enableMonitoring";
        return Err(RdtError::Unsupported { option, feature: "Intel RDT monitoring" });
    }
    // The schema of the cache may have been copied with its neighbours; bandwidth is set by its own.
    let l3 = l3.into_iter().flat_map(str::lines).filter(|line| !line.trim_start().starts_with("MB:"));
    let lines = l3.chain(bandwidth).chain(request.schemata.iter().map(String::as_str));
    let schemata: String = lines.map(|line| format!("{}\n", line.trim())).collect();
    let class = match request.clos_id.as_deref() {
        Some("/") => root.to_owned(),
        _ => root.join(name.unwrap_or(id)),
    };
    let monitor = request.enable_monitoring.then(|| class.join("mon_groups").join(id));
    Ok(RdtPlan { must_exist: name.is_some() && schemata.is_empty(), class, schemata, monitor })
}

/// Makes the groups and writes the schemata.
///
/// # Errors
/// [`RdtError`]; what was made until then is removed again.
pub fn apply_rdt(plan: &RdtPlan) -> Result<Rdt, RdtError> {
    let mut rdt = Rdt { class: plan.class.clone(), monitor: None, own: false };
    let done = make(plan, &mut rdt);
    if done.is_err() {
        // Best effort after another error, which is the one to tell.
        let _ = rdt.remove();
    }
    done.map(|()| rdt)
}

fn make(plan: &RdtPlan, rdt: &mut Rdt) -> Result<(), RdtError> {
    if plan.must_exist && !plan.class.exists() {
        return Err(RdtError::NoClass(plan.class.clone()));
    }
    rdt.own = make_directory(&plan.class)?;
    if !plan.schemata.is_empty() {
        write(&plan.class.join("schemata"), &plan.schemata)?;
    }
    if let Some(monitor) = &plan.monitor {
        make_directory(monitor)?;
        rdt.monitor = Some(monitor.clone());
    }
    Ok(())
}

/// Whether it was not there before.
fn make_directory(path: &Path) -> Result<bool, RdtError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(failed("make", path, errno.into())),
    }
}

fn write(path: &Path, value: &str) -> Result<(), RdtError> {
    file::write(path, value).map_err(|source| failed("write", path, source))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> RdtError {
    let status = file::read(&Path::new(ROOT).join("info/last_cmd_status")).ok().flatten().unwrap_or_default();
    let status = if status.trim() == "ok" { String::new() } else { status.trim().to_owned() };
    RdtError::File { action, path: path.to_owned(), status, source }
}

impl Rdt {
    /// Moves a process in; what it makes later follows.
    ///
    /// # Errors
    /// [`RdtError::File`].
    pub fn join(&self, pid: u32) -> Result<(), RdtError> {
        let tasks = |group: &Path| write(&group.join("tasks"), &pid.to_string());
        tasks(&self.class)?;
        self.monitor.as_deref().map_or(Ok(()), tasks)
    }

    /// Writes other schemata to the class, as `update` does.
    ///
    /// # Errors
    /// [`RdtError::File`].
    pub fn update(&self, plan: &RdtPlan) -> Result<(), RdtError> {
        if plan.schemata.is_empty() { Ok(()) } else { write(&self.class.join("schemata"), &plan.schemata) }
    }

    /// Removes the groups that were made for the container. One that is gone is no error.
    ///
    /// # Errors
    /// [`RdtError::File`].
    pub fn remove(&self) -> Result<(), RdtError> {
        let own = self.own.then_some(&self.class);
        for path in self.monitor.iter().chain(own) {
            match rustix::fs::rmdir(path) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("remove", path, errno.into())),
            }
        }
        Ok(())
    }

    /// What `events --stats` tells.
    ///
    /// # Errors
    /// [`RdtError::File`].
    pub fn stats(&self) -> Result<RdtStats, RdtError> {
        let schema = |group: &Path, kind: &str| {
            let path = group.join("schemata");
            let text = file::read(&path).map_err(|source| failed("read", &path, source))?.unwrap_or_default();
            let line = text.lines().map(str::trim).find(|line| line.starts_with(kind));
            Ok::<_, RdtError>(line.map(str::to_owned))
        };
        let root = Path::new(ROOT);
        let mut stats = RdtStats {
            l3_cache_schema_root: schema(root, "L3:")?,
            l3_cache_schema: schema(&self.class, "L3:")?,
            mem_bw_schema_root: schema(root, "MB:")?,
            mem_bw_schema: schema(&self.class, "MB:")?,
            ..RdtStats::default()
        };
        let data = self.monitor.as_ref().unwrap_or(&self.class).join("mon_data");
        let mut nodes = file::children(&data).unwrap_or_default();
        nodes.sort_unstable();
        for node in nodes {
            let get = |name: &str| file::read_number(&data.join(&node).join(name)).ok().flatten();
            let bandwidth = Bandwidth {
                mbm_total_bytes: get("mbm_total_bytes"),
                mbm_local_bytes: get("mbm_local_bytes"),
            };
            if bandwidth != Bandwidth::default() {
                stats.mbm_stats.get_or_insert_default().push(bandwidth);
            }
            if let Some(llc_occupancy) = get("llc_occupancy") {
                stats.cmt_stats.get_or_insert_default().push(Occupancy { llc_occupancy });
            }
        }
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: serde_json::Value) -> RdtRequest {
        serde_json::from_value(json).unwrap()
    }

    /// A directory with the files of a processor that can do all.
    fn processor() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for feature in ["L3", "MB", "L3_MON"] {
            std::fs::create_dir_all(root.path().join("info").join(feature)).unwrap();
        }
        root
    }

    #[test]
    fn without_the_hardware_the_request_is_refused() {
        let error =
            plan_rdt(None, &request(serde_json::json!({"l3CacheSchema": "L3:0=f"})), "id").unwrap_err();
        assert_eq!(
            error.to_string(),
            "intelRdt is specified in config, but Intel RDT is not supported or enabled"
        );
        let bare = tempfile::tempdir().unwrap();
        let part = |json| plan_rdt(Some(bare.path()), &request(json), "id").unwrap_err().to_string();
        assert_eq!(
            part(serde_json::json!({"memBwSchema": "MB:0=20"})),
            "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled"
        );
        for bad in ["..", "a/b", "."] {
            let error = plan_rdt(None, &request(serde_json::json!({"closID": bad})), "id").unwrap_err();
            assert_eq!(error.to_string(), format!("invalid intelRdt.ClosID {bad:?}"));
        }
    }

    #[test]
    fn schemata_are_written_once_and_bandwidth_by_its_own() {
        let root = processor();
        let asked = request(serde_json::json!({
            "l3CacheSchema": "L3:0=f0\nMB:0=9", "memBwSchema": "MB:0=20", "schemata": ["L2:0=3"],
            "enableMonitoring": true,
        }));
        let plan = plan_rdt(Some(root.path()), &asked, "id").unwrap();
        let expected = RdtPlan {
            class: root.path().join("id"),
            must_exist: false,
            schemata: "L3:0=f0\nMB:0=20\nL2:0=3\n".into(),
            monitor: Some(root.path().join("id/mon_groups/id")),
        };
        assert_eq!(plan, expected);
    }

    #[test]
    fn a_named_class_without_schemata_must_be_there_and_stays() {
        let root = processor();
        let plan =
            plan_rdt(Some(root.path()), &request(serde_json::json!({"closID": "gold"})), "id").unwrap();
        assert!(matches!(apply_rdt(&plan), Err(RdtError::NoClass(_))));
        std::fs::create_dir(root.path().join("gold")).unwrap();
        std::fs::write(root.path().join("gold/tasks"), "").unwrap();
        let rdt = apply_rdt(&plan).unwrap();
        rdt.join(7).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("gold/tasks")).unwrap(), "7");
        rdt.remove().unwrap();
        assert!(root.path().join("gold").exists());
    }

    #[test]
    fn the_class_at_the_root_is_never_made_nor_removed() {
        let root = processor();
        let asked = request(serde_json::json!({"closID": "/", "enableMonitoring": true}));
        let plan = plan_rdt(Some(root.path()), &asked, "id").unwrap();
        assert_eq!((plan.class.as_path(), plan.must_exist), (root.path(), true));
        std::fs::create_dir(root.path().join("mon_groups")).unwrap();
        let rdt = apply_rdt(&plan).unwrap();
        assert!(root.path().join("mon_groups/id").exists());
        rdt.remove().unwrap();
        assert!(root.path().exists() && !root.path().join("mon_groups/id").exists());
    }

    #[test]
    fn what_was_made_is_removed_when_the_kernel_refuses_the_rest() {
        let root = processor();
        let asked = request(serde_json::json!({"l3CacheSchema": "L3:0=f0"}));
        // A plain directory has no file `schemata` to write to.
        let error = apply_rdt(&plan_rdt(Some(root.path()), &asked, "id").unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("write `"), "{error}");
        assert!(!root.path().join("id").exists());
    }
}
