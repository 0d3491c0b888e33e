//! `create`: from a wish to a container that can be started.
//!
//! Order: check what needs nothing, find the image, unpack its layers, check the rest (the whole OCI configuration is
//! planned, so that what cannot start is refused here), then store the record, which takes the name, and make the
//! directory. Whatever fails, nothing of the container is left.

mod error;
mod network;
mod rootfs;

pub use error::{CreateError, UnpackError};
pub(crate) use network::network_mode;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use stanza_image::{Image, Platforms, Progress, ResolveError};
use stanza_snapshot::prepare;
use stanza_spec::oci::image::Config;
use stanza_spec::{
    ContainerConfig, ContainerId, Digest, Instant, MountKind, NamespaceMode, NetworkMode, Platform,
    PullPolicy, Reference, Rootfs, UsernsMode,
};

use crate::database::{Insert, InsertError, Phase, Record};
use crate::engine::{Fresh, Lock, make_directory};
use crate::record::{Facts, VolumeUse};
use crate::spec::userns;
use crate::spec::{self, MountError, Planned, SpecError};
use crate::{Engine, machine, names};

/// The reserved image: this machine's own root file system.
pub const HOST_IMAGE: &str = "host";

/// A container that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// Its name, perhaps an invented one.
    pub name: String,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What was found under the image's name.
struct Source {
    id: Option<Digest>,
    config: Option<Config>,
    image: Option<Image>,
}

impl Engine {
    /// Creates a container. `progress` is told when the image must be pulled.
    ///
    /// # Errors
    /// When the request is wrong, the image not to be had, the name taken, or the disk refuses.
    pub fn create(
        &mut self,
        config: ContainerConfig,
        progress: &mut dyn Progress,
    ) -> Result<Created, CreateError> {
        self.create_container(config, progress, false)
    }

    /// As [`Engine::create`] for a container that is started right afterwards: its address is taken in the same
    /// transaction, which saves one.
    ///
    /// # Errors
    /// As [`Engine::create`].
    pub fn create_to_start(
        &mut self,
        config: ContainerConfig,
        progress: &mut dyn Progress,
    ) -> Result<Created, CreateError> {
        self.create_container(config, progress, true)
    }

    fn create_container(
        &mut self,
        mut config: ContainerConfig,
        progress: &mut dyn Progress,
        to_start: bool,
    ) -> Result<Created, CreateError> {
        self.fresh = None;
        let mut warnings = Vec::new();
        self.check_wish(&mut config, &mut warnings)?;
        let source = self.find_image(&config, progress, &mut warnings)?;
        let id = names::container_id().map_err(|source| CreateError::File {
            what: "draw random numbers from",
            path: "getrandom".into(),
            source,
        })?;
        let mut facts = gather(&config, &source)?;
        let state_dir = self.options.container_dir(id.as_str());
        // The layers are held until the record says that they are needed.
        let (mut unpacked, mut held) = (None, None);
        if let Some(image) = &source.image {
            let stack = self.ensure_rootfs(image, &config.image, &state_dir, progress)?;
            facts.layers = stack.layers;
            (unpacked, held) = (Some(stack.rootfs), Some(stack.held));
        }
        let lock = make_state_directory(&self.options.containers_dir(), &state_dir).map_err(|source| {
            CreateError::File { what: "make the directory", path: state_dir.clone(), source }
        })?;
        let record = Record {
            name: config.name.clone().unwrap_or_else(|| names::suggest(&id, 0)),
            id,
            config,
            facts,
            created_at: Instant::now().rfc3339(),
            phase: if to_start { Phase::Started } else { Phase::Created },
            exit: None,
            leases: Vec::new(),
        };
        let completed = self.complete(record, unpacked, &state_dir);
        drop(held);
        match completed {
            Ok((record, rootfs, planned)) => {
                warnings.extend(planned.warnings.iter().cloned());
                let created = Created { id: record.id.clone(), name: record.name.clone(), warnings };
                let lock = if to_start { lock } else { None };
                self.fresh = Some(Fresh { record, rootfs, planned, lock });
                Ok(created)
            }
            Err(error) => {
                self.forget(&state_dir);
                Err(error)
            }
        }
    }

    /// The part of a creation that its failure must take back.
    fn complete(
        &mut self,
        mut record: Record,
        unpacked: Option<Rootfs>,
        state_dir: &Path,
    ) -> Result<(Record, Rootfs, Planned), CreateError> {
        let mut rootfs = match unpacked {
            Some(rootfs) => rootfs,
            None => self.plan_host_rootfs(state_dir).map_err(|error| CreateError::Unpack {
                image: HOST_IMAGE.to_owned(),
                source: error.into(),
            })?,
        };
        if record.config.userns == UsernsMode::Private {
            record.facts.id_base = Some(self.take_id_range(&record.id)?);
        }
        if let Rootfs::Copied { shift, .. } = &mut rootfs {
            record.facts.copied = true;
            *shift = record.facts.id_base.unwrap_or(0);
        }
        if record.facts.image.is_some() {
            rootfs = self.shift(rootfs, record.facts.id_base).map_err(|source| CreateError::File {
                what: "shift the owners of the layers in",
                path: self.options.root.clone(),
                source,
            })?;
        }
        let planned = self.plan_spec(&record)?;
        prepare(&rootfs).map_err(|source| CreateError::File {
            what: "prepare the writable layer in",
            path: state_dir.to_path_buf(),
            source,
        })?;
        let record = self.store(record)?;
        Ok((record, rootfs, planned))
    }

    /// What can be refused without looking at the image.
    fn check_wish(
        &mut self,
        config: &mut ContainerConfig,
        warnings: &mut Vec<String>,
    ) -> Result<(), CreateError> {
        crate::vm::refuse(config, self.options.rootless)?;
        if let Some(name) = &config.name {
            let name = name.strip_prefix('/').unwrap_or(name);
            if !stanza_spec::is_valid_container_name(name) {
                return Err(CreateError::Name(name.to_owned()));
            }
            config.name = Some(name.to_owned());
        }
        if config.uts == NamespaceMode::Host && config.hostname.is_some() {
            return Err(SpecError::Conflict("hostname and the UTS mode").into());
        }
        self.check_userns(config.userns)?;
        self.check_network(config, warnings)?;
        spec::check_mounts(&config.mounts).map_err(SpecError::from)?;
        config.mounts.iter().try_for_each(|mount| ensure_source(&mount.kind))
    }

    fn check_userns(&self, mode: UsernsMode) -> Result<(), CreateError> {
        match (mode, self.options.rootless) {
            (UsernsMode::Private, true) => Err(CreateError::Unsupported {
                what: "`--userns private` without root".into(),
                reason: "the kernel maps no file ids for it there",
            }),
            (UsernsMode::KeepId, false) => Err(CreateError::Unsupported {
                what: "`--userns keep-id` as root".into(),
                reason: "root is root already",
            }),
            _ => Ok(()),
        }
    }

    fn find_image(
        &mut self,
        config: &ContainerConfig,
        progress: &mut dyn Progress,
        warnings: &mut Vec<String>,
    ) -> Result<Source, CreateError> {
        if config.image == HOST_IMAGE {
            return Ok(Source { id: None, config: None, image: None });
        }
        let wanted = match &config.platform {
            Some(text) => Some(text.parse::<Platform>().map_err(|_| CreateError::Unsupported {
                what: format!("platform `{text}`"),
                reason: "expected `os/architecture` or `os/architecture/variant`",
            })?),
            None => None,
        };
        let fits = |image: &Image| wanted.as_ref().is_none_or(|wanted| image.platform().satisfies(wanted));
        let mut pull = |engine: &mut Engine, reference: &Reference| {
            let platforms = wanted.clone().map_or_else(Platforms::default, Platforms::One);
            let pulled = engine.pull(reference, platforms, true, None, progress);
            pulled.map_err(|error| CreateError::Pull(Box::new(error)))
        };
        let store = self.image_store().map_err(ResolveError::from)?;
        let mut found =
            if config.pull == PullPolicy::Always { None } else { Some(store.resolve(&config.image)) };
        let mut name = config.image.as_str();
        // The settings of registries are read only when the registry is the next to be asked.
        let alias = match &found {
            None | Some(Err(ResolveError::NotFound { .. })) => expand_alias(name)?,
            Some(_) => None,
        };
        if let Some(full) = &alias {
            // A failure tells of the name as it was given.
            if found.is_some()
                && let Ok(image) = store.resolve(full)
            {
                found = Some(Ok(image));
            }
            name = full;
        }
        let image = match found {
            Some(Ok(image)) if fits(&image) => image,
            Some(Ok(_)) if config.pull == PullPolicy::Never => {
                return Err(CreateError::Platform {
                    name: config.image.clone(),
                    wanted: wanted.map(|wanted| wanted.to_string()).unwrap_or_default(),
                });
            }
            Some(Err(error @ ResolveError::NotFound { .. })) => match name.parse::<Reference>() {
                Ok(reference) if config.pull != PullPolicy::Never => pull(self, &reference)?,
                _ => return Err(error.into()),
            },
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(_)) | None => match name.parse::<Reference>() {
                Ok(reference) => pull(self, &reference)?,
                Err(_) => return Err(ResolveError::NotFound { name: config.image.clone() }.into()),
            },
        };
        let host = Platform::host();
        if wanted.is_none() && !image.platform().satisfies(&host) {
            warnings.push(format!(
                "The requested image's platform ({}) does not match the detected host platform ({host}) and no specific platform was requested",
                image.platform()
            ));
        }
        Ok(Source { id: Some(image.id.clone()), config: image.config.config().clone(), image: Some(image) })
    }

    fn take_id_range(&mut self, id: &ContainerId) -> Result<u32, CreateError> {
        let granted = |path: &str| fs::read_to_string(path).ok().and_then(|text| userns::pool(&text));
        // One range serves uids and gids, so it must be granted in both files.
        let (first, length) = match (granted("/etc/subuid"), granted("/etc/subgid")) {
            (Some(uids), Some(gids)) if uids == gids => uids,
            _ => userns::DEFAULT_POOL,
        };
        self.database()?
            .take_id_range(id.as_str(), first, length, userns::RANGE)?
            .ok_or(CreateError::Exhausted("no range of user ids is left for `--userns private`"))
    }

    /// The whole OCI configuration of a container on record.
    pub(crate) fn plan_spec(&self, record: &Record) -> Result<Planned, SpecError> {
        let config = &record.config;
        // Who shares a container's network has its names and resolvers.
        let files_dir = match &config.network {
            Some(NetworkMode::Container(other)) => self.options.container_dir(other),
            _ => self.options.container_dir(record.id.as_str()),
        };
        let volumes_dir = self.options.volumes_dir();
        let mut user = record.facts.user.clone();
        let mappings = match config.userns {
            UsernsMode::Host => None,
            UsernsMode::Private => record.facts.id_base.map(|base| {
                let ids = vec![userns::mapping(0, base, userns::RANGE)];
                (ids.clone(), ids)
            }),
            UsernsMode::KeepId => {
                let own = |path: &str| {
                    fs::read_to_string(path).ok().and_then(|map| userns::outer(&map)).unwrap_or((0, 1))
                };
                let (uids, gids) = (own("/proc/self/uid_map"), own("/proc/self/gid_map"));
                if config.user.is_none() {
                    user = format!("{}:{}", uids.0, gids.0);
                }
                Some((userns::keep_id(uids.0, uids.1), userns::keep_id(gids.0, gids.1)))
            }
        };
        let hostname = self.hostname(record);
        let facts = if user == record.facts.user {
            std::borrow::Cow::Borrowed(&record.facts)
        } else {
            std::borrow::Cow::Owned(Facts { user, ..record.facts.clone() })
        };
        let raise = !config.ulimits.is_empty() && machine::may_raise_limits();
        spec::plan(spec::SpecInput {
            config,
            facts: &facts,
            network: self.network_mode(config),
            hostname: &hostname,
            state_dir: &files_dir,
            volumes_dir: &volumes_dir,
            rootless: self.options.rootless,
            mappings,
            available_capabilities: self.available_capabilities(),
            apparmor_profile: machine::apparmor_profile(),
            cpus: if config.resources.nano_cpus.is_some() { machine::cpus() } else { 1 },
            hard_limit: &|name| if raise { None } else { machine::hard_limit(name) },
            host_devices: if config.security.privileged { machine::host_devices() } else { Vec::new() },
        })
    }

    /// The bits of the capabilities that containers may have: without root all, in the user's namespace, whether this process is
    /// in it already or not.
    pub(crate) fn available_capabilities(&self) -> u64 {
        if self.options.rootless { u64::MAX } else { machine::available_capabilities() }
    }

    /// The name inside: the user's, the machine's where that is shared, else the short id.
    pub(crate) fn hostname(&self, record: &Record) -> String {
        let config = &record.config;
        match &config.hostname {
            Some(name) => name.clone(),
            None if config.uts == NamespaceMode::Host || self.network_mode(config) == NetworkMode::Host => {
                machine::host_name()
            }
            None => match self.network_mode(config) {
                // It shares the other one's names, too.
                NetworkMode::Container(other) => other
                    .parse()
                    .map_or_else(|_| record.id.short().to_owned(), |id: ContainerId| id.short().to_owned()),
                _ => record.id.short().to_owned(),
            },
        }
    }

    /// Makes the volumes and stores the record; gives it with the name and the addresses that it got.
    fn store(&mut self, mut record: Record) -> Result<Record, CreateError> {
        let id = record.id.clone();
        let invent = |attempt| names::suggest(&id, attempt);
        let wishes = self.wishes(&record.config)?;
        let volumes: Vec<(String, bool)> =
            record.facts.volumes.iter().map(|volume| (volume.name.clone(), volume.anonymous)).collect();
        self.make_volumes(&record)?;
        let insert = Insert {
            record: &record,
            invent: if record.config.name.is_none() { Some(&invent) } else { None },
            networks: &wishes,
            volumes: &volumes,
        };
        let mut outcome = self.database()?.insert(&insert);
        if matches!(outcome, Err(InsertError::Address(_))) && self.reclaim_addresses() {
            outcome = self.database()?.insert(&insert);
        }
        let stored = outcome.map_err(|error| match error {
            InsertError::NameTaken { name, owner } => CreateError::NameTaken { name, owner },
            InsertError::Address(refusal) => self.explain(refusal).into(),
            InsertError::Database(error) => CreateError::Database(error),
        });
        match stored {
            Ok((name, leases)) => {
                (record.name, record.leases) = (name, leases);
                Ok(record)
            }
            Err(error) => {
                for volume in record.facts.volumes.iter().filter(|volume| volume.anonymous) {
                    let _ = stanza_snapshot::remove_tree(&self.options.volumes_dir().join(&volume.name));
                }
                Err(error)
            }
        }
    }

    fn make_volumes(&self, record: &Record) -> Result<(), CreateError> {
        record.facts.volumes.iter().try_for_each(|volume| {
            let data = spec::volume_dir(&self.options.volumes_dir(), &volume.name);
            make_directory(&data, 0o755).map_err(|source| CreateError::File {
                what: "make the volume",
                path: data,
                source,
            })
        })
    }

    /// Takes the directory of a container away that did not come to be, and its id range.
    fn forget(&mut self, state_dir: &Path) {
        // Nothing can be done about a failure here that `system check --repair` does not do later.
        let _ = stanza_snapshot::remove_tree(state_dir);
        if let Ok(database) = self.database() {
            let _ = database.free_orphans();
        }
    }
}

/// Makes a container's directory so that it appears with its lock taken: a directory without a record, or a record
/// that says "started" beside a directory that nobody holds, means a dead door, and others may clear it.
fn make_state_directory(containers: &Path, state_dir: &Path) -> io::Result<Option<Lock>> {
    let mut name = std::ffi::OsString::from(".");
    name.push(state_dir.file_name().unwrap_or_default());
    let draft = containers.join(name);
    loop {
        make_directory(&draft, 0o711)?;
        let lock = Lock::take(&draft)?;
        match fs::rename(&draft, state_dir) {
            Ok(()) => return Ok(lock),
            // Cleared as a leftover in the moment before it was locked.
            Err(error) if error.kind() == io::ErrorKind::NotFound && containers.exists() => {}
            Err(error) => return Err(error),
        }
    }
}

/// What of the image and the wish becomes the record.
fn gather(config: &ContainerConfig, source: &Source) -> Result<Facts, CreateError> {
    let image = source.config.as_ref();
    let mut labels: BTreeMap<String, String> =
        image.and_then(|image| image.labels().clone()).unwrap_or_default().into_iter().collect();
    labels.extend(config.labels.clone());
    let mut exposed = image.and_then(|image| image.exposed_ports().clone()).unwrap_or_default();
    exposed.extend(config.expose.iter().map(|port| format!("{}/{}", port.port, port.protocol.word())));
    exposed.sort();
    exposed.dedup();
    let image_signal = || image?.stop_signal().as_deref().and_then(stanza_spec::signal::parse);
    let image_user = || image.and_then(|image| image.user().clone()).unwrap_or_default();
    let argv = if source.image.is_none() && config.command.is_empty() && config.entrypoint.is_none() {
        vec!["/bin/sh".to_owned()]
    } else {
        spec::process::argv(config, image)?
    };
    Ok(Facts {
        image: source.id.clone(),
        layers: Vec::new(),
        argv,
        env: spec::process::environment(config, image),
        workdir: spec::process::workdir(config, image)?,
        user: config.user.clone().unwrap_or_else(image_user),
        labels,
        exposed,
        stop_signal: config.stop_signal.or_else(image_signal).unwrap_or(15),
        volumes: volumes(config, image)?,
        copied: false,
        id_base: None,
    })
}

/// The container's volumes: those asked for, and an anonymous one for each place that the image keeps data in.
fn volumes(config: &ContainerConfig, image: Option<&Config>) -> Result<Vec<VolumeUse>, CreateError> {
    let anonymous_name = || {
        names::volume_name().map_err(|source| CreateError::File {
            what: "draw random numbers from",
            path: "getrandom".into(),
            source,
        })
    };
    let mut volumes = Vec::new();
    for mount in &config.mounts {
        let MountKind::Volume { name, no_copy } = &mount.kind else { continue };
        volumes.push(VolumeUse {
            name: name.clone().map_or_else(anonymous_name, Ok)?,
            destination: mount.destination.clone(),
            read_only: mount.read_only,
            anonymous: name.is_none(),
            no_copy: *no_copy,
        });
    }
    let mut declared = image.and_then(|image| image.volumes().clone()).unwrap_or_default();
    declared.sort();
    for destination in declared {
        // A hostile or careless image does not get to hide the root or /proc, or to name a relative place.
        let legal = spec::is_legal_destination(&destination);
        if legal && !spec::is_covered(&config.mounts, &destination) {
            volumes.push(VolumeUse {
                name: anonymous_name()?,
                destination,
                read_only: false,
                anonymous: true,
                no_copy: false,
            });
        }
    }
    Ok(volumes)
}

/// A bind mount's source must be there, or is made when the wish says so.
fn ensure_source(kind: &MountKind) -> Result<(), CreateError> {
    let MountKind::Bind { source, create_source, .. } = kind else { return Ok(()) };
    let path = Path::new(source);
    let failed = |what, error| CreateError::File { what, path: path.to_path_buf(), source: error };
    match fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if *create_source {
                make_directory(path, 0o755).map_err(|error| failed("make the bind mount's source", error))
            } else {
                Err(SpecError::from(MountError::SourceMissing(source.clone())).into())
            }
        }
        Err(error) => Err(failed("look at the bind mount's source", error)),
    }
}

/// What a short name means by the settings of registries.
fn expand_alias(name: &str) -> Result<Option<String>, CreateError> {
    stanza_image::expand_alias(name)
        .map_err(|error| CreateError::Pull(Box::new(stanza_image::RegistryError::from(error).into())))
}
