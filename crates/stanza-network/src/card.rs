//! A container's device on a network card of the host: macvlan and ipvlan.
//!
//! The card is a device of the host. `CARD.VLAN` is made when it is missing; a network without a card gets a dummy one,
//! named after the network, so that its containers reach each other and nothing else. Both stay.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::attach::AttachError;
use crate::bridge::tolerate;
use crate::netlink::Conversation;
use crate::netlink::route::{self, CardDevice};
use crate::{Driver, Endpoint, IpvlanMode, MacvlanMode, Network};

/// What the name of a card that leads nowhere begins with; twelve digits of the network's id follow.
const DUMMY_PREFIX: &str = "sdm";

/// Makes the device of an endpoint in `netns`, down.
pub(crate) fn create(
    route: &mut Conversation,
    endpoint: &Endpoint,
    netns: BorrowedFd<'_>,
) -> Result<(), AttachError> {
    let Some((parent, kind, mode)) = kind_of(&endpoint.network.driver) else { return Ok(()) };
    let card = ensure_card(route, &endpoint.network, parent)?;
    let mut batch = route.batch();
    route::create_card_device(
        &mut batch,
        &CardDevice {
            name: &endpoint.interface,
            netns,
            card,
            kind,
            mode,
            mac: (kind == "macvlan").then_some(endpoint.mac),
            mtu: endpoint.network.mtu,
        },
    );
    route.commit_all(batch).map_err(|source| AttachError::Card {
        card: card_name(&endpoint.network, parent),
        kind,
        source,
    })
}

/// The card, the kind of device and the number of its mode (`linux/if_link.h`).
fn kind_of(driver: &Driver) -> Option<(&str, &'static str, u16)> {
    match driver {
        Driver::Bridge(_) => None,
        Driver::Macvlan { parent, mode } => {
            let number = match mode {
                MacvlanMode::Private => 1,
                MacvlanMode::Vepa => 2,
                MacvlanMode::Bridge => 4,
                MacvlanMode::Passthru => 8,
            };
            Some((parent, "macvlan", number))
        }
        Driver::Ipvlan { parent, mode } => {
            let number = match mode {
                IpvlanMode::L2 => 0,
                IpvlanMode::L3 => 1,
                IpvlanMode::L3s => 2,
            };
            Some((parent, "ipvlan", number))
        }
    }
}

/// The name of the network's card on the host.
fn card_name(network: &Network, parent: &str) -> String {
    if parent.is_empty() {
        return format!("{DUMMY_PREFIX}{}", network.id.get(..12).unwrap_or(&network.id));
    }
    parent.to_owned()
}

/// The card's index.
fn ensure_card(route: &mut Conversation, network: &Network, parent: &str) -> Result<u32, AttachError> {
    let name = card_name(network, parent);
    let failed = |source| AttachError::Card { card: name.clone(), kind: "card", source };
    if let Some(link) = route::link(route, &name).map_err(failed)? {
        return Ok(link.index);
    }
    let missing = || AttachError::NoCard { card: name.clone() };
    let mut batch = route.batch();
    if parent.is_empty() {
        route::create_dummy(&mut batch, &name);
    } else {
        let (card, vlan) = name.rsplit_once('.').ok_or_else(missing)?;
        let vlan = vlan.parse::<u16>().ok().filter(|vlan| (1..=4094).contains(vlan)).ok_or_else(missing)?;
        let card = route::link(route, card).map_err(failed)?.ok_or_else(missing)?;
        route::create_vlan(&mut batch, &name, card.index, vlan);
    }
    // Somebody else may have made it since.
    tolerate(route.commit_all(batch), Errno::EXIST).map_err(failed)?;
    route::link(route, &name).map_err(failed)?.map(|link| link.index).ok_or_else(missing)
}
