//! The whole configuration, as a snapshot, and how single wishes change it.

use stanza_spec::{Security, UsernsMode};

use super::*;

fn plan_with(config: &ContainerConfig, change: impl FnOnce(&mut SpecInput<'_>)) -> Planned {
    let facts = Facts {
        argv: vec!["/bin/sh".into(), "-c".into(), "true".into()],
        env: vec!["PATH=/bin".into()],
        workdir: "/srv".into(),
        user: "web:log".into(),
        ..Default::default()
    };
    let mut input = SpecInput {
        config,
        facts: &facts,
        network: config.network.clone().unwrap_or(NetworkMode::Bridge),
        hostname: "box",
        state_dir: Path::new("/s"),
        volumes_dir: Path::new("/v"),
        rootless: false,
        mappings: None,
        available_capabilities: u64::MAX,
        apparmor_profile: Some("docker-default"),
        cpus: 4,
        hard_limit: &|_| None,
        host_devices: Vec::new(),
    };
    change(&mut input);
    plan(input).unwrap()
}

fn kinds(spec: &Spec) -> Vec<String> {
    let linux = spec.linux().as_ref().unwrap();
    linux.namespaces().as_ref().unwrap().iter().map(|namespace| namespace.typ().to_string()).collect()
}

#[test]
fn the_default_configuration_is_this() {
    let planned = plan_with(&ContainerConfig { tty: true, ..Default::default() }, |_| {});
    let json = serde_json::to_value(&planned.spec).unwrap();
    assert_eq!(json["process"]["env"], serde_json::json!(["PATH=/bin", "HOSTNAME=box", "TERM=xterm"]));
    assert_eq!(json["process"]["args"], serde_json::json!(["/bin/sh", "-c", "true"]));
    assert_eq!(json["process"]["user"], serde_json::json!({"uid": 0, "gid": 0, "username": "web:log"}));
    assert_eq!(
        (&json["process"]["cwd"], &json["process"]["noNewPrivileges"]),
        (&"/srv".into(), &false.into())
    );
    assert_eq!(json["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    assert_eq!(json["process"]["capabilities"]["inheritable"], serde_json::json!([]));
    assert_eq!(json["process"].get("rlimits"), None);
    assert_eq!(json["root"], serde_json::json!({"path": "rootfs", "readonly": false}));
    assert_eq!(json["hostname"], "box");
    assert_eq!(json["linux"]["maskedPaths"], serde_json::json!(MASKED));
    assert_eq!(json["linux"]["readonlyPaths"], serde_json::json!(READ_ONLY));
    assert_eq!(json["linux"]["resources"].as_object().unwrap().keys().collect::<Vec<_>>(), ["devices"]);
    assert_eq!(json["linux"]["sysctl"]["net.ipv4.ping_group_range"], "0 2147483647");
    assert_eq!(json["linux"].get("seccomp"), None);
    assert_eq!(kinds(&planned.spec), ["mnt", "cgroup", "pid", "ipc", "uts", "net"]);
    assert_eq!(planned.warnings, Vec::<String>::new());
}

#[test]
fn shared_namespaces_are_left_out() {
    let config = ContainerConfig {
        pid: NamespaceMode::Host,
        ipc: NamespaceMode::Host,
        uts: NamespaceMode::Host,
        network: Some(NetworkMode::Host),
        ..Default::default()
    };
    let planned = plan_with(&config, |_| {});
    assert_eq!(kinds(&planned.spec), ["mnt", "cgroup"]);
    let linux = planned.spec.linux().as_ref().unwrap();
    assert_eq!((planned.spec.hostname(), linux.sysctl()), (&None, &None));
}

#[test]
fn privileged_takes_the_locks_off() {
    let config = ContainerConfig {
        security: Security { privileged: true, ..Default::default() },
        ..Default::default()
    };
    let device = LinuxDevice::default();
    let planned = plan_with(&config, |input| input.host_devices = vec![device.clone()]);
    let linux = planned.spec.linux().as_ref().unwrap();
    assert_eq!((linux.masked_paths(), linux.readonly_paths()), (&None, &None));
    assert_eq!(linux.devices().as_ref().unwrap().len(), 1);
    assert_eq!(planned.capabilities.len(), 41);
    let mounts = planned.spec.mounts().as_ref().unwrap();
    assert!(mounts.iter().filter_map(|m| m.options().as_ref()).flatten().all(|option| option != "ro"));
    let rootless =
        plan_with(&config, |input| (input.rootless, input.host_devices) = (true, vec![device.clone()]));
    assert_eq!(rootless.spec.linux().as_ref().unwrap().devices(), &None);
}

#[test]
fn a_user_namespace_brings_mappings_and_every_capability() {
    let config = ContainerConfig { userns: UsernsMode::Private, ..Default::default() };
    let mappings = vec![userns::mapping(0, 1 << 30, 65536)];
    let planned = plan_with(&config, |input| {
        input.available_capabilities = 0;
        input.mappings = Some((mappings.clone(), mappings.clone()));
    });
    let linux = planned.spec.linux().as_ref().unwrap();
    assert_eq!(linux.uid_mappings().as_ref(), Some(&mappings));
    assert!(kinds(&planned.spec).contains(&"user".to_owned()));
    assert_eq!(planned.capabilities.len(), 14);
}

#[test]
fn containers_get_the_machines_apparmor_profile_unless_told_otherwise() {
    let profile = |apparmor: Option<&str>, privileged: bool| {
        let security = Security { apparmor: apparmor.map(str::to_owned), privileged, ..Default::default() };
        super::apparmor(&security, Some("docker-default"))
    };
    assert_eq!(profile(None, false).as_deref(), Some("docker-default"));
    assert_eq!(profile(None, true), None);
    assert_eq!(profile(Some("unconfined"), false), None);
    assert_eq!(profile(Some("mine"), true).as_deref(), Some("mine"));
}
