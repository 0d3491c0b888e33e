//! Platforms: `os/architecture[/variant]`.

use std::fmt;
use std::str::FromStr;

/// The operating system, architecture and variant that an image is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Go's name of the system: `linux`.
    pub os: String,
    /// Go's name of the architecture: `amd64`, `arm64`, `arm`, ….
    pub architecture: String,
    /// `v7`, `v8`, …; `None` when the architecture has one form.
    pub variant: Option<String>,
}

/// A string that is not a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a platform: expected `os/architecture` or `os/architecture/variant`, as `linux/arm64`")]
pub struct PlatformError(String);

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Platform {
        Platform {
            os: "linux".into(),
            architecture: normal_architecture(std::env::consts::ARCH).0,
            variant: None,
        }
    }

    /// Whether an image made for `self` runs where `other` is asked for: a missing variant matches every variant.
    #[must_use]
    pub fn satisfies(&self, other: &Platform) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || other.variant.is_none() || self.variant == other.variant)
    }
}

/// Go's architecture name and variant for the names that other tools use.
fn normal_architecture(name: &str) -> (String, Option<String>) {
    let (architecture, variant) = match name {
        "x86_64" | "x86-64" | "amd64" => ("amd64", None),
        "aarch64" | "arm64" => ("arm64", None),
        "x86" | "i386" | "i686" => ("386", None),
        "armhf" | "armv7" | "armv7l" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        "riscv64gc" => ("riscv64", None),
        "powerpc64le" => ("ppc64le", None),
        other => (other, None),
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let legal = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if !parts.iter().all(legal) {
            return Err(PlatformError(text.to_owned()));
        }
        let (os, architecture, variant) = match parts[..] {
            // A lone architecture is what `docker run --platform arm64` takes.
            [architecture] if architecture != "linux" => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(PlatformError(text.to_owned())),
        };
        let (architecture, implied) = normal_architecture(architecture);
        Ok(Platform { os: os.to_lowercase(), architecture, variant: variant.or(implied) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_in_every_common_spelling() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
        ];
        for (text, normal) in cases {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal);
        }
        for bad in ["", "linux", "a/b/c/d", "linux//v7", "linux/a b"] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError(bad.into())));
        }
    }
}
