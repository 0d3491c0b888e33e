//! The options that `run` and `create` share, and the [`ContainerConfig`] they make.

use clap::{ArgMatches, Command};
use stanza_spec::units::parse_nano_cpus;
use stanza_spec::{ContainerConfig, MountRequest, Resources, Security};

use crate::arguments::{Given, list, rest, switch, value};
use crate::failure::Failure;
use crate::flags::{
    FlagError, bytes, endpoints, environment, hosts, labels, limits, logging, mounts, namespaces, ports,
    security,
};

/// What `run` and `create` were asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The container.
    pub(crate) config: ContainerConfig,
    /// Where its id is written.
    pub(crate) cidfile: Option<String>,
    /// Say nothing of a pull.
    pub(crate) quiet: bool,
}

/// `command` with all of them.
pub(crate) fn declare(command: Command) -> Command {
    let command = declare_process(command);
    let command = declare_files(command);
    let command = declare_network(command);
    let command = declare_limits(command);
    command
        .arg(switch("rm", None, "Remove the container when it exits"))
        .arg(value("name", None, "NAME", "Give the container a name"))
        .arg(value("isolation", None, "KIND", "`container` (default) or `vm`"))
        .arg(value("pull", None, "POLICY", "Ask the registry: `missing` (default), `always`, `never`"))
        .arg(switch("quiet", 'q', "Say nothing of a pull"))
        .arg(value("platform", None, "OS/ARCH", "Take the image for this platform"))
        .arg(value("cidfile", None, "FILE", "Write the container's id into a new file"))
        .arg(list("label", 'l', "NAME=VALUE", "Set a label"))
        .arg(value("log-driver", None, "DRIVER", "Keep output: `json-file` (default) or `none`"))
        .arg(list("log-opt", None, "NAME=VALUE", "`max-size=SIZE`, `max-file=COUNT`"))
        .arg(rest("IMAGE").hide(true))
}

fn declare_process(command: Command) -> Command {
    command
        .arg(switch("interactive", 'i', "Keep standard input open"))
        .arg(switch("tty", 't', "Give the container a terminal"))
        .arg(value("hostname", 'h', "NAME", "Host name inside"))
        .arg(list("env", 'e', "NAME=VALUE", "Set a variable; a bare NAME takes the caller's value"))
        .arg(list("env-file", None, "FILE", "Read variables from a file"))
        .arg(value("workdir", 'w', "DIR", "Working directory inside"))
        .arg(value("user", 'u', "USER[:GROUP]", "User, by name or number"))
        .arg(value("entrypoint", None, "PROGRAM", "Replace the image's entry point"))
        .arg(value("stop-signal", None, "SIGNAL", "Signal that asks the container to stop"))
        .arg(value("stop-timeout", None, "SECONDS", "Time to stop before it is killed"))
        .arg(switch("privileged", None, "Allow everything that root on the host may do"))
        .arg(list("cap-add", None, "CAPABILITY", "Add a capability, or `ALL`"))
        .arg(list("cap-drop", None, "CAPABILITY", "Drop a capability, or `ALL`"))
        .arg(list("security-opt", None, "OPTION", "`seccomp=FILE|unconfined`, `no-new-privileges`"))
        .arg(value("userns", None, "MODE", "User namespace: `host`, `keep-id`, `private`"))
        .arg(value("pid", None, "MODE", "Process namespace: `private` (default) or `host`"))
        .arg(value("ipc", None, "MODE", "IPC namespace: `private` (default) or `host`"))
        .arg(value("uts", None, "MODE", "Host name namespace: `private` (default) or `host`"))
}

fn declare_files(command: Command) -> Command {
    command
        .arg(list("volume", 'v', "[SOURCE:]DIR[:OPTIONS]", "Mount a directory of the host or a volume"))
        .arg(list("mount", None, "KEYS", "Mount: `type=bind|volume|tmpfs,source=…,target=…[,readonly]`"))
        .arg(list("tmpfs", None, "DIR[:OPTIONS]", "Mount memory"))
        .arg(switch("read-only", None, "Make the root file system read-only"))
}

fn declare_network(command: Command) -> Command {
    command
        .arg(
            list(
                "network",
                None,
                "NETWORK",
                "Join a network: `NAME[:ip=…,alias=…]`; or `none`, `host`, `container:NAME`, `pasta`, `cni:NAME`",
            )
            .alias("net"),
        )
        .arg(
            list("network-alias", None, "NAME", "Another name in the first of its networks").alias("net-alias"),
        )
        .arg(value("ip", None, "ADDRESS", "IPv4 address in the first of its networks"))
        .arg(value("ip6", None, "ADDRESS", "IPv6 address in the first of its networks"))
        .arg(value("mac-address", None, "ADDRESS", "Hardware address in the first of its networks"))
        .arg(list("publish", 'p', "[[IP:]PORT:]PORT[/PROTOCOL]", "Publish a port, or a range, on the host"))
        .arg(switch("publish-all", 'P', "Publish all exposed ports on free ports of the host"))
        .arg(list("expose", None, "PORT[/PROTOCOL]", "Name a port, or a range, that the container serves"))
        .arg(list("dns", None, "ADDRESS", "Ask this name server"))
        .arg(list("dns-search", None, "DOMAIN", "Look for names in this domain; `.` for none"))
        .arg(list("dns-option", None, "OPTION", "Option of resolv.conf, as `ndots:2`").alias("dns-opt"))
        .arg(list("add-host", None, "NAME:ADDRESS", "Line in /etc/hosts; `host-gateway` is the host"))
}

fn declare_limits(command: Command) -> Command {
    command
        .arg(value("memory", 'm', "SIZE", "Limit memory, as `256m`"))
        .arg(value("memory-swap", None, "SIZE", "Limit memory and swap together; -1 is unlimited swap"))
        .arg(value("cpus", None, "NUMBER", "Limit processors, as `1.5`"))
        .arg(value("cpuset-cpus", None, "LIST", "Processors to run on, as `0-2,5`"))
        .arg(value("pids-limit", None, "COUNT", "Limit processes; -1 is unlimited"))
        .arg(list("ulimit", None, "NAME=SOFT[:HARD]", "Set a resource limit"))
        .arg(value("shm-size", None, "SIZE", "Size of /dev/shm"))
}

/// What `given` asks for.
///
/// # Errors
/// When a value cannot be taken, or a file that an option names cannot be read.
pub(crate) fn read(given: &ArgMatches) -> Result<Asked, Failure> {
    let mut words = given.texts("IMAGE").map(str::to_owned);
    let mut config = ContainerConfig {
        image: words.next().unwrap_or_default(),
        command: words.collect(),
        isolation: given.text("isolation").map(namespaces::isolation).transpose()?.unwrap_or_default(),
        name: given.text("name").map(str::to_owned),
        hostname: given.text("hostname").filter(|name| !name.is_empty()).map(str::to_owned),
        entrypoint: given
            .text("entrypoint")
            .map(|program| if program.is_empty() { Vec::new() } else { vec![program.to_owned()] }),
        env: read_environment(given)?,
        workdir: given.text("workdir").filter(|dir| !dir.is_empty()).map(str::to_owned),
        user: given.text("user").filter(|user| !user.is_empty()).map(str::to_owned),
        tty: given.on("tty"),
        open_stdin: given.on("interactive"),
        auto_remove: given.on("rm"),
        labels: labels::labels(given.texts("label"))?,
        stop_signal: given
            .text("stop-signal")
            .map(|text| namespaces::signal_number("--stop-signal", text))
            .transpose()?,
        stop_timeout: given.text("stop-timeout").map(|text| seconds("--stop-timeout", text)).transpose()?,
        mounts: read_mounts(given)?,
        read_only: given.on("read-only"),
        ports: all(given, "publish", ports::publish)?,
        publish_all: given.on("publish-all"),
        expose: all(given, "expose", ports::expose)?,
        dns: all(given, "dns", |text| hosts::servers("--dns", text))?,
        dns_search: given
            .texts("dns-search")
            .map(|text| hosts::word("--dns-search", text))
            .collect::<Result<_, _>>()?,
        dns_options: given
            .texts("dns-option")
            .map(|text| hosts::word("--dns-option", text))
            .collect::<Result<_, _>>()?,
        extra_hosts: all(given, "add-host", hosts::extra)?,
        resources: read_resources(given)?,
        ulimits: given.texts("ulimit").map(limits::ulimit).collect::<Result<_, _>>()?,
        security: read_security(given)?,
        pid: namespace(given, "pid", "--pid")?,
        ipc: namespace(given, "ipc", "--ipc")?,
        uts: namespace(given, "uts", "--uts")?,
        userns: given.text("userns").map(namespaces::user_namespace).transpose()?.unwrap_or_default(),
        shm_size: given.text("shm-size").map(|text| bytes::size("--shm-size", text)).transpose()?,
        log: logging::log(given.text("log-driver"), given.texts("log-opt"))?,
        platform: given
            .text("platform")
            .map(|text| namespaces::platform(text).map(|platform| platform.to_string()))
            .transpose()?,
        pull: given.text("pull").map(namespaces::pull).transpose()?.unwrap_or_default(),
        ..ContainerConfig::default()
    };
    let first = endpoints::First {
        ip: given.text("ip"),
        ip6: given.text("ip6"),
        mac: given.text("mac-address"),
        aliases: given.texts("network-alias").collect(),
    };
    endpoints::apply(given.texts("network"), &first, &mut config)?;
    check(&config)?;
    Ok(Asked {
        config,
        cidfile: given.text("cidfile").filter(|path| !path.is_empty()).map(str::to_owned),
        quiet: given.on("quiet"),
    })
}

/// What all values of an option stand for together.
fn all<T>(
    given: &ArgMatches,
    name: &str,
    read: impl Fn(&str) -> Result<Vec<T>, FlagError>,
) -> Result<Vec<T>, FlagError> {
    let lists = given.texts(name).map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(lists.into_iter().flatten().collect())
}

/// Whole seconds; negative is for ever.
pub(crate) fn seconds(option: &'static str, text: &str) -> Result<i64, Failure> {
    text.parse::<i64>()
        .map_err(|_| Failure::usage(format!("option `{option}`: `{text}` is not a number of seconds")))
}

fn namespace(
    given: &ArgMatches,
    name: &str,
    option: &'static str,
) -> Result<stanza_spec::NamespaceMode, Failure> {
    let mode = given.text(name).map(|text| namespaces::namespace(option, text)).transpose()?;
    Ok(mode.unwrap_or_default())
}

/// Files first, so that `--env` wins over them.
pub(super) fn read_environment(given: &ArgMatches) -> Result<Vec<String>, Failure> {
    let caller = |name: &str| std::env::var(name).ok();
    let mut variables = Vec::new();
    for path in given.texts("env-file") {
        let content = std::fs::read(path)
            .map_err(|error| Failure::io(&format!("option `--env-file`: cannot read `{path}`"), &error))?;
        variables.extend(environment::file(path, &content, &caller)?);
    }
    for text in given.texts("env") {
        variables.push(environment::variable("--env", text, &caller)?);
    }
    Ok(variables)
}

fn read_mounts(given: &ArgMatches) -> Result<Vec<MountRequest>, Failure> {
    let mut list = Vec::new();
    for text in given.texts("volume") {
        list.push(mounts::volume(text)?);
    }
    for text in given.texts("mount") {
        list.push(mounts::mount(text)?);
    }
    for text in given.texts("tmpfs") {
        list.push(mounts::tmpfs(text)?);
    }
    mounts::check_unique(&list)?;
    Ok(list)
}

fn read_resources(given: &ArgMatches) -> Result<Resources, Failure> {
    let cpus =
        |text| parse_nano_cpus(text).map_err(|error| Failure::usage(format!("option `--cpus`: {error}")));
    Ok(Resources {
        // 0 is no limit in Docker.
        memory: given
            .text("memory")
            .map(|text| bytes::size("--memory", text))
            .transpose()?
            .filter(|bytes| *bytes != 0),
        memory_swap: given.text("memory-swap").map(bytes::swap).transpose()?.filter(|bytes| *bytes != 0),
        nano_cpus: given.text("cpus").filter(|text| *text != "0").map(cpus).transpose()?,
        cpuset_cpus: given
            .text("cpuset-cpus")
            .filter(|text| !text.is_empty())
            .map(limits::cpuset)
            .transpose()?,
        pids: given.text("pids-limit").map(limits::pids).transpose()?,
    })
}

fn read_security(given: &ArgMatches) -> Result<Security, Failure> {
    let mut options = security::SecurityOptions::default();
    for text in given.texts("security-opt") {
        security::security(text, &mut options, &|path| std::fs::read_to_string(path))?;
    }
    let capabilities = |name: &str, option: &'static str| {
        given.texts(name).map(|text| security::capability(option, text)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Security {
        cap_add: capabilities("cap-add", "--cap-add")?,
        cap_drop: capabilities("cap-drop", "--cap-drop")?,
        privileged: given.on("privileged"),
        no_new_privileges: options.no_new_privileges,
        apparmor: options.apparmor,
        seccomp: options.seccomp,
    })
}

/// What no single option can see.
fn check(config: &ContainerConfig) -> Result<(), Failure> {
    if let (Some(swap), None) = (config.resources.memory_swap, config.resources.memory)
        && swap > 0
    {
        return Err(Failure::usage("option `--memory-swap` needs `--memory`"));
    }
    if let (Some(swap), Some(memory)) = (config.resources.memory_swap, config.resources.memory)
        && swap > 0
        && u64::try_from(swap).is_ok_and(|swap| swap < memory)
    {
        return Err(Failure::usage("option `--memory-swap` is below `--memory`")
            .with_hint("it is memory and swap together"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use stanza_spec::{MountKind, NetworkMode, Protocol, SeccompChoice};

    use super::*;
    use crate::arguments::{Parsed, command, parse};

    fn asked(arguments: &[&str]) -> Result<Asked, Failure> {
        let command = declare(command("run", "stanza run [OPTIONS] IMAGE", "x", "y"));
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        match parse(command, &arguments)? {
            Parsed::Matches(matches) => read(&matches),
            Parsed::Help(text) => panic!("{text}"),
        }
    }

    #[test]
    fn words_become_one_configuration() {
        let asked = asked(&[
            "-it",
            "--rm",
            "--name",
            "web",
            "-h",
            "box",
            "-e",
            "A=1",
            "-w",
            "/w",
            "-u",
            "1:2",
            "--entrypoint",
            "",
            "-v",
            "/a:/b:ro",
            "--tmpfs",
            "/t",
            "--read-only",
            "--network",
            "none",
            "-p",
            "8080:80/udp",
            "-m",
            "64m",
            "--memory-swap",
            "-1",
            "--cpus",
            "1.5",
            "--cpuset-cpus",
            "0",
            "--pids-limit",
            "0",
            "--ulimit",
            "nofile=10",
            "--cap-add",
            "net_admin",
            "--cap-drop",
            "all",
            "--security-opt",
            "seccomp=unconfined",
            "--privileged",
            "--shm-size",
            "1m",
            "--label",
            "x=y",
            "--stop-signal",
            "INT",
            "--stop-timeout",
            "-1",
            "--log-opt",
            "max-file=2",
            "--platform",
            "arm64",
            "--cidfile",
            "c",
            "busybox",
            "echo",
            "-n",
            "hi",
        ])
        .unwrap();
        let config = &asked.config;
        assert_eq!((config.image.as_str(), config.command.join(" ")), ("busybox", "echo -n hi".to_owned()));
        assert!(config.tty && config.open_stdin && config.auto_remove && config.read_only);
        assert_eq!(config.hostname.as_deref(), Some("box"));
        assert_eq!(config.entrypoint, Some(Vec::new()));
        assert_eq!(config.env, ["A=1"]);
        assert_eq!(config.mounts.len(), 2);
        assert!(matches!(&config.mounts[0].kind, MountKind::Bind { source, .. } if source == "/a"));
        assert_eq!(config.network, Some(NetworkMode::None));
        assert_eq!((config.ports[0].host_port, config.ports[0].protocol), (Some(8080), Protocol::Udp));
        let resources = &config.resources;
        assert_eq!((resources.memory, resources.memory_swap), (Some(64 << 20), Some(-1)));
        assert_eq!((resources.nano_cpus, resources.pids), (Some(1_500_000_000), Some(-1)));
        assert_eq!(config.security.cap_add, ["CAP_NET_ADMIN"]);
        assert_eq!(config.security.seccomp, SeccompChoice::Unconfined);
        assert_eq!((config.stop_signal, config.stop_timeout), (Some(2), Some(-1)));
        assert_eq!(config.platform.as_deref(), Some("linux/arm64"));
        assert_eq!(asked.cidfile.as_deref(), Some("c"));
    }

    #[test]
    fn nothing_given_is_all_default() {
        let config = asked(&["host"]).unwrap().config;
        assert_eq!(config, ContainerConfig { image: "host".to_owned(), ..ContainerConfig::default() });
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        for (arguments, message) in [
            (&["--cpus", "x", "i"][..], "option `--cpus`: `x` is not a number of CPUs"),
            (&["--env-file", "/nonexistent/x", "i"], "option `--env-file`: cannot read `/nonexistent/x`: "),
            (&["--memory-swap", "1g", "i"], "option `--memory-swap` needs `--memory`"),
            (&["--memory-swap", "1m", "-m", "2m", "i"], "option `--memory-swap` is below `--memory`"),
            (
                &["-v", "/a:/x", "--tmpfs", "/x", "i"],
                "option `--volume`: `/x` is the destination of two mounts",
            ),
            (&["--stop-timeout", "x", "i"], "option `--stop-timeout`: `x` is not a number of seconds"),
            (&["--restart", "always", "i"], "option `--restart` is not built yet"),
        ] {
            let error = asked(arguments).unwrap_err().to_string();
            assert!(error.starts_with(message), "{arguments:?}: {error}");
        }
    }
}
