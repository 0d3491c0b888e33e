//! The few words of Protocol Buffers that criu's requests and answers are made of (criu's `images/rpc.proto`).
//!
//! A message is a row of fields, each a number with a type in its lowest three bits: 0 is a varint, 2 is bytes with their
//! length before them. Fields unknown here are passed over; a message that is cut short ends where it makes no sense.

/// A message being made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// Adds a number, not negative.
    pub(crate) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// Adds a switch that is on; what is off is left out.
    pub(crate) fn switch(&mut self, field: u32, on: bool) {
        if on {
            self.number(field, 1);
        }
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        // A length fits into 64 bits on every machine.
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Adds text.
    pub(crate) fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// Adds a message.
    pub(crate) fn message(&mut self, field: u32, message: &Message) {
        self.bytes(field, &message.0);
    }

    /// Adds a message of two texts, which is what criu's maps are made of.
    pub(crate) fn pair(&mut self, field: u32, key: &str, value: &str) {
        let mut pair = Message::default();
        pair.text(1, key);
        pair.text(2, value);
        self.message(field, &pair);
    }

    /// The message as it is sent.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a field of a received message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a received message, in order.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<(u32, Value<'a>)> {
        loop {
            let key = self.varint()?;
            let field = u32::try_from(key >> 3).ok()?;
            match key & 7 {
                0 => return Some((field, Value::Number(self.varint()?))),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    return Some((field, Value::Bytes(self.take(length)?)));
                }
                1 => drop(self.take(8)?),
                5 => drop(self.take(4)?),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = Message::default();
        message.number(1, 300);
        message.switch(3, false);
        message.switch(4, true);
        message.pair(23, "/etc/hosts", "x");
        // The documentation's own example: 300 in field 1.
        assert_eq!(message.as_bytes()[..3], [0x08, 0xac, 0x02]);
        let fields: Vec<_> = Fields(message.as_bytes()).collect();
        assert_eq!(fields[..2], [(1, Value::Number(300)), (4, Value::Number(1))]);
        let (23, Value::Bytes(pair)) = fields[2] else { panic!("{fields:?}") };
        let pair: Vec<_> = Fields(pair).collect();
        assert_eq!(pair, [(1, Value::Bytes(b"/etc/hosts")), (2, Value::Bytes(b"x"))]);
    }

    #[test]
    fn nonsense_ends_and_does_no_harm() {
        for bad in [&[0x80][..], &[0x0a, 0xff, 0x01, 0x00], &[0x0f], &[0xff; 12], &[0x09, 1, 2]] {
            assert_eq!(Fields(bad).count(), 0, "{bad:x?}");
        }
        // An unknown kind is passed over.
        assert_eq!(Fields(&[0x0d, 1, 2, 3, 4, 0x08, 5]).collect::<Vec<_>>(), [(1, Value::Number(5))]);
    }
}
