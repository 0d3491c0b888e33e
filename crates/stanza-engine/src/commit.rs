//! `commit` and `squash`: what a container changed, or several layers, becomes a layer of a new image.
//!
//! The container's lock is held, so that nobody starts or removes it meanwhile; one that runs stands still, unless that is
//! not wanted. The new layer is unpacked from its blob right away: what was written is read back and checked once, and a
//! container of the new image starts at once.

use std::error::Error as _;
use std::io::{self, Write};
use std::path::PathBuf;

use stanza_image::{Image, LayerCompression, NewImage, ResolveError, StoreError};
use stanza_sandbox::{PauseError, Paused, StatusError};
use stanza_snapshot::{IdRange, LayerError, LayerSource, OwnerMap, write_difference, write_layer};
use stanza_spec::oci::image::Config;
use stanza_spec::oci::runtime::{LinuxIdMapping, Spec};
use stanza_spec::{Classify, ContainerId, Digest, ErrorKind, Layer, MountKind, Reference, Rootfs};

use crate::container::State;
use crate::create::UnpackError;
use crate::database::{DatabaseError, Record};
use crate::find::FindError;
use crate::reconcile::SettleError;
use crate::spec::SpecError;
use crate::vm::OwnDisk;
use crate::{Engine, HOST_IMAGE};

/// How a container becomes an image.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The image's name.
    pub name: Option<Reference>,
    /// Who made it; empty is nobody.
    pub author: String,
    /// The comment in its history.
    pub message: String,
    /// Instructions as in a Dockerfile.
    pub changes: Vec<String>,
    /// Let the container run on meanwhile.
    pub keep_running: bool,
    /// All layers become one.
    pub squash: bool,
    /// How the new layer is compressed.
    pub compression: LayerCompression,
}

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its files are its own kernel's.
    #[error(transparent)]
    Machine(#[from] OwnDisk),
    /// Its root file system is this machine's.
    #[error("cannot commit container `{0}`: its files are this machine's own, seen through the image `host`")]
    Host(String),
    /// The container's directory cannot be locked.
    #[error("cannot lock container `{name}`")]
    Lock {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not stand still.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// Its configuration does not fit this machine any more.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The layer cannot be written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The layers of the image are not there, or the new one cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The image cannot be found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No layer of the image is meant.
    #[error("image `{image}` has no layer `{layer}`")]
    NoLayer {
        /// The image, as it was given.
        image: String,
        /// The layer, as it was given.
        layer: String,
    },
    /// The image cannot be stored.
    #[error(transparent)]
    Store(#[from] stanza_image::CommitError),
    /// The container's state cannot be read.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for CommitError {
    fn kind(&self) -> ErrorKind {
        match self {
            CommitError::Find(error) => error.kind(),
            CommitError::Machine(error) => error.kind(),
            CommitError::Host(_) => ErrorKind::Unsupported,
            CommitError::Lock { source, .. } => ErrorKind::of_io(source),
            CommitError::Pause(error) => error.kind(),
            CommitError::Spec(error) => error.kind(),
            CommitError::Layer(error) => error.kind(),
            CommitError::Unpack(error) => error.kind(),
            CommitError::Resolve(error) => error.kind(),
            CommitError::NoLayer { .. } => ErrorKind::NotFound,
            CommitError::Store(error) => error.kind(),
            CommitError::Status(error) => error.kind(),
            CommitError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CommitError::Find(error) => error.hint(),
            CommitError::Machine(error) => error.hint(),
            CommitError::Host(_) => {
                Some("`stanza diff` shows what it changed, `stanza cp` takes it out".to_owned())
            }
            CommitError::Pause(_) => Some("let it run on with `--pause=false`".to_owned()),
            CommitError::Spec(error) => error.hint(),
            CommitError::Layer(error) => error.hint(),
            CommitError::Unpack(error) => error.hint(),
            CommitError::Resolve(error) => error.hint(),
            CommitError::NoLayer { .. } => Some("`stanza image inspect` lists its layers".to_owned()),
            CommitError::Store(error) => error.hint(),
            CommitError::Database(error) => error.hint(),
            CommitError::Lock { .. } | CommitError::Status(_) => None,
        }
    }
}

impl From<SettleError> for CommitError {
    fn from(error: SettleError) -> CommitError {
        match error {
            SettleError::Status(error) => error.into(),
            SettleError::Database(error) => error.into(),
        }
    }
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> CommitError {
        CommitError::Store(error.into())
    }
}

/// What the new layer holds.
enum LayerContent {
    /// Trees, merged.
    Trees(LayerSource),
    /// What a copy has otherwise than the layers it was made of.
    Difference { root: PathBuf, layers: Vec<Layer>, userxattr: bool, shift: u32, owners: OwnerMap },
}

impl LayerContent {
    fn write(&self, out: &mut dyn Write) -> Result<u64, LayerError> {
        match self {
            LayerContent::Trees(source) => write_layer(source, out),
            LayerContent::Difference { root, layers, userxattr, shift, owners } => {
                write_difference(root, layers, (*userxattr, *shift), owners, out)
            }
        }
    }
}

impl Engine {
    /// Makes an image of a container: of its image, what it changed, and how it was started. The second part of the answer
    /// are warnings.
    ///
    /// # Errors
    /// When there is no such container, its files cannot be read, or the store cannot take them. Nothing is left, then.
    pub fn commit(
        &mut self,
        id: &ContainerId,
        request: &CommitRequest,
    ) -> Result<(Image, Vec<String>), CommitError> {
        let record = self.record(id)?;
        OwnDisk::check("commit", &record)?;
        if record.config.image == HOST_IMAGE {
            return Err(CommitError::Host(record.name));
        }
        let lock = |error| CommitError::Lock { name: record.name.clone(), source: error };
        let _lock =
            self.lock(id.as_str()).map_err(lock)?.ok_or_else(|| FindError::NotFound(record.name.clone()))?;
        let parent = match &record.facts.image {
            Some(image) => Some(self.image_store()?.resolve(image.as_str())?),
            None => None,
        };
        let rootfs = self.plan_rootfs(&record)?;
        let planned = self.plan_spec(&record)?;
        let owners = owners(&planned.spec);
        let content = match rootfs {
            Rootfs::Layered { root, .. } => {
                let layers = self.lower_layers(&record.facts.layers)?;
                let (trees, below) = if request.squash { (layers, Vec::new()) } else { (Vec::new(), layers) };
                // A container that was never started has no upper layer yet.
                let own = Some(root.upper).filter(|upper| upper.exists());
                LayerContent::Trees(LayerSource { own, trees, below, userxattr: root.userxattr, owners })
            }
            Rootfs::Copied { root, userxattr, .. } if request.squash => LayerContent::Trees(LayerSource {
                own: Some(root),
                trees: Vec::new(),
                below: Vec::new(),
                userxattr,
                owners,
            }),
            Rootfs::Copied { root, layers, userxattr, shift } => {
                LayerContent::Difference { root, layers, userxattr, shift, owners }
            }
            Rootfs::Directory(_) => return Err(CommitError::Host(record.name)),
        };
        let new = NewImage {
            keep: if request.squash { 0 } else { usize::MAX },
            config: Some(configuration(&record, parent.as_ref())),
            changes: request.changes.clone(),
            author: request.author.clone(),
            message: request.message.clone(),
            created_by: record.facts.argv.join(" "),
            compression: request.compression,
            name: request.name.clone(),
            parent,
        };
        let mut warnings = Vec::new();
        let paused = match request.keep_running {
            true => None,
            false => self.pause(&record, &planned.spec, &mut warnings)?,
        };
        let image = self.store_image(&new, &content)?;
        drop(paused);
        warnings.extend(self.unpack_new(&image)?);
        Ok((image, warnings))
    }

    /// Makes one layer of the layers of an image, or of those from `from` upwards (the beginning of a digest of a layer, with
    /// or without its algorithm). The image itself stays as it is.
    ///
    /// # Errors
    /// When there is no such image or layer, or the store cannot take the new image.
    pub fn squash(
        &mut self,
        image: &str,
        from: Option<&str>,
        request: &CommitRequest,
    ) -> Result<(Image, Vec<String>), CommitError> {
        let parent = self.image_store()?.resolve(image)?;
        self.unpack(&parent, &mut stanza_image::Silent)?;
        let keep = match from {
            None => 0,
            Some(layer) => {
                let is_meant =
                    |digest: &Digest| digest.hex().starts_with(layer) || digest.as_str().starts_with(layer);
                parent
                    .layers
                    .iter()
                    .position(|known| is_meant(&known.diff_id) || is_meant(&known.digest))
                    .filter(|_| !layer.is_empty())
                    .ok_or_else(|| CommitError::NoLayer {
                        image: image.to_owned(),
                        layer: layer.to_owned(),
                    })?
            }
        };
        let diff_ids: Vec<Digest> = parent.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let store = self.layer_store().map_err(UnpackError::from)?;
        let all = store.with_links(&diff_ids).map_err(UnpackError::from)?;
        // Those of the layers below do not depend on what is above them.
        let below = store.with_links(&diff_ids[..keep]).map_err(UnpackError::from)?.len();
        let source = LayerSource {
            own: None,
            trees: self.lower_layers(&all[below..])?,
            below: self.lower_layers(&all[..below])?,
            userxattr: self.options.rootless,
            owners: OwnerMap::default(),
        };
        let count = diff_ids.len() - keep;
        let message = if request.message.is_empty() {
            format!("{count} layers of {} squashed", parent.id)
        } else {
            request.message.clone()
        };
        let new = NewImage {
            keep,
            changes: request.changes.clone(),
            author: request.author.clone(),
            message,
            compression: request.compression,
            name: request.name.clone(),
            parent: Some(parent),
            ..NewImage::default()
        };
        let image = self.store_image(&new, &LayerContent::Trees(source))?;
        let warnings = self.unpack_new(&image)?.into_iter().collect();
        Ok((image, warnings))
    }

    /// Unpacks the layer of an image that was just made. On a full disk the image is whole and has its name all the same: then
    /// a warning says that its first container will have to unpack it.
    fn unpack_new(&mut self, image: &Image) -> Result<Option<String>, UnpackError> {
        match self.unpack(image, &mut stanza_image::Silent) {
            Err(error) if error.kind() == ErrorKind::Exhausted => {
                let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                Ok(Some(format!("the image is whole, but its new layer is not unpacked yet: {reason}")))
            }
            result => result.map(|_| None),
        }
    }

    fn store_image(&mut self, new: &NewImage, content: &LayerContent) -> Result<Image, CommitError> {
        // What the layer's writer says is told in its own words.
        let mut failure = None;
        let result = stanza_image::commit(self.image_store()?, new, &mut |out: &mut dyn Write| {
            match content.write(out) {
                Ok(_) => Ok(()),
                // The store's own failure comes back as it was handed out.
                Err(LayerError::Write(error)) => Err(error),
                Err(error) => {
                    failure = Some(error);
                    Err(io::ErrorKind::Other.into())
                }
            }
        });
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(result?),
        }
    }

    /// Layers that are given lowest first, the topmost first.
    fn lower_layers(&mut self, layers: &[Digest]) -> Result<Vec<Layer>, UnpackError> {
        let store = self.layer_store()?;
        layers.iter().rev().map(|layer| Ok(store.layer(layer)?)).collect()
    }

    /// Lets a container that runs stand still; where control groups cannot do that, a warning says so.
    fn pause(
        &mut self,
        record: &Record,
        spec: &Spec,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Paused>, CommitError> {
        if !matches!(self.state(record)?, Some(State::Running(_))) {
            return Ok(None);
        }
        let plan = self.cgroup_plan(record, spec, &mut Vec::new()).ok().flatten();
        match plan.map(|plan| stanza_sandbox::pause(stanza_cgroup::open(&plan))) {
            Some(Ok(paused)) => Ok(paused),
            Some(Err(error)) if error.kind() != ErrorKind::Unsupported => Err(error.into()),
            _ => {
                warnings.push(format!(
                    "container {} ran on while it was committed: it has no control group to stop it by",
                    record.name
                ));
                Ok(None)
            }
        }
    }
}

/// Whose the files of a container are.
pub(crate) fn owners(spec: &Spec) -> OwnerMap {
    let ranges = |mappings: Option<&Vec<LinuxIdMapping>>| {
        let range = |mapping: &LinuxIdMapping| IdRange {
            inside: mapping.container_id(),
            outside: mapping.host_id(),
            count: mapping.size(),
        };
        mappings.into_iter().flatten().map(range).collect()
    };
    let linux = spec.linux().as_ref();
    OwnerMap {
        uids: ranges(linux.and_then(|linux| linux.uid_mappings().as_ref())),
        gids: ranges(linux.and_then(|linux| linux.gid_mappings().as_ref())),
    }
}

/// What a container of the new image runs: what this one was started with, as Docker keeps it.
fn configuration(record: &Record, parent: Option<&Image>) -> Config {
    let image = parent.and_then(|parent| parent.config.config().clone()).unwrap_or_default();
    let (wish, facts) = (&record.config, &record.facts);
    let mut config = image.clone();
    let list = |words: Vec<String>| Some(words).filter(|words| !words.is_empty());
    if let Some(entrypoint) = &wish.entrypoint {
        let words = entrypoint.iter().filter(|word| !word.is_empty()).cloned().collect();
        config.set_entrypoint(list(words)).set_cmd(None);
    }
    if !wish.command.is_empty() {
        config.set_cmd(Some(wish.command.clone()));
    }
    config.set_env(list(facts.env.clone()));
    config.set_user(Some(facts.user.clone()).filter(|user| !user.is_empty()));
    if wish.workdir.is_some() {
        config.set_working_dir(Some(facts.workdir.clone()));
    }
    config.set_labels(Some(facts.labels.clone().into_iter().collect()).filter(|_| !facts.labels.is_empty()));
    if wish.stop_signal.is_some() {
        config.set_stop_signal(Some(facts.stop_signal.to_string()));
    }
    let mut ports = facts.exposed.clone();
    for port in &wish.ports {
        let protocol = port.protocol.word();
        ports.push(format!("{}/{protocol}", port.container_port));
    }
    let mut volumes = image.volumes().clone().unwrap_or_default();
    let anonymous =
        wish.mounts.iter().filter(|mount| matches!(mount.kind, MountKind::Volume { name: None, .. }));
    volumes.extend(anonymous.map(|mount| mount.destination.clone()));
    for all in [&mut ports, &mut volumes] {
        all.sort();
        all.dedup();
    }
    config.set_exposed_ports(list(ports)).set_volumes(list(volumes));
    config
}
