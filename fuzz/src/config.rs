//! A configuration through everything that reads it and touches nothing.

use stanza_cgroup::systemd::{plan_systemd, property_of_annotation};
use stanza_cgroup::{Hierarchy, Layout, PlanOptions, RdtRequest, locate, plan_at, plan_rdt};
use stanza_spec::oci::runtime::Spec;

use crate::{Outcome, seccomp};

pub(crate) fn run(text: &[u8]) -> Outcome {
    let Ok(spec) = serde_json::from_slice::<Spec>(text) else { return Ok(false) };
    let mut taken = true;
    for (key, value) in spec.annotations().iter().flatten() {
        taken &= property_of_annotation(key, value).is_none_or(|property| property.is_ok());
    }
    let Some(linux) = spec.linux() else { return Ok(taken) };
    if let Some(profile) = linux.seccomp() {
        taken &= seccomp::check(profile)?;
    }
    // The same names, by way of the text: the request is this project's own type.
    if let Some(asked) = linux.intel_rdt().as_ref().and_then(|asked| serde_json::to_value(asked).ok()) {
        let asked =
            serde_json::from_value::<RdtRequest>(asked).map_err(|error| format!("intelRdt: {error}"))?;
        taken &= plan_rdt(None, &asked, "id").is_ok();
    }
    let path = linux.cgroups_path().as_ref().and_then(|path| path.to_str()).unwrap_or_default();
    let resources = linux.resources().clone().unwrap_or_default();
    for layout in layouts() {
        let Ok(location) = locate(&layout, path, "id") else {
            taken = false;
            continue;
        };
        for rootless in [false, true] {
            let options = PlanOptions { rootless, every_hierarchy: true, exclusive: false };
            match plan_at(&layout, &location, &resources, options) {
                Ok((plan, _)) => {
                    for group in &plan.groups {
                        let inside = group
                            .path
                            .components()
                            .all(|part| matches!(part, std::path::Component::Normal(_)));
                        if !inside || group.path.as_os_str().is_empty() {
                            return Err(format!("a cgroup outside of its root: {}", group.path.display()));
                        }
                        let files = group.writes.iter().flat_map(|write| {
                            [Some(&write.file), write.otherwise.as_ref().map(|(file, _)| file)]
                        });
                        if let Some(file) = files.flatten().find(|file| file.contains(['/', '\0'])) {
                            return Err(format!("a file outside of its cgroup: {file}"));
                        }
                    }
                    let text = serde_json::to_string(&plan).map_err(|error| error.to_string())?;
                    if serde_json::from_str(&text).ok().as_ref() != Some(&plan) {
                        return Err("a plan is not what its text says".into());
                    }
                }
                Err(_) => taken = false,
            }
            if let Ok(plan) = plan_systemd(&layout, path, "id", &resources, rootless)
                && (!plan.slice.ends_with(".slice") || plan.slice.contains('/'))
            {
                return Err(format!("not a slice: {}", plan.slice));
            }
        }
    }
    Ok(taken)
}

fn layouts() -> [Layout; 3] {
    let names = [
        "cpu", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio",
        "rdma",
    ];
    let hierarchy =
        |name: &str| Hierarchy { root: format!("/c/{name}").into(), controllers: vec![name.to_owned()] };
    let controllers =
        ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma"].map(str::to_owned).to_vec();
    [
        Layout::V1(names.into_iter().map(hierarchy).collect()),
        Layout::V2 { root: "/c".into(), controllers },
        Layout::Absent,
    ]
}
