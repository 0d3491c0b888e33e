//! slirp4netns's command line, and its socket for published ports.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use stanza_spec::Protocol;

use super::process::{Process, Ready};
use super::{PATIENCE, UserModeDriver, UserModeError, UserModePlan, prepare};
use crate::{AttachError, PortMap, Subnet};

/// The address inside.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// Stands for leaving `--disable-host-loopback` out.
pub(super) const HOST_LOOPBACK: &str = "+host-loopback";
/// Stands for leaving `--enable-ipv6` out.
pub(super) const NO_IPV6: &str = "-ipv6";
/// Its socket, in the plan's directory, which it is started in: an address of a socket has room for 107 bytes only, less
/// than a path with a container's id may need.
const SOCKET: &str = "slirp4netns.sock";
/// The device inside.
const DEVICE: &str = "tap0";

pub(super) fn start(
    plan: &UserModePlan,
    ports: &[PortMap],
    netns: BorrowedFd<'_>,
) -> Result<Process, UserModeError> {
    let _ = std::fs::remove_file(plan.directory.join(SOCKET));
    // The sandbox needs what not every place allows: a kernel that lets users mount, a resolv.conf in /etc or /run.
    let sandboxed = attempt(plan, &["--enable-sandbox", "--enable-seccomp"], netns);
    let process = match sandboxed {
        Err(UserModeError::Failed { text, .. }) if text.contains("sandbox") || text.contains("seccomp") => {
            attempt(plan, &[], netns)?
        }
        other => other?,
    };
    for port in ports {
        publish(plan, port)?;
    }
    Ok(process)
}

fn attempt(plan: &UserModePlan, walls: &[&str], netns: BorrowedFd<'_>) -> Result<Process, UserModeError> {
    Process::start(plan, netns, |mount_point| {
        (arguments(&plan.options, walls, mount_point), Ready::Descriptor("--ready-fd="))
    })
}

/// All words after the program's name, but for the descriptor that it tells its readiness by.
fn arguments(options: &[String], walls: &[&str], mount_point: &str) -> Vec<String> {
    let has = |word: &str| options.iter().any(|option| option.starts_with(word));
    let mut words = vec!["--configure".to_owned()];
    words.extend(walls.iter().map(|word| (*word).to_owned()));
    if !has(HOST_LOOPBACK) {
        words.push("--disable-host-loopback".to_owned());
    }
    if !has(NO_IPV6) {
        words.push("--enable-ipv6".to_owned());
    }
    if !has("--mtu=") {
        words.push("--mtu=65520".to_owned());
    }
    words.extend(options.iter().filter(|option| option.starts_with("--")).cloned());
    words.push(format!("--api-socket={SOCKET}"));
    words.extend(["--netns-type=path".to_owned(), mount_point.to_owned(), DEVICE.to_owned()]);
    words
}

/// The address that slirp4netns gives inside a subnet: its hundredth.
pub(super) fn address_in(cidr: &str) -> Option<Ipv4Addr> {
    let subnet: Subnet = cidr.parse().ok()?;
    let IpAddr::V4(network) = subnet.network() else { return None };
    let address = Ipv4Addr::from(u32::from(network).checked_add(100)?);
    (subnet.prefix() <= 25).then_some(address)
}

pub(super) fn address(options: &[String]) -> Ipv4Addr {
    let cidr = options.iter().find_map(|option| option.strip_prefix("--cidr="));
    cidr.and_then(address_in).unwrap_or(ADDRESS)
}

fn publish(plan: &UserModePlan, port: &PortMap) -> Result<(), UserModeError> {
    let answer = ask(&plan.directory, &request(port, address(&plan.options)))
        .map_err(prepare(UserModeDriver::Slirp4netns, "publish a port"))?;
    if answer.contains("\"return\"") {
        return Ok(());
    }
    let host = SocketAddr::new(
        port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        port.host_port.unwrap_or(port.container_port),
    );
    // It was free a moment ago, and slirp4netns does not say why.
    let source = io::Error::other(answer.trim().to_owned());
    Err(AttachError::Port { address: host, protocol: port.protocol, source }.into())
}

fn request(port: &PortMap, guest: Ipv4Addr) -> String {
    let protocol = if port.protocol == Protocol::Udp { "udp" } else { "tcp" };
    format!(
        r#"{{"execute": "add_hostfwd", "arguments": {{"proto": "{protocol}", "host_addr": "{}", "host_port": {}, "guest_addr": "{guest}", "guest_port": {}}}}}"#,
        port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        port.host_port.unwrap_or(port.container_port),
        port.container_port,
    )
}

fn ask(directory: &Path, request: &str) -> io::Result<String> {
    let directory = File::open(directory)?;
    let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_keeps_the_hosts_loopback_out_of_reach() {
        let text = arguments(&[], &["--enable-sandbox"], "/n").join(" ");
        assert_eq!(
            text,
            "--configure --enable-sandbox --disable-host-loopback --enable-ipv6 --mtu=65520 --api-socket=slirp4netns.sock \
             --netns-type=path /n tap0"
        );
        let options = ["", HOST_LOOPBACK, NO_IPV6, "--mtu=1500", "--cidr=10.9.0.0/24"].map(str::to_owned);
        let text = arguments(&options, &[], "/n").join(" ");
        assert_eq!(
            text,
            "--configure --mtu=1500 --cidr=10.9.0.0/24 --api-socket=slirp4netns.sock --netns-type=path /n tap0"
        );
        assert_eq!(address(&options), Ipv4Addr::new(10, 9, 0, 100));
    }

    #[test]
    fn a_published_port_is_a_request() {
        let port = PortMap {
            host_ip: Some("127.0.0.1".parse().unwrap()),
            host_range: None,
            host_port: Some(5353),
            container_port: 53,
            protocol: Protocol::Udp,
        };
        assert_eq!(
            request(&port, ADDRESS),
            r#"{"execute": "add_hostfwd", "arguments": {"proto": "udp", "host_addr": "127.0.0.1", "host_port": 5353, "guest_addr": "10.0.2.100", "guest_port": 53}}"#
        );
    }
}
