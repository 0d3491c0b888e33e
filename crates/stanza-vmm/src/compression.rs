//! The compressions of kernels, modules and packages, told by their first bytes.

use std::io::{self, Read};

use crate::bounded;

/// What a decompressor may use of memory beside what it gives: Debian's kernels and packages need 32 MiB at most.
const DICTIONARY_KIB: u32 = 128 * 1024;

/// The most that one block of the legacy lz4 format, which the kernel's build uses, may hold.
const LZ4_BLOCK: usize = 8 << 20;

/// How something is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Xz,
    Zstd,
    /// `lz4 -l`: a magic number, then blocks with their compressed size before them.
    LegacyLz4,
}

impl Compression {
    /// What `bytes` begin as; `None` for what is not compressed, or in no way known here.
    pub(crate) fn of(bytes: &[u8]) -> Option<Compression> {
        match bytes {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
            [0x02, 0x21, 0x4c, 0x18, ..] => Some(Compression::LegacyLz4),
            _ => None,
        }
    }

    /// The content of one compressed stream, at most `limit` bytes of it. What follows the stream is ignored: the
    /// kernel's build appends the size.
    pub(crate) fn decompress(self, bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        match self {
            Compression::Gzip => bounded::read(flate2::read::GzDecoder::new(bytes), limit),
            Compression::LegacyLz4 => decompress_legacy_lz4(bytes, limit),
            Compression::Xz | Compression::Zstd => bounded::read(self.reader(bytes)?, limit),
        }
    }

    /// The content as a stream, without a limit of its own.
    pub(crate) fn reader<'a>(self, bytes: &'a [u8]) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Compression::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(bytes, false, DICTIONARY_KIB)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame()),
            Compression::LegacyLz4 => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "lz4 is known of kernels only"));
            }
        })
    }
}

fn decompress_legacy_lz4(bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let corrupt = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("lz4: {what}"));
    let mut content = Vec::new();
    let mut rest = bytes.get(4..).unwrap_or_default();
    let mut block = vec![0; LZ4_BLOCK];
    // A block that is not full is the last one; the size that the kernel's build appends comes after it.
    while let Some((size, after)) = rest.split_first_chunk::<4>() {
        let size = usize::try_from(u32::from_le_bytes(*size)).map_err(|_| corrupt("a block's size"))?;
        let compressed = after.get(..size).ok_or_else(|| corrupt("the last block is cut off"))?;
        let length = lz4_flex::block::decompress_into(compressed, &mut block)
            .map_err(|error| corrupt(&error.to_string()))?;
        if (content.len() + length) as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {limit} bytes"),
            ));
        }
        content.extend_from_slice(&block[..length]);
        rest = &after[size..];
        if length < LZ4_BLOCK {
            break;
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy_lz4(content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x02, 0x21, 0x4c, 0x18];
        for block in content.chunks(LZ4_BLOCK) {
            // Literals only: a token, the length in steps of 255, the bytes.
            let mut compressed = vec![0xf0];
            let mut left = block.len() - 15;
            while left >= 255 {
                compressed.push(255);
                left -= 255;
            }
            compressed.push(u8::try_from(left).unwrap());
            compressed.extend_from_slice(block);
            bytes.extend_from_slice(&u32::try_from(compressed.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&compressed);
        }
        bytes
    }

    #[test]
    fn lz4_in_blocks_and_what_follows_it() {
        let content: Vec<u8> = (0..LZ4_BLOCK + 1000).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut bytes = legacy_lz4(&content);
        bytes.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
        assert_eq!(Compression::of(&bytes), Some(Compression::LegacyLz4));
        assert!(Compression::LegacyLz4.decompress(&bytes, 100 << 20).unwrap() == content);
        let error = Compression::LegacyLz4.decompress(&bytes, 9000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let error = Compression::LegacyLz4.decompress(&bytes[..bytes.len() - 100], 100 << 20).unwrap_err();
        assert_eq!(error.to_string(), "lz4: the last block is cut off");
    }

    #[test]
    fn gzip_and_zstd_are_told_by_their_first_bytes() {
        let zstd = [zstd::encode_all(&b"kernel"[..], 1).unwrap(), b"\x06\0\0\0".to_vec()].concat();
        assert_eq!(Compression::of(&zstd), Some(Compression::Zstd));
        assert_eq!(Compression::Zstd.decompress(&zstd, 6).unwrap(), b"kernel");
        assert!(Compression::Zstd.decompress(&zstd, 5).is_err());
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, b"kernel").unwrap();
        let gzip = encoder.finish().unwrap();
        assert_eq!(Compression::of(&gzip), Some(Compression::Gzip));
        assert_eq!(Compression::Gzip.decompress(&gzip, 6).unwrap(), b"kernel");
        assert_eq!(Compression::of(b"\x7fELF"), None);
    }
}
