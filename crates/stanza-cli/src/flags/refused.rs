//! Options that Docker's commands have and stanza's have not yet: refused by name, never ignored.
//!
//! They are no arguments of the parser, so they cost nothing to those who do not use them: an option that the parser does
//! not know is looked up here.

/// Of `run` and `create`.
const RUN: &[&str] = &[
    "--annotation",
    "--attach",
    "-a",
    "--blkio-weight",
    "--blkio-weight-device",
    "--cgroup-parent",
    "--cgroupns",
    "--cpu-count",
    "--cpu-percent",
    "--cpu-period",
    "--cpu-quota",
    "--cpu-rt-period",
    "--cpu-rt-runtime",
    "--cpu-shares",
    "-c",
    "--cpuset-mems",
    "--device",
    "--device-cgroup-rule",
    "--device-read-bps",
    "--device-read-iops",
    "--device-write-bps",
    "--device-write-iops",
    "--disable-content-trust",
    "--domainname",
    "--gpus",
    "--group-add",
    "--health-cmd",
    "--health-interval",
    "--health-retries",
    "--health-start-interval",
    "--health-start-period",
    "--health-timeout",
    "--init",
    "--io-maxbandwidth",
    "--io-maxiops",
    "--kernel-memory",
    "--label-file",
    "--link",
    "--link-local-ip",
    "--memory-reservation",
    "--memory-swappiness",
    "--no-healthcheck",
    "--oom-kill-disable",
    "--oom-score-adj",
    "--restart",
    "--runtime",
    "--storage-opt",
    "--sysctl",
    "--use-api-socket",
    "--volume-driver",
    "--volumes-from",
    // Podman's.
    "--pod",
    "--replace",
    "--env-host",
    "--http-proxy",
    "--systemd",
    "--sdnotify",
    "--secret",
    "--tz",
    "--umask",
    "--timeout",
    "--unsetenv",
    "--authfile",
    "--rootfs",
    "--health-on-failure",
    "--hooks-dir",
    "--idmap",
    "--uidmap",
    "--gidmap",
    "--subuidname",
    "--subgidname",
    "--image-volume",
    "--init-path",
    "--no-hosts",
    "--no-hostname",
    "--preserve-fds",
    "--requires",
    "--tls-verify",
    "--arch",
    "--os",
    "--variant",
];

/// The options of one command that are refused.
fn of(command: &str) -> &'static [&'static str] {
    match command {
        "run" | "create" => RUN,
        "start" => &["--checkpoint", "--checkpoint-dir", "--all"],
        "logs" => &["--details"],
        "pull" => &["--all-tags", "-a", "--disable-content-trust"],
        "rm" => &["--link", "-l", "--all", "-a"],
        "rmi" => &["--platform", "--all", "-a"],
        "load" => &["--platform"],
        "images" => &["--tree"],
        "inspect" => &["--latest", "-l"],
        "network create" => &["--config-from", "--config-only", "--ingress", "--route"],
        "network connect" => &["--link", "--link-local-ip"],
        "network reload" | "port" | "stats" => &["--latest", "-l"],
        "wait" => &["--condition", "--interval"],
        "stop" | "kill" => &["--all", "-a"],
        _ => &[],
    }
}

/// Whether `option`, as typed, with its dashes and perhaps a value, is one that `command` refuses by name.
pub(crate) fn name_of(command: &str, option: &str) -> Option<&'static str> {
    let name = option.split('=').next().unwrap_or(option);
    of(command).iter().find(|refused| **refused == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_options_are_found_with_and_without_a_value() {
        assert_eq!(name_of("run", "--health-cmd=true"), Some("--health-cmd"));
        assert_eq!(name_of("create", "-c"), Some("-c"));
        assert_eq!(name_of("run", "--nope"), None);
        assert_eq!(name_of("ps", "--init"), None);
    }

    #[test]
    fn no_option_is_listed_twice() {
        let mut seen = std::collections::BTreeSet::new();
        assert!(RUN.iter().all(|option| seen.insert(option)));
    }
}
