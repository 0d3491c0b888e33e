//! A container's control groups: where they go, which limits and devices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use stanza_cgroup::systemd::{self, SystemdPlan};
use stanza_cgroup::{Cgroup, CgroupPlan, Layout, Location, PlanOptions, Rdt, RdtRequest};
use stanza_spec::oci::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources, Spec};

use crate::context::{CgroupManager, Context};
use crate::failure::Failure;
use crate::log;

/// The devices that a container may use whatever its configuration says: those of its /dev, and to make any node, which
/// lets nobody open it (runc's `AllowedDevices`).
const ALWAYS: [(LinuxDeviceType, i64, i64, &str); 10] = [
    (LinuxDeviceType::C, -1, -1, "m"),
    (LinuxDeviceType::B, -1, -1, "m"),
    (LinuxDeviceType::C, 1, 3, "rwm"),
    (LinuxDeviceType::C, 1, 8, "rwm"),
    (LinuxDeviceType::C, 1, 7, "rwm"),
    (LinuxDeviceType::C, 5, 0, "rwm"),
    (LinuxDeviceType::C, 1, 5, "rwm"),
    (LinuxDeviceType::C, 1, 9, "rwm"),
    (LinuxDeviceType::C, 136, -1, "rwm"),
    (LinuxDeviceType::C, 5, 2, "rwm"),
];

/// Who makes a container's cgroups, and what he is to do.
#[derive(Debug)]
pub(crate) enum Plan {
    /// This process, before there is a process in them.
    Here(CgroupPlan),
    /// systemd, with the process; then the rest is written here.
    Systemd(SystemdPlan),
}

/// Where they are to be, by the configuration; empty when it does not say.
pub(crate) fn cgroups_path(spec: &Spec) -> &str {
    let linux = spec.linux().as_ref();
    linux.and_then(|linux| linux.cgroups_path().as_deref()).and_then(Path::to_str).unwrap_or_default()
}

/// Plans the cgroups of a new container. Those of somebody else are not taken: clearing this container would end him.
pub(crate) fn plan(context: &Context, spec: &Spec, id: &str) -> Result<Plan, Failure> {
    if context.cgroup_manager == CgroupManager::Disabled {
        return Ok(Plan::Here(CgroupPlan::default()));
    }
    let layout = stanza_cgroup::detect().map_err(Failure::below)?;
    let (path, resources) = (cgroups_path(spec), resources(spec));
    if context.cgroup_manager == CgroupManager::Systemd {
        let mut plan =
            systemd::plan_systemd(&layout, path, id, &resources, context.rootless).map_err(Failure::below)?;
        for (name, value) in spec.annotations().iter().flatten() {
            if let Some(property) = systemd::property_of_annotation(name, value) {
                plan.properties.push(property.map_err(Failure::below)?);
            }
        }
        return Ok(Plan::Systemd(plan));
    }
    let location = stanza_cgroup::locate(&layout, path, id).map_err(Failure::below)?;
    let plan = plan_at(context, &layout, &location, &resources)?;
    match stanza_cgroup::open(&plan).is_populated() {
        // runc's words.
        Ok(true) => Err(Failure::State("container's cgroup is not empty".to_owned())),
        _ => Ok(Plan::Here(plan)),
    }
}

/// Has systemd make the unit with `pid` in it, and writes what systemd does not know.
pub(crate) fn start_unit(
    context: &Context,
    unit: &SystemdPlan,
    spec: &Spec,
    pid: Pid,
) -> Result<CgroupPlan, Failure> {
    let pid = pid.as_raw_nonzero().get().cast_unsigned();
    let layout = stanza_cgroup::detect().map_err(Failure::below)?;
    let location = systemd::start(unit, &layout, pid).map_err(Failure::below)?;
    let plan = plan_at(context, &layout, &location, &resources(spec))?;
    let cgroup = stanza_cgroup::adopt(&plan).map_err(Failure::below)?;
    cgroup.join(pid).map_err(Failure::below)?;
    Ok(plan)
}

/// Makes the groups of Intel's resource control that the configuration asks for.
pub(crate) fn make_rdt(spec: &Spec, id: &str) -> Result<Option<Rdt>, Failure> {
    let Some(wanted) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else {
        return Ok(None);
    };
    let value = serde_json::to_value(wanted).map_err(Failure::below)?;
    let request: RdtRequest = serde_json::from_value(value).map_err(Failure::below)?;
    let plan = stanza_cgroup::plan_rdt(stanza_cgroup::detect_rdt().as_deref(), &request, id)
        .map_err(Failure::below)?;
    stanza_cgroup::apply_rdt(&plan).map(Some).map_err(Failure::below)
}

/// Plans cgroups with these limits there; tells what has no meaning on this kernel.
pub(crate) fn plan_at(
    context: &Context,
    layout: &Layout,
    location: &Location,
    resources: &LinuxResources,
) -> Result<CgroupPlan, Failure> {
    let options = PlanOptions { rootless: context.rootless, every_hierarchy: true, exclusive: false };
    let (plan, warnings) =
        stanza_cgroup::plan_at(layout, location, resources, options).map_err(Failure::below)?;
    for warning in warnings {
        log::warn(context, &warning.to_string());
    }
    Ok(plan)
}

/// Each controller's directory, by the controller's name; version 2 has one under an empty name.
pub(crate) fn paths(cgroup: &Cgroup) -> BTreeMap<String, PathBuf> {
    let mut paths = BTreeMap::new();
    for (controllers, directory) in cgroup.directories() {
        for controller in controllers.split(',') {
            paths.insert(controller.to_owned(), directory.clone());
        }
    }
    paths
}

/// The limits of a configuration, with the devices that every container may use.
pub(crate) fn resources(spec: &Spec) -> LinuxResources {
    let given = spec.linux().as_ref().and_then(|linux| linux.resources().clone());
    let mut resources = given.unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    if !rules.first().is_some_and(is_for_all) {
        // Nothing but what is allowed, as in runc.
        rules.insert(0, rule(false, None, (-1, -1), "rwm"));
    }
    let open = rules.last().is_some_and(|rule| is_for_all(rule) && rule.allow());
    if !open {
        rules.extend(
            ALWAYS.map(|(kind, major, minor, access)| rule(true, Some(kind), (major, minor), access)),
        );
    }
    resources.set_devices(Some(rules));
    resources
}

fn is_for_all(rule: &LinuxDeviceCgroup) -> bool {
    rule.typ().is_none_or(|kind| kind == LinuxDeviceType::A)
        && rule.major().is_none_or(|major| major < 0)
        && rule.minor().is_none_or(|minor| minor < 0)
}

fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    (major, minor): (i64, i64),
    access: &str,
) -> LinuxDeviceCgroup {
    let number = |number: i64| (number >= 0).then_some(number);
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow);
    rule.set_typ(kind);
    rule.set_major(number(major));
    rule.set_minor(number(minor));
    rule.set_access(Some(access.to_owned()));
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(devices: serde_json::Value) -> Vec<String> {
        let spec = serde_json::json!({"ociVersion": "1.2.0", "linux": {"resources": {"devices": devices}}});
        let resources = resources(&serde_json::from_value(spec).unwrap());
        let rules = resources.devices().clone().unwrap();
        rules.iter().map(|rule| format!("{} {rule}", if rule.allow() { "allow" } else { "deny" })).collect()
    }

    #[test]
    fn a_container_has_its_own_devices_and_no_others() {
        let default = rules(serde_json::json!(null));
        assert_eq!((default.len(), default[0].as_str()), (11, "deny a *:* rwm"));
        assert!(default.contains(&"allow c 1:3 rwm".to_owned()));
        let one = rules(
            serde_json::json!([{"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"}]),
        );
        assert_eq!(one[..2], ["deny a *:* rwm", "allow c 10:200 rw"]);
        assert_eq!(rules(serde_json::json!([{"allow": true, "access": "rwm"}])), ["allow a *:* rwm"]);
    }
}
