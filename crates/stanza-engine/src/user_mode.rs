//! The network of a container without root: a helper of the user's, pasta or slirp4netns, leads out of its namespace, or out of
//! the one that has the bridges of all the user's containers.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use stanza_network::{
    SharedPlan, UserModeDriver, UserModeError, UserModePlan, choose_user_mode, parse_options,
    user_mode_resolv_conf,
};
use stanza_spec::NetworkMode;

use crate::create::CreateError;
use crate::database::Record;
use crate::{Engine, networks};

/// The driver that a mode names, with its options.
fn driver_of(mode: &NetworkMode) -> Option<(UserModeDriver, &[String])> {
    match mode {
        NetworkMode::Pasta(options) => Some((UserModeDriver::Pasta, options)),
        NetworkMode::Slirp4netns(options) => Some((UserModeDriver::Slirp4netns, options)),
        _ => None,
    }
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

/// What pasta and slirp4netns put into the container's namespace.
pub(crate) const TUNNELS: &str = "/dev/net/tun";

/// The mode of a container without root that names none: pasta, or slirp4netns where only that is installed; none at all where the
/// user may not open [`TUNNELS`], without which both are of no use.
pub(crate) fn default_mode() -> NetworkMode {
    if rustix::fs::access(TUNNELS, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_err() {
        return NetworkMode::None;
    }
    match choose_user_mode(None, &path()) {
        Ok((UserModeDriver::Slirp4netns, _)) => NetworkMode::Slirp4netns(Vec::new()),
        // Where neither is installed the start says so.
        Ok((UserModeDriver::Pasta, _)) | Err(_) => NetworkMode::Pasta(Vec::new()),
    }
}

/// The text of `resolv.conf` where a helper leads out.
pub(crate) fn resolv_conf(plan: &UserModePlan, host: &str) -> String {
    user_mode_resolv_conf(plan.driver, host)
}

/// The host as it is reached through a helper whose addresses are none of the host's: by the address that its own way out has.
pub(crate) fn host_address() -> Option<IpAddr> {
    // Nothing is sent: the kernel only looks for the way. The address is one for documents (RFC 5737).
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}

impl Engine {
    /// Where the bridges of a user without root are; `None` as root: on the host.
    pub(crate) fn shared_plan(&self) -> Option<SharedPlan> {
        if !self.options.rootless {
            return None;
        }
        // Where no helper is installed a start says so before it comes to this.
        let (driver, program) = choose_user_mode(None, &path())
            .unwrap_or_else(|_| (UserModeDriver::Pasta, PathBuf::from(UserModeDriver::Pasta.name())));
        Some(SharedPlan { directory: self.options.shared_network_dir(), driver, program })
    }

    /// Refuses a container on bridges that nothing leads out of.
    pub(crate) fn check_shared_way_out(&self, record: &Record) -> Result<(), UserModeError> {
        if self.options.rootless && self.network_mode(&record.config) == NetworkMode::Bridge {
            choose_user_mode(None, &path())?;
        }
        Ok(())
    }

    /// Refuses options that a helper does not have, and helpers where they are of no use.
    pub(crate) fn check_user_mode(&self, mode: &NetworkMode) -> Result<(), CreateError> {
        let Some((driver, options)) = driver_of(mode) else { return Ok(()) };
        if !self.options.rootless {
            return Err(CreateError::Unsupported {
                what: format!("`--network {}` as root", driver.name()),
                reason: "use `--network bridge`",
            });
        }
        parse_options(driver, options)?;
        Ok(())
    }

    /// The helper's plan; `None` when the container's network has none.
    pub(crate) fn user_mode_plan(&self, record: &Record) -> Result<Option<UserModePlan>, UserModeError> {
        let mode = self.network_mode(&record.config);
        let Some((driver, options)) = driver_of(&mode) else { return Ok(None) };
        let (driver, program) = match &record.config.network {
            // What was the default at creation may be gone, and the other one there.
            None => choose_user_mode(None, &path())?,
            Some(_) => choose_user_mode(Some(driver), &path())?,
        };
        Ok(Some(UserModePlan {
            driver,
            program,
            ports: networks::ports(record),
            // They were looked at when the container was created.
            options: parse_options(driver, options).unwrap_or_default(),
            directory: self.options.run_dir(record.id.as_str()),
        }))
    }
}
