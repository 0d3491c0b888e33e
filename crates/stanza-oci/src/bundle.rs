//! A bundle: the directory with `config.json`, read and checked before anything is made of it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stanza_container::ALL_CAPABILITIES;
use stanza_spec::oci::runtime::Spec;

use crate::failure::{Doing, Failure};
use crate::validate;

/// A bundle whose configuration makes sense.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute.
    pub(crate) directory: PathBuf,
    /// The configuration, as it was read.
    pub(crate) text: Vec<u8>,
    /// The same, with all paths of the host made absolute.
    pub(crate) spec: Spec,
    /// The root file system, absolute.
    pub(crate) rootfs: PathBuf,
}

impl Bundle {
    /// Reads the configuration of the bundle at `directory` (default: the working directory), or the one at `config`.
    pub(crate) fn load(directory: Option<&str>, config: Option<&str>) -> Result<Bundle, Failure> {
        let given = directory.filter(|path| !path.is_empty()).unwrap_or(".");
        let directory = std::path::absolute(given).doing("open the bundle", given)?;
        let path = config.map_or_else(|| directory.join("config.json"), PathBuf::from);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // runc's words, which callers look for.
                let name = config.unwrap_or("config.json");
                return Err(Failure::Configuration(format!("JSON specification file {name} not found")));
            }
            other => other.doing("open", &path)?,
        };
        let mut spec = parse(&text, &path)?;
        let rootfs = match spec.root() {
            Some(root) => directory.join(root.path()),
            None => return Err(Failure::Configuration("the configuration has no `root`".to_owned())),
        };
        validate::check(&spec)?;
        // Links in the bundle's own path are the caller's; from here on the root is one directory.
        let rootfs = fs::canonicalize(&rootfs).map_err(|error| Failure::Step {
            step: format!("invalid rootfs {}", rootfs.display()),
            source: error,
        })?;
        if !rootfs.is_dir() {
            let name = rootfs.display();
            return Err(Failure::Configuration(format!("invalid rootfs {name}: not a directory")));
        }
        settle(&mut spec, &directory);
        Ok(Bundle { directory, text, spec, rootfs })
    }
}

/// Makes what is relative to the bundle absolute, and forgets what is another system's.
pub(crate) fn settle(spec: &mut Spec, directory: &Path) {
    let mut mounts = spec.mounts().clone();
    for mount in mounts.iter_mut().flatten() {
        let bound = mount.typ().as_deref() == Some("bind")
            || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
        match mount.source() {
            Some(source) if bound && source.is_relative() => {
                let absolute = directory.join(source);
                mount.set_source(Some(absolute));
            }
            _ => {}
        }
    }
    spec.set_mounts(mounts);
    if let Some(process) = spec.process_mut() {
        // For Windows (runtime-spec, "User").
        process.user_mut().set_username(None);
    }
}

/// Reads a configuration.
pub(crate) fn read_configuration(path: &Path) -> Result<Spec, Failure> {
    parse(&fs::read(path).doing("open", path)?, path)
}

fn parse(text: &[u8], path: &Path) -> Result<Spec, Failure> {
    let error = match serde_json::from_slice(text) {
        Ok(spec) => return Ok(spec),
        Err(error) => error,
    };
    // Unknown capabilities are passed over (runtime-spec, "Linux Process"), and the types refuse them.
    let known = serde_json::from_slice(text).ok().map(without_unknown_capabilities).map(with_known_flags);
    known
        .and_then(|value| serde_json::from_value(value).ok())
        .ok_or_else(|| Failure::Configuration(format!("{}: {error}", path.display())))
}

/// The same `config.json` with the capabilities that the kernel knows.
fn without_unknown_capabilities(mut spec: Value) -> Value {
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        let names = spec.pointer_mut(&format!("/process/capabilities/{set}")).and_then(Value::as_array_mut);
        if let Some(names) = names {
            names.retain(|name| name.as_str().is_some_and(|name| ALL_CAPABILITIES.contains(&name)));
        }
    }
    spec
}

/// The same with the scheduler flags that the types spell in another way than the specification.
fn with_known_flags(mut spec: Value) -> Value {
    let flags = spec.pointer_mut("/process/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => {}
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_capability_is_passed_over_and_other_nonsense_is_not() {
        let spec = |capability: &str, uid: Value| {
            serde_json::to_vec(&serde_json::json!({
                "ociVersion": "1.2.0",
                "process": {
                    "cwd": "/", "user": {"uid": uid, "gid": 0},
                    "capabilities": {"bounding": ["CAP_KILL", capability]}
                }
            }))
            .unwrap()
        };
        let parsed = parse(&spec("CAP_FLY", 0.into()), Path::new("x")).unwrap();
        let process = parsed.process().as_ref().unwrap();
        let bounding = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
        assert_eq!(bounding.len(), 1);
        let flagged = br#"{"ociVersion": "1.2.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0},
            "scheduler": {"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"]}}}"#;
        assert!(parse(flagged, Path::new("x")).is_ok());
        let error = parse(&spec("CAP_FLY", "root".into()), Path::new("x")).unwrap_err();
        assert!(error.to_string().starts_with("x: "), "{error}");
    }
}
