//! Sparse maps, checked: sorted, not overlapping, inside the file, and exactly as long as the data that is stored.

use crate::Segment;

/// The map without its empty pieces.
pub(crate) fn check(map: Vec<Segment>, real_size: u64, stored: u64) -> Result<Vec<Segment>, &'static str> {
    let (mut end, mut total) = (0u64, 0u64);
    for segment in &map {
        if segment.offset < end {
            return Err("its segments overlap or are not sorted");
        }
        end = segment.offset.checked_add(segment.length).filter(|end| *end <= real_size).ok_or(BEYOND)?;
        // Cannot overflow: the segments do not overlap, so the sum is at most `end`.
        total += segment.length;
    }
    if total != stored {
        return Err("its segments are not as long as the stored data");
    }
    Ok(map.into_iter().filter(|segment| segment.length > 0).collect())
}

const BEYOND: &str = "a segment ends beyond the file";

/// Reads the map of format 1.0, which stands in decimal lines before the content: the number of segments, then offset
/// and length of each.
pub(crate) struct MapLines {
    number: Option<u64>,
    expected: Option<u64>,
    offset: Option<u64>,
    map: Vec<Segment>,
    limit: usize,
}

impl MapLines {
    pub(crate) fn new(limit: usize) -> MapLines {
        MapLines { number: None, expected: None, offset: None, map: Vec::new(), limit }
    }

    /// Takes the next bytes; `true` when the map is whole. What is left of `bytes` then is padding.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<bool, &'static str> {
        for &byte in bytes {
            if byte != b'\n' {
                let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0')).ok_or(MALFORMED)?;
                let number = self.number.unwrap_or(0);
                self.number =
                    Some(number.checked_mul(10).and_then(|n| n.checked_add(digit)).ok_or(MALFORMED)?);
                continue;
            }
            let number = self.number.take().ok_or(MALFORMED)?;
            match (self.expected, self.offset.take()) {
                (None, _) => self.expected = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => self.map.push(Segment { offset, length: number }),
            }
            if self.expected.is_some_and(|expected| expected > u64::try_from(self.limit).unwrap_or(u64::MAX))
            {
                return Err("it has too many segments");
            }
            if self.expected == u64::try_from(self.map.len()).ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn into_map(self) -> Vec<Segment> {
        self.map
    }
}

const MALFORMED: &str = "its map is not made of numbers";

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(u64, u64)]) -> Vec<Segment> {
        pairs.iter().map(|&(offset, length)| Segment { offset, length }).collect()
    }

    #[test]
    fn maps_that_lie_are_refused() {
        assert_eq!(check(map(&[(0, 2), (4, 2), (10, 0)]), 10, 4).unwrap(), map(&[(0, 2), (4, 2)]));
        for (pairs, size, stored) in [
            (&[(0, 3), (2, 2)][..], 10, 5),
            (&[(4, 1), (0, 1)], 10, 2),
            (&[(8, 3)], 10, 3),
            (&[(u64::MAX, 2)], u64::MAX, 2),
            (&[(0, 2)], 10, 3),
            (&[(0, u64::MAX), (u64::MAX, 1)], u64::MAX, 0),
        ] {
            assert!(check(map(pairs), size, stored).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn map_lines_are_read_across_blocks() {
        let mut lines = MapLines::new(10);
        assert_eq!(lines.feed(b"2\n0\n5"), Ok(false));
        assert_eq!(lines.feed(b"12\n1024\n7\n\0\0\0"), Ok(true));
        assert_eq!(lines.into_map(), map(&[(0, 512), (1024, 7)]));
        assert_eq!(MapLines::new(10).feed(b"0\n"), Ok(true));
        for bad in [&b"11\n"[..], b"x", b"\n", b"99999999999999999999999\n", b"-1\n"] {
            assert!(MapLines::new(10).feed(bad).is_err());
        }
    }
}
