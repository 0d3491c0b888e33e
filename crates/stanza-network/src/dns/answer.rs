//! Answers about the containers of a container's networks.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::wire::Question;
use super::{ResolverNetwork, wire};
use crate::names::{NamesError, NamesReader, is_name};

/// How long an answer may be kept, in seconds: changes are seen within a second.
const LIFETIME: u32 = 1;
/// What is said to be taken by UDP; nothing larger comes through loopback either.
const PAYLOAD: u16 = 65_000;
/// What is known of a name; empty when it has nothing of the type asked for.
type Found = Option<Vec<RData>>;

/// A network whose names are told.
#[derive(Debug)]
pub(super) struct Neighbours {
    /// The network's own name.
    network: String,
    names: NamesReader,
}

impl Neighbours {
    pub(super) fn of(network: &ResolverNetwork) -> Neighbours {
        Neighbours {
            network: network.name.clone(),
            names: NamesReader::new(network.directory.clone(), network.living.clone()),
        }
    }
}

/// The answer to a question about a container, of at most `limit` bytes; `None` when it is about none.
pub(super) fn answer(
    bytes: &[u8],
    question: &Question,
    networks: &mut [Neighbours],
    limit: usize,
) -> Option<Vec<u8>> {
    if !matches!(question.query.query_class(), DNSClass::IN | DNSClass::ANY) {
        return None;
    }
    match find(question, networks) {
        Ok(Some(found)) => Some(write(bytes, question, found, limit)),
        Ok(None) => None,
        // Nobody else may answer for the container's neighbours.
        Err(_) => Some(wire::failure(bytes, question.end, ResponseCode::ServFail)),
    }
}

fn find(question: &Question, networks: &mut [Neighbours]) -> Result<Found, NamesError> {
    let name = question.query.name();
    let kind = question.query.query_type();
    if let Some(address) = address_of(name) {
        return find_name(address, networks, kind);
    }
    let Some(text) = text_of(name) else { return Ok(None) };
    Ok(find_addresses(&text, networks)?.map(|addresses| records(&addresses, kind)))
}

/// The name as text, when it is one that a container may have.
fn text_of(name: &Name) -> Option<String> {
    let labels: Option<Vec<&str>> = name.iter().map(|label| str::from_utf8(label).ok()).collect();
    // Names are compared in lower case.
    labels.map(|labels| labels.join(".").to_ascii_lowercase()).filter(|text| is_name(text))
}

/// The address that a name of `in-addr.arpa` or `ip6.arpa` stands for.
fn address_of(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

/// The first network that knows the name counts, as with Docker; then `NAME.NETWORK` in that network alone.
fn find_addresses(text: &str, networks: &mut [Neighbours]) -> Result<Option<Vec<IpAddr>>, NamesError> {
    for network in &mut *networks {
        if let Some(found) = network.names.lookup(text)? {
            return Ok(Some(found));
        }
    }
    for network in networks {
        let Some(rest) = text.strip_suffix(&network.network.to_ascii_lowercase()) else { continue };
        if let Some(name) = rest.strip_suffix('.')
            && let Some(found) = network.names.lookup(name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn find_name(address: IpAddr, networks: &mut [Neighbours], kind: RecordType) -> Result<Found, NamesError> {
    for network in networks {
        let Some(name) = network.names.reverse(address)? else { continue };
        let wanted = matches!(kind, RecordType::PTR | RecordType::ANY);
        return Ok(Some(wanted.then(|| pointer(&name, &network.network)).flatten().into_iter().collect()));
    }
    Ok(None)
}

/// `NAME.NETWORK.`, as Docker has it, or `NAME.` in a network whose own name is none.
fn pointer(name: &str, network: &str) -> Option<RData> {
    let whole = format!("{name}.{network}");
    let text = if is_name(&whole) { &whole } else { name };
    let mut name = Name::from_labels(text.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(RData::PTR(PTR(name)))
}

fn records(addresses: &[IpAddr], kind: RecordType) -> Vec<RData> {
    let wants = |wanted| kind == wanted || kind == RecordType::ANY;
    addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) => wants(RecordType::A).then_some(RData::A(A(*address))),
            IpAddr::V6(address) => wants(RecordType::AAAA).then_some(RData::AAAA(AAAA(*address))),
        })
        .collect()
}

/// Writes an answer: all records that fit, and that it was cut when some do not.
fn write(bytes: &[u8], question: &Question, found: Vec<RData>, limit: usize) -> Vec<u8> {
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    let mut message = Message::response(id, OpCode::Query);
    message.metadata.recursion_desired = bytes[2] & 1 != 0;
    message.metadata.recursion_available = true;
    let name = question.query.name().clone();
    message.add_query(question.query.clone());
    // No record is smaller than 16 bytes: of thousands not all are written, only to be cut.
    let most = limit / 16 + 1;
    message.add_answers(
        found.into_iter().take(most).map(|data| Record::from_rdata(name.clone(), LIFETIME, data)),
    );
    if let Some((_, signatures)) = question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD).set_version(0).set_dnssec_ok(signatures);
        message.set_edns(edns);
    }
    loop {
        let Ok(written) = message.to_vec() else {
            return wire::failure(bytes, question.end, ResponseCode::ServFail);
        };
        if written.len() <= limit {
            return written;
        }
        // In proportion, which is a little too many, for the header does not shrink: so again.
        let count = message.answers.len();
        let left = (count * limit / written.len()).min(count.saturating_sub(1));
        if count == 0 {
            return wire::cut(&written, question.end);
        }
        message.answers.truncate(left);
        message.metadata.truncation = true;
    }
}
