//! What holds for every verb: where containers are recorded, where to log, which cgroup driver.

use std::path::PathBuf;

use crate::arguments::{Flag, Parsed, option, switch};
use crate::failure::Failure;

pub(crate) const GLOBAL_FLAGS: &[Flag] = &[
    option(
        &["root"],
        "DIR",
        "where containers are recorded (default: /run/stanza-oci, or below $XDG_RUNTIME_DIR without root)",
    ),
    option(&["log"], "FILE", "where errors and warnings are logged (default: standard error)"),
    option(&["log-format"], "FORMAT", "`text` or `json`"),
    switch(&["debug"], "log what is done, too"),
    switch(
        &["systemd-cgroup"],
        "let systemd make the control groups; cgroupsPath is then `slice:prefix:name`",
    ),
    option(&["cgroup-manager"], "NAME", "`cgroupfs`, `systemd` or `disabled`"),
    option(
        &["rootless"],
        "WHEN",
        "`auto`, `true` or `false`: whether a missing right over control groups is no error",
    ),
    option(&["criu"], "FILE", "the program `criu` (default: from PATH)"),
    switch(&["version", "v"], "print the version"),
    switch(&["help", "h"], "print help"),
];

/// Who makes control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgroupManager {
    /// This process, as directories.
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
    /// Nobody: the container stays where its creator is.
    Disabled,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The global options, read.
#[derive(Debug)]
pub(crate) struct Context {
    /// One directory per container is below it.
    pub(crate) root: PathBuf,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_format: LogFormat,
    pub(crate) debug: bool,
    pub(crate) cgroup_manager: CgroupManager,
    /// Whether cgroups that this user may not make are passed over.
    pub(crate) rootless: bool,
    /// The program `criu`.
    pub(crate) criu: PathBuf,
}

impl Context {
    pub(crate) fn new(global: &Parsed) -> Result<Context, Failure> {
        let is_root = rustix::process::geteuid().is_root();
        let rootless = match global.value("rootless").unwrap_or("auto") {
            "auto" => !is_root || is_in_user_namespace(),
            "true" => true,
            "false" => false,
            other => {
                return Err(Failure::Usage(format!(
                    "invalid --rootless `{other}`: expected auto, true or false"
                )));
            }
        };
        let cgroup_manager = match global.value("cgroup-manager") {
            Some("systemd") => CgroupManager::Systemd,
            Some("disabled") => CgroupManager::Disabled,
            Some("cgroupfs") => CgroupManager::Cgroupfs,
            None if global.is_on("systemd-cgroup") => CgroupManager::Systemd,
            None => CgroupManager::Cgroupfs,
            Some(other) => {
                return Err(Failure::Usage(format!(
                    "invalid --cgroup-manager `{other}`: expected cgroupfs, systemd or disabled"
                )));
            }
        };
        let log_format = match global.value("log-format").unwrap_or("text") {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => return Err(Failure::Usage(format!("invalid log-format: {other:?}"))),
        };
        Ok(Context {
            root: global.value("root").map_or_else(|| default_root(is_root), PathBuf::from),
            log: global.value("log").filter(|path| !path.is_empty()).map(PathBuf::from),
            log_format,
            debug: global.is_on("debug"),
            cgroup_manager,
            rootless,
            criu: global.value("criu").map_or_else(|| PathBuf::from("criu"), PathBuf::from),
        })
    }
}

/// Whether this process's root is not the machine's: the first user namespace has the same number on every kernel
/// (`PROC_USER_INIT_INO`).
fn is_in_user_namespace() -> bool {
    std::fs::read_link("/proc/self/ns/user").is_ok_and(|name| name.as_os_str() != "user:[4026531837]")
}

fn default_root(is_root: bool) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !is_root && !directory.is_empty()) {
        Some(directory) => PathBuf::from(directory).join("stanza-oci"),
        None => PathBuf::from("/run/stanza-oci"),
    }
}
