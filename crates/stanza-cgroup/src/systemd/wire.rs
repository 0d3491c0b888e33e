//! The few parts of D-Bus's wire format that systemd's manager needs (D-Bus specification, "Message Protocol"), in this
//! machine's usual order of bytes, little endian. A message from a peer may be in either.

use serde::{Deserialize, Serialize};

/// What a peer may send at most; the specification allows more than any answer here needs.
const LONGEST_MESSAGE: usize = 1 << 20;

/// One value of a property, with its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    Int(i32),
    /// `u`
    Unsigned(u32),
    /// `t`
    Long(u64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `au`
    Numbers(Vec<u32>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::Int(_) => "i",
            Value::Unsigned(_) => "u",
            Value::Long(_) => "t",
            Value::Text(_) => "s",
            Value::Texts(_) => "as",
            Value::Bytes(_) => "ay",
            Value::Numbers(_) => "au",
            Value::Pairs(_) => "a(ss)",
        }
    }
}

/// Puts values one after the other, each at a multiple of its size from the start of the message's part.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn align(&mut self, size: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(size), 0);
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).expect("a signature made here is short"));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// A field of a header.
    pub(crate) fn field(&mut self, code: u8, kind: &str, text: &str) {
        self.align(8);
        self.bytes.push(code);
        self.signature(kind);
        if kind == "g" { self.signature(text) } else { self.text(text) }
    }

    /// An array whose elements are aligned to `size`; its length does not count what aligns the first.
    pub(crate) fn array(&mut self, size: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let at = self.bytes.len() - 4;
        self.align(size);
        let start = self.bytes.len();
        elements(self);
        let bytes = length(self.bytes.len() - start).to_le_bytes();
        self.bytes[at..at + 4].copy_from_slice(&bytes);
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.bool(*value),
            Value::Int(number) => self.u32(number.cast_unsigned()),
            Value::Unsigned(number) => self.u32(*number),
            Value::Long(number) => {
                self.align(8);
                self.bytes.extend(number.to_le_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.array(4, |all| texts.iter().for_each(|text| all.text(text))),
            Value::Bytes(bytes) => self.array(1, |all| all.bytes.extend(bytes)),
            Value::Numbers(numbers) => {
                self.array(4, |all| numbers.iter().for_each(|&number| all.u32(number)))
            }
            Value::Pairs(pairs) => self.array(8, |all| {
                for (first, second) in pairs {
                    all.align(8);
                    all.text(first);
                    all.text(second);
                }
            }),
        }
    }

    /// `a(sv)`
    pub(crate) fn properties<'a>(&mut self, properties: impl Iterator<Item = (&'a str, &'a Value)>) {
        self.array(8, |all| {
            for (name, value) in properties {
                all.align(8);
                all.text(name);
                all.variant(value);
            }
        });
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a message made here is far below 4 GiB")
}

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Return,
    Error,
    Signal,
    /// To be passed over, says the specification.
    Other,
}

/// A method call to be sent.
pub(crate) struct Call<'a> {
    pub(crate) destination: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    pub(crate) signature: &'a str,
    pub(crate) body: Vec<u8>,
}

impl Call<'_> {
    pub(crate) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut header = Writer { bytes: vec![b'l', 1, 0, 1] };
        header.u32(length(self.body.len()));
        header.u32(serial);
        header.array(8, |fields| {
            fields.field(1, "o", self.path);
            fields.field(2, "s", self.interface);
            fields.field(3, "s", self.member);
            if let Some(destination) = self.destination {
                fields.field(6, "s", destination);
            }
            if !self.signature.is_empty() {
                fields.field(8, "g", self.signature);
            }
        });
        header.align(8);
        header.bytes.extend(&self.body);
        header.bytes
    }
}

/// A message that came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) reply_to: Option<u32>,
    pub(crate) interface: String,
    pub(crate) member: String,
    pub(crate) error: String,
    pub(crate) sender: String,
    pub(crate) signature: String,
    body: Vec<u8>,
    big_endian: bool,
}

/// The bytes are no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the bus does not speak D-Bus: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// How many bytes the first 16 of a message say that it has.
pub(crate) fn message_length(start: &[u8; 16]) -> Result<usize, Malformed> {
    let mut reader = Reader { bytes: start, at: 4, big_endian: is_big_endian(start[0])? };
    let body = reader.u32()? as usize;
    reader.u32()?;
    let fields = reader.u32()? as usize;
    let header = 16_usize.checked_add(fields).map(|length| length.next_multiple_of(8));
    let length =
        header.and_then(|header| header.checked_add(body)).filter(|length| *length <= LONGEST_MESSAGE);
    length.ok_or(Malformed("a message is too long"))
}

fn is_big_endian(mark: u8) -> Result<bool, Malformed> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(Malformed("a message starts with no order of bytes")),
    }
}

impl Message {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let big_endian = is_big_endian(*bytes.first().ok_or(Malformed("a message is empty"))?)?;
        let mut reader = Reader { bytes, at: 1, big_endian };
        let kind = match reader.u8()? {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        reader.at = 12;
        let end = 16 + reader.u32()? as usize;
        let mut message = Message {
            kind,
            reply_to: None,
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            sender: String::new(),
            signature: String::new(),
            body: Vec::new(),
            big_endian,
        };
        while reader.at < end {
            reader.align(8)?;
            let code = reader.u8()?;
            let kind = reader.signature()?;
            match (code, kind.as_str()) {
                (2, "s") => message.interface = reader.text()?,
                (3, "s") => message.member = reader.text()?,
                (4, "s") => message.error = reader.text()?,
                (5, "u") => message.reply_to = Some(reader.u32()?),
                (7, "s") => message.sender = reader.text()?,
                (8, "g") => message.signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "u") => drop(reader.u32()?),
                (_, "g") => drop(reader.signature()?),
                _ => return Err(Malformed("a header has a field of an unknown type")),
            }
        }
        reader.align(8)?;
        message.body = bytes.get(reader.at..).ok_or(Malformed("a message ends early"))?.to_owned();
        Ok(message)
    }

    pub(crate) fn body(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, big_endian: self.big_endian }
    }

    /// What an error says in words; empty when it says nothing.
    pub(crate) fn text(&self) -> String {
        if self.signature.starts_with('s') { self.body().text().unwrap_or_default() } else { String::new() }
    }
}

/// Takes values one after the other.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed("a message ends early"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed("a message ends early"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, size: usize) -> Result<(), Malformed> {
        let gap = self.at.next_multiple_of(size) - self.at;
        // What a message ends with need not be followed by anything.
        self.take(gap.min(self.bytes.len() - self.at.min(self.bytes.len()))).map(drop)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4)?;
        let big_endian = self.big_endian;
        let bytes = <[u8; 4]>::try_from(self.take(4)?).expect("four were taken");
        Ok(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        let text = self.take(length)?.to_owned();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub(crate) fn signature(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.u8()?);
        let text = self.take(length)?.to_owned();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| Malformed("a signature is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let mut body = Writer::default();
        body.text("a");
        body.properties([("P", &Value::Long(7))].into_iter());
        let call = Call {
            destination: None,
            path: "/x",
            interface: "i.j",
            member: "M",
            signature: "sa(sv)",
            body: body.bytes,
        };
        let expected: [&[u8]; 8] = [
            // Order, call, no flags, version; length of the body; serial; length of the fields.
            b"l\x01\x00\x01\x28\x00\x00\x00\x09\x00\x00\x00\x3c\x00\x00\x00",
            b"\x01\x01o\x00\x02\x00\x00\x00/x\x00\x00\x00\x00\x00\x00",
            b"\x02\x01s\x00\x03\x00\x00\x00i.j\x00\x00\x00\x00\x00",
            b"\x03\x01s\x00\x01\x00\x00\x00M\x00\x00\x00\x00\x00\x00\x00",
            b"\x08\x01g\x00\x06sa(sv)\x00\x00\x00\x00\x00",
            // "a"; then an array of 24 bytes that starts at a multiple of 8: "P", a variant `t` of 7.
            b"\x01\x00\x00\x00a\x00\x00\x00\x18\x00\x00\x00\x00\x00\x00\x00",
            b"\x01\x00\x00\x00P\x00\x01t\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x07\x00\x00\x00\x00\x00\x00\x00",
        ];
        let encoded = call.encode(9);
        assert_eq!(encoded, expected.concat());
        assert_eq!(encoded.len(), message_length(&encoded[..16].try_into().unwrap()).unwrap());
        let message = Message::decode(&encoded).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (Kind::Call, "M"));
        assert_eq!((message.interface.as_str(), message.signature.as_str()), ("i.j", "sa(sv)"));
        assert_eq!(message.body().text().unwrap(), "a");
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let good = Call {
            destination: Some("d"),
            path: "/",
            interface: "i",
            member: "m",
            signature: "",
            body: vec![],
        }
        .encode(1);
        for end in 0..good.len() - 8 {
            assert!(Message::decode(&good[..end]).is_err(), "{end}");
        }
        // Any byte changed is another message or none, never a panic.
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = message_length(&bad[..16].try_into().unwrap());
                let _ = Message::decode(&bad).map(|message| (message.text(), message.body().u32()));
            }
        }
        assert!(message_length(b"l\x01\x00\x01\xff\xff\xff\x7f\x01\x00\x00\x00\x00\x00\x00\x00").is_err());
    }
}
