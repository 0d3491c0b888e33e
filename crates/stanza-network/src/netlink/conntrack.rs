//! Forgetting tracked UDP flows (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Address translation is decided by a flow's first packet and kept as long as packets come. A client that keeps
//! sending from one port, as a resolver does, would go on to reach what was behind the port before: the host
//! itself, or the address of a container that is gone. So the flows to a UDP port are forgotten whenever what is
//! behind it changes.

use super::message::{Batch, DUMP, array, attribute};
use super::{Conversation, NetlinkError};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const FILTER: u16 = 25;
const TUPLE_PROTOCOL: u16 = 2;
const UDP: u8 = 17;
/// `CTA_FILTER_F_CTA_PROTO_NUM | CTA_FILTER_F_CTA_PROTO_DST_PORT`.
const BY_PORT: u32 = 1 << 3 | 1 << 5;
/// `struct nfgenmsg` for IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];

/// Forgets every UDP flow whose first packet went to `port`.
pub(crate) fn forget_udp(conversation: &mut Conversation, port: u16) -> Result<(), NetlinkError> {
    // The filter (Linux 5.8) is only there to be quick: what comes back is looked at again, so that a kernel
    // that does not know the filter gives the same result. Deleting by filter would, on such a kernel, forget
    // every flow of the host.
    let flows = match flows(conversation, port, true) {
        Ok(flows) => flows,
        Err(_) => flows(conversation, port, false)?,
    };
    if flows.is_empty() {
        return Ok(());
    }
    let mut batch = conversation.batch();
    for (tuple, id) in &flows {
        batch.message("forget a UDP flow", DELETE, 0, |m| {
            m.raw(&HEADER).bytes(TUPLE_ORIGINAL | 0x8000, tuple).bytes(ID, id);
        });
    }
    // A flow that went by itself in the meantime is refused, and is what was wanted.
    conversation.commit(batch).map(drop)
}

type Flow = (Vec<u8>, Vec<u8>);

fn flows(conversation: &mut Conversation, port: u16, filter: bool) -> Result<Vec<Flow>, NetlinkError> {
    let batch = dump_request(conversation.batch(), port, filter);
    let mut found = Vec::new();
    conversation.query(&batch, |_, payload| found.extend(flow_to(payload, port)))?;
    Ok(found)
}

fn dump_request(mut batch: Batch, port: u16, filter: bool) -> Batch {
    batch.message("list the UDP flows", GET, DUMP, |m| {
        m.raw(&HEADER);
        if filter {
            m.nested(FILTER, |f| {
                f.native(1, BY_PORT).native(2, 0);
            });
            m.nested(TUPLE_ORIGINAL, |tuple| {
                tuple.nested(TUPLE_PROTOCOL, |protocol| {
                    protocol.bytes(1, &[UDP]).bytes(3, &port.to_be_bytes());
                });
            });
        }
    });
    batch
}

/// The original tuple and the id of a flow, if it is UDP to that port.
fn flow_to(payload: &[u8], port: u16) -> Option<Flow> {
    let attributes = payload.get(HEADER.len()..)?;
    let tuple = attribute(attributes, TUPLE_ORIGINAL)?;
    let protocol = attribute(tuple, TUPLE_PROTOCOL)?;
    let matches = attribute(protocol, 1)?.first() == Some(&UDP)
        && attribute(protocol, 3).and_then(|bytes| array(bytes, 0..2)) == Some(port.to_be_bytes());
    matches.then(|| Some((tuple.to_vec(), attribute(attributes, ID)?.to_vec())))?
}
