//! pasta's command line.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use stanza_spec::Protocol;

use super::process::{Process, Ready};
use super::{UserModeError, UserModePlan, literal};
use crate::PortMap;

/// An address that nobody has (RFC 3927), which pasta leads to the host's first resolver.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Podman's word for leaving `--no-map-gw` out.
const MAP_GATEWAY: &str = "--map-gw";

pub(super) fn start(
    plan: &UserModePlan,
    ports: &[PortMap],
    netns: BorrowedFd<'_>,
) -> Result<Process, UserModeError> {
    Process::start(plan, netns, |mount_point| (arguments(plan, ports, mount_point), Ready::StandardOutput))
}

/// All words after the program's name.
fn arguments(plan: &UserModePlan, ports: &[PortMap], mount_point: &str) -> Vec<String> {
    let mut words: Vec<String> =
        ["--foreground", "--quiet", "--config-net", "--pid", "/proc/self/fd/1"].map(str::to_owned).to_vec();
    let has = |names: &[&str]| {
        plan.options.iter().any(|option| names.contains(&option.split('=').next().unwrap_or(option)))
    };
    if !has(&[MAP_GATEWAY]) {
        words.push("--no-map-gw".to_owned());
    }
    if !has(&["--dns-forward"]) {
        words.extend(["--dns-forward".to_owned(), RESOLVER.to_string()]);
    }
    // As long as pasta has to learn it from what comes out, its first packets go to everybody's address, and no TCP
    // answers there: a server that has sent nothing yet would not be reachable.
    if !has(&["--ns-mac-addr"]) {
        words.extend(["--ns-mac-addr".to_owned(), hardware_address(&plan.directory)]);
    }
    // What is not named would be `auto`: every port that anybody listens on.
    for (protocol, names) in [(Protocol::Tcp, ["-t", "--tcp-ports"]), (Protocol::Udp, ["-u", "--udp-ports"])]
    {
        let specs: Vec<String> =
            ports.iter().filter(|port| port.protocol == protocol).map(specification).collect();
        if specs.is_empty() && !has(&names) {
            words.extend([names[0].to_owned(), "none".to_owned()]);
        }
        specs.into_iter().for_each(|spec| words.extend([names[0].to_owned(), spec]));
    }
    for names in [["-T", "--tcp-ns"], ["-U", "--udp-ns"]] {
        if !has(&names) {
            words.extend([names[0].to_owned(), "none".to_owned()]);
        }
    }
    words.extend(plan.options.iter().filter(|option| *option != MAP_GATEWAY).cloned());
    words.extend(["--netns".to_owned(), mount_point.to_owned()]);
    words
}

/// Locally administered, unicast, and another one for each directory: IPv6 addresses may follow from it.
fn hardware_address(directory: &Path) -> String {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(directory.as_os_str().as_bytes()).into();
    format!("02:55:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A published port in pasta's words, as `192.0.2.1/8080:80`.
fn specification(port: &PortMap) -> String {
    let mut text = literal(port.host_ip).map(|address| format!("{address}/")).unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = write!(text, "{}:{}", port.host_port.unwrap_or(port.container_port), port.container_port);
    text
}

#[cfg(test)]
mod tests {
    use super::super::UserModeDriver;
    use super::*;

    fn plan(options: &[&str]) -> UserModePlan {
        UserModePlan {
            driver: UserModeDriver::Pasta,
            program: "/usr/bin/pasta".into(),
            ports: Vec::new(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            directory: "/run/c".into(),
        }
    }

    fn port(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> PortMap {
        PortMap {
            host_ip: host_ip.map(|address| address.parse().unwrap()),
            host_range: None,
            host_port: Some(host_port),
            container_port: 80,
            protocol,
        }
    }

    #[test]
    fn nothing_is_forwarded_that_was_not_asked_for() {
        assert_eq!(
            arguments(&plan(&[]), &[], "/run/c/netns").join(" "),
            "--foreground --quiet --config-net --pid /proc/self/fd/1 --no-map-gw --dns-forward 169.254.1.1 \
             --ns-mac-addr 02:55:7b:99:c1:d0 -t none -u none -T none -U none --netns /run/c/netns"
        );
        assert_eq!(
            arguments(&plan(&["--map-gw", "-T", "5432", "--tcp-ports=7"]), &[], "/n").join(" "),
            "--foreground --quiet --config-net --pid /proc/self/fd/1 --dns-forward 169.254.1.1 --ns-mac-addr 02:55:7b:99:c1:d0 -u none \
             -U none -T 5432 --tcp-ports=7 --netns /n"
        );
    }

    #[test]
    fn published_ports_have_pastas_form() {
        let ports = [
            port(None, 8080, Protocol::Tcp),
            port(Some("127.0.0.1"), 8081, Protocol::Tcp),
            port(Some("::1"), 53, Protocol::Udp),
        ];
        let text = arguments(&plan(&[]), &ports, "/n").join(" ");
        assert!(text.contains("-t 8080:80 -t 127.0.0.1/8081:80 -u ::1/53:80 -T none"), "{text}");
    }
}
