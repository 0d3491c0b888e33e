//! A container in Docker's words.

use std::path::Path;

use stanza_engine::{Container, MountPoint, State};
use stanza_network::PortMap;
use stanza_spec::Instant;
use stanza_spec::units::human_size;
use stanza_spec::{
    ContainerConfig, Isolation, LogDriver, MountKind, NamespaceMode, SeccompChoice, UsernsMode, signal,
};

use super::json::{Json, list_or_null};
use super::{container_network, ports};
use crate::format::listing::Row;
use crate::format::{template, time};

/// Titles of the columns of `ps`.
pub(crate) const TITLES: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `text` in at most `width` characters, the last one an ellipsis when it was longer.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `Up 2 minutes`, `Exited (0) 3 seconds ago`, `Created`.
pub(crate) fn status(state: &State, now: Instant) -> String {
    match state {
        State::Created => "Created".to_owned(),
        State::Running(running) => format!("Up {}", time::since(&running.started_at, now)),
        State::Exited(record) => format!("Exited ({}) {}", record.code, time::ago(&record.finished_at, now)),
    }
}

/// The image as a listing names it: what was typed, or its id when it was named by id.
fn image_column(container: &Container, truncate: bool) -> String {
    let name = &container.image_name;
    match (&container.image, truncate) {
        (Some(id), true) if name.strip_prefix("sha256:").unwrap_or(name) == id.hex() => id.short().to_owned(),
        _ => name.clone(),
    }
}

/// The row of a container in `ps`.
pub(crate) fn row(container: &Container, truncate: bool, now: Instant) -> Row {
    let command = command_line(&container.command);
    let command = if truncate { ellipsis(&command, 20) } else { command };
    let id = if truncate { container.id.short() } else { container.id.as_str() };
    let labels: Vec<String> =
        container.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .filter(|mount| mount.kind != "tmpfs")
        .map(|mount| {
            let name = mount.name.clone().unwrap_or_else(|| mount.source.display().to_string());
            if truncate { ellipsis(&name, 15) } else { name }
        })
        .collect();
    let running = matches!(container.state, State::Running(_));
    let ports = if running { ports::column(&container.ports, &container.exposed) } else { String::new() };
    let size = container.size.map_or_else(
        || "0B".to_owned(),
        |(own, whole)| format!("{} (virtual {})", human_size(own), human_size(whole)),
    );
    let volumes = container.mounts.iter().filter(|mount| mount.kind == "volume").count();
    let row = Row { labels: container.labels.clone(), ..Row::default() };
    row.with("ID", id)
        .with("Names", container.name.as_str())
        .with("Image", image_column(container, truncate))
        .with("Command", template::quote(&command))
        .with("CreatedAt", time::listed(&container.created_at))
        .with("RunningFor", time::ago(&container.created_at, now))
        .with("Ports", ports)
        .with("State", container.state.word())
        .with("Status", status(&container.state, now))
        .with("Size", size)
        .with("Labels", labels.join(","))
        .with("Mounts", mounts.join(","))
        .with("LocalVolumes", volumes.to_string())
        .with("Networks", container_network::names(container))
        .with("Platform", container.config.platform.clone().unwrap_or_default())
}

/// What `inspect` shows. `root` is the engine's directory.
pub(crate) fn inspect(container: &Container, root: &Path) -> Json {
    let directory = root.join("containers").join(container.id.as_str());
    let file = |name: &str| Json::from(directory.join(name).display().to_string());
    let (path, arguments) = match container.command.split_first() {
        Some((path, arguments)) => (path.as_str(), arguments),
        None => ("", &[][..]),
    };
    let log = container.log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let image = container.image.as_ref().map_or_else(|| container.image_name.clone(), ToString::to_string);
    let mut json = Json::object([
        ("Id", container.id.as_str().into()),
        ("Created", container.created_at.as_str().into()),
        ("Path", path.into()),
        ("Args", arguments.to_vec().into()),
        ("State", state(&container.state)),
        ("Image", image.into()),
        ("ResolvConfPath", file("resolv.conf")),
        ("HostnamePath", file("hostname")),
        ("HostsPath", file("hosts")),
        ("LogPath", log.into()),
        ("Name", format!("/{}", container.name).into()),
        ("RestartCount", 0.into()),
        ("Driver", container.storage_driver.to_string().into()),
        ("Platform", "linux".into()),
        ("HostConfig", host_config(container)),
        ("Mounts", Json::List(container.mounts.iter().map(mount_point).collect())),
        ("Config", config(container)),
        ("NetworkSettings", container_network::settings(container)),
    ]);
    if let (Json::Object(fields), Some((own, whole))) = (&mut json, container.size) {
        fields.push(("SizeRw".to_owned(), own.into()));
        fields.push(("SizeRootFs".to_owned(), whole.into()));
    }
    json
}

fn state(state: &State) -> Json {
    let (mut pid, mut code, mut oom, mut error) = (0, 0, false, String::new());
    let (mut started, mut finished) = (NEVER.to_owned(), NEVER.to_owned());
    match state {
        State::Created => {}
        State::Running(running) => {
            pid = running.pid;
            started.clone_from(&running.started_at);
        }
        State::Exited(record) => {
            code = record.code;
            oom = record.oom_killed;
            error = record.error.clone().unwrap_or_default();
            started.clone_from(&record.started_at);
            finished.clone_from(&record.finished_at);
        }
    }
    Json::object([
        ("Status", state.word().into()),
        ("Running", matches!(state, State::Running(_)).into()),
        ("Paused", false.into()),
        ("Restarting", false.into()),
        ("OOMKilled", oom.into()),
        ("Dead", false.into()),
        ("Pid", pid.into()),
        ("ExitCode", code.into()),
        ("Error", error.into()),
        ("StartedAt", started.into()),
        ("FinishedAt", finished.into()),
    ])
}

fn mount_point(mount: &MountPoint) -> Json {
    let mut fields = vec![("Type".to_owned(), Json::from(mount.kind))];
    if let Some(name) = &mount.name {
        fields.push(("Name".to_owned(), name.as_str().into()));
    }
    fields.push(("Source".to_owned(), mount.source.display().to_string().into()));
    fields.push(("Destination".to_owned(), mount.destination.as_str().into()));
    if mount.kind == "volume" {
        fields.push(("Driver".to_owned(), "local".into()));
    }
    fields.push(("Mode".to_owned(), if mount.writable { "" } else { "ro" }.into()));
    fields.push(("RW".to_owned(), mount.writable.into()));
    fields.push(("Propagation".to_owned(), mount.propagation.as_str().into()));
    Json::Object(fields)
}

fn config(container: &Container) -> Json {
    let asked = &container.config;
    let exposed = container.exposed.iter().map(|name| (name.clone(), Json::object([]))).collect();
    let labels = container.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let mut fields = vec![
        ("Hostname", container.hostname.as_str().into()),
        ("Domainname", "".into()),
        ("User", container.user.as_str().into()),
        ("AttachStdin", asked.open_stdin.into()),
        ("AttachStdout", true.into()),
        ("AttachStderr", true.into()),
    ];
    if !container.exposed.is_empty() {
        fields.push(("ExposedPorts", Json::Object(exposed)));
    }
    fields.extend([
        ("Tty", asked.tty.into()),
        ("OpenStdin", asked.open_stdin.into()),
        ("StdinOnce", asked.open_stdin.into()),
        ("Env", container.env.clone().into()),
        ("Cmd", list_or_null(&asked.command)),
        ("Image", container.image_name.as_str().into()),
        ("Volumes", Json::NULL),
        ("WorkingDir", container.workdir.as_str().into()),
        ("Entrypoint", asked.entrypoint.as_deref().map_or(Json::NULL, list_or_null)),
        ("Labels", Json::Object(labels)),
        ("StopSignal", signal::name(container.stop_signal).into()),
    ]);
    if let Some(timeout) = asked.stop_timeout {
        fields.push(("StopTimeout", timeout.into()));
    }
    Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn mode(mode: NamespaceMode) -> Json {
    match mode {
        NamespaceMode::Private => "".into(),
        NamespaceMode::Host => "host".into(),
    }
}

fn binds(config: &ContainerConfig) -> Vec<String> {
    config
        .mounts
        .iter()
        .filter_map(|mount| {
            let source = match &mount.kind {
                MountKind::Bind { source, .. } => source,
                MountKind::Volume { name: Some(name), .. } => name,
                _ => return None,
            };
            let suffix = if mount.read_only { ":ro" } else { "" };
            Some(format!("{source}:{}{suffix}", mount.destination))
        })
        .collect()
}

fn security_options(config: &ContainerConfig) -> Vec<String> {
    let mut options = Vec::new();
    if config.security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &config.security.seccomp {
        SeccompChoice::Default => {}
        SeccompChoice::Unconfined => options.push("seccomp=unconfined".to_owned()),
        SeccompChoice::Profile(profile) => options.push(format!("seccomp={profile}")),
    }
    options
}

fn log_config(config: &ContainerConfig) -> Json {
    let kind = match config.log.driver {
        LogDriver::JsonFile => "json-file",
        LogDriver::None => "none",
    };
    let mut options = Vec::new();
    if let Some(count) = config.log.max_files {
        options.push(("max-file".to_owned(), count.to_string().into()));
    }
    if let Some(bytes) = config.log.max_size {
        options.push(("max-size".to_owned(), bytes.to_string().into()));
    }
    Json::object([("Type", kind.into()), ("Config", Json::Object(options))])
}

fn host_config(container: &Container) -> Json {
    let config = &container.config;
    let resources = &config.resources;
    let asked_ports: Vec<PortMap> = config.ports.iter().map(PortMap::from).collect();
    let limits = config
        .ulimits
        .iter()
        .map(|limit| {
            Json::object([
                ("Name", limit.name.as_str().into()),
                ("Hard", limit.hard.into()),
                ("Soft", limit.soft.into()),
            ])
        })
        .collect();
    let userns = match config.userns {
        UsernsMode::Host => "",
        UsernsMode::Private => "private",
        UsernsMode::KeepId => "keep-id",
    };
    Json::object([
        ("Binds", list_or_null(&binds(config))),
        ("LogConfig", log_config(config)),
        ("NetworkMode", container_network::mode(container).into()),
        ("PortBindings", ports::asked(&asked_ports)),
        ("PublishAllPorts", config.publish_all.into()),
        ("Dns", config.dns.iter().map(ToString::to_string).collect::<Vec<_>>().into()),
        ("DnsOptions", config.dns_options.clone().into()),
        ("DnsSearch", config.dns_search.clone().into()),
        ("ExtraHosts", list_or_null(&container_network::extra_hosts(config))),
        ("RestartPolicy", Json::object([("Name", "no".into()), ("MaximumRetryCount", 0.into())])),
        ("AutoRemove", config.auto_remove.into()),
        ("CapAdd", list_or_null(&config.security.cap_add)),
        ("CapDrop", list_or_null(&config.security.cap_drop)),
        ("IpcMode", mode(config.ipc)),
        ("PidMode", mode(config.pid)),
        ("UTSMode", mode(config.uts)),
        ("UsernsMode", userns.into()),
        ("Privileged", config.security.privileged.into()),
        ("ReadonlyRootfs", config.read_only.into()),
        ("SecurityOpt", list_or_null(&security_options(config))),
        ("ShmSize", config.shm_size.unwrap_or(64 << 20).into()),
        (
            "Isolation",
            match config.isolation {
                Isolation::Container => "container",
                Isolation::Vm => "vm",
            }
            .into(),
        ),
        ("Memory", resources.memory.unwrap_or(0).into()),
        ("MemorySwap", resources.memory_swap.unwrap_or(0).into()),
        ("NanoCpus", resources.nano_cpus.unwrap_or(0).into()),
        ("CpusetCpus", resources.cpuset_cpus.clone().unwrap_or_default().into()),
        ("PidsLimit", resources.pids.map_or(Json::NULL, Json::from)),
        ("Ulimits", Json::List(limits)),
    ])
}

/// Names of fields that hold maps, for templates: a missing key in them is no error.
pub(crate) const MAPS: &[&str] = &[
    "Labels",
    "Ports",
    "Networks",
    "ExposedPorts",
    "PortBindings",
    "Volumes",
    "Config",
    "Annotations",
    "Containers",
    "Options",
    "AuxiliaryAddresses",
];

/// A command as Docker shows it: arguments with a space in quotes.
fn command_line(words: &[String]) -> String {
    let quoted = words.iter().enumerate().map(|(index, word)| match word.contains(' ') && index > 0 {
        true => format!("'{word}'"),
        false => word.clone(),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use stanza_spec::NetworkMode;

    use super::*;

    pub(crate) fn sample(state: State) -> Container {
        Container {
            storage_driver: stanza_engine::StorageDriver::Overlay,
            id: "0123456789abcdef".repeat(4).parse().unwrap(),
            name: "web".to_owned(),
            config: ContainerConfig { image: "busybox".to_owned(), ..ContainerConfig::default() },
            image: Some(format!("sha256:{}", "ab".repeat(32)).parse().unwrap()),
            image_name: "busybox".to_owned(),
            created_at: "2025-01-31T12:00:00Z".to_owned(),
            command: ["sh", "-c", "echo a long command"].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            workdir: "/".to_owned(),
            user: String::new(),
            hostname: "0123456789ab".to_owned(),
            stop_signal: 15,
            exposed: vec!["80/tcp".to_owned()],
            state,
            ports: Vec::new(),
            network: NetworkMode::Bridge,
            endpoints: vec![stanza_engine::EndpointEntry {
                network: "bridge".to_owned(),
                network_id: "5".repeat(64),
                container: "0123456789abcdef".repeat(4).parse().unwrap(),
                container_name: "web".to_owned(),
                ipv4: Some(([10, 89, 0, 2].into(), 16)),
                ipv6: None,
                gateway4: Some([10, 89, 0, 1].into()),
                gateway6: None,
                mac: Some([2, 0, 10, 89, 0, 2]),
                device: "stz0123456789ab".to_owned(),
                interface: "eth0".to_owned(),
                names: Vec::new(),
                aliases: Vec::new(),
                ports: Vec::new(),
                default_route: true,
                running: true,
            }],
            mounts: Vec::new(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            log_path: None,
            size: None,
        }
    }

    fn exited() -> State {
        State::Exited(stanza_sandbox::ExitRecord {
            code: 3,
            signal: None,
            oom_killed: false,
            started_at: "2025-01-31T12:00:01Z".to_owned(),
            finished_at: "2025-01-31T12:00:05Z".to_owned(),
            error: None,
            used: None,
        })
    }

    #[test]
    fn a_row_says_what_docker_says() {
        let now = Instant::parse_rfc3339("2025-01-31T12:02:00Z").unwrap();
        let fields = row(&sample(exited()), true, now).fields;
        let text = |name: &str| fields[name].as_str().unwrap().to_owned();
        assert_eq!(text("ID"), "0123456789ab");
        assert_eq!(text("Command"), "\"sh -c 'echo a long …\"");
        assert_eq!(
            (text("RunningFor"), text("Status")),
            ("2 minutes ago".to_owned(), "Exited (3) About a minute ago".to_owned())
        );
        assert_eq!(
            (text("State"), text("Ports"), text("Labels")),
            ("exited".into(), String::new(), "a=b".into())
        );
        assert_eq!(fields.len(), TITLES.len());
        assert!(TITLES.iter().all(|(name, _)| fields.contains_key(*name)));
    }

    #[test]
    fn inspect_has_dockers_shape() {
        let json = inspect(&sample(exited()), Path::new("/r"));
        let value = json.value();
        assert_eq!(value["State"]["ExitCode"], 3);
        assert_eq!(value["State"]["Status"], "exited");
        assert_eq!(value["Name"], "/web");
        assert_eq!(value["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "10.89.0.2");
        assert_eq!(value["NetworkSettings"]["MacAddress"], "02:00:0a:59:00:02");
        assert_eq!(value["Config"]["StopSignal"], "SIGTERM");
        assert_eq!(value["HostConfig"]["PidsLimit"], serde_json::Value::Null);
        assert!(json.pretty().starts_with("{\n    \"Id\": \"0123"));
        assert_eq!(inspect(&sample(State::Created), Path::new("/r")).value()["State"]["StartedAt"], NEVER);
    }

    #[test]
    fn long_text_ends_in_an_ellipsis() {
        assert_eq!((ellipsis("abc", 3), ellipsis("abcd", 3)), ("abc".to_owned(), "ab…".to_owned()));
    }
}
