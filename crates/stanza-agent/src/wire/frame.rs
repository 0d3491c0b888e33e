//! Frames: how bytes of many streams and messages share one stream of bytes.

use super::ProtocolError;

/// The longest body of a frame with bytes of a stream, and so of a datagram.
pub const MAX_DATA: usize = 64 << 10;
/// The longest message from the host: a plan with a large environment, and files beside it.
pub const MAX_REQUEST: usize = 16 << 20;
/// The longest message from the guest.
pub const MAX_NOTICE: usize = 256 << 10;
/// The longest DNS message.
pub const MAX_DNS: usize = 65_535;

pub(crate) const HEADER: usize = 12;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A message, as JSON; the number is 0.
    Message = b'm',
    /// Bytes of the stream of that number; of a datagram socket, one datagram.
    Data = b'd',
    /// The stream of that number has ended.
    End = b'e',
    /// The sender of the stream of that number may send so many more bytes (u32).
    Credit = b'c',
    /// From the guest: a DNS query; the number is the query's.
    Query = b'q',
    /// From the host: the answer to the query of that number; empty for none.
    Answer = b'a',
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        [Kind::Message, Kind::Data, Kind::End, Kind::Credit, Kind::Query, Kind::Answer]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    /// The lengths that a body of this kind may have, from that side.
    fn lengths(self, from: Side) -> (usize, usize) {
        match (self, from) {
            (Kind::Message, Side::Host) => (2, MAX_REQUEST),
            (Kind::Message, Side::Guest) => (2, MAX_NOTICE),
            (Kind::Data, _) => (1, MAX_DATA),
            (Kind::End, _) => (0, 0),
            (Kind::Credit, _) => (4, 4),
            (Kind::Query, _) => (12, MAX_DNS),
            (Kind::Answer, _) => (0, MAX_DNS),
        }
    }

    fn may_come_from(self, side: Side) -> bool {
        match self {
            Kind::Query => side == Side::Guest,
            Kind::Answer => side == Side::Host,
            _ => true,
        }
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Host,
    Guest,
}

/// One whole frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) number: u32,
    pub(crate) body: &'a [u8],
}

impl Frame<'_> {
    /// The number that a credit gives.
    pub(crate) fn credit(&self) -> u32 {
        self.body.try_into().map_or(0, u32::from_le_bytes)
    }
}

/// Takes whole frames off the bytes that one side sent.
#[derive(Debug)]
pub(crate) struct Decoder {
    from: Side,
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    pub(crate) fn new(from: Side) -> Decoder {
        Decoder { from, buffer: Vec::new(), start: 0 }
    }

    /// Adds received bytes. Never holds more than one frame that is not whole, once [`Decoder::next`] has given all others.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > MAX_DATA * 4 {
            // The room of one large message is given back.
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, ProtocolError> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [kind, a, b, c, n0, n1, n2, n3, l0, l1, l2, l3] = *header;
        let kind = Kind::of(kind)
            .filter(|kind| kind.may_come_from(self.from) && [a, b, c] == [0; 3])
            .ok_or(ProtocolError::Kind(kind))?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (least, most) = kind.lengths(self.from);
        if length < least || length > most {
            return Err(ProtocolError::Length { length, least, most });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let body = self.start + HEADER;
        self.start = body + length;
        let number = u32::from_le_bytes([n0, n1, n2, n3]);
        Ok(Some(Frame { kind, number, body: &self.buffer[body..body + length] }))
    }
}

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Outbox {
    /// Appends a frame. The bodies are within the bounds of their kind: messages are checked where they are made.
    pub(crate) fn push(&mut self, kind: Kind, number: u32, body: &[u8]) {
        self.bytes.extend_from_slice(&[kind as u8, 0, 0, 0]);
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self.bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(body);
    }

    /// What waits to be written.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// The first `count` bytes of that are written.
    pub(crate) fn written(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            // A burst's memory is given back.
            self.bytes.shrink_to(4 * MAX_DATA);
        } else if self.start > 4 * MAX_DATA {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut out = Outbox::default();
        out.push(Kind::Data, 7, b"hello");
        out.push(Kind::Credit, 9, &300u32.to_le_bytes());
        out.push(Kind::End, 7, b"");
        let bytes = out.waiting().to_vec();
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::new(Side::Guest);
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.extend(part);
                while let Some(frame) = decoder.next().unwrap() {
                    seen.push((frame.kind, frame.number, frame.body.to_vec()));
                }
            }
            let credit = 300u32.to_le_bytes().to_vec();
            let all = [(Kind::Data, 7, b"hello".to_vec()), (Kind::Credit, 9, credit), (Kind::End, 7, vec![])];
            assert_eq!(seen, all);
        }
    }

    #[test]
    fn nonsense_is_refused_before_its_body_comes() {
        let header = |kind: u8, padding: u8, length: u32| {
            let mut header = vec![kind, padding, 0, 0, 1, 0, 0, 0];
            header.extend_from_slice(&length.to_le_bytes());
            header
        };
        let too_long = u32::try_from(MAX_DATA).unwrap() + 1;
        for bad in [
            header(b'?', 0, 0),
            header(b'd', 1, 0),
            header(b'd', 0, 0),
            header(b'd', 0, too_long),
            header(b'e', 0, 1),
            header(b'c', 0, 3),
            header(b'a', 0, 0),
            header(b'm', 0, u32::MAX),
        ] {
            let mut decoder = Decoder::new(Side::Guest);
            decoder.extend(&bad);
            assert!(decoder.next().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_gone_and_the_rest_stays_in_order() {
        let mut out = Outbox::default();
        let body = vec![5; MAX_DATA];
        for number in 0..8 {
            out.push(Kind::Data, number, &body);
        }
        let whole = out.waiting().to_vec();
        let mut written = Vec::new();
        while !out.waiting().is_empty() {
            let count = out.waiting().len().min(100_003);
            written.extend_from_slice(&out.waiting()[..count]);
            out.written(count);
        }
        assert_eq!(written, whole);
    }
}
