//! The outside of a network name space by a program without rights: pasta (package `passt`) or slirp4netns.
//!
//! ```text
//!   name space                the helper, a child of the monitor                 host
//!   tap device  ◀── frames ──▶ pasta / slirp4netns: sockets of the user  ◀────▶  the host's network
//!                                └─ listens on published ports ◀──────────────── clients
//! ```
//!
//! Invariants:
//!
//! * The helper dies with the thread that started it (`PR_SET_PDEATHSIG`), so it stays in the foreground; and it is the
//!   owner's child: dropping [`UserMode`] ends it.
//! * It gets the name space as a bind mount in a mount name space of its own: neither a descriptor, which newer versions
//!   of pasta close, nor `/proc/PID/ns/net`, which it may not look at once it has dropped rights (ptrace(2)).
//! * The host's own loopback is out of reach from inside unless the options ask for it.
//! * What it prints goes into a pipe that never blocks it and never grows.
//!
//! It needs `CAP_SYS_ADMIN` over the name space and in the caller's user name space, and `/dev/net/tun`.

mod options;
mod pasta;
mod process;
mod slirp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stanza_spec::{Classify, ErrorKind};

use crate::{AttachError, PortMap, ports};
use process::Process;
use stanza_spec::Protocol;

pub use options::{OptionError, parse_options};

/// How long a helper may take to get ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which program.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UserModeDriver {
    /// pasta: the name space gets copies of the host's addresses, and clients keep theirs.
    Pasta,
    /// slirp4netns: 10.0.2.100, and all clients come from 10.0.2.2.
    Slirp4netns,
}

/// A name space's way to the outside.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct UserModePlan {
    /// Which program.
    pub driver: UserModeDriver,
    /// Its file.
    pub program: PathBuf,
    /// What is reachable from outside.
    pub ports: Vec<PortMap>,
    /// The program's own options, as [`parse_options`] gives them.
    pub options: Vec<String>,
    /// A directory of the owner's that exists: for the mount point, and slirp4netns's socket.
    pub directory: PathBuf,
}

impl UserModePlan {
    /// The address that the name space gets, as far as it is known beforehand.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.driver {
            UserModeDriver::Pasta => None,
            UserModeDriver::Slirp4netns => Some(slirp::address(&self.options).into()),
        }
    }
}

/// Why a name space has no way to the outside. No helper is left behind.
#[derive(Debug, thiserror::Error)]
pub enum UserModeError {
    /// No such program is installed.
    #[error("cannot find {}", .0.map_or("pasta or slirp4netns".to_owned(), |driver| format!("`{}`", driver.name())))]
    NotInstalled(Option<UserModeDriver>),
    /// A port cannot be published.
    #[error(transparent)]
    Port(#[from] AttachError),
    /// The program has no words for it.
    #[error("cannot publish `{what}` through `{program}`")]
    NotPublishable {
        /// The protocol or address.
        what: String,
        /// The program.
        program: &'static str,
    },
    /// A step before it runs.
    #[error("cannot {step} for `{program}`")]
    Prepare {
        /// What was tried.
        step: &'static str,
        /// The program.
        program: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// It gave up.
    #[error("`{program}` failed: {text}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its own words.
        text: String,
    },
    /// It does not get ready.
    #[error("`{program}` is not ready after {} s: {text}", PATIENCE.as_secs())]
    Late {
        /// The program.
        program: &'static str,
        /// Its own words.
        text: String,
    },
}

impl Classify for UserModeError {
    fn kind(&self) -> ErrorKind {
        match self {
            UserModeError::NotInstalled(_) | UserModeError::NotPublishable { .. } => ErrorKind::Unsupported,
            UserModeError::Port(error) => error.kind(),
            UserModeError::Prepare { source, .. } => ErrorKind::of_io(source),
            UserModeError::Failed { .. } | UserModeError::Late { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            UserModeError::NotInstalled(driver) => {
                let package = driver.map_or("passt", UserModeDriver::package);
                Some(format!("install the package `{package}`, or use `--network none`"))
            }
            UserModeError::Port(error) => error.hint(),
            UserModeError::NotPublishable { .. } => {
                Some("publish a port of a bridge: `--network bridge`".to_owned())
            }
            UserModeError::Failed { text, .. } if text.contains("/dev/net/tun") => Some(
                "users need to read and write `/dev/net/tun`: `modprobe tun`, `chmod 666 /dev/net/tun`"
                    .to_owned(),
            ),
            UserModeError::Failed { text, .. } if text.contains("interface not usable") => Some(
                "no route leads out of this machine: `--network slirp4netns` and `--network none` need none"
                    .to_owned(),
            ),
            UserModeError::Failed { .. } | UserModeError::Late { .. } => {
                Some("`--network none` needs no way out, `--network host` has the host's".to_owned())
            }
            UserModeError::Prepare { .. } => None,
        }
    }
}

impl UserModeDriver {
    /// The program's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            UserModeDriver::Pasta => "pasta",
            UserModeDriver::Slirp4netns => "slirp4netns",
        }
    }

    /// Debian's package of it.
    fn package(self) -> &'static str {
        match self {
            UserModeDriver::Pasta => "passt",
            UserModeDriver::Slirp4netns => "slirp4netns",
        }
    }

    /// Where names are resolved when the host's own resolver is on its loopback, which is out of reach.
    ///
    /// pasta leads this address to the host's first resolver, over UDP; slirp4netns has it in its network.
    #[must_use]
    pub fn resolver(self) -> Ipv4Addr {
        match self {
            UserModeDriver::Pasta => pasta::RESOLVER,
            UserModeDriver::Slirp4netns => Ipv4Addr::new(10, 0, 2, 3),
        }
    }

    /// The program's file in `path`, a list as in `PATH`, and in the usual places.
    fn find(self, path: &str) -> Option<PathBuf> {
        let places = path.split(':').chain(["/usr/local/bin", "/usr/bin", "/bin"]);
        let files =
            places.filter(|place| place.starts_with('/')).map(|place| Path::new(place).join(self.name()));
        files
            .into_iter()
            .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
    }
}

/// The driver and its file: the `wanted` one, else pasta when it is installed, else slirp4netns. Without a wish slirp4netns
/// goes first where no route leads out: pasta copies the addresses of that route's device, and does not start without.
///
/// `path` is a list of directories as in `PATH`.
///
/// # Errors
/// When it is not installed.
pub fn choose_user_mode(
    wanted: Option<UserModeDriver>,
    path: &str,
) -> Result<(UserModeDriver, PathBuf), UserModeError> {
    let drivers = match wanted {
        Some(driver) => vec![driver],
        None if has_default_route() => vec![UserModeDriver::Pasta, UserModeDriver::Slirp4netns],
        None => vec![UserModeDriver::Slirp4netns, UserModeDriver::Pasta],
    };
    drivers
        .into_iter()
        .find_map(|driver| Some((driver, driver.find(path)?)))
        .ok_or(UserModeError::NotInstalled(wanted))
}

/// Whether the network that the caller is in leads anywhere; yes where it cannot be told.
fn has_default_route() -> bool {
    let read = std::fs::read_to_string;
    match (read("/proc/net/route"), read("/proc/net/ipv6_route")) {
        (Err(_), Err(_)) => true,
        (v4, v6) => leads_out(&v4.unwrap_or_default(), &v6.unwrap_or_default()),
    }
}

/// The kernel's own tables (`proc_net(5)`): a destination and a mask of zeros, on another device than loopback.
fn leads_out(v4: &str, v6: &str) -> bool {
    let v4 = v4.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")
    });
    let v6 = v6.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let everywhere = fields.first().is_some_and(|network| network.bytes().all(|digit| digit == b'0'));
        everywhere && fields.get(1) == Some(&"00") && fields.last().is_some_and(|device| *device != "lo")
    });
    v4 || v6
}

/// A helper that runs. Dropped, it ends.
#[derive(Debug)]
pub struct UserMode {
    ports: Vec<PortMap>,
    process: Process,
}

impl UserMode {
    /// The published ports with the host ports that were really taken, in the plan's order.
    #[must_use]
    pub fn ports(&self) -> &[PortMap] {
        &self.ports
    }

    /// Readable when the helper has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd()
    }

    /// The helper's process, in this pid name space's numbering.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }
}

/// Starts the helper for the network name space `netns`, and waits until it is usable.
///
/// The caller must be single-threaded, and in the network that the helper is to lead to.
///
/// # Errors
/// No helper is left then.
pub fn start_user_mode(plan: &UserModePlan, netns: BorrowedFd<'_>) -> Result<UserMode, UserModeError> {
    let ports = choose_ports(plan)?;
    let started = match plan.driver {
        UserModeDriver::Pasta => pasta::start(plan, &ports, netns),
        UserModeDriver::Slirp4netns => slirp::start(plan, &ports, netns),
    };
    match started {
        Ok(process) => Ok(UserMode { ports, process }),
        Err(error @ UserModeError::Failed { .. }) => {
            // Between our look at the ports and the helper's bind somebody else may have taken one.
            choose_ports(&UserModePlan { ports, ..plan.clone() })?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Finds free ports where the choice is ours, and says which of the others is taken as root's networks do.
fn choose_ports(plan: &UserModePlan) -> Result<Vec<PortMap>, UserModeError> {
    let mut held = Vec::with_capacity(plan.ports.len());
    let mut chosen = Vec::with_capacity(plan.ports.len());
    for port in &plan.ports {
        let refused = match (port.host_ip, plan.driver) {
            _ if port.protocol == Protocol::Sctp => Some("sctp".to_owned()),
            (Some(IpAddr::V6(address)), UserModeDriver::Slirp4netns) => Some(address.to_string()),
            _ => None,
        };
        if let Some(what) = refused {
            return Err(UserModeError::NotPublishable { what, program: plan.driver.name() });
        }
        let mut port = port.clone();
        if plan.driver == UserModeDriver::Slirp4netns {
            // It listens on IPv4 addresses only.
            port.host_ip = port.host_ip.or(Some(Ipv4Addr::UNSPECIFIED.into()));
        }
        let reserved = ports::reserve(&port)?;
        // Held until all are chosen, lest one is chosen twice.
        held.push(reserved.sockets);
        chosen.push(PortMap { host_port: Some(reserved.number), ..port });
    }
    Ok(chosen)
}

/// The text of a `resolv.conf` for such a name space: the host's, with the driver's own resolver in the place of those on
/// the host's loopback.
#[must_use]
pub fn user_mode_resolv_conf(driver: UserModeDriver, host: &str) -> String {
    let mut text = String::with_capacity(host.len());
    let mut replaced = false;
    for line in host.lines() {
        let mut words = line.split_whitespace();
        let server = (words.next() == Some("nameserver")).then(|| words.next()).flatten();
        let address = server.and_then(|server| server.parse::<IpAddr>().ok());
        let line = match address {
            Some(address) if address.is_loopback() || address.is_unspecified() => {
                if std::mem::replace(&mut replaced, true) {
                    continue;
                }
                format!("nameserver {}", driver.resolver())
            }
            // A scope names a device of the host.
            None if server.is_some_and(|server| server.contains('%')) => continue,
            _ => line.to_owned(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    if !text.lines().any(|line| line.starts_with("nameserver")) {
        text.push_str(&format!("nameserver {}\n", driver.resolver()));
    }
    text
}

/// Text of an address as these programs write it.
fn literal(address: Option<IpAddr>) -> Option<String> {
    match address {
        None => None,
        Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Some("::".to_owned()),
        Some(address) => Some(address.to_string()),
    }
}

fn prepare(driver: UserModeDriver, step: &'static str) -> impl FnOnce(io::Error) -> UserModeError {
    move |source| UserModeError::Prepare { step, program: driver.name(), source }
}

fn prepare_errno(driver: UserModeDriver, step: &'static str) -> impl FnOnce(Errno) -> UserModeError {
    move |source| UserModeError::Prepare { step, program: driver.name(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_on_the_hosts_loopback_are_replaced_once_and_others_stay() {
        let host = "search lan\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::53\noptions edns0\n";
        assert_eq!(
            user_mode_resolv_conf(UserModeDriver::Slirp4netns, host),
            "search lan\nnameserver 10.0.2.3\nnameserver 192.0.2.53\nnameserver 2001:db8::53\noptions edns0\n"
        );
        assert_eq!(user_mode_resolv_conf(UserModeDriver::Pasta, ""), "nameserver 169.254.1.1\n");
    }

    #[test]
    fn a_default_route_of_either_family_leads_out_but_not_by_loopback() {
        let head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let v4 = |line: &str| format!("{head}{line}\n");
        let zeros = "0".repeat(32);
        let v6 = |device: &str| {
            format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200     {device}\n")
        };
        assert!(leads_out(&v4("eth0 00000000 0202020A 0003 0 0 0 00000000 0 0 0"), ""));
        assert!(!leads_out(&v4("eth0 0002000A 00000000 0001 0 0 0 00FFFFFF 0 0 0"), &v6("lo")));
        assert!(leads_out(head, &v6("eth0")));
    }

    #[test]
    fn a_program_that_is_not_installed_is_named_with_its_package() {
        let wanted = Some(UserModeDriver::Pasta);
        let error = UserModeError::NotInstalled(wanted);
        assert_eq!(error.to_string(), "cannot find `pasta`");
        assert_eq!(error.hint().unwrap(), "install the package `passt`, or use `--network none`");
        assert_eq!(UserModeError::NotInstalled(None).to_string(), "cannot find pasta or slirp4netns");
    }
}
