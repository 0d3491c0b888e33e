//! Container ids and names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A container's id: 64 lower-case hex digits, random.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// A string that is not a container id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a container id: expected 64 hex digits")]
pub struct IdError(String);

impl ContainerId {
    /// The id of 32 random bytes, which the caller draws from the kernel.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> ContainerId {
        ContainerId(crate::Digest::from_hash(&bytes).hex().to_owned())
    }

    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, as listings show it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for ContainerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<ContainerId, IdError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(ContainerId(text.to_owned()))
        } else {
            Err(IdError(text.to_owned()))
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ContainerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ContainerId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether `name` may name a container: Docker's rule `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, at most 255 bytes.
#[must_use]
pub fn is_valid_container_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    (2..=255).contains(&name.len())
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "a1", "web-1", "x_y.z", "0a"] {
            assert!(is_valid_container_name(good), "{good}");
        }
        for bad in ["", "a", "-ab", ".ab", "a/b", "a b", "é1", "..", &"a".repeat(256)] {
            assert!(!is_valid_container_name(bad), "{bad}");
        }
    }
}
