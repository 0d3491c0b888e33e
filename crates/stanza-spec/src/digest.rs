//! Content addresses: `sha256:` and 64 hex digits (image-spec, "Digests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A content address: algorithm and lower-case hex. `sha256` and `sha512` are accepted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

/// Why a string is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DigestError {
    /// No `algorithm:hex`.
    #[error("`{0}` is not a digest: expected `sha256:` and 64 hex digits")]
    Shape(String),
    /// An algorithm that is not supported.
    #[error("digest algorithm `{0}` is not supported: expected `sha256` or `sha512`")]
    Algorithm(String),
    /// The hex part is too long, too short, or not lower-case hex.
    #[error("digest `{0}` has a malformed hex part")]
    Hex(String),
}

impl Digest {
    /// The digest of the given algorithm for raw hash bytes: 32 bytes are sha256, 64 bytes are sha512.
    ///
    /// # Panics
    /// When `hash` is neither 32 nor 64 bytes long: the caller passes a finished hash.
    #[must_use]
    pub fn from_hash(hash: &[u8]) -> Digest {
        let algorithm = match hash.len() {
            32 => "sha256",
            64 => "sha512",
            other => panic!("a hash of {other} bytes is neither sha256 nor sha512"),
        };
        let mut text = String::with_capacity(algorithm.len() + 1 + hash.len() * 2);
        text.push_str(algorithm);
        text.push(':');
        for byte in hash {
            text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        Digest(text)
    }

    /// `sha256` or `sha512`.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(algorithm, _)| algorithm)
    }

    /// The hex digits: 64 for sha256, 128 for sha512.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The first 12 hex digits, as listings show an id.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// `algorithm:hex`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| DigestError::Shape(text.to_owned()))?;
        let expected = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(DigestError::Algorithm(algorithm.to_owned())),
        };
        if hex.len() != expected || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Hex(text.to_owned()));
        }
        Ok(Digest(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_round_trips_and_knows_its_parts() {
        let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text);
        assert_eq!((digest.algorithm(), digest.short()), ("sha256", "0123456789ab"));
        assert_eq!(Digest::from_hash(&[0xab; 32]).hex(), "ab".repeat(32));
    }

    #[test]
    fn malformed_digests_are_refused_by_name() {
        assert_eq!("abc".parse::<Digest>(), Err(DigestError::Shape("abc".into())));
        assert_eq!("md5:00".parse::<Digest>(), Err(DigestError::Algorithm("md5".into())));
        for bad in
            ["sha256:00", &format!("sha256:{}", "A".repeat(64)), &format!("sha256:{}/", "a".repeat(63))]
        {
            assert!(matches!(bad.parse::<Digest>(), Err(DigestError::Hex(_))), "{bad}");
        }
    }
}
