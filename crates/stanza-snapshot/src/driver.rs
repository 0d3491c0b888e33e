//! Which driver puts root file systems together.

use std::fmt;
use std::str::FromStr;

use stanza_spec::{Classify, ErrorKind};

/// How layers are stored, and how a container's root file system is made of them. Layers that one driver stored can be used
/// by the others where the kernel lets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageDriver {
    /// Layers are directories, joined by overlayfs.
    #[default]
    Overlay,
    /// Layers are erofs images over their archives, joined by overlayfs. With root only.
    Erofs,
    /// Layers are directories, copied for each container: for file systems that overlayfs does not take.
    Copy,
}

/// A name that is no driver's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown storage driver `{0}`")]
pub struct UnknownDriver(pub String);

impl Classify for UnknownDriver {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }

    fn hint(&self) -> Option<String> {
        Some("the drivers are `overlay`, `erofs` and `copy`".to_owned())
    }
}

impl fmt::Display for StorageDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StorageDriver::Overlay => "overlay",
            StorageDriver::Erofs => "erofs",
            StorageDriver::Copy => "copy",
        })
    }
}

impl FromStr for StorageDriver {
    type Err = UnknownDriver;

    /// Docker's and Podman's names of the same things are taken too.
    fn from_str(text: &str) -> Result<StorageDriver, UnknownDriver> {
        match text {
            "overlay" | "overlay2" => Ok(StorageDriver::Overlay),
            "erofs" => Ok(StorageDriver::Erofs),
            "copy" | "vfs" => Ok(StorageDriver::Copy),
            other => Err(UnknownDriver(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_have_names() {
        for driver in [StorageDriver::Overlay, StorageDriver::Erofs, StorageDriver::Copy] {
            assert_eq!(driver.to_string().parse(), Ok(driver));
        }
        assert_eq!("vfs".parse(), Ok(StorageDriver::Copy));
        assert!("btrfs".parse::<StorageDriver>().is_err());
    }
}
