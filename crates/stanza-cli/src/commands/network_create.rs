//! `stanza network create`.

use clap::{ArgMatches, Command};
use stanza_engine::NetworkRequest;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, list, switch, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::flags::networks::Described;
use crate::flags::{endpoints, hosts, labels, networks};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network create"],
    group: Group::Network,
    about: "Create a network",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network create",
        "stanza network create [OPTIONS] NETWORK",
        ENTRY.about,
        "Example:\n  stanza network create --subnet 10.7.0.0/24 --gateway 10.7.0.1 lan",
    )
    .arg(value("driver", 'd', "DRIVER", "`bridge` (default), `macvlan` or `ipvlan`"))
    .arg(list("subnet", None, "SUBNET", "Addresses, as `10.7.0.0/24`; without it a free one is chosen"))
    .arg(list("gateway", None, "ADDRESS", "Way out of the subnet; by default its first address"))
    .arg(list("ip-range", None, "SUBNET", "Part of the subnet that addresses are chosen from"))
    .arg(list("aux-address", None, "NAME=ADDRESS", "Address that no container gets"))
    .arg(switch("ipv4", None, "Give IPv4 addresses (default)"))
    .arg(switch("ipv6", None, "Give IPv6 addresses"))
    .arg(switch("internal", None, "Let nothing in or out"))
    .arg(list("label", None, "NAME=VALUE", "Set a label"))
    .arg(list("opt", 'o', "NAME=VALUE", "`mtu`, `vlan`, `parent`, `mode`, `isolate`, `com.docker.network.…`"))
    .arg(list("dns", None, "ADDRESS", "Name server for what is not the name of a container"))
    .arg(switch("disable-dns", None, "Containers do not find each other by name"))
    .arg(value(
        "interface-name",
        None,
        "DEVICE",
        "Name of the bridge, or the card of a macvlan or ipvlan network",
    ))
    .arg(switch("ignore", None, "A network of that name is as good"))
    .arg(value(
        "ipam-driver",
        None,
        "DRIVER",
        "Who gives addresses: `default`, `host-local`, or `none` for nobody",
    ))
    .arg(list("ipam-opt", None, "NAME=VALUE", "Option of that driver; those that are built in have none"))
    .arg(switch("attachable", None, "Accepted: every container may join every network"))
    .arg(value("scope", None, "SCOPE", "`local`"))
    .arg(word("NETWORK").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let request = read(given)?;
    let entry = door.engine()?.create_network(&request)?;
    output::line(&entry.network.id).map(|()| 0)
}

/// What is asked for.
fn read(given: &ArgMatches) -> Result<NetworkRequest, Failure> {
    let ipam_driver = given.text("ipam-driver").map(str::to_owned);
    if let Some(option) = given.texts("ipam-opt").next() {
        let driver = ipam_driver.as_deref().unwrap_or("default");
        return Err(Failure::usage(format!(
            "option `--ipam-opt`: the address driver `{driver}` has no option `{option}`"
        )));
    }
    if let Some(scope) = given.text("scope").filter(|scope| !matches!(*scope, "" | "local")) {
        return Err(Failure::not_built(&format!("option `--scope`: `{scope}`")));
    }
    let described = Described {
        subnets: given.texts("subnet").collect(),
        gateways: given.texts("gateway").collect(),
        ranges: given.texts("ip-range").collect(),
        aux: given.texts("aux-address").collect(),
    };
    let mut dns = Vec::new();
    for text in given.texts("dns") {
        dns.extend(hosts::servers("--dns", text)?);
    }
    Ok(NetworkRequest {
        name: given.text("NETWORK").unwrap_or_default().to_owned(),
        driver: given.text("driver").unwrap_or_default().to_owned(),
        subnets: networks::subnets(&described)?,
        ipv4: given.choice("ipv4"),
        ipv6: given.choice("ipv6"),
        internal: given.on("internal"),
        labels: labels::labels(given.texts("label"))?,
        options: networks::options("--opt", given.texts("opt"))?,
        ipam_driver,
        dns,
        disable_dns: given.on("disable-dns"),
        interface_name: given
            .text("interface-name")
            .map(|name| endpoints::interface("--interface-name", name))
            .transpose()?,
        ignore_existing: given.on("ignore"),
    })
}
