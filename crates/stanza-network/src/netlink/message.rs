//! Netlink messages, written into one byte vector.
//!
//! ```text
//! message    u32 length | u16 type | u16 flags | u32 sequence | u32 port | family header | attribute*
//! attribute  u16 length | u16 type | payload, padded to 4 bytes
//! ```
//!
//! Headers are in the machine's byte order. rtnetlink's attributes are too, nfnetlink's are big-endian
//! (`man 7 netlink`, `man 7 rtnetlink`). Nothing here talks to the kernel, so every message can be tested as bytes.

use std::ops::Range;

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: answer even when all went well.
pub(crate) const ACK: u16 = 0x4;
/// `NLM_F_ROOT | NLM_F_MATCH`: every object, not one.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`: refuse when the object exists.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0x800;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// Messages that are sent with one system call, each with its own sequence number.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    first: u32,
    /// What each message asks for, for error texts; its index is the sequence number less `first`.
    requests: Vec<&'static str>,
    last_start: usize,
    acknowledged: Option<usize>,
}

impl Batch {
    /// An empty batch whose first message has the sequence number `first`.
    pub(crate) fn new(first: u32) -> Batch {
        Batch {
            bytes: Vec::with_capacity(1024),
            first,
            requests: Vec::with_capacity(16),
            last_start: 0,
            acknowledged: None,
        }
    }

    /// Appends a message; `request` completes the sentence "cannot …". Returns its index in the batch.
    pub(crate) fn message(
        &mut self,
        request: &'static str,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Body<'_>),
    ) -> usize {
        let start = self.bytes.len();
        let index = self.requests.len();
        if flags & ACK != 0 {
            self.acknowledged = Some(index);
        }
        let sequence = self.first.wrapping_add(u32::try_from(index).expect("a batch has few messages"));
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        body(&mut Body { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).expect("a message is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.requests.push(request);
        self.last_start = start;
        index
    }

    /// Asks for an answer to the last message, so that the end of the conversation can be seen.
    pub(crate) fn acknowledge_last(&mut self) {
        self.acknowledged = self.requests.len().checked_sub(1);
        if let Some(flags) = self.bytes.get_mut(self.last_start + 6..self.last_start + 8) {
            let value = u16::from_ne_bytes([flags[0], flags[1]]) | ACK;
            flags.copy_from_slice(&value.to_ne_bytes());
        }
    }

    /// The bytes to send.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many sequence numbers the batch uses.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.requests.len()).expect("a batch has few messages")
    }

    /// The index of the message whose answer ends the conversation; `None` when nothing was asked.
    pub(crate) fn final_answer(&self) -> Option<usize> {
        self.acknowledged.or(self.requests.len().checked_sub(1))
    }

    /// Whether the answer is many objects, not an acknowledgement.
    pub(crate) fn is_dump(&self) -> bool {
        self.acknowledged.is_none()
    }

    /// The index of the message that a reply with this sequence number answers.
    pub(crate) fn index_of(&self, sequence: u32) -> Option<usize> {
        usize::try_from(sequence.wrapping_sub(self.first)).ok().filter(|index| *index < self.requests.len())
    }

    /// What the message at `index` asked for.
    pub(crate) fn request(&self, index: usize) -> &'static str {
        self.requests.get(index).copied().unwrap_or("talk to the kernel")
    }
}

/// The inside of one message or of one nested attribute.
pub(crate) struct Body<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Body<'_> {
    /// Appends raw bytes: the family header at the start of a message.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends an attribute with any payload.
    pub(crate) fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(payload);
        self.close(start);
        self
    }

    /// Appends a string attribute with its terminating NUL.
    pub(crate) fn string(&mut self, kind: u16, text: &str) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.close(start);
        self
    }

    /// Appends a `u32` in the machine's byte order (rtnetlink).
    pub(crate) fn native(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends a `u32` in big-endian byte order (nfnetlink).
    pub(crate) fn big(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends an attribute that holds what `inside` writes.
    pub(crate) fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Body<'_>)) -> &mut Self {
        let start = self.open(kind | NESTED);
        inside(&mut Body { bytes: self.bytes });
        self.close(start);
        self
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).expect("an attribute is below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message of a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    /// The message type.
    pub(crate) kind: u16,
    /// The flags.
    pub(crate) flags: u16,
    /// The sequence number of the request.
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The messages in one received datagram; a malformed rest ends the iteration.
pub(crate) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(native_u32(bytes, 0)?).ok()?;
        let payload = bytes.get(HEADER..length)?;
        let reply = Reply {
            kind: native_u16(bytes, 4)?,
            flags: native_u16(bytes, 6)?,
            sequence: native_u32(bytes, 8)?,
            payload,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(reply)
    })
}

/// The attributes in `bytes` as (type without flags, payload); a malformed rest ends the iteration.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(native_u16(bytes, 0)?);
        let kind = native_u16(bytes, 2)? & 0x3fff;
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// The payload of the first attribute of type `kind`.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, payload)| payload)
}

/// The text of a string attribute, up to its NUL.
pub(crate) fn text(payload: &[u8]) -> Option<&str> {
    std::str::from_utf8(payload.split(|byte| *byte == 0).next()?).ok()
}

/// The `u32` at `offset`, in the machine's byte order.
pub(crate) fn native_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset..offset + 4).map(u32::from_ne_bytes)
}

/// The `u16` at `offset`, in the machine's byte order.
pub(crate) fn native_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset..offset + 2).map(u16::from_ne_bytes)
}

/// The bytes of `range` as an array.
pub(crate) fn array<const N: usize>(bytes: &[u8], range: Range<usize>) -> Option<[u8; N]> {
    bytes.get(range)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_its_length_sequence_and_padded_attributes() {
        let mut batch = Batch::new(7);
        batch.message("x", 16, CREATE, |m| {
            m.raw(&[1, 2, 3, 4]).string(3, "lo").nested(18, |n| {
                n.big(1, 0x0102_0304);
            });
        });
        batch.acknowledge_last();
        let mut expected = Vec::new();
        expected.extend_from_slice(&40_u32.to_ne_bytes());
        expected.extend_from_slice(&16_u16.to_ne_bytes());
        expected.extend_from_slice(&(CREATE | REQUEST | ACK).to_ne_bytes());
        expected.extend_from_slice(&7_u32.to_ne_bytes());
        expected.extend_from_slice(&[0, 0, 0, 0, 1, 2, 3, 4]);
        expected.extend_from_slice(&7_u16.to_ne_bytes());
        expected.extend_from_slice(&3_u16.to_ne_bytes());
        expected.extend_from_slice(b"lo\0\0");
        expected.extend_from_slice(&12_u16.to_ne_bytes());
        expected.extend_from_slice(&(18_u16 | NESTED).to_ne_bytes());
        expected.extend_from_slice(&8_u16.to_ne_bytes());
        expected.extend_from_slice(&1_u16.to_ne_bytes());
        expected.extend_from_slice(&[1, 2, 3, 4]);
        assert_eq!(batch.bytes(), expected);
        assert_eq!((batch.index_of(7), batch.index_of(8), batch.index_of(6)), (Some(0), None, None));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut batch = Batch::new(1);
        for name in ["a", "bcd"] {
            batch.message("x", 20, 0, |m| {
                m.raw(&[0; 4]).string(1, name).native(2, 9);
            });
        }
        let read: Vec<_> = replies(batch.bytes())
            .map(|reply| {
                let attributes = &reply.payload[4..];
                let name = text(attribute(attributes, 1).unwrap()).unwrap().to_owned();
                (reply.sequence, name, native_u32(attribute(attributes, 2).unwrap(), 0).unwrap())
            })
            .collect();
        assert_eq!(read, [(1, "a".to_owned(), 9), (2, "bcd".to_owned(), 9)]);
    }

    #[test]
    fn hostile_lengths_end_the_reading() {
        for bytes in [&[][..], &[255; 3], &[255; 16], &[0; 64], &[4, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(replies(bytes).count(), 0, "{bytes:?}");
        }
        for bytes in [&[][..], &[1, 0, 0, 0], &[3, 0, 0, 0], &[255, 255, 0, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
