//! The bundles: one configuration, the same for every runtime but for the cgroup's name.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Runtime;
use crate::bench::Workshop;
use crate::shell::output;

/// The cgroup above those of all containers, this task's own.
pub(super) fn cgroup() -> String {
    format!("stanza-bench-oci-{}", std::process::id())
}

/// Where Debian keeps the profile that Docker, Podman and containerd apply by default (package golang-github-containers-common).
const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// runc's default configuration, or the runtime's own when there is no runc, for `command` in the benches' root file system.
fn base(workshop: &Workshop, runtime: &Runtime, command: &str) -> Result<Value, String> {
    let directory = workshop.make("spec")?;
    let config = directory.join("config.json");
    if !config.exists() {
        let program = crate::shell::find("runc").unwrap_or_else(|| runtime.path.clone());
        output(&[&program, "spec", "--bundle", &directory.display().to_string()])?;
    }
    let text = fs::read_to_string(&config)
        .map_err(|error| format!("cannot read `{}`: {error}", config.display()))?;
    let mut document: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    document["process"]["terminal"] = false.into();
    document["process"]["args"] = json!([command]);
    document["root"] = json!({ "path": workshop.rootfs.display().to_string(), "readonly": true });
    document["linux"]["cgroupsPath"] = format!("/{}/{}", cgroup(), runtime.name).into();
    Ok(document)
}

/// Whether a rule group of the profile applies to x86-64 with the default configuration's capabilities.
fn applies(group: &Value, capabilities: &[&str]) -> bool {
    let names = |side: &str, kind: &str| -> Vec<String> {
        let list = group[side][kind].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let has = |name: &String| capabilities.contains(&name.as_str());
    let (wanted, refused) = (names("includes", "caps"), names("excludes", "caps"));
    let (here, not_here) = (names("includes", "arches"), names("excludes", "arches"));
    let native = |name: &String| name == "amd64";
    wanted.iter().all(has)
        && !refused.iter().any(has)
        && (here.is_empty() || here.iter().any(native))
        && !not_here.iter().any(native)
}

/// The engines' default profile as they write it into a configuration.
fn seccomp(profile: &Value, capabilities: &[&str]) -> Value {
    let groups = profile["syscalls"].as_array().cloned().unwrap_or_default();
    let rules: Vec<Value> = groups
        .iter()
        .filter(|group| applies(group, capabilities))
        .map(|group| {
            let mut rule = json!({ "names": group["names"], "action": group["action"] });
            if group["args"].as_array().is_some_and(|arguments| !arguments.is_empty()) {
                rule["args"] = group["args"].clone();
            }
            if group["errnoRet"].is_u64() {
                rule["errnoRet"] = group["errnoRet"].clone();
            }
            rule
        })
        .collect();
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn write(directory: &Path, document: &Value) -> Result<(), String> {
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(directory.join("config.json"), document.to_string()))
        .map_err(|error| format!("cannot write the bundle `{}`: {error}", directory.display()))
}

/// Makes `true`, `pause`, `lane0` and so on, `small` (a memory limit of 4 MiB) and, where the profile is installed, `seccomp`.
pub(super) fn make_all(workshop: &Workshop, runtime: &Runtime) -> Result<(), String> {
    let at = |name: &str| runtime.directory.join(name);
    let plain = base(workshop, runtime, "/true")?;
    write(&at("true"), &plain)?;
    write(&at("pause"), &base(workshop, runtime, "/pause")?)?;
    for lane in 0..super::hangs::LANES {
        let mut own = plain.clone();
        own["linux"]["cgroupsPath"] = format!("/{}/{}{lane}", cgroup(), runtime.name).into();
        write(&at(&format!("lane{lane}")), &own)?;
    }
    let mut small = plain.clone();
    small["linux"]["resources"]["memory"] = json!({ "limit": 4 << 20 });
    write(&at("small"), &small)?;
    if let Ok(text) = fs::read_to_string(PROFILE) {
        let profile: Value = serde_json::from_str(&text).map_err(|error| format!("`{PROFILE}`: {error}"))?;
        let list = plain["process"]["capabilities"]["bounding"].as_array().cloned().unwrap_or_default();
        let capabilities: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        let mut filtered = plain;
        filtered["linux"]["seccomp"] = seccomp(&profile, &capabilities);
        write(&at("seccomp"), &filtered)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_groups_follow_the_capabilities_and_the_processor() {
        let holds = ["CAP_KILL"];
        assert!(applies(&json!({ "names": ["read"] }), &holds));
        assert!(applies(&json!({ "includes": { "caps": ["CAP_KILL"] } }), &holds));
        assert!(!applies(&json!({ "includes": { "caps": ["CAP_SYS_ADMIN"] } }), &holds));
        assert!(!applies(&json!({ "excludes": { "caps": ["CAP_KILL"] } }), &holds));
        assert!(!applies(&json!({ "includes": { "arches": ["s390"] } }), &holds));
        assert!(applies(&json!({ "includes": { "arches": ["x86", "amd64"] } }), &holds));
    }
}
