//! `export`: a container's files as one archive.

use std::fs::File;

use stanza_snapshot::{ExportError as WriteError, IdRange, OwnerMap};
use stanza_spec::oci::runtime::LinuxIdMapping;
use stanza_spec::{Classify, ContainerId, ErrorKind};

use crate::create::UnpackError;
use crate::find::FindError;
use crate::spec::SpecError;
use crate::vm::OwnDisk;
use crate::{Engine, HOST_IMAGE};

/// Why files are not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its files are its own kernel's.
    #[error(transparent)]
    Machine(#[from] OwnDisk),
    /// Its root file system is this machine's.
    #[error("cannot export container `{0}`: its files are this machine's own, seen through the image `host`")]
    Host(String),
    /// Its configuration does not fit this machine any more.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Its layers are not there.
    #[error("cannot put the root file system together")]
    Rootfs(#[source] UnpackError),
    /// They cannot be read, or the archive not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Classify for ExportError {
    fn kind(&self) -> ErrorKind {
        match self {
            ExportError::Find(error) => error.kind(),
            ExportError::Machine(error) => error.kind(),
            ExportError::Host(_) => ErrorKind::Unsupported,
            ExportError::Spec(error) => error.kind(),
            ExportError::Rootfs(error) => error.kind(),
            ExportError::Write(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ExportError::Find(error) => error.hint(),
            ExportError::Machine(error) => error.hint(),
            ExportError::Spec(error) => error.hint(),
            ExportError::Rootfs(error) => error.hint(),
            ExportError::Host(_) => Some("`stanza diff` shows what it changed".to_owned()),
            ExportError::Write(_) => None,
        }
    }
}

impl Engine {
    /// Writes the files of a container, running or not, as a tar archive: what the container sees, without what is mounted
    /// into it.
    ///
    /// # Errors
    /// When there is no such container, its files cannot be read, or the archive cannot be written.
    pub fn export(&mut self, id: &ContainerId, out: &File) -> Result<(), ExportError> {
        let record = self.record(id)?;
        OwnDisk::check("export", &record)?;
        if record.config.image == HOST_IMAGE {
            return Err(ExportError::Host(record.name));
        }
        let rootfs = self.plan_rootfs(&record).map_err(ExportError::Rootfs)?;
        let planned = self.plan_spec(&record)?;
        let ranges = |mappings: Option<&Vec<LinuxIdMapping>>| {
            let range = |mapping: &LinuxIdMapping| IdRange {
                inside: mapping.container_id(),
                outside: mapping.host_id(),
                count: mapping.size(),
            };
            mappings.into_iter().flatten().map(range).collect()
        };
        let linux = planned.spec.linux().as_ref();
        let owners = OwnerMap {
            uids: ranges(linux.and_then(|linux| linux.uid_mappings().as_ref())),
            gids: ranges(linux.and_then(|linux| linux.gid_mappings().as_ref())),
        };
        Ok(stanza_snapshot::export(&rootfs, &owners, out)?)
    }
}
