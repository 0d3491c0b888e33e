//! Network devices of the host that a container gets for itself (runtime-spec, "Network Devices").

use std::fs::File;
use std::os::fd::AsFd;

use rustix::process::Pid;
use stanza_spec::oci::runtime::Spec;

use crate::failure::{Doing, Failure};

/// Moves each into the network namespace of `pid`, under the name asked for, with its addresses.
pub(crate) fn move_devices(spec: &Spec, pid: Pid) -> Result<(), Failure> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    let Some(devices) = devices.filter(|devices| !devices.is_empty()) else { return Ok(()) };
    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
    let namespace = File::open(&path).doing("open", &path)?;
    for (name, device) in devices {
        let new = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        stanza_network::move_device(name, namespace.as_fd(), new).map_err(Failure::below)?;
    }
    Ok(())
}
