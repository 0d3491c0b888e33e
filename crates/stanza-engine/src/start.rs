//! `start`: from a record to a running container.
//!
//! Everything is planned here, as plain data; the monitor applies it. The order keeps what a crash may leave small:
//! the record says "started" (and holds the address) before anything exists that would have to be cleared.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use stanza_cgroup::CgroupPlan;
use stanza_container::CopyUp;
use stanza_network::NetworkPlan;
use stanza_sandbox::{LogPlan, SandboxPlan, Spawned, Started, Status};
use stanza_spec::oci::runtime::Spec;
use stanza_spec::{Classify, ContainerId, ErrorKind, NetworkMode, Rootfs};

use crate::Engine;
use crate::create::UnpackError;
use crate::database::{DatabaseError, Phase, Record};
use crate::engine::{Fresh, Lock, make_directory};
use crate::networks::NetworkError;
use crate::seccomp::SeccompError;
use crate::spec::{self, FILES, Planned, SpecError};
use crate::vm;

/// One log file's size in bytes when nothing is said.
pub(crate) const LOG_SIZE: u64 = 20 << 20;
/// Log files kept when nothing is said.
pub(crate) const LOG_FILES: u32 = 5;

/// Why a container was not started. It is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is none.
    #[error("No such container: {0}")]
    NotFound(String),
    /// It runs already.
    #[error("container {0} is already running")]
    Running(String),
    /// Its directory is gone.
    #[error("the directory `{}` of the container is gone", .0.display())]
    Directory(PathBuf),
    /// Its configuration does not fit this machine any more.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Its layers are not there.
    #[error("cannot put the root file system together")]
    Rootfs(#[source] UnpackError),
    /// Its system call filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// The disk of its virtual machine.
    #[error(transparent)]
    Disk(#[from] stanza_snapshot::DiskError),
    /// Its control groups.
    #[error(transparent)]
    Cgroup(#[from] stanza_cgroup::PlanError),
    /// Its networks, or no address left in them.
    #[error("cannot join its networks")]
    Network(#[source] Box<NetworkError>),
    /// The way out of its network namespace.
    #[error(transparent)]
    UserMode(#[from] stanza_network::UserModeError),
    /// A file or directory.
    #[error("cannot {what} `{}`", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The monitor or the container's first process.
    #[error(transparent)]
    Sandbox(#[from] stanza_sandbox::StartError),
    /// Its state cannot be read.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for StartError {
    fn kind(&self) -> ErrorKind {
        match self {
            StartError::NotFound(_) => ErrorKind::NotFound,
            StartError::Running(_) => ErrorKind::Conflict,
            StartError::Directory(_) => ErrorKind::Corrupt,
            StartError::Spec(error) => error.kind(),
            StartError::Rootfs(error) => error.kind(),
            StartError::Seccomp(error) => error.kind(),
            StartError::Disk(error) => error.kind(),
            StartError::Cgroup(error) => error.kind(),
            StartError::Network(error) => error.kind(),
            StartError::UserMode(error) => error.kind(),
            StartError::File { source, .. } => ErrorKind::of_io(source),
            StartError::Sandbox(error) => error.kind(),
            StartError::Status(error) => error.kind(),
            StartError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            StartError::NotFound(_) => Some("`stanza ps -a` lists all containers".to_owned()),
            StartError::Directory(_) => Some("remove the container with `stanza rm`".to_owned()),
            StartError::Spec(error) => error.hint(),
            StartError::Rootfs(error) => error.hint(),
            StartError::Seccomp(error) => error.hint(),
            StartError::Cgroup(error) => error.hint(),
            StartError::Network(error) => error.hint(),
            StartError::UserMode(error) => error.hint(),
            StartError::Sandbox(error) => error.hint(),
            StartError::Status(error) => error.hint(),
            StartError::Database(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<NetworkError> for StartError {
    fn from(error: NetworkError) -> StartError {
        match error {
            NetworkError::Database(error) => error.into(),
            error => StartError::Network(Box::new(error)),
        }
    }
}

/// A container whose lock is held, with what its start needs.
struct Ready {
    record: Record,
    rootfs: Rootfs,
    planned: Planned,
    lock: Lock,
    /// Creation has noted the start already, and taken the addresses.
    noted: bool,
}

impl Engine {
    /// Starts a container: `monitor` waits for the plan that is made here. `attached` says that the caller stays with
    /// it through [`Started::connection`]; `console_size` holds rows and columns of its terminal.
    ///
    /// The second part of the answer are warnings.
    ///
    /// # Errors
    /// When there is no such container, when it runs, or when it cannot be started: then it is as before, and gone
    /// when it was to be removed at its end.
    pub fn start(
        &mut self,
        id: &ContainerId,
        monitor: Spawned,
        attached: bool,
        console_size: Option<(u16, u16)>,
    ) -> Result<(Started, Vec<String>), StartError> {
        let mut ready = self.ready(id)?;
        let before = (ready.record.phase, ready.record.exit.clone());
        let mut result = self.launch(&mut ready, monitor, attached, console_size);
        if let Err(error) = &mut result {
            self.name_holder(&ready.record, error);
            // A monitor that says why it failed has left nothing; one that says nothing was killed.
            if matches!(error, StartError::Sandbox(stanza_sandbox::StartError::Monitor(_))) {
                self.clear_lost(&ready.record, &ready.lock);
                // Nobody is told of a run that never was.
                let _ = fs::remove_file(self.options.container_dir(id.as_str()).join("exit.json"));
            }
            self.take_back(&ready.record, before);
        }
        // Nobody waits for two containers at once.
        drop(ready);
        if let Ok((started, warnings)) = &mut result
            && started.made_rules
        {
            warnings.extend(self.reload_others(id));
        }
        result
    }

    fn launch(
        &mut self,
        ready: &mut Ready,
        monitor: Spawned,
        attached: bool,
        console_size: Option<(u16, u16)>,
    ) -> Result<(Started, Vec<String>), StartError> {
        self.note_start(&mut ready.record, ready.noted)?;
        let mut warnings = Vec::new();
        let plan = self.sandbox_plan(ready, attached, console_size, &mut warnings)?;
        let started = monitor.start(&plan, ready.lock.as_fd())?;
        warnings.extend(started.notice.clone());
        Ok((started, warnings))
    }

    /// The container that was just created, or the one on record; locked, and not running.
    fn ready(&mut self, id: &ContainerId) -> Result<Ready, StartError> {
        let fresh = self.fresh.take().filter(|fresh| fresh.record.id == *id);
        let state_dir = self.options.container_dir(id.as_str());
        if let Some(Fresh { record, rootfs, planned, lock: Some(lock) }) = fresh {
            return Ok(Ready { record, rootfs, planned, lock, noted: true });
        }
        let locked = self.lock(id.as_str());
        let lock =
            locked.map_err(|source| StartError::File { what: "lock", path: state_dir.clone(), source })?;
        let found = self.database()?.container(id)?;
        let Some(mut record) = found else { return Err(StartError::NotFound(id.to_string())) };
        let Some(lock) = lock else { return Err(StartError::Directory(state_dir)) };
        if let Some(fresh) = fresh.filter(|fresh| fresh.record == record) {
            let Fresh { record, rootfs, planned, .. } = fresh;
            return Ok(Ready { record, rootfs, planned, lock, noted: false });
        }
        if record.phase != Phase::Created {
            match stanza_sandbox::status(&self.options.run_dir(id.as_str()), &state_dir)? {
                Status::Running(_) => return Err(StartError::Running(record.name)),
                Status::Lost(_) => {
                    self.clear_lost(&record, &lock);
                    record.leases = Vec::new();
                }
                Status::Created | Status::Exited(_) => {}
            }
            // The exit record of the last run must not be taken for this one's.
            match fs::remove_file(state_dir.join("exit.json")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StartError::File {
                        what: "remove",
                        path: state_dir.join("exit.json"),
                        source: error,
                    });
                }
                _ => {}
            }
        }
        let rootfs = self.plan_rootfs(&record);
        let planned = self.plan_spec(&record)?;
        Ok(Ready { rootfs: rootfs.map_err(StartError::Rootfs)?, record, planned, lock, noted: false })
    }

    /// Notes the start and takes the addresses, unless creation did both.
    fn note_start(&mut self, record: &mut Record, noted: bool) -> Result<(), StartError> {
        if noted {
            return Ok(());
        }
        let wishes = self.wishes(&record.config)?;
        let id = record.id.clone();
        let mut outcome = self.database()?.start_with_leases(id.as_str(), &wishes)?;
        if outcome.is_err() && self.reclaim_addresses() {
            outcome = self.database()?.start_with_leases(id.as_str(), &wishes)?;
        }
        record.leases = outcome.map_err(|refusal| self.explain(refusal))?;
        Ok(())
    }

    /// Tells of a port that could not be published which container has it.
    fn name_holder(&mut self, record: &Record, error: &mut StartError) {
        let StartError::Sandbox(stanza_sandbox::StartError::Refused { message, hint, .. }) = error else {
            return;
        };
        let told = |port: u16| message.contains(&format!(":{port}`"));
        let wanted: Vec<_> =
            record.config.ports.iter().filter(|port| port.host_port.is_some_and(told)).collect();
        if wanted.is_empty() {
            return;
        }
        // The failure is told in any case; that this cannot be found out would hide it.
        let rows = self.database().and_then(|database| database.rows()).unwrap_or_default();
        for row in rows.iter().filter(|row| row.phase == Phase::Started && row.id != record.id.as_str()) {
            let Ok(other) = self.database().and_then(|database| database.decode(row)) else { continue };
            let Ok(Status::Running(running)) = self.look(&other) else { continue };
            let clash = running.ports.iter().find(|held| {
                wanted.iter().any(|port| port.host_port == held.host_port && port.protocol == held.protocol)
            });
            if let Some(number) = clash.and_then(|held| held.host_port) {
                *hint = Some(format!("the container `{}` publishes port {number}", other.name));
                return;
            }
        }
    }

    /// After a failed start: the container is as before, or gone when it was to go at its end.
    fn take_back(&mut self, record: &Record, (phase, exit): (Phase, Option<String>)) {
        // The start's own failure is what the caller must hear; what fails here is found by `system check`.
        if record.config.auto_remove {
            let _ = self.erase(record, true);
        } else {
            // The monitor did it, unless it was killed.
            if matches!(record.config.network, Some(NetworkMode::Cni(_))) {
                self.clear_cni(&record.id);
            }
            let phase = if phase == Phase::Started { Phase::Created } else { phase };
            if let Ok(database) = self.database() {
                let _ = database.set_unstarted(record.id.as_str(), phase, exit.as_deref());
            }
        }
    }

    fn sandbox_plan(
        &mut self,
        ready: &mut Ready,
        attached: bool,
        console_size: Option<(u16, u16)>,
        warnings: &mut Vec<String>,
    ) -> Result<SandboxPlan, StartError> {
        let record = &ready.record.clone();
        let config = &record.config;
        let state_dir = self.options.container_dir(record.id.as_str());
        let run_dirs = self.options.run_dirs();
        make_directory(&run_dirs, 0o711).map_err(|source| StartError::File {
            what: "make the directory",
            path: run_dirs,
            source,
        })?;
        self.check_shared_way_out(record)?;
        let network = match self.user_mode_plan(record)? {
            Some(plan) => NetworkPlan::UserMode(plan),
            None => self.network_plan(record)?,
        };
        let cgroup = self.cgroup_plan(record, &ready.planned.spec, warnings)?;
        let seccomp = self.ensure_filter(config, &ready.planned.capabilities)?;
        self.write_files(record, &network, &state_dir)?;
        let log = Self::log_plan(record, &state_dir);
        let machine = self.machine_plan(record, &ready.rootfs, &state_dir)?;
        Ok(SandboxPlan {
            id: record.id.clone(),
            run_dir: self.options.run_dir(record.id.as_str()),
            spec: std::mem::take(&mut ready.planned.spec),
            rootfs: ready.rootfs.clone(),
            seccomp,
            cgroup,
            network,
            machine,
            copy_up: self.copy_up(record),
            tty: config.tty,
            open_stdin: config.open_stdin,
            console_size,
            log,
            on_exit: config.auto_remove.then(|| self.reap_command(&record.id)),
            attached,
            state_dir,
        })
    }

    /// The control groups of a container: `stanza/<id>` in each hierarchy.
    pub(crate) fn cgroup_plan(
        &self,
        record: &Record,
        spec: &Spec,
        warnings: &mut Vec<String>,
    ) -> Result<Option<CgroupPlan>, stanza_cgroup::PlanError> {
        let resources = vm::host_resources(&record.config, spec);
        let Ok(layout) = stanza_cgroup::detect() else {
            warnings.push("this machine has no control groups: limits do not apply".to_owned());
            return Ok(None);
        };
        let path = format!("stanza/{}", record.id);
        let (plan, told) = stanza_cgroup::plan(&layout, &path, &resources, self.options.rootless)?;
        warnings.extend(told.iter().map(ToString::to_string));
        Ok(Some(plan))
    }

    /// The log's directory is made by who needs it first: the monitor at the first output, or a reader that follows.
    fn log_plan(record: &Record, state_dir: &Path) -> LogPlan {
        let log = &record.config.log;
        LogPlan {
            driver: log.driver,
            path: state_dir.join("log/container.log"),
            max_size: log.max_size.unwrap_or(LOG_SIZE),
            max_files: log.max_files.unwrap_or(LOG_FILES).max(1),
        }
    }

    /// Empty volumes that are to be filled with what the image has at their place.
    pub(crate) fn copy_up(&self, record: &Record) -> Vec<CopyUp> {
        let volumes_dir = self.options.volumes_dir();
        let volumes = record.facts.volumes.iter().filter(|volume| !volume.no_copy);
        volumes
            .map(|volume| CopyUp {
                source: spec::volume_dir(&volumes_dir, &volume.name),
                destination: PathBuf::from(&volume.destination),
            })
            .filter(|copy| fs::read_dir(&copy.source).is_ok_and(|mut entries| entries.next().is_none()))
            .collect()
    }

    /// What a monitor turns itself into when a container that is to be removed has ended.
    fn reap_command(&self, id: &ContainerId) -> Vec<String> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let options = &self.options;
        let words = ["--root", &path(&options.root), "--runroot", &path(&options.runroot), "system", "reap"];
        std::iter::once("/proc/self/exe").chain(words).chain([id.as_str()]).map(str::to_owned).collect()
    }

    /// Writes `hostname`, `hosts` and `resolv.conf`, but for those in whose place the user mounts something. Who shares another
    /// container's network has that one's.
    fn write_files(
        &mut self,
        record: &Record,
        network: &NetworkPlan,
        state_dir: &Path,
    ) -> Result<(), StartError> {
        if matches!(network, NetworkPlan::Join { .. }) {
            return Ok(());
        }
        for (name, destination) in FILES {
            if spec::is_covered(&record.config.mounts, destination) {
                continue;
            }
            let path = state_dir.join(name);
            let text = match name {
                "hostname" => format!("{}\n", self.hostname(record)),
                "hosts" => self.hosts(record, network),
                _ => self.resolv_conf(record, network)?,
            };
            let owned = fs::write(&path, text).and_then(|()| match record.facts.id_base {
                Some(base) => std::os::unix::fs::chown(&path, Some(base), Some(base)),
                None => Ok(()),
            });
            owned.map_err(|source| StartError::File { what: "write", path, source })?;
        }
        Ok(())
    }
}
