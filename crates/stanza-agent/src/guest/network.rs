//! The guest's interfaces, addresses and routes.

use std::fs;
use std::io;

use stanza_spec::ErrorKind;

use super::netlink::{LOOPBACK, Netlink};
use super::{devices, failed};
use crate::wire::{Interface, Refusal};

/// Brings up `lo`, and the interfaces as they are described.
pub(super) fn configure(interfaces: &[Interface]) -> Result<(), Refusal> {
    let netlink = Netlink::open().map_err(failed("cannot open a netlink socket"))?;
    netlink.bring_up(LOOPBACK).map_err(failed("cannot bring up `lo`"))?;
    for interface in interfaces {
        let name = &interface.name;
        let index = find(&interface.mac)?;
        netlink.name(index, name, interface.mtu).map_err(failed(format!(
            "cannot name the interface with the address {} `{name}`",
            interface.mac
        )))?;
        netlink.bring_up(index).map_err(failed(format!("cannot bring up `{name}`")))?;
        for (address, prefix) in &interface.addresses {
            netlink
                .add_address(index, *address, *prefix)
                .map_err(failed(format!("cannot give `{name}` the address {address}/{prefix}")))?;
        }
        for route in &interface.routes {
            netlink.add_route(index, route.to, route.gateway).map_err(failed(format!(
                "cannot add the route to {}/{} through `{name}`",
                route.to.0, route.to.1
            )))?;
        }
    }
    Ok(())
}

/// The index of the interface with that hardware address, which may be about to appear.
fn find(mac: &str) -> Result<u32, Refusal> {
    let look = || -> io::Result<Option<u32>> {
        for entry in fs::read_dir("/sys/class/net")? {
            let directory = entry?.path();
            // One that goes meanwhile is not the one.
            let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
            if read("address").trim_end().eq_ignore_ascii_case(mac) {
                return Ok(read("ifindex").trim_end().parse().ok());
            }
        }
        Ok(None)
    };
    let found = devices::wait_for(|| look().map_err(|error| format!("cannot look for interfaces: {error}")));
    let internal = |message| Refusal::new(ErrorKind::Internal, message);
    found
        .map_err(internal)?
        .ok_or_else(|| internal(format!("the machine has no network interface with the address {mac}")))
}
