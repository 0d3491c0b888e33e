//! Bytes that are nearly right.

use crate::random::Random;

/// Numbers at which programs break, in the octal and the binary writing of tar.
const FIELDS: [&[u8]; 12] = [
    b"00000000000\0",
    b"77777777777\0",
    b"           \0",
    b"-0000000001\0",
    b"\x80\0\0\0\0\0\0\0\0\0\x02\0",
    b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\0\0\0\0\0",
    b"00000001000\0",
    b"0000010000 \0",
    b"1\0",
    b"9",
];

/// A few places changed, parts of `donor` taken over.
pub(crate) fn change(bytes: &mut Vec<u8>, donor: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let rest = bytes.len() - at;
        match random.below(8) {
            0 => bytes.truncate(at),
            1 if rest > 0 => bytes[at] ^= 1 << random.below(8),
            2 if rest > 0 => drop(bytes.drain(at..at + 1 + random.below(rest.min(600)))),
            3 => {
                let from = random.below(donor.len() + 1);
                let length = random.below((donor.len() - from).min(2048) + 1);
                bytes.splice(at..at, donor[from..from + length].iter().copied());
            }
            4 if rest > 0 => {
                let field = *random.one(&FIELDS);
                let length = field.len().min(rest);
                bytes[at..at + length].copy_from_slice(&field[..length]);
            }
            5 => drop(bytes.splice(at..at, std::iter::repeat_n(0, 1 + random.below(1100)))),
            _ if rest > 0 => bytes[at] = u8::try_from(random.below(256)).unwrap_or(0),
            _ => {}
        }
    }
}
