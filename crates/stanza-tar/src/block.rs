//! The 512 bytes of one header, as POSIX (`pax`, "ustar Interchange Format") and GNU tar lay them out.
//!
//! ```text
//!   0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 size 12 | 136 mtime 12 | 148 checksum 8 | 156 type 1
//! 157 link 100 | 257 magic 6 | 263 version 2 | 265 uname 32 | 297 gname 32 | 329 major 8 | 337 minor 8
//! 345 prefix 155 (ustar) | GNU: 386 sparse 4 x (offset 12, length 12) | 482 extended 1 | 483 real size 12
//! ```

use crate::Segment;

pub(crate) const BLOCK: usize = 512;

/// One header block.
#[derive(Clone)]
pub(crate) struct Block(pub(crate) [u8; BLOCK]);

impl Block {
    pub(crate) fn is_zero(&self) -> bool {
        self.0 == [0; BLOCK]
    }

    /// Whether the stored checksum is the sum of all bytes, its own field read as spaces. Old writers summed signed
    /// bytes.
    pub(crate) fn has_valid_checksum(&self) -> bool {
        let Some(stored) = number(&self.0[148..156]) else { return false };
        let (mut unsigned, mut signed) = (0i128, 0i128);
        for (index, &byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&index) { b' ' } else { byte };
            unsigned += i128::from(byte);
            signed += i128::from(byte.cast_signed());
        }
        stored == unsigned || stored == signed
    }

    pub(crate) fn flag(&self) -> u8 {
        self.0[156]
    }

    /// The path from the header itself, prefix included.
    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match (&self.0[257..263], &self.0[508..512]) {
            // star's own format keeps times where ustar's prefix ends.
            (b"ustar\0", b"tar\0") => text(&self.0[345..476]),
            (b"ustar\0", _) => text(&self.0[345..500]),
            _ => &[],
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(crate) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(crate) fn mode(&self) -> Option<i128> {
        number(&self.0[100..108])
    }

    pub(crate) fn uid(&self) -> Option<i128> {
        number(&self.0[108..116])
    }

    pub(crate) fn gid(&self) -> Option<i128> {
        number(&self.0[116..124])
    }

    pub(crate) fn size(&self) -> Option<i128> {
        number(&self.0[124..136])
    }

    pub(crate) fn mtime(&self) -> Option<i128> {
        number(&self.0[136..148])
    }

    pub(crate) fn device(&self) -> Option<(u32, u32)> {
        let part = |field| u32::try_from(number(field)?).ok();
        Some((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }

    /// Whether the header is of GNU's own format, in which alone GNU's old types mean what they mean.
    pub(crate) fn is_gnu(&self) -> bool {
        self.0[257..265] == *b"ustar  \0"
    }

    /// The size with holes of a file of GNU's old sparse type.
    pub(crate) fn sparse_real_size(&self) -> Option<i128> {
        number(&self.0[483..495])
    }

    /// Adds the four segments of a header of GNU's old sparse type; `Some(true)` when another block of them follows.
    pub(crate) fn sparse_segments(&self, into: &mut Vec<Segment>) -> Option<bool> {
        segments(&self.0[386..482], into)?;
        Some(self.0[482] != 0)
    }

    /// The same for a block that continues such a header: 21 segments.
    pub(crate) fn more_sparse_segments(&self, into: &mut Vec<Segment>) -> Option<bool> {
        segments(&self.0[..504], into)?;
        Some(self.0[504] != 0)
    }
}

fn segments(fields: &[u8], into: &mut Vec<Segment>) -> Option<()> {
    for pair in fields.chunks_exact(24) {
        // An empty slot ends the list.
        if pair[0] == 0 && pair[12] == 0 {
            break;
        }
        let field = |bytes| u64::try_from(number(bytes)?).ok();
        into.push(Segment { offset: field(&pair[..12])?, length: field(&pair[12..])? });
    }
    Some(())
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal digits between optional spaces, nothing at all for zero, or base-256 with the top bit set (GNU).
fn number(field: &[u8]) -> Option<i128> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement, most significant byte first; the marker takes the place of the topmost bit.
        let mut value = i128::from(first & 0x7f);
        if first & 0x40 != 0 {
            value -= 0x80;
        }
        return Some(field[1..].iter().fold(value, |value, byte| (value << 8) | i128::from(*byte)));
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|byte| !matches!(byte, b'0'..=b'7')).unwrap_or(digits.len());
    let rest = &digits[end..];
    if rest.first().is_some_and(|byte| *byte != 0) && !rest.iter().all(is_blank) {
        return None;
    }
    Some(digits[..end].iter().fold(0, |value, digit| (value << 3) | i128::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_octal_and_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"  644 \0 ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"7777777777777", Some(0o7777777777777)),
            (b"644\0junk", Some(0o644)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some((0x7f << 80) | ((1 << 80) - 1))),
            (b"-1\0\0\0\0\0\0", None),
            (b"9\0\0\0\0\0\0\0", None),
            (b"64 4\0\0\0\0", None),
            (b"", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn the_prefix_belongs_to_ustar_only() {
        let mut block = Block([0; BLOCK]);
        block.0[0] = b'n';
        block.0[345] = b'p';
        assert_eq!(block.path(), b"n");
        block.0[257..263].copy_from_slice(b"ustar\0");
        assert_eq!(block.path(), b"p/n");
        block.0[257..265].copy_from_slice(b"ustar  \0");
        assert_eq!(block.path(), b"n");
    }
}
