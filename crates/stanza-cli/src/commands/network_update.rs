//! `stanza network update`.

use clap::{ArgMatches, Command};
use stanza_engine::NetworkUpdate;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, list, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::flags::{hosts, labels};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["network update"],
    group: Group::Network,
    about: "Change a network's name servers and labels",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "network update",
        "stanza network update [OPTIONS] NETWORK",
        ENTRY.about,
        "Example:\n  stanza network update --dns-add 192.0.2.53 lan",
    )
    .arg(list("dns-add", None, "ADDRESS", "Add a name server"))
    .arg(list("dns-drop", None, "ADDRESS", "Take a name server away"))
    .arg(list("label-add", None, "NAME=VALUE", "Set a label"))
    .arg(list("label-rm", None, "NAME", "Take a label away"))
    .arg(word("NETWORK").hide(true))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let servers = |name: &str, option: &'static str| {
        let lists = given.texts(name).map(|text| hosts::servers(option, text)).collect::<Result<Vec<_>, _>>();
        lists.map(|lists| lists.concat())
    };
    let update = NetworkUpdate {
        dns_add: servers("dns-add", "--dns-add")?,
        dns_drop: servers("dns-drop", "--dns-drop")?,
        labels_add: labels::labels(given.texts("label-add"))?,
        labels_drop: given.texts("label-rm").map(str::to_owned).collect(),
    };
    if update == NetworkUpdate::default() {
        return Err(Failure::usage("`network update` needs something to change")
            .with_hint("`stanza network update --help` lists what it takes"));
    }
    let entry = door.engine()?.update_network(given.text("NETWORK").unwrap_or_default(), &update)?;
    output::line(&entry.network.name).map(|()| 0)
}
