//! `stanza network connect`.

use clap::{ArgMatches, Command};
use stanza_spec::EndpointRequest;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, list, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::flags::endpoints;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network connect"],
    group: Group::Network,
    about: "Join a container, running or not, to one more network",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network connect",
        "stanza network connect [OPTIONS] NETWORK CONTAINER",
        ENTRY.about,
        "Example:\n  stanza network connect --ip 10.7.0.9 --alias db lan web",
    )
    .arg(list("alias", None, "NAME", "Another name that the network's containers find it by"))
    .arg(list("driver-opt", None, "NAME=VALUE", "`com.docker.network.endpoint.ifname=DEVICE`"))
    .arg(value("gw-priority", None, "NUMBER", "The network with the highest one leads out; 0 by default"))
    .arg(value("interface-name", None, "DEVICE", "Name of the device inside"))
    .arg(value("ip", None, "ADDRESS", "IPv4 address"))
    .arg(value("ip6", None, "ADDRESS", "IPv6 address"))
    .arg(value("mac-address", None, "ADDRESS", "Hardware address"))
    .arg(word("NETWORK").hide(true))
    .arg(word("CONTAINER").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let request = read(given)?;
    let mut engine = door.engine()?;
    let container = engine.find(given.text("CONTAINER").unwrap_or_default())?;
    engine.connect_network(given.text("NETWORK").unwrap_or_default(), &container, request)?;
    Ok(0)
}

/// The container's place in the network.
fn read(given: &ArgMatches) -> Result<EndpointRequest, Failure> {
    let mut request = EndpointRequest {
        ipv4: given.text("ip").map(|text| endpoints::ipv4("--ip", text)).transpose()?,
        ipv6: given.text("ip6").map(|text| endpoints::ipv6("--ip6", text)).transpose()?,
        mac: given.text("mac-address").map(|text| endpoints::mac("--mac-address", text)).transpose()?,
        aliases: given.texts("alias").map(str::to_owned).collect(),
        interface: given
            .text("interface-name")
            .map(|text| endpoints::interface("--interface-name", text))
            .transpose()?,
        gateway_priority: given
            .text("gw-priority")
            .map_or(Ok(0), |text| endpoints::priority("--gw-priority", text))?,
        ..EndpointRequest::default()
    };
    for text in given.texts("driver-opt") {
        endpoints::driver_option("--driver-opt", text, &mut request)?;
    }
    Ok(request)
}
