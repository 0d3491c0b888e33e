//! Forgetting tracked UDP flows (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Address translation is decided by a flow's first packet and kept as long as packets come. A client that keeps
//! sending from one port, as a resolver does, would go on to reach what was behind the port before: the host
//! itself, or the address of a container that is gone. So the flows to a UDP port are forgotten whenever what is
//! behind it changes.

use std::collections::BTreeSet;

use super::message::{Batch, DUMP, array, attribute};
use super::{Conversation, NetlinkError};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const FILTER: u16 = 25;
const TUPLE_PROTOCOL: u16 = 2;
const UDP: u8 = 17;
/// `CTA_FILTER_F_CTA_PROTO_NUM`, `CTA_FILTER_F_CTA_PROTO_DST_PORT`.
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT: u32 = 1 << 5;
/// `struct nfgenmsg` for both families.
const HEADER: [u8; 4] = [0; 4];

/// Forgets every UDP flow, of either family, whose first packet went to one of `ports`.
pub(crate) fn forget_udp(conversation: &mut Conversation, ports: &BTreeSet<u16>) -> Result<(), NetlinkError> {
    if ports.is_empty() {
        return Ok(());
    }
    // The filter (Linux 5.8) is only there to be quick: what comes back is looked at again, so that a kernel
    // that does not know the filter gives the same result. Deleting by filter would, on such a kernel, forget
    // every flow of the host.
    let flows = match flows(conversation, ports, true) {
        Ok(flows) => flows,
        Err(_) => flows(conversation, ports, false)?,
    };
    if flows.is_empty() {
        return Ok(());
    }
    let mut batch = conversation.batch();
    for flow in &flows {
        batch.message("forget a UDP flow", DELETE, 0, |m| {
            m.raw(&[flow.family, 0, 0, 0]).bytes(TUPLE_ORIGINAL | 0x8000, &flow.tuple).bytes(ID, &flow.id);
        });
    }
    // A flow that went by itself in the meantime is refused, and is what was wanted.
    conversation.commit(batch).map(drop)
}

/// A tracked flow: how the kernel finds it.
struct Flow {
    family: u8,
    tuple: Vec<u8>,
    id: Vec<u8>,
}

fn flows(
    conversation: &mut Conversation,
    ports: &BTreeSet<u16>,
    filter: bool,
) -> Result<Vec<Flow>, NetlinkError> {
    let batch = dump_request(conversation.batch(), ports, filter);
    let mut found = Vec::new();
    conversation.query(&batch, |_, payload| found.extend(flow_to(payload, ports)))?;
    Ok(found)
}

fn dump_request(mut batch: Batch, ports: &BTreeSet<u16>, filter: bool) -> Batch {
    // One walk through the kernel's table, whatever the number of ports.
    let only = ports.first().filter(|_| ports.len() == 1);
    batch.message("list the UDP flows", GET, DUMP, |m| {
        m.raw(&HEADER);
        if filter {
            let flags = BY_PROTOCOL | only.map_or(0, |_| BY_PORT);
            m.nested(FILTER, |f| {
                f.native(1, flags).native(2, 0);
            });
            m.nested(TUPLE_ORIGINAL, |tuple| {
                tuple.nested(TUPLE_PROTOCOL, |protocol| {
                    protocol.bytes(1, &[UDP]);
                    if let Some(port) = only {
                        protocol.bytes(3, &port.to_be_bytes());
                    }
                });
            });
        }
    });
    batch
}

/// The flow, if it is UDP to one of the ports.
fn flow_to(payload: &[u8], ports: &BTreeSet<u16>) -> Option<Flow> {
    let family = *payload.first()?;
    let attributes = payload.get(HEADER.len()..)?;
    let tuple = attribute(attributes, TUPLE_ORIGINAL)?;
    let protocol = attribute(tuple, TUPLE_PROTOCOL)?;
    let port = attribute(protocol, 3).and_then(|bytes| array(bytes, 0..2)).map(u16::from_be_bytes)?;
    let matches = attribute(protocol, 1)?.first() == Some(&UDP) && ports.contains(&port);
    matches.then(|| Some(Flow { family, tuple: tuple.to_vec(), id: attribute(attributes, ID)?.to_vec() }))?
}
