//! Compressed streams, told apart by their first bytes.
//!
//! The media type is not believed: uncompressed layers under a gzip type exist, and the reverse. gzip may have many
//! members, zstd many frames and skippable frames; a zstd window is at most 128 MiB, so that a hostile frame cannot
//! ask for more memory.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

const MAX_ZSTD_WINDOW_LOG: u32 = 27;
const MAGIC: usize = 6;

/// A reader whose first bytes were looked at.
type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// A stream, decompressed as its first bytes tell.
pub(crate) enum Decoder<R: BufRead> {
    Plain(Peeked<R>),
    Gzip(Box<MultiGzDecoder<Peeked<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Peeked<R>>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes and picks the decoder.
    ///
    /// # Errors
    /// When reading fails, or the stream is xz or bzip2, which no image uses (`Unsupported`).
    pub(crate) fn new(mut reader: R) -> io::Result<Decoder<R>> {
        let mut head = Vec::with_capacity(MAGIC);
        let limit = u64::try_from(MAGIC).expect("a small constant");
        reader.by_ref().take(limit).read_to_end(&mut head)?;
        let compression = match &head[..] {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            // A frame, or a skippable frame that comes before one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(unsupported("xz")),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Err(unsupported("bzip2")),
            _ => Compression::None,
        };
        let reader = Cursor::new(head).chain(reader);
        Ok(match compression {
            Compression::None => Decoder::Plain(reader),
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(reader))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Decoder::Zstd(Box::new(decoder))
            }
        })
    }

    pub(crate) fn compression(&self) -> Compression {
        match self {
            Decoder::Plain(_) => Compression::None,
            Decoder::Gzip(_) => Compression::Gzip,
            Decoder::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(reader) => reader.read(buffer),
            Decoder::Gzip(reader) => reader.read(buffer),
            Decoder::Zstd(reader) => reader.read(buffer),
        }
    }
}

/// A stream without its compression, told by its first bytes: plain, gzip or zstd.
///
/// # Errors
/// When reading fails, or the stream is xz or bzip2 (`Unsupported`).
pub fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(Box::new(Decoder::new(BufReader::with_capacity(128 * 1024, reader))?))
}

fn unsupported(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("the data is compressed with `{name}`; expected plain, gzip or zstd"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decode(bytes: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let mut decoder = Decoder::new(bytes)?;
        let mut out = Vec::new();
        decoder.read_to_end(&mut out)?;
        Ok((decoder.compression(), out))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_first_bytes_choose_the_decoder() {
        let text = b"some text that is long enough";
        assert_eq!(decode(text).unwrap(), (Compression::None, text.to_vec()));
        assert_eq!(decode(b"").unwrap(), (Compression::None, Vec::new()));
        assert_eq!(decode(&gzip(text)).unwrap(), (Compression::Gzip, text.to_vec()));
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        assert_eq!(decode(&zstd).unwrap(), (Compression::Zstd, text.to_vec()));
    }

    #[test]
    fn members_frames_and_skippable_frames_are_one_stream() {
        let twice = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(decode(&twice).unwrap().1, b"one two");
        let frames = [
            b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(),
            zstd::encode_all(&b"one "[..], 3).unwrap(),
            zstd::encode_all(&b"two"[..], 3).unwrap(),
        ]
        .concat();
        assert_eq!(decode(&frames).unwrap(), (Compression::Zstd, b"one two".to_vec()));
    }

    #[test]
    fn damage_is_an_error_and_other_compressors_are_refused_by_name() {
        let mut wrong_crc = gzip(b"text");
        let at = wrong_crc.len() - 5;
        wrong_crc[at] ^= 1;
        assert!(decode(&wrong_crc).is_err());
        let whole = gzip(b"a text to be cut");
        assert!(decode(&whole[..whole.len() - 9]).is_err());
        let error = decode(b"\xfd7zXZ\0rest").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("`xz`"));
        assert!(decode(b"BZh91AY").unwrap_err().to_string().contains("`bzip2`"));
    }

    #[test]
    fn a_frame_that_asks_for_a_huge_window_is_refused() {
        // Magic, a frame header without single segment, window descriptor 0xf8: 2 GiB.
        assert!(decode(b"\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00").is_err());
    }
}
