//! DNS messages as bytes: the question of a query, answers that only say how it went, and whether an answer is one to a
//! query.
//!
//! ```text
//!   0   2       4        6    8    10   12
//!   id  flags   1        n    n    n    name, type, class of the question    records
//! ```
//!
//! The names of a question are read by `hickory-proto`; what is passed on stays the bytes that came.

use hickory_proto::op::{Header, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// The length of the header.
pub(super) const HEADER: usize = 12;
/// What a client takes by UDP that does not say more (RFC 1035, 4.2.1).
const PLAIN: usize = 512;
/// More additional records than any query has.
const MAX_ADDITIONAL: u16 = 8;
/// The bits of the third byte: it is an answer, its operation, it was cut, recursion is wanted.
const ANSWER: u8 = 0x80;
const OPERATION: u8 = 0x78;
const CUT: u8 = 0x02;
const RECURSION_WANTED: u8 = 0x01;
/// A bit of the fourth byte: there is recursion.
const RECURSION: u8 = 0x80;

/// What a query asks.
#[derive(Debug)]
pub(super) struct Question {
    /// Name, type and class.
    pub(super) query: Query,
    /// Where it ends in the message.
    pub(super) end: usize,
    /// What the client takes by UDP, and whether it wants signatures, when it says so (EDNS, RFC 6891).
    pub(super) edns: Option<(u16, bool)>,
}

impl Question {
    /// The largest answer by UDP.
    pub(super) fn limit(&self) -> usize {
        self.edns.map_or(PLAIN, |(payload, _)| usize::from(payload).max(PLAIN))
    }
}

/// Why a query has no question.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is no query at all: nothing is answered.
    Silence,
    /// What is answered.
    Answer(Vec<u8>),
}

/// Reads a query.
pub(super) fn question(bytes: &[u8]) -> Result<Question, Unreadable> {
    let refuse = |code: ResponseCode| Unreadable::Answer(bare(bytes, code));
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else { return Err(Unreadable::Silence) };
    if header.message_type == MessageType::Response {
        return Err(Unreadable::Silence);
    }
    if header.op_code != OpCode::Query {
        return Err(refuse(ResponseCode::NotImp));
    }
    let counts = &header.counts;
    let has_one = counts.queries == 1 && counts.answers == 0 && counts.authorities == 0;
    if !has_one || counts.additionals > MAX_ADDITIONAL {
        return Err(refuse(ResponseCode::FormErr));
    }
    let Ok(query) = Query::read(&mut decoder) else { return Err(refuse(ResponseCode::FormErr)) };
    let end = decoder.index();
    // A compressed name has nothing to lead to; and the bytes are answered as they came.
    if is_compressed(&bytes[HEADER..end]) {
        return Err(refuse(ResponseCode::FormErr));
    }
    let mut edns = None;
    for _ in 0..counts.additionals {
        let Ok(record) = Record::read(&mut decoder) else { return Err(refuse(ResponseCode::FormErr)) };
        if record.record_type() != RecordType::OPT {
            continue;
        }
        let [_, version, flags, _] = record.ttl.to_be_bytes();
        if edns.is_some() {
            return Err(refuse(ResponseCode::FormErr));
        }
        if version > 0 {
            return Err(Unreadable::Answer(bad_version(bytes, end)));
        }
        edns = Some((u16::from(record.dns_class), flags & 0x80 != 0));
    }
    Ok(Question { query, end, edns })
}

/// Whether the labels at the start of a question end in a pointer.
fn is_compressed(question: &[u8]) -> bool {
    let mut at = 0;
    while let Some(length) = question.get(at) {
        match length {
            0 => return false,
            1..64 => at += 1 + usize::from(*length),
            _ => return true,
        }
    }
    true
}

/// The header of an answer to a query, with these counts of questions and additional records.
fn header(query: &[u8], code: u8, questions: u8, additional: u8) -> Vec<u8> {
    let flags = query.get(2).copied().unwrap_or(0) & (OPERATION | RECURSION_WANTED) | ANSWER;
    let [high, low] = [0, 1].map(|at| query.get(at).copied().unwrap_or(0));
    vec![high, low, flags, RECURSION | code & 0x0f, 0, questions, 0, 0, 0, 0, 0, additional]
}

/// An answer that has only a code: the question cannot be read.
fn bare(query: &[u8], code: ResponseCode) -> Vec<u8> {
    header(query, code.low(), 0, 0)
}

/// `BADVERS`, which needs the record that has its upper bits.
fn bad_version(query: &[u8], end: usize) -> Vec<u8> {
    let mut answer = header(query, ResponseCode::BADVERS.low(), 1, 1);
    answer.extend(&query[HEADER..end]);
    answer.extend([0, 0, 41, 0x10, 0, ResponseCode::BADVERS.high(), 0, 0, 0, 0, 0]);
    answer
}

/// An answer with a code and the question, whose end is `end`.
pub(super) fn failure(query: &[u8], end: usize, code: ResponseCode) -> Vec<u8> {
    let mut answer = header(query, code.low(), 1, 0);
    answer.extend(query.get(HEADER..end).unwrap_or_default());
    answer
}

/// What is sent by UDP in the place of an answer that is too large: its header and question, and that it was cut.
pub(super) fn cut(answer: &[u8], end: usize) -> Vec<u8> {
    let mut short = answer.get(..end).unwrap_or_default().to_vec();
    if let Some(counts) = short.get_mut(6..HEADER) {
        counts.fill(0);
        short[2] |= CUT;
    }
    short
}

/// What an answer of a server is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is no answer to that query: somebody lies, or it is late.
    None,
    /// The server cannot tell; another one may.
    Failure,
    /// It is the answer.
    Answer,
}

/// Whether `answer` is one to `query`, whose question ends at `end` and whose id upstream is `id`.
pub(super) fn worth(query: &[u8], end: usize, id: u16, answer: &[u8]) -> Worth {
    let (Some(header), Some(asked)) = (answer.get(..HEADER), query.get(HEADER..end)) else {
        return Worth::None;
    };
    let is_answer = header[2] & ANSWER != 0 && header[2] & OPERATION == query[2] & OPERATION;
    if header[..2] != id.to_be_bytes() || !is_answer {
        return Worth::None;
    }
    // SERVFAIL, NOTIMP, REFUSED: what the C library goes on to the next server for; and FORMERR, of servers that do
    // not know EDNS, is the client's to deal with.
    let failed = matches!(header[3] & 0x0f, 2 | 4 | 5);
    match u16::from_be_bytes([header[4], header[5]]) {
        1 if answer.get(HEADER..end).is_some_and(|answered| is_same_question(asked, answered)) => {
            if failed {
                Worth::Failure
            } else {
                Worth::Answer
            }
        }
        // Some servers do not repeat the question when they refuse.
        0 if failed => Worth::Failure,
        _ => Worth::None,
    }
}

/// Names are the same in any case of their letters; the numbers after them are not letters.
fn is_same_question(one: &[u8], other: &[u8]) -> bool {
    let Some(numbers) = one.len().checked_sub(4) else { return false };
    one.len() == other.len()
        && one[..numbers].eq_ignore_ascii_case(&other[..numbers])
        && one[numbers..] == other[numbers..]
}
